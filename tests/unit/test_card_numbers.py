"""What looks like a card number inside longer text, and what must not."""

from __future__ import annotations

import doctest
import hashlib
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.schema import looks_like_card_number
from fraud_platform.serve import card_numbers
from fraud_platform.serve.card_numbers import holds_card_number, is_card_number

NUMBERS = (
    "4111111111111111",  # Visa
    "4222222222222",
    "5555555555554444",  # Mastercard
    "2223003122003222",
    "378282246310005",  # American Express
    "30569309025904",  # Diners Club
    "6011111111111117",  # Discover
    "3530111333300000",  # JCB
    "6200000000000005",  # UnionPay
    "6759649826438453",  # Maestro
)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "tx-{}",
        "tx{}",
        "card{}end",
        "card {} exp 12/27",
        "2026-11-24 {}",
        "{}=27121010000",
        "9 {}",
        "pan:{};x",
        "{}/{}",
    ],
)
def test_a_number_is_found_in_text(number: str, text: str) -> None:
    assert holds_card_number(text.format(number, number))


@pytest.mark.parametrize(
    "sign", [" ", "-", ".", "_", "/", "\u00a0", "\u2011", "\u200b", "\u3000", "  ", " - ", "\t"]
)
def test_a_number_is_found_with_signs_between_its_groups(sign: str) -> None:
    assert holds_card_number(f"card {sign.join(('4111', '1111', '1111', '1111'))} x")
    assert holds_card_number(sign.join("4111111111111111"))


@pytest.mark.parametrize("zero", ["\u0660", "\u06f0", "\u0966", "\uff10", "\U0001d7ce"])
def test_digits_of_other_scripts_are_digits(zero: str) -> None:
    number = "".join(chr(ord(zero) + int(digit)) for digit in "4111111111111111")
    assert holds_card_number(number)
    assert holds_card_number(f"tx-{number}")


def test_circled_digits_are_digits() -> None:
    assert holds_card_number("④" + "①" * 15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t-1",
        "2026-11-24 10:00:00.123456",
        "20261124100000123",
        "order 1790000000000-1790000000001",
        "3f2504e0-4f89-41d3-9a0c-030582c33013",
        "tx-411111111111111",
        "4111111111a111111",
        "192.168.100.200:44300",
        "48.858370, 2.294481",
        "1" * 40,
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert not holds_card_number(text)


def test_hashes_and_random_ids_are_not_refused_by_chance() -> None:
    generator = random.Random(4)
    raw = [generator.randbytes(32) for _ in range(20_000)]
    hashes = [hashlib.sha256(one).hexdigest() for one in raw]
    ids = [str(uuid.UUID(bytes=one[:16], version=4)) for one in raw]
    assert not [
        text for text in (*hashes, *ids, *(f"c-{text}" for text in hashes)) if holds_card_number(text)
    ]


@given(st.text("0123456789 -", max_size=30))
def test_the_whole_of_a_value_is_judged_as_ingest_does(text: str) -> None:
    if looks_like_card_number(text):
        assert holds_card_number(text)


@pytest.mark.parametrize("value", [4111111111111111, -4111111111111111, 4111111111111111.0, 4222222222222])
def test_a_number_may_be_a_card_number(value: float) -> None:
    assert is_card_number(value)


@pytest.mark.parametrize(
    "value", [0, 1.5, 1e300, float("nan"), float("inf"), 1_790_000_000_007, 10**30, 4111]
)
def test_most_numbers_are_none(value: float) -> None:
    assert not is_card_number(value)


def test_the_examples_of_the_docstrings_run() -> None:
    assert doctest.testmod(card_numbers).failed == 0
