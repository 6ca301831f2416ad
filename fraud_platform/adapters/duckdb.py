"""The warehouse: one DuckDB file for each dataset, reached through short-lived connections.

Belongs here: connections, and the few generic reads and writes that every stage's shell needs.
Does not belong here: SQL that knows the rules of a stage (ingest: duckdb_ingest.py; features: dbt).
DuckDB allows one writing process at a time: open, write, close.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from fraud_platform.adapters.duckdb_ingest import run_ingest
from fraud_platform.adapters.duckdb_sources import find_source
from fraud_platform.errors import SettingsError, SourceError
from fraud_platform.ingest import IngestReport, Mapping

BUILDS = "builds.steps"

_MISSING_TABLE = re.compile(r'Table with name "?([^"\s]+)"? does not exist')

Parameters = Sequence[Any] | AnyMapping[str, Any] | None


@dataclass(frozen=True)
class Warehouse:
    """A DuckDB file; nothing is opened or created before the first call.

    memory_limit and threads hold for each connection; what exceeds the limit spills beside the file.
    """

    path: Path
    memory_limit: str = "4GB"
    threads: int = 2

    @contextmanager
    def connect(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in UTC, closed at the end; what was not committed by then is rolled back.

        Raises SourceError while another process writes to the warehouse (or, for a writing connection,
        reads it), and with read_only where there is no warehouse yet: reading creates none.
        """
        if read_only and not self.path.is_file():
            raise SourceError(f"there is no warehouse at {self.path}: run ingest first")
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {"memory_limit": self.memory_limit, "threads": self.threads}
        with self._open(read_only, config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            yield connection

    def _open(self, read_only: bool, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(str(self.path), read_only=read_only, config=config)
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise
            raise SourceError(
                f"another run is using the warehouse {self.path}: wait for it to end, then try again"
            ) from error

    def frame(self, sql: str, parameters: Parameters = None) -> pd.DataFrame:
        """The answer of a query as a DataFrame; SourceError for a table that is not there yet."""
        with self.connect(read_only=True) as connection:
            try:
                return connection.execute(sql, parameters).df()
            except duckdb.CatalogException as error:
                missing = _MISSING_TABLE.search(str(error))
                if not missing:
                    raise
                raise SourceError(
                    f"{_table_name(sql, missing.group(1))} is not there yet in {self.path}: "
                    "run ingest first, or materialize the asset that writes it"
                ) from error

    def exists(self, table: str) -> bool:
        """Whether `schema.table` is there (a table or a view)."""
        schema, name = _parts(table)
        if not self.path.is_file():
            return False
        query = "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = ?"
        with self.connect(read_only=True) as connection:
            return connection.execute(query, [schema, name]).fetchone() is not None

    def count(self, table: str) -> int:
        """Rows of `schema.table`; 0 where it does not exist."""
        if not self.exists(table):
            return 0
        return int(self.frame(f"SELECT count(*) AS n FROM {_quoted(table)}")["n"].iloc[0])

    def fingerprint(self, *tables: str) -> str:
        """What the rows of these tables hash to, in whatever order they lie; absent tables count as empty."""
        parts = []
        for table in tables:
            if not self.exists(table):
                parts.append(f"{table}: absent")
                continue
            frame = self.frame(f"SELECT count(*) AS n, bit_xor(hash(t)) AS x FROM {_quoted(table)} AS t")
            parts.append(f"{table}: {frame['n'].iloc[0]} {frame['x'].iloc[0]}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def built_from(self, step: str) -> str | None:
        """What `step` last said that it was built from, None where it never finished."""
        if not self.exists(BUILDS):
            return None
        found = self.frame(f"SELECT inputs FROM {BUILDS} WHERE step = ?", [step])
        return None if found.empty else str(found["inputs"].iloc[0])

    def note_build(self, step: str, inputs: str | None) -> None:
        """Remember what `step` was built from; None forgets it, before a build that may be killed."""
        with self.connect() as connection:
            connection.begin()
            connection.execute("CREATE SCHEMA IF NOT EXISTS builds")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {BUILDS} (step VARCHAR, inputs VARCHAR)")
            connection.execute(f"DELETE FROM {BUILDS} WHERE step = ?", [step])
            if inputs is not None:
                connection.execute(f"INSERT INTO {BUILDS} VALUES (?, ?)", [step, inputs])
            connection.commit()

    def write_table(self, table: str, frame: pd.DataFrame) -> int:
        """Replace `schema.table` by the frame, all or nothing; returns its rows."""
        schema, _ = _parts(table)
        with self.connect() as connection:
            connection.register("written_frame", frame)
            connection.begin()
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            connection.execute(f"CREATE OR REPLACE TABLE {_quoted(table)} AS SELECT * FROM written_frame")
            connection.commit()
        return len(frame)

    def ingest(
        self, mapping: Mapping, source: Path, now_ms: int, days: tuple[date, date] | None = None
    ) -> IngestReport:
        """Read the mapping's files below `source` (a folder, a file or a glob) into ingest.*.

        now_ms: a later event_time or known_at is in the future. days: first and last day (UTC) to take, by
        event_time, or known_at for labels. Reading the same rows again adds nothing. One transaction: an
        ingest that is stopped leaves the warehouse as it was. Raises SourceError for missing or empty
        files or columns, MappingError for a mapping that does not fit, both before anything is written.
        """
        if days is not None and days[0] > days[1]:
            raise SettingsError(f"days {days[0]} to {days[1]}: the first day must not lie after the last")
        transactions = find_source(mapping, "transactions", source)
        labels = find_source(mapping, "labels", source)
        with self.connect() as connection:
            connection.begin()
            report = run_ingest(connection, mapping, transactions, labels, now_ms, days)
            connection.commit()
        return report


def _table_name(sql: str, name: str) -> str:
    """The table as the query writes it, with its schema."""
    written = re.search(rf'\w+"?\."?{re.escape(name)}\b', sql)
    return "table " + (written.group() if written else name).replace('"', "")


def _parts(table: str) -> tuple[str, str]:
    if not re.fullmatch(r"\w+\.\w+", table):
        raise SettingsError(f"table {table!r}: give it as schema.table")
    schema, name = table.split(".")
    return schema, name


def _quoted(table: str) -> str:
    schema, name = _parts(table)
    return f'"{schema}"."{name}"'
