"""By which dimensions an evaluation is cut, and which rows lie in each slice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

SEGMENTS_PER_DIMENSION = 12
OTHER = "(all others)"
"""What is left of a dimension beyond its largest values, so that its slices add up to all rows."""
SEGMENT_COLUMNS = ("channel", "category", "card_country", "merchant_country")
AMOUNT_BANDS = (0.0, 10.0, 50.0, 200.0, 1_000.0, np.inf)
AGE_COLUMNS = {"customer_age_seconds": "customer_age", "card_age_seconds": "card_age"}
AGE_DAYS = (1, 7, 30, 90)
"""Bounds in days since it was first seen: who is below the first is new, from the last on old."""
_DAY_SECONDS = 86_400


def slices(rows: pd.DataFrame, amount: np.ndarray) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    """Each dimension with its values and the rows that have them, bool (n,); a row lies in one of them.

    amount: major units, (n,). The largest values come first; a value that is not known is called unknown.
    """
    for dimension, values in _dimensions(rows, amount):
        names, member = np.unique(values, return_inverse=True)
        order = np.argsort(-np.bincount(member), kind="stable")
        kept, rest = order[:SEGMENTS_PER_DIMENSION], order[SEGMENTS_PER_DIMENSION:]
        found = [(str(names[place]), member == place) for place in kept]
        yield dimension, [*found, (OTHER, np.isin(member, rest))] if len(rest) else found


def _dimensions(rows: pd.DataFrame, amount: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A dimension of which nothing is known is left out."""
    for name in SEGMENT_COLUMNS:
        values = _texts(rows[name]) if name in rows else np.array([], dtype=str)
        if np.any(values != ""):
            yield name, np.where(values == "", "unknown", values)
    labels = [f"{low:g} to {high:g}" for low, high in pairwise(AMOUNT_BANDS)]
    yield "amount", np.array(labels)[np.searchsorted(AMOUNT_BANDS, amount, side="right") - 1]
    for column, name in AGE_COLUMNS.items():
        ages = rows[column].to_numpy(dtype=np.float64, na_value=np.nan) if column in rows else np.array([])
        if np.any(~np.isnan(ages)):
            yield name, _ages(ages)


def _ages(seconds: np.ndarray) -> np.ndarray:
    days = (0, *AGE_DAYS)
    labels = [f"{low} to {high} days" for low, high in pairwise(days)] + [f"{days[-1]} days and more"]
    place = np.searchsorted(np.array(AGE_DAYS) * _DAY_SECONDS, np.nan_to_num(seconds), side="right")
    return np.where(np.isnan(seconds), "unknown", np.array(labels)[place])


def _texts(column: pd.Series) -> np.ndarray:
    return column.astype(object).where(column.notna(), "").to_numpy().astype(str)
