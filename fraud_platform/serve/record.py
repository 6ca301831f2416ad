"""What is answered, and what is kept of it: the decision and its record."""

from __future__ import annotations

import msgspec

from fraud_platform.schema import Action, Transaction

RECORD_VERSION = 1


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
    """One decision, with everything needed to compute it again.

    vector: feature values in the order of the bundle's contract; raw_score and probability are None when
    the model could not score; tier: what decided (`rules` when they were stronger than model and policy);
    rules, shadow_rules: names of those that fired; expected_costs: of ACTIONS, in major units; propensity:
    the probability with which this action was chosen; is_late: the event was older than what one of its keys
    had seen. Time in ms UTC.
    """

    version: int = RECORD_VERSION
    transaction_id: str
    decided_at: int
    request: Transaction
    vector: tuple[float | str | None, ...]
    raw_score: float | None
    probability: float | None
    expected_costs: tuple[float, ...]
    action: Action
    reasons: tuple[Reason, ...]
    rules: tuple[str, ...]
    shadow_rules: tuple[str, ...]
    tier: str
    bundle_id: str
    propensity: float
    timings: Timings
    is_late: bool = False


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a request; `is_repeat` when this transaction had been decided before; `is_late` when it
    was older than what one of its keys had seen, and so was answered from the log."""

    transaction_id: str
    action: Action
    probability: float | None
    reasons: tuple[Reason, ...]
    tier: str
    bundle_id: str
    decided_at: int
    is_repeat: bool = False
    is_late: bool = False

    @classmethod
    def of(cls, record: DecisionRecord, is_repeat: bool) -> Decision:
        return cls(
            transaction_id=record.transaction_id,
            action=record.action,
            probability=record.probability,
            reasons=record.reasons,
            tier=record.tier,
            bundle_id=record.bundle_id,
            decided_at=record.decided_at,
            is_repeat=is_repeat,
            is_late=record.is_late,
        )
