"""What the label delay is measured on: fraud reports, and a played world's rows beside their truth.

Belongs here: SQL over ingest.* and features.transaction_features, and the truth's file.
Does not belong here: what is made of the rows (`learning`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.errors import SourceError
from fraud_platform.rules import FIELD_TYPES
from fraud_platform.schema import TRANSACTION_COLUMNS
from fraud_platform.simulate.tactics import FRIENDLY

FEATURES = "features.transaction_features"
TRUTH_FILE = "truth.parquet"


def end_of_data(warehouse: Warehouse) -> int:
    """One past the last transaction (ms UTC), the moment from which labels are looked at by default."""
    found = warehouse.frame("select max(event_time) + 1 as stop from ingest.transactions")["stop"].iloc[0]
    if pd.isna(found):
        raise SourceError(f"there are no transactions in {warehouse.path}: run ingest first")
    return int(found)


def fraud_reports(warehouse: Warehouse, as_of_ms: int) -> pd.DataFrame:
    """Of each transaction and source the first report of fraud known before the moment, with the
    transaction."""
    return warehouse.frame(
        "select asked.*, told.source, told.known_at from ("
        "  select transaction_id, source, min(known_at) as known_at from ingest.labels"
        "  where outcome = 'fraud' and known_at < $as_of group by transaction_id, source) as told "
        "inner join ingest.transactions as asked on told.transaction_id = asked.transaction_id "
        "where asked.event_time < $as_of order by told.known_at, told.transaction_id, told.source",
        {"as_of": as_of_ms},
    )


def label_events(warehouse: Warehouse) -> pd.DataFrame:
    return warehouse.frame("select transaction_id, source, outcome, known_at from ingest.labels")


def true_rows(warehouse: Warehouse, truth: Path) -> pd.DataFrame:
    """Every transaction with its features, its request's fields and the truth: is_fraud, is_friendly.

    truth: the folder that a world's truth was written to. SourceError where it is missing or of another
    world.
    """
    path = truth / TRUTH_FILE
    if not path.is_file():
        raise SourceError(
            f"{path} is missing: only a world that the platform played has a truth; "
            "materialize simulate/world"
        )
    has = set(warehouse.frame(f"select * from {FEATURES} limit 0").columns)
    wanted = [column.name for column in TRANSACTION_COLUMNS if column.name not in has]
    wanted += [name for name in FIELD_TYPES if name not in has and name != "amount" and name not in wanted]
    fields = "".join(f', asked."{name}"' for name in wanted)
    rows = warehouse.frame(
        f"select built.*{fields}, truth.is_fraud, "
        "coalesce(truth.campaign_kind = $kind, false) as is_friendly "
        f"from {FEATURES} as built "
        "inner join ingest.transactions as asked on built.transaction_id = asked.transaction_id "
        "left join read_parquet($path) as truth on built.transaction_id = truth.transaction_id",
        {"kind": FRIENDLY, "path": str(path)},
    )
    unknown = int(rows["is_fraud"].isna().sum())
    if unknown:
        raise SourceError(
            f"{path} does not know {unknown:,} of {len(rows):,} transactions: it is of another world; "
            "remove this var and play the world again"
        )
    return rows.assign(is_fraud=rows["is_fraud"].astype(bool))
