"""A service's store on Redis, filled from the warehouse and caught up with the service's logs.

Belongs here: the order of the steps. Does not belong here: the store (redis.py), loading it (redis_load.py),
a store on LMDB (go_live.py).

Each contract has a namespace of its own, so that services of the old and of the new bundle stand beside
each other. The new one's store is filled while the old one decides; started once more when the old one has
stopped, the go-live takes in what it decided last. What was counted already is not counted again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.go_live import Logs, once, take
from fraud_platform.adapters.redis import READY, RedisStore, namespace_of
from fraud_platform.adapters.redis_link import PATIENT
from fraud_platform.adapters.redis_load import drop_store, load_from_warehouse
from fraud_platform.features.contract import FeatureContract

Progress = Callable[[str], None]


@dataclass(frozen=True)
class RedisLiveReport:
    """loaded: transactions of the bulk load, 0 where the store was there; caught_up: events counted since."""

    namespace: str
    loaded: int
    caught_up: int

    def __str__(self) -> str:
        return (
            f"{self.namespace}: loaded {self.loaded:,} transactions, caught up with {self.caught_up:,} events"
        )


def go_live_on_redis(
    warehouse: Warehouse,
    contract: FeatureContract,
    state: Path,
    url: str,
    progress: Progress = lambda message: None,
) -> RedisLiveReport:
    """Fills the contract's store where it is not there, and takes in what the logs of `state` hold beyond it.

    A load that was killed is done anew. Raises StoreError where Redis cannot be reached.
    """
    namespace, logs, loaded = namespace_of(contract), Logs(state), 0
    with RedisStore.open(url, contract, namespace=namespace, limits=PATIENT) as store:
        is_ready = store.meta(READY) is not None
        if not is_ready:
            drop_store(store)
    with RedisStore.open(url, contract, namespace=namespace, limits=PATIENT) as store:
        if not is_ready:
            live = once(logs.new())
            loaded = load_from_warehouse(warehouse, store, progress=progress, live=live).transactions
        caught_up = take(store, logs.new())
        store.set_meta(READY, "yes")
    return RedisLiveReport(namespace, loaded, caught_up)
