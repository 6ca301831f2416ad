"""Runs an ingest plan inside one DuckDB transaction that the caller begins and commits.

Belongs here: the order of the steps and the SQL that settles duplicates, quarantine and counts.
Does not belong here: what makes a row bad (ingest/rules.py), finding files (duckdb_sources.py).

Steps for each stream: judge every source row by itself; settle the good ones against what is canonical and
against each other; add the new ones; release from quarantine what has become good; store what was refused.
"""

from __future__ import annotations

from datetime import date

import duckdb

from fraud_platform.adapters.duckdb_quarantine import (
    NO_READMISSION,
    affected,
    collect_malformed,
    count_rows,
    create_quarantine,
    readmit_waiting_labels,
    release_good_rows,
    store_refused,
)
from fraud_platform.adapters.duckdb_sources import Source, relation_sql
from fraud_platform.errors import FraudPlatformError, MappingError, SourceError
from fraud_platform.ingest import (
    FILE,
    ROW,
    IngestReport,
    Mapping,
    StreamPlan,
    StreamReport,
    plan_stream,
    source_expressions,
)
from fraud_platform.schema import LABEL_COLUMNS, Column

Connection = duckdb.DuckDBPyConnection


def run_ingest(
    connection: Connection,
    mapping: Mapping,
    transactions: Source,
    labels: Source,
    now_ms: int,
    days: tuple[date, date] | None,
) -> IngestReport:
    """Both streams, transactions first, so that a label finds its transaction."""
    _create_tables(connection, mapping)
    streams = [_run_stream(connection, mapping, source, now_ms, days) for source in (transactions, labels)]
    return IngestReport(*streams)


def _create_tables(connection: Connection, mapping: Mapping) -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS ingest")
    _create_table(connection, "ingest.transactions", mapping.transaction_columns)
    _create_table(connection, "ingest.labels", LABEL_COLUMNS)
    create_quarantine(connection)
    stored = [(row[0], row[1]) for row in connection.execute("DESCRIBE ingest.transactions").fetchall()]
    wanted = [(column.name, column.type) for column in mapping.transaction_columns]
    if stored != wanted:
        differing = ", ".join(sorted(name for name, _ in set(stored) ^ set(wanted)) or ["their order"])
        raise MappingError(
            f"mapping {mapping.name!r} and its warehouse differ in the columns of transactions: {differing}. "
            "Ingest into a new warehouse, or under a new dataset name"
        )


def _create_table(connection: Connection, table: str, columns: tuple[Column, ...]) -> None:
    body = ", ".join(f"{c.name} {c.type}{' NOT NULL' if c.is_required else ''}" for c in columns)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({body})")


def _run_stream(
    connection: Connection, mapping: Mapping, source: Source, now_ms: int, days: tuple[date, date] | None
) -> StreamReport:
    relation, settled = f"source_{source.stream}", f"settled_{source.stream}"
    _open_source(connection, source, relation)
    types = _types(connection, mapping, source, relation)
    plan = plan_stream(mapping, source.stream, types, relation, now_ms, days)
    before = count_rows(connection, plan.table)
    _evaluate(connection, plan)
    _settle(connection, plan, settled)
    canonical = _add_canonical(connection, plan, settled)
    released = release_good_rows(connection, plan.stream, settled, relation)
    refused = store_refused(connection, plan, settled, relation, now_ms)
    readmission = readmit_waiting_labels(connection) if plan.stream == "labels" else NO_READMISSION
    if count_rows(connection, plan.table) != before + canonical + readmission.added:
        raise FraudPlatformError(
            f"{plan.table} had {before} rows and did not grow by {canonical} + {readmission.added}; "
            "nothing was written: report this as a defect"
        )
    return StreamReport(
        stream=plan.stream,
        rows_in=count_rows(connection, settled) + refused.malformed,
        canonical=canonical,
        duplicates=count_rows(connection, f"{settled} WHERE verdict = 'duplicate'") + refused.repeated,
        quarantined=refused.quarantined,
        already_quarantined=refused.already,
        released=released + readmission.released,
        readmitted=readmission.added,
        quarantined_by_rule=refused.by_rule,
    )


