"""`benchmark simulated`: the label delay of the played world, and what each way to treat it costs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from fraud_platform.cli.instance import console, prepare_environment, run_job
from fraud_platform.errors import SettingsError
from fraud_platform.settings import Settings

if TYPE_CHECKING:
    from fraud_platform.defs.delay_bakeoff import DelayBakeoffConfig
    from fraud_platform.defs.platform import Platform
    from fraud_platform.learning.delay_result import DelayBakeoff
    from fraud_platform.learning.label_delay import LabelDelay

SHOWN_WINDOWS_DAYS = (7, 14, 30, 60)


def benchmark(settings: Settings, transactions: int) -> DelayBakeoff:
    """Plays the world and builds its features where they are not there, and prints the tables.

    transactions: about how many to play; 0 goes on with the world that lies there, or plays the demo's.
    SettingsError where another world lies in the folder already.
    """
    from fraud_platform.definitions import build_defs
    from fraud_platform.defs.delay_bakeoff import DelayBakeoffConfig
    from fraud_platform.defs.platform import Platform

    if transactions < 0:
        raise SettingsError(
            f"--transactions {transactions}: give 0 for the world that lies there, or how many to play"
        )
    started = time.perf_counter()
    prepare_environment(settings)
    config = {"ops": {"simulate__world": {"config": {"transactions": transactions}}}}
    run_job(build_defs(settings), "building", config)
    found = show_delay(Platform(settings), DelayBakeoffConfig())
    console.print(f"bake-off {found.seconds:.0f} s, in all {time.perf_counter() - started:.0f} s")
    return found


def show_delay(platform: Platform, config: DelayBakeoffConfig) -> DelayBakeoff:
    """The label delay and the bake-off of a world whose features are built."""
    from fraud_platform.defs.delay_bakeoff import judged_delay
    from fraud_platform.defs.label_delay import measured_delay

    _show_curves(measured_delay(platform))
    with console.status("bake-off") as status:
        found = judged_delay(platform, config, status.update)
    _show_bakeoff(found)
    return found


def _show_curves(found: LabelDelay) -> None:
    names = [f"after {days} d (histogram)" for days in SHOWN_WINDOWS_DAYS]
    table = Table("frauds", Column("", no_wrap=True), "known", "50 % after", "90 % after", "horizon", *names)
    for record in found.table():
        known = [_shares(record, days) for days in SHOWN_WINDOWS_DAYS]
        waits = [f"{record[name]:.1f} d" for name in ("days_50", "days_90", "horizon_days")]
        table.add_row(record["dimension"], record["value"], f"{record['frauds']:,}", *waits, *known)
    console.print(table)
    for line in found.explain():
        console.print(line, soft_wrap=True)


def _shares(record: dict[str, Any], days: int) -> str:
    share, naive = record[f"known_{days}d"], record[f"known_{days}d_naive"]
    return "beyond" if share is None else f"{share:.1%} ({naive:.1%})"


def _show_bakeoff(found: DelayBakeoff) -> None:
    """Both roles' contenders, then the ways to decide, in units of money per 1,000 transactions."""
    from fraud_platform.learning.delay_result import ROLES

    for role in ROLES:
        title = "chosen on: earlier as-ofs" if role == "validation" else "judged on: later as-ofs"
        table = Table(
            Column("contender", no_wrap=True),
            "frauds that teach",
            "AP",
            f"more than {found.reference}",
            "AP of theft",
            "frauds expected",
            "cost per 1,000",
            f"saves against {found.reference}",
            title=f"{title} ({found.rows[role]:,} rows, {found.frauds[role]:,} true frauds)",
        )
        for one in found.contenders[role]:
            gain = one.average_precision_gain
            table.add_row(
                one.name,
                f"{one.teaching_frauds:,}",
                f"{one.average_precision:.4f}",
                f"{gain.estimate:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})",
                f"{one.theft_average_precision:.4f}",
                f"{one.expected_frauds:,.0f}",
                one.cost.short(),
                one.saved.short(),
            )
        console.print(table)
    ways = Table(
        Column("decided by", no_wrap=True),
        "cost per 1,000",
        "more than the model",
        "frauds approved",
        "good stopped",
    )
    for way in found.ways:
        ways.add_row(
            way.name,
            way.cost.short(),
            way.model_saves.short(),
            f"{way.missed:.1%}",
            f"{way.stopped_good:.2%}",
        )
    console.print(ways)
    for line in found.explain():
        console.print(line, soft_wrap=True)
