"""What customers and the till see of a contender's choices, as rates of all sessions.

A session is one row: a customer who wants to pay. With g for good rows and f for frauds:

- sales: amounts of g that are approved at once;
- reinstated: amounts of g that meet a step-up, times the share that passes it (1 - step_up_abandonment): what
  a decline in its place would have lost;
- fraud_loss: amounts of f that are approved, and of f that meet a step-up times step_up_bypass;
- conversion = (sales + reinstated - fraud_loss) / sessions: fraud-loss-adjusted conversion.

No row is counted twice: a step-up's passed sales are in `reinstated` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.policy import Policy
from fraud_platform.schema import ACTIONS


@dataclass(frozen=True)
class Rates:
    """One contender on all rows.

    false_positive_rate: share of good rows that are stepped up or declined; false_decline_rate: share of
    good rows that are declined; recall: share of frauds that are stepped up or declined; precision: share
    of frauds among rows that are; cost_per_transaction, sales, reinstated, fraud_loss, conversion: major
    units; conversion_count: the same as conversion with every amount at 1. A share of nothing is 0.
    """

    false_positive_rate: float
    false_decline_rate: float
    recall: float
    precision: float
    cost_per_transaction: float
    sales: float
    reinstated: float
    fraud_loss: float
    conversion: float
    conversion_count: float

    def metrics(self) -> dict[str, float]:
        """Numbers by name, for a tracker; `recall` and `precision` are those of the actions."""
        return {
            "false_positive_rate": self.false_positive_rate,
            "false_decline_rate": self.false_decline_rate,
            "action_recall": self.recall,
            "action_precision": self.precision,
            "cost_per_transaction": self.cost_per_transaction,
            "conversion_per_session": self.conversion,
            "conversion_count_per_session": self.conversion_count,
        }

    def __str__(self) -> str:
        return (
            f"false positives {self.false_positive_rate:.3%} (declines {self.false_decline_rate:.3%}), "
            f"{self.cost_per_transaction:.4f} a transaction, "
            f"conversion {self.conversion:.3f} a session ({self.conversion_count:.3%} of sessions)"
        )


def rates(actions: np.ndarray, is_fraud: np.ndarray, amount: np.ndarray, policy: Policy) -> Rates:
    """Of actions (index into ACTIONS), truth and amounts in major units, each (n,) with n above 0."""
    fraud, money = np.asarray(is_fraud, dtype=bool), np.asarray(amount, dtype=np.float64)
    approved, stepped_up, declined = (np.asarray(actions) == place for place in range(len(ACTIONS)))
    good, stopped = ~fraud, ~approved
    sessions = len(money)
    passes, bypass = 1.0 - policy.step_up_abandonment, policy.step_up_bypass
    value, count = (
        (
            float(worth[good & approved].sum()),
            float(worth[good & stepped_up].sum()) * passes,
            float(worth[fraud & approved].sum()) + float(worth[fraud & stepped_up].sum()) * bypass,
        )
        for worth in (money, np.ones(sessions))
    )
    return Rates(
        false_positive_rate=_share(good & stopped, good),
        false_decline_rate=_share(good & declined, good),
        recall=_share(fraud & stopped, fraud),
        precision=_share(fraud & stopped, stopped),
        cost_per_transaction=float(policy.realized_costs(actions, fraud, money).sum()) / sessions,
        sales=value[0],
        reinstated=value[1],
        fraud_loss=value[2],
        conversion=(value[0] + value[1] - value[2]) / sessions,
        conversion_count=(count[0] + count[1] - count[2]) / sessions,
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return int(part.sum()) / max(int(whole.sum()), 1)
