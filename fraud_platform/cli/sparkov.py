"""`benchmark sparkov`: the quarter from 2020-04-01, with everything chosen before it."""

from __future__ import annotations

import time

import pandas as pd
from rich.table import Table

from fraud_platform.cli.instance import console, prepare_environment, run_job
from fraud_platform.defs.platform import Platform
from fraud_platform.evaluate.sparkov import PLAIN, SparkovResult, run_sparkov
from fraud_platform.settings import Settings

CUSTOMERS = "customers.parquet"
ROWS = """
select
  features.*, transactions.card_id, transactions.customer_id, transactions.merchant_id,
  transactions.currency, frauds.transaction_id is not null as is_fraud
from features.transaction_features as features
inner join ingest.transactions as transactions using (transaction_id)
left join (select distinct transaction_id from ingest.labels where outcome = 'fraud') as frauds
  on features.transaction_id = frauds.transaction_id
"""
PEOPLE = """
select
  cast(customer_id as varchar) as card_id, gender,
  date_diff('year', cast(dob as date), date '2020-04-01') as age
from read_parquet(?)
"""


def benchmark(settings: Settings) -> SparkovResult:
    """Builds the features if they are not there, chooses, trains, assesses, and prints what it found."""
    from fraud_platform.definitions import build_defs

    started = time.perf_counter()
    prepare_environment(settings)
    platform = Platform(settings)
    run_job(build_defs(settings), "building")
    people = _people(platform)
    with console.status("rows") as status:
        frame = platform.warehouse.frame(ROWS)
        found = run_sparkov(
            frame, platform.contract, platform.mapping, platform.policy, platform.rules, people, status.update
        )
    show(found)
    console.print(f"{time.perf_counter() - started:.0f} s")
    return found


def _people(platform: Platform) -> pd.DataFrame | None:
    """Gender and age of the customers, where the set's folder tells them: for the report alone."""
    customers = platform.source / CUSTOMERS
    return platform.warehouse.frame(PEOPLE, [str(customers)]) if customers.is_file() else None


def show(found: SparkovResult) -> None:
    _show_choice(found)
    quality, contract = found.evaluation.quality, found.candidate.contract
    name, average_precision = PLAIN
    shown = Table("model", "AP", "AUC", "CP@100")
    shown.add_row(f"{name}, published", f"{average_precision:.4f}", "", "")
    for model, told in (("logistic regression", found.evaluation.qualities["logistic"]), ("ours", quality)):
        figures = (told.average_precision, told.auc, told.card_precision)
        shown.add_row(model, *(f"{figure:.4f}" for figure in figures))
    console.print(shown)
    for sentence in found.evaluation.explain():
        console.print(sentence, soft_wrap=True)
    _show_segments(found)
    _show_groups(found)
    console.print(f"inputs: {len(contract.features)} features; none of them reads what is excluded:")
    for column, reason in found.excluded.items():
        console.print(f"  {column}: {reason}", soft_wrap=True)


def _show_choice(found: SparkovResult) -> None:
    shown = Table("parameters", *(f"AP, {fold.split.test}" for fold in found.folds), "mean")
    for choice in found.choices:
        cells = (*choice.average_precisions, choice.mean)
        mark = " (chosen)" if choice == found.chosen else ""
        shown.add_row(choice.name + mark, *(f"{cell:.4f}" for cell in cells))
    console.print(shown)


def _show_segments(found: SparkovResult) -> None:
    shown = Table("segment", "rows", "frauds", "mean probability", "fraud rate", "cost", "saved")
    for one in found.evaluation.segments:
        shown.add_row(
            f"{one.dimension} {one.value}",
            f"{one.rows:,}",
            f"{one.frauds:,}",
            f"{one.mean_probability:.3%}",
            f"{one.frauds / one.rows:.3%}",
            f"{one.cost:,.0f}",
            f"{one.saved:,.0f}",
        )
    console.print(shown)


def _show_groups(found: SparkovResult) -> None:
    if not found.groups:
        console.print(f"no {CUSTOMERS} in the folder: nothing to tell of genders and ages")
        return
    shown = Table("group (no input)", "rows", "frauds", "AP", "good ones stopped", "frauds approved")
    for one in found.groups:
        shown.add_row(
            f"{one.dimension} {one.value}",
            f"{one.rows:,}",
            f"{one.frauds:,}",
            f"{one.average_precision:.4f}",
            f"{one.stopped_good:.2%}",
            f"{one.approved_frauds:.2%}",
        )
    console.print(shown)
