"""features: the transactions that a State carries along, in columns."""

from __future__ import annotations

import pytest

from fraud_platform.features.recent import TOKEN_BYTES, Entry, Recent

NAMES = {name: name.encode() * TOKEN_BYTES for name in "abcd"}
PLACED = Entry(20, 5, (20, 1.5, -2.5), (NAMES["a"], None))


def recent(*added: tuple[str, Entry]) -> Recent:
    found = Recent([], [], b"", [], [b"", b""])
    for name, entry in added:
        found.add(NAMES[name], entry, has_place=True)
    return found


def entry(moment: int) -> Entry:
    return Entry(moment, moment * 10, None, (None, NAMES["d"]))


def test_what_is_carried_comes_out_as_it_went_in() -> None:
    found = recent(("b", entry(30)), ("a", PLACED))
    assert [found.entry(place) for place in range(len(found))] == [PLACED, entry(30)]
    assert [found.name(place) for place in range(len(found))] == [NAMES["a"], NAMES["b"]]
    assert found.tokens(0, 0, 2) == (NAMES["a"], bytes(TOKEN_BYTES))
    assert found.tokens(1, 1, 2) == (NAMES["d"],)


def test_ties_stay_in_order_of_arrival() -> None:
    found = recent(("a", entry(20)), ("b", entry(30)), ("c", entry(20)), ("d", entry(10)))
    assert found.moments == [10, 20, 20, 30]
    assert [found.name(place)[:1] for place in range(4)] == [b"d", b"a", b"c", b"b"]


@pytest.mark.parametrize(
    ("lower", "upper", "inside"),
    [(0, 99, [0, 1, 2]), (20, 30, [0, 1]), (21, 31, [2]), (31, 99, []), (0, 20, []), (25, 25, [])],
)
def test_bounds_are_from_the_lower_on_and_before_the_upper(lower: int, upper: int, inside: list[int]) -> None:
    found = recent(("a", entry(20)), ("b", entry(20)), ("c", entry(30)))
    assert list(found.between(lower, upper)) == inside


def test_what_is_dropped_is_gone_from_every_column() -> None:
    found = recent(("a", PLACED), ("b", entry(30)), ("c", entry(40)))
    found.drop(2)
    assert found == recent(("c", entry(40)))
