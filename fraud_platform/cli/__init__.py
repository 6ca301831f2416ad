"""The command line: `fraud-platform COMMAND --help` tells each command's options.

Belongs here: reading options, showing results. Does not belong here: anything a stage or an adapter decides.
Heavy imports wait inside the commands, so that `--help` and short commands answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fraud_platform.cli import rules
from fraud_platform.cli.audit import audit
from fraud_platform.cli.instance import console
from fraud_platform.cli.options import AsOfOption, Dataset, Folds, RowsMax, Source, settings_of
from fraud_platform.cli.replay import replay
from fraud_platform.errors import FraudPlatformError, SettingsError
from fraud_platform.settings import VAR_VARIABLE

TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(
    name="fraud-platform",
    help="Fraud detection as one loop: features, labels, models, decisions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
benchmarks = typer.Typer(help="Measure the platform's models on published data.", no_args_is_help=True)
app.add_typer(benchmarks, name="benchmark")
app.add_typer(audit, name="audit")
app.command("replay")(replay)
keys = typer.Typer(help="The bearer keys that the service asks for.", no_args_is_help=True)
app.add_typer(keys, name="keys")
KeysFile = Annotated[Path | None, typer.Option(help="The keys file [FRAUD_PLATFORM_KEYS]")]
app.add_typer(rules.app, name="rules")


@app.callback()
def main(
    var: Annotated[Path | None, typer.Option(help="Where everything is written [FRAUD_PLATFORM_VAR]")] = None,
) -> None:
    if var is not None:
        os.environ[VAR_VARIABLE] = str(var.resolve())


@app.command()
def run(
    dataset: Dataset = None,
    source: Source = None,
    as_of: AsOfOption = "",
    approve_by: Annotated[
        str, typer.Option(help="Approve what passes its gate in this name, and package it")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why it is approved")] = "approved with the run",
    use_search: Annotated[
        bool, typer.Option(help="Train with the best parameters of the last search")
    ] = False,
) -> None:
    """The whole loop: ingest, features, labels, train, evaluate, register (and approve, package)."""
    from fraud_platform.cli.loop import run_loop

    run_loop(settings_of(dataset, source), as_of, approve_by, reason, use_search)


@app.command()
def search(
    dataset: Dataset = None,
    source: Source = None,
    trials: Annotated[int, typer.Option(help="Trials that the study is to have, earlier ones included")] = 50,
    minutes: Annotated[float, typer.Option(help="What this run may take")] = 10.0,
    metric: Annotated[str, typer.Option(help="cost (money) or average_precision")] = "cost",
    seed: Annotated[int, typer.Option(help="The same seed makes the same trials")] = 7,
    rows_max: RowsMax = 60_000,
    folds: Folds = 3,
) -> None:
    """Searches training parameters on validation folds, goes on where it ended, and judges on test folds."""
    from fraud_platform.cli.experiments import show_search

    show_search(
        settings_of(dataset, source),
        trials=trials,
        minutes=minutes,
        metric=metric,
        seed=seed,
        rows_max=rows_max,
        folds=folds,
    )


@app.command()
def demo(
    transactions: Annotated[
        int, typer.Option(help="Size of the world; 0: the one that lies there, or the demo's own")
    ] = 0,
    live: Annotated[int, typer.Option(help="Live transactions to decide, at the most")] = 2_000,
) -> None:
    """The loop on a simulated world, and live transactions decided by the running Bento."""
    from fraud_platform.cli.demo import demo as play

    play(settings_of("simulated", None), transactions, live)


@app.command()
def ui(
    dataset: Dataset = None,
    source: Source = None,
    dagster_port: Annotated[int, typer.Option(help="Port of Dagster's web server")] = 3100,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow")] = 5100,
) -> None:
    """Dagster (web server and daemon) and MLflow, until interrupted."""
    from fraud_platform.cli.ui import serve_ui

    serve_ui(settings_of(dataset, source), dagster_port, mlflow_port)


@app.command()
def approve(
    version: Annotated[str, typer.Argument(help="The registered version")],
    by: Annotated[str, typer.Option(help="Who approves")],
    reason: Annotated[str, typer.Option(help="Why")],
    without_comparison: Annotated[
        str, typer.Option(help="Why it may ship although the champion cannot be compared with it any more")
    ] = "",
    dataset: Dataset = None,
) -> None:
    """Makes a version whose gate passed the champion, in somebody's name."""
    from fraud_platform.cli.loop import approve as record

    with console.status("asking MLflow"):
        said = record(settings_of(dataset, None), version, by, reason, without_comparison)
    console.print(said)


