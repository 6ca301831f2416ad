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
        total = sum(self.mismatches.values())
        return f"compared {self.values:,} values of {self.transactions:,} transactions: {total:,} mismatches"


def compare(
    contract: FeatureContract,
    transaction_ids: Sequence[str],
    online: Sequence[Sequence[float | str | None]],
    offline: Mapping[str, np.ndarray],
) -> ParityReport:
    """online: a vector per transaction; offline: a column (n,) per feature, NaN or None where NULL.

    Two doubles are equal when their 64 bits are; -0.0 and 0.0 differ, and NULL equals only NULL.
    """
    mismatches: Counter[str] = Counter()
    examples = []
    for place, feature in enumerate(contract.features):
        served = [vector[place] for vector in online]
        built = offline[feature.name]
        differs = _differs(served, built, feature.dtype == "category")
        if differs.any():
            first = int(np.argmax(differs))
            mismatches[feature.name] += int(differs.sum())
            examples.append(Mismatch(transaction_ids[first], feature.name, served[first], built[first]))
    values = len(online) * len(contract.features)
    return ParityReport(len(online), 0, values, mismatches, tuple(examples))


def _differs(served: list[float | str | None], built: np.ndarray, is_category: bool) -> np.ndarray:
    if is_category:
        texts = [value if isinstance(value, str) else None for value in built]
        return np.array([a != b for a, b in zip(served, texts, strict=True)], dtype=bool)
    numbers = np.array([np.nan if value is None else value for value in served], dtype=np.float64)
    is_unknown = np.array([value is None for value in served], dtype=bool)
    differs = numbers.view(np.int64) != np.asarray(built, dtype=np.float64).view(np.int64)
    # A NaN that was served is no NULL, and never right.
    return np.where(np.isnan(built), ~is_unknown, differs)
