"""From a feature vector to an action and its reasons: rules first, then the model, then the policy.

Belongs here: what a bundle decides on each tier of the ladder, as a function of transaction and vector, so
that a record can be judged again. Does not belong here: stores, logs, clocks, deadlines (`decider`).
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from fraud_platform.errors import BundleError
from fraud_platform.features.rows import compile_rows, transaction_place
from fraud_platform.package import Bundle
from fraud_platform.policy import PolicyDecision
from fraud_platform.rules import Verdict, verdict
from fraud_platform.schema import CURRENCY_EXPONENTS, Action, Transaction
from fraud_platform.serve.booster import Booster
from fraud_platform.serve.capacity import Wish
from fraud_platform.serve.contributions import TreeShap
from fraud_platform.serve.model_text import Forest
from fraud_platform.serve.reasons import REASONS_MAX, FamilyReasons, chosen, rule_reasons
from fraud_platform.serve.record import DecidedBy, Reason, Tier

MODEL_MISSING = "model_missing"
MODEL_FAILED = "model_failed"
MODEL_INVALID = "model_invalid"
REASONS_FAILED = "reasons_failed"

log = logging.getLogger(__name__)

Vector = tuple[float | str | None, ...]
Explain = Callable[[np.ndarray], np.ndarray]
Closed = Collection[Action] | Callable[[Wish], Collection[Action]]
"""Actions without capacity: those of a record, or who is asked for them; see `Judge.judge`."""


@dataclass(frozen=True)
class Judgement:
    """See `record.DecisionRecord` for the fields; `faults`: what was wrong with the model, sorted."""

    raw_score: float | None
    probability: float | None
    expected_costs: tuple[float, ...]
    action: Action
    decided_by: DecidedBy
    reasons: tuple[Reason, ...]
    rules: tuple[str, ...]
    shadow_rules: tuple[str, ...]
    tier: Tier
    closed_actions: tuple[Action, ...] = ()
    price: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scored:
    """What the model made of a row; no probability and no row where that is of no use, and then why."""

    raw_score: float | None = None
    probability: float | None = None
    row: np.ndarray | None = None
    faults: tuple[str, ...] = ()


class Judge:
    """A bundle, ready to judge.

    With a vector it judges in one thread at a time, since the booster keeps buffers; `judge` without a vector
    and `fixed_answer` share nothing and may be called by others meanwhile.
    """

    def __init__(self, bundle: Bundle, *, has_model: bool = True) -> None:
        """BundleError when the model cannot be read or does not fit the contract.

        has_model: False judges without reading it, by the rules and the policy's fallback (tier `rules`),
        until a bundle with a good one is there.
        """
        self.bundle = bundle
        contract = bundle.contract
        self._booster = _fitting_booster(bundle) if has_model else None
        self._explain = _explainer(bundle, self._booster) if self._booster else None
        used = self._booster.used_features if self._booster else ()
        self._families = FamilyReasons(bundle.reasons, contract.names, used)
        self._rule_places = tuple((name, contract.index(name)) for name in bundle.rules.feature_names)
        self._fill_rows = compile_rows(contract)
        self._told: set[str] = set()
        self._fixed = self._fixed_judgement()

    def judge(
        self,
        transaction: Transaction,
        vector: Vector | None,
        *,
        closed: Closed = (),
        can_score: bool = True,
    ) -> Judgement:
        """The same transaction, vector and closed actions always give the same judgement.

        vector: None judges by what the request alone tells (tier `request`). can_score: False leaves the
        model out (tier `rules`). So does a model that fails or whose score is of no use, with a fault: a
        record without a raw score is judged again with False.

        closed: the actions that have no capacity, or a function that is asked for them. It is asked once at
        most, where the answer uses capacity, and counts what it grants.
        """
        values = self._request_vector(transaction) if vector is None else vector
        read = {name: values[place] for name, place in self._rule_places}
        hits = self.bundle.rules.evaluate(read, transaction)
        live = [hit for hit in hits if hit.is_live]
        scored = self._scored(values) if vector is not None and can_score else None
        tier: Tier = "request" if vector is None else "rules"
        if scored is not None and scored.probability is not None:
            tier = "model"
        amount, probability = amount_of(transaction), scored.probability if scored else None
        ruled, base = verdict(live), self._priced(probability, amount)
        action, is_rule = ruled.joined(base.action)
        shut = self._closed(closed, base, action, ruled, probability)
        if shut:
            base = self._priced(probability, amount, shut)
            action, is_rule = ruled.joined(base.action)
        otherwise: DecidedBy = "policy" if tier == "model" else "fallback"
        reasons, faults = self._reasons(ruled, base, action, is_rule, tier, scored)
        return Judgement(
            raw_score=scored.raw_score if scored else None,
            probability=probability,
            expected_costs=base.expected_costs,
            action=action,
            decided_by="rule" if is_rule else otherwise,
            reasons=reasons,
            rules=tuple(hit.name for hit in live),
            shadow_rules=tuple(hit.name for hit in hits if not hit.is_live),
            tier=tier,
            closed_actions=shut,
            price="" if is_rule else base.price,
            faults=tuple(sorted({*faults, *(scored.faults if scored else ())})),
        )

    def fixed_answer(self) -> Judgement:
        """The policy file's answer of last resort (tier `fixed`), made beforehand: nothing here can fail."""
        return self._fixed

    def close(self) -> None:
        if self._booster:
            self._booster.close()

    def _request_vector(self, transaction: Transaction) -> Vector:
        """The features that the request alone tells; what needs a past is None."""
        values: list[float | str | None] = [None] * len(self.bundle.contract.features)
        self._fill_rows(transaction, transaction_place(transaction), values)
        return tuple(values)

    def _scored(self, vector: Vector) -> _Scored:
        """Whatever a model does wrong, a payment waits for its answer: so every error of it is a fault."""
        if self._booster is None:
            return _Scored(faults=(MODEL_MISSING,))
        try:
            row = self.bundle.encoder.vector(vector, self.bundle.contract)
            raw_score = self._booster.score(row)
            probability = float(self.bundle.calibrator(raw_score))
        except Exception:  # noqa: BLE001
            self._tell(MODEL_FAILED)
            return _Scored(faults=(MODEL_FAILED,))
        if math.isfinite(raw_score) and 0.0 <= probability <= 1.0:
            return _Scored(raw_score, probability, row)
        self._tell(MODEL_INVALID)
        return _Scored(faults=(MODEL_INVALID,))

    def _priced(
        self, probability: float | None, amount: float, closed: Collection[Action] = ()
    ) -> PolicyDecision:
        policy = self.bundle.policy
        if probability is None:
            return policy.decide_unscored(amount, closed)
        return policy.decide(probability, amount, closed)

    def _closed(
        self,
        closed: Closed,
        base: PolicyDecision,
        action: Action,
        ruled: Verdict,
        probability: float | None,
    ) -> tuple[Action, ...]:
        """The closed actions that are to be obeyed, asked for only where the action uses what is limited."""
        if not callable(closed):
            return tuple(closed)
        policy = self.bundle.policy
        if action != "step_up" or not policy.capacity.is_limited:
            return ()
        is_due = ruled.action == action
        wish = Wish(base.saving, policy.expected_reviews(probability), policy.capacity, is_due)
        return tuple(closed(wish))

    def _reasons(
        self,
        ruled: Verdict,
        base: PolicyDecision,
        action: Action,
        is_rule: bool,
        tier: Tier,
        scored: _Scored | None,
    ) -> tuple[tuple[Reason, ...], tuple[str, ...]]:
        """Rules first; where policy or fallback were not for approval either, their causes and the price."""
        texts = self.bundle.reasons
        if action == "approve":
            return (), ()
        rules = rule_reasons(ruled.heard, texts)
        if base.action == "approve" or ruled.is_final:
            return chosen(rules, [], None), ()
        price = None if is_rule or not base.price else texts.prices[base.price]
        if tier != "model":
            fallback = texts.fallback[tier]
            return chosen(rules, [Reason(fallback.code, fallback.text)], price), ()
        if len(rules) + (price is not None) >= REASONS_MAX or scored is None or scored.row is None:
            return chosen(rules, [], price), ()
        causes, faults = self._causes(scored.row)
        return chosen(rules, causes, price), faults

    def _causes(self, row: np.ndarray) -> tuple[list[Reason], tuple[str, ...]]:
        assert self._explain is not None
        try:
            return self._families.of(row, self._explain(row)), ()
        except Exception:  # noqa: BLE001
            self._tell(REASONS_FAILED)
            return [], (REASONS_FAILED,)

    def _tell(self, fault: str) -> None:
        """Once: a model that fails, fails for every payment."""
        if fault not in self._told:
            self._told.add(fault)
            log.error(
                "bundle %s: %s; told once", self.bundle.id[:12], fault, exc_info=sys.exc_info()[0] is not None
            )

    def _fixed_judgement(self) -> Judgement:
        action, text = self.bundle.policy.fallback.fixed_action, self.bundle.reasons.fallback["fixed"]
        return Judgement(
            raw_score=None,
            probability=None,
            expected_costs=(),
            action=action,
            decided_by="fallback",
            reasons=() if action == "approve" else (Reason(text.code, text.text),),
            rules=(),
            shadow_rules=(),
            tier="fixed",
        )


def amount_of(transaction: Transaction) -> float:
    """The amount in major units of its currency."""
    return transaction.amount_minor / 10 ** CURRENCY_EXPONENTS[transaction.currency]


def _fitting_booster(bundle: Bundle) -> Booster:
    booster, width = Booster(bundle.model_text), len(bundle.contract.names)
    if booster.feature_count != width:
        raise BundleError(
            f"the model reads {booster.feature_count} features, the contract has {width}: "
            "package the model with the contract it was trained on"
        )
    return booster


def _explainer(bundle: Bundle, booster: Booster) -> Explain:
    """TreeSHAP over all trees at once; LightGBM's own call where the model has what that does not know."""
    width = booster.feature_count
    expected = booster.contributions(np.zeros(width))  # the first one builds LightGBM's buffers
    forest = Forest.of(bundle.model_text)
    if forest is None:
        return booster.contributions
    explain = TreeShap(forest, width).contributions
    is_same = np.allclose(explain(np.zeros(width)), expected, rtol=1e-9, atol=1e-12)
    return explain if is_same else booster.contributions
