"""evaluate.backtest: what a rule is worth, worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fraud_platform.errors import ContractError, TrainingError
from fraud_platform.evaluate import Backtest, backtest
from fraud_platform.policy import load_policy
from fraud_platform.rules import RuleSet, rules_from_yaml
from fraud_platform.train import Part

POLICY = load_policy()
LISTS = """
version: 1
lists:
  trusted: {of: card_id, text: Trusted, owner: team, tokens: [c3]}
"""
RULES = """
version: 2
rules:
  - {name: fast, mode: live, priority: 9, action: decline, code: T1, owner: team,
     when: speed >= 10}
  - {name: large, mode: shadow, priority: 8, action: step_up, code: T2, owner: team,
     when: request.amount >= 100, until: 2000-01-01}
  - {name: odd, mode: off, priority: 7, action: step_up, code: T3, owner: team,
     when: "!known.device_id"}
  - {name: trusted, mode: live, priority: 1, action: approve, code: T4, owner: team,
     when: request.card_id in lists.trusted}
"""
LEARNED_UNTIL = 200


class Model:
    """A model that is sure of a fraud where speed is 20 or more, and has learned from rows before 200 ms."""

    fingerprint = "f" * 64

    class contract:
        names = ("speed",)

    learned_until_ms = LEARNED_UNTIL

    @staticmethod
    def probability(columns: dict[str, np.ndarray]) -> np.ndarray:
        return np.where(columns["speed"] >= 20, 0.99, 0.0)


#   time card amount speed  device fraud
ROWS = [
    (100, "c1", 50.0, 10.0, "d1", True),
    (101, "c1", 150.0, 0.0, "d1", False),
    (200, "c2", 150.0, 20.0, None, True),
    (201, "c2", 80.0, 10.0, "d2", True),
    (202, "c3", 150.0, 20.0, "d3", False),
    (203, "c4", 10.0, 10.0, "d4", False),
    (204, "c4", 60.0, np.nan, "d4", True),
]
FRAME = pd.DataFrame(
    {
        "event_time": [row[0] for row in ROWS],
        "card_id": [row[1] for row in ROWS],
        "amount_minor": [int(row[2] * 100) for row in ROWS],
        "currency": "EUR",
        "speed": [row[3] for row in ROWS],
        "device_id": [row[4] for row in ROWS],
        "is_fraud": [row[5] for row in ROWS],
    }
)
PART = Part(100, 205)


def rules(text: str = RULES) -> RuleSet:
    return rules_from_yaml(text, {"speed": "double", "other": "double"}, LISTS)


@pytest.fixture(scope="module")
def found() -> Backtest:
    pieces = [FRAME[:3], FRAME[3:3], FRAME[3:]]
    return backtest(pieces, PART, rules(), POLICY, Model, resamples=50)  # type: ignore[arg-type]


def test_every_rule_is_asked_whatever_its_mode_and_days(found: Backtest) -> None:
    assert (found.rows, found.frauds, found.model_rows) == (7, 4, 5)
    hits = {one.name: (one.mode, one.hits, one.frauds, one.only) for one in found.rules}
    assert hits == {
        "fast": ("live", 5, 3, 3),
        "large": ("shadow", 3, 1, 1),
        "odd": ("off", 1, 1, 0),
        "trusted": ("live", 1, 0, 0),
    }
    fast = found.rules[0]
    assert (fast.name, fast.precision, fast.recall) == ("fast", 3 / 5, 3 / 4)


def test_a_rule_alone_saves_the_frauds_it_stops_less_the_customers_it_turns_away(found: Backtest) -> None:
    fixed, blocked = POLICY.missed_fraud_fixed, POLICY.blocked_customer
    saved = {one.name: one.saved.estimate for one in found.rules}
    assert saved["fast"] == pytest.approx((50 + 150 + 80) + 3 * fixed - 2 * blocked)
    assert saved["trusted"] == 0.0, "to approve is what it is compared with"


def test_beside_the_model_only_what_it_would_have_approved_counts(found: Backtest) -> None:
    """Of the rows it has not learned from, the model stops c2's first and c3's, and approves the others."""
    fixed, blocked = POLICY.missed_fraud_fixed, POLICY.blocked_customer
    fast, trusted = (next(one for one in found.rules if one.name == name) for name in ("fast", "trusted"))
    assert fast.model is not None
    assert (fast.model.hits, fast.model.also_acts, fast.model.missed, fast.model.missed_frauds) == (
        4,
        2,
        2,
        1,
    )
    assert fast.model.overlap == 1 / 2
    assert fast.model.added.estimate == pytest.approx(80 + fixed - blocked)
    assert trusted.model is not None
    assert trusted.model.added.estimate == pytest.approx(blocked), "it overrides the model's decline"


def test_the_costs_are_those_of_live_rules_and_model_together(found: Backtest) -> None:
    """c3 is trusted, so that neither rule nor model is heard; c4's second row nobody stops."""
    fixed, blocked = POLICY.missed_fraud_fixed, POLICY.blocked_customer
    assert found.costs == pytest.approx(
        {
            "approve_all": 150 + 80 + 60 + 3 * fixed,
            "rules": 60 + fixed + blocked,
            "model": 80 + 60 + 2 * fixed + blocked,
            "model_and_rules": 60 + fixed + blocked,
        }
    )
    assert "5 rows it has not learned from" in " ".join(found.explain())


def test_in_pieces_or_whole_and_without_a_model(found: Backtest) -> None:
    whole = backtest([FRAME], PART, rules(), POLICY, Model, resamples=50)  # type: ignore[arg-type]
    assert whole == found
    alone = backtest([FRAME], PART, rules(), POLICY, resamples=50)
    assert (alone.model, alone.model_rows, set(alone.costs)) == (None, 0, {"approve_all", "rules"})
    assert all(one.model is None for one in alone.rules)


def test_a_model_that_has_learned_from_all_rows_is_compared_with_none() -> None:
    seen = Part(100, 102)
    early = backtest([FRAME[:2]], seen, rules(), POLICY, Model, resamples=50)  # type: ignore[arg-type]
    assert early.model_rows == 0
    assert all(one.model is not None and one.model.overlap is None for one in early.rules)
    assert "nothing is compared" in " ".join(early.explain())


def test_no_rows_and_a_missing_column_are_errors_and_no_zeros() -> None:
    with pytest.raises(TrainingError, match="no mature rows"):
        backtest([FRAME[:0]], PART, rules(), POLICY)
    with pytest.raises(ContractError, match=r"\['other'\]"):
        backtest([FRAME], PART, rules(RULES.replace("speed", "other")), POLICY)
    with pytest.raises(ContractError, match=r"\['request.device_id'\]"):
        backtest([FRAME.drop(columns="device_id")], PART, rules(), POLICY)
