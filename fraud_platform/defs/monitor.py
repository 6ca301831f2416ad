"""The decision log in the warehouse; drift, delayed performance, and whether to train early."""

from datetime import UTC, datetime

import dagster as dg

from fraud_platform.adapters.audit import check_state
from fraud_platform.adapters.bundle_files import bundle_path, load_bundle
from fraud_platform.adapters.duckdb_monitor import (
    anchors,
    decision_columns,
    label_events,
    load_decisions,
    load_labels,
    recent_columns,
)
from fraud_platform.adapters.journal import DECISIONS
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SourceError
from fraud_platform.monitor import DriftReport, Performance, delayed_performance, drift, retrain_signal
from fraud_platform.package import Bundle
from fraud_platform.schema import MILLISECONDS_PER_DAY

RECENT_DECISIONS = 50_000
COOL_DOWN_DAYS = 1
DRIFT_TAG = {"reason": "drift"}
"""Tags of a run that the drift sensor asked for."""
OWNERS = ["team:fraud-ml"]


@dg.asset(
    key=["monitor", "decisions"],
    deps=[["package", "bento"]],
    group_name="monitor",
    kinds={"duckdb", "table"},
    owners=OWNERS,
    pool=POOL,
)
def decisions(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """Every recorded decision with its vector, and the labels that were posted to the service."""
    state = platform.settings.service_state
    if not platform.warehouse.exists("ingest.transactions"):
        raise SourceError(f"no transactions in {platform.warehouse.path}: fraud-platform run first")
    now_ms = platform.now_ms()
    loaded = load_decisions(
        platform.warehouse, state, lambda digest: _bundle(platform, digest).contract, now_ms
    )
    labels = load_labels(platform.warehouse, state, now_ms)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": loaded.total_count,
            "new": loaded.new_count,
            "labels": labels.total_count,
            "new_labels": labels.new_count,
            "erased": loaded.erased_count + labels.erased_count,
            "unchanged": not (loaded.new_count or labels.new_count),
        }
    )


@dg.asset_check(
    asset=["monitor", "decisions"],
    name="chains_are_whole",
    blocking=True,
    description="No byte of the logs was changed, and every head that an earlier load met is still there",
    pool=POOL,
)
def chains_are_whole(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    """Passes where nothing was decided yet. What was loaded before is an anchor outside of the log."""
    state = platform.settings.service_state
    if not (state / DECISIONS).is_dir():
        return dg.AssetCheckResult(passed=True, metadata={"records": 0})
    report = check_state(state, anchors(platform.warehouse))
    return dg.AssetCheckResult(
        passed=report.is_whole,
        description=report.lines()[-1],
        metadata={"records": report.records, "anchors": report.anchors, "failures": report.findings},
    )


@dg.asset(
    key=["monitor", "drift"],
    deps=[["monitor", "decisions"]],
    group_name="monitor",
    kinds={"python"},
    owners=OWNERS,
    pool=POOL,
)
def feature_drift(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """Population stability of the score and of every feature against the bundle's reference."""
    report = _drift(platform)
    if report is None:
        return dg.MaterializeResult(metadata={"dagster/row_count": 0, "said": "nothing was decided yet"})
    moved = {column.name: round(column.psi, 4) for column in report.features[:20]}
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": report.row_count,
            "score_psi": report.score.psi,
            "features_moved": len(report.moved),
            "is_drifted": report.is_drifted,
            "reasons": "; ".join(report.reasons) or "nothing moved",
            "psi": moved,
        }
    )


@dg.asset(
    key=["monitor", "performance"],
    deps=[["monitor", "decisions"], ["ingest", "labels"]],
    group_name="monitor",
    kinds={"python"},
    owners=OWNERS,
    pool=POOL,
)
def performance(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """Average precision, recall and money of the decisions whose labels have matured."""
    report = _performance(platform)
    return dg.MaterializeResult(
        metadata={
            "mature": report.mature_count,
            "immature": report.immature_count,
            "frauds": report.fraud_count,
            "cost": report.cost,
            "saved": report.saved,
            **{
                name: value
                for name in ("average_precision", "recall", "good_friction")
                if (value := getattr(report, name)) is not None
            },
        }
    )


@dg.asset(
    key=["monitor", "retrain_signal"],
    deps=[["monitor", "drift"], ["monitor", "performance"]],
    group_name="monitor",
    kinds={"python"},
    owners=OWNERS,
    pool=POOL,
)
def signal(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """Whether to train before the nightly schedule does, with the reasons; the drift sensor reads it."""
    bundle = _deciding_bundle(platform)
    promised = bundle.evaluation.get("average_precision") if bundle else None
    raised = retrain_signal(
        _drift(platform),
        _performance(platform),
        last_trained_at=_last_drift_run_ms(context),
        now=platform.now_ms(),
        cool_down=COOL_DOWN_DAYS * MILLISECONDS_PER_DAY,
        promised_average_precision=promised if isinstance(promised, float) else None,
    )
    return dg.MaterializeResult(
        metadata={
            "retrain": raised.is_raised,
            "reasons": "; ".join(raised.reasons),
            "signal_id": raised.id,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )


def _drift(platform: Platform) -> DriftReport | None:
    """Of the last bundle that decided anything; None where nothing was decided."""
    bundle = _deciding_bundle(platform)
    if bundle is None:
        return None
    columns, probability = recent_columns(platform.warehouse, bundle.contract, bundle.id, RECENT_DECISIONS)
    return drift(bundle.reference, columns, probability)


def _performance(platform: Platform) -> Performance:
    return delayed_performance(
        decision_columns(platform.warehouse),
        label_events(platform.warehouse),
        platform.label_rule,
        end_of_knowledge(platform),
        platform.policy,
    )


def end_of_knowledge(platform: Platform) -> int:
    """One past the last moment of which the warehouse knows anything: replayed data has its own present."""
    frame = platform.warehouse.frame(
        "select max(moment) as moment from (select max(event_time) as moment from ingest.transactions "
        "union all select max(known_at) from ingest.labels "
        "union all select max(event_time) from monitor.decisions)"
    )
    return int(frame["moment"].iloc[0]) + 1


def _bundle(platform: Platform, digest: str) -> Bundle:
    return load_bundle(bundle_path(platform.settings.bundles, digest))


def _deciding_bundle(platform: Platform) -> Bundle | None:
    frame = platform.warehouse.frame(
        "select bundle_id from monitor.decisions order by decided_at desc, sequence desc limit 1"
    )
    return None if frame.empty else _bundle(platform, str(frame["bundle_id"].iloc[0]))


def _last_drift_run_ms(context: dg.AssetExecutionContext) -> int:
    """When drift last started a training. Nightly ones do not count: they would always be too recent."""
    found = context.instance.get_run_records(dg.RunsFilter(tags=DRIFT_TAG), limit=1)
    return int(found[0].create_timestamp.timestamp() * 1000) if found else 0
