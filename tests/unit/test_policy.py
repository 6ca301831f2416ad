from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.errors import SettingsError
from fraud_platform.policy import Policy, load_policy, load_policy_text
from fraud_platform.schema import ACTIONS

POLICY = load_policy()


def test_expected_costs_are_the_prices_of_the_policy_file() -> None:
    costs = POLICY.expected_costs(np.array([0.25]), np.array([70.0]))
    assert costs.tolist() == [[0.25 * 120, 1 + 0.75 * 10 + 0.25 * 12, 75.0]]


@pytest.mark.parametrize(
    ("probability", "amount", "action"),
    [(0.0, 1e6, "approve"), (0.5, 120.0, "step_up"), (1.0, 10.0, "decline"), (0.99, 500.0, "decline")],
)
def test_the_cheapest_action_is_taken(probability: float, amount: float, action: str) -> None:
    assert POLICY.decide(probability, amount).action == action


def test_a_tie_goes_to_the_gentler_action() -> None:
    tied = Policy(
        missed_fraud_fixed=0, blocked_customer=100, step_up_fixed=50, step_up_abandonment=0, review=0
    )
    assert tied.expected_costs(np.array([0.5]), np.array([100.0])).tolist() == [[50.0, 50.0, 50.0]]
    assert tied.decide(0.5, 100.0).action == "approve"
    assert tied.actions(np.array([0.5]), np.array([100.0])).tolist() == [0]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e10, allow_nan=False)), min_size=1, max_size=50),
)
def test_one_and_many_give_the_same_bits(rows: list[tuple[float, float]]) -> None:
    probability, amount = np.array(rows, dtype=np.float64).T
    single = [POLICY.decide(p, a) for p, a in rows]
    costs = np.array([decision.expected_costs for decision in single])
    assert costs.tobytes() == POLICY.expected_costs(probability, amount).tobytes()
    assert [ACTIONS[i] for i in POLICY.actions(probability, amount)] == [d.action for d in single]


def test_realized_costs_follow_the_truth() -> None:
    actions = np.array([0, 0, 1, 1, 2, 2], dtype=np.int8)
    is_fraud = np.array([True, False] * 3)
    costs = POLICY.realized_costs(actions, is_fraud, np.full(6, 80.0))
    assert costs.tolist() == [130.0, 0.0, 13.0, 11.0, 0.0, 100.0]


@pytest.mark.parametrize("probability", [float("nan"), -0.1, 1.1])
def test_an_impossible_probability_is_never_an_approval(probability: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        POLICY.decide(probability, 10.0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        POLICY.actions(np.array([probability]), np.array([10.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("review: 12", "review: -1"), "review=-1"),
        (("review: 12", "review: true"), "review=True"),
        (("review: 12", "reviews: 12"), r"\['review', 'reviews'\]"),
        (("step_up_abandonment: 0.1", "step_up_abandonment: 10"), "a share"),
        (("version: 1", "version: 2"), "version 2"),
    ],
)
def test_a_wrong_policy_file_names_what_is_wrong(change: tuple[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Policy.from_yaml(load_policy_text().replace(*change))
