"""What each rule would have done in mature history: hits, money, and what it adds to the model.

Belongs here: the comparison, from rows to a frozen report. Does not belong here: finding rows or a model
(`adapters`, `defs`), the rules' evaluation (`rules`), showing the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fraud_platform.errors import ContractError, TrainingError
from fraud_platform.evaluate.joined import request_columns
from fraud_platform.evaluate.money import RESAMPLES, Interval, amount_major, paired_bootstrap
from fraud_platform.policy import Policy
from fraud_platform.rules import RuleSet, Verdict
from fraud_platform.schema import ACTIONS
from fraud_platform.train import Candidate, Part, columns_of

SEED = 20_181
APPROVE = ACTIONS.index("approve")


@dataclass(frozen=True)
class ModelOverlap:
    """A rule beside the model, on rows that the model has not learned from.

    hits: the rule's; also_acts: of them, those that the model does not approve; missed: those it approves,
    and missed_frauds of these; added: what model and rule save against the model alone (major units).
    """

    hits: int
    also_acts: int
    missed: int
    missed_frauds: int
    added: Interval

    @property
    def overlap(self) -> float | None:
        """Share of the rule's hits that the model acts on as well; None without hits."""
        return self.also_acts / self.hits if self.hits else None


@dataclass(frozen=True)
class RuleResult:
    """One rule on all rows, alone.

    precision: share of frauds among its hits, None without hits; recall: share of all frauds that it hits,
    None where there are none; only: hits on which no other rule fires; saved: against approving all
    (major units).
    """

    name: str
    mode: str
    action: str
    owner: str
    hits: int
    frauds: int
    precision: float | None
    recall: float | None
    only: int
    saved: Interval
    model: ModelOverlap | None


@dataclass(frozen=True)
class Backtest:
    """costs: realized costs in major units of approve_all and rules (the live ones) and, with a model, of
    model and model_and_rules; on the rows that judge the model, or on all where there is none."""

    part: Part
    rows: int
    frauds: int
    model: str | None
    model_rows: int
    costs: Mapping[str, float]
    rules: tuple[RuleResult, ...]

    def explain(self) -> tuple[str, ...]:
        said = f"{self.rows:,} mature rows with {self.frauds:,} frauds, {self.part}"
        if self.model is None:
            beside = "no model beside them"
        elif not self.model_rows:
            beside = (
                f"model {self.model[:12]} has learned from all of these rows: nothing is compared with it"
            )
        else:
            beside = f"model {self.model[:12]} on the {self.model_rows:,} rows it has not learned from"
        costs = ", ".join(f"{name} {cost:,.0f}" for name, cost in self.costs.items())
        return (said, beside, f"realized costs: {costs}")


@dataclass(frozen=True)
class _Rows:
    """Of each row what is compared: (n,), fired (n, rules); model: its action, -1 where it has learned."""

    fired: np.ndarray
    is_fraud: np.ndarray
    amount: np.ndarray
    card_id: np.ndarray
    model: np.ndarray


def backtest(
    frames: Iterable[pd.DataFrame],
    part: Part,
    rules: RuleSet,
    policy: Policy,
    model: Candidate | None = None,
    resamples: int = RESAMPLES,
) -> Backtest:
    """Every rule of the file, off ones too, on all days, by the evaluator that decides.

    frames: mature rows of `part`, as for `evaluate`, with the request's fields as columns where known, in any
    number of pieces. TrainingError when there is no row, ContractError when
    a column lacks that a rule reads.
    """
    trial = rules.trial()
    pieces = [_rows(frame, trial, policy, model) for frame in frames if len(frame)]
    if not pieces:
        raise TrainingError(f"no mature rows in {part}; give a longer window, or more history")
    rows = _Rows(*(np.concatenate(column) for column in zip(*map(_fields, pieces), strict=True)))
    judged = rows.model >= 0
    return Backtest(
        part=part,
        rows=len(rows.is_fraud),
        frauds=int(rows.is_fraud.sum()),
        model=None if model is None else model.fingerprint,
        model_rows=int(judged.sum()),
        costs=_costs(_part_of(rows, judged) if judged.any() else rows, trial, policy),
        rules=tuple(_results(rows, judged, trial, policy, resamples, model is not None)),
    )


