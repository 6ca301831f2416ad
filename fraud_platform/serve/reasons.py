"""Which reasons an action has: of the rules that fired, the families that raised the score, and the price.

Belongs here: the choice of at most REASONS_MAX texts, so that tiny changes do not change it.
Does not belong here: the texts (`package.reasons`), contributions (`booster`), the action itself (`judge`).

A family is named by its share of everything that raised the score. Shares are rounded to a grid, and equal
ones stand in the order of the reasons file, so that the last bits of a sum decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fraud_platform.package.reasons import ReasonTexts, Text
from fraud_platform.rules import RuleHit
from fraud_platform.serve.record import Reason

REASONS_MAX = 4
SHARE_STEPS = 20
"""Shares are rounded to twentieths."""
SHARE_MIN_STEPS = 2
"""A family with less than this, a tenth, is not named, unless it is the strongest."""


class FamilyReasons:
    """From the contributions of features to the families that a person is told."""

    def __init__(self, texts: ReasonTexts, names: Sequence[str], used: Iterable[int]) -> None:
        """names: the model's features in order; used: places of those that it splits by."""
        self._families = texts.families
        self._family_of = np.array(texts.family_of(names))
        self._is_used = np.zeros(len(names), dtype=bool)
        self._is_used[list(used)] = True

    def of(self, row: np.ndarray, contributions: np.ndarray) -> list[Reason]:
        """The strongest first. row, contributions: float64 (k,); what is NaN in the row was not scored."""
        is_scored = self._is_used & ~np.isnan(row)
        raised = np.where(is_scored, contributions, 0.0)
        sums = np.bincount(self._family_of, weights=raised, minlength=len(self._families)).tolist()
        total = sum(value for value in sums if value > 0.0)
        steps = {place: round(value / total * SHARE_STEPS) for place, value in enumerate(sums) if value > 0.0}
        order = sorted(steps, key=lambda place: (-steps[place], place))
        named = [place for place in order if steps[place] >= SHARE_MIN_STEPS] or order[:1]
        return [Reason(self._families[place].code, self._families[place].text) for place in named]


def rule_reasons(live: Iterable[RuleHit], texts: ReasonTexts) -> list[Reason]:
    """Of the rules that fired against approval, in their order."""
    return [Reason(hit.code, texts.rules[hit.code]) for hit in live if hit.action != "approve"]


def chosen(rules: list[Reason], causes: list[Reason], price: Text | None) -> tuple[Reason, ...]:
    """At most REASONS_MAX: rules, then causes; the price comes last and always has its place behind causes.

    causes: why the risk was thought high: families of the model, or the fallback.
    """
    last = [] if price is None or len(rules) >= REASONS_MAX else [Reason(price.code, price.text)]
    return (*(rules + causes)[: REASONS_MAX - len(last)], *last)
