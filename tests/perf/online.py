"""The online store over the simulated world: bulk load, events one by one, and parity with the offline table.

Belongs here: what needs the warehouse. Does not belong here: made-up payments (engine.py), keys that are made
hot on purpose (hot.py), other stores beside ours (beside_feast.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.perf.clock import frozen_heap, timed
from tests.perf.measured import Measured, Sizes, microseconds, told

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

OBSERVED, LOADS = 20_000, 3
LOAD_TARGET = 100_000


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


def parity(platform: Platform, _: Sizes) -> Measured:
    """The whole timeline through an empty store, every value compared with the offline table."""
    from fraud_platform.adapters.parity_replay import replay_parity

    started = time.perf_counter()
    report = replay_parity(platform.warehouse, platform.contract, None)
    seconds = time.perf_counter() - started
    mismatches = sum(report.mismatches.values())
    note = f"{report.values:,} values compared, {mismatches:,} mismatches"
    examples = tuple(f"mismatch: {example}" for example in report.examples)
    return Measured(report.transactions, (seconds,), note, examples)
