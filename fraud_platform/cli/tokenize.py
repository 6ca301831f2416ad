"""`tokenize`: the raw ids of a file become the tokens that the service makes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fraud_platform.adapters.http_settings import TOKEN_KEY_VARIABLE
from fraud_platform.adapters.token_files import tokenise_file
from fraud_platform.adapters.tokens import RAW_FIELDS, Tokeniser
from fraud_platform.cli.instance import console
from fraud_platform.errors import SettingsError


def tokenize(source: Path, target: Path, columns: Sequence[str], key_file: Path | None) -> None:
    """Raises SettingsError where no key is named or a column is not given as NAME=KIND."""
    named = key_file or os.environ.get(TOKEN_KEY_VARIABLE)
    if not named:
        raise SettingsError(f"no token key is named: give --key-file, or set {TOKEN_KEY_VARIABLE}")
    tokeniser = Tokeniser.from_file(Path(named))
    report = tokenise_file(source, target, dict(map(_pair, columns)), tokeniser)
    console.print(f"{report.rows} rows, token key {tokeniser.fingerprint}: {target}", soft_wrap=True)
    for column, tokens in report.tokens.items():
        console.print(f"{column}: {tokens} tokens, {report.refused[column]} values that are no such id")


def _pair(text: str) -> tuple[str, str]:
    column, is_there, kind = text.rpartition("=")
    if not is_there or not column or kind not in RAW_FIELDS:
        raise SettingsError(f"column {text!r}: give COLUMN=KIND, with one of {', '.join(RAW_FIELDS)}")
    return column, kind
