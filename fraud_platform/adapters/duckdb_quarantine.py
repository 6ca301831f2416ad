"""ingest.quarantine: what was refused, each source row once, until it is good.

Belongs here: storing refused rows, releasing rows that have become good, and lines that are no rows at all.
Does not belong here: deciding what is bad (ingest/rules.py) or which copy wins (duckdb_ingest.py).

A refused row is known by its content: `fingerprint` is a hash of the source row as JSON, card numbers
masked, and of its place among equal rows of its file. So the same file read again, or delivered again under
another name, adds nothing, while two equal bad rows of one file are two.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from fraud_platform.adapters.duckdb_sources import Source, SourceFile, blank_lines
from fraud_platform.errors import SourceError
from fraud_platform.ingest import CARD_NUMBER, CONFLICT, FILE, MALFORMED, ROW, UNKNOWN_TRANSACTION, StreamPlan
from fraud_platform.ingest.sql import identifier, literal, without_card_numbers

Connection = duckdb.DuckDBPyConnection
QUARANTINE = "ingest.quarantine"
_COLUMNS = (
    "stream VARCHAR NOT NULL, source_file VARCHAR NOT NULL, source_row BIGINT NOT NULL, column_name VARCHAR, "
    "value VARCHAR, rule VARCHAR NOT NULL, message VARCHAR NOT NULL, raw JSON, seen_at BIGINT NOT NULL, "
    # What a later run needs: the row's id, the content of a label that waits for its transaction, the key.
    "row_id VARCHAR, canonical JSON, fingerprint VARCHAR NOT NULL"
)
_REASON = ("column_name", "value", "rule", "message", "canonical")


@dataclass(frozen=True)
class RefusedCounts:
    """quarantined: rows refused, of which `already` were stored before and `malformed` are no rows of the
    relation; repeated: copies, in another file, of a row that is refused."""

    quarantined: int
    already: int
    repeated: int
    malformed: int
    by_rule: dict[str, int]


@dataclass(frozen=True)
class Readmission:
    """Quarantine rows released, and rows added to the labels by it."""

    released: int
    added: int


NO_READMISSION = Readmission(0, 0)


def count_rows(connection: Connection, table: str) -> int:
    return _number(connection, f"SELECT count(*) FROM {table}")


def affected(connection: Connection, statement: str) -> int:
    """Rows that an INSERT, UPDATE or DELETE touched."""
    return _number(connection, statement)


def _number(connection: Connection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def create_quarantine(connection: Connection) -> None:
    connection.execute(f"CREATE TABLE IF NOT EXISTS {QUARANTINE} ({_COLUMNS})")


def collect_malformed(connection: Connection, source: Source, relation: str) -> None:
    """Move the CSV lines that fit no header into malformed_<stream> (file, row, text).

    They count as rows of their file, from 1: the relation's rows after them are numbered anew.
    Raises SourceError for a quote that is never closed: it swallows all lines after it.
    """
    table = f"malformed_{source.stream}"
    connection.execute(f'CREATE TEMP TABLE {table} (file VARCHAR, row BIGINT, "text" VARCHAR)')
    if not source.of("csv"):
        return
    names = ", ".join(f"({literal(str(file.path))}, {literal(file.name)})" for file in source.of("csv"))
    rejects = "reject_errors JOIN reject_scans USING (scan_id, file_id)"
    unclosed = "error_type = 'UNQUOTED VALUE' AND contains(ltrim(csv_line, e'\\r\\n'), e'\\n')"
    query = f"SELECT file_path, line FROM {rejects} WHERE {unclosed}"
    if swallowed := connection.execute(query).fetchone():
        raise SourceError(
            f"{swallowed[0]}: line {swallowed[1]} opens a quote and never closes it: correct it"
        )
    connection.execute(
        f"INSERT INTO {table} SELECT n.name, line - 1, ltrim(any_value(csv_line), e'\\r\\n') FROM {rejects} "
        f"JOIN (VALUES {names}) n(path, name) ON n.path = file_path GROUP BY n.name, line"
    )
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    affected_files = {row[0] for row in connection.execute(f"SELECT DISTINCT file FROM {table}").fetchall()}
    for file in source.of("csv"):
        if file.name in affected_files:
            _leave_out_blank_lines(connection, table, file)
    if affected_files:
        _number_anew(connection, table, relation)


def _leave_out_blank_lines(connection: Connection, table: str, file: SourceFile) -> None:
    """DuckDB counts the blank lines before a malformed one, but makes no rows of them."""
    if blank := blank_lines(file):
        query = f"UPDATE {table} SET row = row - len(list_filter($1, lambda b: b <= row)) WHERE file = $2"
        connection.execute(query, [blank, file.name])


def _number_anew(connection: Connection, table: str, relation: str) -> None:
    """Raise the number of each row by the malformed lines before it, of which `good` rows stand ahead."""
    nth = "row_number() OVER (PARTITION BY file ORDER BY row)"
    shifts = (
        f"SELECT file, good, max(nth) AS shift FROM (SELECT file, row - {nth} AS good, {nth} AS nth "
        f"FROM {table}) GROUP BY file, good"
    )
    connection.execute(
        f"UPDATE {relation} AS u SET {ROW} = u.{ROW} + moved.shift FROM (SELECT r.rowid AS place, m.shift "
        f"FROM {relation} r ASOF JOIN ({shifts}) m ON r.{FILE} = m.file AND r.{ROW} > m.good) AS moved "
        "WHERE u.rowid = moved.place"
    )


def release_good_rows(connection: Connection, stream: str, settled: str, relation: str) -> int:
    """Remove quarantine rows whose source row, at the same place with the same id or content, is good now."""
    at_place = f"q.stream = {literal(stream)} AND q.source_file = s.{FILE} AND q.source_row = s.{ROW}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE now_good AS SELECT s.{FILE}, s.{ROW}, q.fingerprint, "
        f"q.row_id IS NOT DISTINCT FROM s.transaction_id AS has_same_id FROM {settled} s "
        f"JOIN {QUARANTINE} q ON {at_place} "
        f"WHERE s.verdict IN ('canonical', 'duplicate') AND q.rule <> {literal(MALFORMED.name)}"
    )
    if not count_rows(connection, "now_good"):
        return 0
    content = f"md5({_raw(connection, relation)}) = split_part(fingerprint, ':', 1)"
    rows = f"now_good JOIN {relation} r USING ({FILE}, {ROW})"
    good = f"SELECT fingerprint FROM {rows} WHERE has_same_id OR {content}"
    return affected(
        connection, f"DELETE FROM {QUARANTINE} WHERE stream = {literal(stream)} AND fingerprint IN ({good})"
    )


def readmit_waiting_labels(connection: Connection) -> Readmission:
    """Labels that waited for a transaction which has arrived become canonical without their file."""
    connection.execute(
        f"""
