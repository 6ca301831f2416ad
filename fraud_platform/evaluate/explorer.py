"""What any pair of thresholds would have done: step up from one probability on, decline from another.

Rows are summed once by bands of probability; every pair is then a sum of bands, so that a page can show
hundreds of them without the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fraud_platform.policy import Policy
from fraud_platform.schema import ACTIONS

EDGES = 40
LOWEST = 1e-4


@dataclass(frozen=True)
class Band:
    """Rows whose probability is at least `low` and below the next band's.

    approve, step_up, decline: what these rows cost under each action (major units).
    """

    low: float
    rows: int
    frauds: int
    approve: float
    step_up: float
    decline: float


@dataclass(frozen=True)
class Choice:
    """Step up at probability `step_up` and above, decline at `decline` and above.

    Thresholds above 1 mean never. recall: share of frauds that are not approved; precision: share of frauds
    among rows that are not approved, None without any; false_positive_rate: share of good rows that are not
    approved; approved, stepped_up, declined: shares of rows; cost: major units.
    """

    step_up: float
    decline: float
    recall: float
    precision: float | None
    false_positive_rate: float
    approved: float
    stepped_up: float
    declined: float
    cost: float


def bands(
    policy: Policy, probability: np.ndarray, is_fraud: np.ndarray, amount: np.ndarray
) -> tuple[Band, ...]:
    """Every row in one band, lowest first; arrays of shape (n,), amounts in major units.

    The last band begins above 1 and is empty: thresholds there mean never.
    """
    edges = np.concatenate(([0.0], np.geomspace(LOWEST, 1.0, EDGES), [2.0]))
    member = np.searchsorted(edges, np.asarray(probability, dtype=np.float64), side="right") - 1
    size = len(edges)
    costs = [
        np.bincount(
            member,
            policy.realized_costs(np.full(len(member), place, np.int8), is_fraud, amount),
            minlength=size,
        )
        for place in range(len(ACTIONS))
    ]
    rows = np.bincount(member, minlength=size)
    frauds = np.bincount(member, np.asarray(is_fraud, dtype=np.float64), minlength=size)
    return tuple(
        Band(float(low), int(n), int(f), float(a), float(s), float(d))
        for low, n, f, a, s, d in zip(edges, rows, frauds, *costs, strict=True)
    )


def choices(summed: Sequence[Band]) -> tuple[tuple[Choice, ...], ...]:
    """By place of the step-up threshold and, from that place on, of the decline threshold."""
    rows, frauds, approve, step_up, decline = (
        np.concatenate(([0.0], np.cumsum([getattr(band, name) for band in summed])))
        for name in ("rows", "frauds", "approve", "step_up", "decline")
    )
    n, bad = max(rows[-1], 1.0), max(frauds[-1], 1.0)
    good = max(rows[-1] - frauds[-1], 1.0)

    def choice(low: int, high: int) -> Choice:
        acted, caught = rows[-1] - rows[low], frauds[-1] - frauds[low]
        return Choice(
            step_up=summed[low].low,
            decline=summed[high].low,
            recall=float(caught / bad),
            precision=float(caught / acted) if acted else None,
            false_positive_rate=float((acted - caught) / good),
            approved=float(rows[low] / n),
            stepped_up=float((rows[high] - rows[low]) / n),
            declined=float((rows[-1] - rows[high]) / n),
            cost=float(approve[low] + step_up[high] - step_up[low] + decline[-1] - decline[high]),
        )

    places = range(len(summed))
    return tuple(tuple(choice(low, high) for high in places[low:]) for low in places)
