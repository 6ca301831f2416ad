from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.errors import RequestError
from fraud_platform.ingest.rules import EARLIEST_TIME_MS as INGEST_EARLIEST_TIME_MS
from fraud_platform.serve import parse_label, parse_transaction
from fraud_platform.serve.requests import EARLIEST_TIME_MS, FUTURE_TOLERANCE_MS, canonical

NOW_MS = 1_790_000_000_000
CARD = "4111 1111 1111 1111"
Build = Callable[..., dict[str, Any]]


def refused(request: object) -> RequestError:
    raw = request if isinstance(request, bytes) else msgspec.json.encode(request)
    with pytest.raises(RequestError) as caught:
        parse_transaction(raw, NOW_MS, frozenset({"known"}))
    return caught.value


def test_bytes_and_a_mapping_give_the_same_transaction(transaction_request: Build) -> None:
    request = transaction_request(extras={"known": 1.5})
    from_bytes = parse_transaction(msgspec.json.encode(request), NOW_MS, frozenset({"known"}))
    assert from_bytes == parse_transaction(request, NOW_MS, frozenset({"known"}))


def test_empty_text_is_a_missing_value_and_white_space_is_trimmed(transaction_request: Build) -> None:
    request = transaction_request(device_id="", channel=" web\n", category="  ", extras={"known": " "})
    transaction = parse_transaction(request, NOW_MS, frozenset({"known"}))
    assert (transaction.device_id, transaction.channel, transaction.category) == (None, "web", None)
    assert transaction.extras == {"known": None}


def test_the_order_of_fields_does_not_matter_to_the_canonical_form(transaction_request: Build) -> None:
    request = transaction_request()
    backwards = dict(reversed(request.items()))
    first, second = (canonical(parse_transaction(r, NOW_MS)) for r in (request, backwards))
    assert first == second


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"transaction_id": ""}, "transaction_id", "must not be empty"),
        ({"card_id": " "}, "card_id", "must not be empty"),
        ({"card_id": 7}, "card_id", "expected `str`, got `int`"),
        ({"card_id": None}, "card_id", "expected `str`, got `null`"),
        ({"merchant_id": "m" * 257}, "merchant_id", "at most 256"),
        ({"channel": "we\x00b"}, "channel", "control"),
        ({"amount_minor": -1}, "amount_minor", "from 0 to"),
        ({"amount_minor": 1_000_000_000_001}, "amount_minor", "from 0 to"),
        ({"amount_minor": 10**30}, "amount_minor", "from 0 to"),
        ({"amount_minor": 12.5}, "amount_minor", "expected `int`, got `float`"),
        ({"amount_minor": True}, "amount_minor", "expected `int`, got `bool`"),
        ({"currency": "eur"}, "currency", "ISO 4217"),
        ({"currency": "XXX"}, "currency", "ISO 4217"),
        ({"event_time": NOW_MS + FUTURE_TOLERANCE_MS + 1}, "event_time", "not in the future"),
        ({"event_time": 1_790_000_000}, "event_time", "not seconds"),
        ({"latitude": 90.5}, "latitude", "from -90"),
        ({"home_longitude": -181}, "home_longitude", "from -180"),
        ({"amount": 5}, "amount", "is not a field"),
        ({"extras": {"other": 1}}, "extras.other", "known: ['known']"),
        ({"extras": {"known": True}}, "extras[...]", "expected `float | str | null`"),
    ],
)
def test_the_error_names_field_and_rule(
    transaction_request: Build, change: dict[str, Any], field: str, rule: str
) -> None:
    error = refused(transaction_request(**change))
    assert error.field == field
    assert rule in error.rule


def test_a_missing_field_is_named(transaction_request: Build) -> None:
    request = transaction_request()
    del request["card_id"]
    assert (refused(request).field, refused(request).rule) == ("card_id", "is required")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 5000, b'{"card_id": NaN}'])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    assert refused(body).field == "body"


