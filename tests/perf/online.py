"""The online store: bulk load, events one by one, a long run of them, and parity with the offline table.

Belongs here: what one store does in one process. Does not belong here: keys that are made hot on purpose
(hot.py), other stores beside ours (beside_feast.py).
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.perf.measured import Measured, Sizes, microseconds, quantile, slope, told, yardstick

if TYPE_CHECKING:
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.defs.platform import Platform
    from tests.perf.events import Event, Payments

OBSERVED, LOADS = 20_000, 3
LOAD_TARGET, ENGINE_TARGET = 100_000, 4_000
TARGETS_US = {"p50": 200.0, "p99": 600.0}
BLOCK = 250_000
BLOCKS_AT_LEAST = 10
WARM_DAYS = 31
"""By then the longest window is full and entries leave it."""
SLOPE_EVENTS = 1_000_000
LONG = 1_000_000
"""A run of more events tells each block when it is done."""
YARDSTICK_EVERY = 50
MIB = 1 << 20


def load(platform: Platform, _: Sizes) -> Measured:
    """The whole warehouse into a new store, three times; the last one stays for the stages that follow."""
    from fraud_platform.adapters.lmdb_load import load_store

    seconds = []
    for _repetition in range(LOADS):
        started = time.perf_counter()
        report = load_store(platform.warehouse, platform.contract, platform.settings.store)
        seconds.append(time.perf_counter() - started)
    return Measured(
        report.transactions, tuple(seconds), f"{report.keys:,} keys; target {LOAD_TARGET:,} events/s"
    )


def observe(platform: Platform, _: Sizes) -> Measured:
    """The end of the timeline, event by event, over a store that has seen what came before."""
    from fraud_platform.adapters.duckdb_timeline import read_timeline
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.adapters.lmdb_load import load_store

    watermark = int(
        platform.warehouse.frame(
            "select event_time as t from ingest.transactions order by t desc limit 1 offset ?", [OBSERVED - 1]
        )["t"].iloc[0]
    )
    path = platform.settings.home / "observed"
    load_store(platform.warehouse, platform.contract, path, watermark)
    with platform.warehouse.connect(read_only=True) as connection:
        events = list(read_timeline(connection, platform.contract, watermark))
    with LmdbStore.open(path, platform.contract) as online, frozen_heap():
        took = timed(online, events)
    note = f"just loaded: {told(microseconds(took.transactions))}"
    return Measured(len(events), (took.seconds,), note)


def engine(platform: Platform, sizes: Sizes) -> Measured:
    """Made-up payments with all five entities through one store, one transaction each, on one core."""
    from fraud_platform.adapters.lmdb import LmdbStore
    from tests.perf.events import Payments

    payments = Payments(sizes.events)
    size = min(BLOCK, max(sizes.events // BLOCKS_AT_LEAST, 1))
    path = platform.settings.home / "engine"
    blocks = []
    with LmdbStore.open(path, platform.contract) as online:
        for number, block in enumerate(payments.blocks(size)):
            with frozen_heap():
                took = timed(online, block)
            blocks.append(_Block.of((number + 1) * size, payments, took, path))
            if sizes.events > LONG:
                print(blocks[-1], file=sys.stderr)
    warm = [block for block in blocks if block.day >= WARM_DAYS] or blocks[-1:]
    return _engine_measured(warm, blocks)


def parity(platform: Platform, _: Sizes) -> Measured:
    """The whole timeline through an empty store, every value compared with the offline table."""
    started = time.perf_counter()
    report = _replay_parity()(platform.warehouse, platform.contract, None)
    seconds = time.perf_counter() - started
    mismatches = sum(report.mismatches.values())
    note = f"{report.values:,} values compared, {mismatches:,} mismatches"
    examples = tuple(f"mismatch: {example}" for example in report.examples)
    return Measured(report.transactions, (seconds,), note, examples)


@dataclass(frozen=True)
class Took:
    """Nanoseconds of each call, by stream, and of the yardstick in between."""

    transactions: Sequence[int]
    labels: Sequence[int]
    yardsticks: Sequence[int]

    @property
    def events(self) -> int:
        return len(self.transactions) + len(self.labels)

    @property
    def seconds(self) -> float:
        return (sum(self.transactions) + sum(self.labels)) / 1e9


def timed(online: LmdbStore, events: Sequence[Event]) -> Took:
    """Each event in a transaction of its own; the yardstick is laid beside every 50th."""
    from fraud_platform.schema import Transaction

    clock = time.perf_counter_ns
    transactions: list[int] = []
    labels: list[int] = []
    yardsticks = []
    for number, event in enumerate(events):
        if isinstance(event, Transaction):
            started = clock()
            online.observe(event)
            transactions.append(clock() - started)
        else:
            started = clock()
            online.learn(event)
            labels.append(clock() - started)
        if number % YARDSTICK_EVERY == 0:
            yardsticks.append(yardstick())
    return Took(transactions, labels, yardsticks)


@contextmanager
def frozen_heap() -> Iterator[None]:
    """The garbage collector leaves alone what is there already, as in the service once it has started."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class _Block:
    """One block of events: how many there were by its end, the day, and what its events took."""

    events: int
    day: float
    took: Took
    private_mib: float
    resident_mib: float
    file_mib: float

    @classmethod
    def of(cls, events: int, payments: Payments, took: Took, path: Path) -> _Block:
        memory = psutil.Process().memory_info()
        private = (memory.rss - memory.shared) / MIB
        day = payments.day(events)
        return cls(events, day, took, private, memory.rss / MIB, folder_bytes(path) / MIB)

    @property
    def p50_us(self) -> float:
        return quantile(self.took.transactions, 0.5) / 1000

    @property
    def yardstick_us(self) -> float:
        return quantile(self.took.yardsticks, 0.5) / 1000

    def __str__(self) -> str:
        return (
            f"{self.events:>9,} events, day {self.day:4.1f}: {told(microseconds(self.took.transactions))}; "
            f"{self.took.events / self.took.seconds:,.0f}/s; yardstick {self.yardstick_us:.1f} us; "
            f"RSS {self.resident_mib:,.0f} MiB ({self.private_mib:,.0f} without the file), "
            f"file {self.file_mib:,.0f} MiB"
        )


