"""Search for training parameters on validation folds; what it finds is judged on test folds.

Belongs here: the space, what a trial costs or ranks, when to stop, the answer.
Does not belong here: how the next trial is chosen and where trials are kept (`adapters.optuna`), who uses the
answer (`train`, when told to).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol, get_args

import numpy as np

from fraud_platform.errors import SettingsError
from fraud_platform.evaluate.money import RESAMPLES
from fraud_platform.learning.contest import PER, Judged, Report, Standing, judge, standings
from fraud_platform.learning.lessons import Lesson
from fraud_platform.learning.ways import as_shipped
from fraud_platform.policy import Policy
from fraud_platform.train import TrainParams

Metric = Literal["cost", "average_precision"]
METRICS: tuple[Metric, ...] = get_args(Metric)
DEFAULTS, FOUND = "defaults", "found"
FILE_VERSION = 1


@dataclass(frozen=True)
class Dimension:
    """One parameter of TrainParams from `low` to `high`, both included."""

    name: str
    low: float
    high: float
    is_whole: bool = False
    is_log: bool = True


SPACE = (
    Dimension("learning_rate", 0.02, 0.2),
    Dimension("num_leaves", 7, 127, is_whole=True),
    Dimension("min_data_in_leaf", 10, 300, is_whole=True),
    Dimension("feature_fraction", 0.2, 1.0, is_log=False),
    Dimension("bagging_fraction", 0.5, 1.0, is_log=False),
    Dimension("lambda_l2", 0.1, 100.0),
    Dimension("legit_share", 0.02, 1.0),
)


@dataclass(frozen=True)
class Trial:
    """`values`: the metric of each validation fold that was learned; `value`: of all, None where pruned."""

    number: int
    params: dict[str, float]
    values: tuple[float, ...]
    value: float | None
    seconds: float

    @property
    def is_pruned(self) -> bool:
        return self.value is None


class Asked(Protocol):
    """A trial that has begun."""

    params: dict[str, float]

    def report(self, fold: int, value: float) -> bool:
        """Notes the value so far; whether the trial is hopeless and may end."""

    def tell(self, values: Sequence[float], value: float | None, seconds: float) -> None:
        """Ends it; None where it was pruned."""


class Study(Protocol):
    """Trials of one question, kept where a killed search finds them again."""

    name: str

    def trials(self) -> tuple[Trial, ...]:
        """Those that ended, in their order."""

    def ask(self, space: Sequence[Dimension], first: Mapping[str, float]) -> Asked:
        """The next trial; the very first one tries `first`."""


@dataclass(frozen=True)
class Found:
    """The best parameters of a study, and how they do on the test folds against the defaults.

    default_value, value: the metric on the validation folds, of the defaults and of the best.
    """

    study: str
    metric: Metric
    trials: int
    pruned: int
    params: dict[str, float]
    value: float
    default_value: float
    test: tuple[Standing, ...]

    def explain(self) -> tuple[str, ...]:
        """Sentences for people."""
        found = next((one for one in self.test if one.way == FOUND), None)
        judged = "the defaults are the best that was found"
        if found:
            is_certain = "for certain" if found.saved.low > 0.0 else "not for certain"
            saved = f"{found.saved.short()} per {PER:,} transactions"
            judged = f"on the test folds it saves {saved} against the defaults: {is_certain}"
        return (
            f"{self.trials} trials on the validation folds, by {self.metric}; {self.pruned} were pruned",
            f"best {self.value:.6g}, defaults {self.default_value:.6g}",
            judged,
        )

    def to_json(self) -> bytes:
        """What `params_from_json` reads, and what a person wants to know beside it."""
        return json.dumps({"file_version": FILE_VERSION, **asdict(self)}, indent=2, sort_keys=True).encode()


def search(
    lessons: Sequence[Lesson],
    study: Study,
    metric: Metric,
    policy: Policy,
    trials: int,
    seconds: float,
    base: TrainParams | None = None,
    report: Report = lambda message: None,
) -> tuple[Trial, ...]:
    """Trials until the study has `trials` of them or `seconds` have passed; all that the study has by then.

    lessons: of validation folds. The first trial is that of `base`. A trial that began is ended, so a search
    may take a trial longer than it was given, and the first trial is always made.
    """
    if not lessons or any(lesson.fold.role != "validation" for lesson in lessons):
        raise SettingsError(
            "a search needs lessons of validation folds, and of no others: test folds judge it"
        )
    start, params = time.monotonic(), base or TrainParams()
    space = tuple(_within(one, lessons) for one in SPACE)
    done = len(study.trials())
    while done < trials and (done == 0 or time.monotonic() - start < seconds):
        asked = study.ask(space, _first(params, space))
        value = _try(lessons, asked, metric, policy, applied(params, asked.params))
        done += 1
        report(f"trial {done} of {trials}: {'pruned' if value is None else f'{metric} {value:.6g}'}")
    return study.trials()


def best_of(found: Sequence[Trial], metric: Metric) -> Trial:
    """The best trial that was not pruned; of equal ones the first. The first trial of a study never is."""
    ended = [trial for trial in found if trial.value is not None]
    return min(ended, key=lambda trial: _loss(trial.value or 0.0, metric))


def judged_best(
    found: Sequence[Trial],
    lessons: Iterator[Lesson],
    study: str,
    metric: Metric,
    policy: Policy,
    base: TrainParams | None = None,
    resamples: int = RESAMPLES,
) -> Found:
    """The best trial beside the defaults on lessons of test folds; none is read where the defaults won, and
    then it is their own values that are found, though a lesson may hold fewer rows than they ask for."""
    params, best = base or TrainParams(), best_of(found, metric)
    has_won = best.number != found[0].number
    values = best.params if has_won else {one.name: asdict(params)[one.name] for one in SPACE}
    contenders = {DEFAULTS: params, FOUND: applied(params, values)}
    judged = (
        [
            judge(name, lesson, partial(as_shipped, lesson, own, policy), policy)
            for lesson in lessons
            for name, own in contenders.items()
        ]
        if has_won
        else []
    )
    assert best.value is not None
    assert found[0].value is not None
    return Found(
        study=study,
        metric=metric,
        trials=len(found),
        pruned=sum(trial.is_pruned for trial in found),
        params=values,
        value=best.value,
        default_value=found[0].value,
        test=standings(judged, DEFAULTS, resamples) if judged else (),
    )


def params_from_json(content: bytes) -> tuple[dict[str, float], str]:
    """The parameters that `Found.to_json` wrote, and their source for a log.

    SettingsError for another version, and where it is not what a search writes.
    """
    try:
        loaded: Any = json.loads(content)
    except ValueError as error:
        raise SettingsError(f"search result is not JSON ({error}); search again") from error
    version = loaded.get("file_version") if isinstance(loaded, dict) else None
    if version != FILE_VERSION:
        raise SettingsError(
            f"search result of version {version!r}: this platform reads {FILE_VERSION}; search again"
        )
    missing = sorted({"study", "trials", "metric", "value", "params"} - loaded.keys())
    if missing:
        raise SettingsError(f"search result without {missing}: a search writes them all; search again")
    params, value, known = loaded["params"], loaded["value"], {one.name for one in SPACE}
    is_of_numbers = isinstance(params, dict) and all(map(_is_finite, (value, *params.values())))
    if not is_of_numbers or not params.keys() <= known:
        raise SettingsError(
            f"search result with value={value!r}, params={params!r}: must be finite numbers, params of "
            f"{sorted(known)}; search again"
        )
    return params, f"search {loaded['study']}, {loaded['trials']} trials, {loaded['metric']} {value:.6g}"


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and bool(np.isfinite(value))  # type: ignore[call-overload]


def applied(params: TrainParams, found: Mapping[str, float]) -> TrainParams:
    """The parameters with those that were found; whole numbers stay whole."""
    whole = {one.name for one in SPACE if one.is_whole}
    return replace(params, **{name: int(v) if name in whole else float(v) for name, v in found.items()})  # type: ignore[arg-type]


def _try(
    lessons: Sequence[Lesson], asked: Asked, metric: Metric, policy: Policy, params: TrainParams
) -> float | None:
    started = time.perf_counter()
    judged: list[Judged] = []
    values: list[float] = []
    value = None
    for place, lesson in enumerate(lessons):
        judged.append(judge(FOUND, lesson, partial(as_shipped, lesson, params, policy), policy))
        values.append(_value(judged[-1:], metric))
        value = _value(judged, metric)
        if asked.report(place, value) and place + 1 < len(lessons):
            value = None
            break
    asked.tell(values, value, time.perf_counter() - started)
    return value


def _value(judged: Sequence[Judged], metric: Metric) -> float:
    """Money per 1,000 transactions of all rows, or the mean of average precision."""
    if metric == "cost":
        return float(np.concatenate([one.cost for one in judged]).mean() * PER)
    return float(np.mean([one.quality.average_precision for one in judged]))


def _loss(value: float, metric: Metric) -> float:
    return value if metric == "cost" else -value


def _within(dimension: Dimension, lessons: Sequence[Lesson]) -> Dimension:
    """No more legitimate rows can be drawn than the lessons hold."""
    if dimension.name != "legit_share":
        return dimension
    high = min(dimension.high, *(lesson.share for lesson in lessons))
    return replace(dimension, high=high, low=min(dimension.low, high))


def _first(params: TrainParams, space: Sequence[Dimension]) -> dict[str, float]:
    given = asdict(params)
    return {one.name: min(max(given[one.name], one.low), one.high) for one in space}
