"""Which way to treat young labels costs least: contenders at several moments, judged by the truth.

Belongs here: the comparison and its verdict. Does not belong here: what contenders do (`delay_contenders`),
the rows (`delay_rows`), reading a world (`adapters`), showing the table.

At each as-of every contender learns from what was known then, and decides the rows of the days after it. The
window and the correction are chosen by cost on the earlier as-ofs; the later ones judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import average_precision_score

from fraud_platform.evaluate import Fold, paired_bootstrap, prequential
from fraud_platform.evaluate.folds import Role
from fraud_platform.evaluate.joined import live_answers
from fraud_platform.evaluate.ranking import mean_average_precisions
from fraud_platform.features.contract import FeatureContract
from fraud_platform.learning.delay_contenders import (
    CORRECTED,
    NAIVE,
    ORACLE,
    SHIPPED,
    UNWEIGHTED,
    DelayPlan,
    Learner,
    wait,
)
from fraud_platform.learning.delay_result import Contender, DelayBakeoff, Versus, Way
from fraud_platform.learning.delay_rows import DelayRows, Past
from fraud_platform.policy import Policy
from fraud_platform.rules import RuleSet
from fraud_platform.schema import ACTIONS, MILLISECONDS_PER_DAY
from fraud_platform.train import TrainParams, columns_of

SEED = 20_181
PER = 1_000
"""Transactions that costs are told for."""
RANKING_RESAMPLES = 300
WINDOWS_DAYS = (7, 14, 21, 30, 45, 60)
PARAMS = TrainParams(rounds_max=200, early_stopping_rounds=30, learning_rate=0.1)
"""The platform's own but for larger and fewer steps: dozens of boosters are fitted."""
THRESHOLD = 0.5


@dataclass
class _Said:
    """What one contender said of the assessed rows of a role, fold by fold."""

    score: list[np.ndarray] = field(default_factory=list)
    probability: list[np.ndarray] = field(default_factory=list)
    teaching_rows: list[int] = field(default_factory=list)
    teaching_frauds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Assessed:
    """The assessed rows of a role, each array (n,): place among the rows, number of the fold."""

    place: np.ndarray
    fold: np.ndarray


def delay_folds(first_ms: int, end_ms: int, plan: DelayPlan) -> tuple[Fold, ...]:
    """As-ofs, each where the days after the last one end, as late as there are days to judge."""
    return prequential(
        first_ms,
        end_ms,
        plan.windows_days[-1] * MILLISECONDS_PER_DAY,
        validation_folds=plan.as_ofs,
        test_folds=plan.as_ofs,
        assessed_days=plan.assessed_days,
        held_out_days=plan.held_out_days,
    )


def run_delay_bakeoff(
    rows: DelayRows,
    contract: FeatureContract,
    policy: Policy,
    rules: RuleSet,
    plan: DelayPlan,
    report: Callable[[str], None] = lambda message: None,
) -> DelayBakeoff:
    """Fit every contender at every as-of, and judge it by the truth of the days after.

    TrainingError where the world is too short or too small.
    """
    started = time.perf_counter()
    folds = delay_folds(int(rows.event_time[0]), int(rows.event_time[-1]) + 1, plan)
    said: dict[Role, dict[str, _Said]] = {"validation": {}, "test": {}}
    for number, fold in enumerate(folds, 1):
        assessed = rows.between(fold.split.test.start_ms, fold.split.test.end_ms)
        for one in Learner(rows, Past.at(rows, fold), plan, contract).contenders():
            score = one.score(rows.matrix[assessed], plan.params.threads)
            kept = said[fold.role].setdefault(one.name, _Said())
            kept.score.append(score)
            kept.probability.append(one.calibrator(score))
            kept.teaching_rows.append(one.teaching_rows)
            kept.teaching_frauds.append(one.teaching_frauds)
            report(f"as-of {number} of {len(folds)}: {one.name}")
    reference = wait(plan.maturity_days)
    parts = {role: _assessed(rows, folds, role) for role in said}
    judged = {role: _judge(rows, parts[role], said[role], policy, reference) for role in said}
    window, correction, best = _choose(judged["validation"], plan)
    later = parts["test"]
    costs = {name: _costs(rows, later, one, policy) for name, one in said["test"].items()}
    return DelayBakeoff(
        reference=reference,
        folds=folds,
        rows={role: len(part.place) for role, part in parts.items()},
        frauds={role: int(rows.is_fraud[part.place].sum()) for role, part in parts.items()},
        contenders=judged,
        best_window=window,
        best_correction=correction,
        best=best,
        versus=_versus(rows, later, costs, _pairs(window, correction, reference)),
        ways=_ways(rows, later, said["test"], policy, rules, contract, reference),
        seconds=time.perf_counter() - started,
    )


def _assessed(rows: DelayRows, folds: Sequence[Fold], role: Role) -> _Assessed:
    parts = [rows.between(f.split.test.start_ms, f.split.test.end_ms) for f in folds if f.role == role]
    places = [np.arange(part.start, part.stop) for part in parts]
    numbers = [np.full(len(place), number) for number, place in enumerate(places)]
    return _Assessed(np.concatenate(places), np.concatenate(numbers))


