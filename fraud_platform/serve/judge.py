"""From a feature vector to an action and its reasons: rules first, then the model, then the policy.

Belongs here: what a bundle decides, as a pure function of transaction and vector, so that a record can be
judged again. Does not belong here: stores, logs, clocks (`decider`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fraud_platform.errors import BundleError
from fraud_platform.package import Bundle
from fraud_platform.rules import RuleHit, Verdict, verdict
from fraud_platform.schema import ACTIONS, CURRENCY_EXPONENTS, Action, Transaction
from fraud_platform.serve.booster import Booster
from fraud_platform.serve.record import DecidedBy, Reason, Tier

REASONS_MAX = 4
FALLBACK_ACTION: Action = "step_up"
"""What a transaction gets that could not be scored, unless a rule is stronger."""

Vector = tuple[float | str | None, ...]


@dataclass(frozen=True)
class Judgement:
    """See `record.DecisionRecord` for the fields."""

    raw_score: float | None
    probability: float | None
    expected_costs: tuple[float, ...]
    action: Action
    decided_by: DecidedBy
    reasons: tuple[Reason, ...]
    rules: tuple[str, ...]
    shadow_rules: tuple[str, ...]
    tier: Tier


class Judge:
    """A bundle, ready to judge. Not safe for several threads at once."""

    def __init__(self, bundle: Bundle) -> None:
        """BundleError when the model cannot be read or does not fit the contract."""
        self.bundle = bundle
        self._booster = Booster(bundle.model_text)
        width = len(bundle.contract.names)
        if self._booster.feature_count != width:
            raise BundleError(
                f"the model reads {self._booster.feature_count} features, the contract has {width}: "
                "package the model with the contract it was trained on"
            )
        index = bundle.contract.index
        self._rule_places = tuple((name, index(name)) for name in bundle.rules.feature_names)
        self._family_of = np.array(bundle.reasons.family_of(bundle.contract.names))
        self._booster.contributions(np.zeros(width))  # the first one builds LightGBM's buffers

    def judge(self, transaction: Transaction, vector: Vector) -> Judgement:
        """The same transaction and vector always give the same judgement."""
        values = {name: vector[place] for name, place in self._rule_places}
        hits = self.bundle.rules.evaluate(values, transaction)
        live = [hit for hit in hits if hit.is_live]
        row = self.bundle.encoder.vector(vector, self.bundle.contract)
        raw_score, probability = self._score(row)
        base, costs = self._price(probability, amount_of(transaction))
        ruled = verdict(live)
        base = "approve" if ruled.is_final else base  # an approving rule: the policy is not heard
        action, is_rule = _strongest(ruled, base)
        otherwise: DecidedBy = "fallback" if probability is None else "policy"
        return Judgement(
            raw_score=raw_score,
            probability=probability,
            expected_costs=costs,
            action=action,
            decided_by="rule" if is_rule else otherwise,
            reasons=()
            if action == "approve"
            else self._reasons(ruled.heard, base, row, probability is not None),
            rules=tuple(hit.name for hit in live),
            shadow_rules=tuple(hit.name for hit in hits if not hit.is_live),
            tier="rules" if probability is None else "model",
        )

    def close(self) -> None:
        self._booster.close()

    def _score(self, row: np.ndarray) -> tuple[float | None, float | None]:
        """(raw score, probability), both None when either is no number that can be used."""
        raw_score = self._booster.score(row)
        probability = float(self.bundle.calibrator(raw_score))
        is_usable = math.isfinite(raw_score) and 0.0 <= probability <= 1.0
        return (raw_score, probability) if is_usable else (None, None)

    def _price(self, probability: float | None, amount: float) -> tuple[Action, tuple[float, ...]]:
        """The policy's action and its expected costs, or the fallback's action and none."""
        if probability is None:
            return FALLBACK_ACTION, ()
        decision = self.bundle.policy.decide(probability, amount)
        return decision.action, decision.expected_costs

    def _reasons(
        self, heard: tuple[RuleHit, ...], base: Action, row: np.ndarray, is_scored: bool
    ) -> tuple[Reason, ...]:
        """Rules first; then, where policy or fallback were not for approval either, their reasons."""
        reasons = [Reason(hit.code, hit.text) for hit in heard[:REASONS_MAX]]
        if base == "approve" or len(reasons) == REASONS_MAX:
            return tuple(reasons)
        texts = self.bundle.reasons
        if not is_scored:
            return (*reasons, Reason(texts.fallback.code, texts.fallback.text))
        reasons += self._model_reasons(row)[: REASONS_MAX - len(reasons)]
        return tuple(reasons) or (Reason(texts.policy.code, texts.policy.text),)

    def _model_reasons(self, row: np.ndarray) -> list[Reason]:
        """Families whose known features raised the score, the strongest first."""
        raised = np.where(np.isnan(row), 0.0, self._booster.contributions(row))
        families = self.bundle.reasons.families
        sums = np.bincount(self._family_of, weights=raised, minlength=len(families))
        order = [int(i) for i in np.argsort(-sums, kind="stable") if sums[i] > 0.0]
        return [Reason(families[i].code, families[i].text) for i in order]


def amount_of(transaction: Transaction) -> float:
    """The amount in major units of its currency."""
    return transaction.amount_minor / 10 ** CURRENCY_EXPONENTS[transaction.currency]


def _strongest(ruled: Verdict, base: Action) -> tuple[Action, bool]:
    """The stronger of rules and base, and whether it is the rules'."""
    if ruled.action is not None and ACTIONS.index(ruled.action) > ACTIONS.index(base):
        return ruled.action, True
    return base, ruled.is_final
