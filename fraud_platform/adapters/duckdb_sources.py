"""A mapping's source files: found, looked at, and put before DuckDB as one relation.

Belongs here: globs, file formats, headers, and the checks that stop an ingest before anything is written.
Does not belong here: what the rows mean (the plan) and what becomes of them (duckdb_ingest.py).
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from fraud_platform.errors import MappingError, SourceError
from fraud_platform.ingest import FILE, ROW, Mapping, source_expressions, stream_mapping
from fraud_platform.ingest.plan import Stream
from fraud_platform.ingest.sql import identifier, literal

Format = Literal["parquet", "csv"]
_FORMATS: dict[str, Format] = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".csv.gz": "csv"}
FIELD_SIZE_MAX = 2**31 - 1
"""Characters: the most that the csv module can be told, so that no line stops the count."""
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class SourceFile:
    """One file: `name` is its path below the source root; columns in order with their DuckDB types."""

    path: Path
    name: str
    format: Format
    columns: tuple[tuple[str, str], ...]
    delimiter: str = ","


@dataclass(frozen=True)
class Source:
    """The files of one stream, in the order of their names, and the types the mapping's expressions have."""

    stream: Stream
    files: tuple[SourceFile, ...]

    def of(self, format: Format) -> tuple[SourceFile, ...]:
        return tuple(file for file in self.files if file.format == format)


def find_source(mapping: Mapping, stream: Stream, root: Path) -> Source:
    """The stream's files below `root` (a folder, one file, or a glob), each checked against the mapping.

    Raises SourceError for no file, an unreadable or empty file or a missing column, and MappingError for an
    expression that is not valid SQL. Nothing is written.
    """
    paths = _paths(stream_mapping(mapping, stream).files, stream, root)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        files = tuple(_look_at(connection, path, name) for name, path in sorted(paths.items()))
        checked: set[tuple[tuple[str, str], ...]] = set()
        for file in files:
            if file.columns not in checked:
                _check_expressions(connection, mapping, stream, file)
                checked.add(file.columns)
    return Source(stream, files)


def _paths(globs: tuple[str, ...], stream: str, root: Path) -> dict[str, Path]:
    """Files by their name: the path below the root."""
    if root.is_file():
        found, base = [root], root.parent
    elif root.is_dir():
        found, base = [path for glob in globs for path in root.glob(glob)], root
    else:
        base = Path(root.anchor, *_until_pattern(root.relative_to(root.anchor).parts))
        pattern = str(root.relative_to(base))
        if pattern == "." or not base.is_dir():
            raise SourceError(f"source {str(root)!r} does not exist: give a folder, a file or a glob")
        found, globs = list(base.glob(pattern)), (pattern,)
    paths = {p.relative_to(base).as_posix(): p for p in found if p.is_file() and p.name[0] not in "._"}
    if not paths:
        raise SourceError(
            f"no file of {stream} matches {', '.join(globs)} below {base}: check source and mapping"
        )
    return paths


def _until_pattern(parts: Iterable[str]) -> list[str]:
    fixed: list[str] = []
    for part in parts:
        if any(sign in part for sign in "*?["):
            break
        fixed.append(part)
    return fixed


def _look_at(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> SourceFile:
    lower = path.name.lower()
    format = next((kind for suffix, kind in _FORMATS.items() if lower.endswith(suffix)), None)
    if format is None:
        raise SourceError(f"{path}: neither parquet nor CSV; give {', '.join(_FORMATS)}, or narrow the glob")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes): deliver it again, or remove it")
    file = _look_at_csv(path, name) if format == "csv" else _look_at_parquet(connection, path, name)
    query = f"SELECT 1 FROM ({relation_sql(Source('transactions', (file,)))}) LIMIT 1"
    try:
        is_empty = not connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if is_empty:
        raise SourceError(f"{path} is empty (columns, but no readable row): deliver it again, or remove it")
    return file