def _engine_measured(warm: list[_Block], blocks: list[_Block]) -> Measured:
    took = Took(
        [ns for block in warm for ns in block.took.transactions],
        [ns for block in warm for ns in block.took.labels],
        [],
    )
    figures = told(microseconds(took.transactions), TARGETS_US)
    labels = f"labels p50 {quantile(took.labels, 0.5) / 1000:,.0f} us" if took.labels else "no labels"
    speed = f"target {ENGINE_TARGET:,} events/s; from day {WARM_DAYS} on"
    details = (*(str(block) for block in blocks), _slope(warm))
    return Measured(took.events, (took.seconds,), f"{figures}; {labels}; {speed}", details)


def _slope(warm: list[_Block]) -> str:
    """Growth of the median an event over the warm blocks; at the machine's mean pace, its noise taken out."""
    if warm[-1].events - warm[0].events < SLOPE_EVENTS:
        return "slope: too few events after the windows are full; give --events 5000000"
    millions = [block.events / 1e6 for block in warm]
    raw = slope(millions, [block.p50_us for block in warm])
    pace = sum(block.yardstick_us for block in warm) / len(warm)
    even = slope(millions, [block.p50_us / block.yardstick_us * pace for block in warm])
    return (
        f"slope of p50, {warm[0].events:,} to {warm[-1].events:,} events: {raw:+.2f} us a million events, "
        f"{even:+.2f} with the machine's pace taken out"
    )


def _replay_parity() -> Any:
    names = ("fraud_platform.adapters.parity_replay", "fraud_platform.adapters.lmdb_load")
    there = next(name for name in names if importlib.util.find_spec(name) is not None)
    return importlib.import_module(there).replay_parity
