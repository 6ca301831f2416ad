"""What the declines were worth, from decisions of which some were approved to find out.

Of a declined transaction nobody learns whether it was fraud. Where a share of the declines is explored, each
with a known propensity, their outcomes stand for those of the others.
Belongs here: estimates from logged decisions with intervals. Does not belong here: the exploration itself
(`serve.exploration`), how good the estimates are where the truth is known (`learning.selective_bakeoff`).

    as_labelled      no report, no fraud: what a label rule makes of a decline that it does not know to be one
    observed         the explored ones alone, as if there were no others
    model            the model's own probability for every decline, nothing observed
    inverse          outcomes by inverse propensity (Horvitz and Thompson, 1952)
    self_normalised  the same, divided by the sum of the weights (Hajek, 1971)
    doubly_robust    the model's probability, and by inverse propensity what it was wrong by (Robins,
                     Rotnitzky and Zhao, 1994): little noise where the model is good, right where it is not

Declines that could not be explored (propensity 1) are taken to be like the others by `inverse` and
`self_normalised`, and as probable as the model says by `doubly_robust`: see `SelectiveLabels.supported`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate.money import LEVEL, RESAMPLES, WEIGHTS_AT_ONCE
from fraud_platform.policy import Policy
from fraud_platform.schema import ACTIONS

ESTIMATORS = ("as_labelled", "observed", "model", "inverse", "self_normalised", "doubly_robust")
MEASURES = ("precision", "recall", "saved")
"""precision: the share of frauds among the declines; recall: the share of all frauds that is declined; saved:
what declining saved against approving them all, major units."""
UNDEFINED_MAX = 0.05
"""An interval is told only where at most this share of the resamples leaves an estimate undefined."""


@dataclass(frozen=True)
class Logged:
    """Mature decisions of model and policy, each array (n,).

    is_declined: the policy chose to decline, explored or not; is_explored: it was approved all the same;
    propensity: of what was done; outcome: 1.0 fraud, 0.0 legitimate, NaN where it was declined; probability:
    the model's; amount: major units; card_id: the blocks of the bootstrap.
    """

    is_declined: np.ndarray
    is_explored: np.ndarray
    propensity: np.ndarray
    outcome: np.ndarray
    probability: np.ndarray
    amount: np.ndarray
    card_id: np.ndarray

    def __post_init__(self) -> None:
        """TrainingError names the first row that cannot be."""
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) != 1 or len(shapes["outcome"]) != 1:
            raise TrainingError(
                f"logged decisions: columns of shapes {shapes}; give one value a row for each"
            )
        for is_wrong, said in _impossible(self):
            if is_wrong.any():
                row = int(np.flatnonzero(is_wrong)[0])
                values = ", ".join(f"{name}={getattr(self, name)[row]}" for name in shapes)
                raise TrainingError(f"logged decisions: row {row} ({values}): {said}")
        if not self.is_declined.any():
            raise TrainingError(
                f"logged decisions: {len(self.outcome):,} rows and no decline; there is nothing to estimate"
            )


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; None for what the rows do not tell."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def holds(self, truth: float) -> bool | None:
        """Whether the interval holds it; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= truth <= self.high


@dataclass(frozen=True)
class SelectiveLabels:
    """estimates: by estimator, then by measure; supported: the share of the declines that might have been
    explored; explored: how many were."""

    declined: int
    explored: int
    supported: float
    estimates: Mapping[str, Mapping[str, Estimate]]


def estimate(logged: Logged, policy: Policy, seed: int, resamples: int = RESAMPLES) -> SelectiveLabels:
    """Every estimator on every measure, with intervals at LEVEL that draw whole cards.

    Each resample weighs every card by a Poisson(1) number, as `evaluate.paired_bootstrap`.
    """
    sums = _card_sums(logged, policy)
    totals = {name: column.sum() for name, column in sums.items()}
    found = measured({name: np.array([total]) for name, total in totals.items()})
    drawn = measured(_resampled(sums, np.random.default_rng(seed), resamples))
    return SelectiveLabels(
        declined=int(totals["declined"]),
        explored=int(totals["explored"]),
        supported=float(totals["supported"] / totals["declined"]),
        estimates={
            name: {measure: _estimate(values[measure][0], drawn[name][measure]) for measure in MEASURES}
            for name, values in found.items()
        },
    )


