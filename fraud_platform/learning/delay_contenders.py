"""Ways to learn at a moment at which the youngest frauds are not known yet.

Belongs here: what each contender teaches, stops and calibrates on. Does not belong here: judging them
(`delay_bakeoff`), the weights (`delayed`).

Every contender fits the same booster on all its frauds and the same draw of its legitimate rows:

- naive: what is not reported is legitimate, up to the as-of;
- wait W: rows at least W days old, with what is known of them at the as-of;
- calibrated: wait, at the dataset's window, with a calibrator that counts what is not reported yet;
- unweighted: the young rows teach as they are, what is not reported as legitimate; it stops and calibrates on
  the same mature rows as calibrated does. What the weights add is told by the difference to it;
- importance, by channel, expected: the same, but the young rows are corrected (see `train.young`, `delayed`);
  by channel is what `train` does;
- oracle: the truth, up to the as-of. No one has it; it says what is to be won.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fraud_platform.calibration import Calibrator
from fraud_platform.errors import TrainingError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.learning.delay_rows import FRAUDS_MIN, DelayRows, Past
from fraud_platform.learning.delayed import DelayModel, Taught, by_expectation, by_importance
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train import Booster, TrainParams, fit_booster
from fraud_platform.train.split import date_of
from fraud_platform.train.young import importance_weights

NAIVE, CALIBRATED, UNWEIGHTED, IMPORTANCE, BY_CHANNEL, EXPECTED, ORACLE = (
    "naive",
    "calibrated",
    "unweighted",
    "importance",
    "importance by channel",
    "expected outcomes",
    "oracle",
)
CORRECTED = (CALIBRATED, UNWEIGHTED, IMPORTANCE, BY_CHANNEL, EXPECTED)
SHIPPED = BY_CHANNEL
"""What `train` does, but for its calibrator: of its validation rows more is known, so it weighs none."""
SURE = 0.999
"""Where more than this share of frauds is known, an unreported row is taken at its word."""


def wait(days: int) -> str:
    """A contender's name.

    >>> wait(30)
    'wait 30'
    """
    return f"wait {days}"


@dataclass(frozen=True)
class DelayPlan:
    """windows_days: what is waited for, rising; maturity_days: the dataset's window, among them.
    held_out_days: how many days stop and calibrate. as_ofs: how many choose, and as many that judge;
    assessed_days: what follows each. params: of every booster. TrainingError where it makes no sense."""

    maturity_days: int
    windows_days: tuple[int, ...]
    params: TrainParams
    as_ofs: int = 3
    assessed_days: int = 9
    held_out_days: int = 14

    def __post_init__(self) -> None:
        windows = self.windows_days
        if self.maturity_days not in windows or windows[0] < 1 or list(windows) != sorted(set(windows)):
            raise TrainingError(
                f"windows {windows}: must be days from 1 on, rising, with the dataset's {self.maturity_days}"
            )
        for name in ("as_ofs", "assessed_days", "held_out_days"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}={getattr(self, name)}: must be 1 or more")


@dataclass(frozen=True)
class Learned:
    """A contender at one as-of, and what taught it."""

    name: str
    booster: Booster
    calibrator: Calibrator
    teaching_rows: int
    teaching_frauds: float

    def score(self, matrix: np.ndarray, threads: int) -> np.ndarray:
        return np.asarray(self.booster.predict(matrix, num_threads=threads))


@dataclass(frozen=True)
class Learner:
    """Fits contenders at one as-of."""

    rows: DelayRows
    past: Past
    plan: DelayPlan
    contract: FeatureContract

    def contenders(self) -> Iterator[Learned]:
        """All of them, in the order of the table; the oracle last."""
        known, truth = self.past.is_known_fraud, self.rows.is_fraud[: len(self.past.age_ms)]
        yield self._waiting(NAIVE, 0, known)
        first = None
        for days in self.plan.windows_days:
            learned = self._waiting(wait(days), days, known)
            first = learned if days == self.plan.maturity_days else first
            yield learned
        assert first is not None
        yield from self._corrected(first)
        yield self._waiting(ORACLE, 0, truth)

    def _waiting(self, name: str, days: int, is_fraud: np.ndarray) -> Learned:
        """Rows at least `days` old; the last of them are held out."""
        held = self._held_out(days)
        teach = np.arange(held.start)
        taught = Taught(teach, is_fraud[teach], np.ones(len(teach)))
        return self._fit(name, taught, held, is_fraud[held], None)

    def _corrected(self, first: Learned) -> Iterator[Learned]:
        known, age = self.past.is_known_fraud, self.past.age_ms
        m = len(known)
        segment = self.rows.segment[:m]
        model = DelayModel.of_reports(self.rows.event_time[:m], age, self.past.reported_ms, segment)
        held = self._held_out(self.plan.maturity_days)
        alike, by_channel = (model.known_beside(known, age, one) for one in (None, segment))
        p = self._probability(first, np.minimum(alike, by_channel))
        weight = importance_weights(known[held], alike[held], p[held])
        score = first.score(self.rows.matrix[held], self.plan.params.threads)
        curve = Calibrator.fit(score, known[held], weight)
        yield Learned(CALIBRATED, first.booster, curve, first.teaching_rows, first.teaching_frauds)
        everything = Taught(np.arange(m), known, np.ones(m))
        for name, taught in (
            (UNWEIGHTED, everything),
            (IMPORTANCE, by_importance(known, alike, p)),
            (BY_CHANNEL, by_importance(known, by_channel, p)),
            (EXPECTED, by_expectation(known, alike, p)),
        ):
            outside = (taught.row < held.start) | (taught.row >= held.stop)
            teaches = Taught(taught.row[outside], taught.is_fraud[outside], taught.weight[outside])
            yield self._fit(name, teaches, held, known[held], weight)

    def _probability(self, first: Learned, share: np.ndarray) -> np.ndarray:
        """The first model's, of rows of which much is unknown; 0 of the others, where it changes nothing."""
        unsure = np.flatnonzero(share < SURE)
        found = np.zeros(len(share))
        score = first.score(self.rows.matrix[unsure], self.plan.params.threads)
        found[unsure] = first.calibrator(score)
        return found

    def _held_out(self, days: int) -> slice:
        day = MILLISECONDS_PER_DAY
        end = self.past.fold.as_of_ms - days * day
        return self.rows.between(end - self.plan.held_out_days * day, end)

    def _fit(
        self, name: str, taught: Taught, held: slice, outcome: np.ndarray, held_weight: np.ndarray | None
    ) -> Learned:
        drawn = taught.is_fraud | self.rows.is_drawn[taught.row]
        row, is_fraud, weight = taught.row[drawn], taught.is_fraud[drawn], taught.weight[drawn]
        self._refuse_unteachable(name, is_fraud, outcome)
        matrix, params = self.rows.matrix[held], self.plan.params
        booster = fit_booster(
            self.rows.matrix[row], is_fraud, self.contract, params, (matrix, outcome), weight=weight
        )
        score = np.asarray(booster.predict(matrix, num_threads=params.threads))
        frauds = float(weight[is_fraud].sum())
        return Learned(name, booster, Calibrator.fit(score, outcome, held_weight), len(row), frauds)

    def _refuse_unteachable(self, name: str, teaching: np.ndarray, held_out: np.ndarray) -> None:
        for part, is_fraud in (("teach", teaching), ("stop and calibrate", held_out)):
            if is_fraud.sum() < FRAUDS_MIN:
                raise TrainingError(
                    f"{name} as of {date_of(self.past.fold.as_of_ms)}: {int(is_fraud.sum())} frauds "
                    f"{part}; at least {FRAUDS_MIN} are needed: play a larger world, or give more history"
                )
