"""`rungs`: what the service's ladder costs, rung by rung."""

from __future__ import annotations

from rich.table import Table

from fraud_platform.cli.instance import console
from fraud_platform.schema import ACTIONS
from fraud_platform.settings import Settings


def show_rungs(settings: Settings, model: str) -> None:
    """SettingsError for an unknown model, TrainingError where there is none or nothing to judge it on."""
    from fraud_platform.defs.platform import Platform
    from fraud_platform.defs.rungs import priced_rungs

    with console.status("pricing every rung"):
        found = priced_rungs(Platform(settings), model)
    table = Table("answered by", "cost", "more than the model", *ACTIONS, "frauds approved")
    for one in found.rungs:
        shares = [f"{share:.1%}" for share in one.shares]
        table.add_row(one.name, one.cost.short(0), one.lost.short(0), *shares, f"{one.missed:.1%}")
    console.print(table)
    console.print(found.explain(), soft_wrap=True)
