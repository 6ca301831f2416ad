"""Reference distributions: what features and scores looked like when the model was trained.

A distribution keeps shares, not rows: deciles for a number, levels for a category, and the missing share.
The monitor counts recent values in the same bins and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

BINS = 10
LEVELS_MAX = 50
OTHER = "(other)"
SCORE = "score"


@dataclass(frozen=True)
class Distribution:
    """Shares of a column's values.

    edges: the inner edges of a number's bins, bin i holding edges[i-1] < x <= edges[i]; empty for a category.
    levels: a category's levels, the last one OTHER; empty for a number.
    shares: of all rows, one a bin (or level), and last the missing share; they add up to 1.
    """

    edges: tuple[float, ...]
    levels: tuple[str, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, column: np.ndarray) -> Distribution:
        """Bins from the column itself: deciles, or the most frequent levels. ValueError when it is empty."""
        if len(column) == 0:
            raise ValueError("a reference distribution needs at least one row")
        empty = cls(*_bins(column), shares=())
        return cls(empty.edges, empty.levels, empty.shares_of(column))

    def shares_of(self, column: np.ndarray) -> tuple[float, ...]:
        """Shares of another column in this distribution's bins, the missing share last."""
        return tuple((self.counts(column) / max(len(column), 1)).tolist())

    def counts(self, column: np.ndarray) -> np.ndarray:
        """Rows in each bin, the missing ones last: int64 (bins + 1,)."""
        if self.levels:
            return self._level_counts(column)
        values = np.asarray(column, dtype=np.float64)
        known = values[~np.isnan(values)]
        bins = np.searchsorted(np.array(self.edges), known, side="left")
        counts = np.bincount(bins, minlength=len(self.edges) + 1)
        return np.append(counts, len(values) - len(known)).astype(np.int64)

    def _level_counts(self, column: np.ndarray) -> np.ndarray:
        index = {level: place for place, level in enumerate(self.levels)}
        other, missing = len(self.levels) - 1, len(self.levels)
        places = [index.get(v, other) if isinstance(v, str) else missing for v in column.tolist()]
        return np.bincount(places, minlength=missing + 1).astype(np.int64)


@dataclass(frozen=True)
class Reference:
    """Distributions by feature name, in contract order, and that of the score (probability)."""

    features: Mapping[str, Distribution]
    score: Distribution
    row_count: int

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray], score: np.ndarray) -> Reference:
        """columns: by feature, float64 (NaN = unknown) or object of str (None = unknown), all (n,)."""
        features = {name: Distribution.of(np.asarray(column)) for name, column in columns.items()}
        return cls(features, Distribution.of(np.asarray(score, dtype=np.float64)), len(score))

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, raw: bytes) -> Reference:
        return msgspec.json.decode(raw, type=cls)


def _bins(column: np.ndarray) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """(edges, ()) of a number or ((), levels) of a category."""
    if column.dtype.kind in "biuf":
        values = column.astype(np.float64)
        known = values[~np.isnan(values)]
        if len(known) == 0:
            return (), ()
        inner = np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf")
        return tuple(np.unique(inner).tolist()), ()
    texts, counts = np.unique([v for v in column.tolist() if isinstance(v, str)], return_counts=True)
    ranked = sorted(zip((-counts).tolist(), texts.tolist(), strict=True))[: LEVELS_MAX - 1]
    return (), (*sorted(text for _, text in ranked), OTHER)
