"""Where each feature of a contract is used: by rules, by other features, in reasons, by the model.

Belongs here: reading that out of texts that a bundle holds. Does not belong here: showing it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.package.reasons import ReasonTexts
from fraud_platform.rules import RuleSet


@dataclass(frozen=True)
class Usage:
    """`rules`: names of the rules that read the feature, of any mode; `read_by`: row expressions that do;
    `reason`: the code of its reason family; `gain_share`: of the model's total gain, None without a model."""

    feature: Feature
    rules: tuple[str, ...]
    read_by: tuple[str, ...]
    reason: str
    gain_share: float | None


def usages(
    contract: FeatureContract, rules: RuleSet, reasons: ReasonTexts, gains: Mapping[str, float] | None
) -> tuple[Usage, ...]:
    """In contract order. Raises SettingsError for a feature without a reason family."""
    families = reasons.family_of(contract.names)
    return tuple(
        Usage(
            feature=feature,
            rules=tuple(rule.name for rule in rules.declared if feature.name in rule.when.features),
            read_by=tuple(other.name for other in contract.features if feature.name in other.inputs),
            reason=reasons.families[family].code,
            gain_share=None if gains is None else gains.get(feature.name, 0.0),
        )
        for feature, family in zip(contract.features, families, strict=True)
    )


def gain_shares(model_text: str) -> dict[str, float]:
    """Each feature's share of the total gain of a LightGBM model, from its text: without loading it."""
    names: list[str] = []
    places: list[str] = []
    gains: dict[str, float] = defaultdict(float)
    for line in model_text.splitlines():
        key, _, value = line.partition("=")
        if key == "feature_names":
            names = value.split()
        elif key == "split_feature":
            places = value.split()
        elif key == "split_gain":
            for place, gain in zip(places, value.split(), strict=True):
                gains[names[int(place)]] += float(gain)
    total = sum(gains.values())
    return {name: gain / total for name, gain in gains.items()} if total else {}
