"""What windows that are only about right get wrong: their start is rounded down to a multiple of a tail.

Systems that keep totals by buckets of five minutes or a day answer with windows that span w to w + tail.
Belongs here: which values a tail touches, and how many it changes. Does not belong here: building them (dbt).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fraud_platform.features.contract import FeatureContract

TAILS = {"five-minute": 300_000, "one-day": 86_400_000}
"""Name to ms."""
WORST = 10


@dataclass(frozen=True)
class TailErrors:
    """`values`: those of `transactions` that a tail touches and that are known on either side; `worst`: the
    features with the largest share of wrong values, each with that share."""

    tail: str
    transactions: int
    wrong_transactions: int
    values: int
    wrong_values: int
    worst: tuple[tuple[str, float], ...]

    @property
    def wrong_share(self) -> float:
        return self.wrong_values / max(self.values, 1)

    @property
    def wrong_transactions_share(self) -> float:
        return self.wrong_transactions / max(self.transactions, 1)

    def __str__(self) -> str:
        return (
            f"a {self.tail} tail: {self.wrong_values:,} of {self.values:,} windowed values wrong "
            f"({self.wrong_share:.2%}), in {self.wrong_transactions:,} of {self.transactions:,} transactions "
            f"({self.wrong_transactions_share:.2%})"
        )


def tailed_names(contract: FeatureContract) -> tuple[str, ...]:
    """The features with a window, and the row expressions that read one, in contract order."""
    touched = {feature.name for feature in contract.features if feature.window_ms is not None}
    while more := {f.name for f in contract.features if touched & set(f.inputs)} - touched:
        touched |= more
    return tuple(name for name in contract.names if name in touched)


def tail_errors(
    contract: FeatureContract, tail: str, exact: Mapping[str, np.ndarray], tailed: Mapping[str, np.ndarray]
) -> TailErrors:
    """Compares columns (n,) of the same rows, NaN where NULL. What is NULL on both sides is not counted."""
    names = tailed_names(contract)
    rows = len(exact[names[0]]) if names else 0
    is_wrong_row = np.zeros(rows, dtype=bool)
    values = wrong = 0
    shares = {}
    for name in names:
        left, right = (np.asarray(side[name], dtype=np.float64) for side in (exact, tailed))
        is_known = ~(np.isnan(left) & np.isnan(right))
        is_wrong = is_known & (left.view(np.int64) != right.view(np.int64))
        is_wrong_row |= is_wrong
        values += int(is_known.sum())
        wrong += int(is_wrong.sum())
        shares[name] = float(is_wrong.sum() / max(int(is_known.sum()), 1))
    worst = sorted(((name, share) for name, share in shares.items() if share), key=lambda item: -item[1])
    return TailErrors(tail, rows, int(is_wrong_row.sum()), values, wrong, tuple(worst[:WORST]))