@app.command()
def versions(dataset: Dataset = None) -> None:
    """Registered versions with their gate and approval."""
    from fraud_platform.defs.platform import Platform

    platform = Platform(settings_of(dataset, None))
    table = Table("version", "aliases", "gate", "approved by", "reason", "fingerprint")
    with console.status("asking MLflow"):
        registered = platform.registry.versions()
    for one in registered:
        approval = one.approval
        gate = "passed" if one.is_gate_passed else "uncompared" if one.is_uncompared else "failed"
        by, reason = (approval.by, approval.reason) if approval else ("", "")
        table.add_row(one.version, ", ".join(one.aliases), gate, by, reason, one.fingerprint[:12])
    console.print(table)


@app.command()
def features(
    dataset: Dataset = None,
    name: Annotated[str, typer.Argument(help="A feature, an entity or a window; all without it")] = "",
    entity: Annotated[str, typer.Option(help="Only features of this entity")] = "",
    window: Annotated[str, typer.Option(help="Only features over this window")] = "",
    stream: Annotated[str, typer.Option(help="Only features that count this stream")] = "",
) -> None:
    """The feature contract: what each feature counts, and where it is used."""
    from fraud_platform.cli.features import show_features

    show_features(settings_of(dataset, None), name, entity, window, stream)


@app.command()
def parity(
    dataset: Dataset = None,
    events: Annotated[
        int | None, typer.Option(help="Replay only the last so many transactions, over a loaded store")
    ] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Replay the whole timeline (the default)")] = False,
    has_tails: Annotated[
        bool, typer.Option("--tails/--no-tails", help="Show what windows with tails would get wrong")
    ] = True,
    store: Annotated[str, typer.Option(help="Replay on a Redis instead: redis://HOST:PORT")] = "",
) -> None:
    """Replays the timeline through the online store and compares every value with dbt's, as bits."""
    from fraud_platform.cli.parity import show_parity

    if is_all and events is not None:
        raise SettingsError(f"parity: --all replays everything, --events {events} a part of it; give one")
    show_parity(settings_of(dataset, None), events, has_tails, store)


@app.command()
def rungs(
    dataset: Dataset = None,
    model: Annotated[
        str, typer.Option(help="With which model: champion (else the last candidate) or candidate")
    ] = "champion",
) -> None:
    """What an outage costs: the test rows answered by one rung of the service's ladder after another."""
    from fraud_platform.cli.rungs import show_rungs

    show_rungs(settings_of(dataset, None), model)


@app.command()
def serve(
    dataset: Dataset = None,
    port: Annotated[int, typer.Option(help="Port on loopback")] = 3000,
) -> None:
    """Runs the packaged Bento on this machine until interrupted."""
    from fraud_platform.cli.serve import serve_bento

    serve_bento(settings_of(dataset, None), port)


@app.command()
def switch(
    bundle: Annotated[
        str, typer.Argument(help="A bundle's id, its beginning, or its folder; the last packaged without it")
    ] = "",
    dataset: Dataset = None,
    state: Annotated[
        Path | None, typer.Option(help="The service's state folder, where it is not the dataset's own")
    ] = None,
) -> None:
    """Has a running service go on with another bundle, checked first and between two decisions."""
    from fraud_platform.cli.switch import switch_bundle

    switch_bundle(settings_of(dataset, None), bundle, state)


@app.command()
def image(
    dataset: Dataset = None,
    base: Annotated[str, typer.Option(help="Image to build on; BentoML's own where empty")] = "",
    tag: Annotated[str, typer.Option(help="Name of the image, with or without a tag")] = "fraud_platform",
    backend: Annotated[str, typer.Option(help="docker, podman or buildah")] = "docker",
    opt: Annotated[list[str] | None, typer.Option(help="The builder's own: network=host, pull-never")] = None,
) -> None:
    """Builds the container image of the last Bento that was built."""
    from fraud_platform.adapters.image import ImageSettings
    from fraud_platform.cli.image import containerize

    containerize(settings_of(dataset, None), ImageSettings(base, tag, backend, tuple(opt or ())))


@app.command("go-live")
def go_live(
    dataset: Dataset = None,
    store: Annotated[str, typer.Option(help="Fill a Redis instead: redis://HOST:PORT")] = "",
) -> None:
    """Makes the service's store anew from the warehouse and its logs; a running service goes on with it.

    On Redis a store is filled once for each contract; started again, the command catches up with the logs.
    """
    from fraud_platform.cli.go_live import fill_redis
    from fraud_platform.cli.go_live import go_live as make

    if store:
        fill_redis(settings_of(dataset, None), store)
    else:
        make(settings_of(dataset, None))


