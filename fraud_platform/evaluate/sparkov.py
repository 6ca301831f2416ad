"""The benchmark of the Sparkov set: parameters chosen on earlier folds, one later quarter assessed once.

The days to 2020-03-24 choose, teach, stop and calibrate; 2020-04-01 to 2020-06-30 judge. The set says no
moment at which a fraud became known: its mapping assumes seven days, which is the gap.

Belongs here: the split, the choice, the attributes that may not be an input, and groups to report on.
Does not belong here: features (dbt), reading the set (`adapters`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from fraud_platform.errors import MappingError, SourceError
from fraud_platform.evaluate.evaluation import Evaluation
from fraud_platform.evaluate.folds import Fold, prequential
from fraud_platform.evaluate.joined import live_answers
from fraud_platform.evaluate.money import amount_major
from fraud_platform.evaluate.run import evaluate
from fraud_platform.features.contract import FeatureContract
from fraud_platform.ingest import Mapping as DatasetMapping
from fraud_platform.policy import Policy
from fraud_platform.rules import RuleSet
from fraud_platform.schema import ACTIONS, ID_COLUMNS, MILLISECONDS_PER_DAY
from fraud_platform.train import Candidate, Part, Split, TrainParams, columns_of, train

Report = Callable[[str], None]

FIRST_DAY, KNOWN_UNTIL = "2019-01-01", "2020-03-25"
TEST_FIRST, TEST_END = "2020-04-01", "2020-07-01"
"""Days (UTC); an end is the first day that is no longer in."""
HELD_OUT_DAYS = 28
FOLDS, FOLD_DAYS = 2, 28
CHECK_COUNTS = (1_290_056, 9_539)
"""Rows and frauds of the set."""
PROTECTED = ("gender", "dob", "age", "profile", "job", "first", "last")
"""Of the customer: gender, age, what tells them, and the name. They may be no input."""
IDENTITIES = (*ID_COLUMNS, "home_latitude", "home_longitude")
"""What names a customer, or where one lives: read by an aggregate or a distance, never by the model."""
AGE_BANDS = (0, 25, 35, 50, 65, 200)
PLAIN = ("plain LightGBM, velocity and distance features", 0.9475)
CHOICES = {
    "the platform's defaults": TrainParams(),
    "three in ten of the legitimate rows": TrainParams(legit_share=0.3),
}


@dataclass(frozen=True)
class Choice:
    """Average precision of parameters on each validation fold, in order of time."""

    name: str
    params: TrainParams
    average_precisions: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.average_precisions))


@dataclass(frozen=True)
class Group:
    """How the chosen model treats a group of customers. average_precision is NaN without a fraud.

    stopped_good: the share of legitimate transactions that policy and live rules decline or step up;
    approved_frauds: the share of frauds that they approve.
    """

    dimension: str
    value: str
    rows: int
    frauds: int
    average_precision: float
    stopped_good: float
    approved_frauds: float


@dataclass(frozen=True)
class SparkovResult:
    """The choice on validation folds, and what the chosen parameters do on the test quarter."""

    choices: tuple[Choice, ...]
    folds: tuple[Fold, ...]
    candidate: Candidate
    evaluation: Evaluation
    groups: tuple[Group, ...]
    excluded: Mapping[str, str]

    @property
    def chosen(self) -> Choice:
        return best(self.choices)


def run_sparkov(
    frame: pd.DataFrame,
    contract: FeatureContract,
    mapping: DatasetMapping,
    policy: Policy,
    rules: RuleSet,
    people: pd.DataFrame | None = None,
    report: Report = lambda message: None,
    choices: Mapping[str, TrainParams] = CHOICES,
    expected_counts: Sequence[int] = CHECK_COUNTS,
) -> SparkovResult:
    """Choose on the folds before KNOWN_UNTIL, fit on all of them, assess the quarter.

    frame: every transaction with transaction_id, event_time (ms), card_id, currency, is_fraud and the
    contract's features. people: card_id, gender and age (years), for reports only. SourceError when its rows
    are not those of the set; MappingError when a protected attribute is an input.
    """
    refuse_protected(mapping, contract)
    check_set(frame, expected_counts)
    folds = validation_folds(mapping.maturity_days)
    tried = []
    for name, params in choices.items():
        scores = tuple(_average_precision(frame, contract, fold.split, params) for fold in folds)
        tried.append(Choice(name, params, scores))
        report(f"{name}: AP {tried[-1].mean:.4f} on {len(folds)} validation folds")
    split = final_split(mapping.maturity_days)
    candidate = train(frame, contract, split, best(tried).params, report)
    return SparkovResult(
        choices=tuple(tried),
        folds=folds,
        candidate=candidate,
        evaluation=evaluate(candidate, frame, policy, rules, report=report),
        groups=() if people is None else tuple(_groups(candidate, frame, people, policy, rules)),
        excluded=mapping.excluded,
    )


def best(choices: Sequence[Choice]) -> Choice:
    """The highest mean; the earlier one of equals."""
    return max(choices, key=lambda choice: choice.mean)


def validation_folds(gap_days: int) -> tuple[Fold, ...]:
    """Folds that end before KNOWN_UNTIL: nothing of the gap or of the test quarter chooses."""
    return prequential(
        _midnight(FIRST_DAY),
        _midnight(KNOWN_UNTIL),
        gap_days * MILLISECONDS_PER_DAY,
        validation_folds=FOLDS,
        test_folds=0,
        assessed_days=FOLD_DAYS,
        held_out_days=HELD_OUT_DAYS,
    )


def final_split(gap_days: int) -> Split:
    """All days before KNOWN_UNTIL teach, the last of them stop and calibrate; the quarter judges.

    TrainingError when the labels of the mapping take longer than the gap between the two.
    """
    known_until = _midnight(KNOWN_UNTIL)
    held_out = known_until - HELD_OUT_DAYS * MILLISECONDS_PER_DAY
    return Split(
        Part(_midnight(FIRST_DAY), held_out),
        Part(held_out, known_until),
        Part(_midnight(TEST_FIRST), _midnight(TEST_END)),
        gap_days * MILLISECONDS_PER_DAY,
    )


def refuse_protected(mapping: DatasetMapping, contract: FeatureContract) -> None:
    """MappingError when a protected attribute, a name or an identity could reach the model.

    The mapping must exclude each of PROTECTED and use none of them; no feature may hand over an identity.
    """
    missing = [name for name in PROTECTED if name not in mapping.excluded]
    if missing:
        raise MappingError(f"mapping {mapping.name}: {missing} must be among its excluded columns; add them")
    used = {**mapping.transactions.columns, **{one.column.name: one.expression for one in mapping.extras}}
    for column, expression in used.items():
        words = set(re.findall(r"\w+", re.sub(r"'(?:[^']|'')*'", "''", expression.lower())))
        if found := sorted(words & set(PROTECTED)):
            raise MappingError(f"mapping {mapping.name}: {column} reads {found}; leave them out")
    for feature in contract.features:
        if feature.kind in ("field", "category") and (found := sorted(set(feature.of) & set(IDENTITIES))):
            raise MappingError(f"feature {feature.name} hands {found} to the model; count them instead")


def check_set(frame: pd.DataFrame, expected: Sequence[int]) -> None:
    """SourceError when the rows and frauds are not those of the set."""
    found = (len(frame), int(frame["is_fraud"].sum()))
    if found != tuple(expected):
        raise SourceError(
            f"the set has (rows, frauds) {found}; sparkov's has {tuple(expected)}: give the complete set"
        )


def _average_precision(
    frame: pd.DataFrame, contract: FeatureContract, split: Split, params: TrainParams
) -> float:
    rows = frame.loc[split.test.mask(frame["event_time"].to_numpy())]
    score = train(frame, contract, split, params).score(columns_of(rows, contract))
    return float(average_precision_score(rows["is_fraud"].to_numpy(dtype=bool), score))


def _groups(
    candidate: Candidate, frame: pd.DataFrame, people: pd.DataFrame, policy: Policy, rules: RuleSet
) -> Iterator[Group]:
    rows = frame.loc[candidate.split.test.mask(frame["event_time"].to_numpy())]
    known = people.set_index("card_id").reindex(rows["card_id"])
    ages = np.searchsorted(AGE_BANDS, known["age"].fillna(-1).to_numpy(), side="right") - 1
    labels = [f"{low} to {high - 1}" for low, high in pairwise(AGE_BANDS)]
    labels[-1] = f"{AGE_BANDS[-2]} and above"
    columns = columns_of(rows, candidate.contract)
    score = candidate.score(columns)
    answers = live_answers(rules, columns, rows)
    amount = amount_major(rows["amount_minor"].to_numpy(), rows["currency"].to_numpy())
    actions = np.choose(policy.actions(candidate.calibrator(score), amount), answers)
    is_approved = actions == ACTIONS.index("approve")
    is_fraud = rows["is_fraud"].to_numpy(dtype=bool)
    dimensions = {
        "gender": known["gender"].fillna("unknown").to_numpy().astype(str),
        "age": np.array([*labels, "unknown"])[ages],
    }
    for dimension, values in dimensions.items():
        for value in sorted(set(values.tolist())):
            inside = values == value
            fraud, approved = is_fraud[inside], is_approved[inside]
            yield Group(
                dimension=dimension,
                value=value,
                rows=len(fraud),
                frauds=int(fraud.sum()),
                average_precision=float(average_precision_score(fraud, score[inside]))
                if fraud.any()
                else float("nan"),
                stopped_good=float((~approved[~fraud]).mean()),
                approved_frauds=float(approved[fraud].mean()) if fraud.any() else float("nan"),
            )


def _midnight(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