def _judge(
    rows: DelayRows, part: _Assessed, said: Mapping[str, _Said], policy: Policy, reference: str
) -> tuple[Contender, ...]:
    cards, fraud = rows.card_id[part.place], rows.is_fraud[part.place]
    costs = {name: _costs(rows, part, one, policy) for name, one in said.items()}
    cost = paired_bootstrap(costs, cards, SEED)
    saved = paired_bootstrap({n: costs[reference] - one for n, one in costs.items()}, cards, SEED)
    ranked = mean_average_precisions(
        {name: np.concatenate(one.score) for name, one in said.items()},
        reference,
        fraud,
        part.fold,
        cards,
        SEED,
        RANKING_RESAMPLES,
    )
    return tuple(
        Contender(
            name=name,
            teaching_rows=round(float(np.mean(one.teaching_rows))),
            teaching_frauds=round(float(np.mean(one.teaching_frauds))),
            average_precision=ranked[name][0],
            average_precision_gain=ranked[name][1],
            theft_average_precision=_theft_average_precision(rows, part, one),
            expected_frauds=float(np.concatenate(one.probability).sum()),
            cost=cost[name],
            saved=saved[name],
        )
        for name, one in said.items()
    )


def _theft_average_precision(rows: DelayRows, part: _Assessed, said: _Said) -> float:
    """Mean over the folds, friendly frauds left out: they look like their cardholder's other payments."""
    found = []
    for number, score in enumerate(said.score):
        place = part.place[part.fold == number]
        theft = ~rows.is_friendly[place]
        found.append(average_precision_score(rows.is_fraud[place][theft], score[theft]))
    return float(np.mean(found))


def _costs(rows: DelayRows, part: _Assessed, said: _Said, policy: Policy) -> np.ndarray:
    """What the contender's choices under the policy cost, each row's part of the cost per PER: (n,)."""
    amount = rows.amount[part.place]
    return _realized(rows, part, policy, policy.actions(np.concatenate(said.probability), amount))


def _realized(rows: DelayRows, part: _Assessed, policy: Policy, actions: np.ndarray) -> np.ndarray:
    place = part.place
    return policy.realized_costs(actions, rows.is_fraud[place], rows.amount[place]) * (PER / len(place))


def _choose(earlier: tuple[Contender, ...], plan: DelayPlan) -> tuple[str, str, str]:
    """The window, the correction, and what is best of all that can be had, each of least cost."""
    cost = {one.name: one.cost.estimate for one in earlier if one.name != ORACLE}
    windows = [wait(days) for days in plan.windows_days]
    return tuple(min(names, key=cost.__getitem__) for names in (windows, CORRECTED, cost))  # type: ignore[return-value]


def _pairs(window: str, correction: str, reference: str) -> tuple[tuple[str, str], ...]:
    """Who is compared with whom, each pair once."""
    pairs = (
        (correction, window),
        (correction, reference),
        (SHIPPED, reference),
        (window, reference),
        (reference, NAIVE),
        (window, NAIVE),
        (correction, NAIVE),
        (correction, UNWEIGHTED),
        (ORACLE, correction),
    )
    return tuple(dict.fromkeys((one, other) for one, other in pairs if one != other))


def _versus(
    rows: DelayRows,
    part: _Assessed,
    costs: Mapping[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
) -> tuple[Versus, ...]:
    differences = {f"{one}|{other}": costs[other] - costs[one] for one, other in pairs}
    saved = paired_bootstrap(differences, rows.card_id[part.place], SEED)
    return tuple(
        Versus(one, other, interval) for (one, other), interval in zip(pairs, saved.values(), strict=True)
    )


def _ways(
    rows: DelayRows,
    part: _Assessed,
    said: Mapping[str, _Said],
    policy: Policy,
    rules: RuleSet,
    contract: FeatureContract,
    reference: str,
) -> tuple[Way, ...]:
    """Ways to decide the later rows, beside the model that `train` would have made."""
    place, n = part.place, len(part.place)
    frame = rows.frame.iloc[place]
    answers = live_answers(rules, columns_of(frame, contract), frame)
    shipped, waited, naive = (np.concatenate(said[name].probability) for name in (SHIPPED, reference, NAIVE))
    priced = policy.actions(shipped, rows.amount[place])
    model = f"policy on {SHIPPED}"
    actions = {
        "approve all": np.zeros(n, dtype=np.int8),
        "rules alone": answers[ACTIONS.index("approve")],
        f"decline from {THRESHOLD} on naive": _above(naive),
        f"decline from {THRESHOLD} on {SHIPPED}": _above(shipped),
        f"policy on {NAIVE}": policy.actions(naive, rows.amount[place]),
        f"policy on {reference}": policy.actions(waited, rows.amount[place]),
        model: priced,
        f"{model}, with the rules": np.choose(priced, answers),
    }
    costs = {name: _realized(rows, part, policy, chosen) for name, chosen in actions.items()}
    cards = rows.card_id[place]
    cost = paired_bootstrap(costs, cards, SEED)
    saved = paired_bootstrap({name: one - costs[model] for name, one in costs.items()}, cards, SEED)
    fraud = rows.is_fraud[place]
    return tuple(
        Way(
            name=name,
            cost=cost[name],
            model_saves=saved[name],
            missed=float((chosen[fraud] == 0).mean()),
            stopped_good=float((chosen[~fraud] > 0).mean()),
        )
        for name, chosen in actions.items()
    )


def _above(probability: np.ndarray) -> np.ndarray:
    return np.where(probability >= THRESHOLD, ACTIONS.index("decline"), ACTIONS.index("approve")).astype(
        np.int8
    )
