"""Young rows that teach with what is known of them, weighed by how much of the fraud is known at their age.

Belongs here: which rows teach with which outcome and weight. Does not belong here: the delay itself
(`delay`), fitting (`train`), whether it pays (`delay_bakeoff`).

Until its delay has passed a fraud looks like a legitimate row. With F the share of frauds known at a row's
age and p the probability of fraud from a first model of mature rows, two ways undo that:

- importance: a reported fraud counts 1 / F, for itself and those not reported yet; an unreported row counts
  (1 - p) / (1 - p F), the probability that it is legitimate. Yasui et al., "A feedback shift correction in
  predicting conversion rates under delayed feedback", 2020.
- expected: a reported fraud counts once; an unreported row teaches as fraud with weight p (1 - F) / (1 - p F)
  and as legitimate with the rest: the expectation step of Chapelle, "Modeling delayed feedback in display
  advertising", 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fraud_platform.errors import LabelError
from fraud_platform.learning.delay import DelayCurve, estimate_delay

SEGMENT_FRAUDS_MIN = 200
"""A segment of fewer known frauds takes the curve of all."""
KNOWN_SHARE_MIN = 0.2
"""Rows so young that less is known of their frauds are left out: their few reports would weigh too much."""
DOUBTFUL = 0.005
"""An unreported row less likely a fraud than this teaches as legitimate alone."""


@dataclass(frozen=True)
class DelayModel:
    """The share of frauds known at an age: of all, and of the segments that are large enough."""

    overall: DelayCurve
    segments: Mapping[str, DelayCurve] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, delay_ms: np.ndarray, elapsed_ms: np.ndarray, segment: np.ndarray | None = None
    ) -> DelayModel:
        """From known frauds, each (n,); segment: texts. LabelError when there are too few of them."""
        delay, elapsed = np.asarray(delay_ms), np.asarray(elapsed_ms)
        overall = estimate_delay(delay, elapsed, resamples=1)
        curves = {}
        names, counts = np.unique(segment, return_counts=True) if segment is not None else ((), ())
        for name in [n for n, count in zip(names, counts, strict=True) if count >= SEGMENT_FRAUDS_MIN]:
            inside = segment == name
            curves[str(name)] = estimate_delay(delay[inside], elapsed[inside], resamples=1)
        return cls(overall, curves)

    def known(self, age_ms: np.ndarray, segment: np.ndarray | None = None) -> np.ndarray:
        """Share of the frauds of each row's segment and age that are known: (n,) from 0 to 1."""
        share = self.overall.known(age_ms)
        if segment is not None:
            for name, curve in self.segments.items():
                inside = segment == name
                share[inside] = curve.known(age_ms[inside])
        return share


@dataclass(frozen=True)
class Taught:
    """row: places of the rows that teach, (m,), a row may be there twice; is_fraud, weight: (m,)."""

    row: np.ndarray
    is_fraud: np.ndarray
    weight: np.ndarray


def importance_weights(
    is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray
) -> np.ndarray:
    """Weights (n,): 1 / F of a reported fraud, (1 - p) / (1 - p F) of any other row.

    known_share: F, above 0 where a fraud is reported. LabelError for impossible values.
    """
    fraud, share, p = _checked(is_known_fraud, known_share, probability)
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


def by_importance(is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray) -> Taught:
    """Rows old enough (KNOWN_SHARE_MIN), each once, with its importance."""
    fraud, share, p = _checked(is_known_fraud, known_share, probability)
    row = np.flatnonzero(share >= KNOWN_SHARE_MIN)
    return Taught(row, fraud[row], importance_weights(fraud[row], share[row], p[row]))


def by_expectation(is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray) -> Taught:
    """Rows of every age with both outcomes where in doubt: reported frauds, then the doubtful as fraud, then
    all unreported as legitimate."""
    fraud, share, p = _checked(is_known_fraud, known_share, probability)
    hidden = 1.0 - legitimate_probability(share, p)
    reported, unreported = np.flatnonzero(fraud), np.flatnonzero(~fraud)
    doubtful = np.flatnonzero(~fraud & (hidden >= DOUBTFUL))
    is_fraud = np.zeros(len(reported) + len(doubtful) + len(unreported), dtype=bool)
    is_fraud[: len(reported) + len(doubtful)] = True
    return Taught(
        row=np.concatenate([reported, doubtful, unreported]),
        is_fraud=is_fraud,
        weight=np.concatenate([np.ones(len(reported)), hidden[doubtful], 1.0 - hidden[unreported]]),
    )


def _checked(
    is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
