"""What each rung of the service's ladder costs: the same rows, all answered by one rung.

Belongs here: the rungs as `serve.judge` has them, over columns, and their money.
Does not belong here: finding rows or a model (`adapters`, `defs`), one decision (`serve`).
Capacities are left out: what they close depends on the hour's traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate.joined import request_columns
from fraud_platform.evaluate.money import RESAMPLES, Interval, amount_major, paired_bootstrap
from fraud_platform.features.contract import FeatureContract
from fraud_platform.policy import Policy
from fraud_platform.rules import RuleSet
from fraud_platform.schema import ACTIONS
from fraud_platform.train import Candidate, Part, columns_of

SEED = 20_181
PER = 1_000
"""Transactions that costs are told for."""
APPROVE_ALL = "approve all"


@dataclass(frozen=True)
class Rung:
    """One rung on all rows. cost: major units per 1,000 transactions; lost: how much more than with the
    model; shares: of ACTIONS, in that order; missed: share of the frauds that are approved."""

    name: str
    cost: Interval
    lost: Interval
    shares: tuple[float, ...]
    missed: float


@dataclass(frozen=True)
class Rungs:
    """The ladder, best rung first, and approving everything at its end."""

    model: str
    part: Part
    rows: int
    frauds: int
    rungs: tuple[Rung, ...]

    def explain(self) -> str:
        return (
            f"model {self.model[:12]} on {self.rows:,} mature rows with {self.frauds:,} frauds, {self.part}; "
            f"costs are major units per {PER:,} transactions"
        )


def rungs(
    candidate: Candidate,
    training_set: pd.DataFrame,
    policy: Policy,
    rules: RuleSet,
    resamples: int = RESAMPLES,
) -> Rungs:
    """Every rung on the candidate's test part.

    training_set: as for `evaluate`, with the request's fields as columns where known. TrainingError when the
    part holds no row or no fraud.
    """
    part = candidate.split.test
    rows = training_set.loc[part.mask(training_set["event_time"].to_numpy())]
    is_fraud = rows["is_fraud"].to_numpy(dtype=bool)
    if not is_fraud.any():
        raise TrainingError(f"{len(rows):,} mature rows and no fraud in {part}; give more history")
    amount = amount_major(rows["amount_minor"].to_numpy(), rows["currency"].to_numpy())
    columns = columns_of(rows, candidate.contract)
    actions = rung_actions(
        columns,
        request_columns(rows),
        candidate.probability(columns),
        amount,
        candidate.contract,
        policy,
        rules,
    )
    costs = {
        name: policy.realized_costs(a, is_fraud, amount) * (PER / len(rows)) for name, a in actions.items()
    }
    cards = rows["card_id"].to_numpy(dtype=object).astype(str)
    cost = paired_bootstrap(costs, cards, SEED, resamples)
    lost = paired_bootstrap({n: one - costs["model"] for n, one in costs.items()}, cards, SEED, resamples)
    return Rungs(
        model=candidate.fingerprint,
        part=part,
        rows=len(rows),
        frauds=int(is_fraud.sum()),
        rungs=tuple(
            Rung(name, cost[name], lost[name], _shares(chosen), float((chosen[is_fraud] == 0).mean()))
            for name, chosen in actions.items()
        ),
    )


def rung_actions(
    columns: Mapping[str, np.ndarray],
    requests: Mapping[str, np.ndarray],
    probability: np.ndarray,
    amount: np.ndarray,
    contract: FeatureContract,
    policy: Policy,
    rules: RuleSet,
) -> dict[str, np.ndarray]:
    """Index into ACTIONS by rung, best first, and of approving everything: int8 (n,) each.

    columns: the features, requests: the request's fields as "request.FIELD", each (n,); probability: the
    model's, (n,); amount: major units, (n,).
    """
    n = len(amount)
    unscored = policy.actions(np.full(n, policy.fallback.unscored_probability), amount)
    told = {name: columns[name] for name in request_features(contract)}
    with_features = rules.answers(rules.fired({**columns, **requests}, n))
    with_request = rules.answers(rules.fired({**told, **requests}, n))
    fixed = ACTIONS.index(policy.fallback.fixed_action)
    return {
        "model": np.choose(policy.actions(probability, amount), with_features),
        "rules": np.choose(unscored, with_features),
        "request": np.choose(unscored, with_request),
        "fixed": np.full(n, fixed, dtype=np.int8),
        APPROVE_ALL: np.zeros(n, dtype=np.int8),
    }


def request_features(contract: FeatureContract) -> tuple[str, ...]:
    """The features that the request alone tells: nothing that they combine counts a past."""
    known: set[str] = set()
    for feature in contract.features:
        needs = (contract.features[contract.index(name)] for name in feature.inputs)
        if feature.entity is None and all(one.entity is None for one in needs):
            known.add(feature.name)
    return tuple(name for name in contract.names if name in known)


def _shares(actions: np.ndarray) -> tuple[float, ...]:
    return tuple((np.bincount(actions, minlength=len(ACTIONS)) / len(actions)).tolist())
