"""What an online store has to know at a watermark, computed in SQL: totals, facts, logs, counts of values.

Belongs here: the queries of a bulk load, over known_transactions and known_reports. Does not belong here:
what these two hold (duckdb_load_streams.py), bytes (lmdb_bytes.py), writing (lmdb_load.py). Answers come as
Arrow batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from fraud_platform.features.engine import LATENESS_MS
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.state import FAR, NEVER

BATCH_ROWS = 200_000
_SPLIT = 1 << 53


def reaches_back_to(plan: EntityPlan, watermark: int) -> int:
    """The first moment of a loaded log: what the windows can hold of an event that is LATENESS_MS behind the
    newest one, which lies a millisecond before the watermark at the latest."""
    return watermark - 1 - plan.reach - LATENESS_MS


def states(
    connection: duckdb.DuckDBPyConnection, plan: EntityPlan, watermark: int
) -> Iterator[pa.RecordBatch]:
    """A row a key: key_high, key_low; first, last, before_last, trimmed_last; count_i, sum_i, high_i, low_i
    (of the squares), oldest_i of each window; reports_i, oldest_report_i, last_report, trimmed_report;
    distinct_i of each slot; place, place_before, trimmed_place as structs t, a, b; has_log, and where it has
    none what the State carries along: carried, a list of structs moment, amount, latitude, longitude,
    name_high, name_low, value_i_high, value_i_low."""
    columns = ", ".join(plan.columns)
    whole_from = reaches_back_to(plan, watermark)
    lower = whole_from if plan.has_log else 0  # without a log of transactions none is asked for
    place = "max(place)" if plan.has_place else "null"
    windows = "".join(
        f", {_within(watermark, width, 'count(*)', 0)} as count_{i}"
        f", {_within(watermark, width, 'sum(amount_minor)', 0)} as sum_{i}"
        f", {_within(watermark, width, 'sum(amount_minor::hugeint * amount_minor)', 0)} as squares_{i}"
        f", {_within(watermark, width, 'min(event_time)', FAR)} as oldest_{i}"
        for i, width in enumerate(plan.windows)
    )
    squares = "".join(
        f", (squares_{i} // {_SPLIT})::bigint as high_{i}, (squares_{i} % {_SPLIT})::bigint as low_{i}"
        for i in range(len(plan.windows))
    )
    reports = "".join(
        f", count(*) filter ({_counts_in(watermark, width)}) as reports_{i}"
        f", coalesce(min(known_at) filter ({_counts_in(watermark, width)}), {FAR}) as oldest_report_{i}"
        for i, width in enumerate(plan.report_windows)
    )
    report_columns = "".join(
        f", coalesce(reports_{i}, 0) as reports_{i}, coalesce(oldest_report_{i}, {FAR}) as oldest_report_{i}"
        for i in range(len(plan.report_windows))
    )
    distincts = "".join(f", coalesce(distinct_{i}, 0) as distinct_{i}" for i in range(len(plan.distincts)))
    _find_logged(connection, plan, watermark)
    return _answer(
        connection,
        f"""
        with moments as (
          select {columns}, event_time, amount_minor, {_place(plan)} as place
          from known_transactions where {present(plan)}
        ),
        facts as (
          select {columns}, min(event_time) as first, max(event_time) as last, {place} as place
            , coalesce(max(event_time) filter (event_time < {lower}), {NEVER}) as trimmed_last
            , {place} {f"filter (event_time < {lower})" if plan.has_place else ""} as trimmed_place{windows}
          from moments group by all
        ),
        before as (
          select {columns}, max(event_time) filter (event_time < last) as before_last
            , {"max(m.place) filter (m.place.t < f.place.t)" if plan.has_place else "null"} as place_before
          from moments as m inner join facts as f using ({columns}) group by all
        ),
        reports as (
          select {columns}, max(known_at) as last_report
            , max(known_at) filter (known_at < {whole_from}) as trimmed_report{reports}
          from known_reports where {plan.has_reports} and {present(plan)} group by all
        ),
        distincts as ({_distincts(plan, watermark)}),
        carried as ({_carried(plan, watermark)})
        select {_token(plan)}, l.has_log is not null as has_log, carried
          , first, last, coalesce(before_last, {NEVER}) as before_last, trimmed_last
          , place, place_before, trimmed_place, coalesce(last_report, {NEVER}) as last_report
          , coalesce(trimmed_report, {NEVER}) as trimmed_report
          {"".join(f", count_{i}, sum_{i}::bigint as sum_{i}, oldest_{i}" for i in range(len(plan.windows)))}
          {squares}{report_columns}{distincts}
        from facts inner join before using ({columns})
          left join reports using ({columns}) left join distincts using ({columns})
          left join logged_keys as l using ({columns}) left join carried using ({columns})
        order by key_high, key_low
        """,
    )


def log(connection: duckdb.DuckDBPyConnection, plan: EntityPlan, watermark: int) -> Iterator[pa.RecordBatch]:
    """Entries of the transactions' log, of keys that have one (after `states` of the same plan): key,
    event_time, transaction, amount_minor, place, value_i."""
    values = "".join(
        f", {column} is not null as has_{i}, {_halves(column, f'value_{i}')}"
        for i, column in enumerate(plan.distinct_columns)
    )
    return _answer(
        connection,
        f"select {_token(plan)}, event_time, {_halves('transaction_id', 'transaction')}, amount_minor, "
        f"{_place(plan)} as place{values} from known_transactions semi join logged_keys "
        f"using ({', '.join(plan.columns)}) "
        f"where {present(plan)} and event_time >= {reaches_back_to(plan, watermark)} "
        "order by key_high, key_low, event_time",
    )


def reports(
    connection: duckdb.DuckDBPyConnection, plan: EntityPlan, watermark: int
) -> Iterator[pa.RecordBatch]:
    """Entries of the reports' log: key, known_at, transaction."""
    return _answer(
        connection,
        f"select {_token(plan)}, known_at, {_halves('transaction_id', 'transaction')} from known_reports "
        f"where {present(plan)} and known_at >= {reaches_back_to(plan, watermark)} "
        "order by key_high, key_low, known_at",
    )


