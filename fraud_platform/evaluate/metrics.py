"""How well scores rank and how honest probabilities are. Arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fraud_platform.errors import TrainingError
from fraud_platform.schema import MILLISECONDS_PER_DAY

PRECISIONS = (0.90, 0.95, 0.99)
CARDS_PER_DAY = 100
CALIBRATION_BINS = 20


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of neighbouring probabilities: what was said, and what came."""

    rows: int
    mean_probability: float
    fraud_rate: float


@dataclass(frozen=True)
class Quality:
    """`recall_at_precision`: pairs of precision and the highest recall that has it.

    `card_precision`: card precision at `CARDS_PER_DAY`. `brier` and `calibration_error` are of the
    calibrated probability, the others of its order.
    """

    average_precision: float
    auc: float
    recall_at_precision: tuple[tuple[float, float], ...]
    card_precision: float
    brier: float
    calibration_error: float


def measure(
    score: np.ndarray,
    probability: np.ndarray,
    is_fraud: np.ndarray,
    event_time: np.ndarray,
    card_id: np.ndarray,
) -> Quality:
    """All of the above, from arrays of shape (n,). TrainingError when only one class is there."""
    fraud = np.asarray(is_fraud, dtype=bool)
    frauds = int(fraud.sum())
    if frauds in (0, len(fraud)):
        raise TrainingError(
            f"{frauds} frauds in {len(fraud)} rows to judge on; both classes are needed: give more history"
        )
    return Quality(
        average_precision=float(average_precision_score(fraud, score)),
        auc=float(roc_auc_score(fraud, score)),
        recall_at_precision=tuple((p, recall_at_precision(score, fraud, p)) for p in PRECISIONS),
        card_precision=card_precision_at_k(score, fraud, event_time, card_id),
        brier=float(np.mean((probability - fraud) ** 2)),
        calibration_error=calibration_error(calibration_bins(probability, fraud)),
    )


def recall_at_precision(score: np.ndarray, is_fraud: np.ndarray, precision: float) -> float:
    """The highest recall of a threshold whose precision is at least this; 0 when there is none."""
    precisions, recalls, _ = precision_recall_curve(np.asarray(is_fraud, dtype=bool), score)
    reached = precisions[:-1] >= precision
    return float(recalls[:-1][reached].max(initial=0.0))


def card_precision_at_k(
    score: np.ndarray,
    is_fraud: np.ndarray,
    event_time: np.ndarray,
    card_id: np.ndarray,
    k: int = CARDS_PER_DAY,
) -> float:
    """Mean over UTC days of the share of compromised cards among the k that score highest.

    A card scores its highest transaction of the day; cards detected on an earlier day are left out.
    Definition: Le Borgne et al., Fraud Detection Handbook, "Card Precision top-k". Ties go to the card
    that comes first in sorted order.
    """
    day = np.asarray(event_time) // MILLISECONDS_PER_DAY
    cards, card = np.unique(np.asarray(card_id), return_inverse=True)
    fraud = np.asarray(is_fraud, dtype=bool)
    is_detected = np.zeros(len(cards), dtype=bool)
    precisions = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~is_detected[card])
        highest = np.full(len(cards), -np.inf)
        np.maximum.at(highest, card[rows], np.asarray(score)[rows])
        is_compromised = np.zeros(len(cards), dtype=bool)
        is_compromised[card[rows[fraud[rows]]]] = True
        top = np.argsort(-highest, kind="stable")[:k]
        found = top[is_compromised[top]]
        is_detected[found] = True
        precisions.append(len(found) / k)
    return float(np.mean(precisions))


def calibration_bins(
    probability: np.ndarray, is_fraud: np.ndarray, bins: int = CALIBRATION_BINS
) -> tuple[CalibrationBin, ...]:
    """Bins of equally many frauds to come by the model's own word, so that the rare high scores show.

    Equal probabilities share a bin.
    """
    values, inverse = np.unique(np.asarray(probability, dtype=np.float64), return_inverse=True)
    rows = np.bincount(inverse)
    frauds = np.bincount(inverse, weights=np.asarray(is_fraud, dtype=np.float64))
    mass = values * rows
    before = np.cumsum(mass) - mass
    number = (before / max(float(mass.sum()), np.finfo(np.float64).tiny) * bins).astype(np.int64)
    starts = np.flatnonzero(np.concatenate(([True], np.diff(number) > 0)))
    counts, found, said = (np.add.reduceat(part, starts) for part in (rows, frauds, mass))
    return tuple(
        CalibrationBin(int(n), float(s / n), float(f / n))
        for n, f, s in zip(counts, found, said, strict=True)
    )


def calibration_error(bins: tuple[CalibrationBin, ...]) -> float:
    """Expected calibration error: mean distance of what was said from what came, weighted by rows."""
    rows = sum(b.rows for b in bins)
    return sum(b.rows * abs(b.mean_probability - b.fraud_rate) for b in bins) / rows
