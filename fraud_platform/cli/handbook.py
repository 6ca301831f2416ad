"""`benchmark handbook`: the published folds on the platform's own features, the book's on the book's."""

from __future__ import annotations

import time

from rich.table import Table

from fraud_platform.cli.instance import console, prepare_environment, run_job
from fraud_platform.defs.platform import Platform
from fraud_platform.evaluate.handbook import HEADER, HandbookTable, run_handbook
from fraud_platform.evaluate.handbook_book import HEADER as BOOK_HEADER
from fraud_platform.evaluate.handbook_book import BookTable, run_book
from fraud_platform.settings import Settings

ROWS = """
select features.*, transactions.card_id, frauds.transaction_id is not null as is_fraud
from features.transaction_features as features
inner join ingest.transactions as transactions using (transaction_id)
left join (select distinct transaction_id from ingest.labels where outcome = 'fraud') as frauds
  on features.transaction_id = frauds.transaction_id
"""
BOOK_ROWS = """
select
  transactions.transaction_id, transactions.event_time, card_id, merchant_id, amount_minor,
  frauds.transaction_id is not null as is_fraud
from ingest.transactions as transactions
left join (select distinct transaction_id from ingest.labels where outcome = 'fraud') as frauds
  on transactions.transaction_id = frauds.transaction_id
"""


def benchmark(settings: Settings) -> HandbookTable:
    """Builds the features if they are not there, trains and assesses every fold, and prints the tables."""
    from fraud_platform.definitions import build_defs

    started = time.perf_counter()
    prepare_environment(settings)
    run_job(build_defs(settings), "building")
    platform = Platform(settings)
    with console.status("folds") as status:
        frame = platform.warehouse.frame(ROWS)
        table = run_handbook(frame, platform.contract, status.update)
        del frame
        book = run_book(platform.warehouse.frame(BOOK_ROWS), status.update)
    _show(table)
    _show_book(book)
    console.print(f"{time.perf_counter() - started:.0f} s")
    return table


def _show(table: HandbookTable) -> None:
    shown = Table(*HEADER)
    for row in table.rows():
        shown.add_row(*row)
    console.print(shown)


def _show_book(table: BookTable) -> None:
    shown = Table(*BOOK_HEADER)
    for row in table.rows:
        shown.add_row(*row.row())
    console.print(shown)