CREATE OR REPLACE TEMP TABLE arrived AS
SELECT q.fingerprint, q.row_id AS transaction_id, q.canonical ->> 'source' AS source,
    q.canonical ->> 'outcome' AS outcome, CAST(q.canonical ->> 'known_at' AS BIGINT) AS known_at
FROM {QUARANTINE} q JOIN ingest.transactions t ON t.transaction_id = q.row_id
WHERE q.stream = 'labels' AND q.rule = {literal(UNKNOWN_TRANSACTION)}
    AND CAST(q.canonical ->> 'known_at' AS BIGINT) >= t.event_time"""
    )
    names = "transaction_id, source, outcome, known_at"
    added = affected(
        connection,
        f"INSERT INTO ingest.labels ({names}) SELECT DISTINCT {names} FROM arrived "
        f"ANTI JOIN ingest.labels USING ({names}) ORDER BY ALL",
    )
    which = "stream = 'labels' AND fingerprint IN (SELECT fingerprint FROM arrived)"
    released = affected(connection, f"DELETE FROM {QUARANTINE} WHERE {which}")
    return Readmission(released, added)


def store_refused(
    connection: Connection, plan: StreamPlan, settled: str, relation: str, now_ms: int
) -> RefusedCounts:
    """Store what was refused and is not stored yet; a row stored before takes its present reason."""
    refused, stream = f"refused_{plan.stream}", literal(plan.stream)
    malformed = count_rows(connection, f"malformed_{plan.stream}")
    if not malformed and not count_rows(connection, f"{settled} WHERE verdict IN ('refused', 'conflict')"):
        return RefusedCounts(0, 0, 0, 0, {})
    _gather(connection, plan, settled, relation, refused)
    repeated = affected(connection, f"DELETE FROM {refused} WHERE is_repeated")
    reason = ", ".join(f"{name} = r.{name}" for name in _REASON)
    is_stored = f"q.stream = {stream} AND q.fingerprint = r.fingerprint"
    already = affected(connection, f"UPDATE {QUARANTINE} q SET {reason} FROM {refused} r WHERE {is_stored}")
    raw = f"CASE WHEN rule <> {literal(CARD_NUMBER)} THEN raw END"
    connection.execute(
        f"INSERT INTO {QUARANTINE} SELECT {stream}, {FILE}, {ROW}, column_name, value, rule, message, {raw}, "
        f"{now_ms}, row_id, canonical, fingerprint FROM {refused} r "
        f"WHERE NOT EXISTS (FROM {QUARANTINE} q WHERE {is_stored}) ORDER BY {FILE}, {ROW}"
    )
    by_rule = connection.execute(f"SELECT rule, count(*) FROM {refused} GROUP BY 1 ORDER BY 1").fetchall()
    return RefusedCounts(count_rows(connection, refused), already, repeated, malformed, dict(by_rule))


def _gather(connection: Connection, plan: StreamPlan, settled: str, relation: str, refused: str) -> None:
    """Refused rows with their reason, their source row as JSON, and whether another file has the same."""
    reasons = [(place, rule) for place, rule in enumerate(plan.rules)] + [(-1, CONFLICT)]
    table = ", ".join(
        f"({place}, {literal(rule.name)}, {literal(rule.column)}, {literal(rule.message)})"
        for place, rule in reasons
    )
    waiting = ", ".join(f"{c.name} := s.{c.name}" for c in plan.columns)
    connection.execute(
        f"""
