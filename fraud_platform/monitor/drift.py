"""Drift: recent values against the distributions that a bundle was trained on.

The measure is the population stability index, sum((recent - reference) * ln(recent / reference)) over bins,
the missing values being one of them. By custom below 0.1 nothing happened, above 0.25 something did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fraud_platform.errors import ContractError
from fraud_platform.package import Distribution, Reference

SHARE_MIN = 1e-4
"""Empty bins count as this share: the logarithm needs one."""


@dataclass(frozen=True)
class DriftThresholds:
    """When a report says that the world has moved.

    psi: of the score, or of a feature to count as moved; feature_share: the share of features that must have
    moved; missing_rise: rise of a feature's missing share; rows_min: fewer rows say nothing; ignored:
    features that move with the clock and not with the world.
    """

    psi: float = 0.25
    feature_share: float = 0.10
    missing_rise: float = 0.10
    rows_min: int = 500
    ignored: tuple[str, ...] = ("hour_of_day", "day_of_week", "is_weekend", "is_night")


@dataclass(frozen=True)
class ColumnDrift:
    """psi of a column, and its missing share then and now."""

    name: str
    psi: float
    missing_reference: float
    missing_recent: float


@dataclass(frozen=True)
class DriftReport:
    """features: those that are judged, the most drifted first; `reasons` is empty when nothing moved."""

    row_count: int
    score: ColumnDrift
    features: tuple[ColumnDrift, ...]
    thresholds: DriftThresholds

    @property
    def is_enough(self) -> bool:
        """There are rows enough to say anything."""
        return self.row_count >= self.thresholds.rows_min

    @property
    def is_drifted(self) -> bool:
        return bool(self.reasons)

    @property
    def moved(self) -> tuple[ColumnDrift, ...]:
        """Features whose index reaches the threshold."""
        return tuple(feature for feature in self.features if feature.psi >= self.thresholds.psi)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What moved too far, in sentences; always empty when there are too few rows."""
        if not self.is_enough:
            return ()
        limits = self.thresholds
        said = []
        if self.score.psi >= limits.psi:
            said.append(f"score: stability index {self.score.psi:.2f} (limit {limits.psi})")
        if len(self.moved) > limits.feature_share * len(self.features):
            worst = ", ".join(f"{f.name} {f.psi:.2f}" for f in self.moved[:5])
            counted = f"{len(self.moved)} of {len(self.features)} features moved"
            said.append(f"{counted} (limit {limits.feature_share:.0%}): {worst}")
        for feature in self.features:
            if feature.missing_recent - feature.missing_reference > limits.missing_rise:
                said.append(
                    f"{feature.name} is missing in {feature.missing_recent:.0%} of rows, "
                    f"{feature.missing_reference:.0%} before"
                )
        return tuple(said)


def drift(
    reference: Reference,
    columns: Mapping[str, np.ndarray],
    score: np.ndarray,
    thresholds: DriftThresholds | None = None,
) -> DriftReport:
    """Recent feature columns and probabilities, each (n,), against the reference.

    columns: float64 (NaN = unknown) or object of str (None = unknown); ContractError when one is missing.
    """
    missing = sorted(reference.features.keys() - columns.keys())
    if missing:
        raise ContractError(
            f"recent decisions lack features {missing}; load the log of this bundle's contract"
        )
    limits = thresholds or DriftThresholds()
    features = [
        _column(name, distribution, np.asarray(columns[name]))
        for name, distribution in reference.features.items()
        if name not in limits.ignored
    ]
    return DriftReport(
        row_count=len(score),
        score=_column("score", reference.score, np.asarray(score, dtype=np.float64)),
        features=tuple(sorted(features, key=lambda f: (-f.psi, f.name))),
        thresholds=limits,
    )


def psi(reference: np.ndarray, recent: np.ndarray) -> float:
    """Population stability index of two distributions over the same bins, both shares (bins,)."""
    before = np.maximum(np.asarray(reference, dtype=np.float64), SHARE_MIN)
    now = np.maximum(np.asarray(recent, dtype=np.float64), SHARE_MIN)
    return float(np.sum((now - before) * np.log(now / before)))


def _column(name: str, distribution: Distribution, column: np.ndarray) -> ColumnDrift:
    recent = distribution.shares_of(column)
    return ColumnDrift(
        name=name,
        psi=psi(np.array(distribution.shares), np.array(recent)),
        missing_reference=distribution.shares[-1],
        missing_recent=recent[-1],
    )
