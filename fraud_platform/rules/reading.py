"""The rules file: YAML to checked rules, and back to nothing: a file that is not right is refused whole.

Belongs here: the file's grammar. Does not belong here: the expressions' (`language`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from importlib import resources
from typing import Any, get_args

from fraud_platform.errors import SettingsError
from fraud_platform.rules.files import read_yaml, require_text
from fraud_platform.rules.language import Expression, Language
from fraud_platform.rules.lists import EMPTY_LISTS_TEXT, lists_from_yaml
from fraud_platform.rules.ruleset import Mode, Rule, RuleSet
from fraud_platform.schema import ACTIONS

RULES_VERSION = 2
_KEYS = {"name", "mode", "priority", "action", "code", "text", "owner", "when"}
_DATES = {"from", "until"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def rules_from_yaml(text: str, features: Mapping[str, str], lists_text: str = EMPTY_LISTS_TEXT) -> RuleSet:
    """The rules of a file. SettingsError names the rule and what is wrong in it.

    features: each feature's dtype, "double" or "category", as `FeatureContract.dtypes`; lists_text: the
    lists file.
    """
    lists = lists_from_yaml(lists_text)
    language = Language(features, {name: one.of for name, one in lists.items()})
    loaded = read_yaml(text, "rules", RULES_VERSION)
    if not isinstance(loaded["rules"], list):
        raise SettingsError("rules must be a list of rules; see rules.yaml")
    rules = [_rule(entry, language.expression) for entry in loaded["rules"]]
    for field in ("name", "code"):
        seen = [getattr(rule, field) for rule in rules]
        doubled = sorted({value for value in seen if seen.count(value) > 1})
        if doubled:
            raise SettingsError(f"rules share the {field} {doubled}: give each its own")
    return RuleSet(rules, lists)


def load_rules_text() -> str:
    """The platform's own rules file."""
    return resources.files("fraud_platform").joinpath("rules.yaml").read_text(encoding="utf-8")


def load_lists_text() -> str:
    """The platform's own lists file."""
    return resources.files("fraud_platform").joinpath("lists.yaml").read_text(encoding="utf-8")


def load_rules(features: Mapping[str, str]) -> RuleSet:
    """The platform's own rules and lists, checked against the features of a contract."""
    return rules_from_yaml(load_rules_text(), features, load_lists_text())


def _rule(entry: Any, compiled: Callable[[str], Expression]) -> Rule:
    if not isinstance(entry, dict) or not _KEYS <= entry.keys() <= _KEYS | _DATES:
        raise SettingsError(
            f"rule {entry!r}: give exactly {sorted(_KEYS)}, and, where it has dates, {sorted(_DATES)}"
        )
    name = entry["name"]
    what = f"rule {name!r}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingsError(f"{what}: a name is of a-z, 0-9 and _, and begins with a letter")
    for field in ("code", "text", "owner", "when"):
        require_text(what, field, entry[field])
    mode: Any = "off" if entry["mode"] is False else entry["mode"]  # what YAML makes of a bare off
    if mode not in get_args(Mode):
        raise SettingsError(f"{what}: mode {mode!r} must be one of {list(get_args(Mode))}")
    if entry["action"] not in ACTIONS:
        raise SettingsError(f"{what}: action {entry['action']!r} must be one of {list(ACTIONS)}")
    if type(entry["priority"]) is not int:
        raise SettingsError(f"{what}: priority {entry['priority']!r} must be a whole number")
    begins, ends = (_day(what, field, entry.get(field)) for field in ("from", "until"))
    if begins and ends and ends < begins:
        raise SettingsError(f"{what}: until {ends} is before from {begins}; it would never count")
    plain = {key: entry[key] for key in ("name", "priority", "action", "code", "text", "owner")}
    return Rule(mode=mode, when=_when(what, entry["when"], compiled), begins=begins, ends=ends, **plain)


def _when(what: str, text: str, compiled: Callable[[str], Expression]) -> Expression:
    expression = text.strip()
    try:
        return compiled(expression)
    except SettingsError as error:
        raise SettingsError(f"{what}: `{expression}`: {error}") from None


def _day(what: str, field: str, value: Any) -> date | None:
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    raise SettingsError(f"{what}: {field} {value!r} must be a day (UTC), such as 2026-01-31")
