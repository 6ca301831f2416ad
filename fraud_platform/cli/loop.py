"""`run`: the whole loop on one dataset; what it did, as tables."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from glob import glob
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fraud_platform.cli.instance import JobReport, console, prepare_environment, run_job
from fraud_platform.errors import GateError, SourceError
from fraud_platform.settings import Settings

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

SHOWN_CHECKS = ("raw_transactions", "raw_labels", "parity", "training_set", "gate")
COUNTS = ("rows_in", "canonical", "duplicates", "quarantined", "dagster/row_count")


def learn(
    settings: Settings, as_of: str = "", world_transactions: int = 0, use_search: bool = False
) -> JobReport:
    """From files to a judged and registered version."""
    from fraud_platform.definitions import build_defs
    from fraud_platform.defs.as_of import TRAINING_STEP

    prepare_environment(settings)
    ops: dict[str, Any] = {}
    if as_of:
        ops[TRAINING_STEP] = {"config": {"as_of": as_of}}
    if use_search:
        ops["train__candidate"] = {"config": {"use_search": True}}
    if world_transactions:
        ops["simulate__world"] = {"config": {"transactions": world_transactions}}
    return run_job(build_defs(settings), "learning", {"ops": ops} if ops else None)


def approve(settings: Settings, version: str, by: str, reason: str, uncompared: str = "") -> str:
    """Records a named approval; a sentence about it. Raises GateError where the gate failed.

    uncompared: why it may ship although the champion cannot be compared with it any more.
    """
    from fraud_platform.defs.platform import Platform

    platform = Platform(settings)
    log = settings.reports / "approvals.jsonl"
    before = platform.registry.champion()
    now_ms = platform.now_ms()
    approval = platform.registry.approve(version, by, reason, now_ms, log, uncompared=uncompared)
    if before is not None and before.approval == approval:
        return f"version {approval.version} was approved before, by {approval.by}; nothing is recorded again"
    without = f"; without a comparison: {approval.uncompared}" if approval.uncompared else ""
    return f"version {approval.version} is approved by {approval.by}: {approval.reason}{without}"


def package(settings: Settings) -> JobReport:
    from fraud_platform.definitions import build_defs

    prepare_environment(settings)
    return run_job(build_defs(settings), "packaging")


def run_loop(
    settings: Settings, as_of: str, approve_by: str, reason: str, use_search: bool = False
) -> dict[str, JobReport]:
    """Learns, and where a name is given approves what passed its gate and packages it."""
    from fraud_platform.adapters.optuna import read_best
    from fraud_platform.defs.as_of import parse_as_of
    from fraud_platform.defs.platform import Platform
    from fraud_platform.train import TrainParams

    started = time.perf_counter()
    parse_as_of(as_of)
    require_source(Platform(settings))
    if use_search:
        read_best(settings.search, TrainParams())
    reports = {"learning": learn(settings, as_of, use_search=use_search)}
    show_learning(reports["learning"])
    if approve_by:
        version = str(reports["learning"].assets["register/model_version"]["version"])
        try:
            console.print(approve(settings, version, approve_by, reason))
        except GateError as error:
            console.print(f"not approved: {error}")
        else:
            reports["packaging"] = package(settings)
            show_packaging(reports["packaging"])
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    console.print(f"{time.perf_counter() - started:.0f} s, peak memory {peak / 1024**2:.2f} GiB")
    return reports


def require_source(platform: Platform) -> None:
    """Raises SourceError where the source is not there, before anything else is done."""
    if not platform.is_simulated and not glob(str(platform.source)):
        raise SourceError(
            f"source {platform.source}: there is no such folder, file or glob; give --source PATH"
        )


def show_learning(report: JobReport) -> None:
    """Counts, checks, metrics and times."""
    counts = Table("asset", "rows in", "canonical", "duplicates", "quarantined", "rows", "unchanged")
    for name, found in report.assets.items():
        if "dagster/row_count" in found:
            counts.add_row(name, *(_number(found.get(key)) for key in COUNTS), _yes(found))
    console.print(counts)
    checks = Table("check", "passed", "detail")
    for name, (passed, found) in report.checks.items():
        if name.rsplit(":", 1)[-1] in SHOWN_CHECKS or not passed:
            checks.add_row(name, "yes" if passed else "no", _detail(found))
    console.print(checks)
    console.print(report.assets["evaluate/evaluation"]["summary"])
    version = report.assets["register/model_version"]
    console.print(f"version {version['version']} ({version['registration']}):\n{version['reasons']}")
    times = Table("step", "seconds")
    for step, seconds in report.seconds.items():
        times.add_row(step, f"{seconds:.1f}")
    console.print(times)


def show_packaging(report: JobReport) -> None:
    bento = report.assets["package/bento"]
    console.print(f"bundle {bento['bundle'][:16]}, Bento {bento['tag']}")
    console.print(f"  {bento['path']}" + (" (unchanged)" if bento["unchanged"] else ""), soft_wrap=True)


def _number(value: object) -> str:
    return "" if value is None else f"{value:,}"


def _yes(found: Mapping[str, Any]) -> str:
    return "yes" if found.get("unchanged") else ""


def _detail(found: Mapping[str, Any]) -> str:
    if "values" in found:
        return f"{found['values']:,} values compared, {found['mismatches']:,} mismatches"
    if "reasons" in found:
        return "reasons below"
    return "; ".join(f"{key}: {value}" for key, value in found.items() if value != [])[:160]
