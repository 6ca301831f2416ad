"""Proves that a service's store counts every event once, by what the warehouse and the service's logs hold.

Belongs here: the two sides and their comparison. Does not belong here: values of features (parity_replay.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import lmdb

from fraud_platform.adapters import duckdb_load as source
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_load_streams import prepare_streams
from fraud_platform.adapters.go_live import logged_events, once
from fraud_platform.adapters.lmdb import LmdbStore, in_flight
from fraud_platform.adapters.store_bytes import decode_state, token
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.state import FAR
from fraud_platform.schema import LabelEvent, Transaction

SHOWN = 10

Fact = tuple[int, int, int, int, int]
"""transactions, their amounts, reports; the key's first and last moment."""

_AMOUNT, _MOMENT = struct.Struct("<q"), struct.Struct(">Q")


@dataclass(frozen=True)
class StoreAudit:
    """keys, transactions and reports compared; differences: the first keys that differ, stored and wanted."""

    keys: int
    transactions: int
    reports: int
    differing: int
    differences: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        return self.keys > 0 and not self.differing

    def __str__(self) -> str:
        return (
            f"{self.keys:,} keys with {self.transactions:,} transactions and {self.reports:,} reports in "
            f"their logs: {self.differing:,} differ"
        )


def audit_store(warehouse: Warehouse, contract: FeatureContract, state: Path) -> StoreAudit:
    """Compares the store of `state` key by key with what it must have counted; traffic may go on meanwhile.

    What was logged before the store is read must be in it; what is logged later, or not yet, only where the
    store has seen it.
    """
    before = {_name(event) for event in logged_events(state)}
    with LmdbStore.open(state / "store", contract) as store:
        found: dict[bytes, Fact] = {}
        with store.snapshot() as txn:
            found_now = once([*logged_events(state), *in_flight(txn, store.tables["meta"])])
            events = [e for e in found_now if _name(e) in before or _is_seen(store, txn, e)]
            with warehouse.connect(read_only=True) as connection:
                end = prepare_streams(connection, contract, None, events)
                wanted = dict(_wanted(connection, store.engine.plans, end))
            for plan in store.engine.plans:
                _read(txn, store, plan, source.reaches_back_to(plan, end), found)
    return _compare(found, wanted, {plan.number: plan.name for plan in store.engine.plans})


def _wanted(
    connection: duckdb.DuckDBPyConnection, plans: tuple[EntityPlan, ...], end: int
) -> Iterator[tuple[bytes, Fact]]:
    for plan in plans:
        for batch in source.facts(connection, plan, end):
            columns = (column.to_pylist() for column in batch.columns)
            for high, low, *fact in zip(*columns, strict=True):
                prefix = bytes((plan.number,)) + _MOMENT.pack(high) + _MOMENT.pack(low)
                yield prefix, tuple(fact)


def _read(
    txn: lmdb.Transaction, store: LmdbStore, plan: EntityPlan, lower: int, found: dict[bytes, Fact]
) -> None:
    """One pass over the keys of a plan: a State and what it carries along, then the entries of both logs."""
    start = bytes((plan.number,))
    cursor = txn.cursor(db=store.tables["keys"])
    if not cursor.set_range(start):
        return
    for name, data in cursor:
        if name[:1] != start:
            return
        prefix, mark = name[:17], name[17]
        if mark == 0:
            state = decode_state(data)
            recent = state.recent or plan.no_transactions()
            amounts = recent.amounts[recent.between(lower, FAR).start :]
            found[prefix] = (len(amounts), sum(amounts), 0, state.first, state.last)
        elif mark in (2, 3) and _MOMENT.unpack_from(name, 18)[0] >= lower:
            count, amount, reports, first, last = found[prefix]
            if mark == 2:
                count, amount = count + 1, amount + _AMOUNT.unpack_from(data)[0]
            else:
                reports += 1
            found[prefix] = (count, amount, reports, first, last)


def _is_seen(store: LmdbStore, txn: lmdb.Transaction, event: Transaction | LabelEvent) -> bool:
    return txn.get(token(event.transaction_id), db=store.tables["seen"]) is not None


def _name(event: Transaction | LabelEvent) -> tuple[str, str, int]:
    if isinstance(event, Transaction):
        return "transaction", event.transaction_id, 0
    return event.source, event.transaction_id, event.known_at


def _compare(found: dict[bytes, Fact], wanted: dict[bytes, Fact], names: dict[int, str]) -> StoreAudit:
    differing = [key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]
    shown = [
        f"{names[key[0]]} {key[1:].hex()}: stored {found.get(key)}, wanted {wanted.get(key)}"
        for key in sorted(differing)[:SHOWN]
    ]
    return StoreAudit(
        keys=len(wanted),
        transactions=sum(fact[0] for fact in wanted.values()),
        reports=sum(fact[2] for fact in wanted.values()),
        differing=len(differing),
        differences=tuple(shown),
    )
