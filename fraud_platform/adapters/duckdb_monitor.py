"""The decision log and the posted labels in the warehouse, taken in piece by piece.

monitor.decisions: one row a recorded decision, its features as columns; monitor.labels: one row a posted
label event; monitor.log_heads: how far each load read each chain, and the hash of the last line. Loading goes
on from there, so that no line is taken twice, and the log is checked against all of them: they are anchors.
What was about a person who was erased is not taken in, and is removed. Belongs here: moving records. Does not
belong here: judging them (`monitor`).
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

from fraud_platform.adapters.decision_log_audit import Anchor
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.journal import (
    VAULT,
    LoggedDecision,
    LoggedLabel,
    read_decisions,
    read_labels,
    reading,
)
from fraud_platform.features.contract import FeatureContract
from fraud_platform.monitor import Decisions, LoggedDecisions
from fraud_platform.schema import LabelEvent
from fraud_platform.serve.record import ERASED

DECISIONS = "monitor.decisions"
LABELS = "monitor.labels"
HEADS = "monitor.log_heads"
ROWS_AT_ONCE = 20_000

Logged = TypeVar("Logged", LoggedDecision, LoggedLabel)

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
    "decided_by": _TEXT,
    "faults": _TEXT,
    "price": _TEXT,
    "bundle_id": _TEXT,
    "latency_us": _WHOLE,
    "is_late": pa.bool_(),
    "propensity": _REAL,
    "is_explored": pa.bool_(),
    "vault_key": _WHOLE,
}
_LABEL_COLUMNS: dict[str, pa.DataType] = {
    "worker": _TEXT,
    "sequence": _WHOLE,
    "transaction_id": _TEXT,
    "source": _TEXT,
    "outcome": _TEXT,
    "known_at": _WHOLE,
    "vault_key": _WHOLE,
}
_DUCKDB_TYPES = {_TEXT: "VARCHAR", _WHOLE: "BIGINT", _REAL: "DOUBLE", pa.bool_(): "BOOLEAN"}
_CLASHES = frozenset(_DECISION_COLUMNS)


@dataclass(frozen=True)
class LoadReport:
    """Rows that this load added, and rows that are there now; erased_count: rows that were removed, or not
    taken in, because their person was erased."""

    new_count: int
    total_count: int
    erased_count: int = 0


def load_decisions(
    warehouse: Warehouse, state: Path, contract_of: Callable[[str], FeatureContract], at_ms: int = 0
) -> LoadReport:
    """Add what the decision log holds and monitor.decisions does not. at_ms: when that is.

    contract_of: the feature contract of a bundle, by its id; a new contract's features become new columns.
    """
    taken = _Taken("decisions", at_ms)
    records = read_decisions(state, loaded_up_to(warehouse, "decisions"), with_erased=True)
    kept = taken.noted(records, lambda one: one.record.is_erased)
    tables = (_decision_table(batch, contract_of) for batch in _batches(kept))
    return _append(warehouse, DECISIONS, _DECISION_COLUMNS, tables, taken, _erased_keys(state))


def load_labels(warehouse: Warehouse, state: Path, at_ms: int = 0) -> LoadReport:
    """Add the posted label events that monitor.labels does not hold."""
    taken = _Taken("labels", at_ms)
    records = read_labels(state, loaded_up_to(warehouse, "labels"), with_erased=True)
    kept = taken.noted(records, lambda one: one.record.event.transaction_id == ERASED)
    tables = (_label_table(batch) for batch in _batches(kept))
    return _append(warehouse, LABELS, _LABEL_COLUMNS, tables, taken, _erased_keys(state))


def loaded_up_to(warehouse: Warehouse, log: str) -> dict[str, int]:
    """The last sequence of each chain of a log that was read into the warehouse."""
    if not warehouse.exists(HEADS):
        return {}
    query = f"SELECT worker, max(sequence) FROM {HEADS} WHERE log = ? GROUP BY worker"
    with warehouse.connect(read_only=True) as connection:
        return dict(connection.execute(query, [log]).fetchall())


def anchors(warehouse: Warehouse) -> list[Anchor]:
    """The heads that every load has met."""
    if not warehouse.exists(HEADS):
        return []
    with warehouse.connect(read_only=True) as connection:
        rows = connection.execute(f"SELECT log, worker, sequence, hash, loaded_at FROM {HEADS}").fetchall()
    return [Anchor(*row) for row in rows]


def forget(warehouse: Warehouse, state: Path) -> int:
    """Removes the rows of persons who were erased; how many there were."""
    erased = _erased_keys(state)
    removed = 0
    for table in (DECISIONS, LABELS):
        if warehouse.exists(table):
            with warehouse.connect() as connection:
                removed += _forget(connection, table, erased)
                connection.execute("CHECKPOINT")
    return removed


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


def logged_columns(warehouse: Warehouse) -> LoggedDecisions:
    """As `decision_columns`, with how each was chosen. What was loaded before there was any exploration had
    no alternative."""
    names = "transaction_id, event_time, amount_minor, currency, probability, action, tier, decided_by, price"
    has = set(warehouse.frame(f"SELECT * FROM {DECISIONS} LIMIT 0").columns)
    certain = {"propensity": "1.0::DOUBLE", "is_explored": "false"}
    said = [f"coalesce({n}, {v}) AS {n}" if n in has else f"{v} AS {n}" for n, v in certain.items()]
    query = f"SELECT {names}, {', '.join(said)}, vault_key AS person FROM {DECISIONS}"
    table = _fetch(warehouse, query, [])
    texts = ("transaction_id", "currency", "action", "tier", "decided_by", "price")
    arrays = {name: _array(table.column(name), True) for name in texts}
    rest = {name: table.column(name).to_numpy() for name in table.column_names if name not in texts}
    return LoggedDecisions(**arrays, **rest)


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


class _Taken:
    """Notes how far a log was read, and what was left out."""

    def __init__(self, log: str, at_ms: int) -> None:
        self.log = log
        self.at_ms = at_ms
        self.heads: dict[str, tuple[int, str]] = {}
        self.left_out = 0

    def noted(self, records: Iterable[Logged], is_erased: Callable[[Logged], bool]) -> Iterator[Logged]:
        for one in records:
            self.heads[one.worker] = (one.sequence, one.hash)
            if is_erased(one):
                self.left_out += 1
            else:
                yield one

    def rows(self) -> list[tuple[str, str, int, str, int]]:
        return [(self.log, worker, *head, self.at_ms) for worker, head in self.heads.items()]


def _erased_keys(state: Path) -> list[int]:
    if not (state / VAULT).is_dir():
        return []
    with reading(state) as sealer:
        return [one.slot for one in sealer.vault.erased()]


def _append(
    warehouse: Warehouse,
    table: str,
    columns: dict[str, pa.DataType],
    tables: Iterable[pa.Table],
    taken: _Taken,
    erased: list[int],
) -> LoadReport:
    """All or nothing: a load that is stopped leaves the tables as they were."""
    ready = list(tables)
    with warehouse.connect() as connection:
        connection.begin()
        connection.execute("CREATE SCHEMA IF NOT EXISTS monitor")
        body = ", ".join(f'"{name}" {_DUCKDB_TYPES[kind]}' for name, kind in columns.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({body})")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {HEADS} "
            "(log VARCHAR, worker VARCHAR, sequence BIGINT, hash VARCHAR, loaded_at BIGINT)"
        )
        for part in ready:
            _insert(connection, table, part)
        removed = _forget(connection, table, erased)
        for row in taken.rows():
            connection.execute(f"INSERT INTO {HEADS} VALUES (?, ?, ?, ?, ?)", row)
        total = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        connection.commit()
    new_count = sum(len(part) for part in ready)
    return LoadReport(new_count, int(total[0]) if total else 0, removed + taken.left_out)


def _forget(connection: duckdb.DuckDBPyConnection, table: str, erased: list[int]) -> int:
    if not erased:
        return 0
    connection.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS vault_key BIGINT")
    query = f"DELETE FROM {table} WHERE list_contains(?::BIGINT[], vault_key)"
    row = connection.execute(query, [erased]).fetchone()
    return int(row[0]) if row else 0


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
        record.decided_by,
        ",".join(record.faults),
        record.price,
        record.bundle_id,
        record.timings.total_us,
        record.is_late,
        record.propensity,
        record.is_explored,
        logged.slot,
    )


def _label_table(batch: list[LoggedLabel]) -> pa.Table:
    rows = []
    for logged in batch:
        event = logged.record.event
        known = (event.transaction_id, event.source, event.outcome, event.known_at)
        rows.append((logged.worker, logged.sequence, *known, logged.slot))
    return _table(rows, _LABEL_COLUMNS)


def _table(rows: list[tuple[Any, ...]], columns: dict[str, pa.DataType]) -> pa.Table:
    parts = zip(columns.items(), zip(*rows, strict=True), strict=True)
    return pa.table({name: pa.array(values, kind) for (name, kind), values in parts})


def _array(column: pa.ChunkedArray, is_text: bool) -> np.ndarray:
    if is_text:
        return np.array(column.to_pylist(), dtype=object)
    return column.to_numpy().astype(np.float64)
