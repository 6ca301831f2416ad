"""`replay`: recorded decisions made again and compared, and one of them explained."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fraud_platform.cli.instance import console
from fraud_platform.cli.options import Dataset, settings_of
from fraud_platform.errors import SettingsError
from fraud_platform.schema import ACTIONS, MILLISECONDS_PER_DAY
from fraud_platform.settings import Settings

if TYPE_CHECKING:
    from fraud_platform.package import Bundle
    from fraud_platform.serve.judge import Judge
    from fraud_platform.serve.record import DecisionRecord
    from fraud_platform.serve.replay import Replayed

STRONGEST = 15


def replay(
    transaction_id: Annotated[str, typer.Argument(help="One decision, which is then explained")] = "",
    day: Annotated[str, typer.Option(help="The decisions of a day (UTC), as 2026-03-01")] = "",
    is_all: Annotated[bool, typer.Option("--all", help="Every decision of the log")] = False,
    state: Annotated[Path | None, typer.Option(help="The service's state folder")] = None,
    bundles: Annotated[Path | None, typer.Option(help="Folder of bundles, or a bundle")] = None,
    store: Annotated[
        Path | None, typer.Option(help="The store that the service began with, where no go-live made it")
    ] = None,
    dataset: Dataset = None,
) -> None:
    """Makes decisions again from the log and the bundles, and compares bytes; exits with 1 where one differs.

    Nothing of the live state is written: features are computed in a copy of the store they began with.
    """
    from fraud_platform.adapters.replay import Wanted, replay_log

    if (bool(transaction_id), bool(day), is_all).count(True) != 1:
        raise SettingsError("replay: give one transaction id, or --day, or --all")
    settings = settings_of(dataset, None)
    wanted = Wanted(transaction_id, _day(day) if day else None)
    with console.status("replaying") as status:
        report = replay_log(
            state or settings.service_state,
            _bundles(settings, bundles),
            wanted,
            base=store,
            progress=status.update,
            each=explain if transaction_id else _say_nothing,
        )
    for line in (*report.examples, *report.lines()):
        console.print(line, soft_wrap=True)
    raise typer.Exit(0 if report.is_equal else 1)


def explain(record: DecisionRecord, replayed: Replayed, judge: Judge) -> None:
    """What was asked, what was known, what decided."""
    from fraud_platform.serve.requests import canonical

    decided = datetime.fromtimestamp(record.decided_at / 1000, UTC).isoformat(timespec="milliseconds")
    console.print(f"request {canonical(record.request).decode()}", soft_wrap=True)
    console.print(
        f"decided {decided} by {record.decided_by}, tier {record.tier}, bundle {record.bundle_id}",
        soft_wrap=True,
    )
    if record.vector is not None:
        console.print(_features(record, judge))
    if record.faults:
        console.print(f"faults {', '.join(record.faults)}")
    console.print(
        f"rules {', '.join(record.rules) or 'none'}, shadow {', '.join(record.shadow_rules) or 'none'}"
    )
    if record.expected_costs:
        costs = zip(ACTIONS, record.expected_costs, strict=True)
        console.print("expected costs " + ", ".join(f"{action} {cost:.4f}" for action, cost in costs))
    if record.price:
        console.print(f"the price that decided: {record.price}")
    console.print(f"score {record.raw_score}, probability {record.probability}, action {record.action}")
    if record.propensity != 1.0:
        said = "explored: the policy declined it" if record.is_explored else "it might have been explored"
        console.print(f"{said}; taken with probability {record.propensity:g}")
    for reason in record.reasons:
        console.print(f"reason {reason.code}: {reason.text}", soft_wrap=True)
    console.print(f"{', '.join(replayed.differing)} differ" if replayed.differing else "equal to the byte")


def _features(record: DecisionRecord, judge: Judge) -> Table:
    """The features that moved the score most, and by how much."""
    from fraud_platform.serve.booster import Booster

    bundle, vector = judge.bundle, record.vector or ()
    booster = Booster(bundle.model_text)
    moved = booster.contributions(bundle.encoder.vector(vector, bundle.contract))
    booster.close()
    order = sorted(range(len(vector)), key=lambda place: -abs(moved[place]))
    table = Table("feature", "value", "moves the score by")
    for place in order[:STRONGEST]:
        table.add_row(bundle.contract.names[place], str(vector[place]), f"{moved[place]:+.4f}")
    return table


def _say_nothing(*_: object) -> None:
    pass


def _bundles(settings: Settings, given: Path | None) -> Callable[[str], Bundle]:
    from fraud_platform.adapters.bundle_files import bundle_path, load_bundle
    from fraud_platform.package.bundle import MANIFEST

    folder = given or settings.bundles
    is_one = (folder / MANIFEST).is_file()
    return lambda bundle_id: load_bundle(folder if is_one else bundle_path(folder, bundle_id))


def _day(text: str) -> int:
    try:
        moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise SettingsError(f"--day {text!r}: give it as 2026-03-01") from error
    return int(moment.timestamp() * 1000) // MILLISECONDS_PER_DAY
