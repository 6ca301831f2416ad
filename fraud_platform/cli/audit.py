"""`audit`: the journal checked, anchored, shortened, and a person erased from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fraud_platform.cli.instance import console
from fraud_platform.cli.options import Dataset, settings_of
from fraud_platform.errors import SettingsError
from fraud_platform.settings import Settings

if TYPE_CHECKING:
    from fraud_platform.adapters.duckdb import Warehouse
    from fraud_platform.adapters.erasure import ErasureReport

audit = typer.Typer(help="The journal: verify, anchor, retain, erase.", no_args_is_help=True)

State = Annotated[
    Path | None, typer.Argument(help="The service's state folder; the dataset's own without it")
]
By = Annotated[str, typer.Option(help="Who does it")]


@audit.command()
def verify(
    state: State = None,
    anchor: Annotated[Path | None, typer.Option(help="Heads that `audit anchor` wrote before")] = None,
    dataset: Dataset = None,
) -> None:
    """Looks at every byte of the logs; exits with 1 where one was changed, is missing or out of order.

    The heads that the warehouse met at each load are compared too, where it is the dataset's own service.
    """
    from fraud_platform.adapters.audit import check_state, read_anchors
    from fraud_platform.adapters.duckdb_monitor import anchors

    settings = settings_of(dataset, None)
    wanted = read_anchors(anchor) if anchor is not None else []
    if state is None and settings.warehouse.is_file():
        wanted += anchors(_warehouse(settings))
    report = check_state(state or settings.service_state, wanted)
    for line in report.lines():
        console.print(line, soft_wrap=True)
    raise typer.Exit(0 if report.is_whole else 1)


@audit.command("anchor")
def anchor_heads(
    state: State = None,
    out: Annotated[Path | None, typer.Option(help="Write them here, to be kept elsewhere")] = None,
    dataset: Dataset = None,
) -> None:
    """The present head of every chain: kept elsewhere, it betrays an end that was cut off or forged."""
    from fraud_platform.adapters.audit import heads, write_anchors

    found = heads(state or settings_of(dataset, None).service_state, _now_ms())
    for one in found:
        console.print(f"{one.log} {one.worker} {one.sequence} {one.hash} {one.at}", soft_wrap=True)
    if out is not None:
        write_anchors(out, found)
        console.print(f"{len(found)} heads written to {out}", soft_wrap=True)


@audit.command()
def retain(
    days: Annotated[int, typer.Option(help="Remove whole segments whose records are all older", min=1)],
    by: By,
    state: State = None,
    dataset: Dataset = None,
) -> None:
    """Removes old segments that the warehouse has taken in; the chains stay valid and say what is gone."""
    from fraud_platform.adapters.duckdb_monitor import loaded_up_to
    from fraud_platform.adapters.retention import retain as remove

    settings = settings_of(dataset, None)
    loaded = {log: loaded_up_to(_warehouse(settings), log) for log in ("decisions", "labels")}
    report = remove(state or settings.service_state, loaded, days=days, by=by, at=_now_ms())
    for chain, one in report.removed.items():
        console.print(f"{chain}: {one.segments} segments, up to sequence {one.sequence}, removed")
    console.print(
        f"{len(report.removed)} chains shortened, {report.bases} stores of old replays removed",
        soft_wrap=True,
    )


@audit.command()
def erase(
    by: By,
    reason: Annotated[str, typer.Option(help="Why; it is kept, so name nobody in it")],
    customer: Annotated[str, typer.Option(help="The customer's id, with what is only theirs")] = "",
    card: Annotated[str, typer.Option(help="The id of a card that no customer was seen with")] = "",
    with_bases: Annotated[
        bool, typer.Option(help="Also remove the stores that replays of the past begin with")
    ] = False,
    state: State = None,
    dataset: Dataset = None,
) -> None:
    """Destroys the keys of a person: what the logs hold of them is noise from then on, also in old copies."""
    from fraud_platform.adapters.duckdb_monitor import forget
    from fraud_platform.adapters.erasure import drop_bases, erase_card, erase_customer

    if bool(customer) == bool(card):
        raise SettingsError("give either --customer or --card")
    settings = settings_of(dataset, None)
    folder, now = state or settings.service_state, _now_ms()
    if customer:
        report = erase_customer(folder, customer, by=by, reason=reason, at=now)
    else:
        report = erase_card(folder, card, by=by, reason=reason, at=now)
    rows = forget(_warehouse(settings), folder) if settings.warehouse.is_file() else 0
    bases = drop_bases(folder) if with_bases else 0
    _tell(report, rows, bases, folder)


def _tell(report: ErasureReport, rows: int, bases: int, folder: Path) -> None:
    if report.shared_cards:
        console.print(f"{report.shared_cards} cards that others were seen with keep their own keys")
    console.print(
        f"Copies of {folder / 'vault'} that are older than now still hold the keys: purge them. The online "
        f"store and the copies in {folder / 'bases'} hold ids until the events are too old to count.",
        soft_wrap=True,
    )
    console.print(
        f"{report.keys} keys destroyed, {report.decisions} decisions and {report.labels} labels are noise, "
        f"{rows} rows removed from the warehouse, {bases} stores removed",
        soft_wrap=True,
    )


def _warehouse(settings: Settings) -> Warehouse:
    from fraud_platform.adapters.duckdb import Warehouse

    return Warehouse(settings.warehouse)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
