"""The store engine on LMDB alone: the whole contract, a transaction an event, one core.

Belongs here: a long run, and whether its latency grows. Does not belong here: the events (events.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from fraud_platform.features.engine import LATENESS_MS
from fraud_platform.schema import MILLISECONDS_PER_DAY
from tests.perf.clock import Took, frozen_heap, timed
from tests.perf.measured import Measured, Sizes, microseconds, quantile, slope_with_error, told

if TYPE_CHECKING:
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.defs.platform import Platform
    from tests.perf.events import Payments

SPEED_TARGET = 4_000
TARGETS_US = {"p50": 200.0, "p99": 600.0}
BLOCK = 250_000
BLOCKS_AT_LEAST = 10
SLOPE_EVENTS = 1_000_000
LONG = 1_000_000
"""A run of more events tells each block when it is done."""
MIB = 1 << 20


def engine(platform: Platform, sizes: Sizes) -> Measured:
    """Made-up payments with every entity known through one store, one transaction each, on one core."""
    from fraud_platform.adapters.lmdb import LmdbStore
    from tests.perf.events import Payments

    payments = Payments(sizes.events)
    size = min(BLOCK, max(sizes.events // BLOCKS_AT_LEAST, 1))
    path = platform.settings.home / "engine"
    blocks: list[_Block] = []
    with LmdbStore.open(path, platform.contract) as online:
        for number, block in enumerate(payments.blocks(size)):
            with frozen_heap():
                took = timed(online, block)
            blocks.append(_Block.of(payments, number * size, took, path))
            if sizes.events > LONG:
                print(blocks[-1], file=sys.stderr)
        steady = _steady_day(online)
    warm = [block for block in blocks if payments.day(block.start) >= steady] or blocks[-1:]
    return _engine_measured(warm, blocks, steady)


def _steady_day(online: LmdbStore) -> float:
    """From then on as much is forgotten as is added: the longest window is full, what left it is too old for
    late events, and the logs are trimmed, which happens in strides."""
    stride = max(plan.stride for plan in online.engine.plans)
    return (online.engine.retention_ms + LATENESS_MS + stride) / MILLISECONDS_PER_DAY


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class _Block:
    """One block of events: how many there were before and after it, the day then, what they took."""

    start: int
    events: int
    day: float
    took: Took
    private_mib: float
    resident_mib: float
    file_mib: float

    @classmethod
    def of(cls, payments: Payments, start: int, took: Took, path: Path) -> _Block:
        memory = psutil.Process().memory_info()
        private = (memory.rss - memory.shared) / MIB
        events = start + len(took.transactions)
        day = payments.day(events)
        return cls(start, events, day, took, private, memory.rss / MIB, folder_bytes(path) / MIB)

    @property
    def p50_us(self) -> float:
        return quantile(self.took.transactions, 0.5) / 1000

    @property
    def yardstick_us(self) -> float:
        return quantile(self.took.yardsticks, 0.5) / 1000

    def __str__(self) -> str:
        return (
            f"{self.events:>9,} events, day {self.day:4.1f}: {told(microseconds(self.took.transactions))}; "
            f"{self.took.events / self.took.seconds:,.0f}/s; processor {self.took.processor_us:,.0f} us; "
            f"yardstick {self.yardstick_us:.1f} us; "
            f"RSS {self.resident_mib:,.0f} MiB ({self.private_mib:,.0f} without the file), "
            f"file {self.file_mib:,.0f} MiB"
        )


def _engine_measured(warm: list[_Block], blocks: list[_Block], steady: float) -> Measured:
    took = sum((block.took for block in warm), Took.empty())
    figures = told(microseconds(took.transactions), TARGETS_US)
    processor = f"on the processor's clock {told(microseconds(took.processor))}"
    labels = f"labels p50 {quantile(took.labels, 0.5) / 1000:,.0f} us" if took.labels else "no labels"
    speed = f"target {SPEED_TARGET:,} events/s; from day {steady:.1f} on"
    details = (*(str(block) for block in blocks), _slope(warm))
    return Measured(took.events, (took.seconds,), f"{figures}; {processor}; {labels}; {speed}", details)


def _slope(warm: list[_Block]) -> str:
    """Growth of an event's cost over the warm blocks, each with twice its standard error: of the median, of
    the median with the machine's pace taken out by the yardstick, and of the processor's time."""
    if warm[-1].events - warm[0].events < SLOPE_EVENTS:
        return "slope: too few events after the windows are full; give --events 5000000"
    millions = [block.events / 1e6 for block in warm]
    raw = slope_with_error(millions, [block.p50_us for block in warm])
    pace = sum(block.yardstick_us for block in warm) / len(warm)
    even = slope_with_error(millions, [block.p50_us / block.yardstick_us * pace for block in warm])
    processor = slope_with_error(millions, [block.took.processor_us for block in warm])
    return (
        f"slope of p50, {warm[0].events:,} to {warm[-1].events:,} events: {raw} us a million events, "
        f"{even} with the machine's pace taken out; of the processor's mean: {processor}"
    )
