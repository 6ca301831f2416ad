"""A service's store on Redis, filled from the warehouse and caught up with the service's logs.

Belongs here: the order of the steps. Does not belong here: the store (redis.py), loading it (redis_load.py),
a store on LMDB (go_live.py).

Each contract has a namespace of its own, so that services of the old and of the new bundle stand beside
each other. The new one's store is filled while the old one decides; started once more when the old one has
stopped, the go-live takes in what it decided last. What was counted already is not counted again; what lies
so far back that the store may have forgotten it is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.go_live import AGAIN, Event, Logs, once, take
from fraud_platform.adapters.redis import HOUR_MS, READY, RedisStore, namespace_of
from fraud_platform.adapters.redis_link import PATIENT, plain
from fraud_platform.adapters.redis_load import drop_store, load_from_warehouse
from fraud_platform.features.contract import FeatureContract
from fraud_platform.schema import Transaction

Progress = Callable[[str], None]


@dataclass(frozen=True)
class RedisLiveReport:
    """loaded: transactions of the bulk load, 0 where the store was there; caught_up: events counted since;
    left_out: logged transactions from before what the store remembers, which were not asked for."""

    namespace: str
    loaded: int
    caught_up: int
    left_out: int = 0

    def __str__(self) -> str:
        return (
            f"{self.namespace}: loaded {self.loaded:,} transactions, caught up with {self.caught_up:,} "
            f"events, left out {self.left_out:,} that are too old to be asked for"
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
        logged = logs.new()
        remembered = _remembered(store, logged)
        caught_up = take(store, remembered, _anew(namespace) if is_ready else AGAIN)
        store.set_meta(READY, "yes")
    return RedisLiveReport(namespace, loaded, caught_up, len(logged) - len(remembered))


def _remembered(store: RedisStore, logged: list[Event]) -> list[Event]:
    """Without the transactions that are so old that the store may have forgotten that it counted them: no
    window of an event to come holds them."""
    since = _newest(store, logged) - store.engine.remembered_ms
    return [event for event in logged if not isinstance(event, Transaction) or event.event_time >= since]


def _newest(store: RedisStore, logged: Iterable[Event]) -> int:
    """No event of the store or of the log is later (ms UTC); others may have fed the store."""
    with store.link.talk() as talk:
        hours = talk.call([plain("ZREVRANGE", store.names.calendar("vectors"), 0, 0)])[0]
    observed = [(int(hour) + 1) * HOUR_MS for hour in hours]
    decided = [event.event_time for event in logged if isinstance(event, Transaction)]
    return max([int(store.meta("watermark") or 0), *observed, *decided])


def _anew(namespace: str) -> str:
    return (
        f"stop the services of {namespace}, delete its keys ({namespace}:*) and start it again, all will be "
        "loaded anew"
    )
