"""The benchmark of the Fraud Detection Handbook: its folds, its metrics, its published rows, and ours.

Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook", 2022. Prequential folds: training starts, seven days later it ends, seven days later the
labels are known and seven days are assessed. Our training reaches further back; no label that was younger
than seven days is used, neither to teach nor within a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from fraud_platform.errors import SourceError
from fraud_platform.evaluate.metrics import card_precision_at_k
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train import TrainParams, columns_of, fit_booster, sample_rows

TRAIN_DAYS = DELAY_DAYS = ASSESSED_DAYS = 7
VALIDATION_STARTS = ("2018-07-11", "2018-07-04", "2018-06-27", "2018-06-20")
TEST_STARTS = ("2018-08-15", "2018-08-08", "2018-08-01", "2018-07-25")
CHECK_START = "2018-07-25"
CHECK_COUNTS = (67_240, 598, 58_264, 385)
"""Transactions and frauds of that fold's first week, and those that are assessed."""
PARAMS = TrainParams(rounds_max=200, early_stopping_rounds=0, legit_share=0.3, max_bin=1023)
"""Chosen on the validation folds. Fine bins: where fraud begins at one amount, a coarse one hides it."""
IDENTITY = ("transaction_id", "event_time", "card_id", "is_fraud")

Role = Literal["validation", "test"]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """A row of the book, over the test folds."""

    model: str
    auc: float
    average_precision: float
    card_precision: float
    source: str


PUBLISHED = (
    Published("logistic regression", 0.868, 0.623, 0.297, "book, chapter 5"),
    Published("random forest", 0.870, 0.678, 0.299, "book, chapter 5"),
    Published("XGBoost, chosen on validation", 0.869, 0.687, 0.303, "book, chapter 5"),
    Published("balanced bagging", 0.879, 0.680, 0.305, "book, chapter 6"),
    Published("neural network", 0.876, 0.675, 0.303, "book, chapter 7"),
    Published("LSTM with attention", 0.874, 0.667, 0.295, "book, chapter 7"),
)


@dataclass(frozen=True)
class FoldResult:
    """One fold: what taught, what was assessed, and how well."""

    role: Role
    start: str
    teaching_rows: int
    rows: int
    frauds: int
    auc: float
    average_precision: float
    card_precision: float


