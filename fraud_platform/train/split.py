"""Which moments train, which stop and calibrate, which judge, and the gap before these.

The gap is as long as a label takes to mature: everything that teaches, stops or calibrates was known before
the first row that judges. Train and validation touch: both are mature by then, and a second gap would cost
the most recent frauds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from fraud_platform.errors import TrainingError
from fraud_platform.schema import MILLISECONDS_PER_DAY

VALIDATION_SHARE, VALIDATION_DAYS_MAX = 0.15, 28
TEST_SHARE, TEST_DAYS_MAX = 0.20, 35
USABLE_DAYS_MIN = 3


@dataclass(frozen=True)
class Part:
    """The moments from `start_ms` (included) to `end_ms` (excluded), ms UTC."""

    start_ms: int
    end_ms: int

    def mask(self, event_time: np.ndarray) -> np.ndarray:
        """Which rows lie in it: bool (n,)."""
        moments = np.asarray(event_time)
        return (moments >= self.start_ms) & (moments < self.end_ms)

    def __str__(self) -> str:
        return f"{date_of(self.start_ms)} to {date_of(self.end_ms)}"


@dataclass(frozen=True)
class Split:
    """train | validation (early stopping and calibration) | gap | test (for `evaluate`)."""

    train: Part
    validation: Part
    test: Part
    gap_ms: int

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            part = getattr(self, name)
            if part.start_ms >= part.end_ms:
                raise TrainingError(f"split: the {name} part ({part}) is empty; give more history")
        if self.validation.start_ms < self.train.end_ms:
            raise TrainingError(
                f"split: validation ({self.validation}) begins before train ({self.train}) ends"
            )
        gap = self.test.start_ms - self.validation.end_ms
        if gap < self.gap_ms:
            raise TrainingError(
                f"split: validation ends {_days(gap)} days before test; "
                f"labels take {_days(self.gap_ms)} days to mature, so move them apart"
            )

    @classmethod
    def by_time(
        cls,
        first_ms: int,
        end_ms: int,
        gap_ms: int,
        validation_days: int | None = None,
        test_days: int | None = None,
    ) -> Split:
        """Split [first_ms, end_ms), where `end_ms` is the last moment whose labels are mature.

        Whole UTC days; without `validation_days` and `test_days`, 15 % and 20 % of what the gap
        leaves. TrainingError when it leaves less than three days.
        """
        end = end_ms - end_ms % MILLISECONDS_PER_DAY
        usable = (end - first_ms - gap_ms) // MILLISECONDS_PER_DAY
        if usable < USABLE_DAYS_MIN:
            raise TrainingError(
                f"split: {_days(end - first_ms)} days of mature history less a gap of {_days(gap_ms)} "
                f"days leave {usable} days; at least {USABLE_DAYS_MIN} are needed: give more history"
            )
        for_validation = validation_days or _share(usable, VALIDATION_SHARE, VALIDATION_DAYS_MAX)
        for_test = test_days or _share(usable, TEST_SHARE, TEST_DAYS_MAX)
        test = _part_before(end, for_test)
        validation = _part_before(test.start_ms - gap_ms, for_validation)
        return cls(Part(first_ms, validation.start_ms), validation, test, gap_ms)


def _share(days: int, share: float, days_max: int) -> int:
    return max(1, min(int(days * share), days_max))


def _part_before(end_ms: int, days: int) -> Part:
    return Part(end_ms - days * MILLISECONDS_PER_DAY, end_ms)


def _days(ms: int) -> str:
    return f"{ms / MILLISECONDS_PER_DAY:g}"


def date_of(ms: int) -> str:
    """The moment in UTC, for people."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M").removesuffix(" 00:00")
