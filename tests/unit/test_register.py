"""register: every way through the gate, and the reasons it gives."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fraud_platform.errors import GateError
from fraud_platform.evaluate import Cost, Curves, Evaluation, Interval, Quality, Segment, Uncompared
from fraud_platform.evaluate.metrics import calibration_bins, calibration_error
from fraud_platform.register import PromotionRules, checked_approval, evidence_of, gate
from fraud_platform.train import Part

CHAMPION = "c" * 64
GOOD = Interval(1_000.0, 400.0, 1_600.0)
UNSURE = Interval(1_000.0, -10.0, 2_000.0)


def segment(value: str = "web", frauds: int = 40, difference: Interval | None = GOOD) -> Segment:
    return Segment("channel", value, 1_000, frauds, 0.01, 50.0, 10.0, "champion", difference)


def make_evaluation(champion: str | None = CHAMPION, **savings: Interval) -> Evaluation:
    baselines = ("logistic", "rules", "approve_all")
    others = ("champion", *baselines) if champion else baselines
    return Evaluation(
        fingerprint="f" * 64,
        champion_fingerprint=champion,
        test=Part(0, 86_400_000),
        rows=10_000,
        frauds=50,
        cards=400,
        qualities={"candidate": Quality(0.7, 0.9, ((0.9, 0.4),), 0.3, 0.004, 0.001)},
        costs={name: Cost(100.0, 1, 2, 3, 0) for name in ("candidate", *others)},
        savings=dict.fromkeys(others, GOOD) | savings,
        segments=(segment(),) if champion else (),
        curves=Curves({}, (), ()),
        method="",
    )


def failed(promotion) -> list[str]:
    return [check.name for check in promotion.checks if not check.is_passed]


def test_a_challenger_that_saves_for_certain_may_replace_the_champion():
    promotion = gate(make_evaluation(), CHAMPION)
    assert promotion.is_allowed
    assert "saves 1,000 (95% interval 400 to 1,600) against champion" in promotion.reasons[-2]
    assert promotion.reasons[-1].startswith("none of 1 segments with 30 frauds or more is worse")


def test_a_first_model_needs_no_champion():
    promotion = gate(make_evaluation(champion=None), None)
    assert promotion.is_allowed
    assert [check.name for check in promotion.checks] == [
        "enough_frauds",
        "calibrated",
        "saves_against_approve_all",
        "saves_against_rules",
        "saves_against_logistic",
    ]


@pytest.mark.parametrize("other", ["approve_all", "rules", "logistic"])
def test_a_first_model_must_beat_every_baseline(other):
    promotion = gate(make_evaluation(champion=None, **{other: UNSURE}), None)
    assert not promotion.is_allowed
    assert failed(promotion) == [f"saves_against_{other}"]
    assert len(promotion.reasons) == 1
    assert "-10 to 2,000" in promotion.reasons[0]


def test_a_challenger_that_is_better_only_on_average_may_not():
    evaluation = make_evaluation()
    unsure = replace(evaluation, savings=evaluation.savings | {"champion": UNSURE})
    assert failed(gate(unsure, CHAMPION)) == ["saves_against_champion"]


def test_equal_is_not_better():
    zero = Interval(0.0, 0.0, 0.0)
    assert not gate(make_evaluation(rules=zero), CHAMPION).is_allowed


def test_the_evidence_must_be_against_the_champion_of_today():
    promotion = gate(make_evaluation(), "d" * 64)
    assert "judged against cccccccccccc; the champion is dddddddddddd: evaluate again" in promotion.reasons
    promotion = gate(make_evaluation(champion=None), CHAMPION)
    assert "judged against no champion" in promotion.reasons[0]


GONE = Uncompared(CHAMPION, ("card_age_seconds",))


def test_a_champion_whose_features_are_gone_is_not_passed_over():
    """It cannot be compared: the candidate is judged by all else, and is not allowed on that alone."""
    promotion = gate(replace(make_evaluation(champion=None), uncompared=GONE), CHAMPION)
    assert not promotion.is_allowed
    assert promotion.is_uncompared
    assert promotion.reasons == (
        "champion cccccccccccc reads 'card_age_seconds', which the contract no longer has, or has of another "
        "meaning: it cannot be compared; `approve --without-comparison WHY` may ship the candidate all the "
        "same",
    )


def test_only_a_missing_comparison_can_be_excused():
    evaluation = replace(make_evaluation(champion=None, rules=UNSURE), uncompared=GONE)
    assert not gate(evaluation, CHAMPION).is_uncompared
    assert failed(gate(evaluation, CHAMPION)) == ["saves_against_rules", "comparable_with_champion"]
    assert not gate(make_evaluation(champion=None), CHAMPION).is_uncompared
    assert not gate(make_evaluation(), CHAMPION).is_uncompared
    other = gate(replace(make_evaluation(champion=None), uncompared=GONE), "d" * 64)
    assert not other.is_uncompared
    assert "judged against no champion; the champion is dddddddddddd: evaluate again" in other.reasons


def test_what_could_not_be_compared_is_part_of_the_evidence():
    judged = replace(make_evaluation(champion=None), uncompared=GONE)
    assert Evaluation.from_dict(json.loads(json.dumps(judged.to_dict()))) == judged
    assert str(GONE) in judged.explain()
    many = Uncompared(CHAMPION, tuple("abcdefg"))
    assert "reads 'a', 'b', 'c', 'd', 'e' and 2 more, which" in str(many)


def test_the_champion_does_not_replace_itself():
    evaluation = replace(make_evaluation(), fingerprint=CHAMPION)
    assert gate(evaluation, CHAMPION).reasons == (f"candidate {CHAMPION[:12]} is the champion already",)


WORSE = Interval(-500.0, -900.0, -1.0)


@pytest.mark.parametrize(
    ("one", "is_allowed"),
    [
        (segment("pos", 30, WORSE), False),
        (segment("pos", 29, WORSE), True),
        (segment("pos", 30, Interval(-500.0, -900.0, 0.0)), True),
        (segment("pos", 30, None), True),
        (replace(segment("pos", 30, WORSE), against="rules"), True),
    ],
    ids=["for certain", "few frauds", "unsure", "not measured", "not the champion"],
)
def test_no_segment_with_enough_frauds_may_be_worse_for_certain(one, is_allowed):
    evaluation = replace(make_evaluation(), segments=(segment(), one))
    promotion = gate(evaluation, CHAMPION)
    assert failed(promotion) == ([] if is_allowed else ["no_worse_segment"])
    if not is_allowed:
        assert "channel pos saves -500 (95% interval -900 to -1)" in promotion.reasons[0]


def test_segments_that_were_never_compared_are_no_evidence():
    evaluation = replace(make_evaluation(), segments=())
    assert failed(gate(evaluation, CHAMPION)) == ["no_worse_segment"]


def test_little_evidence_is_not_enough():
    evaluation = replace(make_evaluation(), frauds=29)
    assert failed(gate(evaluation, CHAMPION)) == ["enough_frauds"]
    assert gate(evaluation, CHAMPION, PromotionRules(frauds_min=29)).is_allowed


RNG = np.random.default_rng(4)
HONEST = RNG.beta(0.05, 12.0, 60_000)
"""Of fraud, as rare as in payments: a few rows are likely, nearly all are not."""
IS_FRAUD = RNG.random(60_000) < HONEST


@pytest.mark.parametrize(
    ("probability", "is_believed"),
    [
        (HONEST, True),
        (HONEST * 0.6, True),
        (HONEST * 0.0, False),
        (HONEST / 100.0, False),
        (np.minimum(HONEST * 6.0, 1.0), False),
        (RNG.permutation(HONEST), False),
        (np.sort(HONEST)[::-1][np.argsort(np.argsort(HONEST))], False),
        (np.full(60_000, 0.02), False),
    ],
    ids=["honest", "low", "never", "far too low", "far too high", "shuffled", "reversed", "constant"],
)
def test_a_dishonest_probability_may_not_price_actions(probability, is_believed):
    error = calibration_error(calibration_bins(probability, IS_FRAUD))
    quality = replace(make_evaluation().quality, calibration_error=error)
    frauds = int(IS_FRAUD.sum())
    evaluation = replace(
        make_evaluation(), qualities={"candidate": quality}, rows=len(IS_FRAUD), frauds=frauds
    )
    assert failed(gate(evaluation, CHAMPION)) == ([] if is_believed else ["calibrated"])


@pytest.mark.parametrize(
    ("by", "reason"), [("", "why"), (" ", "why"), ("Ada", ""), ("Ada", "a\nb"), ("A" * 501, "w")]
)
def test_an_approval_names_a_person_and_a_reason(by, reason):
    with pytest.raises(GateError, match="approval of version 3"):
        checked_approval("3", "f" * 64, by, reason, 0, None)


def test_an_approval_is_one_line():
    line = checked_approval("3", "f" * 64, " Ada ", "Better", 1_700_000_000_000, "2").to_json_line()
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line)["by"] == "Ada"


def test_evidence_is_the_same_for_the_same_verdict():
    evaluation = make_evaluation()
    content, digest = evidence_of(evaluation, gate(evaluation, CHAMPION))
    assert json.loads(content)["promotion"]["is_allowed"] is True
    assert evidence_of(evaluation, gate(evaluation, CHAMPION))[1] == digest
    assert evidence_of(evaluation, gate(evaluation, None))[1] != digest
