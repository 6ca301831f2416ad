"""Logistic regression on the rows that teach: what the simplest learned model would do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from fraud_platform.calibration import Calibrator

if TYPE_CHECKING:
    from fraud_platform.features.contract import FeatureContract

LEVELS_AS_COLUMNS = 20
"""A category's most frequent levels that get a column of their own."""
LEGIT_ROWS_MAX = 200_000
"""Legitimate rows that teach the line at the most, evenly spread over time: all of a million moved its
average precision from .471 to .473, for five times the seconds."""
SPREADS_MAX = 10.0
"""Standardised values are clipped here: one huge amount must not bend the line."""
ROWS_AT_ONCE = 65_536
"""Rows are standardised in pieces of so many: the steps in between need no room for all of them."""


@dataclass(frozen=True)
class LogisticBaseline:
    """Standardised numbers (unknown = mean), a column for each frequent level, one weight each.

    `centre`, `spread`: of the number features, in contract order; `levels`: place of each category
    feature and its number of columns; `weights`: numbers first, then the level columns.
    """

    numbers: tuple[int, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    levels: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]
    intercept: float
    calibrator: Calibrator

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """Raw score of an encoded matrix (n, k): float64 (n,) from 0 to 1."""
        design = _design(matrix, self.numbers, self.centre, self.spread, self.levels)
        margin = design @ np.array(self.weights) + self.intercept
        return 1.0 / (1.0 + np.exp(-np.clip(margin, -500, 500)))

    def probability(self, matrix: np.ndarray) -> np.ndarray:
        """Calibrated probability of an encoded matrix (n, k): float64 (n,)."""
        return self.calibrator(self.score(matrix))

    def to_json(self) -> bytes:
        content = asdict(self)
        content["calibrator"] = json.loads(self.calibrator.to_json())
        return json.dumps(content).encode()

    @classmethod
    def from_json(cls, content: bytes) -> LogisticBaseline:
        loaded = json.loads(content)
        calibrator = Calibrator.from_json(json.dumps(loaded.pop("calibrator")).encode())
        levels = tuple((place, count) for place, count in loaded.pop("levels"))
        intercept = loaded.pop("intercept")
        vectors = {name: tuple(values) for name, values in loaded.items()}
        return cls(levels=levels, intercept=intercept, calibrator=calibrator, **vectors)


def fit_logistic(
    matrix: np.ndarray,
    is_fraud: np.ndarray,
    weight: np.ndarray | None,
    validation: tuple[np.ndarray, np.ndarray],
    contract: FeatureContract,
    known_levels: Mapping[str, tuple[str, ...]],
) -> LogisticBaseline:
    """Fit on an encoded matrix (n, k), rows in order of time; calibrated on `validation` (matrix, is_fraud).

    weight: (n,), how much each row counts; None: all alike, and the calibrator alone restores the prior.
    """
    from sklearn.linear_model import LogisticRegression

    numbers = tuple(i for i, f in enumerate(contract.features) if f.dtype == "double")
    levels = tuple(
        (i, min(len(known_levels[f.name]), LEVELS_AS_COLUMNS))
        for i, f in enumerate(contract.features)
        if f.dtype == "category"
    )
    matrix, is_fraud, weight = _thinned(matrix, np.asarray(is_fraud, dtype=bool), weight)
    centre, spread = _moments(matrix, numbers)
    design = _design(matrix, numbers, centre, spread, levels)
    model = LogisticRegression(C=1.0, solver="newton-cholesky", max_iter=200)
    model.fit(design, is_fraud, sample_weight=weight)
    unset = Calibrator((0.0, 1.0), (0.25, 0.75))
    weights, intercept = tuple(model.coef_[0].tolist()), float(model.intercept_[0])
    line = LogisticBaseline(numbers, centre, spread, levels, weights, intercept, unset)
    calibrator = Calibrator.fit(line.score(validation[0]), validation[1])
    return LogisticBaseline(numbers, centre, spread, levels, weights, intercept, calibrator)


def _thinned(
    matrix: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """All frauds and at most LEGIT_ROWS_MAX of the others; their weights, if any, then add up to the same."""
    legit = np.flatnonzero(~is_fraud)
    if len(legit) <= LEGIT_ROWS_MAX:
        return matrix, is_fraud, weight
    kept = legit[np.arange(LEGIT_ROWS_MAX) * len(legit) // LEGIT_ROWS_MAX]
    rows = np.union1d(kept, np.flatnonzero(is_fraud))
    chosen = is_fraud[rows]
    if weight is not None:
        weight = weight[rows] * np.where(chosen, 1.0, weight[legit].sum() / weight[kept].sum())
    return matrix[rows], chosen, weight


def _moments(matrix: np.ndarray, numbers: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the known values of each number; 0 and 1 where there is nothing."""
    count, total, squares = (np.zeros(len(numbers)) for _ in range(3))
    for values in (matrix[piece][:, numbers] for piece in _pieces(len(matrix))):
        known = np.isfinite(values)
        count += known.sum(axis=0)
        total += np.where(known, values, 0.0).sum(axis=0)
    centre = total / np.maximum(count, 1)
    for values in (matrix[piece][:, numbers] for piece in _pieces(len(matrix))):
        squares += (np.where(np.isfinite(values), values - centre, 0.0) ** 2).sum(axis=0)
    spread = np.sqrt(squares / np.maximum(count, 1))
    return tuple(centre.tolist()), tuple(np.where(spread > 0, spread, 1.0).tolist())


def _design(
    matrix: np.ndarray,
    numbers: tuple[int, ...],
    centre: tuple[float, ...],
    spread: tuple[float, ...],
    levels: tuple[tuple[int, int], ...],
) -> np.ndarray:
    """Standardised numbers, then a column of 0 and 1 for each level: float64 (n, numbers + levels)."""
    out = np.empty((len(matrix), len(numbers) + sum(count for _, count in levels)), dtype=np.float64)
    for piece in _pieces(len(matrix)):
        part, column = matrix[piece], len(numbers)
        standard = (part[:, numbers] - np.array(centre)) / np.array(spread)
        out[piece, :column] = np.clip(np.nan_to_num(standard, nan=0.0), -SPREADS_MAX, SPREADS_MAX)
        for place, count in levels:
            out[piece, column : column + count] = part[:, [place]] == np.arange(count, dtype=np.float64)
            column += count
    return out


def _pieces(rows: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, rows, ROWS_AT_ONCE))
