from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SettingsError
from fraud_platform.policy import PRICES, Exploration, Fallback, Policy, load_policy, load_policy_text
from fraud_platform.schema import ACTIONS
from fraud_platform.settings import Settings

POLICY = load_policy()
FALLBACK = Fallback(0.02, "step_up")


def test_expected_costs_are_the_prices_of_the_policy_file() -> None:
    costs = POLICY.expected_costs(np.array([0.25]), np.array([70.0]))
    assert costs.tolist() == [[0.25 * 120, 1 + 0.75 * 10 + 0.25 * (0.1 * 120 + 0.9 * 12), 75.0]]


@pytest.mark.parametrize(
    ("probability", "amount", "action"),
    [(0.0, 1e6, "approve"), (0.5, 120.0, "step_up"), (1.0, 10.0, "decline"), (0.99, 500.0, "decline")],
)
def test_the_cheapest_action_is_taken(probability: float, amount: float, action: str) -> None:
    assert POLICY.decide(probability, amount).action == action


def test_a_tie_goes_to_the_gentler_action() -> None:
    tied = Policy(0, 100, 50, 0, 0, 0, FALLBACK)
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
    assert costs.tolist() == [130.0, 0.0, 1 + 0.1 * 130 + 0.9 * 12, 11.0, 0.0, 100.0]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e6)), min_size=1, max_size=20))
def test_an_expected_cost_is_the_mean_of_what_fraud_and_truth_would_cost(
    rows: list[tuple[float, float]],
) -> None:
    """Whoever evaluates by the truth and whoever decides by the probability use the same prices."""
    probability, amount = np.array(rows, dtype=np.float64).T
    expected = POLICY.expected_costs(probability, amount)
    for place in range(len(ACTIONS)):
        taken = np.full(len(rows), place, dtype=np.int8)
        fraud = POLICY.realized_costs(taken, np.ones(len(rows), bool), amount)
        good = POLICY.realized_costs(taken, np.zeros(len(rows), bool), amount)
        mean = probability * fraud + (1.0 - probability) * good
        np.testing.assert_allclose(expected[:, place], mean, rtol=1e-12, atol=1e-9)


def test_the_safer_a_step_up_the_cheaper_it_is() -> None:
    costs = [replace(POLICY, step_up_bypass=share).decide(0.3, 400.0).expected_costs for share in (0, 0.2, 1)]
    step_up = [cost[1] for cost in costs]
    assert step_up == sorted(step_up)
    assert step_up[0] < step_up[-1]
    assert step_up[-1] > costs[-1][0], "a step-up that stops nobody is dearer than an approval"


def test_a_closed_action_gives_way_to_the_next_cheapest() -> None:
    opened, closed = POLICY.decide(0.3, 400.0), POLICY.decide(0.3, 400.0, closed=("step_up",))
    assert (opened.action, closed.action) == ("step_up", "decline")
    assert (closed.expected_costs, closed.price) == (opened.expected_costs, "capacity")
    assert opened.saving == opened.expected_costs[2] - opened.expected_costs[1]
    unchanged = POLICY.decide(1.0, 10.0, closed=("step_up",))
    assert (unchanged.action, unchanged.price) == ("decline", POLICY.decide(1.0, 10.0).price)
    with pytest.raises(ValueError, match="leave one"):
        POLICY.decide(0.3, 400.0, closed=ACTIONS)


@pytest.mark.parametrize(
    ("probability", "amount", "action", "price"),
    [
        (0.01, 20.0, "approve", "blocked_customer"),  # a step-up would turn good customers away
        (0.0, 20.0, "approve", "blocked_customer"),
        (0.1, 500.0, "step_up", "missed_fraud"),  # an approval would lose the amount
        (0.5, 120.0, "step_up", "blocked_customer"),  # a decline would turn good customers away
        (0.99, 500.0, "decline", "missed_fraud"),  # too many pass a step-up, at this amount
        (1.0, 10.0, "decline", "review"),  # a step-up would only cause a review
    ],
)
def test_the_price_that_decided(probability: float, amount: float, action: str, price: str) -> None:
    decided = POLICY.decide(probability, amount)
    assert (decided.action, decided.price) == (action, price)


@given(st.floats(0, 1), st.floats(0, 1e6))
def test_no_other_price_speaks_more_for_the_chosen_action(probability: float, amount: float) -> None:
    """The terms add up to the costs, and the named one gives the chosen action its greatest advantage."""
    decided = POLICY.decide(probability, amount)
    loss = amount + POLICY.missed_fraud_fixed
    terms = [POLICY.terms(place, probability, loss) for place in range(len(ACTIONS))]
    for cost, parts in zip(decided.expected_costs, terms, strict=True):
        assert sum(parts) == pytest.approx(cost, rel=1e-12, abs=1e-9)
    chosen = ACTIONS.index(decided.action)
    others = [place for place in range(len(ACTIONS)) if place != chosen]
    rival = min(others, key=lambda place: decided.expected_costs[place])
    spared = {
        price: other - own for price, other, own in zip(PRICES[:4], terms[rival], terms[chosen], strict=True)
    }
    assert spared[decided.price] == max(spared.values())  # type: ignore[index]
    assert spared[decided.price] > 0.0  # type: ignore[index]


