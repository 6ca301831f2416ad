"""A second learner: XGBoost beside LightGBM, and the two blended; kept only where money and time say so.

Belongs here: the blend, the choice of its weight on validation folds, its price in time, the verdict.
Does not belong here: serving a blend; the service scores LightGBM alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fraud_platform.evaluate.folds import Role
from fraud_platform.evaluate.money import RESAMPLES
from fraud_platform.learning.boosting import Scorer
from fraud_platform.learning.contest import (
    Contest,
    Judged,
    Report,
    Standing,
    cheapest,
    judge,
    standings,
)
from fraud_platform.learning.extra import load_extra
from fraud_platform.learning.lessons import Lesson, thinned
from fraud_platform.learning.ways import Learned
from fraud_platform.learning.xgboost_learner import XgboostModel, fit_xgboost
from fraud_platform.policy import Policy
from fraud_platform.train import Booster, TrainParams, fit_booster

LIGHTGBM, XGBOOST = "lightgbm", "xgboost"
WEIGHTS = (0.25, 0.5, 0.75)
"""XGBoost's part of the log-odds; 0 and 1 are the learners themselves."""
LATENCY_BUDGET_MS = 1.0
"""What scoring one row may take at the 99th percentile: a decision takes about a millisecond in all."""
TIMED_ROWS, TIMES = 1_000, 5
_EDGE = 1e-12

OneRow = Callable[[np.ndarray], float]
"""Scores one row (k,)."""
Loader = Callable[[str], OneRow]
"""From a LightGBM model's text to the way in which the service scores one row."""


@dataclass(frozen=True)
class Latency:
    """Scoring one row after another, in ms: quantiles over rows, of the least time that each row took."""

    way: str
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Blending:
    """The contest, what scoring takes, and whether the second learner is worth it, with the reasons."""

    contest: Contest
    latencies: tuple[Latency, ...]
    budget_ms: float

    @property
    def second(self) -> str:
        """The cheapest way on the validation folds that XGBoost is part of."""
        return cheapest([one for one in self.contest.validation if one.way != LIGHTGBM])

    @property
    def is_saving(self) -> bool:
        """It saves money for certain on the test folds."""
        return self._tested.saved.low > 0.0

    @property
    def is_in_time(self) -> bool:
        return self._latency.p99_ms <= self.budget_ms

    @property
    def is_kept(self) -> bool:
        return self.is_saving and self.is_in_time

    def reasons(self) -> tuple[str, ...]:
        """Sentences for people, the verdict last."""
        money = "for certain" if self.is_saving else "not for certain"
        timely = "within" if self.is_in_time else "above"
        return (
            f"chosen on the validation folds: {self.second}",
            f"on the test folds it saves {self._tested.saved.short()} per 1,000 transactions against "
            f"LightGBM alone: {money}",
            f"scoring a row takes {self._latency.p99_ms:.3f} ms at the 99th percentile, {timely} the "
            f"budget of {self.budget_ms:g} ms",
            f"{self.second} is worth serving: a bundle would have to carry both models"
            if self.is_kept
            else "LightGBM alone stays",
        )

    @property
    def _tested(self) -> Standing:
        return next(one for one in self.contest.test if one.way == self.second)

    @property
    def _latency(self) -> Latency:
        return next(one for one in self.latencies if one.way == self.second)


@dataclass(frozen=True)
class _Pair:
    """Both learners of one lesson."""

    booster: Booster
    second: XgboostModel
    rows: int
    frauds: int
    share: float
    threads: int
    seconds: tuple[float, float]

    def lightgbm(self, matrix: np.ndarray) -> np.ndarray:
        return np.asarray(self.booster.predict(matrix, num_threads=self.threads), dtype=np.float64)


