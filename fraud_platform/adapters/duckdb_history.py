"""Mature rows of the warehouse with the fields of their requests, in pieces that fit into memory.

Belongs here: SQL over training.training_set and ingest.transactions.
Does not belong here: what is done with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.rules import FIELD_TYPES
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train import Part

TRAINING_SET = "training.training_set"
ROWS_AT_ONCE = 200_000
_EMPTY = f"select * from {TRAINING_SET} limit 0"


def history(warehouse: Warehouse) -> Part | None:
    """From the first mature row to the last; None where there is none. SourceError without a training set."""
    found = warehouse.frame(
        f"select min(event_time) as first, max(event_time) + 1 as stop from {TRAINING_SET}"
    )
    first, stop = found.iloc[0]
    return None if pd.isna(first) else Part(int(first), int(stop))


def mature_rows(warehouse: Warehouse, part: Part, at_once: int = ROWS_AT_ONCE) -> Iterator[pd.DataFrame]:
    """The training set's rows of the part, in order of time, with the request's other fields.

    Pieces are whole days, of at_once rows or of one day.
    """
    has = set(warehouse.frame(_EMPTY).columns)
    fields = "".join(f', asked."{name}"' for name in FIELD_TYPES if name not in has and name != "amount")
    for start_ms, end_ms in _pieces(warehouse, part, at_once):
        yield warehouse.frame(
            f"select mature.*{fields} from {TRAINING_SET} as mature "
            "inner join ingest.transactions as asked on mature.transaction_id = asked.transaction_id "
            "where mature.event_time >= $start and mature.event_time < $stop "
            "and asked.event_time >= $start and asked.event_time < $stop "
            "order by mature.event_time, mature.transaction_id",
            {"start": start_ms, "stop": end_ms},
        )


def mature_frame(warehouse: Warehouse, part: Part) -> pd.DataFrame:
    """The rows of `mature_rows` in one frame, which is empty where there are none."""
    pieces = list(mature_rows(warehouse, part))
    return pd.concat(pieces, ignore_index=True) if pieces else warehouse.frame(_EMPTY)


def _pieces(warehouse: Warehouse, part: Part, at_once: int) -> Iterator[tuple[int, int]]:
    days = warehouse.frame(
        f"select event_time // {MILLISECONDS_PER_DAY} as day, count(*) as n from {TRAINING_SET} "
        "where event_time >= ? and event_time < ? group by day order by day",
        [part.start_ms, part.end_ms],
    )
    start_ms, count = part.start_ms, 0
    for day, n in zip(days["day"].tolist(), days["n"].tolist(), strict=True):
        first_ms = day * MILLISECONDS_PER_DAY
        if count and count + n > at_once:
            yield start_ms, first_ms
            start_ms, count = first_ms, 0
        count += n
    if count:
        yield start_ms, part.end_ms
