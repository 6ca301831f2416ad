"""Rules over features, requests and lists: written by people, checked when read, the same for one and many.

Belongs here: the rules file, the lists file, their language and their evaluation.
Does not belong here: what an action costs (`policy`), where feature values come from (`features`).
"""

from fraud_platform.rules.inputs import Value
from fraud_platform.rules.language import FIELD_TYPES, REQUEST
from fraud_platform.rules.lists import EMPTY_LISTS_TEXT, LISTS_VERSION, TokenList, lists_from_yaml
from fraud_platform.rules.reading import (
    RULES_VERSION,
    load_lists_text,
    load_rules,
    load_rules_text,
    rules_from_yaml,
)
from fraud_platform.rules.ruleset import Mode, Rule, RuleHit, RuleSet, Verdict, verdict

__all__ = [
    "EMPTY_LISTS_TEXT",
    "FIELD_TYPES",
    "LISTS_VERSION",
    "REQUEST",
    "RULES_VERSION",
    "Mode",
    "Rule",
    "RuleHit",
    "RuleSet",
    "TokenList",
    "Value",
    "Verdict",
    "lists_from_yaml",
    "load_lists_text",
    "load_rules",
    "load_rules_text",
    "rules_from_yaml",
    "verdict",
]
