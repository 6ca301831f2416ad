"""Rules over feature values: written by people, checked before they run, the same answer for one and many.

Belongs here: the rule file's grammar, evaluation of one transaction and of columns.
Does not belong here: what an action costs (`policy`), where feature values come from (`features`).
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, get_args

import numpy as np
import yaml

from fraud_platform.errors import SettingsError
from fraud_platform.schema import ACTIONS, Action

RULES_VERSION = 1
Mode = Literal["live", "shadow", "off"]
Value = float | str | None

_ORDER = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_EQUAL = {"==": operator.eq, "!=": operator.ne}
_MEMBER: dict[str, Callable[[Any, Any], bool]] = {
    "in": lambda value, listed: value in listed,
    "not_in": lambda value, listed: value not in listed,
}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {**_ORDER, **_EQUAL, **_MEMBER}
_RULE_KEYS = {"name", "mode", "priority", "action", "code", "text", "all"}


@dataclass(frozen=True)
class Condition:
    """`feature op value`. A value of another kind (text against a number), NULL and NaN never hold."""

    feature: str
    op: str
    value: float | str | tuple[float, ...] | tuple[str, ...]

    @property
    def is_text(self) -> bool:
        sample = self.value[0] if isinstance(self.value, tuple) else self.value
        return isinstance(sample, str)

    def test(self) -> Callable[[Value], bool]:
        """The condition as a function of one feature value."""
        compare, expected = _OPERATORS[self.op], self.value
        if self.is_text:
            return lambda value: isinstance(value, str) and compare(value, expected)
        return lambda value: _is_number(value) and value == value and compare(value, expected)

    def mask(self, column: np.ndarray) -> np.ndarray:
        """The condition on a column: bool (n,)."""
        if column.dtype.kind in "biuf" and not self.is_text:
            return self._number_mask(column)
        return np.fromiter(map(self.test(), column.tolist()), dtype=bool, count=len(column))

    def _number_mask(self, column: np.ndarray) -> np.ndarray:
        if self.op in _MEMBER:
            found = np.isin(column, self.value)
            held = found if self.op == "in" else ~found
        else:
            held = _OPERATORS[self.op](column, self.value)
        return held & (column == column)  # NaN is not equal to itself


@dataclass(frozen=True)
class Rule:
    name: str
    mode: Mode
    priority: int
    action: Action
    code: str
    text: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class RuleHit:
    """A rule that fired. Only hits of mode `live` may change an action."""

    name: str
    mode: Mode
    priority: int
    action: Action
    code: str
    text: str

    @property
    def is_live(self) -> bool:
        return self.mode == "live"


class RuleSet:
    """Rules that are live or in shadow, strongest action first, then by priority."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        active = (rule for rule in rules if rule.mode != "off")
        order = sorted(active, key=lambda r: (-ACTIONS.index(r.action), r.priority, r.name))
        self.rules: tuple[Rule, ...] = tuple(order)
        self._compiled = tuple((_hit(rule), _tests(rule)) for rule in self.rules)

    @classmethod
    def from_yaml(cls, text: str, feature_names: Sequence[str]) -> RuleSet:
        """Read a rules file. SettingsError names the rule and what is wrong in it."""
        loaded = yaml.safe_load(text)
        if not isinstance(loaded, dict) or loaded.get("version") != RULES_VERSION:
            raise SettingsError(f"the rules file must be a mapping with version: {RULES_VERSION}")
        if not isinstance(loaded.get("rules"), list) or loaded.keys() != {"version", "rules"}:
            raise SettingsError("the rules file must have exactly version and a list of rules")
        rules = [_rule(entry, frozenset(feature_names)) for entry in loaded["rules"]]
        for field in ("name", "code"):
            seen = [getattr(rule, field) for rule in rules]
            doubled = sorted({value for value in seen if seen.count(value) > 1})
            if doubled:
                raise SettingsError(f"rules share the {field} {doubled}: give each its own")
        return cls(rules)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that the rules read, sorted."""
        return tuple(sorted({c.feature for rule in self.rules for c in rule.conditions}))

    def evaluate(self, values: Mapping[str, Value]) -> tuple[RuleHit, ...]:
        """Every live or shadow rule that fires, strongest action first. A feature not given is unknown."""
        get = values.get
        hits = []
        for hit, tests in self._compiled:
            for feature, test in tests:
                if not test(get(feature)):
                    break
            else:
                hits.append(hit)
        return tuple(hits)

    def hits(self, columns: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
        """For each live or shadow rule, by name, where it fires: bool (n,)."""
        return {rule.name: _rule_mask(rule, columns, n) for rule in self.rules}

    def actions(self, columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """Index into ACTIONS of the strongest live rule: int8 (n,), -1 where none fires."""
        strongest = np.full(n, -1, dtype=np.int8)
        for rule in self.rules:
            if rule.mode == "live":
                level = np.int8(ACTIONS.index(rule.action))
                fired = _rule_mask(rule, columns, n)
                strongest[fired] = np.maximum(strongest[fired], level)
        return strongest


def load_rules_text() -> str:
    """The platform's own rules file."""
    return resources.files("fraud_platform").joinpath("rules.yaml").read_text(encoding="utf-8")


