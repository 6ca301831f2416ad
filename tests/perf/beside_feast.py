"""Feast on Redis beside the project's own store, in turns within one run.

Belongs here: Feast's environment, the Redis and the reader that a run starts and ends, and the comparison.
Does not belong here: Feast's code (feast_reader.py, which runs in that environment); Feast is no dependency.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.perf.clock import frozen_heap
from tests.perf.measured import Measured, Sizes, quantile

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform
    from fraud_platform.features.engine import FeatureStore
    from tests.perf.events import Event

REQUIREMENT = "feast[redis]==0.67.*"
ROWS, ROUNDS, READS = 5_000, 5, 1_000
PAYMENTS = 60_000
"""Of them the first are seen before the timing, until the longest window is full."""
TARGET = 0.1
REDIS_STORE = "fraud_platform.adapters.redis"
START_SECONDS = 20.0
REPLY_SECONDS = 5.0

Round = Callable[[], Sequence[int]]
"""Nanoseconds of each call of one round."""


class Missing(Exception):
    """Something that this machine lacks; says how to get it."""


def feast(platform: Platform, sizes: Sizes) -> Measured:
    """Feast reads 60 features of one row; ours reads and updates the whole contract."""
    try:
        with ExitStack() as stack:
            sides = _sides(platform, sizes.cache, stack)
            took = _in_turns(sides)
    except Missing as missing:
        return Measured.skipped(str(missing))
    theirs = took.pop("Feast")
    lines = [_line("Feast, reads 60 features", theirs)]
    for name, ours in took.items():
        ratios = ", ".join(f"{share} {_of(ours, at) / _of(theirs, at):.2f}" for share, at in _SHARES)
        lines.append(f"{_line(f'ours on {name}, reads and updates', ours)}; over Feast's: {ratios}")
    ratio = _of(took["LMDB"], 0.5) / _of(theirs, 0.5)
    note = f"ours on LMDB takes {ratio:.2f} of Feast's p50 (target {TARGET} or less); below"
    rounds = took["LMDB"]
    return Measured(READS, tuple(sum(round_ns) / 1e9 for round_ns in rounds), note, tuple(lines))


_SHARES = (("p50", 0.5), ("p99", 0.99))


def _of(rounds: Sequence[Sequence[int]], share: float) -> float:
    """The median over the rounds of a round's quantile, in microseconds."""
    return statistics.median(quantile(round_ns, share) for round_ns in rounds) / 1000


def _line(name: str, rounds: Sequence[Sequence[int]]) -> str:
    return f"{name}: " + ", ".join(f"{share} {_of(rounds, at):,.0f} us" for share, at in _SHARES)


def _in_turns(sides: dict[str, Round]) -> dict[str, list[Sequence[int]]]:
    took: dict[str, list[Sequence[int]]] = {name: [] for name in sides}
    with frozen_heap():
        for _ in range(ROUNDS):
            for name, side in sides.items():
                took[name].append(side())
    return took


def _sides(platform: Platform, cache: Path, stack: ExitStack) -> dict[str, Round]:
    """Everything is ready to be timed: Feast, ours on LMDB and, where that store exists, ours on Redis."""
    from fraud_platform.adapters.lmdb import LmdbStore
    from tests.perf.events import Payments

    home = platform.settings.home
    home.mkdir(parents=True, exist_ok=True)
    port = stack.enter_context(redis_server(home / "redis"))
    sides = {"Feast": stack.enter_context(_reader(feast_python(cache), port, home / "feast"))}
    payments = Payments(PAYMENTS)
    seen = PAYMENTS - (ROUNDS + 1) * READS
    stores: dict[str, Any] = {"LMDB": LmdbStore.open(home / "beside", platform.contract)}
    if importlib.util.find_spec(REDIS_STORE) is not None:
        ours = stack.enter_context(redis_server(home / "redis-ours"))
        store = importlib.import_module(REDIS_STORE).RedisStore
        stores["Redis"] = store.open(f"redis://127.0.0.1:{ours}/0", platform.contract)
    for name, store in stores.items():
        stack.callback(store.close)
        _see(store, payments.block(0, seen))
        sides[name] = _observer(store, iter(payments.block(seen, PAYMENTS)))
    return sides


def _see(store: Any, events: list[Event]) -> None:
    from fraud_platform.schema import Transaction

    if hasattr(store, "observe_all"):
        for _ in store.observe_all(events):
            pass
        return
    for event in events:
        if isinstance(event, Transaction):
            store.observe(event)
        else:
            store.learn(event)


def _observer(store: FeatureStore, events: Iterator[Event]) -> Round:
    """Observes the next events of the stream at each call; reports among them are learned, not timed."""
    from fraud_platform.schema import Transaction

    def observe_some() -> list[int]:
        took: list[int] = []
        while len(took) < READS:
            event = next(events)
            if isinstance(event, Transaction):
                started = time.perf_counter_ns()
                store.observe(event)
                took.append(time.perf_counter_ns() - started)
            else:
                store.learn(event)
        return took

    observe_some()
    return observe_some


def feast_python(cache: Path) -> Path:
    """The Python of an environment that holds Feast, made where it is not there yet."""
    folder = cache / "feast"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text() == REQUIREMENT:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {REQUIREMENT} into {folder}", file=sys.stderr)
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT],
    )
    for step in steps:
        done = subprocess.run(step, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise Missing(f"{REQUIREMENT} could not be installed from the package index: {last[0]}")
    ready.write_text(REQUIREMENT)
    return python


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """A Redis of its own on a free port of loopback, which keeps nothing; ended by its process id."""
    from fraud_platform.adapters.bento_server import free_port

    program = shutil.which("redis-server")
    if program is None:
        raise Missing("redis-server is missing: apt-get install redis-server")
    folder.mkdir(parents=True)
    port = free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with _ended(process):
        _await_redis(process, port)
        yield port


def _await_redis(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(REPLY_SECONDS)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
        time.sleep(0.05)
    raise SystemExit(f"redis-server did not answer on port {port} in {START_SECONDS:.0f} s")


@contextmanager
def _reader(python: Path, port: int, folder: Path) -> Iterator[Round]:
    """Feast's reader; each call asks it for one round."""
    folder.mkdir(parents=True)
    program = Path(__file__).with_name("feast_reader.py")
    # -I: nothing of this folder or of PYTHONPATH is imported there.
    command = [str(python), "-I", "-W", "ignore", str(program), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--folder", str(folder), "--rows", str(ROWS)],
        cwd=folder,
        env={**os.environ, "FEAST_USAGE": "False"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with _ended(process):
        _answer(process)
        yield lambda: _ask(process)


def _ask(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdin is not None
    process.stdin.write(f"{READS}\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"Feast's reader ended with {process.wait()}; see above")
    return json.loads(line)


@contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Whatever happens, the process does not stay behind."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
