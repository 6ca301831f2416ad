"""Events and rows per second, latency and peak memory of every stage: `python -m tests.perf.bench`.

Each stage runs in a process of its own (the peak is its own, with that of the processes it starts) over what
the stages that it needs left in a folder that is removed at the end. Nothing here is a test.

Belongs here: which stages there are, running and printing them. Does not belong here: what a stage does
(the modules of STAGES).
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fraud_platform.settings import PROJECT_ROOT, Settings
from tests.perf import (
    beside_feast,
    engine,
    fault_matrix,
    hot,
    kills,
    on_redis,
    online,
    pipeline,
    plain,
    retrain,
    serving,
)
from tests.perf.measured import Measured, Sizes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fraud_platform.defs.platform import Platform

TRANSACTIONS, TRANSACTIONS_MIN, TRANSACTIONS_MAX = 250_000, 60_000, 5_000_000
EVENTS, EVENTS_MIN = 200_000, 10_000
HOT, HOT_MIN = 1_000_000, 10_000
RETRAIN_MIN = 20_000
CACHE = PROJECT_ROOT / "var" / "perf-env"
WIDTH = 140


NEEDED_BY_A_SERVICE = ("package", "load")


@dataclass(frozen=True)
class Stage:
    """title: in the table; needs: the stages whose files it works on, which run before it."""

    title: str
    run: Callable[[Platform, Sizes], Measured]
    needs: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {
    "simulate": Stage("simulate", pipeline.simulate),
    "ingest": Stage("ingest", pipeline.ingest, ("simulate",)),
    "features": Stage("features, offline (dbt)", pipeline.features, ("ingest",)),
    "load": Stage("features, online: bulk load", online.load, ("features",)),
    "observe": Stage("features, online: by event", online.observe, ("features",)),
    "parity": Stage("features, online = offline", online.parity, ("features",)),
    "engine": Stage("online engine, whole contract", engine.engine),
    "hot": Stage("online engine, hot key", hot.hot),
    "redis": Stage("online engine on Redis", on_redis.redis),
    "feast": Stage("online engine beside Feast", beside_feast.feast),
    "labels": Stage("labels and training set", pipeline.labels, ("features",)),
    "train": Stage("train", pipeline.train, ("labels",)),
    "retrain": Stage("retrain beside lightgbm.train", retrain.retrain),
    "evaluate": Stage("evaluate", pipeline.evaluate, ("train",)),
    "package": Stage("package", pipeline.package, ("evaluate",)),
    "serve": Stage("serve, in process", serving.serve_in_process, NEEDED_BY_A_SERVICE),
    "http": Stage("serve, HTTP", serving.serve_over_http, NEEDED_BY_A_SERVICE),
    "plain": Stage("serve beside the plain stack", plain.plain, NEEDED_BY_A_SERVICE),
    "faults": Stage("serve, under every fault", fault_matrix.faults, NEEDED_BY_A_SERVICE),
    "kills": Stage("serve, killed under load", kills.kills, NEEDED_BY_A_SERVICE),
    "monitor": Stage("monitor: load decisions", pipeline.monitor, ("http",)),
}
ALONE = ("hot",)
"""Stages that land files of their own, and so get a folder of their own."""


def with_needs(chosen: Sequence[str]) -> list[str]:
    """The chosen stages and all that they need, in the order of STAGES."""
    wanted, added = set(chosen), set(chosen)
    while added:
        added = {need for name in added for need in STAGES[name].needs} - wanted
        wanted |= added
    return [name for name in STAGES if name in wanted]


def run_stage(name: str, var: Path, sizes: Sizes) -> None:
    """In a process of its own: prints one JSON line."""
    from fraud_platform.defs.platform import Platform

    measured = STAGES[name].run(Platform(Settings(var)), sizes)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak_mib = max(one.ru_maxrss for one in used) / 1024
    processor_s = sum(one.ru_utime + one.ru_stime for one in used)
    print(json.dumps({**asdict(measured), "peak_mib": peak_mib, "processor_s": processor_s}))


@dataclass(frozen=True)
class Ran:
    """What a stage measured, the peak memory of one of its processes, the processor time of them all."""

    measured: Measured
    peak_mib: float
    processor_s: float

    @property
    def figures(self) -> tuple[str, ...]:
        """In the table's order, empty where the stage could not run."""
        if not self.measured.seconds:
            return ("",) * 5
        rows, seconds = self.measured.rows, self.measured.median
        speed = rows / seconds
        told = f"{speed:,.{0 if speed >= 10 else 2}f}"
        return f"{rows:,}", f"{seconds:.2f}", told, f"{self.processor_s:.1f}", f"{self.peak_mib:,.0f}"