def counts(
    connection: duckdb.DuckDBPyConnection, plan: EntityPlan, column: int, watermark: int
) -> Iterator[pa.RecordBatch]:
    """How often each value of a distinct column is in each window, of keys that have a log (after `states`
    of the same plan): key, value, times_i."""
    return _answer(
        connection,
        f"select {_token(plan)}, {_halves('value', 'value')}, "
        f"{', '.join(f'times_{i}::integer as times_{i}' for i in range(len(plan.windows)))} "
        f"from ({_times(plan, column, watermark)}) semi join logged_keys using ({', '.join(plan.columns)}) "
        "order by key_high, key_low",
    )


def seen(connection: duckdb.DuckDBPyConnection, horizon: int) -> Iterator[pa.RecordBatch]:
    """Transactions since the horizon, by token: transaction, keys, event_time, known_at of the report."""
    return _answer(
        connection,
        f"select {_halves('t.transaction_id', 'transaction')}, t.card_id, t.merchant_id, t.customer_id, "
        "t.device_id, t.ip_id, t.event_time, r.known_at from known_transactions as t "
        "left join known_reports as r using (transaction_id) "
        f"where t.event_time >= {horizon} order by transaction_high, transaction_low",
    )


def known(connection: duckdb.DuckDBPyConnection, horizon: int) -> Iterator[pa.RecordBatch]:
    """Transactions since the horizon in order of time: event_time, transaction."""
    return _answer(
        connection,
        f"select event_time, {_halves('transaction_id', 'transaction')} from known_transactions "
        f"where event_time >= {horizon} order by event_time, transaction_high, transaction_low",
    )


def facts(connection: duckdb.DuckDBPyConnection, plan: EntityPlan, end: int) -> Iterator[pa.RecordBatch]:
    """What a store's logs must hold of each key at the end of the timeline: key; transactions and their
    amounts, reports, since the moment that every log reaches back to; first and last moment of its past."""
    columns, lower = ", ".join(plan.columns), reaches_back_to(plan, end)
    logged, reported = f"event_time >= {lower}" if plan.has_log else "false", f"known_at >= {lower}"
    return _answer(
        connection,
        f"""
        with facts as (
          select {columns}, count(*) filter ({logged}) as transactions, min(event_time) as first
            , coalesce(sum(amount_minor) filter ({logged}), 0)::bigint as amounts, max(event_time) as last
          from known_transactions where {present(plan)} group by all
        ),
        reports as (
          select {columns}, count(*) filter ({reported if plan.has_reports else "false"}) as reports
          from known_reports where {present(plan)} group by all
        )
        select {_token(plan)}, transactions, amounts, coalesce(reports, 0) as reports, first, last
        from facts left join reports using ({columns})
        """,
    )


def present(plan: EntityPlan) -> str:
    return " and ".join(f"{column} is not null" for column in plan.columns)


