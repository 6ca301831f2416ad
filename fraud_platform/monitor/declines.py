"""What the declines of the past were worth, once the labels of those that were explored are mature.

A decline that was not explored has no outcome, whatever its label says: nobody reports a fraud that did not
happen. Belongs here: from recorded decisions to what `learning.selective` estimates from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fraud_platform.evaluate import amount_major
from fraud_platform.labels import LabelRule
from fraud_platform.learning.selective import Logged, SelectiveLabels, estimate
from fraud_platform.monitor.performance import Decisions, known_frauds
from fraud_platform.policy import Policy
from fraud_platform.schema import LabelEvent

SEED = 20_184


@dataclass(frozen=True)
class LoggedDecisions(Decisions):
    """Also how they were chosen, each (n,); see `serve.record.DecisionRecord`. person: whose it is, as a
    number that stands for the card's holder."""

    tier: np.ndarray
    decided_by: np.ndarray
    price: np.ndarray
    propensity: np.ndarray
    is_explored: np.ndarray
    person: np.ndarray

    @property
    def is_chosen(self) -> np.ndarray:
        """By model and policy alone, with nothing closed: bool (n,)."""
        return (self.tier == "model") & (self.decided_by == "policy") & (self.price != "capacity")


def declines(
    decisions: LoggedDecisions, labels: Iterable[LabelEvent], rule: LabelRule, as_of_ms: int, policy: Policy
) -> SelectiveLabels | None:
    """Of the decisions of model and policy that are mature at `as_of_ms`; None where no decline is.

    policy: whose prices value them, which may be others than those that decided.
    """
    is_declined = (decisions.action == "decline") | decisions.is_explored
    is_mature = np.asarray(decisions.event_time) <= rule.mature_before(as_of_ms)
    kept = decisions.is_chosen & is_mature
    if not is_declined[kept].any():
        return None
    ids = decisions.transaction_id[kept]
    is_known = ~is_declined[kept] | decisions.is_explored[kept]
    outcome = known_frauds(ids, labels, rule, as_of_ms).astype(np.float64)
    logged = Logged(
        is_declined=is_declined[kept],
        is_explored=decisions.is_explored[kept],
        propensity=decisions.propensity[kept],
        outcome=np.where(is_known, outcome, np.nan),
        probability=decisions.probability[kept],
        amount=amount_major(decisions.amount_minor[kept], decisions.currency[kept]),
        card_id=decisions.person[kept],
    )
    return estimate(logged, policy, SEED)
