"""What each hour has used of the step-up and review capacities, over all workers of a state folder.

<state>/capacity   hour of the clock -> `serve.capacity.HourCounts`

Belongs here: what happens where a wish cannot be counted. Does not belong here: how counts are kept
(period_counts.py), what is granted (`serve.capacity`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from fraud_platform.adapters.period_counts import UNCOUNTED, PeriodCounts
from fraud_platform.schema import Action
from fraud_platform.serve.capacity import HOUR_MS, HourCounts, Wish, ask

FOLDER = "capacity"

log = logging.getLogger(__name__)


class CapacityCounter:
    """The counts of a state folder, for the threads of one process.

    is_failing: the last wish could not be counted. It was granted then: a step-up too many costs less than a
    payment without an answer.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER
        self._hours = PeriodCounts(self._folder, HOUR_MS, HourCounts)
        self.is_failing = False

    def closed(self, now_ms: int, wish: Wish) -> tuple[Action, ...]:
        """("step_up",) where the wish is refused; otherwise it is counted as granted, and () is returned."""
        if not wish.limits.is_limited:
            return ()
        try:
            is_granted = self._hours.change(now_ms, lambda hour, before: ask(wish, now_ms, hour, before))
            self.is_failing = False
        except UNCOUNTED:
            if not self.is_failing:
                log.exception("capacity %s cannot be counted; wishes are granted", self._folder)
            self.is_failing = True
            return ()
        return () if is_granted else ("step_up",)

    def hour(self, now_ms: int) -> HourCounts:
        """The counts of the hour of `now_ms`."""
        return self._hours.at(now_ms)

    def close(self) -> None:
        self._hours.close()
