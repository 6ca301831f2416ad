"""Young rows that teach: labels as the rule has them, weights that undo what is not reported yet."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fraud_platform.calibration import Calibrator
from fraud_platform.errors import LabelError
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.labels import LabelRule
from fraud_platform.learning.delayed import (
    SEGMENT_FRAUDS_MIN,
    DelayModel,
    by_expectation,
    by_importance,
)
from fraud_platform.learning.known import KnownLabels
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.schema import LabelEvent
from fraud_platform.train import TrainParams, fit_booster
from fraud_platform.train.young import importance_weights

PRECEDENCE = ("chargeback", "manual_review", "cardholder_report")


def events(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    n = 4 * rows
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in rng.integers(0, rows + 3, n)],
            "source": rng.choice([*PRECEDENCE, "rumour", "hearsay"], n),
            "outcome": rng.choice(["fraud", "legitimate"], n),
            "known_at": rng.integers(0, 12, n),
        }
    )


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_those_of_the_reference_rule(seed: int) -> None:
    """Ties of moment and source included; ids that are no row's are left out."""
    rows = 40
    told = events(np.random.default_rng(seed), rows)
    ids = np.array([f"t{i}" for i in range(rows)], dtype=object)
    known = KnownLabels.of(told, ids, PRECEDENCE)
    rule = LabelRule(0, PRECEDENCE)
    by_id = {
        one: [LabelEvent(**event) for event in told.loc[told["transaction_id"] == one].to_dict("records")]
        for one in ids
    }
    for as_of in (0, 1, 5, 12):
        found = known.is_fraud_at(as_of)
        first = known.first_report(as_of)
        for place, one in enumerate(ids):
            assert found[place] == (rule.resolve(by_id[one], 0, as_of).status == "fraud")
            frauds = [e.known_at for e in by_id[one] if e.outcome == "fraud" and e.known_at < as_of]
            assert first[place] == min(frauds, default=-1)


def test_an_id_that_is_there_twice_is_refused() -> None:
    told = events(np.random.default_rng(1), 2)
    with pytest.raises(LabelError, match="1 transaction ids are there twice"):
        KnownLabels.of(told, np.array(["t0", "t0"], dtype=object), PRECEDENCE)


