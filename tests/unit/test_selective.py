"""Estimates from explored declines, on small worlds whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fraud_platform.errors import TrainingError
from fraud_platform.learning.selective import ESTIMATORS, MEASURES, Logged, estimate
from fraud_platform.learning.selective_bakeoff import (
    SelectiveBakeoff,
    World,
    bakeoff,
    explored,
    true_measures,
)
from fraud_platform.policy import Exploration, load_policy
from fraud_platform.schema import ACTIONS, MILLISECONDS_PER_DAY

POLICY = load_policy()
NAN = float("nan")
DAY = MILLISECONDS_PER_DAY
LOSS_FIXED, BLOCKED = 50.0, 100.0
"""The platform's own policy: what a fraud costs beside its amount, and a good customer who is declined."""


def logged(**columns: list[Any]) -> Logged:
    """Four declines, the first two explored at 1 in 4 and 1 in 2; a fraud elsewhere, and a good one."""
    plain = {
        "is_declined": [True, True, True, True, False, False],
        "is_explored": [True, True, False, False, False, False],
        "propensity": [0.25, 0.5, 0.75, 1.0, 1.0, 1.0],
        "outcome": [1.0, 0.0, NAN, NAN, 1.0, 0.0],
        "probability": [0.9, 0.8, 0.7, 0.6, 0.2, 0.1],
        "amount": [150.0, 250.0, 50.0, 50.0, 30.0, 20.0],
        "card_id": ["a", "b", "c", "d", "e", "f"],
    }
    return Logged(**{name: np.array(values) for name, values in (plain | columns).items()})


def test_each_estimate_is_what_its_definition_says() -> None:
    """By hand: weights 4 and 2, of 4 declines 3 might have been explored."""
    found = estimate(logged(), POLICY, seed=1, resamples=50)
    assert (found.declined, found.explored, found.supported) == (4, 2, 0.75)
    values = {
        name: {m: one.value for m, one in measures.items()} for name, measures in found.estimates.items()
    }
    of_fraud, of_good = 150.0 + LOSS_FIXED, -BLOCKED
    expected = [
        p * (amount + LOSS_FIXED) - (1 - p) * BLOCKED
        for p, amount in zip((0.9, 0.8, 0.7, 0.6), (150.0, 250.0, 50.0, 50.0), strict=True)
    ]
    frauds = {
        "as_labelled": 1.0,
        "observed": 1.0,
        "model": 3.0,
        "inverse": 4.0 * 4 / 3,
        "self_normalised": 4.0 * 4 / 6,
        "doubly_robust": 3.0 + 4 * (1.0 - 0.9) + 2 * (0.0 - 0.8),
    }
    saved = {
        "as_labelled": of_fraud + 3 * of_good,
        "observed": of_fraud + of_good,
        "model": sum(expected),
        "inverse": (4 * of_fraud + 2 * of_good) * 4 / 3,
        "self_normalised": (4 * of_fraud + 2 * of_good) * 4 / 6,
        "doubly_robust": sum(expected) + 4 * (of_fraud - expected[0]) + 2 * (of_good - expected[1]),
    }
    assert list(values) == list(ESTIMATORS)
    for name in ESTIMATORS:
        rows = 2 if name == "observed" else 4
        assert values[name]["precision"] == pytest.approx(frauds[name] / rows), name
        assert values[name]["recall"] == pytest.approx(frauds[name] / (frauds[name] + 1.0)), name
        assert values[name]["saved"] == pytest.approx(saved[name]), name


def test_where_nothing_was_explored_only_the_model_and_the_label_rule_say_anything() -> None:
    nothing = logged(is_explored=[False] * 6, propensity=[1.0] * 6, outcome=[NAN] * 4 + [1.0, 0.0])
    found = estimate(nothing, POLICY, seed=1, resamples=50)
    told = {name for name in ESTIMATORS if found.estimates[name]["precision"].value is not None}
    assert told == {"as_labelled", "model"}
    assert found.estimates["as_labelled"]["precision"].value == 0.0
    assert found.supported == 0.0


