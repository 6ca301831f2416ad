"""Fills an online store from the warehouse, in bulk.

Belongs here: writing what duckdb_load.py finds into a new store. Does not belong here: the bytes
(lmdb_bytes.py), what an event means (features/engine.py), events that come after the load (go_live.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import duckdb
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud_platform.adapters import duckdb_load as source
from fraud_platform.adapters import lmdb_bytes as as_bytes
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_load_streams import prepare_streams
from fraud_platform.adapters.lmdb import LmdbStore, finish_move, fresh_store, put_in_place
from fraud_platform.adapters.lmdb_bytes import Carried, Integers, Pairs, Places, Tokens
from fraud_platform.adapters.store_bytes import SeenRecord, encode
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import LATENESS_MS
from fraud_platform.features.plan import EntityPlan
from fraud_platform.schema import LabelEvent, Transaction

WRITTEN_ROWS = 100_000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LoadReport:
    """What a load wrote: every transaction before `watermark` (ms UTC), and what is known of them."""

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
    live: Sequence[Transaction | LabelEvent] = (),
) -> LoadReport:
    """Builds a store at `path` that has seen everything before `watermark` (default: all of it, also reports
    that became known after the newest transaction).

    live: events that the warehouse may not hold yet; what it holds is not counted twice. An existing store is
    replaced once the new one is whole; killed at any point, the old store or the new one is there.
    """
    building, fresh = path.with_name(path.name + ".building"), fresh_store(path)
    finish_move(path)
    for folder in (building, fresh):
        shutil.rmtree(folder, ignore_errors=True)
    with warehouse.connect(read_only=True) as connection, LmdbStore.open(building, contract) as store:
        watermark = prepare_streams(connection, contract, watermark, live)
        report = _fill(connection, store, watermark, progress)
        store.flush()
    building.rename(fresh)
    put_in_place(path)
    return report


def _fill(
    connection: duckdb.DuckDBPyConnection, store: LmdbStore, watermark: int, progress: Progress
) -> LoadReport:
    entries = keys = 0
    for plan in store.engine.plans:
        progress(f"loading {plan.name}")
        for batch in source.states(connection, plan, watermark):
            keys += _write(store, "keys", _state_rows(plan, batch, watermark))
            if plan.has_log or plan.has_reports:
                _write(store, "due", _due_rows(plan, batch))
        if plan.has_log:
            for batch in source.log(connection, plan, watermark):
                entries += _write(store, "keys", _log_rows(plan, batch))
        if plan.has_reports:
            for batch in source.reports(connection, plan, watermark):
                entries += _write(store, "keys", _report_rows(plan, batch))
                if plan.wanted.outcomes is not None:
                    _write(store, "keys", _reported_rows(plan, batch))
        for column in range(len(plan.distinct_columns)):
            for batch in source.counts(connection, plan, column, watermark):
                _write(store, "keys", _count_rows(plan, column, batch))
    progress("loading transaction ids")
    transactions = _load_seen(connection, store, watermark - 1 - store.engine.remembered_ms)
    store.write(lambda txn: txn.put(b"watermark", str(watermark).encode(), db=store.tables["meta"]))
    return LoadReport(watermark, transactions, entries, keys)


def _load_seen(connection: duckdb.DuckDBPyConnection, store: LmdbStore, horizon: int) -> int:
    loaded = 0
    for batch in source.seen(connection, horizon):
        loaded += _write(store, "seen", _seen_rows(batch))
    for batch in source.known(connection, horizon):
        _write(
            store, "known", as_bytes.dated_rows(_numbers(batch, "event_time"), _tokens(batch, "transaction"))
        )
    return loaded


def _write(store: LmdbStore, table: str, rows: Pairs) -> int:
    """Puts the rows, some in each transaction, so that the store can grow in between."""
    written = 0
    while some := list(islice(rows, WRITTEN_ROWS)):
        store.write(partial(_put, store, table, some))
        written += len(some)
    return written


def _put(store: LmdbStore, table: str, rows: Iterable[tuple[bytes, bytes]], txn: lmdb.Transaction) -> None:
    with txn.cursor(db=store.tables[table]) as cursor:
        cursor.putmulti(rows)


def _state_rows(plan: EntityPlan, batch: pa.RecordBatch, watermark: int) -> Pairs:
    windows, report_windows = range(len(plan.windows)), range(len(plan.report_windows))
    is_logged = plan.has_log or plan.has_reports
    integers: dict[str, Integers] = {
        "moment": watermark,
        "counts": [_numbers(batch, f"count_{i}") for i in windows],
        "sums": [_numbers(batch, f"sum_{i}") for i in windows],
        "squares": [_numbers(batch, f"{half}_{i}") for i in windows for half in ("high", "low")],
        "distincts": [_numbers(batch, f"distinct_{i}") for i in range(len(plan.distincts))],
        "oldest": [_numbers(batch, f"oldest_{i}") for i in windows],
        "reports": [_numbers(batch, f"reports_{i}") for i in report_windows],
        "oldest_report": [_numbers(batch, f"oldest_report_{i}") for i in report_windows],
        "log_from": source.reaches_back_to(plan, watermark) if is_logged else 0,
    }
    names = ("first", "last", "before_last", "last_report", "trimmed_last", "trimmed_report")
    integers |= {name: _numbers(batch, name) for name in names}
    places = {name: _places(batch, name) for name in ("place", "place_before", "trimmed_place")}
    carried = _carried(plan, batch)
    return as_bytes.state_rows(plan, _tokens(batch, "key"), integers, places, carried, is_due=is_logged)


def _carried(plan: EntityPlan, batch: pa.RecordBatch) -> Carried:
    column = batch.column("carried")
    entries = column.flatten()

    def together(name: str) -> np.ndarray:
        values = entries.field(name)
        nothing = np.nan if pa.types.is_floating(values.type) else 0
        return values.fill_null(nothing).to_numpy(zero_copy_only=False)

    def tokens(name: str) -> Tokens:
        return Tokens(together(f"{name}_high"), together(f"{name}_low"))

    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    nowhere = np.empty(0)
    return Carried(
        has_log=_flags(batch, "has_log"),
        lengths=lengths.astype(np.int64),
        moments=together("moment"),
        amounts=together("amount"),
        latitudes=together("latitude") if plan.has_place else nowhere,
        longitudes=together("longitude") if plan.has_place else nowhere,
        names=tokens("name"),
        values=[tokens(f"value_{i}") for i in range(len(plan.distinct_columns))],
    )


def _due_rows(plan: EntityPlan, batch: pa.RecordBatch) -> Pairs:
    newest = np.maximum(_numbers(batch, "last"), _numbers(batch, "last_report"))
    return as_bytes.due_rows(plan, newest + plan.reach + 2 * LATENESS_MS, _tokens(batch, "key"))


def _log_rows(plan: EntityPlan, batch: pa.RecordBatch) -> Pairs:
    values = [
        (_flags(batch, f"has_{i}"), _tokens(batch, f"value_{i}")) for i in range(len(plan.distinct_columns))
    ]
    return as_bytes.log_rows(
        plan,
        _tokens(batch, "key"),
        _numbers(batch, "event_time"),
        _tokens(batch, "transaction"),
        _numbers(batch, "amount_minor"),
        _places(batch, "place"),
        values,
    )


def _report_rows(plan: EntityPlan, batch: pa.RecordBatch) -> Pairs:
    keys, transactions = _tokens(batch, "key"), _tokens(batch, "transaction")
    return as_bytes.report_rows(plan, keys, _numbers(batch, "known_at"), transactions)


def _reported_rows(plan: EntityPlan, batch: pa.RecordBatch) -> Pairs:
    keys, transactions = _tokens(batch, "key"), _tokens(batch, "transaction")
    return as_bytes.reported_rows(plan, keys, _numbers(batch, "known_at"), transactions)


def _count_rows(plan: EntityPlan, column: int, batch: pa.RecordBatch) -> Pairs:
    times = [_numbers(batch, f"times_{i}") for i in range(len(plan.windows))]
    return as_bytes.count_rows(plan, _tokens(batch, "key"), column, _tokens(batch, "value"), times)


def _seen_rows(batch: pa.RecordBatch) -> Pairs:
    names = as_bytes.Record(batch.num_rows).token(_tokens(batch, "transaction")).rows()
    columns = (batch.column(place).to_pylist() for place in range(2, batch.num_columns))
    for name, card, merchant, customer, device, ip, event_time, known_at in zip(names, *columns, strict=True):
        yield name, encode(SeenRecord((card, merchant, customer, device, ip), event_time, known_at))


def _numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch.column(name).to_numpy(zero_copy_only=False)


def _flags(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch.column(name).to_numpy(zero_copy_only=False).astype(bool)


def _tokens(batch: pa.RecordBatch, name: str) -> Tokens:
    high, low = (batch.column(f"{name}_{half}").fill_null(0) for half in ("high", "low"))
    return Tokens(high.to_numpy(zero_copy_only=False), low.to_numpy(zero_copy_only=False))


def _places(batch: pa.RecordBatch, name: str) -> Places:
    column, length = batch.column(name), batch.num_rows
    if not pa.types.is_struct(column.type):
        nothing = np.zeros(length)
        return Places(np.zeros(length, dtype=bool), nothing.astype(np.int64), nothing, nothing)
    moment, latitude, longitude = (
        part.fill_null(0).to_numpy(zero_copy_only=False) for part in column.flatten()
    )
    return Places(column.is_valid().to_numpy(zero_copy_only=False), moment, latitude, longitude)
