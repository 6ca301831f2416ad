"""Rows as methods need them that know no unknown values and measure distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.features.contract import FeatureContract

SPREADS_MAX = 10.0


@dataclass(frozen=True)
class Filled:
    """Numbers in spreads from the median, which also stands for the unknown; -1 for an unknown category."""

    centre: np.ndarray
    spread: np.ndarray
    categories: tuple[int, ...]

    @classmethod
    def fit(cls, matrix: np.ndarray, contract: FeatureContract) -> Filled:
        """Learn from an encoded matrix (n, k). A column of which nothing is known becomes 0."""
        known = np.isfinite(matrix)
        empty = ~known.any(axis=0)
        centre = np.zeros(matrix.shape[1])
        centre[~empty] = np.nanmedian(np.where(known, matrix, np.nan)[:, ~empty], axis=0)
        away = np.where(known, matrix - centre, 0.0)
        spread = np.sqrt((away**2).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
        categories = tuple(i for i, f in enumerate(contract.features) if f.dtype == "category")
        return cls(centre, np.where(spread > 0, spread, 1.0), categories)

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        """float64 (n, k) without NaN."""
        away = np.where(np.isfinite(matrix), matrix - self.centre, 0.0) / self.spread
        out = np.clip(away, -SPREADS_MAX, SPREADS_MAX)
        for place in self.categories:
            out[:, place] = np.nan_to_num(matrix[:, place], nan=-1.0)
        return out

    def with_unknown(self, filled: np.ndarray) -> np.ndarray:
        """Filled rows (n, k) as LightGBM reads them: an unknown category is NaN again."""
        out = filled.copy()
        for place in self.categories:
            out[out[:, place] < 0, place] = np.nan
        return out
