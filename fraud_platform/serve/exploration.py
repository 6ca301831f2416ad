"""Declines that are approved all the same, so that their outcome becomes known, and what that may cost.

Belongs here: which declines may be explored, the draw, the day's expected loss, the propensity of what is
done.
Does not belong here: keeping the counts (`adapters.exploration`), what is learned (`learning.selective`).

Only what model and policy decline is explored: never what a live rule or a list had a say in, a lower rung
answered or a lack of capacity decided. An explored one is approved, not stepped up: a step-up hides the
outcome of those who give up and of the frauds that it stops. Whether there is room for its expected loss
is asked of every decline alike, drawn or not, so that what is not drawn has its true propensity.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from fraud_platform.policy import Exploration
from fraud_platform.schema import ACTIONS, MILLISECONDS_PER_DAY, Action, Transaction
from fraud_platform.serve.judge import Judgement, amount_of
from fraud_platform.serve.record import DecisionRecord, Reason

DAY_MS = MILLISECONDS_PER_DAY
LOSS_UNITS = 1_000_000
"""Losses are counted in millionths of a major unit, rounded up, so that counts are whole numbers."""

_LAYOUT = struct.Struct("<2q")
_LOTS = 1 << 53


@dataclass(frozen=True)
class Venture:
    """A decline that may be explored. loss: what its approval is expected to cost, loss_per_day: what a day
    may, both in major units; is_drawn: it will be explored, and is to be counted, where there is room."""

    loss: float
    loss_per_day: float
    is_drawn: bool


@dataclass(frozen=True)
class DayCounts:
    """What a UTC day has explored; lost: expected, in LOSS_UNITS."""

    explored: int = 0
    lost: int = 0

    @property
    def loss(self) -> float:
        """Expected, in major units."""
        return self.lost / LOSS_UNITS

    def to_bytes(self) -> bytes:
        return _LAYOUT.pack(self.explored, self.lost)

    @classmethod
    def from_bytes(cls, data: bytes) -> DayCounts:
        return cls(*_LAYOUT.unpack(data))


class Taken(NamedTuple):
    """What is done about a judgement; see `record.DecisionRecord` for the fields."""

    action: Action
    reasons: tuple[Reason, ...]
    propensity: float = 1.0
    explored: bool | msgspec.UnsetType = msgspec.UNSET


Allows = Callable[[Venture], bool]
"""Whether there is room for a venture; one that is drawn is counted then."""


def venture(day: DayCounts, asked: Venture) -> tuple[DayCounts, bool]:
    """The day's counts after it, and whether there is room for it."""
    lost = day.lost + math.ceil(asked.loss * LOSS_UNITS)
    if lost > asked.loss_per_day * LOSS_UNITS:
        return day, False
    return (replace(day, explored=day.explored + 1, lost=lost) if asked.is_drawn else day), True


def taken(plan: Exploration, transaction: Transaction, judgement: Judgement, allows: Allows) -> Taken:
    """The judgement's action, or an approval in its stead. `allows` is asked once at most."""
    as_judged = Taken(judgement.action, judgement.reasons)
    if not plan.is_on or not is_open(judgement) or amount_of(transaction) > plan.amount_max:
        return as_judged
    is_drawn = lot(plan.seed, transaction.transaction_id) < plan.share
    loss = judgement.expected_costs[ACTIONS.index("approve")]
    if not allows(Venture(loss, plan.loss_per_day, is_drawn)):
        return as_judged
    if is_drawn:
        return Taken("approve", (), plan.share, explored=True)
    return as_judged._replace(propensity=1.0 - plan.share)


def taken_again(plan: Exploration, record: DecisionRecord, judgement: Judgement) -> Taken:
    """As it was taken then: where the propensity tells that there was room, there is room again."""
    return taken(plan, record.request, judgement, lambda _: record.propensity != 1.0)


def is_open(judgement: Judgement) -> bool:
    """Whether the model and the policy alone declined it."""
    return (
        judgement.action == "decline"
        and judgement.tier == "model"
        and judgement.decided_by == "policy"
        and not judgement.closed_actions
        and not judgement.rules
    )


def lot(seed: int, transaction_id: str) -> float:
    """Of a transaction, evenly spread from 0 to below 1; the same for the same seed and id, everywhere."""
    digest = blake2b(f"{seed}:{transaction_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / _LOTS
