"""The decision log and the posted labels in the warehouse, taken in piece by piece.

monitor.decisions: one row a recorded decision, its features as columns; monitor.labels: one row a posted
label event. Both keep worker and sequence of the log's line, so that loading goes on where it ended and no
line is taken twice. Belongs here: moving records. Does not belong here: judging them (`monitor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import duckdb
import numpy as np
import pyarrow as pa

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.journal import LoggedDecision, LoggedLabel, read_decisions, read_labels
from fraud_platform.features.contract import FeatureContract
from fraud_platform.monitor import Decisions
from fraud_platform.schema import LabelEvent

DECISIONS = "monitor.decisions"
LABELS = "monitor.labels"
ROWS_AT_ONCE = 20_000

Logged = TypeVar("Logged")

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_DECISION_COLUMNS: dict[str, pa.DataType] = {
    "worker": _TEXT,
    "sequence": _WHOLE,
    "transaction_id": _TEXT,
    "decided_at": _WHOLE,
    "event_time": _WHOLE,
    "amount_minor": _WHOLE,
    "currency": _TEXT,
    "score": _REAL,
    "probability": _REAL,
    "action": _TEXT,
    "tier": _TEXT,
    "bundle_id": _TEXT,
    "latency_us": _WHOLE,
}
_LABEL_COLUMNS: dict[str, pa.DataType] = {
    "worker": _TEXT,
    "sequence": _WHOLE,
    "transaction_id": _TEXT,
    "source": _TEXT,
    "outcome": _TEXT,
    "known_at": _WHOLE,
}
_DUCKDB_TYPES = {_TEXT: "VARCHAR", _WHOLE: "BIGINT", _REAL: "DOUBLE"}
_CLASHES = frozenset(_DECISION_COLUMNS)


@dataclass(frozen=True)
class LoadReport:
    """Rows that this load added, and rows that are there now."""

    new_count: int
    total_count: int


def load_decisions(
    warehouse: Warehouse, state: Path, contract_of: Callable[[str], FeatureContract]
) -> LoadReport:
    """Add what the decision log holds and monitor.decisions does not.

    contract_of: the feature contract of a bundle, by its id; a new contract's features become new columns.
    """
    batches = _batches(read_decisions(state, _known(warehouse, DECISIONS)))
    tables = (_decision_table(batch, contract_of) for batch in batches)
    return _append(warehouse, DECISIONS, _DECISION_COLUMNS, tables)


def load_labels(warehouse: Warehouse, state: Path) -> LoadReport:
    """Add the posted label events that monitor.labels does not hold."""
    tables = (_label_table(batch) for batch in _batches(read_labels(state, _known(warehouse, LABELS))))
    return _append(warehouse, LABELS, _LABEL_COLUMNS, tables)


def recent_columns(
    warehouse: Warehouse, contract: FeatureContract, bundle_id: str, row_count: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Feature columns and probabilities of a bundle's latest decisions, at most `row_count`.

    In contract order: float64 with NaN, or object of str with None. Decisions without a score are left out.
    """
    names = ", ".join(f'"{column_name(name)}"' for name in contract.names)
    query = (
        f"SELECT probability, {names} FROM {DECISIONS} WHERE bundle_id = ? AND probability IS NOT NULL "
        "ORDER BY decided_at DESC, worker, sequence DESC LIMIT ?"
    )
    table = _fetch(warehouse, query, [bundle_id, row_count])
    columns = {
        feature.name: _array(table.column(place + 1), feature.dtype == "category")
        for place, feature in enumerate(contract.features)
    }
    return columns, _array(table.column(0), is_text=False)


def decision_columns(warehouse: Warehouse) -> Decisions:
    """Every recorded decision, for delayed performance."""
    query = f"SELECT transaction_id, event_time, amount_minor, currency, probability, action FROM {DECISIONS}"
    table = _fetch(warehouse, query, [])
    texts = ("transaction_id", "currency", "action")
    arrays = {name: _array(table.column(name), name in texts) for name in table.column_names}
    times = {name: table.column(name).to_numpy() for name in ("event_time", "amount_minor")}
    return Decisions(**{**arrays, **times})


def label_events(warehouse: Warehouse) -> list[LabelEvent]:
    """Label events of decided transactions, from the files (ingest.labels) and posted to the service."""
    known = [name for name in ("ingest.labels", LABELS) if warehouse.exists(name)]
    if not known or not warehouse.exists(DECISIONS):
        return []
    columns = "transaction_id, source, outcome, known_at"
    union = " UNION ".join(f"SELECT {columns} FROM {name}" for name in known)
    query = f"SELECT {columns} FROM ({union}) SEMI JOIN {DECISIONS} USING (transaction_id)"
    with warehouse.connect(read_only=True) as connection:
        rows = connection.execute(query).fetchall()
    return [LabelEvent(transaction_id=i, source=s, outcome=o, known_at=k) for i, s, o, k in rows]