def young(n: int = 400_000, seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Truth, what is reported of it, the share known at each row's age, and the probability of fraud."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 4.0, n)
    share = rng.uniform(0.25, 1.0, n)
    is_fraud = rng.random(n) < p
    return is_fraud, is_fraud & (rng.random(n) < share), share, p


def test_weighted_frauds_are_as_many_as_there_are_in_truth() -> None:
    """By importance and by expectation, overall and among the likeliest; what is reported falls short."""
    is_fraud, reported, share, p = young()
    importance = by_importance(reported, share, p)
    assert len(importance.row) == len(p)
    expected = by_expectation(reported, share, p)
    for inside, near in ((np.ones(len(p), dtype=bool), 0.02), (p > 0.5, 0.05)):
        truth = is_fraud[inside].sum()
        assert reported[inside].sum() < 0.7 * truth
        for taught in (importance, expected):
            chosen = inside[taught.row]
            frauds = taught.weight[chosen & taught.is_fraud].sum()
            good = taught.weight[chosen & ~taught.is_fraud].sum()
            assert frauds == pytest.approx(truth, rel=near)
            assert good == pytest.approx((~is_fraud[inside]).sum(), rel=near)


def test_old_rows_weigh_what_they_are() -> None:
    fraud, ones = np.array([True, False, False]), np.ones(3)
    assert importance_weights(fraud, ones, np.array([0.2, 0.3, 1.0])) == pytest.approx([1, 1, 1])
    assert importance_weights(fraud, np.array([0.5, 0.0, 0.5]), np.array([0.2, 0.3, 1.0])) == pytest.approx(
        [2.0, 0.7, 0.0]
    )


def test_rows_too_young_are_left_out_by_importance_and_doubted_by_expectation() -> None:
    reported = np.array([True, False, False, True])
    share, p = np.array([0.1, 0.1, 1.0, 1.0]), np.array([0.5, 0.5, 0.5, 0.5])
    assert by_importance(reported, share, p).row.tolist() == [2, 3]
    taught = by_expectation(reported, share, p)
    assert taught.row.tolist() == [0, 3, 1, 1, 2]
    assert taught.is_fraud.tolist() == [True, True, True, False, False]
    hidden = 0.5 * 0.9 / (1 - 0.05)
    assert taught.weight == pytest.approx([1, 1, hidden, 1 - hidden, 1])


def test_impossible_values_are_refused() -> None:
    one = np.array([True])
    with pytest.raises(LabelError, match="at an age at which none is known"):
        importance_weights(one, np.array([0.0]), np.array([0.5]))
    with pytest.raises(LabelError, match=r"share known 1\.5: must be from 0 to 1"):
        importance_weights(one, np.array([1.5]), np.array([0.5]))
    with pytest.raises(LabelError, match="probability nan"):
        by_expectation(one, np.array([0.5]), np.array([np.nan]))
    with pytest.raises(LabelError, match="one for each"):
        by_importance(one, np.array([0.5, 0.5]), np.array([0.5]))


def test_a_large_segment_has_a_delay_of_its_own() -> None:
    rng = np.random.default_rng(7)
    n = 3_000
    segment = rng.choice(["web", "pos", "rare"], n, p=[0.6, 0.37, 0.03])
    delay = np.where(segment == "web", 20.0, 2.0) * rng.gamma(2.0, 0.5, n)
    elapsed = rng.uniform(0, 120, n)
    seen = delay <= elapsed
    delay_ms, elapsed_ms = (np.ceil(part[seen] * DAY).astype(np.int64) for part in (delay, elapsed))
    model = DelayModel.fit(delay_ms, elapsed_ms, segment[seen])
    assert set(model.segments) == {"web", "pos"}
    assert (segment[seen] == "rare").sum() < SEGMENT_FRAUDS_MIN
    ages = np.full(3, 10 * DAY)
    web, pos, rare = model.known(ages, np.array(["web", "pos", "rare"]))
    assert web < rare < pos
    assert rare == model.known(ages)[0]
    assert pos > 0.99, "a long history in which all are soon known is no short one"


def test_a_segment_of_short_history_is_not_taken_for_known() -> None:
    """Two channels of one delay, one only 12 days old; fails where its silence counts as legitimate."""
    rng = np.random.default_rng(1)
    segment = np.repeat(["old", "new"], [4_000, 4_000])
    elapsed = np.where(segment == "old", rng.uniform(0, 180, 8_000), rng.uniform(0, 12, 8_000))
    delay = rng.gamma(2.0, 12.0, 8_000)
    seen = delay <= elapsed
    delay_ms, elapsed_ms = (np.ceil(part[seen] * DAY).astype(np.int64) for part in (delay, elapsed))
    model = DelayModel.fit(delay_ms, elapsed_ms, segment[seen])
    horizon = model.segments["new"].horizon_ms
    assert 11 * DAY < horizon < 12 * DAY
    ages = np.append(np.arange(1, 180) * DAY, [horizon - 1, horizon, horizon + 1])
    ages.sort()
    old, new = (model.known(ages, np.full(len(ages), name)) for name in ("old", "new"))
    assert new == pytest.approx(old, abs=0.03)
    assert np.all(np.diff(new) >= 0)
    beyond = ages >= horizon
    assert np.array_equal(new[beyond], model.known(ages[beyond]))


def test_a_segment_as_old_as_all_keeps_its_curve() -> None:
    rng = np.random.default_rng(2)
    segment = np.repeat(["web", "pos"], 1_000)
    delay_ms = (np.where(segment == "web", 30.0, 3.0) * rng.random(2_000) * DAY).astype(np.int64)
    model = DelayModel.fit(delay_ms, np.full(2_000, 60 * DAY), segment)
    ages = np.arange(0, 70) * DAY
    for name in ("web", "pos"):
        assert np.array_equal(model.known(ages, np.full(70, name)), model.segments[name].known(ages))


CONTRACT = FeatureContract({}, (Feature(name="x", kind="field", description="X"),))


def test_row_weights_reach_the_booster_and_none_changes_nothing() -> None:
    rng = np.random.default_rng(9)
    matrix = rng.normal(size=(2_000, 1))
    is_fraud = rng.random(2_000) < 0.3
    params = TrainParams(rounds_max=10, early_stopping_rounds=0, threads=1, legit_share=0.5)
    plain, ones, doubled = (
        fit_booster(matrix, is_fraud, CONTRACT, params, weight=weight).predict(matrix, num_threads=1)
        for weight in (None, np.ones(2_000), np.where(is_fraud, 3.0, 1.0))
    )
    assert np.allclose(plain, ones)
    assert doubled.mean() > plain.mean() + 0.05
    kept = TrainParams(rounds_max=10, early_stopping_rounds=0, threads=1, legit_share=0.5, is_prior_kept=True)
    by_class = fit_booster(matrix, is_fraud, CONTRACT, kept)
    by_hand = fit_booster(matrix, is_fraud, CONTRACT, params, weight=np.where(is_fraud, 1.0, 2.0))
    assert np.array_equal(by_class.predict(matrix, num_threads=1), by_hand.predict(matrix, num_threads=1)), (
        "a class's weight is a weight of its rows"
    )
    both = fit_booster(matrix, is_fraud, CONTRACT, kept, weight=np.where(is_fraud, 1.0, 0.5))
    assert np.allclose(both.predict(matrix, num_threads=1), plain)


def test_a_weighted_calibrator_says_what_repeated_rows_would() -> None:
    rng = np.random.default_rng(10)
    score = rng.random(4_000)
    is_fraud = rng.random(4_000) < score * 0.3
    assert Calibrator.fit(score, is_fraud, np.ones(4_000)) == Calibrator.fit(score, is_fraud)
    weighted = Calibrator.fit(score, is_fraud, np.where(is_fraud, 2.0, 1.0))
    repeated = Calibrator.fit(
        np.concatenate([score, score[is_fraud]]), np.concatenate([is_fraud, is_fraud[is_fraud]])
    )
    at = np.linspace(0.1, 0.9, 9)
    assert weighted(at) == pytest.approx(repeated(at), abs=0.03)
    assert np.all(weighted(at) > Calibrator.fit(score, is_fraud)(at))
