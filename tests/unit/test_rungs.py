"""evaluate.rungs: the rungs over columns are those of the service, row by row, and their money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from fraud_platform import package
from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import rungs
from fraud_platform.evaluate.joined import live_answers
from fraud_platform.evaluate.rungs import APPROVE_ALL, rung_actions
from fraud_platform.package import BundleParts, load_reasons_text
from fraud_platform.rules import REQUEST
from fraud_platform.schema import ACTIONS, TRANSACTION_COLUMNS, Transaction
from fraud_platform.serve import Judge
from fraud_platform.train import Part, Split

ROWS = 400
START = 1_790_000_000_000
REQUEST_RULES = """
  - {name: no_device, mode: live, priority: 40, action: decline, code: T1, owner: tests,
     when: "!known.device_id && channel == 'web'"}
  - {name: trusted, mode: live, priority: 30, action: approve, code: T2, owner: tests,
     when: "request.card_id == 'c3'"}
  - {name: usual_amount, mode: live, priority: 50, action: step_up, code: T3, owner: tests,
     when: card_amount_ratio_7d >= 2}
"""


REASONS = load_reasons_text().replace("rules:\n", "rules:\n  T1: No device\n  T2: Trusted\n  T3: Usual\n", 1)


@pytest.fixture(scope="module")
def judge(tiny_parts: BundleParts) -> Iterator[Judge]:
    texts = {"rules_text": tiny_parts.rules_text + REQUEST_RULES, "reasons_text": REASONS}
    judge = Judge(package.build(replace(tiny_parts, **texts)))
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def asked(judge: Judge, tiny_columns: dict[str, np.ndarray]) -> list[Transaction]:
    """Requests that say what their features say: the service makes some of them from the request."""
    fields: list[dict[str, Any]] = [
        {
            "transaction_id": f"t{place}",
            "event_time": START + place * 3_600_000,
            "card_id": f"c{place % 7}",
            "merchant_id": "m",
            "device_id": None if place % 3 else "d",
            "amount_minor": int(tiny_columns["amount_minor"][place]),
            "currency": "EUR",
            "channel": tiny_columns["channel"][place],
        }
        for place in range(ROWS)
    ]
    return [msgspec.convert(one, type=Transaction) for one in fields]


@pytest.fixture(scope="module")
def columns(
    judge: Judge, asked: list[Transaction], tiny_columns: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    contract = judge.bundle.contract
    told = [judge._request_vector(one) for one in asked]
    found = {name: column[:ROWS].copy() for name, column in tiny_columns.items()}
    for place, feature in enumerate(contract.features):
        if feature.entity is None and not feature.inputs:
            found[feature.name] = np.array([row[place] for row in told], dtype=found[feature.name].dtype)
    return found


def requests_of(asked: list[Transaction]) -> dict[str, np.ndarray]:
    names = [column.name for column in TRANSACTION_COLUMNS]
    return {REQUEST + name: np.array([getattr(one, name) for one in asked], dtype=object) for name in names}


@pytest.fixture(scope="module")
def actions(
    judge: Judge, asked: list[Transaction], columns: dict[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    bundle = judge.bundle
    matrix = bundle.encoder.matrix(columns, bundle.contract)
    score = np.array([judge._booster.score(row) for row in matrix])  # type: ignore[union-attr]
    amount = np.array([one.amount_minor / 100 for one in asked])
    return rung_actions(
        columns,
        requests_of(asked),
        bundle.calibrator(score),
        amount,
        bundle.contract,
        bundle.policy,
        bundle.rules,
    )


def test_every_rung_acts_as_the_service_does(
    judge: Judge, asked: list[Transaction], columns: dict[str, np.ndarray], actions: Mapping[str, np.ndarray]
) -> None:
    named = judge.bundle.contract.names
    tiers: dict[str, list[str]] = {"model": [], "rules": [], "request": []}
    for place, one in enumerate(asked):
        vector = tuple(_known(columns[name][place]) for name in named)
        tiers["model"].append(judge.judge(one, vector).action)
        tiers["rules"].append(judge.judge(one, vector, can_score=False).action)
        tiers["request"].append(judge.judge(one, None).action)
    for name, wanted in tiers.items():
        assert [ACTIONS[place] for place in actions[name]] == wanted, name
        assert len(set(wanted)) > 1, name
    assert {ACTIONS[place] for place in actions["fixed"]} == {judge.fixed_answer().action}
    assert set(actions[APPROVE_ALL]) == {0}
    assert list(actions) == [*tiers, "fixed", APPROVE_ALL]
    assert any(a != b for a, b in zip(tiers["rules"], tiers["request"], strict=True))


def test_what_an_evaluation_prices_is_what_the_service_answers(
    judge: Judge, asked: list[Transaction], columns: dict[str, np.ndarray], actions: Mapping[str, np.ndarray]
) -> None:
    """The join that `evaluate` prices, on rows by the judge: rules that decline, approve and step up fire."""
    bundle, frame = judge.bundle, training_set(columns, asked)
    matrix = bundle.encoder.matrix(columns, bundle.contract)
    score = np.array([judge._booster.score(row) for row in matrix])  # type: ignore[union-attr]
    amount = np.array([one.amount_minor / 100 for one in asked])
    policy = bundle.policy.actions(bundle.calibrator(score), amount)
    answers = live_answers(bundle.rules, columns, frame)
    joined = np.choose(policy, answers)
    assert np.array_equal(joined, actions["model"])
    assert set(answers[0]) == {0, 1, 2}
    assert {*joined[joined != policy]} == {0, 1, 2}
    told = np.flatnonzero(joined != policy)[:20]
    for place in (*told, *range(20)):
        vector = tuple(_known(columns[name][place]) for name in bundle.contract.names)
        assert judge.judge(asked[place], vector).action == ACTIONS[joined[place]]


def _known(value: Any) -> Any:
    return None if value is None or value != value else value if isinstance(value, str) else float(value)


class Model:
    """A candidate that knows the frauds."""

    fingerprint = "f" * 64
    split = Split(
        Part(START - 2, START - 1), Part(START - 1, START), Part(START, START + ROWS * 3_600_000), gap_ms=0
    )

    def __init__(self, contract: Any) -> None:
        self.contract = contract

    @staticmethod
    def probability(columns: dict[str, np.ndarray]) -> np.ndarray:
        return np.where(columns["amount_minor"] > 10_000, 0.99, 0.0)


def training_set(columns: dict[str, np.ndarray], asked: list[Transaction]) -> pd.DataFrame:
    told = pd.DataFrame({name.removeprefix(REQUEST): column for name, column in requests_of(asked).items()})
    frame = pd.DataFrame(columns)
    rest = told[[name for name in told.columns if name not in frame.columns]]
    return pd.concat([frame, rest], axis=1).assign(is_fraud=frame["amount_minor"] > 10_000)


def test_costs_are_of_a_thousand_transactions_and_compared_with_the_model(
    judge: Judge, columns: dict[str, np.ndarray], asked: list[Transaction]
) -> None:
    policy, frame = judge.bundle.policy, training_set(columns, asked)
    model: Any = Model(judge.bundle.contract)
    found = rungs(model, frame, policy, judge.bundle.rules, resamples=50)
    by_name = {one.name: one for one in found.rungs}
    fraud = frame["is_fraud"].to_numpy()
    loss = frame.loc[fraud, "amount_minor"].to_numpy() / 100 + policy.missed_fraud_fixed
    approve_all = by_name[APPROVE_ALL]
    assert approve_all.cost.estimate == pytest.approx(loss.sum() / ROWS * 1_000)
    assert (approve_all.shares, approve_all.missed) == ((1.0, 0.0, 0.0), 1.0)
    assert by_name["model"].lost.estimate == 0.0
    for one in found.rungs:
        assert one.lost.estimate == pytest.approx(one.cost.estimate - by_name["model"].cost.estimate)
        assert one.cost.low <= one.cost.estimate <= one.cost.high
        assert sum(one.shares) == pytest.approx(1.0)
    assert (found.rows, found.frauds) == (ROWS, int(fraud.sum()))
    with pytest.raises(TrainingError, match="no fraud in"):
        rungs(model, frame.assign(is_fraud=False), policy, judge.bundle.rules)
