"""A mapping as the SQL that makes source rows canonical and judges them.

Belongs here: SQL text, made from a Mapping and the types of its expressions.
Does not belong here: executing it (adapters/duckdb_ingest.py), or any file.
The SQL runs on DuckDB with the session's time zone set to UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from fraud_platform.ingest.mapping import Mapping, StreamMapping
from fraud_platform.ingest.rules import (
    CARD_NUMBER,
    Rule,
    currency_list,
    label_rules,
    raw,
    transaction_rules,
)
from fraud_platform.ingest.sql import (
    exact_decimal,
    finite_double,
    identifier,
    last_four,
    moment_ms,
    text,
    without_card_numbers,
)
from fraud_platform.schema import LABEL_COLUMNS, MILLISECONDS_PER_DAY, Column

Stream = Literal["transactions", "labels"]
FILE = "__source_file"
ROW = "__source_row"
_UPPER = {"currency", "card_country", "merchant_country"}
_LOWER = {"source", "outcome"}
_CANNOT_FAIL = re.compile(r"[A-Za-z_]\w*|\"[^\"]+\"|'[^']*'|[0-9.]+")
_CONSTANTS = ("null", "true", "false")
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class StreamPlan:
    """How one stream is read, in two queries.

    `evaluated` gives what the mapping's expressions give, for the table `evaluated_<stream>`; it must run
    without the optimizer for common subexpressions, which lifts what two expressions share out of their TRY,
    so that one bad value would stop the batch. `judged` reads that table: one row per source row taken, with
    the columns __source_file, __source_row, `columns`, `__rule` (place in `rules` of the first broken one;
    NULL = good) and `__value` (what broke it, as text, card numbers masked).
    """

    stream: Stream
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    evaluated: str
    judged: str

    @property
    def table(self) -> str:
        return f"ingest.{self.stream}"


def stream_mapping(mapping: Mapping, stream: Stream) -> StreamMapping:
    return mapping.transactions if stream == "transactions" else mapping.labels


def source_expressions(mapping: Mapping, stream: Stream) -> dict[str, str]:
    """Every expression over the source, by the canonical column (or `where`) that it gives."""
    mapped = stream_mapping(mapping, stream)
    expressions = dict(mapped.columns)
    if stream == "transactions":
        expressions |= {extra.column.name: extra.expression for extra in mapping.extras}
    if mapped.where is not None:
        expressions["where"] = mapped.where
    return {column: _as_sql(expression) for column, expression in expressions.items()}


def _as_sql(expression: str) -> str:
    """A bare name is a column, even where SQL has a keyword of that name (`at`, `order`)."""
    is_column = re.fullmatch(r"[A-Za-z_]\w*", expression) and expression.lower() not in _CONSTANTS
    return identifier(expression) if is_column else expression


def plan_stream(
    mapping: Mapping,
    stream: Stream,
    types: AnyMapping[str, str],
    source: str,
    now_ms: int,
    days: tuple[date, date] | None = None,
) -> StreamPlan:
    """The plan over the relation `source`, which has the source's columns, __source_file and __source_row.

    types: DuckDB type of each of `source_expressions`. days: first and last day (UTC) of event_time, or of
    known_at for labels; rows without a readable time are always taken.
    """
    expressions = source_expressions(mapping, stream)
    columns = mapping.transaction_columns if stream == "transactions" else LABEL_COLUMNS
    required = {column.name for column in columns if column.is_required} | {"amount"}
    can_fail = [c for c, sql in expressions.items() if c not in required and not _CANNOT_FAIL.fullmatch(sql)]
    if stream == "transactions":
        rules = transaction_rules(mapping, now_ms, can_fail)
    else:
        rules = label_rules(now_ms, can_fail)
    moment = "event_time" if stream == "transactions" else "known_at"
    judged = f"""
