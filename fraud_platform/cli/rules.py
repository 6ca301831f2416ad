"""`rules`: what is in force, whether a file is right, and what each rule would have done."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fraud_platform.cli.instance import console
from fraud_platform.cli.options import Dataset, settings_of
from fraud_platform.errors import SettingsError

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform
    from fraud_platform.evaluate import Backtest, RuleResult
    from fraud_platform.rules import RuleSet

app = typer.Typer(help="The rules: list them, check a file, backtest them.", no_args_is_help=True)
Lists = Annotated[
    Path | None,
    typer.Option("--lists", help="A lists file; without it lists.yaml beside FILE, or the platform's"),
]
WIDE = 240
"""Columns of what is piped."""


@app.command("list")
def list_rules(dataset: Dataset = None) -> None:
    """The platform's rules and lists, in the order in which they speak."""
    rules = _platform(dataset).rules
    _show_rules(rules)
    table = Table("list", "of", "tokens", "owner", "text")
    for one in rules.lists.values():
        table.add_row(one.name, ", ".join(one.of), f"{len(one.tokens):,}", one.owner, one.text)
    _print(table)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A rules file")],
    dataset: Dataset = None,
    lists: Lists = None,
) -> None:
    """Reads a rules file as the service would; what is wrong in it ends with status 1."""
    rules = _read(_platform(dataset), file, lists)
    _show_rules(rules)
    modes: list[str] = [rule.mode for rule in rules.declared]
    counts = ", ".join(f"{modes.count(mode)} {mode}" for mode in ("live", "shadow", "off"))
    console.print(f"{file} is right: {len(modes)} rules ({counts}), {len(rules.lists)} lists", soft_wrap=True)


@app.command()
def backtest(
    dataset: Dataset = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="Another rules file than the platform's")
    ] = None,
    lists: Lists = None,
    since: Annotated[
        str, typer.Option("--from", help="Only transactions from this day or moment on (UTC)")
    ] = "",
    until: Annotated[
        str, typer.Option("--until", help="Only transactions before this day or moment (UTC)")
    ] = "",
    model: Annotated[
        str, typer.Option(help="Beside which model: champion (else the last candidate), candidate or none")
    ] = "champion",
) -> None:
    """What each rule would have done in mature history, off ones too: hits, money, what it adds to the model.

    Labels are those of the training set, as mature as its as_of; a rule's own days are left aside.
    """
    from fraud_platform.adapters.duckdb_history import mature_rows
    from fraud_platform.defs.rules import compared_model, window
    from fraud_platform.evaluate import backtest as run

    platform = _platform(dataset)
    chosen = platform.rules if rules is None and lists is None else _read(platform, rules, lists)
    part = window(platform, since, until)
    with console.status("backtesting"):
        beside = compared_model(platform, model)
        found = run(mature_rows(platform.warehouse, part), part, chosen, platform.policy, beside)
    _show_backtest(found)


def _platform(dataset: str | None) -> Platform:
    from fraud_platform.defs.platform import Platform

    return Platform(settings_of(dataset, None))


def _read(platform: Platform, file: Path | None, lists: Path | None) -> RuleSet:
    from fraud_platform.rules import rules_from_yaml

    beside = None if file is None else file.with_name("lists.yaml")
    lists = lists or (beside if beside is not None and beside.is_file() else None)
    rules_text = platform.rules_text if file is None else _text(file)
    lists_text = platform.lists_text if lists is None else _text(lists)
    return rules_from_yaml(rules_text, platform.contract.dtypes, lists_text)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}; give a YAML file in UTF-8") from error


def _show_rules(rules: RuleSet) -> None:
    table = Table("priority", "rule", "mode", "action", "code", "owner", "days", "when")
    for rule in sorted(rules.declared, key=lambda rule: (rule.priority, rule.name)):
        table.add_row(
            str(rule.priority),
            rule.name,
            rule.mode,
            rule.action,
            rule.code,
            rule.owner,
            _days(rule.begins, rule.ends),
            rule.when.text,
        )
    _print(table)


def _days(begins: date | None, ends: date | None) -> str:
    return "" if begins is None and ends is None else f"{begins or ''} to {ends or ''}".strip()


def _show_backtest(found: Backtest) -> None:
    columns = ["rule", "mode", "action", "hits", "precision", "recall", "alone only", "saved"]
    if found.model is not None:
        columns += ["model acts too", "model approves", "of them fraud", "added to the model"]
    table = Table(*columns)
    for one in found.rules:
        table.add_row(*_cells(one))
    _print(table)
    for line in found.explain():
        console.print(line, soft_wrap=True)


def _cells(one: RuleResult) -> list[str]:
    cells = [one.name, one.mode, one.action, f"{one.hits:,}", _share(one.precision), _share(one.recall)]
    cells += [f"{one.only:,}", one.saved.short(digits=0)]
    if one.model is not None:
        beside = one.model
        cells += [
            _share(beside.overlap),
            f"{beside.missed:,}",
            f"{beside.missed_frauds:,}",
            beside.added.short(digits=0),
        ]
    return cells


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _print(table: Table) -> None:
    """Whole names, and wide where it is piped; square brackets of an expression are no markup."""
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    width = None if sys.stdout.isatty() else WIDE
    Console(highlight=False, markup=False, width=width).print(table)
