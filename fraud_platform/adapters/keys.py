"""Bearer keys: what a keys file holds, and whether a key that was sent is one of them.

    keys:
    - name: checkout
      id: 7k2m4qzvxw
      digest: 5b6f...               # SHA-256 of the whole key, in hexadecimal
      scopes: [decide, label]
      rate: 500                     # transactions or label events a second, of one worker; absent: no limit
      expires: 2027-01-01           # valid before that day, UTC; absent: no end
      created: 2026-11-24
      revoked: 2026-12-01           # absent while it is valid

A key is `fpk_<id>_<secret>`, its secret 256 random bits. Nobody can try them all, so one SHA-256 is enough; a
slow hash (bcrypt, argon2) protects what people choose, and would cost each request a hundred times a
decision.

Belongs here: reading, checking, reloading. Does not belong here: changing the file (`keys_file`), HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import msgspec

from fraud_platform.errors import FraudPlatformError, SettingsError
from fraud_platform.yaml_files import load_yaml

KeyScope = Literal["decide", "label", "read", "admin"]
SCOPES: tuple[KeyScope, ...] = ("decide", "label", "read", "admin")
Refusal = Literal["missing", "unknown", "expired", "revoked", "scope"]

PREFIX = "fpk"
RELOAD_SECONDS = 1.0
_NO_DIGEST = bytes(32)

logger = logging.getLogger("bentoml.fraud_platform.keys")


class KeyRefusedError(FraudPlatformError):
    """A key that does not open the door; `reason` says why, and never which part of it was wrong."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(f"key refused: {reason}")
        self.reason = reason


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key of the file; see above. Dates are days of UTC."""

    name: str
    id: str
    digest: str
    scopes: tuple[KeyScope, ...]
    rate: float | None = None
    expires: date | None = None
    created: date | None = None
    revoked: date | None = None


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[KeyEntry, ...] = ()


@dataclass(frozen=True)
class Key:
    """A key that may be used. expires_s: seconds since 1970 UTC; rate: see KeyEntry."""

    name: str
    digest: bytes
    scopes: frozenset[KeyScope]
    rate: float | None = None
    expires_s: float = float("inf")
    is_revoked: bool = False


def read_keys(path: Path) -> KeyFile:
    """The file's keys. SettingsError where it is missing, is no keys file, or an id or an entry's field
    stands twice."""
    try:
        loaded = load_yaml(path.read_bytes().decode() or "{}", f"keys file {path}", "`keys add`")
        file = msgspec.convert(loaded, KeyFile, builtin_types=(date, datetime))
    except OSError as error:
        raise SettingsError(f"keys file {path}: {error.strerror}; make one with `keys add`") from None
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        problem = str(error).splitlines()[0]
        raise SettingsError(f"keys file {path}: {problem}; repair it, or make one with `keys add`") from None
    for entry in file.keys:
        if len(entry.digest) != 64 or not _is_hexadecimal(entry.digest):
            raise SettingsError(f"keys file {path}: digest of {entry.name!r} is no SHA-256 in hexadecimal")
        if entry.rate is not None and not entry.rate > 0:
            raise SettingsError(f"keys file {path}: rate of {entry.name!r} must be above 0, or absent")
    if len({entry.id for entry in file.keys}) < len(file.keys):
        raise SettingsError(f"keys file {path}: two keys have one id; remove one of them")
    return file


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Keyring:
    """The keys of a file, followed while it changes: it is looked at once a second at the most.

    A changed file that cannot be read is logged, and the keys that were known stay: half an edit locks nobody
    out. clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._clock, self._monotonic = path, clock, monotonic
        self._stamp = _stamp(path)
        self._keys = _by_id(read_keys(path).keys)
        self._next_look = monotonic() + RELOAD_SECONDS

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, sent: str) -> Key:
        """The key that was sent. KeyRefusedError where it is unknown, expired or revoked.

        The digests are compared in constant time, an unknown id's with one that nothing has.
        """
        if self._monotonic() >= self._next_look:
            self._look()
        parts = sent.split("_", 2)
        known = self._keys.get(parts[1]) if len(parts) == 3 and parts[0] == PREFIX else None
        digest = hashlib.sha256(sent.encode("utf-8", "replace")).digest()
        is_equal = hmac.compare_digest(digest, _NO_DIGEST if known is None else known.digest)
        if known is None or not is_equal:
            raise KeyRefusedError("unknown")
        if known.is_revoked:
            raise KeyRefusedError("revoked")
        if self._clock() >= known.expires_s:
            raise KeyRefusedError("expired")
        return known

    def _look(self) -> None:
        self._next_look = self._monotonic() + RELOAD_SECONDS
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._keys = _by_id(read_keys(self._path).keys)
        except SettingsError as error:
            logger.error("the keys stay as they were: %s", error)
        else:
            logger.info("%d keys from %s", len(self._keys), self._path)


def _by_id(entries: Iterable[KeyEntry]) -> dict[str, Key]:
    return {
        entry.id: Key(
            name=entry.name,
            digest=bytes.fromhex(entry.digest),
            scopes=frozenset(entry.scopes),
            rate=entry.rate,
            expires_s=_seconds(entry.expires) if entry.expires else float("inf"),
            is_revoked=entry.revoked is not None,
        )
        for entry in entries
    }


def _seconds(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _is_hexadecimal(text: str) -> bool:
    return all(sign in "0123456789abcdef" for sign in text)
