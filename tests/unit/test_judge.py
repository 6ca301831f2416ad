"""The rungs of the ladder, capacity and faults; what a bundle decides in general is in test_serve.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pytest

from fraud_platform import package
from fraud_platform.errors import BundleError
from fraud_platform.features.contract import load_contract
from fraud_platform.package import Bundle, BundleParts
from fraud_platform.policy import load_policy_text
from fraud_platform.schema import ACTIONS, Action, Transaction
from fraud_platform.serve import Judge, Judgement
from fraud_platform.serve.capacity import Wish
from fraud_platform.serve.judge import Vector

CONTRACT = load_contract()
Build = Callable[..., dict[str, Any]]
Ask = Callable[..., Transaction]
TESTING = {"card_txn_count_1h": 25.0, "card_merchant_distinct_24h": 25.0}
LIMITED = load_policy_text().replace("step_ups_per_hour: null", "step_ups_per_hour: 5")


def vector(**values: float | str | None) -> Vector:
    return tuple(values.get(name) for name in CONTRACT.names)


@pytest.fixture(scope="module")
def bundle(tiny_parts: BundleParts) -> Bundle:
    return package.build(replace(tiny_parts, policy_text=LIMITED))


@pytest.fixture(scope="module")
def judge(bundle: Bundle) -> Iterator[Judge]:
    judge = Judge(bundle)
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def rows(tiny_columns: dict[str, np.ndarray]) -> list[Vector]:
    listed = [tiny_columns[name].tolist() for name in CONTRACT.names]
    return [tuple(None if v != v else v for v in row) for row in zip(*listed, strict=True)][:300]


@pytest.fixture
def ask(transaction_request: Build) -> Ask:
    return lambda **fields: msgspec.convert(transaction_request(**fields), type=Transaction)


def first_of(
    judge: Judge, asked: Transaction, rows: list[Vector], action: Action
) -> tuple[Vector, Judgement]:
    """A row that gets the action by the policy alone."""
    for row in rows:
        judged = judge.judge(asked, row)
        if (judged.action, judged.decided_by, judged.rules) == (action, "policy", ()):
            return row, judged
    raise AssertionError(f"no row gets {action}")


def codes(judged: Judgement) -> list[str]:
    return [reason.code for reason in judged.reasons]


def test_each_rung_says_what_it_is(judge: Judge, ask: Ask, rows: list[Vector]) -> None:
    asked, row = ask(amount_minor=500_000), first_of(judge, ask(amount_minor=500_000), rows, "decline")[0]
    best, ruled = judge.judge(asked, row), judge.judge(asked, row, can_score=False)
    bare, fixed = judge.judge(asked, None), judge.fixed_answer()
    assert [judged.tier for judged in (best, ruled, bare, fixed)] == ["model", "rules", "request", "fixed"]
    assert [judged.decided_by for judged in (ruled, bare, fixed)] == ["fallback"] * 3
    assert [codes(judged)[0] for judged in (ruled, bare, fixed)] == ["F01", "F02", "F03"]
    unscored = judge.bundle.policy.decide_unscored(5_000.0)
    assert (ruled.action, ruled.expected_costs, ruled.price) == (
        unscored.action,
        unscored.expected_costs,
        unscored.price,
    )
    assert best.faults == ruled.faults == bare.faults == fixed.faults == ()


def test_rules_decide_on_the_rungs_below_the_model(judge: Judge, ask: Ask) -> None:
    judged = judge.judge(ask(amount_minor=100), vector(**TESTING), can_score=False)
    assert (judged.action, judged.decided_by, judged.rules) == ("decline", "rule", ("card_testing",))
    assert (codes(judged), judged.price) == (["R01"], "")


def test_the_request_alone_tells_what_needs_no_past(judge: Judge, ask: Ask) -> None:
    """The row features have the values that the engine gives them; what needs a past is unknown."""
    asked = ask(amount_minor=12_300, card_country="DE", merchant_country="FR", latitude=1.0, longitude=2.0)
    known = dict(zip(CONTRACT.names, judge._request_vector(asked), strict=True))
    assert known["amount_minor"] == 12_300.0
    assert known["is_international"] == 1.0
    assert known["channel"] == "web"
    for feature in CONTRACT.features:
        if feature.entity is not None or feature.kind in ("ratio", "zscore"):
            assert known[feature.name] is None, feature.name
    assert sum(value is not None for value in known.values()) >= 8


def test_the_fixed_answer_is_the_configured_one(tiny_parts: BundleParts) -> None:
    for action in ACTIONS:
        text = load_policy_text().replace("fixed_action: step_up", f"fixed_action: {action}")
        fixed = Judge(package.build(replace(tiny_parts, policy_text=text)), has_model=False).fixed_answer()
        assert (fixed.action, codes(fixed)) == (action, [] if action == "approve" else ["F03"])
        assert (fixed.expected_costs, fixed.price) == ((), "")


def raising(*_: object) -> float:
    raise BundleError("LightGBM could not predict")


@pytest.mark.parametrize(
    ("score", "fault"),
    [
        (lambda row: float("nan"), "model_invalid"),
        (lambda row: float("inf"), "model_invalid"),
        (lambda row: float("-inf"), "model_invalid"),
        (raising, "model_failed"),
        (lambda row: 1 // 0, "model_failed"),
    ],
)
def test_a_model_in_trouble_is_a_fault_and_never_an_error(
    judge: Judge, ask: Ask, rows: list[Vector], monkeypatch: pytest.MonkeyPatch, score: Any, fault: str
) -> None:
    asked = ask(amount_minor=500_000)
    without = judge.judge(asked, rows[0], can_score=False)
    with monkeypatch.context() as broken:
        broken.setattr(judge._booster, "score", score)
        assert judge.judge(asked, rows[0]) == replace(without, faults=(fault,))
    assert judge.judge(asked, rows[0]).tier == "model"


def test_a_calibrator_that_gives_no_probability_is_a_fault(
    bundle: Bundle, ask: Ask, rows: list[Vector]
) -> None:
    judge = Judge(replace(bundle, calibrator=lambda score: np.float64("nan")))  # type: ignore[arg-type]
    assert judge.judge(ask(), rows[0]).faults == ("model_invalid",)
    judge.close()


def test_a_score_that_cannot_be_explained_still_has_its_price(
    judge: Judge, ask: Ask, rows: list[Vector], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(amount_minor=50_000)
    row, judged = first_of(judge, asked, rows, "step_up")
    monkeypatch.setattr(judge._families, "of", raising)
    again = judge.judge(asked, row)
    assert (again.action, again.probability) == (judged.action, judged.probability)
    assert (codes(again), again.faults) == ([codes(judged)[-1]], ("reasons_failed",))


def test_without_a_model_the_rules_go_on(tiny_parts: BundleParts, ask: Ask) -> None:
    """A bundle whose model text cannot be read: the service starts and answers without it."""
    unreadable = package.build(replace(tiny_parts, model_text="tree\n"))
    with pytest.raises(BundleError, match=r"model\.txt"):
        Judge(unreadable)
    judge = Judge(unreadable, has_model=False)
    judged = judge.judge(ask(amount_minor=100), vector(**TESTING))
    assert (judged.action, judged.tier, judged.faults) == ("decline", "rules", ("model_missing",))
    judge.close()


def test_capacity_is_asked_for_only_where_it_would_be_used(
    judge: Judge, ask: Ask, rows: list[Vector], tiny_parts: BundleParts
) -> None:
    asked, wishes = ask(amount_minor=50_000), []

    def granting(wish: Wish) -> tuple[Action, ...]:
        wishes.append(wish)
        return ()

    judged = [judge.judge(asked, row, closed=granting) for row in rows[:150]]
    assert len(wishes) == sum(one.action == "step_up" for one in judged) > 0
    assert judged == [judge.judge(asked, row) for row in rows[:150]]
    unlimited = Judge(package.build(tiny_parts))
    unlimited.judge(asked, first_of(judge, asked, rows, "step_up")[0], closed=raising)
    unlimited.close()


def test_a_closed_step_up_gives_way_and_the_record_can_be_judged_again(
    judge: Judge, ask: Ask, rows: list[Vector]
) -> None:
    asked = ask(amount_minor=50_000)
    row, opened = first_of(judge, asked, rows, "step_up")
    wishes = []
    closed = judge.judge(asked, row, closed=lambda wish: wishes.append(wish) or ("step_up",))
    rest = sorted(cost for place, cost in enumerate(opened.expected_costs) if place != 1)
    assert wishes[0].saving == rest[0] - opened.expected_costs[1]
    assert wishes[0].reviews == judge.bundle.policy.expected_reviews(opened.probability)
    assert closed.action == ACTIONS[closed.expected_costs.index(rest[0])]
    assert (closed.closed_actions, closed.price) == (("step_up",), "capacity")
    assert (opened.closed_actions, opened.probability) == ((), closed.probability)
    assert judge.judge(asked, row, closed=closed.closed_actions) == closed
    if closed.action == "decline":
        assert codes(closed)[-1] == "P05"


def test_a_step_up_that_a_rule_demands_is_counted_whatever_the_capacity(judge: Judge, ask: Ask) -> None:
    wishes: list[Wish] = []
    away = vector(card_distance_km=900.0, card_speed_kmh=5_000.0)

    def full(wish: Wish) -> tuple[Action, ...]:
        wishes.append(wish)
        return () if wish.is_due else ("step_up",)

    judged = judge.judge(ask(amount_minor=100), away, closed=full, can_score=False)
    assert (judged.action, judged.closed_actions, judged.decided_by) == ("step_up", (), "rule")
    assert [wish.is_due for wish in wishes] == [True]


def test_lower_rungs_may_be_asked_while_the_model_is_busy(judge: Judge, ask: Ask, rows: list[Vector]) -> None:
    """What another thread answers meanwhile changes nothing, nor is it changed."""
    asked = ask(amount_minor=50_000)
    alone = [judge.judge(asked, row) for row in rows[:100]]
    bare, beside = judge.judge(asked, None), []
    thread = Thread(target=lambda: beside.extend(judge.judge(asked, None) for _ in range(200)))
    thread.start()
    together = [judge.judge(asked, row) for row in rows[:100]]
    thread.join()
    assert together == alone
    assert beside == [bare] * 200
