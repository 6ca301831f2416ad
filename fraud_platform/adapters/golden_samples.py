"""Transactions with their vectors from the warehouse: the same ones whenever the same rows are there."""

from __future__ import annotations

import msgspec

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_timeline import read_timeline
from fraud_platform.features.contract import FeatureContract
from fraud_platform.schema import ID_COLUMNS, Transaction

SAMPLES = 40
FRAUDS = 15
"""Among the samples, where there are so many: their actions and reasons differ."""

_CHOSEN = """
select transaction_id from (
    (select transaction_id from training.training_set where is_fraud
     order by hash(transaction_id), transaction_id limit {frauds})
    union
    (select transaction_id from features.transaction_features order by hash(transaction_id), transaction_id
     limit {rest})
)
"""


def golden_samples(
    warehouse: Warehouse, contract: FeatureContract
) -> list[tuple[Transaction, tuple[float | str | None, ...]]]:
    """At most SAMPLES (transaction, vector in contract order), ordered by time; the tokens are made up."""
    chosen = _CHOSEN.format(frauds=FRAUDS, rest=SAMPLES - FRAUDS)
    columns = ", ".join(f'"{name}"' for name in contract.names)
    with warehouse.connect(read_only=True) as connection:
        rows = connection.execute(
            f"select transaction_id, {columns} from features.transaction_features "
            f"where transaction_id in ({chosen})"
        ).fetchall()
        vectors = {row[0]: tuple(_plain(value) for value in row[1:]) for row in rows}
        if not vectors:
            return []
        lower, upper = connection.execute(
            f"select min(event_time), max(event_time) from ingest.transactions "
            f"where transaction_id in ({chosen})"
        ).fetchall()[0]
        found = [
            (event, vectors[event.transaction_id])
            for event in read_timeline(connection, contract, lower, upper + 1)
            if isinstance(event, Transaction) and event.transaction_id in vectors
        ]
    return [(_nobody(event, number), vector) for number, (event, vector) in enumerate(found)]


def _nobody(transaction: Transaction, number: int) -> Transaction:
    """The transaction of nobody in particular: a bundle holds no person's tokens."""
    tokens = {name: f"golden-{number}" for name in ID_COLUMNS if getattr(transaction, name) is not None}
    return msgspec.structs.replace(transaction, **tokens)


def _plain(value: object) -> float | str | None:
    return value if value is None or isinstance(value, str) else float(value)  # type: ignore[arg-type]
