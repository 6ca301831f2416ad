"""Delayed performance: what the decisions of the past were worth, once their labels are mature.

Only transactions whose window has passed are judged, frauds as well as legitimate ones: a fraud is known
earlier than a legitimate one, and judging it earlier would make every recent week look worse than it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fraud_platform.evaluate import amount_major
from fraud_platform.labels import LabelRule
from fraud_platform.policy import Policy
from fraud_platform.schema import ACTIONS, LabelEvent


@dataclass(frozen=True)
class Decisions:
    """Columns of recorded decisions, each (n,): times in ms, probability NaN where there was no score."""

    transaction_id: np.ndarray
    event_time: np.ndarray
    amount_minor: np.ndarray
    currency: np.ndarray
    probability: np.ndarray
    action: np.ndarray


@dataclass(frozen=True)
class Performance:
    """Of the mature decisions. Money in major units; a value is None when it cannot be measured.

    recall: the share of frauds that were not approved; good_friction: the share of legitimate transactions
    that were not approved; saved: what the actions cost less than approving everything.
    """

    mature_count: int
    immature_count: int
    fraud_count: int
    average_precision: float | None
    recall: float | None
    good_friction: float | None
    cost: float
    saved: float


def delayed_performance(
    decisions: Decisions, labels: Iterable[LabelEvent], rule: LabelRule, as_of_ms: int, policy: Policy
) -> Performance:
    """Judge the decisions that are mature at `as_of_ms` with the labels that were known by then."""
    is_mature = np.asarray(decisions.event_time) <= rule.mature_before(as_of_ms)
    is_fraud = known_frauds(decisions.transaction_id[is_mature], labels, rule, as_of_ms)
    amount = amount_major(decisions.amount_minor[is_mature], decisions.currency[is_mature])
    actions = _action_codes(decisions.action[is_mature])
    cost = policy.realized_costs(actions, is_fraud, amount).sum()
    approved = policy.realized_costs(np.zeros(len(actions), np.int8), is_fraud, amount).sum()
    adverse = actions > ACTIONS.index("approve")
    return Performance(
        mature_count=int(is_mature.sum()),
        immature_count=int((~is_mature).sum()),
        fraud_count=int(is_fraud.sum()),
        average_precision=_average_precision(decisions.probability[is_mature], is_fraud),
        recall=_share(adverse[is_fraud]),
        good_friction=_share(adverse[~is_fraud]),
        cost=float(cost),
        saved=float(approved - cost),
    )


def known_frauds(ids: np.ndarray, labels: Iterable[LabelEvent], rule: LabelRule, as_of_ms: int) -> np.ndarray:
    """Whether each mature transaction is a fraud, by the dataset's label rule: bool (n,)."""
    events: dict[str, list[LabelEvent]] = defaultdict(list)
    wanted = set(ids.tolist())
    for event in labels:
        if event.transaction_id in wanted:
            events[event.transaction_id].append(event)
    oldest = rule.mature_before(as_of_ms)
    statuses = (rule.resolve(events.get(i, ()), oldest, as_of_ms).status for i in ids.tolist())
    return np.fromiter((status == "fraud" for status in statuses), dtype=bool, count=len(ids))


def _action_codes(actions: np.ndarray) -> np.ndarray:
    codes = {action: code for code, action in enumerate(ACTIONS)}
    return np.fromiter((codes[action] for action in actions.tolist()), dtype=np.int8, count=len(actions))


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _average_precision(probability: np.ndarray, is_fraud: np.ndarray) -> float | None:
    """Area under precision and recall by steps, over the rows that were scored; None without both classes.

    Equal probabilities are one step, so that their order cannot matter.
    """
    scored = ~np.isnan(probability)
    score, fraud = probability[scored], is_fraud[scored]
    if fraud.sum() in (0, len(fraud)):
        return None
    values, place = np.unique(-score, return_inverse=True)
    found = np.cumsum(np.bincount(place, weights=fraud, minlength=len(values)))
    asked = np.cumsum(np.bincount(place, minlength=len(values)))
    recall_steps = np.diff(found, prepend=0.0) / found[-1]
    return float(np.sum(recall_steps * found / asked))
