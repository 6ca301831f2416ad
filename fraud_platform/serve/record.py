"""What is answered, and what is kept of it: the decision and its record."""

from __future__ import annotations

from typing import Literal

import msgspec

from fraud_platform.schema import Action, LabelEvent, Transaction

RECORD_VERSION = 2

Tier = Literal["model", "rules", "request", "fixed"]
"""The ladder, best first: model and rules over exact features; rules over the features; rules over what the
request alone tells; a configured answer."""
DecidedBy = Literal["policy", "rule", "fallback"]

ERASED = "(erased)"
"""Stands where an id was whose person was erased."""


class Reason(msgspec.Struct, frozen=True):
    """Why an action was not an approval: a stable code, and plain text that a person may read."""

    code: str
    text: str


class Timings(msgspec.Struct, frozen=True):
    """Microseconds that a decision's parts took; `total_us` ends before the record is written."""

    features_us: int
    judge_us: int
    total_us: int


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, with everything needed to compute it again. Times in ms UTC, costs in major units.

    vector: feature values in the order of the bundle's contract, None where the store could not answer in
    time; store_sequence: the number of the store's change that observed the transaction, None where the store
    numbers none; is_late: the event was older than what one of its keys had seen.

    tier: the rung of the ladder that answered; decided_by: what chose the action on that rung; faults: what
    was wrong at that moment, sorted. raw_score and probability are None where nothing was scored.
    expected_costs: of ACTIONS; closed_actions: those that had no capacity left; price: which of the policy's
    prices decided, empty where no policy did. rules, shadow_rules: names of those that fired.

    propensity: the probability with which this action was chosen, 1 where it had no alternative. A decline
    that might have been explored (see `exploration`) has less; one that might not, as too little was left of
    the day's loss or the amount too large, has 1. explored: the policy declined it and it was approved all
    the same; the field is written only where that is so: every other record has the bytes it always had.
    """

    version: int = RECORD_VERSION
    transaction_id: str
    decided_at: int
    request: Transaction
    vector: tuple[float | str | None, ...] | None
    store_sequence: int | None = None
    is_late: bool = False
    raw_score: float | None
    probability: float | None
    expected_costs: tuple[float, ...]
    closed_actions: tuple[Action, ...] = ()
    price: str = ""
    action: Action
    decided_by: DecidedBy
    tier: Tier
    faults: tuple[str, ...] = ()
    reasons: tuple[Reason, ...]
    rules: tuple[str, ...]
    shadow_rules: tuple[str, ...]
    bundle_id: str
    propensity: float
    timings: Timings
    explored: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_explored(self) -> bool:
        return self.explored is True

    @property
    def is_erased(self) -> bool:
        """The person was erased: of the request nothing is left, and there is no vector."""
        return self.request.card_id == ERASED


class LabelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A label event as it was taken in: when, and the number of the store's change that counted it."""

    version: int = RECORD_VERSION
    event: LabelEvent
    received_at: int
    store_sequence: int | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a request; `is_repeat` when this transaction had been decided before; `is_late` when it
    was older than what one of its keys had seen, and so was answered from the log."""

    transaction_id: str
    action: Action
    probability: float | None
    reasons: tuple[Reason, ...]
    tier: Tier
    decided_by: DecidedBy
    bundle_id: str
    decided_at: int
    faults: tuple[str, ...] = ()
    is_repeat: bool = False
    is_late: bool = False

    @classmethod
    def of(
        cls, record: DecisionRecord, *, is_repeat: bool, faults: tuple[str, ...] | None = None
    ) -> Decision:
        """faults: what else was wrong by the time of the answer; those of the record without it."""
        return cls(
            transaction_id=record.transaction_id,
            action=record.action,
            probability=record.probability,
            reasons=record.reasons,
            tier=record.tier,
            decided_by=record.decided_by,
            faults=record.faults if faults is None else faults,
            bundle_id=record.bundle_id,
            decided_at=record.decided_at,
            is_repeat=is_repeat,
            is_late=record.is_late,
        )
