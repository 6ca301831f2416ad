"""Fills an online store from the warehouse.

Belongs here: bulk writes into a new store. Does not belong here: what an event means (features/engine.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
from lmdb import Transaction as Writer

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_timeline import BATCH_ROWS, end_of_timeline
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.lmdb_session import SeenRecord, encode, key_bytes, log_key, state_key, token
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.plan import EntityPlan, Entry
from fraud_platform.features.state import NEVER

LATENESS_MS = 86_400_000
"""How far behind the watermark an event may still arrive and find its whole window in the log."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LoadReport:
    """What a load wrote; everything known before `watermark` (ms UTC) is in the store."""

    watermark: int
    transactions: int
    log_entries: int
    keys: int


def load_store(
    warehouse: Warehouse,
    contract: FeatureContract,
    path: Path,
    watermark: int | None = None,
    progress: Progress = lambda message: None,
) -> LoadReport:
    """Builds a store at `path` that has seen everything before `watermark` (default: all of it).

    The store appears at once, by a rename; an existing store is replaced.
    """
    building = path.with_name(path.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    with warehouse.connect(read_only=True) as connection:
        if watermark is None:
            watermark = end_of_timeline(connection)
        with LmdbStore.open(building, contract) as store:
            report = _fill(connection, store, watermark, progress)
            store.flush()
    shutil.rmtree(path, ignore_errors=True)
    building.rename(path)
    return report


def _fill(
    connection: duckdb.DuckDBPyConnection, store: LmdbStore, watermark: int, progress: Progress
) -> LoadReport:
    entries = keys = 0
    with store.begin() as writer:
        for plan in store.engine.plans:
            progress(f"loading {plan.name}")
            keys += _load_states(connection, store, writer, plan, watermark)
            entries += _load_log(connection, store, writer, plan, watermark)
        progress("loading transaction ids")
        transactions = _load_seen(connection, store, writer, watermark)
        writer.put(b"watermark", str(watermark).encode(), db=store.tables["meta"])
    return LoadReport(watermark, transactions, entries, keys)


def _present(plan: EntityPlan) -> str:
    return " and ".join(f"{column} is not null" for column in plan.columns)


def _load_states(
    connection: duckdb.DuckDBPyConnection, store: LmdbStore, writer: Writer, plan: EntityPlan, watermark: int
) -> int:
    """The facts of each key's whole past; windows stay empty and fill from the log at the first event."""
    columns = ", ".join(plan.columns)
    cursor = connection.execute(
        f"""
        with moments as (
          select {columns}, event_time,
            max(case when latitude is not null and longitude is not null
              then struct_pack(t := event_time, a := latitude, b := longitude) end) as place
          from ingest.transactions where {_present(plan)} and event_time < ? group by all
        ),
        facts as (
          select {columns}, min(event_time) as first, max(event_time, 2) as lasts,
            {"max(place, 2)" if plan.has_place else "null"} as places
          from moments group by all
        ),
        reports as (
          select {columns}, max(known_at) as last_report
          from staging.stg_fraud_reports where {_present(plan)} and known_at < ? group by all
        )
        select {columns}, first, lasts, places, last_report
        from facts left join reports using ({columns})
        """,
        [watermark, watermark],
    )
    width = len(plan.columns)
    loaded = 0
    while rows := cursor.fetchmany(BATCH_ROWS):
        for row in rows:
            first, lasts, places, last_report = row[width:]
            state = plan.empty()
            state.first, state.last = first, lasts[0]
            state.before_last = lasts[1] if len(lasts) > 1 else NEVER
            state.last_report = NEVER if last_report is None else last_report
            known = [(place["t"], place["a"], place["b"]) for place in places or ()]
            state.place = known[0] if known else None
            state.place_before = known[1] if len(known) > 1 else None
            writer.put(state_key(key_bytes(plan, row[:width])), encode(state), db=store.tables["keys"])
        loaded += len(rows)
    return loaded


def _load_log(
    connection: duckdb.DuckDBPyConnection, store: LmdbStore, writer: Writer, plan: EntityPlan, watermark: int
) -> int:
    """What windows of events up to LATENESS_MS late can hold, and each key's last moment and place before."""
    if not (plan.has_log or plan.report_windows):
        return 0
    lower = watermark - max(plan.windows + plan.report_windows, default=0) - LATENESS_MS
    columns = ", ".join(plan.columns)
    values = "".join(f", {column}" for column in plan.distinct_columns)
    transactions = connection.execute(
        f"""
        with known as (
          select * from ingest.transactions where {_present(plan)} and event_time < $watermark
        ),
        before as (
          select {columns}, max(event_time) as last_moment,
            max(event_time) filter (latitude is not null and longitude is not null) as last_placed
          from known where event_time < $lower group by all
        )
        select {columns}, event_time, transaction_id, amount_minor, latitude, longitude{values}
        from known left join before using ({columns})
        where event_time >= $lower or event_time = last_moment or event_time = last_placed
        """,
        {"lower": lower, "watermark": watermark},
    )
    loaded = 0
    width = len(plan.columns)
    codec = store.codecs[plan.number]
    while rows := transactions.fetchmany(BATCH_ROWS):
        for row in rows:
            moment, transaction_id, amount_minor, latitude, longitude, *distinct = row[width:]
            is_placed = plan.has_place and latitude is not None and longitude is not None
            place = (moment, latitude, longitude) if is_placed else None
            tokens = tuple(None if value is None else token(value) for value in distinct)
            name = log_key(key_bytes(plan, row[:width]), False, moment, token(transaction_id))
            data = codec.pack(Entry(moment, amount_minor, place, tokens))
            writer.put(name, data, db=store.tables["keys"])
        loaded += len(rows)
    return loaded + (
        _load_reports(connection, store, writer, plan, lower, watermark) if plan.report_windows else 0
    )


def _load_reports(
    connection: duckdb.DuckDBPyConnection,
    store: LmdbStore,
    writer: Writer,
    plan: EntityPlan,
    lower: int,
    watermark: int,
) -> int:
    rows = connection.execute(
        f"select {', '.join(plan.columns)}, known_at, transaction_id from staging.stg_fraud_reports "
        f"where {_present(plan)} and known_at >= ? and known_at < ?",
        [lower, watermark],
    ).fetchall()
    for row in rows:
        *key, known_at, transaction_id = row
        name = log_key(key_bytes(plan, tuple(key)), True, known_at, token(transaction_id))
        writer.put(name, b"", db=store.tables["keys"])
    return len(rows)


def _load_seen(
    connection: duckdb.DuckDBPyConnection, store: LmdbStore, writer: Writer, watermark: int
) -> int:
    cursor = connection.execute(
        "select t.transaction_id, t.card_id, t.merchant_id, t.customer_id, t.device_id, t.ip_id, "
        "case when r.known_at < ? then r.known_at end from ingest.transactions as t "
        "left join staging.stg_fraud_reports as r on t.transaction_id = r.transaction_id "
        "where t.event_time < ?",
        [watermark, watermark],
    )
    loaded = 0
    while rows := cursor.fetchmany(BATCH_ROWS):
        for transaction_id, card, merchant, customer, device, ip, reported_at in rows:
            record = SeenRecord(None, (card, merchant, customer, device, ip), reported_at)
            writer.put(token(transaction_id), encode(record), db=store.tables["seen"])
        loaded += len(rows)
    return loaded
