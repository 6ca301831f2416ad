"""`benchmark handbook`: the published folds on the platform's own features."""

from __future__ import annotations

import time

from rich.table import Table

from fraud_platform.cli.instance import console, prepare_environment, run_job
from fraud_platform.defs.platform import Platform
from fraud_platform.evaluate.handbook import HEADER, HandbookTable, run_handbook
from fraud_platform.settings import Settings

ROWS = """
select features.*, transactions.card_id, frauds.transaction_id is not null as is_fraud
from features.transaction_features as features
inner join ingest.transactions as transactions using (transaction_id)
left join (select distinct transaction_id from ingest.labels where outcome = 'fraud') as frauds
  on features.transaction_id = frauds.transaction_id
"""


def benchmark(settings: Settings) -> HandbookTable:
    """Builds the features if they are not there, trains and assesses every fold, and prints the table."""
    from fraud_platform.definitions import build_defs

    started = time.perf_counter()
    prepare_environment(settings)
    run_job(build_defs(settings), "building")
    platform = Platform(settings)
    with console.status("folds") as status:
        frame = platform.warehouse.frame(ROWS)
        table = run_handbook(frame, platform.contract, status.update)
    _show(table)
    console.print(f"{time.perf_counter() - started:.0f} s")
    return table


def _show(table: HandbookTable) -> None:
    shown = Table(*HEADER)
    for row in table.rows():
        shown.add_row(*row)
    console.print(shown)
