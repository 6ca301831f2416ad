"""From a calibrated probability and an amount to the action of least expected cost.

Belongs here: the prices, the three expected costs, the choice, and what choices really cost in hindsight.
Does not belong here: rules (`rules`), thresholds on scores (there are none), anything that reads a store.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources

import numpy as np
import yaml

from fraud_platform.errors import SettingsError
from fraud_platform.schema import ACTIONS, Action

POLICY_VERSION = 1


@dataclass(frozen=True)
class PolicyDecision:
    """The action of least expected cost; `expected_costs` are those of ACTIONS, in that order."""

    action: Action
    expected_costs: tuple[float, float, float]


@dataclass(frozen=True)
class Policy:
    """Prices in major currency units; `step_up_abandonment` is a share from 0 to 1."""

    missed_fraud_fixed: float
    blocked_customer: float
    step_up_fixed: float
    step_up_abandonment: float
    review: float

    @classmethod
    def from_yaml(cls, text: str) -> Policy:
        """Read a policy file. SettingsError names the price that is missing, unknown or impossible."""
        loaded = yaml.safe_load(text)
        if not isinstance(loaded, dict):
            raise SettingsError("the policy file must be a mapping of prices; see policy.yaml")
        prices = dict(loaded)
        version = prices.pop("version", None)
        if version != POLICY_VERSION:
            raise SettingsError(f"policy version {version!r}: this platform reads version {POLICY_VERSION}")
        known = {field.name for field in fields(cls)}
        if prices.keys() != known:
            wrong = sorted(prices.keys() ^ known)
            raise SettingsError(f"policy prices {wrong}: give exactly {sorted(known)}")
        return cls(**{name: _price(name, value) for name, value in prices.items()})

    def expected_costs(self, probability: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Expected cost of each action: float64 (n, 3), columns as in ACTIONS.

        probability: (n,) from 0 to 1; amount: (n,) in major units. ValueError when a value is impossible.
        """
        p = np.asarray(probability, dtype=np.float64)
        money = np.asarray(amount, dtype=np.float64)
        if not bool(np.all((p >= 0.0) & (p <= 1.0) & (money >= 0.0) & (money < np.inf))):
            raise ValueError("probabilities must be from 0 to 1, and amounts finite and 0 or more")
        good = 1.0 - p
        approve = p * (money + self.missed_fraud_fixed)
        step_up = self.step_up_fixed + good * self._abandoned + p * self.review
        decline = good * self.blocked_customer
        return np.stack((approve, step_up, decline), axis=-1)

    def actions(self, probability: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Index into ACTIONS of the cheapest action: int8 (n,)."""
        return np.argmin(self.expected_costs(probability, amount), axis=-1).astype(np.int8)

    def decide(self, probability: float, amount: float) -> PolicyDecision:
        """One transaction, with the same bits as `actions` and `expected_costs`."""
        if not (0.0 <= probability <= 1.0 and 0.0 <= amount < float("inf")):
            raise ValueError(
                f"probability {probability!r} must be from 0 to 1, and amount {amount!r} finite and 0 or more"
            )
        good = 1.0 - probability
        costs = (
            probability * (amount + self.missed_fraud_fixed),
            self.step_up_fixed + good * self._abandoned + probability * self.review,
            good * self.blocked_customer,
        )
        return PolicyDecision(ACTIONS[costs.index(min(costs))], costs)

    def realized_costs(self, actions: np.ndarray, is_fraud: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """What the actions cost given the truth: float64 (n,).

        A step-up on a good customer costs its expectation: the step-up and the share that gives up.
        """
        fraud = np.asarray(is_fraud, dtype=bool)
        money = np.asarray(amount, dtype=np.float64)
        approve = np.where(fraud, money + self.missed_fraud_fixed, 0.0)
        step_up = np.where(fraud, self.step_up_fixed + self.review, self.step_up_fixed + self._abandoned)
        decline = np.where(fraud, 0.0, self.blocked_customer)
        return np.choose(np.asarray(actions), (approve, step_up, decline)).astype(np.float64)

    @property
    def _abandoned(self) -> float:
        """What a step-up costs through good customers who give up, for each good customer."""
        return self.step_up_abandonment * self.blocked_customer


def load_policy_text() -> str:
    """The platform's own policy file."""
    return resources.files("fraud_platform").joinpath("policy.yaml").read_text(encoding="utf-8")


def load_policy() -> Policy:
    """The platform's own policy.

    >>> load_policy().decide(0.5, 120.0).action
    'step_up'
    """
    return Policy.from_yaml(load_policy_text())


def _price(name: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0.0 <= float(value) < float("inf"):  # type: ignore[arg-type]
        raise SettingsError(f"policy price {name}={value!r}: must be a finite number, 0 or more")
    price = float(value)  # type: ignore[arg-type]
    if name == "step_up_abandonment" and price > 1.0:
        raise SettingsError(f"policy price {name}={value!r}: is a share, from 0 to 1")
    return price
