"""Step-ups and reviews per hour: which of those that are wished for are granted when they are scarce.

Belongs here: what an hour counts, and the decision on one wish, as a function of the counts.
Does not belong here: keeping the counts (`adapters.capacity`), the choice of an action (`policy`).

First come, first served would spend an hour's capacity on whoever comes early in it. Here it goes to where
it saves most: the saving of each wish (what the step-up saves against the next cheapest action) falls into a
bucket, each half as large again as the one below. The rest of the hour is expected to ask like the hour
before and this one so far; a wish is granted where what is expected of its bucket and of those above fits
into what is left. This is a bid price, see Talluri and van Ryzin, "An Analysis of Bid-Price Controls for
Network Revenue Management", 1998. Where the demand fits into the capacity everything is granted; a forecast
that was too high or too low corrects itself, as each wish is judged by what is left then.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, replace

from fraud_platform.policy import Capacity

HOUR_MS = 3_600_000
REVIEW_UNITS = 1_000
"""Reviews are counted in thousandths, so that counts are whole numbers."""
BUCKET_FLOORS = tuple(0.01 * 1.5**step for step in range(39))
"""Savings (major units) from which the buckets begin; one more lies below the first."""
BUCKETS = len(BUCKET_FLOORS) + 1
_SHORTEST_PAST = 1 / 60
"""Hours: less of a past than this says nothing about a rate."""

_LAYOUT = struct.Struct(f"<{2 + 2 * BUCKETS}q")


@dataclass(frozen=True)
class Wish:
    """A step-up that is about to be answered.

    saving: against the next cheapest action, major units; reviews: expected of it; is_due: a rule demands it,
    so that it is counted and never refused.
    """

    saving: float
    reviews: float
    limits: Capacity
    is_due: bool = False


@dataclass(frozen=True)
class HourCounts:
    """What was granted in an hour, and by bucket of saving what was wished for; reviews in thousandths."""

    step_ups: int = 0
    reviews: int = 0
    wishes: tuple[int, ...] = (0,) * BUCKETS
    wished_reviews: tuple[int, ...] = (0,) * BUCKETS

    def to_bytes(self) -> bytes:
        return _LAYOUT.pack(self.step_ups, self.reviews, *self.wishes, *self.wished_reviews)

    @classmethod
    def from_bytes(cls, data: bytes) -> HourCounts:
        values = _LAYOUT.unpack(data)
        return cls(values[0], values[1], values[2 : 2 + BUCKETS], values[2 + BUCKETS :])


def ask(wish: Wish, now_ms: int, hour: HourCounts, before: HourCounts | None) -> tuple[HourCounts, bool]:
    """The hour's counts after the wish, and whether it is granted.

    now_ms: decides how much of its hour has gone; hour: its counts so far; before: those of the hour before,
    None where nothing is known of it.
    """
    reviews, bucket = round(wish.reviews * REVIEW_UNITS), bisect_right(BUCKET_FLOORS, wish.saving)
    asked = replace(
        hour,
        wishes=_plus(hour.wishes, bucket, 1),
        wished_reviews=_plus(hour.wished_reviews, bucket, reviews),
    )
    if not wish.is_due and not _is_granted(wish.limits, reviews, bucket, now_ms, asked, before):
        return asked, False
    return replace(asked, step_ups=hour.step_ups + 1, reviews=hour.reviews + reviews), True


def _is_granted(
    limits: Capacity, reviews: int, bucket: int, now_ms: int, hour: HourCounts, before: HourCounts | None
) -> bool:
    gone = now_ms % HOUR_MS / HOUR_MS
    past = gone if before is None else 1.0 + gone
    ahead = (1.0 - gone) / max(past, _SHORTEST_PAST)
    known = before or HourCounts()
    step_ups_ahead = sum(known.wishes[bucket:]) + sum(hour.wishes[bucket:]) - 1
    reviews_ahead = sum(known.wished_reviews[bucket:]) + sum(hour.wished_reviews[bucket:]) - reviews
    return _fits(limits.step_ups_per_hour, 1, hour.step_ups, 1, step_ups_ahead * ahead) and _fits(
        limits.reviews_per_hour, REVIEW_UNITS, hour.reviews, reviews, reviews_ahead * ahead
    )


def _fits(limit: int | None, unit: int, used: int, wanted: int, expected: float) -> bool:
    """Whether the wish fits into what is left, and what is expected of its like and better too."""
    if limit is None:
        return True
    left = limit * unit - used
    return wanted <= left and expected <= left


def _plus(counts: tuple[int, ...], place: int, more: int) -> tuple[int, ...]:
    return (*counts[:place], counts[place] + more, *counts[place + 1 :])
