"""Reason texts: from a feature's name to the family whose text a person may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from typing import Any

import yaml

from fraud_platform.errors import SettingsError

REASONS_VERSION = 1
_KEYS = {"version", "families", "policy", "fallback"}


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
    """`policy`: when the amount alone decided; `fallback`: when there was no score."""

    families: tuple[Family, ...]
    policy: Text
    fallback: Text

    @classmethod
    def from_yaml(cls, text: str) -> ReasonTexts:
        """Read a reasons file. SettingsError names the family and what is wrong in it."""
        loaded = yaml.safe_load(text)
        if not isinstance(loaded, dict) or loaded.keys() != _KEYS:
            raise SettingsError(f"the reasons file must have exactly {sorted(_KEYS)}")
        if loaded["version"] != REASONS_VERSION or not isinstance(loaded["families"], list):
            raise SettingsError(
                f"the reasons file must have version: {REASONS_VERSION} and a list of families"
            )
        families = tuple(_family(entry) for entry in loaded["families"])
        policy, fallback = _text(loaded["policy"]), _text(loaded["fallback"])
        codes = [*(family.code for family in families), policy.code, fallback.code]
        if len(set(codes)) != len(codes):
            raise SettingsError(f"reason codes {codes}: give each reason its own")
        return cls(families, policy, fallback)

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