def load_rules(feature_names: Sequence[str]) -> RuleSet:
    """The platform's own rules, checked against the features of a contract."""
    return RuleSet.from_yaml(load_rules_text(), feature_names)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _hit(rule: Rule) -> RuleHit:
    return RuleHit(rule.name, rule.mode, rule.priority, rule.action, rule.code, rule.text)


def _tests(rule: Rule) -> tuple[tuple[str, Callable[[Value], bool]], ...]:
    return tuple((condition.feature, condition.test()) for condition in rule.conditions)


def _rule_mask(rule: Rule, columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    fired = np.ones(n, dtype=bool)
    for condition in rule.conditions:
        column = columns.get(condition.feature)
        fired &= np.zeros(n, dtype=bool) if column is None else condition.mask(np.asarray(column))
    return fired


def _rule(entry: object, features: frozenset[str]) -> Rule:
    if not isinstance(entry, dict) or entry.keys() != _RULE_KEYS:
        raise SettingsError(f"rule {entry!r}: give exactly {sorted(_RULE_KEYS)}")
    name = entry["name"]
    for field in ("name", "code", "text"):
        if not isinstance(entry[field], str) or not entry[field].strip():
            raise SettingsError(f"rule {name!r}: {field} must be text and not empty")
    if entry["mode"] not in get_args(Mode):
        raise SettingsError(f"rule {name!r}: mode {entry['mode']!r} must be one of {list(get_args(Mode))}")
    if entry["action"] not in ACTIONS:
        raise SettingsError(f"rule {name!r}: action {entry['action']!r} must be one of {list(ACTIONS)}")
    if type(entry["priority"]) is not int:
        raise SettingsError(f"rule {name!r}: priority {entry['priority']!r} must be a whole number")
    if not isinstance(entry["all"], list) or not entry["all"]:
        raise SettingsError(f"rule {name!r}: all must list at least one condition")
    conditions = tuple(_condition(name, item, features) for item in entry["all"])
    rest = {key: entry[key] for key in ("mode", "priority", "action", "code", "text")}
    return Rule(name=name, conditions=conditions, **rest)


def _condition(rule: str, item: object, features: frozenset[str]) -> Condition:
    if not isinstance(item, dict) or item.keys() != {"feature", "op", "value"}:
        raise SettingsError(f"rule {rule!r}: condition {item!r} must have exactly feature, op and value")
    feature, op = item["feature"], item["op"]
    if feature not in features:
        near = difflib.get_close_matches(str(feature), features, n=3)
        known = f"near it: {near}" if near else f"known: {sorted(features)}"
        raise SettingsError(f"rule {rule!r}: no feature {feature!r}; {known}")
    if op not in _OPERATORS:
        raise SettingsError(f"rule {rule!r}: op {op!r} must be one of {list(_OPERATORS)}")
    return Condition(feature, op, _value(rule, op, item["value"]))


def _value(rule: str, op: str, value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) != (op in _MEMBER) or not values:
        raise SettingsError(f"rule {rule!r}: op {op!r} cannot take {value!r}; only in and not_in take lists")
    is_text = all(isinstance(v, str) and v for v in values)
    is_number = all(type(v) in (int, float) and v == v for v in values)
    if not (is_text or is_number) or (is_text and op in _ORDER):
        raise SettingsError(f"rule {rule!r}: {op} {value!r} must compare numbers, or equal text")
    listed = tuple(values if is_text else map(float, values))
    return listed if op in _MEMBER else listed[0]
