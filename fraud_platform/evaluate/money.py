"""What choices cost, and how sure a difference is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fraud_platform.errors import TrainingError
from fraud_platform.policy import Policy
from fraud_platform.schema import ACTIONS, CURRENCY_EXPONENTS

RESAMPLES = 1_000
LEVEL = 0.95
WEIGHTS_AT_ONCE = 4_000_000
THRESHOLDS = 60


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval at `level`, in the estimate's unit."""

    estimate: float
    low: float
    high: float
    level: float = LEVEL

    def __str__(self) -> str:
        return f"{self.estimate:,.0f} ({self.level:.0%} interval {self.low:,.0f} to {self.high:,.0f})"

    def short(self, digits: int = 1) -> str:
        """For a table or a sentence that says elsewhere which interval it is.

        >>> Interval(1234.56, -7.0, 8.04).short()
        '1,234.6 (-7.0 to 8.0)'
        """
        estimate, low, high = (f"{one:,.{digits}f}" for one in (self.estimate, self.low, self.high))
        return f"{estimate} ({low} to {high})"

    def columns(self, name: str) -> dict[str, float]:
        """Its three numbers as columns of a table, by name."""
        return {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high}


def interval_cells(found: Interval | None) -> tuple[str, str, str]:
    """For three columns of a table that people read: empty where there is none."""
    if found is None:
        return ("", "", "")
    return (f"{found.estimate:,.0f}", f"{found.low:,.0f}", f"{found.high:,.0f}")


@dataclass(frozen=True)
class Cost:
    """What actions cost, in major units, how many rows met each of them, and how many frauds the first."""

    total: float
    approved: int
    stepped_up: int
    declined: int
    frauds_approved: int

    @classmethod
    def of(cls, actions: np.ndarray, cost: np.ndarray, is_fraud: np.ndarray) -> Cost:
        """actions: index into ACTIONS; cost: what each cost (major units); arrays of shape (n,)."""
        met = np.bincount(actions, minlength=len(ACTIONS)).tolist()
        missed = int(((actions == ACTIONS.index("approve")) & is_fraud).sum())
        return cls(float(cost.sum()), met[0], met[1], met[2], missed)


def amount_major(amount_minor: np.ndarray, currency: np.ndarray) -> np.ndarray:
    """Amounts in major currency units: float64 (n,). TrainingError for a currency that is not known."""
    codes, inverse = np.unique(np.asarray(currency, dtype=object).astype(str), return_inverse=True)
    unknown = sorted(set(codes.tolist()) - CURRENCY_EXPONENTS.keys())
    if unknown:
        raise TrainingError(f"currencies {unknown} are not known; quarantine such rows or extend the schema")
    scale = np.array([10.0 ** CURRENCY_EXPONENTS[code] for code in codes])
    return np.asarray(amount_minor, dtype=np.float64) / scale[inverse]


def paired_bootstrap(
    differences: Mapping[str, np.ndarray],
    block: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Intervals of the sums of paired differences, each (n,), resampling whole blocks (n,), all alike.

    The rows of one card rise and fall together, so a card is drawn with all its rows or not at all: each
    resample weighs every block by a Poisson(1) number (Hanley and MacGibbon, 2006). Sums are scaled to
    n rows.
    """
    names = list(differences)
    blocks, member = np.unique(np.asarray(block), return_inverse=True)
    sums = np.stack(
        [np.bincount(member, weights=differences[name], minlength=len(blocks)) for name in names]
        + [np.bincount(member, minlength=len(blocks)).astype(np.float64)],
        axis=1,
    )
    drawn = _resampled(sums, np.random.default_rng(seed), resamples)
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    return {
        name: Interval(float(sums[:, i].sum()), float(low[i]), float(high[i])) for i, name in enumerate(names)
    }


def _resampled(sums: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Resampled totals of all columns but the last, which counts rows: (resamples, columns - 1)."""
    at_once = max(1, WEIGHTS_AT_ONCE // len(sums))
    totals = np.concatenate(
        [
            rng.poisson(1.0, size=(min(at_once, resamples - done), len(sums))) @ sums
            for done in range(0, resamples, at_once)
        ]
    )
    rows = np.maximum(totals[:, -1:], 1.0)
    return totals[:, :-1] / rows * sums[:, -1].sum()


def threshold_costs(
    policy: Policy,
    probability: np.ndarray,
    answers: np.ndarray,
    is_fraud: np.ndarray,
    amount: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds (m,) and the cost of declining above each and approving the rest (m,), beside the rules.

    answers: as of `RuleSet.answers`, (3, n); the others (n,), amounts in major units.
    """
    approve, decline = (
        policy.realized_costs(answers[ACTIONS.index(action)], is_fraud, amount)
        for action in ("approve", "decline")
    )
    order = np.argsort(probability, kind="stable")
    below = np.concatenate(([0.0], np.cumsum(approve[order])))
    above = decline.sum() - np.concatenate(([0.0], np.cumsum(decline[order])))
    thresholds = np.geomspace(1e-4, 1.0, THRESHOLDS)
    place = np.searchsorted(np.asarray(probability)[order], thresholds, side="right")
    return thresholds, below[place] + above[place]