def column_name(feature: str) -> str:
    """A feature's column in monitor.decisions; `amount_minor`, say, is a column of the decision already."""
    return f"feature_{feature}" if feature in _CLASHES else feature


def _fetch(warehouse: Warehouse, query: str, parameters: list[Any]) -> pa.Table:
    with warehouse.connect(read_only=True) as connection:
        return cast(pa.Table, connection.sql(query, params=parameters).to_arrow_table())


def _batches(records: Iterator[Logged]) -> Iterator[list[Logged]]:
    while batch := list(islice(records, ROWS_AT_ONCE)):
        yield batch


def _known(warehouse: Warehouse, table: str) -> dict[str, int]:
    """The last sequence of each worker that is in the table."""
    if not warehouse.exists(table):
        return {}
    with warehouse.connect(read_only=True) as connection:
        rows = connection.execute(f"SELECT worker, max(sequence) FROM {table} GROUP BY worker").fetchall()
    return dict(rows)


def _append(
    warehouse: Warehouse, table: str, columns: dict[str, pa.DataType], tables: Iterable[pa.Table]
) -> LoadReport:
    """All or nothing: a load that is stopped leaves the table as it was."""
    ready = list(tables)
    with warehouse.connect() as connection:
        connection.begin()
        connection.execute("CREATE SCHEMA IF NOT EXISTS monitor")
        body = ", ".join(f'"{name}" {_DUCKDB_TYPES[kind]}' for name, kind in columns.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({body})")
        for part in ready:
            _insert(connection, table, part)
        total = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        connection.commit()
    return LoadReport(sum(len(part) for part in ready), int(total[0]) if total else 0)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, part: pa.Table) -> None:
    for column in part.schema:
        kind = _DUCKDB_TYPES[column.type]
        connection.execute(f'ALTER TABLE {table} ADD COLUMN IF NOT EXISTS "{column.name}" {kind}')
    connection.register("loaded_part", part)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM loaded_part")
    connection.unregister("loaded_part")


def _decision_table(batch: list[LoggedDecision], contract_of: Callable[[str], FeatureContract]) -> pa.Table:
    parts = []
    for bundle_id in dict.fromkeys(logged.record.bundle_id for logged in batch):
        chosen = [logged for logged in batch if logged.record.bundle_id == bundle_id]
        parts.append(_bundle_table(chosen, contract_of(bundle_id)))
    return pa.concat_tables(parts, promote_options="default")


def _bundle_table(batch: list[LoggedDecision], contract: FeatureContract) -> pa.Table:
    table = _table([_decision_row(logged) for logged in batch], _DECISION_COLUMNS)
    unknown = (None,) * len(contract.features)
    vectors = [logged.record.vector or unknown for logged in batch]
    for place, feature in enumerate(contract.features):
        kind = _TEXT if feature.dtype == "category" else _REAL
        values = pa.array([vector[place] for vector in vectors], kind)
        table = table.append_column(column_name(feature.name), values)
    return table


def _decision_row(logged: LoggedDecision) -> tuple[Any, ...]:
    record = logged.record
    return (
        logged.worker,
        logged.sequence,
        record.transaction_id,
        record.decided_at,
        record.request.event_time,
        record.request.amount_minor,
        record.request.currency,
        record.raw_score,
        record.probability,
        record.action,
        record.tier,
        record.bundle_id,
        record.timings.total_us,
    )


def _label_table(batch: list[LoggedLabel]) -> pa.Table:
    rows = []
    for logged in batch:
        event = logged.record.event
        known = (event.transaction_id, event.source, event.outcome, event.known_at)
        rows.append((logged.worker, logged.sequence, *known))
    return _table(rows, _LABEL_COLUMNS)


def _table(rows: list[tuple[Any, ...]], columns: dict[str, pa.DataType]) -> pa.Table:
    parts = zip(columns.items(), zip(*rows, strict=True), strict=True)
    return pa.table({name: pa.array(values, kind) for (name, kind), values in parts})


def _array(column: pa.ChunkedArray, is_text: bool) -> np.ndarray:
    if is_text:
        return np.array(column.to_pylist(), dtype=object)
    return column.to_numpy().astype(np.float64)
