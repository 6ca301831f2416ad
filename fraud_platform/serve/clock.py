"""The service's clock: the wall's time at the start, moved on by a clock that never jumps."""

from __future__ import annotations

import time
from collections.abc import Callable

JUMP_MS = 2_000
"""A wall clock that is so far off has been set; what runs slow or fast by less is followed nowhere."""

Nanoseconds = Callable[[], int]


class SteadyClock:
    """Milliseconds UTC. A wall clock that jumps changes nothing but `has_jumped`, until the next start."""

    def __init__(
        self,
        *,
        wall: Nanoseconds = time.time_ns,
        steady: Nanoseconds = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()

    def __call__(self) -> int:
        return (self._steady() + self._offset) // 1_000_000

    def not_before(self, moment: int) -> None:
        """A moment that is past for certain, such as the last record's: a wall clock behind it is wrong."""
        self._offset = max(self._offset, moment * 1_000_000 - self._steady())

    def has_jumped(self) -> bool:
        """Whether the wall clock disagrees with this one."""
        return abs(self._wall() - self._steady() - self._offset) > JUMP_MS * 1_000_000
