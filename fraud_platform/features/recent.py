"""The latest transactions of one key, which its State carries along: nothing has to be looked up for them.

Belongs here: their columns, in order of time. Does not belong here: what a window counts of them (plan.py),
the log that takes what no longer fits in (past.py).
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from functools import lru_cache
from math import isnan, nan

import msgspec

TOKEN_BYTES = 16
"""Length of a token: 128 bits that stand for an id or a value of any length."""
NO_TOKEN = bytes(TOKEN_BYTES)
"""Of a value that is missing."""

KnownPlace = tuple[int, float, float]
"""event_time, latitude, longitude."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One line of a key's log. values: a token for each distinct column of the entity, None if missing."""

    moment: int
    amount_minor: int = 0
    place: KnownPlace | None = None
    values: tuple[bytes | None, ...] = ()


class Recent(msgspec.Struct, array_like=True, gc=False):
    """Columns of n transactions, the oldest first; those of one millisecond in order of arrival.

    moments: event_time (ms); amounts: amount_minor; names: tokens of the ids; places: latitude and longitude
    one after the other, NaN where unknown, nothing where the plan needs none; values: tokens of each distinct
    column.
    """

    moments: list[int] = []
    amounts: list[int] = []
    names: bytes = b""
    places: list[float] = []
    values: list[bytes] = []

    def __len__(self) -> int:
        return len(self.moments)

    def between(self, lower: int, upper: int) -> range:
        """Where the transactions with lower <= moment < upper stand."""
        moments = self.moments
        if not moments or moments[-1] < lower:
            return range(len(moments), len(moments))
        start = bisect_left(moments, lower)
        return range(start, bisect_left(moments, upper, start))

    def entry(self, place: int) -> Entry:
        moment = self.moments[place]
        return Entry(moment, self.amounts[place], self._known_place(place), self._values(place))

    def name(self, place: int) -> bytes:
        return self.names[place * TOKEN_BYTES : (place + 1) * TOKEN_BYTES]

    def tokens(self, column: int, start: int, stop: int) -> tuple[bytes, ...]:
        """Of a distinct column and the transactions from place `start` to `stop`; NO_TOKEN where a value is
        missing."""
        return _tokens(stop - start).unpack_from(self.values[column], start * TOKEN_BYTES)

    def add(self, name: bytes, entry: Entry, has_place: bool) -> None:
        moments, moment = self.moments, entry.moment
        place = len(moments)
        if place and moment < moments[-1]:
            place = bisect_right(moments, moment)
        moments.insert(place, moment)
        self.amounts.insert(place, entry.amount_minor)
        self.names = _inserted(self.names, place, name)
        if has_place:
            self.places[2 * place : 2 * place] = entry.place[1:] if entry.place else (nan, nan)
        if entry.values:
            self.values = [
                _inserted(values, place, value or NO_TOKEN)
                for values, value in zip(self.values, entry.values, strict=True)
            ]

    def drop(self, number: int) -> None:
        """Takes out the oldest ones."""
        at = number * TOKEN_BYTES
        del self.moments[:number], self.amounts[:number], self.places[: 2 * number]
        self.names = self.names[at:]
        self.values = [values[at:] for values in self.values]

    def _known_place(self, place: int) -> KnownPlace | None:
        if not self.places or isnan(self.places[2 * place]):
            return None
        return (self.moments[place], self.places[2 * place], self.places[2 * place + 1])

    def _values(self, place: int) -> tuple[bytes | None, ...]:
        if not self.values:
            return ()
        at = place * TOKEN_BYTES
        values = tuple([tokens[at : at + TOKEN_BYTES] for tokens in self.values])
        return tuple([None if value == NO_TOKEN else value for value in values])


@lru_cache
def _tokens(number: int) -> struct.Struct:
    return struct.Struct(f"{TOKEN_BYTES}s" * number)


def _inserted(tokens: bytes, place: int, token: bytes) -> bytes:
    at = place * TOKEN_BYTES
    return tokens + token if at == len(tokens) else tokens[:at] + token + tokens[at:]
