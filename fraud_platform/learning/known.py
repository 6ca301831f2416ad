"""What was known of many transactions at a moment: `labels.LabelRule` over arrays, for any as-of.

Belongs here: resolving label events. Does not belong here: reading them (`adapters`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fraud_platform.errors import LabelError


@dataclass(frozen=True)
class KnownLabels:
    """Label events, each array (m,), in the order in which the first known one of a row decides.

    row: place of the transaction among `rows`; known_at: ms UTC; is_fraud: the outcome.
    """

    rows: int
    row: np.ndarray
    known_at: np.ndarray
    is_fraud: np.ndarray

    @classmethod
    def of(cls, events: pd.DataFrame, transaction_id: np.ndarray, precedence: Sequence[str]) -> KnownLabels:
        """events: transaction_id, source, outcome, known_at (ms), in any order; those on other transactions
        than `transaction_id` (n,) are left out. LabelError when an id is there twice."""
        index = pd.Index(transaction_id)
        if not index.is_unique:
            raise LabelError(
                f"{len(index) - index.nunique()} transaction ids are there twice; give each once"
            )
        row = index.get_indexer(events["transaction_id"])
        events, row = events.loc[row >= 0], row[row >= 0]
        source = events["source"].to_numpy(dtype=object).astype(str)
        ranks = {name: place for place, name in enumerate(precedence)}
        rank = np.array([ranks.get(name, len(ranks)) for name in source], dtype=np.int64)
        known_at = events["known_at"].to_numpy(dtype=np.int64)
        is_fraud = events["outcome"].to_numpy(dtype=object) == "fraud"
        order = np.lexsort((source, ~is_fraud, -known_at, rank, row))
        return cls(len(index), row[order], known_at[order], is_fraud[order])

    def is_fraud_at(self, as_of_ms: int) -> np.ndarray:
        """Which rows the strongest source calls fraud, by its latest word before the moment: bool (n,)."""
        known = self.known_at < as_of_ms
        row, is_fraud = self.row[known], self.is_fraud[known]
        first = np.concatenate(([True], np.diff(row) != 0)) if len(row) else np.zeros(0, dtype=bool)
        found = np.zeros(self.rows, dtype=bool)
        found[row[first & is_fraud]] = True
        return found

    def taught(self, rows: pd.DataFrame, as_of_ms: int) -> pd.DataFrame:
        """The rows with `is_fraud` as it was known before the moment; those that happened since keep theirs.

        rows: event_time (ms UTC) and is_fraud, in the order of this object's rows.
        """
        is_past = rows["event_time"].to_numpy() < as_of_ms
        is_fraud = rows["is_fraud"].to_numpy(dtype=bool)
        return rows.assign(is_fraud=np.where(is_past, self.is_fraud_at(as_of_ms), is_fraud))

    def first_report(self, as_of_ms: int) -> np.ndarray:
        """When each row was first called fraud, before the moment: int64 (n,), -1 where it was not."""
        known = (self.known_at < as_of_ms) & self.is_fraud
        first = np.full(self.rows, np.iinfo(np.int64).max)
        np.minimum.at(first, self.row[known], self.known_at[known])
        return np.where(first == np.iinfo(np.int64).max, -1, first)
