"""A hot key beside cold ones: an event on a card, customer, device, address and merchant that each have a
million events in their 30 days, against an event on keys that have a handful.

Belongs here: making such keys, in a store and in a warehouse. Does not belong here: likely skew (events.py).
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fraud_platform.schema import MILLISECONDS_PER_DAY, TRANSACTION_COLUMNS, Transaction
from tests.perf.clock import Took, frozen_heap, timed
from tests.perf.events import START
from tests.perf.measured import Measured, Sizes, microseconds, quantile
from tests.perf.pipeline import build

if TYPE_CHECKING:
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.defs.platform import Platform

WINDOW_DAYS = 30
SHARE = 0.95
"""Of the events on each hot key, drawn for each entity, so that a hot key sees many values of the others."""
OTHERS, COLD_KEYS, COLD_EVENTS, PAIRS = 20_000, 4_000, 5, 20_000
BATCH = 50_000
WORST_RATIO = 2.0
ENTITIES = ("card_id", "customer_id", "device_id", "ip_id", "merchant_id")


@dataclass(frozen=True)
class HotWorld:
    """`hot` events on each hot key in 30 days from START, events on cold keys among them, ordered by time."""

    hot: int

    @cached_property
    def frame(self) -> pd.DataFrame:
        rng = np.random.default_rng(11)
        count = int(self.hot / SHARE)
        times = START + np.linspace(0, WINDOW_DAYS * MILLISECONDS_PER_DAY, count, endpoint=False)
        busy = {name: _names(name, rng.integers(0, OTHERS, count)) for name in ENTITIES}
        for name in ENTITIES:
            busy[name][rng.random(count) < SHARE] = f"{name}-hot"
        cold_count = COLD_KEYS * COLD_EVENTS
        cold_times = START + rng.integers(0, WINDOW_DAYS * MILLISECONDS_PER_DAY, cold_count)
        cold = _cold_names(np.arange(cold_count) % COLD_KEYS)
        columns = {name: np.concatenate([busy[name], cold[name]]) for name in ENTITIES}
        frame = pd.DataFrame({"event_time": np.concatenate([times.astype(np.int64), cold_times]), **columns})
        frame = frame.sort_values("event_time", kind="stable", ignore_index=True)
        return _with_values(frame, rng, "t")

    def pairs(self, part: int) -> list[tuple[Transaction, Transaction]]:
        """(hot, cold) events after the world's end, at the pace of the hot key."""
        rng = np.random.default_rng((13, part))
        step = WINDOW_DAYS * MILLISECONDS_PER_DAY / self.hot
        places = np.arange(part * PAIRS, (part + 1) * PAIRS)
        times = START + WINDOW_DAYS * MILLISECONDS_PER_DAY + (places * step).astype(np.int64)
        hot = pd.DataFrame({"event_time": times, **{name: f"{name}-hot" for name in ENTITIES}})
        cold = pd.DataFrame({"event_time": times + 1, **_cold_names(places % COLD_KEYS)})
        hot, cold = _with_values(hot, rng, f"hot-{part}-"), _with_values(cold, rng, f"cold-{part}-")
        return list(zip(_transactions(hot), _transactions(cold), strict=True))

    def land(self, folder: Path) -> None:
        """The world as files that the simulated mapping reads."""
        moments = pd.to_datetime(self.frame["event_time"], unit="ms", utc=True)
        report = {
            "transaction_id": ["t0"],
            "source": "chargeback",
            "outcome": "fraud",
            "known_at": moments[:1],
        }
        for name, frame in (
            ("transactions", self.frame.assign(event_time=moments)),
            ("labels", pd.DataFrame(report)),
        ):
            (folder / name).mkdir(parents=True)
            frame.to_parquet(folder / name / "all.parquet")

    def batches(self) -> Iterator[list[Transaction]]:
        for start in range(0, len(self.frame), BATCH):
            yield list(_transactions(self.frame.iloc[start : start + BATCH]))


