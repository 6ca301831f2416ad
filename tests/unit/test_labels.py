"""labels: maturity, precedence and what may be known at a moment."""

import doctest

import pytest

import fraud_platform.labels
from fraud_platform.errors import LabelError
from fraud_platform.labels import LabelRule, ResolvedLabel
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.schema import LabelEvent

RULE = LabelRule(maturity_days=45, precedence=("chargeback", "manual_review", "cardholder_report"))
EVENT_TIME = 20_000 * DAY


def event(source: str, outcome: str, days_later: float) -> LabelEvent:
    known_at = EVENT_TIME + int(days_later * DAY)
    return LabelEvent(transaction_id="17", source=source, outcome=outcome, known_at=known_at)  # type: ignore[arg-type]


def resolve(*events: LabelEvent, days_later: float) -> ResolvedLabel:
    return RULE.resolve(events, EVENT_TIME, EVENT_TIME + int(days_later * DAY))


@pytest.mark.parametrize(
    ("days_later", "status"), [(0, "immature"), (44.999, "immature"), (45, "legitimate"), (400, "legitimate")]
)
def test_silence_is_legitimate_only_after_the_window(days_later: float, status: str) -> None:
    assert resolve(days_later=days_later) == ResolvedLabel(status)  # type: ignore[arg-type]


def test_a_known_fraud_is_fraud_at_once() -> None:
    report = event("cardholder_report", "fraud", 2)
    assert resolve(report, days_later=3) == ResolvedLabel("fraud", "cardholder_report", report.known_at)


def test_nothing_counts_that_was_not_known_strictly_before_as_of() -> None:
    chargeback = event("chargeback", "fraud", 50)
    assert resolve(chargeback, days_later=50) == ResolvedLabel("legitimate")
    as_of = chargeback.known_at + 1
    assert RULE.resolve([chargeback], EVENT_TIME, as_of).status == "fraud"


def test_a_legitimate_review_inside_the_window_stays_immature() -> None:
    review = event("manual_review", "legitimate", 2)
    assert resolve(review, days_later=44) == ResolvedLabel("immature", "manual_review", review.known_at)
    assert resolve(review, days_later=45) == ResolvedLabel("legitimate", "manual_review", review.known_at)


def test_the_strongest_source_decides_whatever_came_last() -> None:
    events = [event("chargeback", "fraud", 10), event("manual_review", "legitimate", 20)]
    for order in (events, events[::-1]):
        assert resolve(*order, days_later=60).source == "chargeback"
    corrected = [event("cardholder_report", "fraud", 3), event("manual_review", "legitimate", 5)]
    assert resolve(*corrected, days_later=60).status == "legitimate"


def test_the_latest_event_of_a_source_decides() -> None:
    events = [event("chargeback", "fraud", 10), event("chargeback", "legitimate", 30)]
    assert resolve(*events, days_later=60).status == "legitimate"
    assert resolve(*events, days_later=20).status == "fraud"


def test_ties_are_settled_the_same_way_in_any_order() -> None:
    events = [event("chargeback", "legitimate", 10), event("chargeback", "fraud", 10)]
    assert resolve(*events, days_later=60) == resolve(*events[::-1], days_later=60)
    assert resolve(*events, days_later=60).status == "fraud"


def test_an_unlisted_source_is_the_weakest() -> None:
    tip, report = event("tip", "fraud", 9), event("cardholder_report", "legitimate", 3)
    assert resolve(tip, report, days_later=60).source == "cardholder_report"
    assert resolve(tip, days_later=10).status == "fraud"


def test_an_immature_label_is_refused_with_value_rule_and_fix() -> None:
    as_of = 20_513 * DAY  # 2026-03-01
    RULE.require_mature("17", as_of - 45 * DAY, as_of)
    with pytest.raises(LabelError) as caught:
        RULE.require_mature("17", as_of - 12 * DAY, as_of)
    assert str(caught.value) == (
        "label for transaction 17 is 12 days old at 2026-03-01; maturity is 45 days: "
        "leave it out, or take an as_of of 2026-04-03 or later"
    )


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(LabelError, match="maturity_days is -1"):
        LabelRule(maturity_days=-1, precedence=())


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(fraud_platform.labels).failed == 0
