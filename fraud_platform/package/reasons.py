"""Reason texts: from a rule's code, a price, a tier or a feature's name to what a person may read.

Belongs here: the file of all texts and its checks. Does not belong here: which reasons an action has
(`serve.reasons`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from typing import Any

from fraud_platform.errors import SettingsError
from fraud_platform.policy import PRICES
from fraud_platform.yaml_files import load_yaml

REASONS_VERSION = 2
UNSCORED_TIERS = ("rules", "request", "fixed")
_KEYS = {"version", "rules", "fallback", "prices", "families"}


@dataclass(frozen=True)
class Family:
    """Features that share one reason; `patterns` are shell patterns over feature names."""

    code: str
    text: str
    patterns: tuple[str, ...]

    def matches(self, feature: str) -> bool:
        return any(fnmatchcase(feature, pattern) for pattern in self.patterns)


@dataclass(frozen=True)
class Text:
    code: str
    text: str


@dataclass(frozen=True)
class ReasonTexts:
    """`rules`: texts by the rules' codes; `fallback`: by the tier that answered without a score; `prices`: by
    the price that made the policy choose."""

    families: tuple[Family, ...]
    rules: Mapping[str, str]
    fallback: Mapping[str, Text]
    prices: Mapping[str, Text]

    @classmethod
    def from_yaml(cls, text: str) -> ReasonTexts:
        """Read a reasons file. SettingsError names the entry and what is wrong in it."""
        loaded = load_yaml(text, "the reasons file", "reasons.yaml")
        if not isinstance(loaded, dict) or loaded.keys() != _KEYS:
            raise SettingsError(f"the reasons file must have exactly {sorted(_KEYS)}")
        if loaded["version"] != REASONS_VERSION or not isinstance(loaded["families"], list):
            raise SettingsError(
                f"the reasons file must have version: {REASONS_VERSION} and a list of families"
            )
        found = cls(
            families=tuple(_family(entry) for entry in loaded["families"]),
            rules=_rules(loaded["rules"]),
            fallback=_texts("fallback", loaded["fallback"], UNSCORED_TIERS),
            prices=_texts("prices", loaded["prices"], PRICES),
        )
        shared = [code for code, count in Counter(found.codes).items() if count > 1]
        if shared:
            raise SettingsError(f"reason codes {shared}: give each reason its own")
        return found

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code of the file, rules first."""
        families = [family.code for family in self.families]
        return (*self.rules, *families, *(t.code for t in (*self.fallback.values(), *self.prices.values())))

    def check_rules(self, codes: Iterable[str]) -> None:
        """SettingsError names the codes of rules that have no text here."""
        if missing := sorted(set(codes) - self.rules.keys()):
            raise SettingsError(f"rule codes {missing} have no text; add them to the reasons file")

    def family_of(self, features: Sequence[str]) -> tuple[int, ...]:
        """For each feature the index of its family. SettingsError names a feature without one."""
        return tuple(self._index(feature) for feature in features)

    def _index(self, feature: str) -> int:
        for index, family in enumerate(self.families):
            if family.matches(feature):
                return index
        raise SettingsError(f"feature {feature!r} has no reason family; add a pattern to the reasons file")


def load_reasons_text() -> str:
    """The platform's own reasons file."""
    return resources.files("fraud_platform.package").joinpath("reasons.yaml").read_text(encoding="utf-8")


def _rules(entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise SettingsError(f"reason rules {entry!r}: must be a mapping of codes to texts")
    return {said.code: said.text for said in (_text({"code": c, "text": t}) for c, t in entry.items())}


def _texts(section: str, entry: Any, names: Sequence[str]) -> dict[str, Text]:
    if not isinstance(entry, dict) or entry.keys() != set(names):
        raise SettingsError(f"reason {section} {entry!r}: give exactly {list(names)}")
    return {name: _text(entry[name]) for name in names}


def _family(entry: Any) -> Family:
    if not isinstance(entry, dict) or "features" not in entry:
        raise SettingsError(f"reason family {entry!r}: give exactly code, text and features")
    said = _text({key: value for key, value in entry.items() if key != "features"})
    patterns = entry["features"]
    if not isinstance(patterns, list) or not patterns or not all(isinstance(p, str) for p in patterns):
        raise SettingsError(f"reason family {said.code!r}: features must list name patterns")
    return Family(said.code, said.text, tuple(patterns))


def _text(entry: Any) -> Text:
    if not isinstance(entry, dict) or entry.keys() != {"code", "text"}:
        raise SettingsError(f"reason {entry!r}: give exactly code and text")
    for field in ("code", "text"):
        if not isinstance(entry[field], str) or not entry[field].strip():
            raise SettingsError(f"reason {entry!r}: {field} must be text and not empty")
    return Text(entry["code"], entry["text"])
