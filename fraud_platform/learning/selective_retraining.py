"""What a model learns from a time in which another one declined: with the declines' outcomes, and without.

History is cut in three: a first model learns from the first part and decides the second; every contender
learns from both, but sees of the second what it would see if the first model's declines had been obeyed; all
are judged on the third, by what is known of it.
Belongs here: what each contender sees, and how it fares. Does not belong here: what the declines were worth
(`selective`). The cut leaves no gap for labels to mature, and features count what was declined too: what
differs between contenders is the outcomes of the declines alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import Interval, amount_major, paired_bootstrap
from fraud_platform.evaluate.money import RESAMPLES
from fraud_platform.features.contract import FeatureContract
from fraud_platform.policy import Policy
from fraud_platform.schema import ACTIONS, MILLISECONDS_PER_DAY
from fraud_platform.train import Candidate, Part, Split, TrainParams, columns_of, train

FIRST_SHARE, DECIDED_SHARE = 0.4, 0.35
HELD_OUT_DAYS = 14
SHARES = (0.05, 0.10)
DRAWS = 3
SEED = 20_183
PER = 1_000
"""Transactions that costs are told for."""
DECLINE = ACTIONS.index("decline")


@dataclass(frozen=True)
class Retrained:
    """One contender, over its draws. declined, frauds: rows of the second part that the first model declined
    and that are learned from, and the frauds among them; cost: major units per 1,000 transactions; lost: how
    much more than with all outcomes known; missed: the share of frauds that is approved."""

    name: str
    declined: float
    frauds: float
    average_precision: float
    cost: Interval
    lost: Interval
    missed: float


@dataclass(frozen=True)
class Retraining:
    """declined, frauds: of the second part, by the first model."""

    decided: Part
    judged: Part
    rows: int
    declined: int
    frauds: int
    contenders: tuple[Retrained, ...]

    def explain(self) -> str:
        return (
            f"the first model declines {self.declined:,} transactions, {self.decided}, {self.frauds:,} of "
            f"them frauds; judged on {self.rows:,} transactions, {self.judged}"
        )


def retraining(
    training_set: pd.DataFrame,
    contract: FeatureContract,
    policy: Policy,
    params: TrainParams | None = None,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    report: Callable[[str], None] = lambda message: None,
) -> Retraining:
    """Every contender on the same rows.

    training_set: as for `train`, with card_id, amount_minor and currency. TrainingError where a part of it
    cannot teach, or the first model declines nothing.
    """
    moments = training_set["event_time"].to_numpy()
    first, second = _splits(int(moments.min()), int(moments.max()) + 1)
    model = train(training_set, contract, first, params)
    inside = first.test.mask(moments)
    declined = inside & (_actions(model, training_set, policy) == DECLINE)
    if not declined.any():
        raise TrainingError(f"the first model declines nothing, {first.test}; give more history")
    frauds = training_set["is_fraud"].to_numpy(dtype=bool)
    report(f"the first model declines {int(declined.sum()):,} of {int(inside.sum()):,} transactions")
    judged = training_set.loc[second.test.mask(moments)]
    results = {}
    for name, sights in _contenders(training_set, declined, draws).items():
        models = [train(rows, contract, second, params) for rows in sights]
        results[name] = (sights, [_judge(one, judged, policy) for one in models])
        report(f"{name}: done")
    return Retraining(
        decided=first.test,
        judged=second.test,
        rows=len(judged),
        declined=int(declined.sum()),
        frauds=int(frauds[declined].sum()),
        contenders=tuple(_retrained(results, training_set, declined, judged, resamples)),
    )


@dataclass(frozen=True)
class _Judged:
    """cost, action: (n,) of the judged rows."""

    average_precision: float
    cost: np.ndarray
    actions: np.ndarray


def _splits(first_ms: int, end_ms: int) -> tuple[Split, Split]:
    """That of the first model, whose test part it decides, and that of the contenders."""
    day = MILLISECONDS_PER_DAY
    days = (end_ms - first_ms) // day
    if days * min(FIRST_SHARE, DECIDED_SHARE) <= HELD_OUT_DAYS:
        raise TrainingError(
            f"{days} days of mature history: more than {HELD_OUT_DAYS / min(FIRST_SHARE, DECIDED_SHARE):.0f} "
            "are needed; give more history"
        )
    starts = first_ms + int(days * FIRST_SHARE) * day
    ends = starts + int(days * DECIDED_SHARE) * day
    held_out = HELD_OUT_DAYS * day
    return (
        Split(Part(first_ms, starts - held_out), Part(starts - held_out, starts), Part(starts, ends), 0),
        Split(Part(first_ms, ends - held_out), Part(ends - held_out, ends), Part(ends, end_ms), 0),
    )


def _contenders(
    training_set: pd.DataFrame, declined: np.ndarray, draws: int
) -> dict[str, tuple[pd.DataFrame, ...]]:
    """By name, what is learned from; several where what is explored is drawn."""
    labelled = training_set.assign(is_fraud=training_set["is_fraud"].to_numpy(dtype=bool) & ~declined)
    found: dict[str, tuple[pd.DataFrame, ...]] = {
        "all_known": (training_set,),
        "left_out": (training_set.loc[~declined],),
        "as_labelled": (labelled,),
    }
    for share in SHARES:
        rngs = (np.random.default_rng([SEED, draw]) for draw in range(draws))
        found[f"explored {share:.0%}"] = tuple(_explored(training_set, declined, share, rng) for rng in rngs)
    return found


def _explored(
    training_set: pd.DataFrame, declined: np.ndarray, share: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Of the declined rows those that were explored, each as often as it stands for, under own names."""
    is_explored = declined & (rng.random(len(declined)) < share)
    copies = training_set.loc[is_explored]
    repeated = [
        copies.assign(transaction_id=copies["transaction_id"] + f"#{number}")
        for number in range(round(1.0 / share))
    ]
    return pd.concat([training_set.loc[~declined], *repeated], ignore_index=True)