WITH canonical AS ({_canonical(stream, columns, expressions, types)}),
amounts AS ({_amounts(expressions) if stream == "transactions" else "SELECT * FROM canonical"}),
taken AS ({_taken(stream)} WHERE {_in_days(moment, days)}),
judged AS (SELECT *, CASE {_cases(rules)} END AS __rule FROM taken)
SELECT {FILE}, {ROW}, {", ".join(column.name for column in columns)}, __rule, {_value(rules)} AS __value
FROM judged"""
    return StreamPlan(stream, columns, rules, _evaluated(expressions, can_fail, source), judged)


def _evaluated(expressions: dict[str, str], can_fail: list[str], source: str) -> str:
    """What the expressions give; one that fails on a row gives NULL there, and a flag if it may be NULL."""
    # A line break ends a comment that an expression may carry.
    values = [f"TRY(({sql}\n)) AS {raw(c)}" for c, sql in expressions.items() if c != "where"]
    flags = [f'TRY(({expressions[c]}\n) IS NULL) IS NULL AS "failed_{c}"' for c in can_fail]
    query = f"SELECT {FILE}, {ROW}, {', '.join(values + flags)} FROM {source}"
    if "where" not in expressions:
        return query
    holds = f"coalesce(CAST(({expressions['where']}\n) AS BOOLEAN), false)"
    return f"{query} WHERE coalesce(TRY({holds}), true)"


def _canonical(
    stream: Stream, columns: tuple[Column, ...], expressions: dict[str, str], types: AnyMapping[str, str]
) -> str:
    values = [
        f"{_value_of(column, types.get(column.name, 'VARCHAR'))} AS {column.name}"
        if column.name in expressions
        else f"CAST(NULL AS {column.type}) AS {column.name}"
        for column in columns
        if column.name != "amount_minor"
    ]
    return f"SELECT *, {', '.join(values)} FROM evaluated_{stream}"


def _value_of(column: Column, type_name: str) -> str:
    value = raw(column.name)
    if column.name in ("event_time", "known_at"):
        return moment_ms(value, type_name)
    if column.type == "DOUBLE":
        return finite_double(value, type_name)
    if column.name in _UPPER:
        return f"upper({text(value)})"
    return f"lower({text(value)})" if column.name in _LOWER else text(value)


def _amounts(expressions: dict[str, str]) -> str:
    """`__amount` as it was given and `amount_minor`, NULL where it is no whole number of minor units."""
    given = "amount" if "amount" in expressions else "amount_minor"
    factor = "1"
    if given == "amount":
        by_exponent = (
            f"WHEN currency IN {currency_list(0)} THEN 1 WHEN currency IN {currency_list(3)} THEN 1000"
        )
        factor = f"CASE {by_exponent} ELSE 100 END"
    minor = f"(__amount * ({factor}))"
    return (
        f"SELECT *, CASE WHEN {minor} % 1 = 0 THEN TRY_CAST({minor} AS BIGINT) END AS amount_minor "
        f"FROM (SELECT *, {exact_decimal(raw(given))} AS __amount FROM canonical)"
    )


def _taken(stream: Stream) -> str:
    if stream == "transactions":
        return "SELECT * FROM amounts"
    known = "SELECT transaction_id, event_time AS __event_time FROM ingest.transactions"
    return f"SELECT amounts.*, __event_time FROM amounts LEFT JOIN ({known}) USING (transaction_id)"


def _in_days(moment: str, days: tuple[date, date] | None) -> str:
    if days is None:
        return "true"
    first, last = ((day - _EPOCH).days for day in days)
    begin, end = first * MILLISECONDS_PER_DAY, (last + 1) * MILLISECONDS_PER_DAY
    return f"({moment} IS NULL OR ({moment} >= {begin} AND {moment} < {end}))"


def _cases(rules: tuple[Rule, ...]) -> str:
    return " ".join(f"WHEN {rule.predicate} THEN {place}" for place, rule in enumerate(rules))


def _value(rules: tuple[Rule, ...]) -> str:
    cases = " ".join(
        f"WHEN {place} THEN {_shown(rule)}" for place, rule in enumerate(rules) if rule.column != "where"
    )
    return f"CASE __rule {cases} END"


def _shown(rule: Rule) -> str:
    if rule.name == CARD_NUMBER:
        return last_four(identifier(rule.column))
    value = f"CAST({raw(rule.column)} AS VARCHAR)"
    # A moment in ms has the digits of a card number, and one in ten passes the check by chance.
    return value if rule.column in ("event_time", "known_at") else without_card_numbers(value)
