"""Feast on Redis beside the project's own store, in turns within one run.

Belongs here: the Redis and the reader that a run starts and ends, and the comparison.
Does not belong here: Feast's code (feast_reader.py, which runs in that environment); Feast is no dependency.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.perf.clock import frozen_heap
from tests.perf.environment import Missing, ended, python_with
from tests.perf.measured import Measured, Sizes, quantile
from tests.servers import missing_redis, redis_server

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform
    from fraud_platform.features.engine import FeatureStore
    from tests.perf.events import Event

REQUIREMENT = "feast[redis]==0.67.*"
ROWS, ROUNDS, READS = 5_000, 5, 1_000
PAYMENTS = 60_000
"""Of them the first are seen before the timing, until the longest window is full."""
TARGET = 0.1

Round = Callable[[], Sequence[int]]
"""Nanoseconds of each call of one round."""


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
    """Everything is ready to be timed: Feast, ours on LMDB, ours on Redis."""
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.adapters.redis import RedisStore
    from fraud_platform.adapters.redis_link import PATIENT
    from tests.perf.events import Payments

    missing = missing_redis()
    if missing is not None:
        raise Missing(missing)
    home = platform.settings.home
    home.mkdir(parents=True, exist_ok=True)
    port = stack.enter_context(redis_server(home / "redis"))
    sides = {
        "Feast": stack.enter_context(
            _reader(python_with(cache / "feast", (REQUIREMENT,)), port, home / "feast")
        )
    }
    payments = Payments(PAYMENTS)
    seen = PAYMENTS - (ROUNDS + 1) * READS
    ours = f"redis://127.0.0.1:{stack.enter_context(redis_server(home / 'redis-ours'))}"
    stores: dict[str, FeatureStore] = {
        "LMDB": LmdbStore.open(home / "beside", platform.contract),
        "Redis": RedisStore.open(ours, platform.contract, limits=PATIENT),
    }
    for name, store in stores.items():
        stack.callback(store.close)
        for _ in store.observe_all(payments.block(0, seen)):
            pass
        sides[name] = _observer(store, iter(payments.block(seen, PAYMENTS)))
    return sides


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
    with ended(process):
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