def _actions(model: Candidate, rows: pd.DataFrame, policy: Policy) -> np.ndarray:
    return policy.actions(model.probability(columns_of(rows, model.contract)), _amount(rows))


def _amount(rows: pd.DataFrame) -> np.ndarray:
    return amount_major(rows["amount_minor"].to_numpy(), rows["currency"].to_numpy())


def _judge(model: Candidate, rows: pd.DataFrame, policy: Policy) -> _Judged:
    is_fraud, amount = rows["is_fraud"].to_numpy(dtype=bool), _amount(rows)
    columns = columns_of(rows, model.contract)
    score = model.score(columns)
    actions = policy.actions(model.calibrator(score), amount)
    cost = policy.realized_costs(actions, is_fraud, amount) * (PER / len(rows))
    return _Judged(float(average_precision_score(is_fraud, score)), cost, actions)


def _retrained(
    results: dict[str, tuple[tuple[pd.DataFrame, ...], list[_Judged]]],
    training_set: pd.DataFrame,
    declined: np.ndarray,
    judged: pd.DataFrame,
    resamples: int,
) -> Iterator[Retrained]:
    cards = judged["card_id"].to_numpy(dtype=object).astype(str)
    is_fraud = judged["is_fraud"].to_numpy(dtype=bool)
    costs = {name: np.mean([one.cost for one in runs], axis=0) for name, (_, runs) in results.items()}
    cost = paired_bootstrap(costs, cards, SEED, resamples)
    others = {name: one - costs["all_known"] for name, one in costs.items()}
    lost = paired_bootstrap(others, cards, SEED, resamples)
    ids = set(training_set["transaction_id"].to_numpy()[declined].tolist())
    for name, (sights, runs) in results.items():
        seen = [_seen(rows, ids) for rows in sights]
        yield Retrained(
            name=name,
            declined=float(np.mean([len(rows) for rows in seen])),
            frauds=float(np.mean([rows["is_fraud"].sum() for rows in seen])),
            average_precision=float(np.mean([one.average_precision for one in runs])),
            cost=cost[name],
            lost=lost[name],
            missed=float(np.mean([(one.actions[is_fraud] == 0).mean() for one in runs])),
        )


def _seen(rows: pd.DataFrame, declined: set[str]) -> pd.DataFrame:
    """The rows of declined transactions, each once."""
    names = rows["transaction_id"].str.partition("#")[0]
    return rows.loc[names.isin(declined) & ~names.duplicated()]
