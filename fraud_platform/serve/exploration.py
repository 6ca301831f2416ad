"""Declines that are approved all the same, so that their outcome becomes known.

Belongs here: which declines may be explored, the draw, the action that is taken and its propensity.
Does not belong here: what a day has room for (`fraud_platform.exploration`), keeping its counts
(`adapters.exploration`), what is learned (`learning.selective`).

Only what model and policy decline is explored: never what a live rule or a list had a say in, a lower rung
answered or a lack of capacity decided. An explored one is approved, not stepped up: a step-up hides the
outcome of those who give up and of the frauds that it stops. The chance is asked of every decline alike,
drawn or not, so that what is not drawn has its true propensity.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from fraud_platform.exploration import Venture, exact
from fraud_platform.policy import Exploration
from fraud_platform.schema import ACTIONS, Action, Transaction
from fraud_platform.serve.judge import Judgement, amount_of
from fraud_platform.serve.record import DecisionRecord, Reason

_LOTS = 1 << 53


class Taken(NamedTuple):
    """What is done about a judgement; see `record.DecisionRecord` for the fields."""

    action: Action
    reasons: tuple[Reason, ...]
    propensity: float = 1.0
    explored: bool | msgspec.UnsetType = msgspec.UNSET


Chance = Callable[[Venture], float]
"""The chance of a venture; where its lot is below it, it is counted as explored."""


def taken(plan: Exploration, transaction: Transaction, judgement: Judgement, chance_of: Chance) -> Taken:
    """The judgement's action, or an approval in its stead. `chance_of` is asked once at most."""
    as_judged = Taken(judgement.action, judgement.reasons)
    if not plan.is_on or not is_open(judgement) or amount_of(transaction) > plan.amount_max:
        return as_judged
    own = lot(plan.seed, transaction.transaction_id)
    loss = judgement.expected_costs[ACTIONS.index("approve")]
    chance = chance_of(Venture(loss, plan.loss_per_day, plan.share, own))
    if own < chance:
        return Taken("approve", (), chance, explored=True)
    return as_judged._replace(propensity=1.0 - chance)


def taken_again(plan: Exploration, record: DecisionRecord, judgement: Judgement) -> Taken:
    """As it was taken then: its propensity tells the chance that there was, at most the plan's share."""
    chance = record.propensity if record.is_explored else 1.0 - record.propensity
    return taken(plan, record.request, judgement, lambda _: min(chance, exact(plan.share)))


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
