"""Where the values come from that expressions read: one request with its features, or rows of columns.

Belongs here: taking values that are known, and leaving out the others. Does not belong here: rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from fraud_platform.rules.language import KNOWN, LISTS, REQUEST, Expression
from fraud_platform.rules.lists import TokenList
from fraud_platform.schema import CURRENCY_EXPONENTS, Transaction

Value = float | str | None
Data = dict[str, Any]
MOMENT, AMOUNT = f"{REQUEST}event_time", f"{REQUEST}amount"
AMOUNT_MINOR, CURRENCY = f"{REQUEST}amount_minor", f"{REQUEST}currency"
CHUNK = 20_000
"""Rows that are Python values at the same time."""


class Inputs:
    """What some expressions read together. A value that is None, NaN or empty text is left out: unknown."""

    def __init__(self, expressions: Sequence[Expression], lists: Mapping[str, TokenList]) -> None:
        names = sorted({name for expression in expressions for name in expression.names})
        asked: dict[str, list[str]] = {}
        for name, listed in sorted({pair for expression in expressions for pair in expression.asked}):
            asked.setdefault(listed, []).append(name)
        self._names = tuple(n for n in names if not n.startswith((KNOWN, LISTS)))
        self.features = tuple(n for n in names if not n.startswith((REQUEST, KNOWN, LISTS)))
        self._fields = tuple((n, _getter(n.removeprefix(REQUEST))) for n in names if n.startswith(REQUEST))
        self._known = tuple((n, attrgetter(n.removeprefix(KNOWN))) for n in names if n.startswith(KNOWN))
        self._asked = tuple(
            (LISTS + listed, lists[listed].tokens, tuple(by)) for listed, by in sorted(asked.items())
        )
        told = {REQUEST + n.removeprefix(KNOWN) for n in names if n.startswith(KNOWN)}
        money = {AMOUNT_MINOR, CURRENCY} if AMOUNT in names else set()
        self.columns = frozenset({*self._names, *told, *money} - {AMOUNT})

    def of_one(self, values: Mapping[str, Value], transaction: Transaction | None) -> Data:
        """What is known of one decision; without a transaction nothing is known of the request."""
        get = values.get
        data: Data = {}
        for name in self.features:
            value = get(name)
            if _is_known(value):
                data[name] = value
        if transaction is not None:
            for name, field in self._fields:
                value = field(transaction)
                if _is_known(value):
                    data[name] = value
            for name, field in self._known:
                data[name] = _is_known(field(transaction))
        return self._with_lists(data)

    def of_columns(self, columns: Mapping[str, np.ndarray], n: int) -> Iterator[tuple[int | None, Data]]:
        """For each of n rows its event time (ms; None where there is none) and what is known of it.

        columns: (n,) each, features by name and the request's fields as "request.FIELD"; what has no column
        is unknown.
        """
        wanted = {name: np.asarray(columns[name]) for name in (*self.columns, MOMENT) if name in columns}
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)
            part = {name: _plain(column[start:stop]) for name, column in wanted.items()}
            yield from self._rows(part, stop - start)

    def _rows(self, part: dict[str, list[Any]], n: int) -> Iterator[tuple[int | None, Data]]:
        moments = part.get(MOMENT, [None] * n)
        asked_for = [(name, REQUEST + name.removeprefix(KNOWN)) for name, _ in self._known]
        told = [(name, part[field]) for name, field in asked_for if field in part]
        if AMOUNT in self._names and {AMOUNT_MINOR, CURRENCY} <= part.keys():
            part[AMOUNT] = list(map(_major, part[AMOUNT_MINOR], part[CURRENCY]))
        names = [name for name in self._names if name in part]
        rows = zip(*(part[name] for name in names), strict=True) if names else [()] * n
        for place, row in enumerate(rows):
            data = {name: value for name, value in zip(names, row, strict=True) if _is_known(value)}
            for name, values in told:
                data[name] = _is_known(values[place])
            yield moments[place], self._with_lists(data)

    def _with_lists(self, data: Data) -> Data:
        """Of each list only what may matter here: those of its tokens that it is asked for."""
        get = data.get
        for name, tokens, by in self._asked:
            data[name] = {value: True for asked in by if (value := get(asked)) in tokens}
        return data


def _is_known(value: Any) -> bool:
    return value is not None and value == value and value != ""


def _plain(column: np.ndarray) -> list[Any]:
    """Python's own values; what is neither number nor text (None, pandas' NA) is None."""
    if column.dtype.kind in "iuf":
        return column.tolist()
    if column.dtype.kind == "b":
        return column.astype(np.float64).tolist()
    return [value if isinstance(value, str | int | float) else None for value in column.tolist()]


def _getter(field: str) -> Callable[[Transaction], Value]:
    return _amount if field == "amount" else attrgetter(field)


def _amount(transaction: Transaction) -> Value:
    return _major(transaction.amount_minor, transaction.currency)


def _major(amount_minor: Any, currency: Any) -> float | None:
    exponent = CURRENCY_EXPONENTS.get(currency)
    return None if exponent is None or amount_minor is None else amount_minor / 10**exponent
