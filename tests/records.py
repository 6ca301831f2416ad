"""Decision records to fill a journal with: plain, valid, each of its own transaction."""

from __future__ import annotations

from typing import Any

from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve.record import DecisionRecord, LabelRecord, Reason, Timings
from tests.worlds import NOW


def decision(number: int, *, decided_at: int = 0, **request: Any) -> DecisionRecord:
    """On transaction t<number>; keyword arguments replace fields of its request."""
    fields = {"card_id": f"card{number % 3}", "customer_id": f"anna{number % 3}", "merchant_id": "m"}
    transaction = Transaction(
        transaction_id=f"t{number}",
        event_time=NOW + number,
        amount_minor=100 + number,
        currency="EUR",
        **(fields | request),
    )
    return DecisionRecord(
        transaction_id=transaction.transaction_id,
        decided_at=decided_at or NOW + number,
        request=transaction,
        vector=(1.5, None, "web", float(number)),
        store_sequence=number,
        raw_score=0.25,
        probability=0.125,
        expected_costs=(1.0, 2.0, 3.0),
        action="step_up",
        decided_by="policy",
        tier="model",
        reasons=(Reason("R1", "unusual amount"),),
        rules=("rule",),
        shadow_rules=(),
        bundle_id="ab" * 32,
        propensity=1.0,
        timings=Timings(1, 2, 3),
    )


def label(number: int, *, known_at: int = NOW + 10**6) -> LabelRecord:
    """A chargeback of transaction t<number>."""
    event = LabelEvent(transaction_id=f"t{number}", source="chargeback", outcome="fraud", known_at=known_at)
    return LabelRecord(event=event, received_at=known_at)
