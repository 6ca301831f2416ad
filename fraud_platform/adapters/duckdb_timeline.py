"""Reads the warehouse's two streams as one timeline, event by event.

Belongs here: the order in which everything became known. Does not belong here: what an event means
(features/engine.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import duckdb

from fraud_platform.errors import StoreError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.schema import TRANSACTION_COLUMNS, LabelEvent, Transaction

BATCH_ROWS = 20_000


def end_of_timeline(connection: duckdb.DuckDBPyConnection) -> int:
    """One past the last moment at which anything became known (ms UTC). StoreError where nothing did."""
    return _end_of(
        connection,
        "(select event_time as moment from ingest.transactions union all select known_at from ingest.labels)",
    )


def end_of_transactions(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """One past the newest event_time of the table (ms UTC). StoreError where it is empty."""
    return _end_of(connection, f"(select event_time as moment from {table})")


def _end_of(connection: duckdb.DuckDBPyConnection, moments: str) -> int:
    row = connection.execute(f"select max(moment) from {moments}").fetchone()
    if row is None or row[0] is None:
        raise StoreError("online store: the warehouse holds no transactions; run ingest first")
    return int(row[0]) + 1


def read_timeline(
    connection: duckdb.DuckDBPyConnection, contract: FeatureContract, lower: int, upper: int | None = None
) -> Iterator[Transaction | LabelEvent]:
    """Both streams with lower <= moment < upper, merged in the order in which they became known."""
    bound = 1 << 62 if upper is None else upper
    extras = [
        feature.of[0] for feature in contract.features if feature.of and feature.of[0].startswith("extra_")
    ]
    names = [column.name for column in TRANSACTION_COLUMNS]
    transactions = connection.cursor().execute(
        f"select {', '.join([*names, *extras])} from ingest.transactions "
        "where event_time >= ? and event_time < ? order by event_time, transaction_id",
        [lower, bound],
    )
    labels = connection.cursor().execute(
        "select transaction_id, source, outcome, known_at from ingest.labels "
        "where known_at >= ? and known_at < ? order by known_at, transaction_id",
        [lower, bound],
    )
    arrivals: Iterator[tuple[int, int, Transaction | LabelEvent]] = heapq.merge(
        ((e.event_time, 0, e) for e in _transactions(transactions, names, extras)),
        ((e.known_at, 1, e) for e in _labels(labels)),
        key=lambda arrival: arrival[:2],
    )
    return (event for _, _, event in arrivals)


def _transactions(
    cursor: duckdb.DuckDBPyConnection, names: list[str], extras: list[str]
) -> Iterator[Transaction]:
    bare = [extra.removeprefix("extra_") for extra in extras]
    while rows := cursor.fetchmany(BATCH_ROWS):
        for row in rows:
            fields = dict(zip(names, row, strict=False))
            yield Transaction(**fields, extras=dict(zip(bare, row[len(names) :], strict=True)))


def _labels(cursor: duckdb.DuckDBPyConnection) -> Iterator[LabelEvent]:
    while rows := cursor.fetchmany(BATCH_ROWS):
        for transaction_id, source, outcome, known_at in rows:
            yield LabelEvent(transaction_id=transaction_id, source=source, outcome=outcome, known_at=known_at)
