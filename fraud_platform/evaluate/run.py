"""Judge a candidate on the test part of its split, as it would ship: its policy joined with the live rules.

Capacities and exploration are left out: what they change depends on the hour's traffic, or on a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from fraud_platform.errors import ContractError, TrainingError
from fraud_platform.evaluate.evaluation import Alone, Curves, Evaluation, Segment
from fraud_platform.evaluate.explorer import bands
from fraud_platform.evaluate.joined import live_answers
from fraud_platform.evaluate.metrics import Quality, calibration_bins, measure
from fraud_platform.evaluate.money import (
    RESAMPLES,
    Cost,
    amount_major,
    paired_bootstrap,
    threshold_costs,
)
from fraud_platform.evaluate.rates import rates
from fraud_platform.evaluate.segments import slices
from fraud_platform.policy import Policy
from fraud_platform.rules import RuleSet
from fraud_platform.schema import ACTIONS
from fraud_platform.train import Candidate, Part, columns_of
from fraud_platform.train.split import date_of

SEED = 20_181
CURVE_POINTS = 200
IMPORTANT_FEATURES = 30
METHOD = (
    "intervals: paired bootstrap of {resamples:,} resamples, drawing whole cards, at 95 %; "
    "costs are those of what the service would answer with each model, on the truth: the stronger of policy "
    "and live rules, an approving rule final; rules: the live rules alone, all else approved; a step-up at "
    "its expectation: the good customers who give up, the frauds that pass it; ranking and calibration are "
    "the models' own"
)


@dataclass(frozen=True)
class _Truth:
    """The rows to judge on, each array (n,)."""

    is_fraud: np.ndarray
    amount: np.ndarray
    event_time: np.ndarray
    card_id: np.ndarray


@dataclass(frozen=True)
class _Contender:
    """actions: index into ACTIONS of what is answered with it; `score` is None where it does not rank."""

    actions: np.ndarray
    score: np.ndarray | None = None
    probability: np.ndarray | None = None


def evaluate(
    candidate: Candidate,
    training_set: pd.DataFrame,
    policy: Policy,
    rules: RuleSet,
    champion: Candidate | None = None,
    resamples: int = RESAMPLES,
    report: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Candidate, champion, logistic regression, rules and "approve all" on the candidate's test part.

    training_set: as for `train`, with card_id, amount_minor, currency and, where known, the columns of
    `segments`. Costs, rates, savings and segments are of what the service would answer with each model: its
    policy joined with the live rules; ranking and calibration are the model's own. TrainingError when the
    part holds one class only or the champion has learned from it; ContractError where a rule reads what the
    candidate's contract has not, so that its bundle could not decide.
    """
    rows = _later_rows(training_set, candidate.split.test, champion)
    truth = _truth(rows)
    report(f"judging on {len(rows):,} rows")
    columns = columns_of(rows, candidate.contract)
    _refuse_unknown(rules, candidate)
    answers = live_answers(rules, columns, rows)
    contenders = _contenders(candidate, rows, columns, truth, policy, answers, champion)
    probability = contenders["candidate"].probability
    assert probability is not None
    cost = {
        name: policy.realized_costs(c.actions, truth.is_fraud, truth.amount) for name, c in contenders.items()
    }
    others = {name: cost[name] - cost["candidate"] for name in contenders if name != "candidate"}
    return Evaluation(
        fingerprint=candidate.fingerprint,
        champion_fingerprint=champion.fingerprint if champion else None,
        test=candidate.split.test,
        rows=len(rows),
        frauds=int(truth.is_fraud.sum()),
        cards=len(np.unique(truth.card_id)),
        qualities=dict(_qualities(contenders, truth)),
        costs={name: Cost.of(c.actions, cost[name], truth.is_fraud) for name, c in contenders.items()},
        savings=paired_bootstrap(others, truth.card_id, SEED, resamples),
        segments=tuple(_segments(rows, truth, probability, cost, resamples)),
        curves=_curves(contenders, truth, policy, answers),
        method=METHOD.format(resamples=resamples),
        rates={
            name: rates(c.actions, truth.is_fraud, truth.amount, policy) for name, c in contenders.items()
        },
        importance=_importance(candidate),
        alone=_alone(policy.actions(probability, truth.amount), cost["candidate"], truth, policy, resamples),
    )


def _later_rows(training_set: pd.DataFrame, part: Part, champion: Candidate | None) -> pd.DataFrame:
    rows = training_set.loc[part.mask(training_set["event_time"].to_numpy())]
    if rows.empty:
        raise TrainingError(f"no mature rows to judge on in {part}; give more history")
    if champion is not None:
        _refuse_seen(champion, part.start_ms)
    return rows


def _refuse_seen(model: Candidate, first_ms: int) -> None:
    learned_until = model.learned_until_ms
    if first_ms < learned_until:
        raise TrainingError(
            f"model {model.fingerprint[:12]} learned from rows until {date_of(learned_until)}; "
            f"rows from {date_of(first_ms)} cannot judge it: take later ones"
        )


def _refuse_unknown(rules: RuleSet, candidate: Candidate) -> None:
    unknown = sorted(set(rules.feature_names) - set(candidate.contract.names))
    if unknown:
        raise ContractError(
            f"the rules read {unknown}, which contract {candidate.contract_hash[:12]} of candidate "
            f"{candidate.fingerprint[:12]} has not: train anew, or take these rules off"
        )