@app.command()
def monitor(dataset: Dataset = None) -> None:
    """Takes the decision log into the warehouse; drift and delayed performance."""
    from fraud_platform.cli.demo import show_monitoring

    show_monitoring(settings_of(dataset, None))


@benchmarks.command("simulated")
def benchmark_simulated(
    transactions: Annotated[
        int, typer.Option(help="Size of the world; 0: the one that lies there, or the demo's own")
    ] = 0,
) -> None:
    """The simulated world: its label delay, and what naive, mature and corrected labels cost by the truth."""
    from fraud_platform.cli.simulated import benchmark

    benchmark(settings_of("simulated", None), transactions)


@benchmarks.command("handbook")
def benchmark_handbook(
    data: Annotated[Path, typer.Option(help="Folder that holds the handbook's transactions")],
) -> None:
    """The handbook's validation and test folds: the published rows beside the platform's."""
    from fraud_platform.cli.handbook import benchmark

    benchmark(settings_of("handbook", data))


@benchmarks.command("imbalance")
def benchmark_imbalance(
    dataset: Dataset = None, source: Source = None, rows_max: RowsMax = 60_000, folds: Folds = 3
) -> None:
    """Ways to treat rare frauds on the same folds: ranking, money, calibration, time."""
    from fraud_platform.cli.experiments import show_imbalance

    show_imbalance(settings_of(dataset, source), rows_max=rows_max, folds=folds)


@benchmarks.command("blend")
def benchmark_blend(
    dataset: Dataset = None,
    source: Source = None,
    rows_max: RowsMax = 60_000,
    folds: Folds = 3,
    budget_ms: Annotated[float, typer.Option(help="What scoring one row may take (p99)")] = 1.0,
) -> None:
    """XGBoost beside LightGBM and the two blended: money, and the time to score one row."""
    from fraud_platform.cli.experiments import show_blend

    show_blend(settings_of(dataset, source), rows_max=rows_max, folds=folds, latency_budget_ms=budget_ms)


@benchmarks.command("sparkov")
def benchmark_sparkov(
    data: Annotated[Path, typer.Option(help="Folder that holds Sparkov's transactions and customers")],
) -> None:
    """The quarter from 2020-04-01, with everything chosen before: AP, money, segments, what is no input."""
    from fraud_platform.cli.sparkov import benchmark

    benchmark(settings_of("sparkov", data))


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it")],
    scope: Annotated[list[str], typer.Option(help="decide, label, read or admin; may be given again")],
    rate: Annotated[
        float | None, typer.Option(help="Transactions or label events a second; no limit without it")
    ] = None,
    expires: Annotated[str, typer.Option(help="The first day (UTC) on which it is refused")] = "",
    file: KeysFile = None,
) -> None:
    """Makes a key and prints it, once: the file keeps its hash."""
    from fraud_platform.cli.keys import add

    add(file, name, scope, rate, expires)


@keys.command("list")
def list_keys(file: KeysFile = None) -> None:
    """Names, scopes and states of the keys."""
    from fraud_platform.cli.keys import show

    show(file)


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="The key's name")], file: KeysFile = None) -> None:
    """Ends a key; running services refuse it within a second."""
    from fraud_platform.cli.keys import revoke

    revoke(file, name)


@app.command()
def tokenize(
    source: Annotated[Path, typer.Argument(help="A CSV or Parquet file")],
    target: Annotated[Path, typer.Argument(help="The file to write, CSV or Parquet")],
    column: Annotated[
        list[str], typer.Option(help="COLUMN=KIND: card_number, customer, device or ip; may be given again")
    ],
    key_file: Annotated[
        Path | None, typer.Option(help="32 or more random bytes [FRAUD_PLATFORM_TOKEN_KEY_FILE]")
    ] = None,
) -> None:
    """Replaces raw ids of a file by the keyed tokens that the service makes of the same ids."""
    from fraud_platform.cli.tokenize import tokenize as replace

    replace(source, target, column, key_file)


def entry() -> None:
    """The console script: the platform's own errors end in one line and status 1.

    SIGTERM unwinds like an exit, so that what a command started is stopped with it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        app()
    except FraudPlatformError as error:
        console.print(f"error: {error}", soft_wrap=True)
        sys.exit(1)


__all__ = ["app", "entry"]