CREATE TEMP TABLE {refused} AS
WITH reasons(place, rule, column_name, message) AS (VALUES {table}),
rows_refused AS (
    SELECT {FILE}, {ROW}, column_name, rule, message, {_raw(connection, relation)} AS raw,
        CASE verdict WHEN 'conflict' THEN s.transaction_id ELSE __value END AS value,
        CASE WHEN rule <> {literal(CARD_NUMBER)} OR column_name <> 'transaction_id' THEN s.transaction_id
            END AS row_id,
        CASE WHEN rule = {literal(UNKNOWN_TRANSACTION)} THEN to_json(struct_pack({waiting})) END AS canonical
    FROM {settled} s JOIN {relation} r USING ({FILE}, {ROW})
    JOIN reasons ON place = CASE verdict WHEN 'conflict' THEN -1 ELSE __rule END
    WHERE verdict IN ('refused', 'conflict')
    UNION ALL
    SELECT file, row, NULL, {literal(MALFORMED.name)}, {literal(MALFORMED.message)},
        {without_card_numbers('CAST(to_json(struct_pack(line := "text")) AS VARCHAR)')}, NULL, NULL, NULL
    FROM malformed_{plan.stream}
),
numbered AS (
    SELECT *, md5(raw) AS content, row_number() OVER (PARTITION BY md5(raw), {FILE} ORDER BY {ROW}) AS copy
    FROM rows_refused
)
SELECT * EXCLUDE (content, copy), content || ':' || copy AS fingerprint,
    row_number() OVER (PARTITION BY content, copy ORDER BY {FILE}, {ROW}) > 1 AS is_repeated
FROM numbered"""
    )


def _raw(connection: Connection, relation: str) -> str:
    """A source row `r` as JSON text, card numbers masked."""
    described = connection.execute(f"DESCRIBE {relation}").fetchall()
    columns = ", ".join(
        f"{identifier(row[0])} := r.{identifier(row[0])}" for row in described if row[0] not in (FILE, ROW)
    )
    return without_card_numbers(f"CAST(to_json(struct_pack({columns})) AS VARCHAR)")
