"""From a model's raw score to the probability of fraud, by a monotone curve learned on rows it never saw.

Belongs here: the curve, fitting it (isotonic, pool adjacent violators), reading it.
Does not belong here: thresholds, costs (`policy`), metrics of calibration (`evaluate`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np

from fraud_platform.errors import TrainingError

ROWS_PER_BIN = 50
"""Scores are pooled in bins of about this many rows first, so that one lucky row makes no knot."""
PRIOR_ROWS = 2.0
"""Each level is pulled towards the base rate with the weight of this many rows: never exactly 0 or 1."""


@dataclass(frozen=True)
class Calibrator:
    """A piecewise linear curve through the knots (`x`: raw score, `y`: probability), flat beyond its ends.

    `x` rises strictly; `y` never falls and stays strictly between 0 and 1.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    _x: np.ndarray = field(init=False, repr=False, compare=False)
    _y: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        x, y = np.array(self.x, dtype=np.float64), np.array(self.y, dtype=np.float64)
        if len(x) == 0 or len(x) != len(y) or not np.all(np.isfinite(x)) or np.any(np.diff(x) <= 0):
            raise TrainingError(f"calibration knots x={self.x!r}: must be finite, rise strictly and match y")
        if not np.all((y > 0) & (y < 1)) or np.any(np.diff(y) < 0):
            raise TrainingError(f"calibration knots y={self.y!r}: must not fall and lie between 0 and 1")
        object.__setattr__(self, "_x", x)
        object.__setattr__(self, "_y", y)

    @classmethod
    def fit(cls, raw_score: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray | None = None) -> Calibrator:
        """Isotonic regression of fraud on the score; both (n,). TrainingError when there is nothing to learn.

        weight: (n,), how much each row counts, about 1 on average; None: all alike.

        Pool adjacent violators: Ayer et al., "An Empirical Distribution Function for Sampling with
        Incomplete Information", 1955. A pool becomes one knot, at its mean score.
        """
        score = np.asarray(raw_score, dtype=np.float64)
        fraud = np.asarray(is_fraud, dtype=np.float64)
        _refuse_unusable(score, fraud)
        count, frauds, total = _pool(*_bins(score, fraud, weight))
        prior = fraud.mean() if weight is None else np.average(fraud, weights=weight)
        rate = (frauds + PRIOR_ROWS * prior) / (count + PRIOR_ROWS)
        x, y = total / count, np.maximum.accumulate(rate)
        rises = np.concatenate(([True], np.diff(x) > 0))
        return cls(tuple(x[rises].tolist()), tuple(y[rises].tolist()))

    def __call__(self, scores: np.ndarray | float) -> np.ndarray:
        """Probabilities of the scores' shape; one score alone gets the same bits as within an array."""
        return np.interp(scores, self._x, self._y)

    def to_json(self) -> bytes:
        return json.dumps({"x": self.x, "y": self.y}).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Calibrator:
        """The curve that `to_json` wrote, to the bit."""
        loaded = json.loads(content)
        return cls(tuple(loaded["x"]), tuple(loaded["y"]))


def _refuse_unusable(score: np.ndarray, fraud: np.ndarray) -> None:
    if score.shape != fraud.shape or score.ndim != 1:
        raise TrainingError(
            f"calibration: {score.shape} scores for {fraud.shape} outcomes; give one for each"
        )
    if not np.all(np.isfinite(score)):
        raise TrainingError("calibration: a score is not finite; every row must be scored")
    frauds = int(fraud.sum())
    if frauds in (0, len(fraud)):
        raise TrainingError(
            f"calibration: {frauds} frauds in {len(fraud)} rows; both classes are needed, "
            "widen the validation part"
        )


def _bins(
    score: np.ndarray, fraud: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, frauds and the sum of scores of each bin, by rising score; equal scores share a bin."""
    values, inverse = np.unique(score, return_inverse=True)
    count = np.bincount(inverse, weights=weight).astype(np.float64)
    frauds = np.bincount(inverse, weights=fraud if weight is None else fraud * weight)
    per_bin = max(1, min(ROWS_PER_BIN, len(score) // 20))
    number = (np.cumsum(count) - count) // per_bin
    starts = np.flatnonzero(np.concatenate(([True], np.diff(number) > 0)))
    return tuple(np.add.reduceat(part, starts) for part in (count, frauds, values * count))  # type: ignore[return-value]


def _pool(
    count: np.ndarray, frauds: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge neighbours until the fraud rate rises strictly from pool to pool."""
    pools: list[list[float]] = []
    for pool in zip(count.tolist(), frauds.tolist(), total.tolist(), strict=True):
        pools.append(list(pool))
        while len(pools) > 1 and pools[-2][1] * pools[-1][0] >= pools[-1][1] * pools[-2][0]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    merged = np.array(pools, dtype=np.float64)
    return merged[:, 0], merged[:, 1], merged[:, 2]
