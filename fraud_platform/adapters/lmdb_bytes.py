"""Columns of numbers as the bytes that the LMDB store keeps, many rows at once: what a bulk load writes.

Belongs here: the vectorised twins of the encodings in lmdb_session.py. Does not belong here: what is loaded
(lmdb_load.py), where it comes from (duckdb_load.py). All arrays are of one length n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.recent import TOKEN_BYTES, Recent
from fraud_platform.features.state import TOTALS, State

Array = np.ndarray
Pairs = Iterator[tuple[bytes, bytes]]
Integers = Array | list[Array] | int

_NIL, _FALSE, _TRUE, _BIN16, _DOUBLE, _INT64, _ARRAY16 = 0xC0, 0xC2, 0xC3, 0xC5, 0xCB, 0xD3, 0xDC


@dataclass(frozen=True)
class Tokens:
    """128-bit tokens as two halves, uint64 (n,)."""

    high: Array
    low: Array

    def __getitem__(self, rows: Array) -> Tokens:
        return Tokens(self.high[rows], self.low[rows])


@dataclass(frozen=True)
class Places:
    """Known places: moment int64 (n,), latitude and longitude float64 (n,); is_known (n,)."""

    is_known: Array
    moment: Array
    latitude: Array
    longitude: Array


@dataclass(frozen=True)
class Carried:
    """What States carry along. has_log (n,): nothing, since a log has it; lengths (n,): how many
    transactions; then the m of all States one after the other: moments and amounts int64 (m,), latitudes and
    longitudes float64 (m,), names, and values of each distinct column."""

    has_log: Array
    lengths: Array
    moments: Array
    amounts: Array
    latitudes: Array
    longitudes: Array
    names: Tokens
    values: Sequence[Tokens]


class Record:
    """Fields one after the other, each of a fixed width, as one numpy record a row."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._fields: list[tuple[str, Array | int]] = []

    def add(self, kind: str, value: Array | int) -> Record:
        self._fields.append((kind, value))
        return self

    def token(self, tokens: Tokens) -> Record:
        return self.add(">u8", tokens.high).add(">u8", tokens.low)

    def rows(self) -> list[bytes]:
        names = [(f"f{place}", kind) for place, (kind, _) in enumerate(self._fields)]
        records = np.empty(self._length, dtype=np.dtype(names))
        for (name, _), (_, value) in zip(names, self._fields, strict=True):
            records[name] = value
        data, width = records.tobytes(), records.dtype.itemsize
        return [data[start : start + width] for start in range(0, len(data), width)]


def prefixed(plan: EntityPlan, keys: Tokens, mark: int) -> Record:
    """(plan, key), then one byte that says what follows."""
    return Record(len(keys.high)).add("u1", plan.number).token(keys).add("u1", mark)


def log_rows(
    plan: EntityPlan,
    keys: Tokens,
    moments: Array,
    transactions: Tokens,
    amounts: Array,
    places: Places,
    values: Sequence[tuple[Array, Tokens]],
) -> Pairs:
    """Entries of the transactions' log; values: (is_known, token) of each distinct column."""
    names = prefixed(plan, keys, 2).add(">u8", moments).token(transactions).rows()
    entry = Record(len(moments)).add("<i8", amounts)
    if plan.has_place:
        entry.add("<f8", np.where(places.is_known, places.latitude, np.nan))
        entry.add("<f8", np.where(places.is_known, places.longitude, np.nan))
    for is_known, token in values:
        entry.add(">u8", np.where(is_known, token.high, 0)).add(">u8", np.where(is_known, token.low, 0))
    return zip(names, entry.rows(), strict=True)


def report_rows(plan: EntityPlan, keys: Tokens, moments: Array, transactions: Tokens) -> Pairs:
    names = prefixed(plan, keys, 3).add(">u8", moments).token(transactions).rows()
    return ((name, b"") for name in names)


def reported_rows(plan: EntityPlan, keys: Tokens, moments: Array, transactions: Tokens) -> Pairs:
    """When each transaction was reported, by transaction."""
    names = prefixed(plan, keys, 4).token(transactions).rows()
    return zip(names, Record(len(moments)).add(">u8", moments).rows(), strict=True)


