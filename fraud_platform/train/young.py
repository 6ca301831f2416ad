"""Rows too young to be mature, and how much each may count as a lesson.

Belongs here: what was known of such rows and the weights that undo what was not. Does not belong here: how
the share that is known comes about (`learning.delay`), fitting (`run`).

Until its delay has passed a fraud looks like a legitimate row. With F the share of frauds known at a row's
age and p the probability of fraud from a first model of mature rows, a reported fraud counts 1 / F, for
itself and those not reported yet; an unreported row counts (1 - p) / (1 - p F), the probability that it is
legitimate. Yasui et al., "A feedback shift correction in predicting conversion rates under delayed feedback",
2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.errors import LabelError

KNOWN_SHARE_MIN = 0.2
"""Rows so young that less is known of their frauds are left out: their few reports would weigh too much."""


@dataclass(frozen=True)
class YoungLabels:
    """What was known at a moment of every row of a training set, each array (n,) in its order.

    as_of_ms: the moment (ms UTC). is_known_fraud: what the labels said before it. known_share: the share of
    the frauds of a row's age and segment that were known then, from 0 to 1; 0 of rows at or after it.
    """

    as_of_ms: int
    is_known_fraud: np.ndarray
    known_share: np.ndarray

    def __post_init__(self) -> None:
        checked(self.is_known_fraud, self.known_share, np.zeros(self.known_share.shape))


def importance_weights(
    is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray
) -> np.ndarray:
    """Weights (n,): 1 / F of a reported fraud, (1 - p) / (1 - p F) of any other row.

    known_share: F, above 0 where a fraud is reported. LabelError for impossible values.
    """
    fraud, share, p = checked(is_known_fraud, known_share, probability)
    if np.any(share[fraud] <= 0.0):
        raise LabelError(
            "a reported fraud at an age at which none is known: estimate the delay from it as well, or "
            "leave it out"
        )
    reported = 1.0 / np.where(share > 0.0, share, 1.0)
    return np.where(fraud, reported, legitimate_probability(share, p))


def legitimate_probability(known_share: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """That an unreported row is legitimate: (1 - p) / (1 - p F), and 1 where p and F are both 1: (n,)."""
    unreported = 1.0 - probability * known_share
    return np.divide(1.0 - probability, unreported, out=np.ones_like(unreported), where=unreported > 0.0)


def checked(
    is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As bool, float64 and float64, (n,) each. LabelError for other shapes, or numbers that are no shares."""
    fraud = np.asarray(is_known_fraud, dtype=bool)
    share, p = (np.asarray(part, dtype=np.float64) for part in (known_share, probability))
    if not fraud.shape == share.shape == p.shape:
        raise LabelError(
            f"{fraud.shape} outcomes, {share.shape} shares, {p.shape} probabilities; one for each"
        )
    for name, part in (("share known", share), ("probability", p)):
        wrong = ~((part >= 0.0) & (part <= 1.0))
        if wrong.any():
            raise LabelError(f"{name} {part[wrong][0]}: must be from 0 to 1")
    return fraud, share, p