def hot(platform: Platform, sizes: Sizes) -> Measured:
    """Ratios of hot to cold: built event by event, opened again, and bulk loaded."""
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.adapters.lmdb_load import load_store

    world, home, contract = HotWorld(sizes.hot), platform.settings.home, platform.contract
    built, loaded = home / "hot-built", home / "hot-loaded"
    pairs = [world.pairs(part) for part in range(2)]
    gc.collect()
    started = time.perf_counter()
    with LmdbStore.open(built, contract) as online:
        for batch in world.batches():
            for _ in online.observe_all(batch):
                pass
        seconds = time.perf_counter() - started
        compared = {"built by events": _compare(online, pairs[0])}
    with LmdbStore.open(built, contract) as online:
        compared["opened again"] = _compare(online, pairs[1])
    shutil.rmtree(built)
    _fill_warehouse(platform, world)
    load_store(platform.warehouse, contract, loaded)
    with LmdbStore.open(loaded, contract) as online:
        first = _first(online, pairs[0])
        compared["bulk loaded"] = _compare(online, pairs[0][1:])
    worst = max(found.median_ratio for found in compared.values())
    note = f"{sizes.hot:,} events in 30 d: {worst:.2f} times a cold key (target {WORST_RATIO:.0f}); below"
    details = (*(f"{name}: {found}" for name, found in compared.items()), first)
    return Measured(len(world.frame), (seconds,), note, details)


@dataclass(frozen=True)
class _Compared:
    """What events on hot keys and on cold ones took, in turns."""

    hot: Took
    cold: Took

    @property
    def median_ratio(self) -> float:
        return quantile(self.hot.transactions, 0.5) / quantile(self.cold.transactions, 0.5)

    def __str__(self) -> str:
        hot, cold = microseconds(self.hot.transactions), microseconds(self.cold.transactions)
        figures = [_ratio(name, hot[name], cold[name]) for name in ("p50", "p99")]
        mean = _ratio("processor's mean", self.hot.processor_us, self.cold.processor_us)
        return "; ".join([*figures, mean])


def _ratio(name: str, hot: float, cold: float) -> str:
    return f"{name} {hot:,.0f} us hot, {cold:,.0f} us cold, ratio {hot / cold:.2f}"


def _compare(online: LmdbStore, pairs: Sequence[tuple[Transaction, Transaction]]) -> _Compared:
    events = [event for pair in pairs for event in pair]
    with frozen_heap():
        took = timed(online, events)
    nothing = Took.empty()
    hot, cold = (
        replace(nothing, transactions=took.transactions[side::2], processor=took.processor[side::2])
        for side in (0, 1)
    )
    return _Compared(hot, cold)


def _first(online: LmdbStore, pairs: Sequence[tuple[Transaction, Transaction]]) -> str:
    """What the first events after a load cost; the first pair is used up."""
    found = _compare(online, pairs[:1])
    hot, cold = (side.transactions[0] / 1000 for side in (found.hot, found.cold))
    return f"bulk loaded, first event: {hot:,.0f} us hot, {cold:,.0f} us cold"


def _fill_warehouse(platform: Platform, world: HotWorld) -> None:
    world.land(platform.settings.landing)
    platform.warehouse.ingest(platform.mapping, platform.source, platform.now_ms())
    build(platform, "staging")


def _names(entity: str, numbers: np.ndarray) -> np.ndarray:
    return np.array([f"{entity}-{number}" for number in numbers], dtype=object)


def _cold_names(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Keys that nobody else uses; the same number in every entity."""
    return {name: _names(f"{name}-cold", numbers) for name in ENTITIES}


def _with_values(frame: pd.DataFrame, rng: np.random.Generator, prefix: str) -> pd.DataFrame:
    """The rest of the canonical columns; ids are `prefix` and a running number."""
    count = len(frame)
    values: dict[str, Any] = {
        "transaction_id": [f"{prefix}{number}" for number in range(count)],
        "amount_minor": rng.integers(100, 100_000, count),
        "currency": "EUR",
        "channel": "ecommerce",
        "category": "gaming",
        "card_country": "DE",
        "merchant_country": rng.choice(np.array(["DE", "FR", "US"], dtype=object), count),
        "latitude": rng.uniform(45, 54, count),
        "longitude": rng.uniform(5, 15, count),
        "home_latitude": 48.1,
        "home_longitude": 11.6,
    }
    return frame.assign(**values)


def _transactions(frame: pd.DataFrame) -> Iterator[Transaction]:
    names = [column.name for column in TRANSACTION_COLUMNS]
    for row in zip(*(frame[name].tolist() for name in names), strict=True):
        yield Transaction(**dict(zip(names, row, strict=True)))
