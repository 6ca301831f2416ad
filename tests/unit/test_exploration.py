"""Which declines are explored, and with which propensity; what a day has room for is in test_venture.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform import package
from fraud_platform.exploration import Venture, exact
from fraud_platform.features.contract import load_contract
from fraud_platform.package import BundleParts
from fraud_platform.policy import Exploration
from fraud_platform.schema import ACTIONS, Transaction
from fraud_platform.serve import Judge, Judgement
from fraud_platform.serve.exploration import Taken, is_open, lot, taken, taken_again
from fraud_platform.serve.judge import Vector
from fraud_platform.serve.record import DecisionRecord
from fraud_platform.serve.replay import PARTS, differing_parts
from tests.records import decision

CONTRACT = load_contract()
PLAN = Exploration(share=0.25, seed=3, loss_per_day=1e9, amount_max=1e6)
DECLINED = Judgement(
    raw_score=0.9,
    probability=0.95,
    expected_costs=(475.0, 60.0, 5.0),
    action="decline",
    decided_by="policy",
    reasons=(),
    rules=(),
    shadow_rules=("watched",),
    tier="model",
    price="missed_fraud",
)
Ask = Callable[..., Transaction]


@pytest.fixture
def ask(transaction_request: Callable[..., dict[str, Any]]) -> Ask:
    return lambda **fields: msgspec.convert(transaction_request(**fields), type=Transaction)


def always(asked: Venture) -> float:
    return asked.share


def never(_: Venture) -> float:
    return 0.0


def unasked(asked: Venture) -> float:
    raise AssertionError(f"asked for {asked}")


def test_explored_declines_are_approved_with_their_propensity_and_the_others_keep_the_rest(ask: Ask) -> None:
    ids = [f"t{number}" for number in range(4_000)]
    done = [taken(PLAN, ask(transaction_id=one), DECLINED, always) for one in ids]
    explored = [one for one in done if one.explored is True]
    assert 0.22 < len(explored) / len(done) < 0.28
    assert set(explored) == {Taken("approve", (), 0.25, True)}
    assert {one for one in done if one.explored is not True} == {Taken("decline", (), 0.75)}
    assert [taken(PLAN, ask(transaction_id=one), DECLINED, always) for one in ids] == done
    others = [taken(replace(PLAN, seed=4), ask(transaction_id=one), DECLINED, always) for one in ids]
    both = sum(a.explored is True and b.explored is True for a, b in zip(done, others, strict=True))
    assert 0.04 < both / len(done) < 0.085, "another seed draws on its own"


def test_what_the_lot_says_is_the_same_everywhere() -> None:
    """Pinned: a log of today must replay tomorrow."""
    assert lot(0, "t1") == 0.9407136255974621
    assert lot(7, "\u00e9") == 0.9157593978406234


def test_lots_are_evenly_spread() -> None:
    lots = np.array([lot(0, f"t{number}") for number in range(20_000)])
    assert np.abs(np.sort(lots) - (np.arange(20_000) + 0.5) / 20_000).max() < 0.0115  # Kolmogorov, 1 %


@pytest.mark.parametrize(
    "change",
    [
        {"tier": "rules", "decided_by": "fallback"},
        {"tier": "request", "decided_by": "fallback"},
        {"tier": "fixed", "decided_by": "fallback"},
        {"decided_by": "rule", "rules": ("card_testing",)},
        {"rules": ("far_away",)},
        {"closed_actions": ("step_up",), "price": "capacity"},
        {"action": "step_up"},
        {"action": "approve"},
    ],
    ids=str,
)
def test_nothing_else_is_explored(ask: Ask, change: dict[str, Any]) -> None:
    """Rules (also one that only asked for a step-up), lower rungs, capacity, and what is not declined."""
    judged = replace(DECLINED, **change)
    assert not is_open(judged)
    assert taken(replace(PLAN, share=0.999), ask(), judged, unasked) == Taken(judged.action, ())


def test_off_too_large_and_no_room_are_certain_declines(ask: Ask) -> None:
    asked = ask(amount_minor=10_000)
    assert taken(Exploration(), asked, DECLINED, unasked) == Taken("decline", ())
    assert taken(replace(PLAN, amount_max=99.99), asked, DECLINED, unasked).propensity == 1.0
    assert taken(replace(PLAN, amount_max=100.0), asked, DECLINED, always).propensity < 1.0
    assert taken(PLAN, asked, DECLINED, never) == Taken("decline", ())


def test_the_venture_is_what_an_approval_is_expected_to_cost_and_is_asked_of_every_decline(ask: Ask) -> None:
    asked: list[Venture] = []
    for number in range(200):
        taken(PLAN, ask(transaction_id=f"t{number}"), DECLINED, lambda one: asked.append(one) or 0.1)
    assert {(one.loss, one.loss_per_day, one.share) for one in asked} == {(475.0, 1e9, 0.25)}
    assert [one.lot for one in asked] == [lot(PLAN.seed, f"t{number}") for number in range(200)]


def recorded(done: Taken, asked: Transaction, judged: Judgement) -> DecisionRecord:
    kept = {name: getattr(judged, name) for name in ("expected_costs", "price", "tier", "decided_by")}
    record = msgspec.structs.replace(decision(1), transaction_id=asked.transaction_id, request=asked, **kept)
    return msgspec.structs.replace(record, **done._asdict())


@given(chance=st.floats(0.0, 0.25), number=st.integers(0, 10**6))
def test_what_was_taken_is_taken_again(chance: float, number: int) -> None:
    """Whatever chance there was, it comes out of the propensity to the bit; the draw is made anew."""
    asked = decision(number).request
    done = taken(PLAN, asked, DECLINED, lambda _: exact(chance))
    record = recorded(done, asked, DECLINED)
    stored = msgspec.json.decode(msgspec.json.encode(record), type=DecisionRecord)
    assert taken_again(PLAN, stored, DECLINED) == done


def test_no_record_can_claim_a_larger_chance_than_the_plan_s_share(ask: Ask) -> None:
    above = next(f"t{n}" for n in range(100) if 0.3 < lot(PLAN.seed, f"t{n}") < 0.5)
    forged = recorded(Taken("approve", (), 0.6, True), ask(transaction_id=above), DECLINED)
    assert taken_again(PLAN, forged, DECLINED) == Taken("decline", (), 0.75)


def test_a_record_that_claims_another_draw_differs(ask: Ask) -> None:
    """The field is compared, so that nobody can pass off a decline as explored."""
    drawn = next(f"t{n}" for n in range(100) if lot(PLAN.seed, f"t{n}") < PLAN.share)
    asked = ask(transaction_id=drawn)
    record = recorded(taken(PLAN, asked, DECLINED, always), asked, DECLINED)
    assert record.is_explored
    forged = msgspec.structs.replace(record, action="decline", propensity=0.75, explored=msgspec.UNSET)
    assert taken_again(PLAN, forged, DECLINED).explored is True
    assert differing_parts(record, forged) == ("action",)
    assert {"propensity", "explored"} <= set(PARTS["action"])


def test_only_an_explored_record_has_the_field(ask: Ask) -> None:
    """Every other record has the bytes that it had before there was any exploration."""
    done = Taken("decline", ())
    assert b"explored" not in msgspec.json.encode(recorded(done, ask(), DECLINED))
    said = msgspec.json.encode(recorded(Taken("approve", (), 0.25, True), ask(), DECLINED))
    assert said.endswith(b'"explored":true}')
    assert msgspec.json.decode(said, type=DecisionRecord).is_explored


@pytest.fixture(scope="module")
def judge(tiny_parts: BundleParts) -> Iterator[Judge]:
    judge = Judge(package.build(tiny_parts))
    yield judge
    judge.close()


def test_a_real_decline_of_the_model_is_open_and_one_with_a_rule_is_not(
    judge: Judge, ask: Ask, tiny_columns: dict[str, np.ndarray]
) -> None:
    listed = [tiny_columns[name].tolist() for name in CONTRACT.names]
    rows: list[Vector] = [
        tuple(None if v != v else v for v in row) for row in list(zip(*listed, strict=True))[:300]
    ]
    judged = [judge.judge(ask(amount_minor=500_000), row) for row in rows]
    opened = [one for one in judged if is_open(one)]
    assert opened
    assert {(one.action, one.tier, one.rules) for one in opened} == {("decline", "model", ())}
    assert all(one.rules or one.action != "decline" for one in judged if not is_open(one))
    assert opened[0].expected_costs[ACTIONS.index("approve")] == opened[0].probability * 5_050.0
