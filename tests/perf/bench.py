"""Rows per second and peak memory of every stage, on a simulated world: `python -m tests.perf.bench`.

Each stage runs in a process of its own (the peak is its own, with that of the processes it starts) over what
the stages before it left in a folder that is removed at the end. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraud_platform.settings import PROJECT_ROOT, Settings

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

TRANSACTIONS, TRANSACTIONS_MAX = 250_000, 5_000_000
WIDTH = 120
OBSERVED, IN_PROCESS, OVER_HTTP, REPEATS = 20_000, 6_000, 3_000, 3


@dataclass(frozen=True)
class Measured:
    """rows of one repetition; seconds of each; note: what else it found."""

    rows: int
    seconds: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def simulate(platform: Platform, transactions: int) -> Measured:
    from fraud_platform.adapters.landing import write_world
    from fraud_platform.simulate import WorldSpec
    from fraud_platform.simulate import simulate as play

    settings, started = platform.settings, time.perf_counter()
    world = play(WorldSpec.sized(transactions))
    played = time.perf_counter() - started
    truth = settings.var / "truth"
    written = write_world(world, settings.landing, truth, settings.home / "live")
    note = f"played in {played:.1f} s, then written"
    return Measured(written.transactions, (time.perf_counter() - started,), note)


def ingest(platform: Platform, _: int) -> Measured:
    started = time.perf_counter()
    report = platform.warehouse.ingest(platform.mapping, platform.source, platform.now_ms())
    rows = report.transactions.rows_in + report.labels.rows_in
    return Measured(rows, (time.perf_counter() - started,), "transactions and labels")


def features(platform: Platform, _: int) -> Measured:
    seconds = _dbt(platform, "staging features")
    names = len(platform.contract.features)
    return Measured(
        platform.warehouse.count("ingest.transactions"), (seconds,), f"{names} features, with tests"
    )


def labels(platform: Platform, _: int) -> Measured:
    seconds = _dbt(platform, "training")
    rows = platform.warehouse.count("training.training_set")
    return Measured(
        platform.warehouse.count("training.labels"), (seconds,), f"{rows:,} mature rows, with tests"
    )


def store(platform: Platform, _: int) -> Measured:
    from fraud_platform.adapters.lmdb_load import load_store

    started = time.perf_counter()
    report = load_store(platform.warehouse, platform.contract, platform.settings.store)
    return Measured(report.transactions, (time.perf_counter() - started,), f"{report.keys:,} keys")


def observe(platform: Platform, _: int) -> Measured:
    """The end of the timeline, event by event, over a store that has seen what came before."""
    from fraud_platform.adapters.duckdb_timeline import read_timeline
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.adapters.lmdb_load import load_store
    from fraud_platform.schema import Transaction

    watermark = int(
        platform.warehouse.frame(
            "select event_time as t from ingest.transactions order by t desc limit 1 offset ?", [OBSERVED - 1]
        )["t"].iloc[0]
    )
    path = platform.settings.home / "observed"
    load_store(platform.warehouse, platform.contract, path, watermark)
    with platform.warehouse.connect(read_only=True) as connection:
        events = list(read_timeline(connection, platform.contract, watermark))
    with LmdbStore.open(path, platform.contract) as online:
        started = time.perf_counter()
        for event in events:
            if isinstance(event, Transaction):
                online.observe(event)
            else:
                online.learn(event)
        seconds = time.perf_counter() - started
    return Measured(len(events), (seconds,), f"{seconds / len(events) * 1e6:.0f} us an event")


def train(platform: Platform, _: int) -> Measured:
    from fraud_platform.adapters.candidates import write_candidate
    from fraud_platform.schema import MILLISECONDS_PER_DAY
    from fraud_platform.train import Split
    from fraud_platform.train import train as fit

    started = time.perf_counter()
    frame = platform.warehouse.frame("select * from training.training_set")
    mapping = platform.mapping
    split = Split.by_time(
        int(frame["event_time"].min()),
        int(frame["event_time"].max()) + 1,
        mapping.maturity_days * MILLISECONDS_PER_DAY,
        mapping.split.validation_days,
        mapping.split.test_days,
    )
    fitted = fit(frame, platform.contract, split)
    write_candidate(fitted, platform.settings.candidates)
    note = f"{fitted.log.teaching_rows:,} rows teach, {fitted.log.rounds} rounds"
    return Measured(fitted.log.train.rows, (time.perf_counter() - started,), note)


def evaluate(platform: Platform, _: int) -> Measured:
    from fraud_platform.evaluate import evaluate as judge
    from fraud_platform.package import Reference
    from fraud_platform.train import columns_of

    started, model = time.perf_counter(), _candidate(platform)
    part = model.split.test
    frame = platform.warehouse.frame(
        "select * from training.training_set where event_time >= ? and event_time < ?",
        [part.start_ms, part.end_ms],
    )
    judged = judge(model, frame, platform.policy, platform.rules)
    seconds = time.perf_counter() - started
    columns = columns_of(frame, model.contract)
    reference = Reference.of(columns, model.probability(columns))
    platform.settings.reports.mkdir(parents=True, exist_ok=True)
    (platform.settings.reports / "reference.json").write_bytes(reference.to_json())
    return Measured(
        judged.rows, (seconds,), f"AP {judged.quality.average_precision:.3f}, with 1,000 resamples"
    )


def package(platform: Platform, _: int) -> Measured:
    from fraud_platform.adapters.bento import build_bento
    from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
    from fraud_platform.package import BundleParts, Reference, load_reasons_text

    started, model, settings = time.perf_counter(), _candidate(platform), platform.settings
    parts = BundleParts(
        model_text=model.model_text,
        calibrator=model.calibrator,
        encoder=model.encoder,
        contract=model.contract,
        rules_text=platform.rules_text,
        policy_text=platform.policy_text,
        reasons_text=load_reasons_text(),
        reference=Reference.from_json((settings.reports / "reference.json").read_bytes()),
        versions={"fingerprint": model.fingerprint},
        evaluation={},
    )
    bundle = build_bundle(parts, settings.bundles)
    built = build_bento(bundle_path(settings.bundles, bundle.id), settings.bento_home)
    (settings.home / "bento.txt").write_text(str(built.path))
    size = sum(path.stat().st_size for path in built.path.rglob("*") if path.is_file())
    return Measured(1, (time.perf_counter() - started,), f"one Bento of {size / 1e6:.1f} MB")


def serve_in_process(platform: Platform, _: int) -> Measured:
    from fraud_platform.adapters.service import ServiceSettings, open_service

    state = _state(platform, "in-process")
    bundle = next(path for path in platform.settings.bundles.iterdir() if path.is_dir())
    service = open_service(ServiceSettings(bundle, state), platform.now_ms)
    requests = _requests(platform, IN_PROCESS)
    gc.collect()
    gc.freeze()  # as the Bento's service does once it has started
    took = _timed(service.decider.decide, requests)
    gc.unfreeze()
    service.close()
    return _latencies(took)


def serve_over_http(platform: Platform, _: int) -> Measured:
    from fraud_platform.adapters.bento_server import free_port, start_service

    path, port = Path((platform.settings.home / "bento.txt").read_text()), free_port()
    state = _state(platform, "service")
    requests = _requests(platform, OVER_HTTP)
    with start_service(path, port, state):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        took = _timed(lambda body: _post(connection, body), requests)
        connection.close()
    return _latencies(took)


def monitor(platform: Platform, _: int) -> Measured:
    from fraud_platform.adapters.bundle_files import bundle_path, load_bundle
    from fraud_platform.adapters.duckdb_monitor import load_decisions

    settings, started = platform.settings, time.perf_counter()
    loaded = load_decisions(
        platform.warehouse,
        settings.service_state / "decisions",
        lambda digest: load_bundle(bundle_path(settings.bundles, digest)).contract,
    )
    return Measured(loaded.new_count, (time.perf_counter() - started,), "decision log into the warehouse")


STAGES: dict[str, tuple[str, Callable[[Platform, int], Measured]]] = {
    "simulate": ("simulate", simulate),
    "ingest": ("ingest", ingest),
    "features": ("features, offline (dbt)", features),
    "store": ("features, online: bulk load", store),
    "observe": ("features, online: by event", observe),
    "labels": ("labels and training set", labels),
    "train": ("train", train),
    "evaluate": ("evaluate", evaluate),
    "package": ("package", package),
    "serve": ("serve, in process", serve_in_process),
    "http": ("serve, HTTP, one connection", serve_over_http),
    "monitor": ("monitor: load decisions", monitor),
}


def _dbt(platform: Platform, selected: str) -> float:
    from fraud_platform.adapters.dbt import DBT_PROJECT, dbt_executable, dbt_vars, target_path

    settings = platform.settings
    (settings.home / "spill").mkdir(parents=True, exist_ok=True)
    variables = json.dumps(dbt_vars(settings, platform.mapping))
    command = [dbt_executable(), "--quiet", "build", "--exclude-resource-type", "unit_test"]
    command += ["--select", *selected.split(), "--vars", variables, "--log-path", str(target_path(settings))]
    places = ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    started = time.perf_counter()
    subprocess.run([*command, *places, "--target-path", str(target_path(settings))], check=True)
    return time.perf_counter() - started


def _candidate(platform: Platform) -> Any:
    from fraud_platform.adapters.candidates import read_candidate

    return read_candidate(next(path for path in platform.settings.candidates.iterdir() if path.is_dir()))


def _state(platform: Platform, name: str) -> Path:
    state = platform.settings.home / name
    shutil.copytree(platform.settings.store, state / "store")
    return state


def _requests(platform: Platform, count: int) -> list[bytes]:
    """The live day as a client posts it; where it is too short, the same day again a day later."""
    from fraud_platform.schema import MILLISECONDS_PER_DAY, TRANSACTION_COLUMNS

    names = [column.name for column in TRANSACTION_COLUMNS]
    chosen = ", ".join("epoch_ms(event_time)" if name == "event_time" else name for name in names)
    path = str(platform.settings.home / "live" / "transactions.parquet")
    with platform.warehouse.connect(read_only=True) as connection:
        rows = connection.execute(
            f"select {chosen} from read_parquet(?) order by event_time", [path]
        ).fetchall()
    bodies = []
    for number in range(count):
        again, place = divmod(number, len(rows))
        values = {name: value for name, value in zip(names, rows[place], strict=True) if value is not None}
        values["transaction_id"] += f"-{again}"
        values["event_time"] += again * MILLISECONDS_PER_DAY
        bodies.append(json.dumps(values).encode())
    return bodies


def _timed(ask: Callable[[bytes], object], requests: list[bytes]) -> list[float]:
    """Seconds of each request, the first tenth left out: it warms up."""
    took = []
    for body in requests:
        started = time.perf_counter()
        ask(body)
        took.append(time.perf_counter() - started)
    return took[len(took) // 10 :]


def _post(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/v1/decisions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"the service answered {answer.status}: {content.decode()}")


def _latencies(took: list[float]) -> Measured:
    size = len(took) // REPEATS
    parts = [took[start * size : (start + 1) * size] for start in range(REPEATS)]
    ordered = sorted(took)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
    return Measured(size, tuple(sum(part) for part in parts), f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def run_stage(name: str, var: Path, transactions: int) -> None:
    """In a process of its own: prints one JSON line."""
    from fraud_platform.defs.platform import Platform

    measured = STAGES[name][1](Platform(Settings(var)), transactions)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    answer = {"rows": measured.rows, "seconds": measured.seconds, "note": measured.note, "peak_kib": peak}
    print(json.dumps(answer))


def _ask_stage(name: str, var: Path, transactions: int) -> tuple[Measured, float]:
    """What a stage measured, and its peak memory in MiB."""
    command = [sys.executable, "-m", "tests.perf.bench", "--one", name, "--var", str(var)]
    done = subprocess.run(
        [*command, "--transactions", str(transactions)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"stage {name} failed; see above")
    found = json.loads(done.stdout.splitlines()[-1])
    return Measured(found["rows"], tuple(found["seconds"]), found["note"]), found["peak_kib"] / 1024


def bench(chosen: list[str], transactions: int) -> None:
    """Runs the stages up to the last chosen one, and prints the chosen."""
    from rich.console import Console
    from rich.table import Table

    console, names = Console(), list(STAGES)
    if not console.is_terminal:
        console.width = WIDTH
    last = max(names.index(name) for name in chosen)
    table = Table("stage", title=f"{transactions:,} transactions")
    for title in ("rows", "seconds", "rows/s", "peak MiB"):
        table.add_column(title, justify="right")
    table.add_column("note")
    with _folder() as var, console.status("") as status:
        for name in names[: last + 1]:
            status.update(STAGES[name][0])
            measured, peak = _ask_stage(name, var, transactions)
            if name in chosen:
                speed = measured.rows / measured.median
                row = (
                    f"{measured.rows:,}",
                    f"{measured.median:.2f}",
                    f"{speed:,.{0 if speed >= 10 else 2}f}",
                    f"{peak:,.0f}",
                )
                table.add_row(STAGES[name][0], *row, measured.note)
    console.print(table)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fraud-platform-bench-") as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.perf.bench", description=__doc__)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), metavar="STAGE")
    parser.add_argument("--one", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--var", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 60_000 <= options.transactions <= TRANSACTIONS_MAX:
        parser.error(f"--transactions {options.transactions}: give 60000 to {TRANSACTIONS_MAX}")
    if options.one:
        run_stage(options.one, options.var, options.transactions)
    else:
        bench(options.stages, options.transactions)


if __name__ == "__main__":
    main()
