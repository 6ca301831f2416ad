"""Measures the online store on Redis over loopback, LMDB beside it: python -m tests.perf.bench_redis [events]

One decision after the other from one client, so that a latency is what a caller waits for; both stores see
the same events in the same run, so that a busy machine shows in both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.redis import RedisStore
from fraud_platform.features.contract import load_contract
from fraud_platform.features.engine import FeatureStore
from fraud_platform.schema import Transaction
from tests.servers import redis_cluster, redis_server
from tests.stores import PATIENT

EVENTS = 10_000


def main(events: int) -> None:
    contract = load_contract()
    with TemporaryDirectory() as folder, redis_server(Path(folder) / "one") as port:
        one = f"redis://127.0.0.1:{port}"
        with LmdbStore.open(Path(folder) / "lmdb", contract) as store:
            measure("lmdb", store, events)
        with RedisStore.open(one, contract, limits=PATIENT) as store:
            measure("redis", store, events)
        with RedisStore.open(one, contract, namespace="replay", limits=PATIENT) as store:
            started = time.perf_counter()
            count = sum(1 for _ in store.observe_all(timeline(events)))
            print(f"{'redis, replay':14} {count / (time.perf_counter() - started):,.0f} events/s")
    with TemporaryDirectory() as folder, redis_cluster(Path(folder) / "three") as ports:
        three = f"redis+cluster://127.0.0.1:{ports[0]}"
        with RedisStore.open(three, contract, limits=PATIENT) as store:
            measure("redis cluster", store, events)


def measure(name: str, store: FeatureStore, events: int) -> None:
    """Observes the timeline; the first half warms the store up and is not counted."""
    taken = sorted(list(latencies(store, timeline(events)))[events // 2 :])
    p50, p99 = (taken[len(taken) * percent // 100] * 1000 for percent in (50, 99))
    print(f"{name:14} p50 {p50:.2f} ms, p99 {p99:.2f} ms, {len(taken) / sum(taken):,.0f} decisions/s")


def latencies(store: FeatureStore, events: Iterable[Transaction]) -> Iterator[float]:
    for event in events:
        started = time.perf_counter()
        store.observe(event)
        yield time.perf_counter() - started


def timeline(events: int) -> Iterator[Transaction]:
    """Skewed merchants, cards of a few events a day; all five entities present."""
    random = Random(1)
    moment = 1_790_000_000_000
    for number in range(events):
        moment += random.randrange(40_000)
        yield Transaction(
            transaction_id=f"t{number}",
            event_time=moment,
            card_id=f"c{random.randrange(3000)}",
            merchant_id=f"m{int(random.paretovariate(0.8)) % 2000}",
            amount_minor=random.randrange(100_000),
            currency="EUR",
            customer_id=f"u{random.randrange(2500)}",
            device_id=f"d{random.randrange(3000)}",
            ip_id=f"i{random.randrange(4000)}",
            merchant_country=random.choice(["DE", "FR"]),
            latitude=50.0,
            longitude=random.random(),
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS)