def _find_logged(connection: duckdb.DuckDBPyConnection, plan: EntityPlan, watermark: int) -> None:
    """Makes the temporary table logged_keys: whose transactions are too many for a State."""
    columns = ", ".join(plan.columns)
    connection.execute(
        f"create or replace temp table logged_keys as select {columns}, true as has_log "
        f"from known_transactions where {plan.has_log} and {present(plan)} and event_time >= "
        f"{reaches_back_to(plan, watermark)} group by all having count(*) > {plan.recent_max}"
    )


def _carried(plan: EntityPlan, watermark: int) -> str:
    """The transactions that States carry along, by key."""
    keys = ", ".join(plan.columns)
    fields = {"moment": "event_time", "amount": "amount_minor"}
    if plan.has_place:
        is_known = "latitude is not null and longitude is not null"
        fields |= {name: f"case when {is_known} then {name} end" for name in ("latitude", "longitude")}
    packed = [f"{name} := {value}" for name, value in fields.items()]
    tokens = {"name": "transaction_id"} | {f"value_{i}": each for i, each in enumerate(plan.distinct_columns)}
    packed += [f"{name}_{half} := {name}_{half}" for name in tokens for half in ("high", "low")]
    halves = ", ".join(_halves(text, name) for name, text in tokens.items())
    return (
        f"select {keys}, list(struct_pack({', '.join(packed)}) order by event_time) as carried from ("
        f"select *, {halves} from known_transactions anti join logged_keys using ({keys}) "
        f"where {plan.has_log} and {present(plan)} "
        f"and event_time >= {reaches_back_to(plan, watermark)}) group by all"
    )


def _times(plan: EntityPlan, column: int, watermark: int) -> str:
    """Counts of each value by window; windows in which the plan does not ask for the column stay 0."""
    asked = [(column, window) in plan.distincts for window in range(len(plan.windows))]
    widest = max(width for width, is_asked in zip(plan.windows, asked, strict=True) if is_asked)
    keys, name = ", ".join(plan.columns), plan.distinct_columns[column]
    times = ", ".join(
        (f"count(*) filter (event_time >= {watermark - width})" if is_asked else "0") + f" as times_{i}"
        for i, (width, is_asked) in enumerate(zip(plan.windows, asked, strict=True))
    )
    groups = ", ".join(str(place + 1) for place in range(len(plan.columns) + 1))
    return (
        f"select {keys}, {name} as value, {times} from known_transactions where {present(plan)} "
        f"and {name} is not null and event_time >= {watermark - widest} group by {groups}"
    )


def _distincts(plan: EntityPlan, watermark: int) -> str:
    """Different values of each slot, by key."""
    keys = ", ".join(plan.columns)
    parts = []
    for column in range(len(plan.distinct_columns)):
        sums = ", ".join(
            (f"count(*) filter (times_{window} > 0)" if owner == column else "0") + f" as distinct_{slot}"
            for slot, (owner, window) in enumerate(plan.distincts)
        )
        parts.append(f"select {keys}, {sums} from ({_times(plan, column, watermark)}) group by all")
    if not parts:
        return f"select {keys} from known_transactions where false"
    totals = ", ".join(
        f"sum(distinct_{slot})::bigint as distinct_{slot}" for slot in range(len(plan.distincts))
    )
    return f"select {keys}, {totals} from ({' union all '.join(parts)}) group by all"


def _within(watermark: int, width: int, total: str, empty: int) -> str:
    return f"coalesce({total} filter (event_time >= {watermark - width}), {empty})"


def _counts_in(watermark: int, width: int) -> str:
    """Of reports, which may be known later than the watermark."""
    return f"known_at >= {watermark - width} and known_at < {watermark}"


def _place(plan: EntityPlan) -> str:
    if not plan.has_place:
        return "null"
    return (
        "case when latitude is not null and longitude is not null then "
        "struct_pack(t := event_time, a := latitude, b := longitude) end"
    )


def _token(plan: EntityPlan) -> str:
    """The key's token: the twin of lmdb_session.joined and token."""
    if len(plan.columns) == 1:
        return _halves(plan.columns[0], "key")
    parts = ", ".join(f"strlen({column}), ':', {column}" for column in plan.columns)
    return _halves(f"concat({parts})", "key")


def _halves(text: str, name: str) -> str:
    high, low = (f"('0x' || substr(sha256({text}), {start}, 16))::ubigint" for start in (1, 17))
    return f"{high} as {name}_high, {low} as {name}_low"


def _answer(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    return iter(connection.sql(query).to_arrow_reader(BATCH_ROWS))
