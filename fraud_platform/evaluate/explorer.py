"""What any pair of thresholds would have done: step up from one probability on, decline from another.

What the thresholds say is joined with the live rules, as the policy's action is.
Rows are summed once by bands of probability; every pair is then a sum of bands, so that a page can show
hundreds of them without the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from fraud_platform.evaluate.money import Cost
from fraud_platform.policy import Policy
from fraud_platform.schema import ACTIONS

EDGES = 40
LOWEST = 1e-4


@dataclass(frozen=True)
class Band:
    """Rows whose probability is at least `low` and below the next band's.

    approve, step_up, decline: what is answered to these rows, and its cost, where the thresholds say so.
    """

    low: float
    rows: int
    frauds: int
    approve: Cost
    step_up: Cost
    decline: Cost


@dataclass(frozen=True)
class Choice:
    """Step up at probability `step_up` and above, decline at `decline` and above, beside the live rules.

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
    policy: Policy,
    probability: np.ndarray,
    answers: np.ndarray,
    is_fraud: np.ndarray,
    amount: np.ndarray,
) -> tuple[Band, ...]:
    """Every row in one band, lowest first; arrays of shape (n,), amounts in major units.

    answers: as of `RuleSet.answers`, (3, n). The last band begins above 1 and is empty: thresholds there mean
    never.
    """
    edges = np.concatenate(([0.0], np.geomspace(LOWEST, 1.0, EDGES), [2.0]))
    member = np.searchsorted(edges, np.asarray(probability, dtype=np.float64), side="right") - 1
    fraud = np.asarray(is_fraud, dtype=bool)

    def summed(values: np.ndarray) -> list[float]:
        return np.bincount(member, values.astype(np.float64), minlength=len(edges)).tolist()

    def costs(said: np.ndarray) -> list[Cost]:
        total = summed(policy.realized_costs(said, fraud, amount))
        met = [summed(said == place) for place in range(len(ACTIONS))]
        missed = summed((said == ACTIONS.index("approve")) & fraud)
        return [Cost(one, *map(int, counts)) for one, *counts in zip(total, *met, missed, strict=True)]

    return tuple(
        Band(low, int(rows), int(frauds), *three)
        for low, rows, frauds, *three in zip(
            edges.tolist(), summed(np.ones(len(member))), summed(fraud), *map(costs, answers), strict=True
        )
    )


def choices(summed: Sequence[Band]) -> tuple[tuple[Choice, ...], ...]:
    """By place of the step-up threshold and, from that place on, of the decline threshold."""
    rows, frauds = (sum(getattr(band, name) for band in summed) for name in ("rows", "frauds"))
    nothing = Cost(0.0, 0, 0, 0, 0)
    approve, step_up, decline = (
        np.cumsum([astuple(one) for one in (nothing, *(getattr(band, name) for band in summed))], axis=0)
        for name in ACTIONS
    )

    def choice(low: int, high: int) -> Choice:
        met = approve[low] + step_up[high] - step_up[low] + decline[-1] - decline[high]
        cost, approved, stepped_up, declined, missed = met.tolist()
        acted, caught = stepped_up + declined, frauds - missed
        return Choice(
            step_up=summed[low].low,
            decline=summed[high].low,
            recall=caught / max(frauds, 1),
            precision=caught / acted if acted else None,
            false_positive_rate=(acted - caught) / max(rows - frauds, 1),
            approved=approved / max(rows, 1),
            stepped_up=stepped_up / max(rows, 1),
            declined=declined / max(rows, 1),
            cost=cost,
        )

    places = range(len(summed))
    return tuple(tuple(choice(low, high) for high in places[low:]) for low in places)
