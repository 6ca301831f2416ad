"""What each UTC day has explored and is expected to lose by it, over all workers of a state folder.

<state>/exploration   day -> `exploration.DayCounts`

Belongs here: what happens where a venture cannot be counted. Does not belong here: how counts are kept
(period_counts.py), what may be explored (`serve.exploration`, `fraud_platform.exploration`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from fraud_platform.adapters.period_counts import UNCOUNTED, PeriodCounts
from fraud_platform.exploration import DAY_MS, DayCounts, Venture, venture

FOLDER = "exploration"

log = logging.getLogger(__name__)


class ExplorationCounter:
    """The counts of a state folder, for the threads of one process.

    is_failing: the last venture could not be counted. It had no chance then: what nobody counts has no limit.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER
        self._days = PeriodCounts(self._folder, DAY_MS, DayCounts)
        self.is_failing = False

    def chance(self, now_ms: int, asked: Venture) -> float:
        """The chance that its day gives it; where its lot is below that, it is counted as explored."""
        try:
            chance = self._days.change(now_ms, lambda day, before: venture(asked, now_ms, day, before))
            self.is_failing = False
        except UNCOUNTED:
            if not self.is_failing:
                log.exception("exploration %s cannot be counted; nothing is explored", self._folder)
            self.is_failing = True
            return 0.0
        return chance

    def day(self, now_ms: int) -> DayCounts:
        """The counts of the day of `now_ms`."""
        return self._days.at(now_ms)

    def close(self) -> None:
        self._days.close()
