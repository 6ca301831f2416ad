from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fraud_platform.errors import ContractError
from fraud_platform.labels import LabelRule
from fraud_platform.monitor import (
    Decisions,
    DriftReport,
    DriftThresholds,
    LoggedDecisions,
    Performance,
    declines,
    delayed_performance,
    drift,
    psi,
    retrain_signal,
)
from fraud_platform.package import Reference
from fraud_platform.policy import load_policy
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.schema import LabelEvent

ROWS = 4000
RULE = LabelRule(30, ("chargeback", "cardholder_report"))
NOW = 1000 * DAY


def world(seed: int, shift: float = 0.0, missing: float = 0.1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(seed)
    amount = generator.normal(shift, 1.0, ROWS)
    amount[generator.random(ROWS) < missing] = np.nan
    channel = generator.choice(np.array(["web", "pos", None], dtype=object), ROWS)
    columns = {"amount": amount, "channel": channel, "hour_of_day": np.full(ROWS, 3.0 + shift)}
    return columns, generator.beta(1.0, 20.0, ROWS) * (1.0 + shift)


REFERENCE = Reference.of(*world(1))


def report(seed: int = 2, shift: float = 0.0, missing: float = 0.1) -> DriftReport:
    return drift(REFERENCE, *world(seed, shift, missing))


def test_psi_of_the_same_shares_is_zero_and_known_otherwise() -> None:
    assert psi(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.0
    expected = 0.25 * np.log(0.75 / 0.5) - 0.25 * np.log(0.25 / 0.5)
    assert psi(np.array([0.5, 0.5]), np.array([0.75, 0.25])) == pytest.approx(expected)
    assert np.isfinite(psi(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def test_the_same_world_does_not_drift() -> None:
    same = report()
    assert not same.is_drifted
    assert max(feature.psi for feature in same.features) < 0.02


def test_a_shift_of_score_and_features_is_said_with_its_size() -> None:
    moved = report(shift=1.5)
    assert [feature.name for feature in moved.moved] == ["amount"]
    assert any(reason.startswith("score: stability index") for reason in moved.reasons)
    assert any("1 of 2 features moved" in reason and "amount" in reason for reason in moved.reasons)


def test_a_feature_that_goes_missing_is_said() -> None:
    assert any("amount is missing in 4" in reason for reason in report(missing=0.4).reasons)


def test_the_clock_is_no_drift() -> None:
    assert "hour_of_day" not in {feature.name for feature in report(shift=1.5).features}


def test_few_rows_say_nothing() -> None:
    columns, score = world(2, shift=3.0)
    few = drift(REFERENCE, {name: column[:50] for name, column in columns.items()}, score[:50])
    assert (few.is_enough, few.reasons) == (False, ())
    assert drift(REFERENCE, columns, score, DriftThresholds(rows_min=ROWS)).is_drifted


def test_a_missing_column_is_an_error_and_not_zero_drift() -> None:
    columns, score = world(2)
    del columns["amount"]
    with pytest.raises(ContractError, match="amount"):
        drift(REFERENCE, columns, score)


def decisions(*rows: tuple[str, int, float, str]) -> Decisions:
    """Rows of (id, days before now, probability, action), each over 100.00 EUR."""
    ids, days, probability, actions = zip(*rows, strict=True)
    return Decisions(
        transaction_id=np.array(ids, dtype=object),
        event_time=np.array([NOW - day * DAY for day in days]),
        amount_minor=np.full(len(rows), 10_000),
        currency=np.full(len(rows), "EUR", dtype=object),
        probability=np.array(probability),
        action=np.array(actions, dtype=object),
    )


def fraud(transaction_id: str, days_ago: int = 1) -> LabelEvent:
    known_at = NOW - days_ago * DAY
    return LabelEvent(transaction_id=transaction_id, source="chargeback", outcome="fraud", known_at=known_at)


TAKEN = decisions(
    ("caught", 40, 0.9, "decline"),
    ("missed", 40, 0.1, "approve"),
    ("good", 40, 0.2, "approve"),
    ("bothered", 40, 0.3, "step_up"),
    ("young_fraud", 5, 0.01, "approve"),
    ("young", 5, 0.9, "decline"),
)


def test_only_mature_decisions_are_judged() -> None:
    """A young fraud is known before the young legitimate ones are: counting it would bias every metric."""
    judged = delayed_performance(
        TAKEN, [fraud("caught"), fraud("missed"), fraud("young_fraud")], RULE, NOW, load_policy()
    )
    assert (judged.mature_count, judged.immature_count, judged.fraud_count) == (4, 2, 2)
    assert (judged.recall, judged.good_friction) == (0.5, 0.5)
    assert judged.average_precision == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 4)
    assert judged.cost == pytest.approx(150.0 + 11.0)
    assert judged.saved == pytest.approx(2 * 150.0 - 161.0)


def test_a_label_that_was_not_known_yet_does_not_count() -> None:
    judged = delayed_performance(TAKEN, [fraud("caught", days_ago=-1)], RULE, NOW, load_policy())
    assert judged.fraud_count == 0
    assert (judged.average_precision, judged.recall) == (None, None)


def test_nothing_mature_is_not_a_metric_of_zero() -> None:
    judged = delayed_performance(decisions(("a", 1, 0.5, "approve")), [], RULE, NOW, load_policy())
    assert (judged.mature_count, judged.average_precision, judged.good_friction) == (0, None, None)


def test_equal_scores_have_one_average_precision_whatever_their_order() -> None:
    rows = [(f"t{n}", 40, 0.5, "approve") for n in range(4)]
    forward = delayed_performance(decisions(*rows), [fraud("t0")], RULE, NOW, load_policy())
    backward = delayed_performance(decisions(*rows[::-1]), [fraud("t0")], RULE, NOW, load_policy())
    assert forward.average_precision == backward.average_precision == 0.25


GOOD = Performance(1000, 0, 50, 0.60, 0.8, 0.01, cost=100.0, saved=900.0)


def test_drift_raises_the_signal_after_the_cool_down_only() -> None:
    moved = report(shift=1.5)
    early = retrain_signal(moved, GOOD, last_trained_at=NOW - DAY, now=NOW, cool_down=3 * DAY)
    late = retrain_signal(moved, GOOD, last_trained_at=NOW - 4 * DAY, now=NOW, cool_down=3 * DAY)
    assert (early.is_raised, late.is_raised) == (False, True)
    assert early.reasons[0].startswith("cooling down until 1972")
    assert late.reasons == moved.reasons
    assert early.id != late.id


def test_lost_precision_and_lost_money_raise_the_signal() -> None:
    worse = replace(GOOD, average_precision=0.45, saved=-10.0)
    signal = retrain_signal(report(), worse, 0, NOW, DAY, promised_average_precision=0.60)
    assert signal.is_raised
    assert [reason.split(" ")[0] for reason in signal.reasons] == ["average", "the"]
    assert not retrain_signal(report(), GOOD, 0, NOW, DAY, promised_average_precision=0.60).is_raised


def test_few_frauds_raise_nothing_and_silence_has_its_reason() -> None:
    worse = replace(GOOD, average_precision=0.1, fraud_count=3)
    assert retrain_signal(report(), worse, 0, NOW, DAY, 0.6).reasons == ("nothing moved",)
    assert retrain_signal(None, None, 0, NOW, DAY).reasons == ("nothing moved",)
    few = replace(report(), row_count=10)
    assert retrain_signal(few, None, 0, NOW, DAY).reasons == (
        "10 recent decisions; 500 are needed to see drift",
    )


def logged(*rows: tuple[str, int, float, str, float, bool]) -> LoggedDecisions:
    """As `decisions`, with propensity and whether it was explored; each is another person's."""
    plain = decisions(*[row[:4] for row in rows])
    n = len(rows)
    return LoggedDecisions(
        **vars(plain),
        tier=np.full(n, "model", dtype=object),
        decided_by=np.full(n, "policy", dtype=object),
        price=np.full(n, "missed_fraud", dtype=object),
        propensity=np.array([row[4] for row in rows]),
        is_explored=np.array([row[5] for row in rows]),
        person=np.arange(n),
    )


DECLINED = logged(
    ("explored_fraud", 40, 0.9, "approve", 0.5, True),
    ("explored_good", 40, 0.9, "approve", 0.5, True),
    ("declined", 40, 0.9, "decline", 0.5, False),
    ("certain", 40, 0.9, "decline", 1.0, False),
    ("missed", 40, 0.1, "approve", 1.0, False),
    ("good", 40, 0.1, "step_up", 1.0, False),
    ("young", 5, 0.9, "decline", 0.5, False),
)


def test_mature_declines_are_judged_by_those_that_were_explored() -> None:
    """A label on one that was declined says nothing: it is not among the outcomes."""
    known = [fraud("explored_fraud"), fraud("missed"), fraud("declined"), fraud("young")]
    found = declines(DECLINED, known, RULE, NOW, load_policy())
    assert found is not None
    assert (found.declined, found.explored, found.supported) == (4, 2, 0.75)
    assert found.estimates["self_normalised"]["precision"].value == 0.5
    robust = found.estimates["doubly_robust"]
    assert robust["precision"].value == pytest.approx((4 * 0.9 + 2 * (0.1 - 0.9)) / 4)
    assert robust["recall"].value == pytest.approx(2.0 / 3.0)


@pytest.mark.parametrize(
    ("column", "value"), [("tier", "rules"), ("decided_by", "rule"), ("price", "capacity")], ids=str
)
def test_what_model_and_policy_did_not_decide_alone_is_left_out(column: str, value: str) -> None:
    other = getattr(DECLINED, column).copy()
    other[0] = value
    found = declines(replace(DECLINED, **{column: other}), [], RULE, NOW, load_policy())
    assert found is not None
    assert (found.declined, found.explored) == (3, 1)


def test_without_a_mature_decline_there_is_nothing_to_judge() -> None:
    early = replace(DECLINED, event_time=np.full(7, NOW))
    assert declines(early, [], RULE, NOW, load_policy()) is None