def count_rows(plan: EntityPlan, keys: Tokens, column: int, values: Tokens, times: Sequence[Array]) -> Pairs:
    """times: how often the value is in each window of the plan."""
    names = prefixed(plan, keys, 1).add("u1", column).token(values).rows()
    counted = Record(len(keys.high))
    for window in times:
        counted.add("<i4", window)
    return zip(names, counted.rows(), strict=True)


def dated_rows(moments: Array, tokens: Tokens) -> Pairs:
    names = Record(len(moments)).add(">u8", moments).token(tokens).rows()
    return ((name, b"") for name in names)


def due_rows(plan: EntityPlan, moments: Array, keys: Tokens) -> Pairs:
    names = Record(len(moments)).add(">u8", moments).add("u1", plan.number).token(keys).rows()
    return ((name, b"") for name in names)


def state_rows(
    plan: EntityPlan,
    keys: Tokens,
    integers: Mapping[str, Integers],
    places: Mapping[str, Places],
    carried: Carried,
    is_due: bool,
) -> Pairs:
    """States by field name: integers (n,), or one array for each window; places where a field holds one. Only
    a State whose transactions are in a log has totals of them."""
    patterns = np.where(carried.has_log, -1, carried.lengths)
    for place in places.values():
        patterns = 2 * patterns + place.is_known
    starts = np.cumsum(carried.lengths) - carried.lengths
    for pattern in np.unique(patterns):
        rows = np.flatnonzero(patterns == pattern)
        record = Record(len(rows)).add("u1", _ARRAY16).add(">u2", len(State.__struct_fields__))
        for field in State.__struct_fields__:
            if field == "is_due":
                record.add("u1", _TRUE if is_due else _FALSE)
            elif field == "recent":
                _add_recent(record, plan, carried, rows, starts[rows])
            elif field == "waiting" or (field in TOTALS and not carried.has_log[rows[0]]):
                record.add("u1", _ARRAY16).add(">u2", 0)
            elif field in places:
                _add_place(record, places[field], rows)
            else:
                _add_integers(record, integers[field], rows)
        names = prefixed(plan, keys[rows], 0).rows()
        yield from zip(names, record.rows(), strict=True)


def _add_integers(record: Record, value: Integers, rows: Array) -> None:
    if isinstance(value, list):
        record.add("u1", _ARRAY16).add(">u2", len(value))
        for one in value:
            record.add("u1", _INT64).add(">i8", one[rows])
    else:
        record.add("u1", _INT64).add(">i8", value[rows] if isinstance(value, np.ndarray) else value)


def _add_recent(record: Record, plan: EntityPlan, carried: Carried, rows: Array, starts: Array) -> None:
    """All rows of one pattern: either none carries its transactions along, or each as many as the others."""
    if carried.has_log[rows[0]] or not plan.has_log:
        record.add("u1", _NIL)
        return
    each = [starts + place for place in range(carried.lengths[rows[0]])]
    record.add("u1", _ARRAY16).add(">u2", len(Recent.__struct_fields__))
    for numbers in (carried.moments, carried.amounts):
        record.add("u1", _ARRAY16).add(">u2", len(each))
        for at in each:
            record.add("u1", _INT64).add(">i8", numbers[at])
    _add_tokens(record, carried.names, each)
    placed = each if plan.has_place else []
    record.add("u1", _ARRAY16).add(">u2", 2 * len(placed))
    for at in placed:
        record.add("u1", _DOUBLE).add(">f8", carried.latitudes[at])
        record.add("u1", _DOUBLE).add(">f8", carried.longitudes[at])
    record.add("u1", _ARRAY16).add(">u2", len(carried.values))
    for values in carried.values:
        _add_tokens(record, values, each)


def _add_tokens(record: Record, tokens: Tokens, each: Sequence[Array]) -> None:
    record.add("u1", _BIN16).add(">u2", TOKEN_BYTES * len(each))
    for at in each:
        record.token(tokens[at])


def _add_place(record: Record, places: Places, rows: Array) -> None:
    """All rows of one pattern: either every one of them has the place, or none."""
    if not (len(rows) and places.is_known[rows[0]]):
        record.add("u1", _NIL)
        return
    record.add("u1", 0x93).add("u1", _INT64).add(">i8", places.moment[rows])
    for degrees in (places.latitude, places.longitude):
        record.add("u1", _DOUBLE).add(">f8", degrees[rows])
