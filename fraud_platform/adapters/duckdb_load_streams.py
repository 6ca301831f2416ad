"""The two streams that a bulk load reads: what was known before its watermark.

Belongs here: the warehouse together with events that it does not hold yet. Does not belong here: what is
asked of them (duckdb_load.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from fraud_platform.adapters.duckdb_timeline import end_of_transactions
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.state import FAR
from fraud_platform.schema import LABEL_COLUMNS, TRANSACTION_COLUMNS, LabelEvent, Transaction

_ARROW = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64()}


def prepare_streams(
    connection: duckdb.DuckDBPyConnection,
    contract: FeatureContract,
    watermark: int | None,
    live: Sequence[Transaction | LabelEvent] = (),
) -> int:
    """Makes the temporary tables known_transactions and known_reports of all that was known before the
    watermark, and returns it. live: events that the warehouse may lack. StoreError where there is nothing.

    Without a watermark it is one past the newest transaction, and reports that became known later are loaded
    too: they wait in the logs, as in a store that learned them. Labels may be known long after the newest
    transaction, and would else make the transactions in between late, and refuse some of them.
    """
    _register(connection, "live_transactions", [e for e in live if isinstance(e, Transaction)])
    _register(connection, "live_labels", [e for e in live if isinstance(e, LabelEvent)])
    names = ", ".join(column.name for column in TRANSACTION_COLUMNS)
    connection.execute(
        f"create or replace temp view all_transactions as select {names} from ingest.transactions union all "
        f"select {names} from live_transactions anti join ingest.transactions using (transaction_id)"
    )
    connection.execute(
        "create or replace temp view all_labels as select transaction_id, outcome, known_at "
        "from ingest.labels union all select transaction_id, outcome, known_at from live_labels"
    )
    known_until = FAR if watermark is None else watermark
    if watermark is None:
        watermark = end_of_transactions(connection, "all_transactions")
    connection.execute(
        f"create or replace temp table known_transactions as select {names} from all_transactions "
        f"where event_time < {watermark}"
    )
    # The twin of staging/stg_fraud_reports.sql, over the live labels too.
    connection.execute(
        "create or replace temp table known_reports as select t.*, r.known_at from ("
        "select transaction_id, min(known_at) as known_at from all_labels inner join known_transactions "
        "using (transaction_id) where outcome = 'fraud' and known_at >= event_time group by all) as r "
        "inner join known_transactions as t using (transaction_id) "
        f"where r.known_at < {known_until} and r.known_at - t.event_time <= {contract.report_horizon_ms}"
    )
    return watermark


def _register(
    connection: duckdb.DuckDBPyConnection, name: str, events: Sequence[Transaction | LabelEvent]
) -> None:
    columns = TRANSACTION_COLUMNS if name == "live_transactions" else LABEL_COLUMNS
    fields = [pa.field(column.name, _ARROW[column.type]) for column in columns]
    rows = [{name: _known(value) for name, value in msgspec.to_builtins(event).items()} for event in events]
    connection.register(f"{name}_arrow", pa.Table.from_pylist(rows, schema=pa.schema(fields)))
    connection.execute(f"create or replace temp table {name} as select * from {name}_arrow")
    connection.unregister(f"{name}_arrow")


def _known(value: Any) -> Any:
    """Empty text is NULL, as in the warehouse."""
    return None if value == "" else value
