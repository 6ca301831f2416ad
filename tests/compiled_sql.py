"""The project's own SQL, compiled by dbt once, over an in-memory DuckDB whose rows are changed at will.

Belongs here: compiling, and filling the two streams. Does not belong here: what is expected (oracle.py).
Models and their order come from dbt's manifest, so that one that is added, split or renamed is run as well.
The session's time zone is Berlin's, so that a calendar that asks for it is seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from fraud_platform.features.contract import FeatureContract
from fraud_platform.schema import LABEL_COLUMNS, TRANSACTION_COLUMNS, Column, LabelEvent, Transaction
from fraud_platform.settings import PROJECT_ROOT
from tests.oracle import Vector

DBT_PROJECT = PROJECT_ROOT / "dbt_project"
RESULT = "transaction_features"
_ARROW = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64()}


class CompiledSql:
    """`vectors` answers like an Oracle that all the events have reached."""

    def __init__(
        self, manifest: Path, contract: FeatureContract, extras: Sequence[Column], file: Path | None = None
    ) -> None:
        """file: a new DuckDB file, named as the warehouse is; None keeps everything in memory."""
        nodes: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["nodes"]
        self._manifest = manifest
        self._contract = contract
        self._extras = extras
        self._columns = {"transactions": (*TRANSACTION_COLUMNS, *extras), "labels": LABEL_COLUMNS}
        self.connection = duckdb.connect()
        self.connection.execute("SET threads = 1; SET TimeZone = 'Europe/Berlin'")
        self.models = _with_parents(nodes, f"model.fraud_platform.{RESULT}")
        database = nodes[self.models[-1]]["database"]
        place = ":memory:" if file is None else str(file)
        self.connection.execute(f'ATTACH \'{place}\' AS "{database}"; USE "{database}"')
        self.connection.execute("CREATE SCHEMA ingest")
        for table, columns in self._columns.items():
            declared = ", ".join(f"{column.name} {column.type}" for column in columns)
            self.connection.execute(f"CREATE TABLE ingest.{table} ({declared})")
        for name in self.models:
            node = nodes[name]
            if node["config"]["materialized"] != "ephemeral":
                self.connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{node["schema"]}"')
                self.connection.execute(f"CREATE VIEW {node['relation_name']} AS {node['compiled_code']}")
        self._result = nodes[self.models[-1]]["relation_name"]

    def in_file(self, file: Path) -> CompiledSql:
        """The same models over empty tables in a new file."""
        return CompiledSql(self._manifest, self._contract, self._extras, file)

    def fill(self, transactions: Iterable[Transaction], labels: Iterable[LabelEvent]) -> None:
        """Replaces both streams, as ingest would have written them: empty text is NULL."""
        columns = [column.name for column in self._columns["transactions"]]
        self._replace("transactions", [_row(event, columns) for event in transactions])
        self._replace("labels", [[e.transaction_id, e.source, e.outcome, e.known_at] for e in labels])

    def vectors(self) -> dict[str, Vector]:
        """By transaction id."""
        names = ", ".join(f'"{name}"' for name in self._contract.names)
        found = self.connection.execute(f"SELECT transaction_id, {names} FROM {self._result}").fetchall()
        vectors = {str(row[0]): tuple(row[1:]) for row in found}
        assert len(vectors) == len(found)
        return vectors

    def _replace(self, table: str, rows: list[list[Any]]) -> None:
        columns = self._columns[table]
        written_rows = pa.table(
            {
                column.name: pa.array([row[place] for row in rows], _ARROW[column.type])
                for place, column in enumerate(columns)
            }
        )
        self.connection.execute(f"DELETE FROM ingest.{table}")
        self.connection.register("written_rows", written_rows)
        self.connection.execute(f"INSERT INTO ingest.{table} SELECT * FROM written_rows")
        self.connection.unregister("written_rows")


def compile_sql(folder: Path, contract: FeatureContract, extras: Sequence[Column]) -> CompiledSql:
    """Has dbt compile the project as for a full build, over an empty warehouse in `folder`."""
    told = {
        "warehouse": str(folder / "warehouse.duckdb"),
        "spill": str(folder / "spill"),
        "extras": [
            {
                "name": column.name,
                "dtype": "category" if column.type == "VARCHAR" else "double",
                "description": column.description,
            }
            for column in extras
        ],
    }
    words = [str(Path(sys.executable).with_name("dbt")), "--quiet", "compile", "--full-refresh"]
    words += ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT), "--no-partial-parse"]
    words += ["--target-path", str(folder), "--log-path", str(folder), "--vars", json.dumps(told)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return CompiledSql(folder / "manifest.json", contract, extras)


def _with_parents(nodes: dict[str, Any], name: str) -> list[str]:
    """A model and all that it selects from, each after what it needs."""
    ordered: list[str] = []
    for parent in nodes[name]["depends_on"]["nodes"]:
        if parent in nodes and nodes[parent]["resource_type"] == "model":
            ordered += [needed for needed in _with_parents(nodes, parent) if needed not in ordered]
    return [*ordered, name]


def _row(event: Transaction, columns: Iterable[str]) -> list[Any]:
    values = [
        event.extras.get(name.removeprefix("extra_")) if name.startswith("extra_") else getattr(event, name)
        for name in columns
    ]
    return [None if value == "" else value for value in values]
