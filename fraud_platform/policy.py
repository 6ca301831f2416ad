"""From a calibrated probability and an amount to the action of least expected cost.

Belongs here: the policy file, the three expected costs, the choice and the price that made it, and what
choices really cost in hindsight.
Does not belong here: rules (`rules`), thresholds on scores (there are none), anything that reads a store.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import numpy as np

from fraud_platform.errors import SettingsError
from fraud_platform.schema import ACTIONS, Action
from fraud_platform.yaml_files import load_yaml

POLICY_VERSION = 2
SECTIONS = ("prices", "fallback", "capacity")
OPTIONAL = ("exploration",)
SHARES = ("step_up_abandonment", "step_up_bypass", "unscored_probability")

PRICES = ("missed_fraud", "blocked_customer", "step_up", "review", "capacity")
"""What can decide: the loss of a fraud that goes through, a good customer who is turned away, the effort of a
step-up, the review behind it; and the lack of capacity for what would have been cheapest."""


@dataclass(frozen=True)
class Fallback:
    """What holds where nothing was scored: the share of fraud assumed, and the answer of last resort."""

    unscored_probability: float
    fixed_action: Action


@dataclass(frozen=True)
class Capacity:
    """Limits per hour of one machine; None is unlimited."""

    step_ups_per_hour: int | None = None
    reviews_per_hour: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.step_ups_per_hour is not None or self.reviews_per_hour is not None


@dataclass(frozen=True)
class Exploration:
    """Declines of the policy that are approved all the same, so that their outcome becomes known.

    share: of the declines, at the most, from 0 (off) to below 1; seed: of the draws; loss_per_day: what the
    explored ones of a UTC day are expected to lose at the most, amount_max: of one transaction, both in major
    units.
    """

    share: float = 0.0
    seed: int = 0
    loss_per_day: float = 0.0
    amount_max: float = 0.0

    def __post_init__(self) -> None:
        """SettingsError where it is not a share, or would never find anything to explore."""
        if not 0.0 <= self.share < 1.0:
            raise SettingsError(
                f"policy exploration share={self.share!r}: is a share, from 0 to below 1; of what is always "
                "approved nothing is declined"
            )
        for name in ("loss_per_day", "amount_max"):
            if self.share > 0.0 and getattr(self, name) == 0.0:
                raise SettingsError(
                    f"policy exploration share={self.share!r} with {name}=0: nothing could ever be explored; "
                    "give a limit above 0, or share: 0"
                )

    @property
    def is_on(self) -> bool:
        return self.share > 0.0


@dataclass(frozen=True)
class PolicyDecision:
    """The open action of least expected cost; `expected_costs` are those of ACTIONS, in that order.

    saving: what it saves against the next cheapest open action (major units, infinite where none is open).

    price: which price decided. Each cost is a sum of one term a price. It is the price by whose terms the
    next cheapest action loses most against the chosen one; "capacity" where a closed action would have been
    cheaper than both; empty where no other action has a dearer term.
    """

    action: Action
    expected_costs: tuple[float, float, float]
    price: str
    saving: float


@dataclass(frozen=True)
class Policy:
    """Prices in major currency units; `step_up_abandonment` and `step_up_bypass` are shares from 0 to 1."""

    missed_fraud_fixed: float
    blocked_customer: float
    step_up_fixed: float
    step_up_abandonment: float
    step_up_bypass: float
    review: float
    fallback: Fallback
    capacity: Capacity = Capacity()
    exploration: Exploration = Exploration()

    @classmethod
    def from_yaml(cls, text: str) -> Policy:
        """Read a policy file.

        SettingsError names the entry that is missing, unknown, impossible or there twice, or the place that
        is not YAML.
        """
        loaded = load_yaml(text, "the policy file", "policy.yaml")
        if not isinstance(loaded, dict):
            raise SettingsError("the policy file must be a mapping of sections; see policy.yaml")
        version = loaded.get("version")
        if version != POLICY_VERSION:
            raise SettingsError(f"policy version {version!r}: this platform reads version {POLICY_VERSION}")
        needed = {key: value for key, value in loaded.items() if key not in OPTIONAL}
        _check_keys("sections", needed, {"version", *SECTIONS})
        names = {field.name for field in fields(cls)} - {"fallback", "capacity", "exploration"}
        prices, fallback, capacity = (
            _section(loaded, name, known)
            for name, known in zip(SECTIONS, (names, _names(Fallback), _names(Capacity)), strict=True)
        )
        return cls(
            **{name: _number("price", name, value) for name, value in prices.items()},
            fallback=Fallback(
                _number("fallback", "unscored_probability", fallback["unscored_probability"]),
                _action(fallback["fixed_action"]),
            ),
            capacity=Capacity(**{name: _limit(name, value) for name, value in capacity.items()}),
            exploration=_exploration(loaded) if "exploration" in loaded else Exploration(),
        )

    def expected_costs(self, probability: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Expected cost of each action: float64 (n, 3), columns as in ACTIONS.

        probability: (n,) from 0 to 1; amount: (n,) in major units. ValueError when a value is impossible.
        """
        p = np.asarray(probability, dtype=np.float64)
        money = np.asarray(amount, dtype=np.float64)
        if not bool(np.all((p >= 0.0) & (p <= 1.0) & (money >= 0.0) & (money < np.inf))):
            raise ValueError("probabilities must be from 0 to 1, and amounts finite and 0 or more")
        good, loss = 1.0 - p, money + self.missed_fraud_fixed
        approve = p * loss
        step_up = self.step_up_fixed + good * self._abandoned + p * self._stepped_up_fraud(loss)
        decline = good * self.blocked_customer
        return np.stack((approve, step_up, decline), axis=-1)

    def actions(self, probability: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Index into ACTIONS of the cheapest action: int8 (n,)."""
        return np.argmin(self.expected_costs(probability, amount), axis=-1).astype(np.int8)

    def decide(self, probability: float, amount: float, closed: Collection[Action] = ()) -> PolicyDecision:
        """One transaction, with the same bits as `actions` and `expected_costs`; `closed` are not chosen.

        ValueError for an impossible value, or where every action is closed.
        """
        if not (0.0 <= probability <= 1.0 and 0.0 <= amount < float("inf")):
            raise ValueError(
                f"probability {probability!r} must be from 0 to 1, and amount {amount!r} finite and 0 or more"
            )
        good, loss = 1.0 - probability, amount + self.missed_fraud_fixed
        costs = (
            probability * loss,
            self.step_up_fixed + good * self._abandoned + probability * self._stepped_up_fraud(loss),
            good * self.blocked_customer,
        )
        order = sorted(range(len(ACTIONS)), key=costs.__getitem__)
        opened = [place for place in order if ACTIONS[place] not in closed]
        if not opened:
            raise ValueError(f"closed actions {sorted(closed)}: leave one of {list(ACTIONS)} open")
        chosen = opened[0]
        price = "capacity" if chosen != order[0] else self._deciding_price(order, probability, loss)
        saving = costs[opened[1]] - costs[chosen] if len(opened) > 1 else float("inf")
        return PolicyDecision(ACTIONS[chosen], costs, price, saving)

    def decide_unscored(self, amount: float, closed: Collection[Action] = ()) -> PolicyDecision:
        """As `decide`, at the share of fraud that is assumed where nothing was scored."""
        return self.decide(self.fallback.unscored_probability, amount, closed)

    def expected_reviews(self, probability: float | None) -> float:
        """Reviews that a step-up is expected to cause: those of the frauds that it stops."""
        fraud = self.fallback.unscored_probability if probability is None else probability
        return fraud * (1.0 - self.step_up_bypass)

    def realized_costs(self, actions: np.ndarray, is_fraud: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """What the actions cost given the truth: float64 (n,).

        A step-up costs its expectation: on a good customer the share that gives up, on a fraud the share that
        passes it (amount and all) and the review of the rest.
        """
        fraud = np.asarray(is_fraud, dtype=bool)
        loss = np.asarray(amount, dtype=np.float64) + self.missed_fraud_fixed
        approve = np.where(fraud, loss, 0.0)
        step_up = self.step_up_fixed + np.where(fraud, self._stepped_up_fraud(loss), self._abandoned)
        decline = np.where(fraud, 0.0, self.blocked_customer)
        return np.choose(np.asarray(actions), (approve, step_up, decline)).astype(np.float64)

    def terms(self, action: int, probability: float, loss: float) -> tuple[float, float, float, float]:
        """The parts of an action's expected cost, one for each of PRICES but the capacity.

        loss: what a fraud that goes through costs.
        """
        good = 1.0 - probability
        if ACTIONS[action] == "approve":
            return (probability * loss, 0.0, 0.0, 0.0)
        if ACTIONS[action] == "decline":
            return (0.0, good * self.blocked_customer, 0.0, 0.0)
        stopped = probability * (1.0 - self.step_up_bypass)
        passed = probability * self.step_up_bypass * loss
        return (passed, good * self._abandoned, self.step_up_fixed, stopped * self.review)

    def _deciding_price(self, order: list[int], probability: float, loss: float) -> str:
        """Against the next cheapest action; against the one behind it where that one's terms are the same."""
        paid = self.terms(order[0], probability, loss)
        for rival in order[1:]:
            asked = self.terms(rival, probability, loss)
            spared = [other - own for other, own in zip(asked, paid, strict=True)]
            if max(spared) > 0.0:
                return PRICES[spared.index(max(spared))]
        return ""

    @property
    def _abandoned(self) -> float:
        """What a step-up costs through good customers who give up, for each good customer."""
        return self.step_up_abandonment * self.blocked_customer

    def _stepped_up_fraud(self, loss: Any) -> Any:
        """What a fraud costs that meets a step-up, beside the step-up itself."""
        return self.step_up_bypass * loss + (1.0 - self.step_up_bypass) * self.review


def load_policy_text() -> str:
    """The platform's own policy file."""
    return resources.files("fraud_platform").joinpath("policy.yaml").read_text(encoding="utf-8")


def load_policy() -> Policy:
    """The platform's own policy.

    >>> load_policy().decide(0.4, 120.0).action
    'step_up'
    """
    return Policy.from_yaml(load_policy_text())


def _names(section: type) -> set[str]:
    return {field.name for field in fields(section)}


def _section(loaded: dict[str, Any], name: str, known: set[str]) -> dict[str, Any]:
    section = loaded[name]
    if not isinstance(section, dict):
        raise SettingsError(f"policy section {name}={section!r}: must be a mapping of {sorted(known)}")
    _check_keys(name, section, known)
    return section


def _exploration(loaded: dict[str, Any]) -> Exploration:
    section = _section(loaded, "exploration", _names(Exploration))
    seed = section["seed"]
    if type(seed) is not int or seed < 0:
        raise SettingsError(f"policy exploration seed={seed!r}: must be a whole number, 0 or more")
    numbers = {name: _number("exploration", name, section[name]) for name in section if name != "seed"}
    return Exploration(seed=seed, **numbers)


def _check_keys(what: str, given: dict[str, Any], known: set[str]) -> None:
    if given.keys() != known:
        wrong = sorted(map(str, given.keys() ^ known))
        raise SettingsError(f"policy {what} {wrong}: give exactly {sorted(known)}")


def _number(what: str, name: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0.0 <= float(value) < float("inf"):  # type: ignore[arg-type]
        raise SettingsError(f"policy {what} {name}={value!r}: must be a finite number, 0 or more")
    number = float(value)  # type: ignore[arg-type]
    if name in SHARES and number > 1.0:
        raise SettingsError(f"policy {what} {name}={value!r}: is a share, from 0 to 1")
    return number


def _action(value: object) -> Action:
    if value not in ACTIONS:
        raise SettingsError(f"policy fallback fixed_action={value!r}: must be one of {list(ACTIONS)}")
    return value  # type: ignore[return-value]


def _limit(name: str, value: object) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise SettingsError(f"policy capacity {name}={value!r}: must be a whole number, 0 or more, or null")
    return value
