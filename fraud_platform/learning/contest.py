"""Ways to learn against each other: calibrated, priced and measured alike, on the same folds.

Belongs here: judging one way on one fold, the standings over folds, the choice and what it is worth.
Does not belong here: the ways themselves (`ways`, `resampling`, `blend`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fraud_platform.calibration import Calibrator
from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import Interval, Quality, measure, paired_bootstrap
from fraud_platform.evaluate.folds import Role
from fraud_platform.evaluate.metrics import calibration_bins, calibration_error
from fraud_platform.evaluate.money import RESAMPLES
from fraud_platform.learning.lessons import Lesson, Rows
from fraud_platform.learning.ways import Learned, Way
from fraud_platform.policy import Policy
from fraud_platform.train import TrainParams

SEED = 20_181
PER = 1_000
"""Transactions that money is told for."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Judged:
    """One way on one fold; arrays are of the assessed rows, (n,); seconds: to learn and to score them.

    taught, share: as `rows` and `share` of what was learned.
    """

    way: str
    assessed: Rows
    taught: int
    share: float
    quality: Quality
    score: np.ndarray
    probability: np.ndarray
    cost: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Standing:
    """A way over the folds of one role.

    average_precision, auc, card_precision and seconds are means over folds; money is of all rows together, in
    major units per 1,000 transactions, `saved` against the reference on the same rows. calibration_error: of
    all rows; raw_calibration_error: of the scores before they were calibrated. share: of the legitimate rows,
    those that were read; rows: that taught, made-up ones included (both means over folds).
    """

    way: str
    folds: int
    assessed: int
    frauds: int
    rows: float
    share: float
    average_precision: float
    auc: float
    card_precision: float
    cost: Interval
    saved: Interval
    calibration_error: float
    raw_calibration_error: float
    seconds: float


@dataclass(frozen=True)
class Contest:
    """`winner` has the least cost on the validation folds; on the test folds it meets the reference only."""

    reference: str
    winner: str
    validation: tuple[Standing, ...]
    test: tuple[Standing, ...]

    @property
    def tested(self) -> Standing:
        """The winner on the test folds."""
        return next(one for one in self.test if one.way == self.winner)

    @property
    def is_better(self) -> bool:
        """The winner is another than the reference, and saves money for certain on the test folds."""
        return self.winner != self.reference and self.tested.saved.low > 0.0

    def explain(self) -> tuple[str, ...]:
        """Sentences for people."""
        first, last = self.validation[0], self.tested
        chosen = next(one for one in self.validation if one.way == self.winner)
        lines = [
            f"{first.folds} validation folds of {first.assessed:,} rows with {first.frauds:,} frauds choose, "
            f"{last.folds} test folds of {last.assessed:,} rows with {last.frauds:,} frauds judge; money is "
            f"major units per {PER:,} transactions",
            f"least cost on the validation folds: {self.winner}, {chosen.cost.short()}",
        ]
        if self.winner == self.reference:
            return (*lines, f"so {self.reference} stays: on the test folds it costs {last.cost.short()}")
        verdict = "it is the better choice" if self.is_better else f"not for certain: {self.reference} stays"
        return (
            *lines,
            f"on the test folds {self.winner} saves {last.saved.short()} against {self.reference}: {verdict}",
        )


def contest(
    lessons: Iterable[Lesson],
    ways: Sequence[Way],
    params: TrainParams,
    policy: Policy,
    reference: str,
    resamples: int = RESAMPLES,
    report: Report = lambda message: None,
) -> Contest:
    """Every way on the validation folds, then the winner and the reference on the test folds.

    lessons: validation folds first. TrainingError where a role has no fold.
    """
    judged: dict[Role, list[Judged]] = {"validation": [], "test": []}
    chosen: tuple[Standing, ...] = ()
    winner, competing = reference, tuple(ways)
    for lesson in lessons:
        role = lesson.fold.role
        if role == "test" and not chosen:
            chosen = standings(judged["validation"], reference, resamples)
            winner = cheapest(chosen)
            competing = tuple(way for way in ways if way.name in (reference, winner))
            report(f"{winner} has the least cost on the validation folds")
        for way in competing:
            one = judge(way.name, lesson, partial(way.learn, lesson, params, policy), policy)
            judged[role].append(one)
            report(f"{lesson.fold}: {way.name}, AP {one.quality.average_precision:.3f}, {one.seconds:.1f} s")
    return Contest(reference, winner, chosen, standings(judged["test"], reference, resamples))


def judge(name: str, lesson: Lesson, learn: Callable[[], Learned], policy: Policy) -> Judged:
    """Learn, calibrate on the held-out part, and act on the assessed part by the policy."""
    started = time.perf_counter()
    learned = learn()
    calibrator = Calibrator.fit(learned.score(lesson.held_out.matrix), lesson.held_out.is_fraud)
    rows = lesson.assessed
    score = learned.score(rows.matrix)
    seconds = time.perf_counter() - started
    probability = calibrator(score)
    actions = policy.actions(probability, rows.amount)
    return Judged(
        way=name,
        assessed=rows,
        taught=learned.rows,
        share=learned.share,
        quality=measure(score, probability, rows.is_fraud, rows.event_time, rows.card_id),
        score=score,
        probability=probability,
        cost=policy.realized_costs(actions, rows.is_fraud, rows.amount),
        seconds=seconds,
    )


def standings(judged: Sequence[Judged], reference: str, resamples: int = RESAMPLES) -> tuple[Standing, ...]:
    """One a way, in their first order. TrainingError where there is no fold or the reference is missing."""
    by_way: dict[str, list[Judged]] = {}
    for one in judged:
        by_way.setdefault(one.way, []).append(one)
    if reference not in by_way:
        raise TrainingError(f"nothing was judged for the reference {reference!r}: give folds of both roles")
    first = [one.assessed for one in by_way[reference]]
    cards = np.concatenate([rows.card_id for rows in first])
    scale = PER / len(cards)
    costs = {name: np.concatenate([one.cost for one in those]) * scale for name, those in by_way.items()}
    cost = paired_bootstrap(costs, cards, SEED, resamples)
    saved = paired_bootstrap(
        {name: costs[reference] - own for name, own in costs.items()}, cards, SEED, resamples
    )
    return tuple(_standing(name, those, cost[name], saved[name]) for name, those in by_way.items())


def cheapest(found: Sequence[Standing]) -> str:
    """The way of least cost; of equal ones the first."""
    return min(found, key=lambda one: one.cost.estimate).way


def _standing(name: str, judged: Sequence[Judged], cost: Interval, saved: Interval) -> Standing:
    is_fraud = np.concatenate([one.assessed.is_fraud for one in judged])

    def error(values: Iterable[np.ndarray]) -> float:
        return calibration_error(calibration_bins(np.concatenate(list(values)), is_fraud))

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    return Standing(
        way=name,
        folds=len(judged),
        assessed=len(is_fraud),
        frauds=int(is_fraud.sum()),
        rows=mean(one.taught for one in judged),
        share=mean(one.share for one in judged),
        average_precision=mean(one.quality.average_precision for one in judged),
        auc=mean(one.quality.auc for one in judged),
        card_precision=mean(one.quality.card_precision for one in judged),
        cost=cost,
        saved=saved,
        calibration_error=error(one.probability for one in judged),
        raw_calibration_error=error(one.score for one in judged),
        seconds=mean(one.seconds for one in judged),
    )