def _rows(frame: pd.DataFrame, rules: RuleSet, policy: Policy, model: Candidate | None) -> _Rows:
    n = len(frame)
    columns = {name: frame[name].to_numpy() for name in rules.feature_names if name in frame}
    columns |= request_columns(frame)
    missing = sorted(set(rules.column_names) - columns.keys())
    if missing:
        raise ContractError(f"rules read {missing}, which is not in the table: build it with these features")
    amount = amount_major(frame["amount_minor"].to_numpy(), frame["currency"].to_numpy())
    actions = np.full(n, -1, dtype=np.int8)
    if model is not None:
        unseen = frame["event_time"].to_numpy() >= model.learned_until_ms
        if unseen.any():
            probability = model.probability(columns_of(frame.loc[unseen], model.contract))
            actions[unseen] = policy.actions(probability, amount[unseen])
    return _Rows(
        fired=rules.fired(columns, n),
        is_fraud=frame["is_fraud"].to_numpy(dtype=bool),
        amount=amount,
        card_id=frame["card_id"].to_numpy(dtype=object).astype(str),
        model=actions,
    )


def _fields(rows: _Rows) -> tuple[np.ndarray, ...]:
    return rows.fired, rows.is_fraud, rows.amount, rows.card_id, rows.model


def _part_of(rows: _Rows, chosen: np.ndarray) -> _Rows:
    return _Rows(*(column[chosen] for column in _fields(rows)))


def _costs(rows: _Rows, rules: RuleSet, policy: Policy) -> dict[str, float]:
    answers = rules.answers(rows.fired)
    contenders = {"approve_all": np.full(len(rows.model), APPROVE, dtype=np.int8), "rules": answers[APPROVE]}
    if (rows.model >= 0).all():
        contenders["model"] = rows.model
        contenders["model_and_rules"] = np.choose(rows.model, answers)
    return {
        name: float(policy.realized_costs(actions, rows.is_fraud, rows.amount).sum())
        for name, actions in contenders.items()
    }


def _results(
    rows: _Rows, judged: np.ndarray, rules: RuleSet, policy: Policy, resamples: int, has_model: bool
) -> Iterator[RuleResult]:
    others = rows.fired.sum(axis=1)
    frauds = int(rows.is_fraud.sum())
    saved = _intervals(rows, _saved(rows, rules, policy), resamples)
    unseen = _part_of(rows, judged)
    added = _intervals(unseen, _added(unseen, rules, policy), resamples) if has_model else {}
    for place, rule in enumerate(rules.rules):
        fired = rows.fired[:, place]
        hits, caught = int(fired.sum()), int((fired & rows.is_fraud).sum())
        yield RuleResult(
            name=rule.name,
            mode=rule.mode,
            action=rule.action,
            owner=rule.owner,
            hits=hits,
            frauds=caught,
            precision=caught / hits if hits else None,
            recall=caught / frauds if frauds else None,
            only=int((fired & (others == 1)).sum()),
            saved=saved[rule.name],
            model=_overlap(unseen, place, added[rule.name]) if has_model else None,
        )


def _overlap(rows: _Rows, place: int, added: Interval) -> ModelOverlap:
    fired = rows.fired[:, place]
    missed = fired & (rows.model == APPROVE)
    return ModelOverlap(
        hits=int(fired.sum()),
        also_acts=int((fired & (rows.model > APPROVE)).sum()),
        missed=int(missed.sum()),
        missed_frauds=int((missed & rows.is_fraud).sum()),
        added=added,
    )


def _saved(rows: _Rows, rules: RuleSet, policy: Policy) -> dict[str, np.ndarray]:
    """Of each rule alone, what it saves a row against approving all."""
    return _differences(rows, rules, policy, np.zeros(len(rows.model), dtype=np.int8))


def _added(rows: _Rows, rules: RuleSet, policy: Policy) -> dict[str, np.ndarray]:
    """Of each rule, what it saves a row beside the model."""
    return _differences(rows, rules, policy, rows.model)


def _differences(rows: _Rows, rules: RuleSet, policy: Policy, base: np.ndarray) -> dict[str, np.ndarray]:
    """What each rule saves a row where it joins the actions `base`; an approving rule overrides them."""
    before = policy.realized_costs(base, rows.is_fraud, rows.amount)
    found = {}
    for place, rule in enumerate(rules.rules):
        alone = Verdict(rule.action, rule.action == "approve", ())
        acted = np.array([ACTIONS.index(alone.joined(action)[0]) for action in ACTIONS], dtype=np.int8)
        actions = np.where(rows.fired[:, place], acted[base], base)
        found[rule.name] = before - policy.realized_costs(actions, rows.is_fraud, rows.amount)
    return found


def _intervals(rows: _Rows, differences: dict[str, np.ndarray], resamples: int) -> dict[str, Interval]:
    if not differences:
        return {}
    if not len(rows.card_id):
        return dict.fromkeys(differences, Interval(0.0, 0.0, 0.0))
    return paired_bootstrap(differences, rows.card_id, SEED, resamples)
