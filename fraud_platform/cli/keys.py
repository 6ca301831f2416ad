"""`keys`: the bearer keys of the service's keys file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import cast

from rich.table import Table

from fraud_platform.adapters.http_settings import KEYS_VARIABLE, NO_KEYS
from fraud_platform.adapters.keys import KeyScope, read_keys
from fraud_platform.adapters.keys_file import add_key, revoke_key
from fraud_platform.cli.instance import console
from fraud_platform.errors import SettingsError


def add(file: Path | None, name: str, scopes: Sequence[str], rate: float | None, expires: str) -> None:
    """Prints the new key, once and alone on standard output, so that it can be piped into a secret."""
    path = _path(file)
    ends = _day(expires) if expires else None
    key = add_key(path, name, cast(Sequence[KeyScope], scopes), _today(), rate, ends)
    print(key)
    errors = console.__class__(stderr=True)
    errors.print(f"added {name} to {path}; this key is shown once and stored nowhere", soft_wrap=True)


def show(file: Path | None) -> None:
    table = Table("name", "id", "scopes", "rate a second", "created", "expires", "state")
    today = _today()
    for entry in read_keys(_path(file)).keys:
        is_past = entry.expires is not None and entry.expires <= today
        state = f"revoked {entry.revoked}" if entry.revoked else "expired" if is_past else "valid"
        rate = "" if entry.rate is None else f"{entry.rate:g}"
        days = [str(day) if day else "" for day in (entry.created, entry.expires)]
        table.add_row(entry.name, entry.id, ", ".join(entry.scopes), rate, *days, state)
    console.print(table)


def revoke(file: Path | None, name: str) -> None:
    path = _path(file)
    entry = revoke_key(path, name, _today())
    console.print(f"revoked {entry.name} ({entry.id}) in {path}; services refuse it within a second")


def _path(file: Path | None) -> Path:
    named = os.environ.get(KEYS_VARIABLE, "")
    if file is None and named in ("", NO_KEYS):
        raise SettingsError(f"no keys file is named: give --file, or set {KEYS_VARIABLE}")
    return file if file is not None else Path(named)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"expires {text!r}: give a day as 2027-01-31") from None


def _today() -> date:
    return datetime.now(UTC).date()
