"""Keyed tokens for raw ids: what a card number, a customer, a device or an address becomes before it is seen.

A token is `tok_` and 160 bits of HMAC-SHA-256, in base32, over the kind of id and its canonical form. Whoever
has the tokens and not the key learns nothing: without a key, all card numbers are hashed in an afternoon.
Equal ids give equal tokens, in requests and in files alike; one value as customer and as device gives
different ones. Another key gives other tokens, and with them no history: a key is kept for as long as the
tokens.

Belongs here: canonical forms, tokens, requests with `raw`. Does not belong here: files (`token_files`).
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fraud_platform.errors import RequestError, SettingsError

KEY_BYTES_MIN, KEY_BYTES_MAX = 32, 4096
TOKEN_BYTES = 20
PREFIX = "tok_"
RAW = "raw"
RAW_FIELDS = {"card_number": "card_id", "customer": "customer_id", "device": "device_id", "ip": "ip_id"}
"""Field of `raw` -> the field of the transaction that its token becomes."""
TEXT_LENGTH_MAX = 1_024
HIDDEN = "(hidden: raw)"

_DOMAIN = b"fraud_platform token v1"
_BETWEEN_DIGITS = re.compile(r"[\s.\-\u2010-\u2015]")


class Tokeniser:
    """Makes tokens with one key. key: 32 or more random bytes; SettingsError for a key that is not."""

    def __init__(self, key: bytes) -> None:
        if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            raise SettingsError(f"token key of {len(key)} bytes: give {KEY_BYTES_MIN} or more random bytes")
        if len(set(key)) < 8:
            raise SettingsError("token key of fewer than 8 different bytes is not random: make a new one")
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> Tokeniser:
        """The file's bytes, all of them, are the key."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise SettingsError(f"token key file {path}: {error.strerror}") from None
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, and nothing about them: for logs, to see that two sides use the same."""
        return self._mac("fingerprint", b"")[:4].hex()

    def token(self, kind: str, value: str) -> str:
        """kind: a field of RAW_FIELDS. RequestError, without the value, where it is no such id."""
        return PREFIX + _base32(self._mac(kind, canonical_id(kind, value).encode())[:TOKEN_BYTES])

    def tokenised(self, request: bytes) -> bytes:
        """The request with the tokens of what its `raw` holds, and without `raw`.

        What is no JSON object, or has no `raw`, comes back as it is. RequestError, without a raw value, where
        a raw id is wrong or the transaction already has the field that its token becomes.
        """
        fields = _object(request)
        if fields is None or RAW not in fields:
            return request
        raw = fields.pop(RAW)
        if not isinstance(raw, dict) or not raw:
            raise RequestError(RAW, None, f"must be an object with one or more of {', '.join(RAW_FIELDS)}")
        for kind, value in raw.items():
            if kind not in RAW_FIELDS:
                raise RequestError(RAW, None, f"has a field that is none of {', '.join(RAW_FIELDS)}")
            field = RAW_FIELDS[kind]
            if field in fields:
                raise RequestError(field, None, f"is given twice: give {field} or {RAW}.{kind}, not both")
            if not isinstance(value, str):
                raise RequestError(f"{RAW}.{kind}", HIDDEN, "must be text")
            fields[field] = self.token(kind, value)
        return msgspec.json.encode(fields)

    def _mac(self, kind: str, value: bytes) -> bytes:
        return hmac.digest(self._key, b"\0".join((_DOMAIN, kind.encode(), value)), "sha256")


def canonical_id(kind: str, value: str) -> str:
    """The one form of a raw id. RequestError, without the value, where it is no such id.

    >>> canonical_id("card_number", "4111 1111-1111 1111"), canonical_id("ip", "2001:DB8::0:1")
    ('4111111111111111', '2001:db8::1')
    """
    if len(value) > TEXT_LENGTH_MAX:
        raise _refused(kind, f"must have at most {TEXT_LENGTH_MAX} characters")
    text = unicodedata.normalize("NFKC", value).strip()
    canonical = _CANONICAL[kind](text)
    if not canonical:
        raise _refused(kind, _RULES[kind])
    return canonical


def has_raw(request: bytes) -> bool:
    """Whether a request may have a `raw` field: a cheap question that sees nearly every request."""
    return b'"raw"' in request


def _digits(text: str) -> str:
    digits = _BETWEEN_DIGITS.sub("", text)
    return digits if 12 <= len(digits) <= 19 and digits.isascii() and digits.isdigit() else ""


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return ""
        return str(address.ipv4_mapped or address)
    return str(address)


def _folded(text: str) -> str:
    return "" if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text) else text.casefold()


_CANONICAL: dict[str, Callable[[str], str]] = {
    "card_number": _digits,
    "customer": _folded,
    "device": _folded,
    "ip": _address,
}
_RULES = {
    "card_number": "must be 12 to 19 digits; spaces, dots and hyphens may stand between them",
    "customer": "must be text without control characters",
    "device": "must be text without control characters",
    "ip": "must be an IPv4 or IPv6 address without a zone",
}


def _refused(kind: str, rule: str) -> RequestError:
    return RequestError(f"{RAW}.{kind}", HIDDEN, rule)


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().lower()


def _object(request: bytes) -> dict[str, Any] | None:
    try:
        loaded = msgspec.json.decode(request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # the decoder that follows says what is wrong
    return loaded if isinstance(loaded, dict) else None