def decline_values(policy: Policy, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What declining saves against approving, if it is a fraud and if it is not: major units, (n,) each."""
    n = len(amount)
    approve, decline = (np.full(n, ACTIONS.index(action), np.int8) for action in ("approve", "decline"))
    of_fraud, of_good = (
        policy.realized_costs(approve, truth, amount) - policy.realized_costs(decline, truth, amount)
        for truth in (np.ones(n, dtype=bool), np.zeros(n, dtype=bool))
    )
    return of_fraud, of_good


def measured(sums: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Measures by estimator from totals of `_card_sums`, each (m,); NaN where nothing can be told."""
    with np.errstate(divide="ignore", invalid="ignore"):
        declined, elsewhere = sums["declined"], sums["frauds_elsewhere"]
        has_any = np.where(sums["explored"] > 0, 1.0, np.nan)
        spread = declined / sums["supported"] * has_any
        mean_weight = declined / sums["weight"]
        frauds_and_saved = {
            "as_labelled": (sums["frauds"], sums["saved"] + sums["saved_if_good"]),
            "observed": (sums["frauds"] * has_any, sums["saved"] * has_any),
            "model": (sums["expected_frauds"], sums["expected_saved"]),
            "inverse": (sums["weighted_frauds"] * spread, sums["weighted_saved"] * spread),
            "self_normalised": (sums["weighted_frauds"] * mean_weight, sums["weighted_saved"] * mean_weight),
            "doubly_robust": (
                sums["expected_frauds"] + sums["missed_frauds"] * has_any,
                sums["expected_saved"] + sums["missed_saved"] * has_any,
            ),
        }
        return {
            name: {
                "precision": frauds / (sums["explored"] if name == "observed" else declined),
                "recall": frauds / (frauds + elsewhere),
                "saved": saved,
            }
            for name, (frauds, saved) in frauds_and_saved.items()
        }


def _impossible(rows: Logged) -> list[tuple[np.ndarray, str]]:
    is_known = ~np.isnan(rows.outcome)
    was_declined = rows.is_declined & ~rows.is_explored
    has_propensity = (rows.propensity > 0.0) & (rows.propensity <= 1.0)
    return [
        (~has_propensity, "what was done had a propensity above 0 and at most 1; log it when it is decided"),
        (rows.is_explored & ~rows.is_declined, "only what the policy declined can be explored"),
        (was_declined & is_known, "it was declined, so that its outcome cannot be known; give NaN"),
        (~was_declined & ~is_known, "it was not declined and has no outcome; leave out what is not mature"),
        (is_known & (rows.outcome != 0.0) & (rows.outcome != 1.0), "an outcome is 1 for fraud, otherwise 0"),
        (~((rows.probability >= 0.0) & (rows.probability <= 1.0)), "a probability is from 0 to 1"),
    ]


def _card_sums(rows: Logged, policy: Policy) -> dict[str, np.ndarray]:
    """What the estimators add up, by card: float64 (cards,) each; cards that add nothing are left out."""
    of_fraud, of_good = decline_values(policy, rows.amount)
    declined, explored = rows.is_declined, rows.is_explored
    outcome = np.where(explored, rows.outcome, 0.0)
    saved = outcome * of_fraud + (1.0 - outcome) * of_good
    expected = rows.probability * of_fraud + (1.0 - rows.probability) * of_good
    weight = np.where(explored, 1.0 / rows.propensity, 0.0)
    columns = {
        "declined": declined,
        "supported": declined & (explored | (rows.propensity < 1.0)),
        "explored": explored,
        "frauds": outcome,
        "saved": np.where(explored, saved, 0.0),
        "saved_if_good": np.where(declined & ~explored, of_good, 0.0),
        "weight": weight,
        "weighted_frauds": weight * outcome,
        "weighted_saved": weight * saved,
        "expected_frauds": np.where(declined, rows.probability, 0.0),
        "expected_saved": np.where(declined, expected, 0.0),
        "missed_frauds": weight * (outcome - rows.probability),
        "missed_saved": weight * (saved - expected),
        "frauds_elsewhere": np.where(declined, 0.0, rows.outcome),
    }
    used = declined | (rows.outcome == 1.0)
    cards, member = np.unique(np.asarray(rows.card_id)[used], return_inverse=True)
    return {
        name: np.bincount(member, weights=np.asarray(column, np.float64)[used], minlength=len(cards))
        for name, column in columns.items()
    }


def _resampled(
    sums: Mapping[str, np.ndarray], rng: np.random.Generator, resamples: int
) -> dict[str, np.ndarray]:
    """Totals of each column in every resample: (resamples,) each.

    Cards without a decline that have as many frauds are drawn together: the sum of k Poisson(1) numbers is a
    Poisson(k) one.
    """
    has_declined = sums["declined"] > 0
    matrix = np.stack([column[has_declined] for column in sums.values()], axis=1)
    at_once = max(1, WEIGHTS_AT_ONCE // len(matrix))
    totals = np.concatenate(
        [
            rng.poisson(1.0, size=(min(at_once, resamples - done), len(matrix))) @ matrix
            for done in range(0, resamples, at_once)
        ]
    )
    frauds, cards = np.unique(sums["frauds_elsewhere"][~has_declined], return_counts=True)
    found = dict(zip(sums, totals.T, strict=True))
    found["frauds_elsewhere"] = (
        found["frauds_elsewhere"] + rng.poisson(cards, (resamples, len(cards))) @ frauds
    )
    return found


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    if np.isnan(value):
        return Estimate(None)
    known = drawn[~np.isnan(drawn)]
    if len(known) < (1.0 - UNDEFINED_MAX) * len(drawn):
        return Estimate(float(value))
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Estimate(float(value), float(low), float(high))
