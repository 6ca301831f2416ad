"""Named lists of tokens that rules ask: block and allow lists of cards, devices, merchants, countries.

Belongs here: the lists file's grammar. Does not belong here: what a listed token gets (a rule).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fraud_platform.errors import SettingsError
from fraud_platform.rules.files import read_yaml, require_text
from fraud_platform.schema import looks_like_card_number

LISTS_VERSION = 1
TOKEN_LENGTH_MAX = 256
EMPTY_LISTS_TEXT = f"version: {LISTS_VERSION}\nlists: {{}}\n"
_KEYS = {"of", "text", "owner", "tokens"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class TokenList:
    """`of`: names of the request's fields and features that the list may be asked for."""

    name: str
    of: tuple[str, ...]
    text: str
    owner: str
    tokens: frozenset[str]


def lists_from_yaml(text: str) -> dict[str, TokenList]:
    """Read a lists file. SettingsError names the list and what is wrong in it, and echoes no card number."""
    loaded = read_yaml(text, "lists", LISTS_VERSION)
    if not isinstance(loaded["lists"], dict):
        raise SettingsError("lists must be a mapping of each list's name to its entry; see lists.yaml")
    return {name: _list(name, entry) for name, entry in loaded["lists"].items()}


def _list(name: object, entry: Any) -> TokenList:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingsError(f"list {name!r}: a name is of a-z, 0-9 and _, and begins with a letter")
    if not isinstance(entry, dict) or entry.keys() != _KEYS:
        raise SettingsError(f"list {name!r}: give exactly {sorted(_KEYS)}")
    for field in ("text", "owner"):
        require_text(f"list {name!r}", field, entry[field])
    of = entry["of"] if isinstance(entry["of"], list) else [entry["of"]]
    if not of or not all(isinstance(field, str) and field for field in of):
        raise SettingsError(f"list {name!r}: of must name one field or several, such as card_id")
    return TokenList(name, tuple(of), entry["text"], entry["owner"], _tokens(name, entry["tokens"]))


def _tokens(name: str, given: Any) -> frozenset[str]:
    """Of a list, or of a block of text with one token a line."""
    if isinstance(given, str):
        given = [line.strip() for line in given.splitlines() if line.strip()]
    if not isinstance(given, list):
        raise SettingsError(f"list {name!r}: tokens must be a list, or a block of text with one a line")
    for place, token in enumerate(given, start=1):
        if looks_like_card_number(str(token)):
            raise SettingsError(
                f"list {name!r}: token {place} looks like a card number (hidden); list opaque tokens only"
            )
        if not isinstance(token, str):
            raise SettingsError(f"list {name!r}: token {place}, {token!r}, must be text: put it in quotes")
        if not token.strip() or token != token.strip() or len(token) > TOKEN_LENGTH_MAX:
            raise SettingsError(
                f"list {name!r}: token {place} must have 1 to {TOKEN_LENGTH_MAX} characters, no space around"
            )
        if _CONTROL.search(token):
            raise SettingsError(f"list {name!r}: token {place} must have no control characters")
    return frozenset(given)
