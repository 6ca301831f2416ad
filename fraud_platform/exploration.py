"""How much of what is declined may be explored at a moment, so that a day's expected loss is kept to.

Belongs here: what a day counts, and the chance of one decline, as a function of the counts; used by the
service and by the experiments alike. Does not belong here: which declines may be explored
(`serve.exploration`), keeping the counts (`adapters.exploration`).

A share that is explored until the day's loss is spent would leave the declines of the evening with no chance
at all, and nothing is ever learned about what has none. So the chance is lowered in time: the rest of the day
is expected to ask like the day before and this one so far, and a decline gets the chance at which all of them
together would lose half of what is left. It is 0 only for what would lose more than is left by itself.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from fraud_platform.schema import MILLISECONDS_PER_DAY

DAY_MS = MILLISECONDS_PER_DAY
LOSS_UNITS = 1_000_000
"""Losses are counted in millionths of a major unit, rounded up, so that counts are whole numbers."""
SPENT_OF_LEFT = 0.5
"""Of what is left this part is expected to be lost; the rest keeps room for what comes after a large one."""
_SHORTEST_PAST = 1 / 24
"""Days: less of a past than this says nothing about a rate."""

_LAYOUT = struct.Struct("<3q")


@dataclass(frozen=True)
class Venture:
    """A decline that may be explored. loss: what its approval is expected to cost, loss_per_day: what a day
    may, both in major units; share: the chance where there is room enough; lot: from 0 to below 1, of this
    decline, which is explored where its chance is larger."""

    loss: float
    loss_per_day: float
    share: float
    lot: float


@dataclass(frozen=True)
class DayCounts:
    """What a UTC day has explored; asked, lost: the expected losses of what might have been explored, and of
    what was, in LOSS_UNITS."""

    explored: int = 0
    asked: int = 0
    lost: int = 0

    @property
    def loss(self) -> float:
        """Expected of what was explored, in major units."""
        return self.lost / LOSS_UNITS

    def to_bytes(self) -> bytes:
        return _LAYOUT.pack(self.explored, self.asked, self.lost)

    @classmethod
    def from_bytes(cls, data: bytes) -> DayCounts:
        return cls(*_LAYOUT.unpack(data))


def venture(asked: Venture, now_ms: int, day: DayCounts, before: DayCounts | None) -> tuple[DayCounts, float]:
    """The day's counts after it, and the chance that it had: it is explored where its lot is below that.

    now_ms: decides how much of its day has gone; day: its counts so far; before: those of the day before,
    None where nothing is known of it. A chance and its complement are exact as floats.
    """
    loss = math.ceil(asked.loss * LOSS_UNITS)
    counted = DayCounts(day.explored, day.asked + loss, day.lost)
    left = asked.loss_per_day * LOSS_UNITS - day.lost
    if loss > left:
        return counted, 0.0
    ahead = max(1.0, loss + _ahead(now_ms, counted, before))
    chance = exact(min(asked.share, SPENT_OF_LEFT * left / ahead))
    if asked.lot < chance:
        counted = DayCounts(day.explored + 1, counted.asked, day.lost + loss)
    return counted, chance


def exact(chance: float) -> float:
    """The nearest chance from which its complement, and back, is computed without rounding."""
    return 1.0 - (1.0 - chance)


def _ahead(now_ms: int, day: DayCounts, before: DayCounts | None) -> float:
    """What the rest of the day is expected to ask for, in LOSS_UNITS."""
    gone = now_ms % DAY_MS / DAY_MS
    past = gone if before is None else 1.0 + gone
    known = day.asked + (before.asked if before else 0)
    return known * (1.0 - gone) / max(past, _SHORTEST_PAST)