def test_where_nothing_was_scored_the_amount_decides() -> None:
    small, large = POLICY.decide_unscored(5.0), POLICY.decide_unscored(5_000.0)
    assert (small.action, large.action) == ("approve", "step_up")
    assert large == POLICY.decide(POLICY.fallback.unscored_probability, 5_000.0)
    assert POLICY.expected_reviews(None) == POLICY.expected_reviews(0.02) == 0.02 * 0.9


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
        (("step_up_bypass: 0.1", "step_up_bypass: 2"), "a share"),
        (("unscored_probability: 0.02", "unscored_probability: .nan"), "unscored_probability=nan"),
        (("fixed_action: step_up", "fixed_action: wait"), "fixed_action='wait'"),
        (("step_ups_per_hour: null", "step_ups_per_hour: 1.5"), r"step_ups_per_hour=1\.5"),
        (("reviews_per_hour: null", "reviews_per_hour: true"), "reviews_per_hour=True"),
        (("fallback:", "fallbacks:"), r"\['fallback', 'fallbacks'\]"),
        (("version: 2", "version: 1"), "version 1"),
        (("share: 0 ", "share: 1 "), r"share=1\.0: is a share, from 0 to below 1"),
        (("share: 0 ", "share: -0.1 "), r"share=-0\.1"),
        (("share: 0 ", "part: 0 "), r"exploration \['part', 'share'\]"),
        (("seed: 0 ", "seed: 0.5 "), r"seed=0\.5: must be a whole number"),
        (("amount_max: 1000", "amount_max: null"), "amount_max=None: must be a finite number"),
        (("loss_per_day: 500", "loss_per_day: .inf"), "loss_per_day=inf"),
        (("exploration:", "explorations:"), r"\['explorations'\]"),
    ],
)
def test_a_wrong_policy_file_names_what_is_wrong(change: tuple[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Policy.from_yaml(load_policy_text().replace(*change))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: [2", "line 1, column 12"),
        (load_policy_text().replace("review: 12", "review: 12: 3"), r"line \d+, column \d+"),
        ("version: 2\n\tprices: {}", "line 2, column 1"),
        ("version: \x00", "position 9"),
        ("version: 2026-13-01", "no timestamp can be read, line 1, column 10"),
    ],
)
def test_a_policy_that_is_not_yaml_is_refused_at_its_place(text: str, place: str) -> None:
    with pytest.raises(SettingsError, match=f"the policy file is not YAML: .*{place}.*; correct it at that"):
        Policy.from_yaml(text)


def test_the_file_that_the_platform_reads_is_named_where_it_is_not_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.yaml").write_text("version: [2")
    monkeypatch.setattr("fraud_platform.defs.platform.resources.files", lambda package: tmp_path)
    with pytest.raises(SettingsError, match=r"the policy file is not YAML: .*see policy\.yaml"):
        _ = Platform(Settings(tmp_path)).policy


def test_exploration_is_off_in_the_platform_s_own_policy_and_in_one_that_does_not_name_it() -> None:
    text = load_policy_text()
    older = text[: text.index("# What is declined has no outcome")]
    assert Policy.from_yaml(older).exploration == Exploration()
    assert not Policy.from_yaml(older).exploration.is_on
    assert POLICY.exploration == Exploration(0.0, 0, 500.0, 1000.0)
    assert replace(POLICY, exploration=Exploration()) == Policy.from_yaml(older)
    on = Policy.from_yaml(text.replace("share: 0 ", "share: 0.02 ").replace("seed: 0 ", "seed: 7 "))
    assert on.exploration == Exploration(0.02, 7, 500.0, 1000.0)
    assert on.exploration.is_on


@pytest.mark.parametrize(
    "change", [("loss_per_day: 500", "loss_per_day: 0"), ("amount_max: 1000", "amount_max: 0")]
)
def test_a_share_that_could_never_explore_is_refused(change: tuple[str, str]) -> None:
    """Off, the limits may be what they like; on, a limit of 0 would be a share that does nothing."""
    text = load_policy_text().replace(*change)
    assert not Policy.from_yaml(text).exploration.is_on
    with pytest.raises(
        SettingsError, match=f"share=0.1 with {change[0].split(':')[0]}=0: nothing could ever"
    ):
        Policy.from_yaml(text.replace("share: 0 ", "share: 0.1 "))
