"""A store on Redis for a replay that proves parity: in a namespace of its own, which is removed at the end.

Belongs here: what `replay_parity` asks of a store. Does not belong here: the store (redis.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.lmdb_load import Progress
from fraud_platform.adapters.parity_replay import LoadStore, OpenStore
from fraud_platform.adapters.redis import RedisStore
from fraud_platform.adapters.redis_link import PATIENT
from fraud_platform.adapters.redis_load import drop_store, load_from_warehouse
from fraud_platform.features.contract import FeatureContract


@contextmanager
def redis_replay(url: str) -> Iterator[tuple[OpenStore, LoadStore]]:
    """How to open and to load the replay's store."""
    namespace = f"parity:{uuid4().hex}"

    def open_store(path: Path, contract: FeatureContract) -> RedisStore:
        opened.append(contract)
        return RedisStore.open(url, contract, namespace=namespace, limits=PATIENT)

    def load(
        warehouse: Warehouse, contract: FeatureContract, path: Path, watermark: int, progress: Progress
    ) -> object:
        with open_store(path, contract) as store:
            return load_from_warehouse(warehouse, store, watermark, progress)

    opened: list[FeatureContract] = []
    try:
        yield open_store, load
    finally:
        for contract in opened[:1]:
            with RedisStore.open(url, contract, namespace=namespace, limits=PATIENT) as store:
                drop_store(store)