def _look_at_parquet(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> SourceFile:
    query = f"DESCRIBE SELECT * FROM read_parquet({literal(str(path))}, hive_partitioning = false)"
    try:
        columns = connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise SourceError(f"{path} is not a readable parquet file: {error}") from error
    return SourceFile(path, name, "parquet", tuple((column[0], column[1]) for column in columns))


def _look_at_csv(path: Path, name: str) -> SourceFile:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as lines:
            header = lines.readline().decode("utf-8-sig")
    except (UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise SourceError(f"{path} is not CSV in UTF-8: {error}") from error
    delimiter = max(_DELIMITERS, key=header.count)
    names = [column.strip() for column in next(csv.reader([header], delimiter=delimiter), [])]
    if not all(names) or len({column.lower() for column in names}) < len(names):
        raise SourceError(f"{path}: header {header.strip()!r} must name every column, each once: correct it")
    return SourceFile(path, name, "csv", tuple((column, "VARCHAR") for column in names), delimiter)


def _check_expressions(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, stream: Stream, file: SourceFile
) -> None:
    empty = ", ".join(f"CAST(NULL AS {kind}) AS {identifier(name)}" for name, kind in file.columns)
    for column, expression in source_expressions(mapping, stream).items():
        query = f"SELECT TRY(({expression}\n)) FROM (SELECT {empty}) WHERE false"
        place = f"mapping {mapping.name!r}, {stream}.{column}: {expression!r}"
        try:
            if len(connection.extract_statements(query)) != 1:
                raise MappingError(f"{place} is more than one SQL expression")
            connection.execute(query)
        except duckdb.BinderException as error:
            known = {name.lower() for name, _ in file.columns}
            missing = [n for n in _columns_of(connection, expression) if n.lower() not in known]
            if not missing:
                raise MappingError(f"{place} does not fit {file.path}: {error}") from error
            has = ", ".join(name for name, _ in file.columns)
            raise SourceError(
                f"{file.path} has no column {missing[0]!r}, which {place} reads; it has {has}. "
                f"Correct the file or the mapping (a constant is written in quotes within the expression)"
            ) from error
        except duckdb.Error as error:
            raise MappingError(f"{place} is not valid SQL: {error}") from error


def _columns_of(connection: duckdb.DuckDBPyConnection, expression: str) -> list[str]:
    """Names of the columns that an expression reads, in order."""
    tree = "json_serialize_sql(CAST($1 AS VARCHAR))"
    query = f"SELECT json_extract_string({tree}, '$..column_names[-1]')"
    row = connection.execute(query, [f"SELECT ({expression}\n)"]).fetchone()
    return list(row[0]) if row else []


def relation_sql(source: Source) -> str:
    """A query that gives every source row, with __source_file and __source_row (1 = the first data row).

    Malformed CSV lines are not counted yet: DuckDB knows of them only when the files have been read.
    """
    parts = []
    if parquet := source.of("parquet"):
        parts.append(_parquet_sql(parquet))
    parts += [_csv_sql(file) for file in source.of("csv")]
    return " UNION ALL BY NAME ".join(parts)


def _parquet_sql(files: tuple[SourceFile, ...]) -> str:
    paths = ", ".join(literal(str(file.path)) for file in files)
    root = str(files[0].path).removesuffix(files[0].name)
    return (
        f"SELECT * EXCLUDE (__path, file_row_number), substr(__path, {len(root) + 1}) AS {FILE}, "
        f"file_row_number + 1 AS {ROW} FROM read_parquet([{paths}], union_by_name = true, "
        "filename = '__path', file_row_number = true, hive_partitioning = false)"
    )


def blank_lines(file: SourceFile) -> list[int]:
    """Where a CSV file has blank lines, which give no row: data lines from 1, one of many lines is one."""
    if len(file.columns) == 1:
        return []  # there a blank line is a row: a missing value
    opener = gzip.open if file.path.suffix == ".gz" else open
    with opener(file.path, "rt", encoding="utf-8", errors="replace", newline="") as lines:
        csv.field_size_limit(FIELD_SIZE_MAX)
        return [n for n, row in enumerate(csv.reader(lines, delimiter=file.delimiter)) if not row]


def _csv_sql(file: SourceFile) -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name, _ in file.columns)
    return (
        f"SELECT *, {literal(file.name)} AS {FILE}, row_number() OVER () AS {ROW} FROM "
        f"read_csv({literal(str(file.path))}, columns = {{{columns}}}, auto_detect = false, header = true, "
        f"delim = {literal(file.delimiter)}, quote = '\"', escape = '\"', strict_mode = true, "
        "store_rejects = true, hive_partitioning = false)"
    )
