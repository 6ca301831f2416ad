"""How much ranking is lost when one set of scores takes another's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate.money import LEVEL, RESAMPLES, Interval


@dataclass(frozen=True)
class RankingDifference:
    """Average precision of both scores on the same rows; `difference`: second less first."""

    first: float
    second: float
    difference: Interval
    rows: int
    frauds: int


@dataclass(frozen=True)
class _Ranking:
    """Rows from the highest score to the lowest, cut after each group of equal scores that holds a fraud."""

    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, is_fraud: np.ndarray) -> _Ranking:
        order = np.argsort(-score, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True)) + 1
        frauds = np.cumsum(is_fraud[order])[ends - 1]
        ends = ends[np.diff(frauds, prepend=0) > 0]
        return cls(order[: ends[-1]], np.concatenate(([0], ends[:-1])))

    def average_precision(self, weight: np.ndarray, fraud_weight: np.ndarray) -> float:
        """The sum over thresholds of precision times the recall gained, rows weighed by `weight` (n,)."""
        ranked = np.cumsum(np.add.reduceat(weight[self.order], self.starts))
        gained = np.add.reduceat(fraud_weight[self.order], self.starts)
        found = np.cumsum(gained)
        if not found[-1]:
            return 0.0
        precision = np.divide(found, ranked, out=np.zeros_like(found), where=ranked > 0)
        return float((precision * gained).sum() / found[-1])


def average_precision_difference(
    first: np.ndarray,
    second: np.ndarray,
    is_fraud: np.ndarray,
    block: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> RankingDifference:
    """Scores, truth and block, each (n,). Whole blocks are drawn, alike for both scores, as in
    `money.paired_bootstrap`: average precision is no sum, so each resample ranks its weighted rows anew.

    Raises TrainingError when there is no fraud to rank.
    """
    fraud = np.asarray(is_fraud, dtype=bool)
    if not fraud.any():
        raise TrainingError(f"no fraud in {len(fraud)} rows to rank; give more history")
    blocks, member = np.unique(np.asarray(block), return_inverse=True)
    rankings = [_Ranking.of(np.asarray(score, dtype=np.float64), fraud) for score in (first, second)]
    ones = np.ones(len(fraud))
    exact = [ranking.average_precision(ones, fraud.astype(np.float64)) for ranking in rankings]
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for number in range(resamples):
        weight = generator.poisson(1.0, len(blocks)).astype(np.float64)[member]
        one, other = (ranking.average_precision(weight, weight * fraud) for ranking in rankings)
        drawn[number] = other - one
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    difference = Interval(exact[1] - exact[0], float(low), float(high))
    return RankingDifference(exact[0], exact[1], difference, len(fraud), int(fraud.sum()))


def mean_average_precisions(
    scores: Mapping[str, np.ndarray],
    reference: str,
    is_fraud: np.ndarray,
    group: np.ndarray,
    block: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, tuple[float, Interval]]:
    """Average precision of each score, its mean over groups, and how much it is above the reference's.

    scores: by name, (n,); group, block: (n,). Rows are ranked within their group alone: scores of one name
    need not be comparable between groups. Blocks are drawn as above. TrainingError for a group without fraud.
    """
    fraud = np.asarray(is_fraud, dtype=bool)
    groups = [np.flatnonzero(group == one) for one in np.unique(group)]
    for rows in groups:
        if not fraud[rows].any():
            raise TrainingError(f"no fraud in a group of {len(rows)} rows to rank; give more history")
    rankings = {
        name: [(rows, _Ranking.of(np.asarray(score, dtype=np.float64)[rows], fraud[rows])) for rows in groups]
        for name, score in scores.items()
    }
    blocks, member = np.unique(np.asarray(block), return_inverse=True)
    exact = _means(rankings, np.ones(len(fraud)), fraud)
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(resamples):
        means = _means(rankings, generator.poisson(1.0, len(blocks)).astype(np.float64)[member], fraud)
        for name, mean in means.items():
            drawn[name].append(mean - means[reference])
    tail = (1.0 - LEVEL) / 2.0
    ends = {name: np.quantile(found, [tail, 1.0 - tail]) for name, found in drawn.items()}
    return {
        name: (mean, Interval(mean - exact[reference], float(ends[name][0]), float(ends[name][1])))
        for name, mean in exact.items()
    }


def _means(
    rankings: Mapping[str, list[tuple[np.ndarray, _Ranking]]], weight: np.ndarray, fraud: np.ndarray
) -> dict[str, float]:
    return {
        name: float(
            np.mean([one.average_precision(weight[rows], (weight * fraud)[rows]) for rows, one in ranked])
        )
        for name, ranked in rankings.items()
    }
