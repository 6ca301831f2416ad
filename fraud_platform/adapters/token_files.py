"""DuckDB: the raw ids of a CSV or Parquet file become the tokens that the service makes of them.

Belongs here: files. Does not belong here: what a token is (`tokens`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fraud_platform.adapters.tokens import RAW_FIELDS, Tokeniser
from fraud_platform.errors import RequestError, SourceError
from fraud_platform.ingest.sql import identifier, literal

READERS = {".csv": "read_csv({}, all_varchar = true)", ".parquet": "read_parquet({})"}


@dataclass(frozen=True)
class TokenReport:
    """rows: of the file; tokens, refused: for each column, how many values became tokens and how many became
    NULL, since they are no such id."""

    rows: int
    tokens: dict[str, int]
    refused: dict[str, int]


def tokenise_file(
    source: Path, target: Path, columns: Mapping[str, str], tokeniser: Tokeniser
) -> TokenReport:
    """Writes the file with tokens in the place of raw ids; other columns stay as they are.

    columns: name -> a field of tokens.RAW_FIELDS. Nothing raw of these columns gets into the target: what is
    no such id becomes NULL, and is counted. SourceError for a file or a column that is missing.
    """
    for column, kind in columns.items():
        if kind not in RAW_FIELDS:
            raise SourceError(f"column {column!r} as {kind!r}: give one of {', '.join(RAW_FIELDS)}")
    reader, writer = _table(source), _format(target)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    replaced = ", ".join(f"{_call(kind, name)} AS {identifier(name)}" for name, kind in columns.items())
    try:
        with duckdb.connect() as connection:
            for kind in set(columns.values()):
                made = _or_empty(tokeniser, kind)
                connection.create_function(f"token_{kind}", made, ["VARCHAR"], "VARCHAR")
            _require_columns(connection, reader, source, columns)
            selected = f"SELECT * REPLACE ({replaced}) FROM {reader}"
            connection.execute(f"COPY ({selected}) TO {literal(str(unfinished))} ({writer})")
            report = _report(connection, reader, _table(unfinished, target.suffix), columns)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return report


def _or_empty(tokeniser: Tokeniser, kind: str) -> Callable[[str], str]:
    def token(value: str) -> str:
        try:
            return tokeniser.token(kind, value)
        except RequestError:
            return ""

    return token


def _call(kind: str, column: str) -> str:
    return f"nullif(token_{kind}({_text(column)}), '')"


def _text(column: str) -> str:
    return f"nullif(trim(CAST({identifier(column)} AS VARCHAR)), '')"


def _table(path: Path, suffix: str = "") -> str:
    reader = READERS.get((suffix or path.suffix).lower())
    if reader is None:
        raise SourceError(f"file {path}: give a file that ends in {' or '.join(READERS)}")
    if not suffix and not path.exists():
        raise SourceError(f"file {path} is not there")
    return reader.format(literal(str(path)))


def _format(path: Path) -> str:
    if path.suffix.lower() not in READERS:
        raise SourceError(f"file {path}: give a file that ends in {' or '.join(READERS)}")
    return "FORMAT parquet" if path.suffix.lower() == ".parquet" else "FORMAT csv, HEADER"


def _require_columns(
    connection: duckdb.DuckDBPyConnection, reader: str, source: Path, columns: Mapping[str, str]
) -> None:
    there = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()]
    missing = sorted(set(columns) - set(there))
    if missing:
        raise SourceError(f"file {source} has no column {missing}; it has {there}")


def _report(
    connection: duckdb.DuckDBPyConnection, source: str, target: str, columns: Mapping[str, str]
) -> TokenReport:
    counts = ", ".join(f"count({_text(name)})" for name in columns)
    rows, *given = connection.execute(f"SELECT count(*), {counts} FROM {source}").fetchone() or (0,)
    _, *made = connection.execute(f"SELECT count(*), {counts} FROM {target}").fetchone() or (0,)
    tokens = dict(zip(columns, made, strict=True))
    refused = {name: before - tokens[name] for name, before in zip(columns, given, strict=True)}
    return TokenReport(rows, tokens, refused)