def _open_source(connection: Connection, source: Source, relation: str) -> None:
    """The source's rows as a relation: CSV is read once, into a table; parquet stays where it is."""
    kind = "TABLE" if source.of("csv") else "VIEW"
    try:
        connection.execute(f"CREATE TEMP {kind} {relation} AS {relation_sql(source)}")
    except duckdb.Error as error:
        raise SourceError(f"the files of {source.stream} cannot be read together: {error}") from error
    collect_malformed(connection, source, relation)


def _types(connection: Connection, mapping: Mapping, source: Source, relation: str) -> dict[str, str]:
    """The DuckDB type of each expression of the mapping over all files together."""
    expressions = source_expressions(mapping, source.stream)
    values = ", ".join(f'({sql}\n) AS "{column}"' for column, sql in expressions.items())
    try:
        described = connection.execute(f"DESCRIBE SELECT {values} FROM {relation}").fetchall()
    except duckdb.BinderException as error:
        raise SourceError(
            f"the files of {source.stream} fit the mapping one by one but not together; their column types "
            f"differ: {error}"
        ) from error
    return {row[0]: row[1] for row in described}


def _evaluate(connection: Connection, plan: StreamPlan) -> None:
    connection.execute("SET disabled_optimizers = 'common_subexpressions'")
    try:
        connection.execute(f"CREATE TEMP TABLE evaluated_{plan.stream} AS {plan.evaluated}")
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise SourceError(f"the files of {plan.stream} cannot be read to their end: {error}") from error
    connection.execute("RESET disabled_optimizers")


def _settle(connection: Connection, plan: StreamPlan, settled: str) -> None:
    """Every row with its verdict: refused, canonical (new), duplicate, or conflict.

    Of several good copies of one id the canonical one wins, else the first by file and row. A label has no
    id: the same content is the same event, so its key is the whole row.
    """
    names = [column.name for column in plan.columns]
    key = ", ".join(["transaction_id"] if plan.stream == "transactions" else names)
    like_c, like_f = (" AND ".join(f"j.{n} IS NOT DISTINCT FROM {side}.{n}" for n in names) for side in "cf")
    judged = f"judged_{plan.stream}"
    connection.execute(f"CREATE TEMP TABLE {judged} AS {plan.judged}")
    connection.execute(
        f"""
CREATE TEMP TABLE {settled} AS
WITH good AS (SELECT * FROM {judged} WHERE __rule IS NULL),
repeated AS (SELECT {key} FROM good GROUP BY ALL HAVING count(*) > 1),
firsts AS (
    SELECT * FROM good SEMI JOIN repeated USING ({key})
    QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {FILE}, {ROW}) = 1
)
SELECT j.*, CASE
    WHEN j.__rule IS NOT NULL THEN 'refused'
    WHEN c.transaction_id IS NOT NULL THEN CASE WHEN {like_c} THEN 'duplicate' ELSE 'conflict' END
    WHEN f.transaction_id IS NULL OR (f.{FILE} = j.{FILE} AND f.{ROW} = j.{ROW}) THEN 'canonical'
    WHEN {like_f} THEN 'duplicate' ELSE 'conflict' END AS verdict
FROM {judged} j LEFT JOIN {plan.table} c USING ({key}) LEFT JOIN firsts f USING ({key})"""
    )
    connection.execute(f"DROP TABLE {judged}; DROP TABLE evaluated_{plan.stream}")


def _add_canonical(connection: Connection, plan: StreamPlan, settled: str) -> int:
    names = ", ".join(column.name for column in plan.columns)
    order = (
        "event_time, transaction_id" if plan.stream == "transactions" else "known_at, transaction_id, source"
    )
    new = f"SELECT {names} FROM {settled} WHERE verdict = 'canonical' ORDER BY {order}"
    return affected(connection, f"INSERT INTO {plan.table} ({names}) {new}")
