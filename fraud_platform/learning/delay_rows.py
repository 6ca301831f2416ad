"""The rows of a world whose truth is known, and what was known of them at a moment.

Belongs here: arrays in order of time, and their past as seen at an as-of. Does not belong here: contenders
(`delay_contenders`), reading a world (`adapters`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import Fold, amount_major
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.learning.delayed import segments_of
from fraud_platform.learning.known import KnownLabels
from fraud_platform.train import columns_of, sample_rows

FRAUDS_MIN = 10


@dataclass(frozen=True)
class DelayRows:
    """Rows by time and id, each array (n,), `matrix` float64 (n, k) in contract order.

    is_fraud: the truth; is_friendly: a fraud by the cardholder himself. is_drawn: whether a row teaches where
    it is taken for legitimate. frame: the same rows with every column.
    """

    frame: pd.DataFrame
    matrix: np.ndarray
    event_time: np.ndarray
    card_id: np.ndarray
    segment: np.ndarray
    amount: np.ndarray
    is_fraud: np.ndarray
    is_friendly: np.ndarray
    is_drawn: np.ndarray
    labels: KnownLabels

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        events: pd.DataFrame,
        precedence: Sequence[str],
        contract: FeatureContract,
        legit_share: float,
        seed: int,
    ) -> DelayRows:
        """frame: a row a transaction, with the contract's features, event_time (ms), card_id, currency,
        is_fraud and is_friendly (the truth), and where known the request's other fields. events: as for
        KnownLabels."""
        if frame.empty:
            raise TrainingError("there are no transactions to learn from; ingest a world first")
        frame = frame.sort_values(["event_time", "transaction_id"], kind="stable").reset_index(drop=True)
        ids = frame["transaction_id"].to_numpy(dtype=object)
        columns = columns_of(frame, contract)
        return cls(
            frame=frame,
            matrix=CategoryEncoder.fit(columns, contract).matrix(columns, contract),
            event_time=frame["event_time"].to_numpy(dtype=np.int64),
            card_id=frame["card_id"].to_numpy(dtype=object).astype(str),
            segment=segments_of(frame),
            amount=amount_major(frame["amount_minor"].to_numpy(), frame["currency"].to_numpy()),
            is_fraud=frame["is_fraud"].to_numpy(dtype=bool),
            is_friendly=frame["is_friendly"].to_numpy(dtype=bool),
            is_drawn=sample_rows(ids, np.zeros(len(ids), dtype=bool), legit_share, seed),
            labels=KnownLabels.of(events, ids, precedence),
        )

    def between(self, start_ms: int, end_ms: int) -> slice:
        """The places of the rows from `start_ms` (included) to `end_ms` (excluded)."""
        start, stop = np.searchsorted(self.event_time, [start_ms, end_ms])
        return slice(int(start), int(stop))


@dataclass(frozen=True)
class Past:
    """What is known at a fold's as-of of the m rows before it, each array (m,): the first m of the rows.

    age_ms: how long ago the row was; is_known_fraud: what the labels say; reported_ms: when it was first
    called fraud, -1 where it was not.
    """

    fold: Fold
    age_ms: np.ndarray
    is_known_fraud: np.ndarray
    reported_ms: np.ndarray

    @classmethod
    def at(cls, rows: DelayRows, fold: Fold) -> Past:
        stop = rows.between(0, fold.as_of_ms).stop
        return cls(
            fold=fold,
            age_ms=fold.as_of_ms - 1 - rows.event_time[:stop],
            is_known_fraud=rows.labels.is_fraud_at(fold.as_of_ms)[:stop],
            reported_ms=rows.labels.first_report(fold.as_of_ms)[:stop],
        )