def _truth(rows: pd.DataFrame) -> _Truth:
    return _Truth(
        is_fraud=rows["is_fraud"].to_numpy(dtype=bool),
        amount=amount_major(rows["amount_minor"].to_numpy(), rows["currency"].to_numpy()),
        event_time=rows["event_time"].to_numpy(),
        card_id=rows["card_id"].to_numpy(dtype=object).astype(str),
    )


def _contenders(
    candidate: Candidate,
    rows: pd.DataFrame,
    columns: dict[str, np.ndarray],
    truth: _Truth,
    policy: Policy,
    answers: np.ndarray,
    champion: Candidate | None,
) -> dict[str, _Contender]:
    """columns: the rows' features in the candidate's contract; answers: as of `RuleSet.answers`, (3, n)."""

    def learned(score: np.ndarray, probability: np.ndarray) -> _Contender:
        return _Contender(np.choose(policy.actions(probability, truth.amount), answers), score, probability)

    matrix = candidate.matrix(columns)
    score = candidate.score_matrix(matrix)
    found = {"candidate": learned(score, candidate.calibrator(score))}
    if champion is not None:
        score = champion.score(columns_of(rows, champion.contract))
        found["champion"] = learned(score, champion.calibrator(score))
    score = candidate.baseline.score(matrix)
    found["logistic"] = learned(score, candidate.baseline.calibrator(score))
    found["rules"] = _Contender(answers[ACTIONS.index("approve")])
    found["approve_all"] = _Contender(np.full(len(rows), ACTIONS.index("approve"), dtype=np.int8))
    return found


def _alone(actions: np.ndarray, joined: np.ndarray, truth: _Truth, policy: Policy, resamples: int) -> Alone:
    """actions: the candidate's without the rules; joined: its costs with them (major units); (n,) each."""
    cost = policy.realized_costs(actions, truth.is_fraud, truth.amount)
    saved = paired_bootstrap({"rules": cost - joined}, truth.card_id, SEED, resamples)
    return Alone(Cost.of(actions, cost, truth.is_fraud), saved["rules"])


def _qualities(contenders: dict[str, _Contender], truth: _Truth) -> Iterator[tuple[str, Quality]]:
    for name, one in contenders.items():
        if one.score is not None and one.probability is not None:
            yield name, measure(one.score, one.probability, truth.is_fraud, truth.event_time, truth.card_id)


def _segments(
    rows: pd.DataFrame,
    truth: _Truth,
    probability: np.ndarray,
    cost: dict[str, np.ndarray],
    resamples: int,
) -> Iterator[Segment]:
    """Each slice with what the candidate saves in it, paired with the champion, or else with the rules."""
    against = "champion" if "champion" in cost else "rules"
    saved, difference = cost["approve_all"] - cost["candidate"], cost[against] - cost["candidate"]
    for dimension, parts in slices(rows, truth.amount):
        paired = {value: np.where(inside, difference, 0.0) for value, inside in parts}
        intervals = paired_bootstrap(paired, truth.card_id, SEED, resamples)
        for value, inside in parts:
            yield Segment(
                dimension=dimension,
                value=value,
                rows=int(inside.sum()),
                frauds=int(truth.is_fraud[inside].sum()),
                mean_probability=float(probability[inside].mean()),
                cost=float(cost["candidate"][inside].sum()),
                saved=float(saved[inside].sum()),
                against=against,
                difference=intervals[value],
            )


def _importance(candidate: Candidate) -> tuple[tuple[str, float], ...]:
    """The candidate's features by their share of its gain, largest first; those without any are left out."""
    gain = np.asarray(cast(Any, candidate.booster).feature_importance("gain"), dtype=np.float64)
    order = np.argsort(-gain, kind="stable")[:IMPORTANT_FEATURES]
    total = max(float(gain.sum()), np.finfo(np.float64).tiny)
    return tuple((candidate.contract.names[i], float(gain[i]) / total) for i in order if gain[i] > 0)


def _curves(contenders: dict[str, _Contender], truth: _Truth, policy: Policy, answers: np.ndarray) -> Curves:
    probability = contenders["candidate"].probability
    assert probability is not None
    thresholds, costs = threshold_costs(policy, probability, answers, truth.is_fraud, truth.amount)
    return Curves(
        precision_recall={
            name: _precision_recall(one.score, truth.is_fraud)
            for name, one in contenders.items()
            if one.score is not None
        },
        threshold_cost=tuple(zip(thresholds.tolist(), costs.tolist(), strict=True)),
        calibration=calibration_bins(probability, truth.is_fraud),
        bands=bands(policy, probability, answers, truth.is_fraud, truth.amount),
    )


def _precision_recall(score: np.ndarray, is_fraud: np.ndarray) -> tuple[tuple[float, float], ...]:
    """At most CURVE_POINTS points of (recall, precision), by rising recall."""
    precision, recall, _ = precision_recall_curve(is_fraud, score)
    wanted = np.linspace(0.0, 1.0, CURVE_POINTS)
    place = np.minimum(np.searchsorted(recall[::-1], wanted), len(recall) - 1)
    return tuple(zip(recall[::-1][place].tolist(), precision[::-1][place].tolist(), strict=True))