@pytest.mark.parametrize(
    "field",
    ["transaction_id", "card_id", "customer_id", "device_id", "ip_id", "merchant_id", "channel", "category"],
)
@pytest.mark.parametrize("number", [CARD, "4111-1111-1111-1111", " 4111111111111111 "])
def test_a_card_number_is_refused_and_never_echoed(
    transaction_request: Build, field: str, number: str
) -> None:
    error = refused(transaction_request(**{field: number}))
    assert error.field == field
    assert "1111" not in f"{error} {error.value} {error.rule}"


@pytest.mark.parametrize(
    "change",
    [
        {"card_id": 4111111111111111},
        {"4111111111111111": "x"},
        {"extras": {"4111111111111111": 1}},
        {"currency": "4111111111111111"},
        {"amount_minor": "4111111111111111"},
        {"event_time": 4111111111111111},
    ],
)
def test_a_card_number_in_the_wrong_place_is_not_echoed_either(
    transaction_request: Build, change: dict[str, Any]
) -> None:
    error = refused(transaction_request(**change))
    assert "1111" not in f"{error} {error.value} {error.rule} {error.field}"


@pytest.mark.parametrize(
    "change",
    [
        {"transaction_id": "tx-4111111111111111"},
        {"channel": "paid with 4111.1111.1111.1111 today"},
        {"extras": {"known": "4111111111111111"}},
        {"extras": {"known": 4111111111111111}},
        {"extras": {"known": 4111111111111111.0}},
        {"latitude": 4111111111111111.0},
        {"event_time": 94111111111111111999},
        {"currency": "94111111111111111999"},
        {"merchant_id": "4111111111111111" + "9" * 400},
        {"x 4111111111111111 y": 1},
    ],
)
def test_a_card_number_within_something_longer_is_not_echoed(
    transaction_request: Build, change: dict[str, Any]
) -> None:
    error = refused(transaction_request(**change))
    assert "1111" not in f"{error} {error.value} {error.rule} {error.field}"


def test_a_value_of_an_enumeration_is_not_repeated() -> None:
    label = {
        "transaction_id": "t1",
        "source": "chargeback",
        "outcome": "4111111111111111",
        "known_at": NOW_MS,
    }
    with pytest.raises(RequestError) as caught:
        parse_label(msgspec.json.encode(label), NOW_MS)
    assert "1111" not in f"{caught.value} {caught.value.value} {caught.value.rule}"


def test_a_numeric_id_is_taken_with_a_letter_among_its_digits(transaction_request: Build) -> None:
    assert "a letter among its digits" in refused(transaction_request(card_id="4111111111111111")).rule
    assert parse_transaction(transaction_request(card_id="41111111n11111111"), NOW_MS)


def test_the_earliest_time_is_that_of_ingest() -> None:
    assert EARLIEST_TIME_MS == INGEST_EARLIEST_TIME_MS


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"outcome": "maybe"}, "outcome"),
        ({"source": ""}, "source"),
        ({"transaction_id": CARD}, "transaction_id"),
        ({"known_at": NOW_MS * 2}, "known_at"),
        ({"known_at": NOW_MS // 1000}, "known_at"),
        ({"known_at": EARLIEST_TIME_MS - 1}, "known_at"),
    ],
)
def test_a_wrong_label_is_refused(change: dict[str, Any], field: str) -> None:
    label = {"transaction_id": "t1", "source": "chargeback", "outcome": "fraud", "known_at": NOW_MS}
    assert parse_label(label, NOW_MS).outcome == "fraud"
    with pytest.raises(RequestError) as caught:
        parse_label(msgspec.json.encode({**label, **change}), NOW_MS)
    assert caught.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["transaction_id", "event_time", "amount_minor", "currency", "latitude", "extras"])


@given(st.dictionaries(FIELDS | st.text(), JSON, max_size=4), st.binary(max_size=40))
def test_whatever_comes_is_a_transaction_or_a_request_error(
    transaction_request: Build, change: dict[str, Any], noise: bytes
) -> None:
    for raw in (msgspec.json.encode(transaction_request(**change)), noise):
        with contextlib.suppress(RequestError):
            parse_transaction(raw, NOW_MS)
