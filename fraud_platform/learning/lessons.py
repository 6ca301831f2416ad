"""A lesson: what one fold offers to a way of learning, the same rows to every way.

Belongs here: the rows of a fold's parts as arrays, how many legitimate ones teach at the most.
Does not belong here: where folds lie (`evaluate.folds`), what is made of the rows (`ways`, `contest`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import Fold, amount_major
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.learning.known import KnownLabels
from fraud_platform.train import Part, TrainParams, columns_of, sample_rows

FRAUDS_MIN = 10


@dataclass(frozen=True)
class Rows:
    """Rows by time and id: `matrix` float64 (n, k) in contract order, the others (n,); `amount` is in major
    units, `event_time` in ms UTC."""

    matrix: np.ndarray
    is_fraud: np.ndarray
    amount: np.ndarray
    event_time: np.ndarray
    card_id: np.ndarray
    transaction_id: np.ndarray

    def __len__(self) -> int:
        return len(self.is_fraud)

    def take(self, which: np.ndarray) -> Rows:
        """The rows of a mask (n,) or of places (m,)."""
        return Rows(**{name: values[which] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Lesson:
    """One fold's rows: `learn` teaches, `held_out` stops and calibrates, `assessed` is what counts.

    share: of the train part's legitimate rows, those that `learn` holds; it holds every fraud.
    """

    fold: Fold
    contract: FeatureContract
    learn: Rows
    held_out: Rows
    assessed: Rows
    share: float

    def drawn(self, share: float, seed: int) -> tuple[Rows, float]:
        """All frauds and `share` of the train part's legitimate rows, or all there are, and the share."""
        if share >= self.share:
            return self.learn, self.share
        rows = self.learn
        return rows.take(sample_rows(rows.transaction_id, rows.is_fraud, share, seed)), share


def lessons(
    frame: pd.DataFrame,
    labels: KnownLabels,
    contract: FeatureContract,
    folds: Sequence[Fold],
    rows_max: int,
    seed: int = TrainParams.seed,
) -> Iterator[Lesson]:
    """One lesson a fold, in their order.

    frame: mature rows with transaction_id, event_time (ms), card_id, currency, is_fraud and every feature.
    labels: of these rows, in their order; what teaches or is held out has the outcomes that were known when
    the assessed rows begin. rows_max: legitimate rows that teach at the most; rows that calibrate and rows
    that are assessed are never thinned. A row is drawn by its id and the seed. TrainingError where a part has
    not enough of both classes.
    """
    if rows_max < 1:
        raise TrainingError(f"rows_max={rows_max}: must be 1 or more legitimate rows")
    for fold in folds:
        known = labels.taught(frame, fold.as_of_ms)
        teach = _of(known, fold, fold.split.train, "train")
        legit = int((~teach["is_fraud"].to_numpy(dtype=bool)).sum())
        share = min(1.0, rows_max / legit)
        lots = sample_rows(teach["transaction_id"].to_numpy(), teach["is_fraud"].to_numpy(), share, seed)
        teach = teach.loc[lots]
        encoder = CategoryEncoder.fit(columns_of(teach, contract), contract)
        held_out = _of(known, fold, fold.split.validation, "held-out")
        assessed = _of(known, fold, fold.split.test, "assessed", frauds_min=1)
        learn, held, judged = (_rows(part, encoder, contract) for part in (teach, held_out, assessed))
        yield Lesson(fold, contract, learn, held, judged, share)


def thinned(params: TrainParams, lesson: Lesson) -> TrainParams:
    """The same parameters with the share of legitimate rows that the lesson really has."""
    return replace(params, legit_share=min(params.legit_share, lesson.share))


def _of(frame: pd.DataFrame, fold: Fold, part: Part, name: str, frauds_min: int = FRAUDS_MIN) -> pd.DataFrame:
    rows = frame.loc[part.mask(frame["event_time"].to_numpy())]
    frauds = int(rows["is_fraud"].to_numpy(dtype=bool).sum())
    if frauds < frauds_min or frauds == len(rows):
        raise TrainingError(
            f"{fold}: the {name} part ({part}) has {len(rows):,} rows and {frauds} frauds; at least "
            f"{frauds_min} frauds and some legitimate rows are needed: give more history or longer folds"
        )
    return rows.sort_values(["event_time", "transaction_id"], kind="stable")


def _rows(frame: pd.DataFrame, encoder: CategoryEncoder, contract: FeatureContract) -> Rows:
    return Rows(
        matrix=encoder.matrix(columns_of(frame, contract), contract),
        is_fraud=frame["is_fraud"].to_numpy(dtype=bool),
        amount=amount_major(frame["amount_minor"].to_numpy(), frame["currency"].to_numpy()),
        event_time=frame["event_time"].to_numpy(),
        card_id=frame["card_id"].to_numpy(dtype=object).astype(str),
        transaction_id=frame["transaction_id"].to_numpy(dtype=object),
    )
