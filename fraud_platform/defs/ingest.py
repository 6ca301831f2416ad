"""Canonical rows by day; bad ones in quarantine with a reason."""

from collections.abc import Iterator
from datetime import date

import dagster as dg

from fraud_platform.defs.platform import Platform
from fraud_platform.ingest import IngestReport, StreamReport

POOL = "warehouse"
"""DuckDB has one writing process: everything that writes the warehouse runs in this pool, of one."""

STREAMS = ("transactions", "labels")


def build_ingest(platform: Platform) -> dg.AssetsDefinition:
    """The ingest assets, by day; those of the simulated world follow it."""
    deps = [["simulate", "world"]] if platform.is_simulated else []
    partitions = dg.DailyPartitionsDefinition(start_date=platform.mapping.first_day.isoformat())
    described = {
        "transactions": "One row per authorization attempt, canonical, known at event_time",
        "labels": "One row per thing learned about a transaction, known at known_at",
        "quarantine": "Rows that broke a rule: file, row, column, value, rule and the row itself",
    }

    @dg.multi_asset(
        name="ingest",
        specs=[
            dg.AssetSpec(
                ["ingest", table],
                deps=deps,
                description=text,
                group_name="ingest",
                kinds={"duckdb", "table"},
                owners=["team:fraud-ml"],
            )
            for table, text in described.items()
        ],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
    )
    def ingest(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult]:
        days = _days(context)
        report = platform.warehouse.ingest(platform.mapping, platform.source, platform.now_ms(), days)
        if days is None:
            _log_days(context, platform, partitions)
        yield from _results(report, platform)

    return ingest


def _days(context: dg.AssetExecutionContext) -> tuple[date, date] | None:
    """The partitions asked for, or None for everything that the source holds."""
    if not context.has_partition_key and not context.has_partition_key_range:
        return None
    keys = context.partition_key_range
    return date.fromisoformat(keys.start), date.fromisoformat(keys.end)


def _results(report: IngestReport, platform: Platform) -> Iterator[dg.MaterializeResult]:
    quarantined = platform.warehouse.count("ingest.quarantine")
    for stream in STREAMS:
        counts: StreamReport = getattr(report, stream)
        yield dg.MaterializeResult(
            asset_key=["ingest", stream],
            metadata={
                "dagster/row_count": platform.warehouse.count(f"ingest.{stream}"),
                "rows_in": counts.rows_in,
                "canonical": counts.canonical,
                "duplicates": counts.duplicates,
                "quarantined": counts.quarantined,
                "reconciled": _reconciled(counts),
                "unchanged": counts.is_unchanged,
            },
        )
    rules = {**report.transactions.quarantined_by_rule, **report.labels.quarantined_by_rule}
    yield dg.MaterializeResult(
        asset_key=["ingest", "quarantine"],
        metadata={"dagster/row_count": quarantined, "by_rule": dict(rules), "unchanged": report.is_unchanged},
    )


def _reconciled(counts: StreamReport) -> str:
    return f"{counts.rows_in} = {counts.canonical} + {counts.duplicates} + {counts.quarantined}"


def _log_days(
    context: dg.AssetExecutionContext, platform: Platform, partitions: dg.DailyPartitionsDefinition
) -> None:
    """A run over everything marks the days that it holds and that were not marked before."""
    for stream, moment in (("transactions", "event_time"), ("labels", "known_at")):
        key = dg.AssetKey(["ingest", stream])
        known = context.instance.get_materialized_partitions(key)
        frame = platform.warehouse.frame(
            f"select strftime(make_timestamp_ms({moment}), '%Y-%m-%d') as day, count(*) as rows "
            f"from ingest.{stream} group by 1 order by 1"
        )
        for day, rows in zip(frame["day"], frame["rows"], strict=True):
            if day not in known and partitions.has_partition_key(day):
                context.log_event(dg.AssetMaterialization(key, partition=day, metadata={"rows": int(rows)}))
