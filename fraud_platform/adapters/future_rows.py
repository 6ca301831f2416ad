"""The future-row probe: builds features without what came after a moment, and compares the rows before it.

Belongs here: the copy, dbt over it, the comparison. Does not belong here: what is made of a difference
(evaluate/leakage.py). The exact tables are only read; the scratch warehouse is gone at the end.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.tails import build_copy
from fraud_platform.errors import SourceError
from fraud_platform.evaluate.leakage import Finding, future_alarm
from fraud_platform.features.contract import FeatureContract
from fraud_platform.ingest import Mapping
from fraud_platform.settings import Settings
from fraud_platform.train.split import date_of

ROWS_MAX = 500_000
"""At most so many rows are built again: where there are more, the moment lies earlier."""
KEPT_SHARE = 0.7
"""Rows before the moment, of all: the rest is the future that must not matter."""


def probe_future(
    settings: Settings, mapping: Mapping, contract: FeatureContract, rows_max: int = ROWS_MAX
) -> Finding:
    """Rows before a moment with and without the transactions and labels that came at it or later.

    Everything before the moment is in the copy, so each window holds what it held. Values are compared as
    DuckDB tells them apart: NULL equals NULL. SourceError where there are no transactions or dbt fails.
    """
    warehouse = Warehouse(settings.warehouse)
    moment = _moment(warehouse, rows_max)
    with TemporaryDirectory(prefix="future-") as folder:
        copy = Warehouse(Path(folder) / "future.duckdb", warehouse.memory_limit, warehouse.threads)
        with warehouse.connect(read_only=True) as connection:
            connection.execute(f"attach '{copy.path}' as copy (read_write)")
            connection.execute("create schema copy.ingest")
            for table, column in (("transactions", "event_time"), ("labels", "known_at")):
                connection.execute(
                    f"create table copy.ingest.{table} as select * from ingest.{table} where {column} < ?",
                    [moment],
                )
        build_copy(settings, mapping, copy, 0)
        rows, differing = _compared(warehouse, copy, contract, moment)
    return future_alarm(date_of(moment), rows, differing)


def _moment(warehouse: Warehouse, rows_max: int) -> int:
    """The first moment that is taken away."""
    count = int(warehouse.frame("select count(*) as n from ingest.transactions")["n"].iloc[0])
    if not count:
        raise SourceError("leakage: there are no transactions in the warehouse; run ingest first")
    place = min(int(count * KEPT_SHARE), rows_max)
    found = warehouse.frame(
        "select event_time from ingest.transactions order by event_time limit 1 offset ?", [place]
    )
    return int(found["event_time"].iloc[0])


def _compared(
    warehouse: Warehouse, copy: Warehouse, contract: FeatureContract, moment: int
) -> tuple[int, dict[str, int]]:
    """Rows before the moment, and by feature how many differ; a row that one side lacks differs in all."""
    counts = ", ".join(
        f'count(*) filter (where whole."{name}" is distinct from past."{name}" '
        f'or (whole.transaction_id is null) or (past.transaction_id is null)) as "{name}"'
        for name in contract.names
    )
    with warehouse.connect(read_only=True) as connection:
        connection.execute(f"attach '{copy.path}' as copy (read_only)")
        found = connection.execute(
            f"select count(*) as compared_rows, {counts} "
            "from (select * from features.transaction_features where event_time < $moment) as whole "
            "full join (select * from copy.features.transaction_features) as past "
            "on whole.transaction_id = past.transaction_id",
            {"moment": moment},
        ).fetchone()
    assert found is not None  # an aggregate without groups is one row
    rows, *differing = (int(value) for value in found)
    return rows, dict(zip(contract.names, differing, strict=True))