@dataclass(frozen=True)
class HandbookTable:
    """Our folds beside the published rows."""

    folds: tuple[FoldResult, ...]
    published: tuple[Published, ...] = PUBLISHED

    def mean(self, role: Role) -> Published:
        """Our means over the folds of a role, as a row of the table."""
        folds = [fold for fold in self.folds if fold.role == role]
        auc, ap, cp = (
            float(np.mean([getattr(fold, name) for fold in folds]))
            for name in ("auc", "average_precision", "card_precision")
        )
        return Published("this platform", auc, ap, cp, f"measured, {len(folds)} {role} folds")

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Cells as text: model, AUC, AP, CP@100, source; published rows, ours, then each fold."""
        roles: list[Role] = [r for r in ("validation", "test") if any(f.role == r for f in self.folds)]  # type: ignore[misc]
        folds = [
            Published(
                f"  {fold.role} fold {fold.start}",
                fold.auc,
                fold.average_precision,
                fold.card_precision,
                f"{fold.rows:,} rows, {fold.frauds:,} frauds",
            )
            for fold in self.folds
        ]
        lines = [*self.published, *(self.mean(role) for role in roles), *folds]
        return tuple(
            (p.model, f"{p.auc:.3f}", f"{p.average_precision:.3f}", f"{p.card_precision:.4f}", p.source)
            for p in lines
        )


HEADER = ("model", "AUC", "AP", "CP@100", "source")


@dataclass(frozen=True)
class Fold:
    """Rows of a fold, as places: those that may teach, the first week, the assessed."""

    role: Role
    start: str
    teach: np.ndarray
    first_week: np.ndarray
    assessed: np.ndarray


@dataclass(frozen=True)
class Features:
    """`matrix`: float64 (m, k), the rows that some fold reads; `place`: (n,), where a row lies in it.

    `is_drawn`: bool (n,), the rows that were drawn to teach.
    """

    matrix: np.ndarray
    place: np.ndarray
    is_drawn: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        return self.matrix[self.place[rows]]


def run_handbook(
    frame: pd.DataFrame,
    contract: FeatureContract,
    report: Report = lambda message: None,
    params: TrainParams = PARAMS,
    expected_counts: Sequence[int] = CHECK_COUNTS,
) -> HandbookTable:
    """Train and assess every fold.

    frame: one row per transaction with transaction_id, event_time (ms), card_id, is_fraud and the
    contract's features. SourceError when its rows are not those of the book.
    """
    order = frame[["event_time", "transaction_id"]].sort_values(["event_time", "transaction_id"]).index
    rows = frame.loc[order, list(IDENTITY)].reset_index(drop=True)
    check_counts(rows, expected_counts)
    folds = [make_fold(rows, "validation", start) for start in VALIDATION_STARTS]
    folds += [make_fold(rows, "test", start) for start in TEST_STARTS]
    table = _features(frame, order, rows, folds, contract, params)
    results = []
    for number, fold in enumerate(folds, 1):
        results.append(assess_fold(rows, table, fold, contract, params))
        report(
            f"fold {number} of {len(folds)}: {fold.role} {fold.start}, AP {results[-1].average_precision:.3f}"
        )
    return HandbookTable(tuple(results))


def assess_fold(
    rows: pd.DataFrame, features: Features, fold: Fold, contract: FeatureContract, params: TrainParams
) -> FoldResult:
    """Fit on what was known when the assessed week began, and assess it."""
    is_fraud = rows["is_fraud"].to_numpy(dtype=bool)
    teach = fold.teach[features.is_drawn[fold.teach]]
    booster = fit_booster(features.of(teach), is_fraud[teach], contract, params)
    score = np.asarray(booster.predict(features.of(fold.assessed), num_threads=params.threads))
    truth = is_fraud[fold.assessed]
    moments, cards = (rows[name].to_numpy()[fold.assessed] for name in ("event_time", "card_id"))
    return FoldResult(
        role=fold.role,
        start=fold.start,
        teaching_rows=len(teach),
        rows=len(truth),
        frauds=int(truth.sum()),
        auc=float(roc_auc_score(truth, score)),
        average_precision=float(average_precision_score(truth, score)),
        card_precision=card_precision_at_k(score, truth, moments, cards),
    )


def make_fold(rows: pd.DataFrame, role: Role, start: str) -> Fold:
    """The fold whose first week begins on this day.

    All history up to the end of the first week may teach: its labels are known a week later. From each
    assessed day go the cards known to be compromised: by a fraud from the fold's start on, at least
    eight days before.
    """
    start_ms = _midnight(start)
    moment = rows["event_time"].to_numpy()
    card, is_fraud = rows["card_id"].to_numpy(), rows["is_fraud"].to_numpy(dtype=bool)
    train_end = start_ms + TRAIN_DAYS * MILLISECONDS_PER_DAY
    first_day = train_end + DELAY_DAYS * MILLISECONDS_PER_DAY
    assessed = []
    for day in range(ASSESSED_DAYS):
        day_ms = first_day + day * MILLISECONDS_PER_DAY
        known_until = day_ms - DELAY_DAYS * MILLISECONDS_PER_DAY
        compromised = np.unique(card[is_fraud & (moment >= start_ms) & (moment < known_until)])
        today = np.flatnonzero((moment >= day_ms) & (moment < day_ms + MILLISECONDS_PER_DAY))
        assessed.append(today[~np.isin(card[today], compromised)])
    return Fold(
        role=role,
        start=start,
        teach=np.flatnonzero(moment < train_end),
        first_week=np.flatnonzero((moment >= start_ms) & (moment < train_end)),
        assessed=np.concatenate(assessed),
    )


def check_counts(rows: pd.DataFrame, expected: Sequence[int]) -> None:
    """SourceError when the check fold has not the rows and frauds that the book's data has."""
    fold = make_fold(rows, "test", CHECK_START)
    is_fraud = rows["is_fraud"].to_numpy(dtype=bool)
    found = tuple(
        int(count) for part in (fold.first_week, fold.assessed) for count in (len(part), is_fraud[part].sum())
    )
    if found != tuple(expected):
        raise SourceError(
            f"the fold of {CHECK_START} has (rows, frauds, assessed rows, assessed frauds) {found}; the "
            f"handbook's data has {tuple(expected)}: give the complete data of the handbook"
        )


def _features(
    frame: pd.DataFrame,
    order: pd.Index,
    rows: pd.DataFrame,
    folds: Sequence[Fold],
    contract: FeatureContract,
    params: TrainParams,
) -> Features:
    """Encode what some fold reads; category levels are those of the earliest fold's teaching rows."""
    is_drawn = sample_rows(
        rows["transaction_id"].to_numpy(), rows["is_fraud"].to_numpy(), params.legit_share, params.seed
    )
    is_read = np.zeros(len(rows), dtype=bool)
    for fold in folds:
        is_read[fold.teach[is_drawn[fold.teach]]] = True
        is_read[fold.assessed] = True
    earliest = min(folds, key=lambda fold: fold.start).teach
    known = columns_of(frame.loc[order[earliest[is_drawn[earliest]]]], contract)
    matrix = CategoryEncoder.fit(known, contract).matrix(
        columns_of(frame.loc[order[is_read]], contract), contract
    )
    return Features(matrix, np.cumsum(is_read) - 1, is_drawn)


def _midnight(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
