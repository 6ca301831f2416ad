"""Rows of a training set as the model reads them, always by time and id.

Belongs here: order, sampling, encoding, and what a candidate's data hashes to. Does not belong here: which
part a row is in (`split`), fitting (`run`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.train.booster import TrainParams, sample_rows


@dataclass(frozen=True)
class Rows:
    """Rows by time and id: `matrix` float64 (n, k), `is_fraud` bool (n,), `weight` float64 (n,), None where
    all count alike."""

    matrix: np.ndarray
    is_fraud: np.ndarray
    identity: bytes
    weight: np.ndarray | None = None


def joined(mature: Rows, young_rows: Rows) -> Rows:
    """The mature ones, each with weight 1, and then the others."""
    assert young_rows.weight is not None
    return Rows(
        matrix=np.concatenate([mature.matrix, young_rows.matrix]),
        is_fraud=np.concatenate([mature.is_fraud, young_rows.is_fraud]),
        identity=mature.identity + young_rows.identity,
        weight=np.concatenate([np.ones(len(mature.is_fraud)), young_rows.weight]),
    )


@dataclass(frozen=True)
class Taken(Mapping[str, np.ndarray]):
    """Some rows of columns, by place; each is taken when it is asked for, so that no second table is made."""

    columns: Mapping[str, np.ndarray]
    places: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name][self.places]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True)
class Table:
    """A training set and how the model reads it."""

    frame: pd.DataFrame
    columns: Mapping[str, np.ndarray]
    contract: FeatureContract
    encoder: CategoryEncoder

    def rows(self, places: np.ndarray, is_fraud: np.ndarray) -> Rows:
        """The rows at these places; is_fraud: of every row of the table, (n,)."""
        ids = self.frame["transaction_id"].iloc[places]
        identity = "\n".join(ids).encode() + self.frame["event_time"].to_numpy()[places].tobytes()
        matrix = self.encoder.matrix(Taken(self.columns, places), self.contract)
        return Rows(matrix, is_fraud[places], identity)


def in_order(training_set: pd.DataFrame, chosen: np.ndarray) -> np.ndarray:
    """Places of the chosen rows by event_time, then transaction_id: int64 (m,).

    Ids are compared only where moments are equal: sorting millions of different texts takes seconds.
    """
    places = np.flatnonzero(chosen)
    moments = training_set["event_time"].to_numpy()[places]
    order = np.argsort(moments, kind="stable")
    places, moments = places[order], moments[order]
    is_same = moments[1:] == moments[:-1]
    tied = np.flatnonzero(np.append(is_same, False) | np.append(False, is_same))
    ids = training_set["transaction_id"].iloc[places[tied]].to_numpy()
    keyed = pd.DataFrame({"moment": moments[tied], "id": ids})
    by_id = keyed.sort_values(["moment", "id"], kind="stable").index.to_numpy()
    places[tied] = places[tied[by_id]]
    return places


def drawn_rows(
    training_set: pd.DataFrame, inside: np.ndarray, is_fraud: np.ndarray, params: TrainParams
) -> np.ndarray:
    """Which of the rows inside teach, by their outcomes, all (n,): bool (n,)."""
    ids = training_set["transaction_id"].iloc[np.flatnonzero(inside)].to_numpy()
    drawn = inside.copy()
    drawn[inside] = sample_rows(ids, is_fraud[inside], params.legit_share, params.seed)
    return drawn


def digest_of(encoder: CategoryEncoder, *parts: Rows) -> str:
    """Over exactly what taught or stopped: ids, moments, values, outcomes and weights of the rows."""
    digest = hashlib.sha256(encoder.to_json())
    for rows in parts:
        digest.update(rows.identity)
        digest.update(np.ascontiguousarray(rows.matrix).reshape(-1).view(np.uint8).data)
        digest.update(rows.is_fraud.tobytes())
        digest.update(b"" if rows.weight is None else rows.weight.tobytes())
    return digest.hexdigest()
