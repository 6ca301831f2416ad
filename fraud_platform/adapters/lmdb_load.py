"""Fills an online store from the warehouse, and replays the timeline through one to prove parity.

Belongs here: bulk writes into a new store, and the replay. Does not belong here: what an event means
(features/engine.py), what equal means (features/parity.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
from lmdb import Transaction as Writer

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_timeline import BATCH_ROWS, end_of_timeline, read_timeline
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.lmdb_session import (
    SeenRecord,
    dated,
    encode,
    key_bytes,
    log_key,
    state_key,
    token,
)
from fraud_platform.errors import StoreError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import LATENESS_MS
from fraud_platform.features.parity import ParityReport, compare
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.state import NEVER, Entry
from fraud_platform.schema import LabelEvent, Transaction

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


def replay_parity(
    warehouse: Warehouse,
    contract: FeatureContract,
    events: int | None = 100_000,
    progress: Progress = lambda message: None,
) -> ParityReport:
    """Replays the last `events` transactions (None: the whole timeline) over a store loaded up to them.

    Every vector is compared with features.transaction_features.
    """
    with TemporaryDirectory(prefix="parity-") as folder:
        with warehouse.connect(read_only=True) as connection:
            watermark = _watermark_before(connection, events)
        load_store(warehouse, contract, Path(folder) / "store", watermark, progress)
        with warehouse.connect(read_only=True) as connection:
            return _replay(connection, contract, Path(folder) / "store", watermark, progress)


def _replay(
    connection: duckdb.DuckDBPyConnection,
    contract: FeatureContract,
    path: Path,
    watermark: int,
    progress: Progress,
) -> ParityReport:
    report = ParityReport()
    columns = ", ".join(f'"{name}"' for name in contract.names)
    offline = connection.cursor().execute(
        f"select transaction_id, {columns} from features.transaction_features "
        "where event_time >= ? order by event_time, transaction_id",
        [watermark],
    )
    with LmdbStore.open(path, contract) as store:
        timeline = read_timeline(connection, contract, watermark)
        for batch in _batches(timeline):
            answers = list(store.observe_all(batch))
            ids = [event.transaction_id for event in batch if isinstance(event, Transaction)]
            online = [answer.vector for answer in answers if answer is not None]
            rows = offline.fetchmany(len(ids))
            if [row[0] for row in rows] != ids:
                raise StoreError(
                    "parity: features.transaction_features holds other transactions than "
                    "ingest.transactions; materialize the features again"
                )
            built = {name: _column(rows, place + 1, contract) for place, name in enumerate(contract.names)}
            report += compare(contract, ids, online, built)
            report += ParityReport(labels=len(batch) - len(ids))
            progress(f"replayed {report.transactions:,} transactions")
    return report


def _column(rows: list[tuple[object, ...]], place: int, contract: FeatureContract) -> np.ndarray:
    is_category = contract.features[place - 1].dtype == "category"
    values = [row[place] for row in rows]
    if is_category:
        return np.array(values, dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _batches(timeline: Iterator[Transaction | LabelEvent]) -> Iterator[list[Transaction | LabelEvent]]:
    batch: list[Transaction | LabelEvent] = []
    for event in timeline:
        batch.append(event)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _watermark_before(connection: duckdb.DuckDBPyConnection, events: int | None) -> int:
    if events is None:
        return 0
    row = connection.execute(
        "select min(event_time) from "
        "(select event_time from ingest.transactions order by event_time desc limit ?)",
        [events],
    ).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


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
            state.waiting = None
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
        "select t.transaction_id, t.event_time, t.card_id, t.merchant_id, t.customer_id, t.device_id, t.ip_id, "
        "case when r.known_at < ? then r.known_at end from ingest.transactions as t "
        "left join staging.stg_fraud_reports as r on t.transaction_id = r.transaction_id "
        "where t.event_time < ?",
        [watermark, watermark],
    )
    loaded = 0
    while rows := cursor.fetchmany(BATCH_ROWS):
        for transaction_id, event_time, card, merchant, customer, device, ip, reported_at in rows:
            record = SeenRecord((card, merchant, customer, device, ip), event_time, reported_at)
            writer.put(token(transaction_id), encode(record), db=store.tables["seen"])
            writer.put(dated(event_time, token(transaction_id)), b"", db=store.tables["known"])
        loaded += len(rows)
    return loaded
