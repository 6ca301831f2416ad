"""Prequential folds: one split after another through time, each with its gap for labels to mature.

Belongs here: where folds lie, and which of them choose and which judge. Does not belong here: what is fitted
on them (`train`, `learning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fraud_platform.errors import TrainingError
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train import Part, Split

Role = Literal["validation", "test"]


@dataclass(frozen=True)
class Fold:
    """`split.train` teaches, `split.validation` stops and calibrates, `split.test` is assessed.

    role: everything is chosen on validation folds; test folds are looked at once, by what was chosen.
    """

    role: Role
    split: Split

    @property
    def as_of_ms(self) -> int:
        """What was known before this moment (ms UTC) may teach: the assessed rows begin there."""
        return self.split.test.start_ms

    def __str__(self) -> str:
        return f"{self.role} fold, assessed {self.split.test}"


def prequential(
    first_ms: int,
    end_ms: int,
    gap_ms: int,
    *,
    validation_folds: int = 3,
    test_folds: int = 3,
    assessed_days: int = 7,
    held_out_days: int = 7,
) -> tuple[Fold, ...]:
    """Folds over [first_ms, end_ms), whose rows are all mature, in order of time.

    The last `test_folds` stretches of `assessed_days` judge, those before them choose. All history up to a
    gap before a stretch teaches, its last `held_out_days` stop and calibrate. No stretch is assessed twice,
    and what chooses ends where the first test stretch begins.
    TrainingError where the history is too short for the first fold.
    """
    day = MILLISECONDS_PER_DAY
    end = end_ms - end_ms % day
    number = validation_folds + test_folds
    folds = []
    for place in range(number):
        start = end - (number - place) * assessed_days * day
        known = start - gap_ms
        if known - held_out_days * day <= first_ms:
            days = (end_ms - first_ms) / day
            wanted = number * assessed_days + gap_ms / day + held_out_days
            raise TrainingError(
                f"{number} folds of {assessed_days} days, a gap of {gap_ms / day:g} days and {held_out_days} "
                f"days held out need more than {wanted:g} days of mature history; there are {days:.1f}: "
                "give more history, or ask for fewer or shorter folds"
            )
        held_out = Part(known - held_out_days * day, known)
        split = Split(
            Part(first_ms, held_out.start_ms), held_out, Part(start, start + assessed_days * day), gap_ms
        )
        folds.append(Fold("validation" if place < validation_folds else "test", split))
    return tuple(folds)