def test_an_interval_is_not_told_of_a_single_card() -> None:
    """A third of the resamples do not hold the one card that was explored."""
    one = logged(
        is_explored=[True] + [False] * 5,
        propensity=[0.25] + [0.75] * 3 + [1.0] * 2,
        outcome=[1.0, NAN, NAN, NAN, 1.0, 0.0],
    )
    found = estimate(one, POLICY, seed=1, resamples=200).estimates
    assert found["inverse"]["precision"].value is not None
    assert found["inverse"]["precision"].low is None
    assert found["inverse"]["precision"].holds(0.5) is None
    assert found["model"]["precision"].low is not None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"propensity": [0.0, 0.5, 0.75, 1.0, 1.0, 1.0]}, r"row 0 .*propensity=0\.0.*above 0 and at most 1"),
        ({"propensity": [0.25, 1.5, 0.75, 1.0, 1.0, 1.0]}, r"row 1 .*above 0 and at most 1"),
        ({"propensity": [0.25, 0.5, NAN, 1.0, 1.0, 1.0]}, r"row 2 .*above 0 and at most 1"),
        ({"outcome": [1.0, 0.0, 1.0, NAN, 1.0, 0.0]}, r"row 2 .*its outcome cannot be known; give NaN"),
        ({"outcome": [NAN, 0.0, NAN, NAN, 1.0, 0.0]}, r"row 0 .*leave out what is not mature"),
        ({"outcome": [0.5, 0.0, NAN, NAN, 1.0, 0.0]}, r"row 0 .*an outcome is 1 for fraud"),
        ({"is_explored": [True, True, False, False, True, False]}, r"row 4 .*only what the policy declined"),
        ({"probability": [0.9, 0.8, 0.7, 1.6, 0.2, 0.1]}, r"row 3 .*a probability is from 0 to 1"),
        ({"amount": [1.0]}, "columns of shapes"),
        (
            {"is_declined": [False] * 6, "is_explored": [False] * 6, "outcome": [0.0] * 6},
            "6 rows and no decline",
        ),
    ],
)
def test_impossible_rows_are_named(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        logged(**columns)


def world(seed: int = 5, cards: int = 400) -> World:
    """Declines, two thirds of them frauds while the model says nearly all; and frauds that it misses."""
    rng = np.random.default_rng(seed)
    n = 3 * cards
    is_declined = np.arange(n) % 3 > 0
    honest = rng.random(n) < np.where(is_declined, 0.33, 0.9)
    amount = np.where(honest, rng.lognormal(3.5, 0.5, n), rng.lognormal(4.5, 0.5, n))
    return World(
        event_time=20_000 * DAY + np.arange(n) * (30 * DAY // n),
        is_declined=is_declined,
        is_fraud=~honest,
        probability=np.where(is_declined, 0.95, 0.05),
        amount=amount,
        card_id=(rng.integers(0, cards, n)).astype(str),
    )


@pytest.fixture(scope="module")
def found() -> SelectiveBakeoff:
    limits = Exploration(0.0, 0, loss_per_day=400.0, amount_max=80.0)
    return bakeoff(world(), POLICY, limits, shares=(0.0, 0.1), draws=150, times=1, resamples=200)


def test_weighted_estimates_are_right_on_average_and_the_others_are_not(found: SelectiveBakeoff) -> None:
    """What makes it fail: a wrong weight, a wrong value of a decline, an interval of the wrong spread."""
    free = next(arm for arm in found.arms if arm.share == 0.1 and not arm.is_limited)
    for name in ("inverse", "self_normalised", "doubly_robust"):
        for measure in MEASURES:
            one = free.of(name, measure)
            noise = 4.0 * one.deviation / np.sqrt(found.draws)
            assert abs(one.bias) < noise + 0.01 * abs(one.truth), (name, measure, one)
            assert 0.88 <= one.coverage <= 1.0, (name, measure, one)
    for name, measure in (("as_labelled", "precision"), ("as_labelled", "saved"), ("observed", "recall")):
        assert free.of(name, measure).bias < -0.3 * abs(free.of(name, measure).truth), (name, measure)
        assert free.of(name, measure).coverage == 0.0
    assert free.of("model", "precision").bias > 0.2, "this model is too sure of itself"
    assert free.of("model", "precision").coverage == 0.0


def test_declines_that_nobody_may_explore_are_missed_by_the_weights(found: SelectiveBakeoff) -> None:
    """Frauds are larger: of small declines, which alone may be explored, fewer are frauds than of all."""
    limited = next(arm for arm in found.arms if arm.is_limited)
    free = next(arm for arm in found.arms if arm.share == 0.1 and not arm.is_limited)
    assert limited.supported < 0.7 < free.supported == 1.0
    assert limited.cost < free.cost
    assert limited.of("inverse", "precision").bias < -0.05
    assert abs(free.of("inverse", "precision").bias) < 0.02


def test_a_day_s_loss_alone_leaves_the_weights_right() -> None:
    """It lowers the chance of all and takes it from none: estimates spread more, and stay where they are."""
    limits = Exploration(0.0, 0, loss_per_day=600.0, amount_max=1e6)
    tight = bakeoff(world(), POLICY, limits, shares=(0.3,), draws=80, times=1, resamples=50).arms
    free, limited = tight
    assert limited.explored < 0.5 * free.explored
    assert limited.supported > 0.9
    for name in ("self_normalised", "doubly_robust"):
        one = limited.of(name, "precision")
        assert abs(one.bias) < 4.0 * one.deviation / np.sqrt(80) + 0.03, (name, one)


def test_a_draw_of_many_times_the_world_has_room_for_as_large_a_share_of_it() -> None:
    """A limit that stayed as it is while declines grow would be one that nobody has set."""
    limits = Exploration(0.0, 0, loss_per_day=1_000.0, amount_max=1e6)
    once, often = (
        bakeoff(world(), POLICY, limits, shares=(0.3,), draws=48 // times, times=times, resamples=10)
        for times in (1, 6)
    )
    for free, limited in (once.arms, often.arms):
        assert limited.explored < 0.8 * free.explored
    assert often.arms[1].explored / 6 == pytest.approx(once.arms[1].explored, rel=0.15)
    assert often.arms[1].cost == pytest.approx(once.arms[1].cost, rel=0.25)


def test_without_exploration_there_is_nothing_to_weigh_and_nothing_to_pay(found: SelectiveBakeoff) -> None:
    none = found.arms[0]
    assert (none.share, none.explored, none.cost, none.supported) == (0.0, 0.0, 0.0, 0.0)
    assert none.of("inverse", "precision").mean is None
    assert none.of("inverse", "precision").untold == 1.0
    assert none.of("as_labelled", "precision").mean == 0.0


def test_exploring_costs_its_share_of_what_declining_saves(found: SelectiveBakeoff) -> None:
    free = next(arm for arm in found.arms if arm.share == 0.1 and not arm.is_limited)
    saved = found.truth["saved"] * 1_000 / found.transactions
    assert free.cost == pytest.approx(0.1 * saved, rel=0.1)
    assert free.explored == pytest.approx(0.1 * found.declined, rel=0.05)


def test_the_truth_is_that_of_the_world() -> None:
    one = world()
    truth = true_measures(one, POLICY)
    declined = one.is_declined
    assert truth["precision"] == one.is_fraud[declined].mean()
    assert truth["recall"] == (one.is_fraud & declined).sum() / one.is_fraud.sum()
    loss = np.where(one.is_fraud, one.amount + LOSS_FIXED, -BLOCKED)
    assert truth["saved"] == pytest.approx(loss[declined].sum())


def test_limits_hold_in_the_experiment_too() -> None:
    one = world()
    plan = Exploration(0.4, 0, loss_per_day=300.0, amount_max=90.0)
    told = explored(one, POLICY, plan, np.random.default_rng(3))
    loss = POLICY.expected_costs(one.probability, one.amount)[:, ACTIONS.index("approve")]
    lost = np.bincount(one.event_time // DAY - 20_000, weights=np.where(told.is_explored, loss, 0.0))
    assert 0.0 < lost.max() <= plan.loss_per_day
    may = one.is_declined & (one.amount <= plan.amount_max)
    assert not told.is_explored[~may].any()
    assert (told.propensity[~may] == 1.0).all()
    assert (told.propensity[told.is_explored] <= 0.4 + 1e-12).all()
    assert (told.propensity[may & ~told.is_explored] >= 0.6 - 1e-12).all()


def test_a_world_that_declines_only_frauds_is_refused() -> None:
    one = world()
    with pytest.raises(TrainingError, match="both frauds and others must be declined"):
        replace(one, is_declined=one.is_declined & one.is_fraud)
