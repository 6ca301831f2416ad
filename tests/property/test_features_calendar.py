"""features: the calendar of engine and SQL is Python's in UTC, on the days on which calendars go wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.rows import compile_rows
from fraud_platform.schema import Transaction
from tests.compiled_sql import CompiledSql
from tests.oracle import DAY, HOUR, Oracle, Vector, require_equal
from tests.stores import Stores, every_store
from tests.worlds import BESIDE, CONTRACT, transaction

BERLIN = ZoneInfo("Europe/Berlin")
FIRST_SECOND = datetime(1970, 1, 1, tzinfo=UTC)
CALENDAR = ("hour_of_day", "day_of_week", "is_weekend", "is_night")
FILL_CALENDAR = compile_rows(
    FeatureContract({}, tuple(feature for feature in CONTRACT.features if feature.name in CALENDAR))
)
DAYS = {
    "summer time begins": datetime(2026, 3, 29, tzinfo=UTC),
    "summer time ends": datetime(2026, 10, 25, tzinfo=UTC),
    "leap day": datetime(2028, 2, 29, tzinfo=UTC),
    "no leap day": datetime(2100, 2, 28, tzinfo=UTC),
    "year ends": datetime(2026, 12, 31, tzinfo=UTC),
    "week 53": datetime(2027, 1, 1, tzinfo=UTC),
    "the first day": datetime(1970, 1, 1, tzinfo=UTC),
    "31 bits of seconds end": datetime(2038, 1, 19, tzinfo=UTC),
    "32 bits of seconds end": datetime(2106, 2, 7, tzinfo=UTC),
}
every_day = pytest.mark.parametrize("day", DAYS.values(), ids=DAYS)


def milliseconds(moment: datetime) -> int:
    return (moment - FIRST_SECOND) // timedelta(milliseconds=1)


def wanted(event_time: int) -> dict[str, float]:
    """The standard library's word for it."""
    moment = FIRST_SECOND + timedelta(milliseconds=event_time)
    return {
        "hour_of_day": float(moment.hour),
        "day_of_week": float(moment.weekday()),
        "is_weekend": float(moment.isoweekday() in (6, 7)),
        "is_night": float(0 <= moment.hour < 6),
    }


def of_calendar(vector: Vector) -> dict[str, object]:
    return {name: vector[CONTRACT.index(name)] for name in CALENDAR}


def around(day: datetime) -> list[Transaction]:
    """From the day before to the day after: each hour and a millisecond beside it, on one card."""
    start = milliseconds(day) - DAY
    moments = {start + hour * HOUR + beside for hour in range(73) for beside in BESIDE}
    return [transaction(str(moment), moment) for moment in sorted(moments) if moment >= 0]


@every_store
@every_day
def test_a_store_knows_no_calendar_but_utc(kind: str, stores: Stores, day: datetime) -> None:
    with stores.empty(kind) as address:
        store = address.open(CONTRACT)
        oracle = Oracle(CONTRACT)
        for event in around(day):
            found = store.observe(event).vector
            assert of_calendar(found) == wanted(event.event_time)
            require_equal(CONTRACT, found, oracle.observe(event))
        store.close()


@every_day
def test_the_sql_knows_no_calendar_but_utc(compiled: CompiledSql, day: datetime) -> None:
    events = around(day)
    oracle = Oracle(CONTRACT)
    compiled.fill(events, [])
    vectors = compiled.vectors()
    for event in events:
        assert of_calendar(vectors[event.transaction_id]) == wanted(event.event_time)
        require_equal(CONTRACT, vectors[event.transaction_id], oracle.observe(event))


@pytest.mark.parametrize(
    "day", [DAYS["summer time begins"], DAYS["summer time ends"]], ids=["begins", "ends"]
)
def test_these_days_would_be_seen_by_a_local_clock(day: datetime) -> None:
    """Otherwise they would prove nothing: Berlin's hours jump or repeat, UTC's do not."""
    events = around(day)
    local = [datetime.fromtimestamp(event.event_time / 1000, BERLIN).hour for event in events]
    assert (
        len(
            {(hour - wanted(e.event_time)["hour_of_day"]) % 24 for hour, e in zip(local, events, strict=True)}
        )
        == 2
    )


@given(st.integers(0, 253_402_300_799_999))
def test_any_moment_until_the_year_9999(event_time: int) -> None:
    event = transaction("a", event_time)
    found: list[float | str | None] = [None] * len(CALENDAR)
    FILL_CALENDAR(event, None, found)
    assert dict(zip(CALENDAR, found, strict=True)) == wanted(event_time)