def blend_bakeoff(
    lessons: Iterable[Lesson],
    policy: Policy,
    load: Loader,
    params: TrainParams | None = None,
    budget_ms: float = LATENCY_BUDGET_MS,
    resamples: int = RESAMPLES,
    report: Report = lambda message: None,
) -> Blending:
    """LightGBM, XGBoost and their blends on validation folds; on test folds, both learners and the best.

    Everything is learned from the same rows, and calibrated on the same held-out rows. load: how the service
    scores a row by LightGBM. SettingsError without the extra `learning`.
    """
    load_extra("xgboost")
    settings = params or TrainParams()
    judged: dict[Role, list[Judged]] = {"validation": [], "test": []}
    competing: tuple[str, ...] = (LIGHTGBM, XGBOOST, *map(_name, WEIGHTS))
    found: tuple[Standing, ...] = ()
    for lesson in lessons:
        if lesson.fold.role == "test" and not found:
            found = standings(judged["validation"], LIGHTGBM, resamples)
            second = cheapest([one for one in found if one.way != LIGHTGBM])
            competing = tuple(dict.fromkeys((LIGHTGBM, XGBOOST, second)))
            report(f"{second} has the least cost on the validation folds")
        pair = _learn(lesson, settings)
        for way in competing:
            one = judge(way, lesson, partial(_learned, pair, way), policy)
            learning = sum(spent for spent, part in zip(pair.seconds, _parts(way), strict=True) if part)
            judged[lesson.fold.role].append(replace(one, seconds=one.seconds + learning))
        report(f"{lesson.fold}: learned twice in {sum(pair.seconds):.1f} s")
    tested = standings(judged["test"], LIGHTGBM, resamples)
    return Blending(
        Contest(LIGHTGBM, cheapest(found), found, tested),
        latencies(one_row_scorers(pair, load, competing), lesson.assessed.matrix),
        budget_ms,
    )


def mixed(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Two scores from 0 to 1, (n,) each, as one: the mean of their log-odds; `weight` is the second's."""
    margin = (1.0 - weight) * _log_odds(first) + weight * _log_odds(second)
    return 1.0 / (1.0 + np.exp(-margin))


def one_row_scorers(pair: _Pair, load: Loader, ways: Iterable[str]) -> dict[str, OneRow]:
    """How each way would score one request: LightGBM as the service does, XGBoost with one thread."""
    first, second = load(pair.booster.model_to_string()), pair.second.one_row()

    def blended(row: np.ndarray, weight: float) -> float:
        return float(mixed(np.array(first(row)), np.array(second(row)), weight))

    plain = {LIGHTGBM: first, XGBOOST: second}
    return {way: plain.get(way) or partial(blended, weight=_weight(way)) for way in ways}


def latencies(scorers: Mapping[str, OneRow], matrix: np.ndarray) -> tuple[Latency, ...]:
    """Rows of the matrix (n, k) one after another, the same to each way.

    Each row is timed TIMES times and counts with its least: what other processes take is not the model's.
    """
    rows = np.ascontiguousarray(matrix[:TIMED_ROWS])
    found = []
    for way, score in scorers.items():
        spent = np.full(len(rows), np.inf)
        for _ in range(TIMES):
            for place, row in enumerate(rows):
                started = time.perf_counter()
                score(row)
                spent[place] = min(spent[place], time.perf_counter() - started)
        p50, p99 = np.quantile(spent, (0.5, 0.99)) * 1_000.0
        found.append(Latency(way, float(p50), float(p99)))
    return tuple(found)


def _learn(lesson: Lesson, params: TrainParams) -> _Pair:
    settings = thinned(params, lesson)
    rows, share = lesson.drawn(settings.legit_share, settings.seed)
    held_out = lesson.held_out
    started = time.perf_counter()
    booster = fit_booster(
        rows.matrix, rows.is_fraud, lesson.contract, settings, (held_out.matrix, held_out.is_fraud)
    )
    between = time.perf_counter()
    second = fit_xgboost(rows, held_out, share, lesson.contract, settings)
    seconds = (between - started, time.perf_counter() - between)
    return _Pair(booster, second, len(rows), int(rows.is_fraud.sum()), share, settings.threads, seconds)


def _learned(pair: _Pair, way: str) -> Learned:
    scorers: dict[str, Scorer] = {LIGHTGBM: pair.lightgbm, XGBOOST: pair.second.score}

    def blended(matrix: np.ndarray) -> np.ndarray:
        return mixed(pair.lightgbm(matrix), pair.second.score(matrix), _weight(way))

    return Learned(scorers.get(way, blended), pair.rows, pair.frauds, pair.share)


def _name(weight: float) -> str:
    return f"blend {weight:g}"


def _weight(way: str) -> float:
    return float(way.removeprefix("blend "))


def _parts(way: str) -> tuple[bool, bool]:
    """Whether LightGBM and XGBoost take part."""
    return way != XGBOOST, way != LIGHTGBM


def _log_odds(score: np.ndarray) -> np.ndarray:
    inside = np.clip(score, _EDGE, 1.0 - _EDGE)
    return np.log(inside / (1.0 - inside))