def _ask_stage(name: str, var: Path, sizes: Sizes) -> Ran:
    command = [sys.executable, "-m", "tests.perf.bench", "--one", name, "--var", str(var)]
    command += ["--transactions", str(sizes.transactions), "--events", str(sizes.events)]
    command += ["--hot", str(sizes.hot), "--cache", str(sizes.cache), "--retrain", str(sizes.retrain)]
    found = json.loads(_output(name, command).splitlines()[-1])
    measured = Measured(found["rows"], tuple(found["seconds"]), found["note"], tuple(found["details"]))
    return Ran(measured, found["peak_mib"], found["processor_s"])


def _output(name: str, command: list[str]) -> str:
    """What the stage's process printed; whatever ends the wait, the process is told to clean up and end."""
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        finally:
            if process.poll() is None:
                process.terminate()
    if process.returncode != 0:
        raise SystemExit(f"stage {name} failed; see above")
    return output


def unwind(number: int, _: object) -> None:
    """SIGTERM, too, ends what was started and removes what was made."""
    raise SystemExit(128 + number)


def bench(chosen: Sequence[str], sizes: Sizes) -> None:
    """Runs the chosen stages and those they need, and prints the chosen."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    table, found = _table(sizes), {}
    with _folder() as world, console.status("") as status:
        for name in with_needs(chosen):
            status.update(STAGES[name].title)
            ask = _ask_alone if name in ALONE else _ask_stage
            ran = ask(name, world, sizes)
            if name in chosen:
                table.add_row(STAGES[name].title, *ran.figures, ran.measured.note)
                found[name] = ran.measured.details
    console.print(table)
    _print_details(console, found)


@contextmanager
def prepared(names: Sequence[str], transactions: int) -> Iterator[Platform]:
    """What these stages leave, in a folder that is removed at the end."""
    from fraud_platform.defs.platform import Platform

    sizes = Sizes(transactions, EVENTS, HOT, CACHE)
    with _folder() as var:
        for name in with_needs(names):
            print(f"{STAGES[name].title} ...", file=sys.stderr)
            _ask_stage(name, var, sizes)
        yield Platform(Settings(var))


def _ask_alone(name: str, _: Path, sizes: Sizes) -> Ran:
    with _folder() as var:
        return _ask_stage(name, var, sizes)


def _table(sizes: Sizes) -> Table:
    from rich.table import Table

    table = Table("stage", title=f"{sizes.transactions:,} transactions")
    for title in ("rows", "seconds", "rows/s", "processor s", "peak MiB"):
        table.add_column(title, justify="right")
    table.add_column("note")
    return table


def _print_details(console: Console, found: dict[str, tuple[str, ...]]) -> None:
    for name, details in found.items():
        if details:
            console.print(f"\n{STAGES[name].title}", style="bold", highlight=False)
        for line in details:
            console.print(f"  {line}", highlight=False, soft_wrap=True)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fraud-platform-bench-") as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.perf.bench", description=__doc__)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS, help="of the simulated world")
    parser.add_argument("--events", type=int, default=EVENTS, help="of the stage engine")
    parser.add_argument("--hot", type=int, default=HOT, help="events on a hot key in its 30 days")
    parser.add_argument("--retrain", type=int, default=Sizes.retrain, help="rows of the stage retrain")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), metavar="STAGE")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="where the environments of other stacks are kept"
    )
    parser.add_argument("--one", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--var", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not TRANSACTIONS_MIN <= options.transactions <= TRANSACTIONS_MAX:
        parser.error(f"--transactions {options.transactions}: give {TRANSACTIONS_MIN} to {TRANSACTIONS_MAX}")
    for name, value, least in (
        ("events", options.events, EVENTS_MIN),
        ("hot", options.hot, HOT_MIN),
        ("retrain", options.retrain, RETRAIN_MIN),
    ):
        if value < least:
            parser.error(f"--{name} {value}: give {least} or more")
    cache = options.cache.resolve()
    sizes = Sizes(options.transactions, options.events, options.hot, cache, options.retrain)
    signal.signal(signal.SIGTERM, unwind)
    if options.one:
        run_stage(options.one, options.var, sizes)
    else:
        bench(options.stages, sizes)


if __name__ == "__main__":
    main()
