"""Changing a keys file: a new key, a revoked one. The key itself is shown once and kept nowhere.

Belongs here: what `fraud-platform keys` does. Does not belong here: checking keys (`keys`).
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import msgspec

from fraud_platform.adapters.keys import PREFIX, SCOPES, KeyEntry, KeyFile, KeyScope, digest_of, read_keys
from fraud_platform.errors import SettingsError

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_SIGNS, _SECRET_SIGNS = 10, 52
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def add_key(
    path: Path, name: str, scopes: Sequence[KeyScope], today: date, rate: float | None, expires: date | None
) -> str:
    """Adds a key to the file, which is made where there is none, and returns the key.

    SettingsError for a name that a valid key has, a scope that is none, or a day that has passed.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"key name {name!r}: use up to 63 letters, digits, dots, hyphens and underscores")
    if not scopes or set(scopes) - set(SCOPES):
        raise SettingsError(f"scopes {list(scopes)}: give one or more of {', '.join(SCOPES)}")
    if expires is not None and expires <= today:
        raise SettingsError(f"expires {expires}: give a day after today, {today}")
    if rate is not None and not 0 < rate < float("inf"):
        raise SettingsError(f"rate {rate}: give a number a second above 0, or none")
    with _locked(path):
        known = read_keys(path).keys if path.exists() else ()
        if any(entry.name == name and entry.revoked is None for entry in known):
            raise SettingsError(f"key {name!r} is there already: revoke it first, or give another name")
        identity, secret = _random(_ID_SIGNS), _random(_SECRET_SIGNS)
        key = f"{PREFIX}_{identity}_{secret}"
        ordered = tuple(scope for scope in SCOPES if scope in scopes)
        entry = KeyEntry(
            name=name,
            id=identity,
            digest=digest_of(key),
            scopes=ordered,
            rate=rate,
            expires=expires,
            created=today,
        )
        _write(path, KeyFile((*known, entry)))
    return key


def revoke_key(path: Path, name: str, today: date) -> KeyEntry:
    """Marks the valid key of that name as revoked; running services refuse it within a second."""
    with _locked(path):
        known = read_keys(path).keys
        found = next((entry for entry in known if entry.name == name and entry.revoked is None), None)
        if found is None:
            names = [entry.name for entry in known if entry.revoked is None]
            raise SettingsError(f"no valid key is named {name!r}; there are {names}")
        revoked = msgspec.structs.replace(found, revoked=today)
        _write(path, KeyFile(tuple(revoked if entry is found else entry for entry in known)))
    return revoked


def _random(signs: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(signs))


def _write(path: Path, file: KeyFile) -> None:
    """In the file's place at once, readable by its owner only where it is new."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as output:
            output.write(msgspec.yaml.encode(file))
            output.flush()
            os.fsync(output.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One change at a time: two would otherwise lose one of their keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
