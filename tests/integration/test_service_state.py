"""A service's store follows the warehouse's and keeps what the service decided and learned."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fraud_platform.adapters.decision_log import DecisionLog, decision_key, label_key
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.service_state import refresh_state
from fraud_platform.errors import StoreError
from fraud_platform.features.contract import load_contract
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve.record import DecisionRecord, Timings

CONTRACT = load_contract()
HOUR = 3_600_000


def payment(name: str, moment: int) -> Transaction:
    return Transaction(
        transaction_id=name,
        event_time=moment,
        card_id="card",
        merchant_id="shop",
        amount_minor=1_000,
        currency="EUR",
    )


def record(transaction: Transaction) -> bytes:
    return msgspec.json.encode(
        DecisionRecord(
            transaction_id=transaction.transaction_id,
            decided_at=transaction.event_time,
            request=transaction,
            vector=(None,) * len(CONTRACT.features),
            raw_score=None,
            probability=None,
            expected_costs=(0.0, 0.0, 0.0),
            action="approve",
            reasons=(),
            rules=(),
            shadow_rules=(),
            tier="fallback",
            bundle_id="b",
            propensity=1.0,
            timings=msgspec.convert(dict.fromkeys(Timings.__struct_fields__, 0), Timings),
        )
    )


def warehouse_store(path: Path, *transactions: Transaction) -> Path:
    with LmdbStore.open(path, CONTRACT) as store:
        for transaction in transactions:
            store.observe(transaction)
    return path


def attempts(state: Path, moment: int) -> tuple[object, object]:
    """What a next payment would see: attempts on the card in 24 h, fraud reports on the shop in 24 h."""
    with LmdbStore.open(state / "store", CONTRACT) as store:
        vector = store.observe(payment("probe", moment)).vector
    return (
        vector[CONTRACT.index("card_txn_count_24h")],
        vector[CONTRACT.index("merchant_fraud_reports_24h")],
    )


def test_a_newer_warehouse_and_the_service_s_own_past_are_both_there(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = warehouse_store(tmp_path / "first", payment("old", HOUR))
    assert refresh_state(state, first, "first", CONTRACT)
    assert not refresh_state(state, first, "first", CONTRACT)
    with DecisionLog(state / "decisions", key_of=decision_key) as decisions:
        decisions.append("live", record(payment("live", 3 * HOUR)))
    with DecisionLog(state / "labels", key_of=label_key) as labels:
        event = LabelEvent(transaction_id="live", source="chargeback", outcome="fraud", known_at=4 * HOUR)
        labels.append("live", msgspec.json.encode(event))
    second = warehouse_store(tmp_path / "second", payment("old", HOUR), payment("late file", 2 * HOUR))
    assert refresh_state(state, second, "second", CONTRACT)
    assert attempts(state, 5 * HOUR) == (3.0, 1.0)


def test_a_state_in_use_is_left_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = warehouse_store(tmp_path / "first", payment("old", HOUR))
    refresh_state(state, store, "first", CONTRACT)
    with (
        DecisionLog(state / "decisions", key_of=decision_key),
        pytest.raises(StoreError, match="stop that service"),
    ):
        refresh_state(state, store, "second", CONTRACT)
    assert attempts(state, 2 * HOUR) == (1.0, 0.0)


def test_a_store_that_was_never_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="materialize features/online_store"):
        refresh_state(tmp_path / "state", tmp_path / "nothing", "first", CONTRACT)
