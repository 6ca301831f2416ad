"""Compares the vectors that the online store served with the ones that dbt built, as bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fraud_platform.features.contract import FeatureContract


@dataclass(frozen=True)
class Mismatch:
    """The first difference of a feature."""

    transaction_id: str
    feature: str
    online: object
    offline: object

    def __str__(self) -> str:
        return f"{self.feature} of {self.transaction_id}: served {self.online!r}, built {self.offline!r}"


@dataclass(frozen=True)
class ParityReport:
    """transactions and labels replayed, values compared, mismatches by feature and their first examples."""

    transactions: int = 0
    labels: int = 0
    values: int = 0
    mismatches: Counter[str] = field(default_factory=Counter)
    examples: tuple[Mismatch, ...] = ()

    @property
    def is_exact(self) -> bool:
        return self.values > 0 and not self.mismatches

    @property
    def wrong_values(self) -> int:
        return self.mismatches.total()

    def __add__(self, other: ParityReport) -> ParityReport:
        known = {example.feature for example in self.examples}
        return ParityReport(
            self.transactions + other.transactions,
            self.labels + other.labels,
            self.values + other.values,
            self.mismatches + other.mismatches,
            self.examples + tuple(e for e in other.examples if e.feature not in known),
        )

    def __str__(self) -> str:
        return in_words(self.values, self.transactions, self.wrong_values)


def in_words(values: int, transactions: int, wrong_values: int) -> str:
    return f"compared {values:,} values of {transactions:,} transactions: {wrong_values:,} mismatches"


def compare(
    contract: FeatureContract,
    transaction_ids: Sequence[str],
    online: Sequence[Sequence[float | str | None]],
    offline: Mapping[str, np.ndarray],
) -> ParityReport:
    """online: a vector per transaction; offline: a column (n,) per feature.

    A masked array is NULL where its mask says so; in a plain one NaN or None is NULL. Two doubles are equal
    when their 64 bits are: -0.0 and 0.0 differ. NULL equals only NULL, and a NaN equals nothing.
    """
    mismatches: Counter[str] = Counter()
    examples = []
    served_columns = zip(*online, strict=True) if online else ((),) * len(contract.features)
    for feature, served in zip(contract.features, served_columns, strict=True):
        built = offline[feature.name]
        differs = (_texts_differ if feature.dtype == "category" else _numbers_differ)(served, built)
        if differs.any():
            first = int(np.argmax(differs))
            mismatches[feature.name] += int(differs.sum())
            examples.append(
                Mismatch(transaction_ids[first], feature.name, served[first], _shown(built[first]))
            )
    values = len(online) * len(contract.features)
    return ParityReport(len(online), 0, values, mismatches, tuple(examples))


def _texts_differ(served: Sequence[float | str | None], built: np.ndarray) -> np.ndarray:
    """A masked array is slow to walk, so that data and mask are walked as lists."""
    known = zip(np.ma.getdata(built).tolist(), np.ma.getmaskarray(built).tolist(), strict=True)
    texts = [None if is_null or not isinstance(value, str) else value for value, is_null in known]
    return np.array([a != b for a, b in zip(served, texts, strict=True)], dtype=bool)


def _numbers_differ(served: Sequence[float | str | None], built: np.ndarray) -> np.ndarray:
    """numpy reads None as NaN, so that only what is NaN then has to be looked at one by one."""
    numbers = np.array(served, dtype=np.float64)
    is_unknown = np.isnan(numbers)
    is_none = np.zeros(len(numbers), dtype=bool)
    is_none[is_unknown] = [served[place] is None for place in np.flatnonzero(is_unknown).tolist()]
    values = np.asarray(np.ma.getdata(built), dtype=np.float64)
    is_null = np.ma.getmaskarray(built) if isinstance(built, np.ma.MaskedArray) else np.isnan(values)
    differs = numbers.view(np.int64) != values.view(np.int64)
    return np.where(is_null, ~is_none, differs | is_unknown)


def _shown(value: object) -> object:
    """A value as people read it: NULL as None, a number of numpy's as Python's."""
    if value is np.ma.masked:
        return None
    return value.item() if isinstance(value, np.generic) else value
