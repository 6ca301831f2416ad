"""Fills an online store on Redis from one on LMDB, which is filled from the warehouse (lmdb_load.py).

Belongs here: the same state in the other's keys, and removing it. Does not belong here: how a key is laid out
(lmdb_session.py, redis_session.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import lmdb
from redis import Redis, RedisCluster

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.lmdb_load import LoadReport, Progress, load_store
from fraud_platform.adapters.lmdb_session import decode_counted
from fraud_platform.adapters.redis import HOUR_MS, RedisStore
from fraud_platform.adapters.redis_link import Command, plain
from fraud_platform.adapters.redis_session import (
    ANSWERED,
    KNOWN_ONLY,
    claimed,
    pack_vector,
    snapshot,
)
from fraud_platform.adapters.store_bytes import TOKEN_BYTES, decode_state, decode_vector
from fraud_platform.errors import StoreError
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.state import State
from fraud_platform.schema import LabelEvent, Transaction

CLUSTER = "redis+cluster://"
AT_ONCE = 200
"""Entries of one key that one command carries at the most."""

_MOMENT = struct.Struct(">Q")
_NAME_BYTES = 1 + TOKEN_BYTES
_STATE, _COUNTER, _TRANSACTION, _REPORT = range(4)


def copy_store(source: LmdbStore, target: RedisStore) -> int:
    """Everything that `source` knows, into a new store that nobody uses yet; how many commands it took.

    Raises StoreError where the contracts differ. One that was interrupted is done again from the beginning.
    """
    if source.contract.hash != target.contract.hash:
        raise StoreError(
            f"online store {target.link.name}: its contract is {target.contract.hash[:12]}, that of "
            f"{source.path} {source.contract.hash[:12]}; copy between stores of one contract"
        )
    with source.snapshot() as txn:
        sent = target.load(_keys(source, target, txn)) + target.load(_transactions(source, target, txn))
        watermark = txn.get(b"watermark", db=source.tables["meta"])
    if watermark is not None:
        target.set_meta("watermark", bytes(watermark).decode())
    return sent


def _keys(source: LmdbStore, target: RedisStore, txn: lmdb.Transaction) -> Iterator[Command]:
    rows = ((bytes(name), bytes(data)) for name, data in txn.cursor(db=source.tables["keys"]))
    for (entity, kind), lines in groupby(rows, key=lambda row: (row[0][:_NAME_BYTES], row[0][_NAME_BYTES])):
        _, _, transactions, reports, counters = target.names.entity(entity)
        plan = target.engine.plan(entity[0])
        rest = ((name[_NAME_BYTES + 1 :], data) for name, data in lines)
        if kind == _STATE:
            for _, data in rest:
                yield _snapshot(target, plan, entity, decode_state(data))
        elif kind == _COUNTER:
            yield from _in_parts("HSET", counters, rest)
        elif kind == _TRANSACTION:
            logged = ((_moment(name), name[8:] + data) for name, data in rest)
            yield from _in_parts("ZADD", transactions, logged)
        elif kind == _REPORT:
            yield from _in_parts("ZADD", reports, ((_moment(name), name[8:]) for name, _ in rest))
    for name, _ in txn.cursor(db=source.tables["due"]):
        yield plain("ZADD", target.names.due, _moment(bytes(name)), bytes(name)[8:])


def _snapshot(target: RedisStore, plan: EntityPlan, entity: bytes, state: State) -> Command:
    head, waiting, names, data = snapshot(plan, state)
    return plain(
        "HSET", target.names.entity(entity)[0], "v", 1, "h", head, "w", waiting, "n", names, "s", data
    )


def _in_parts(command: str, name: bytes, pairs: Iterable[tuple[bytes | int, bytes]]) -> Iterator[Command]:
    waiting = iter(pairs)
    while part := list(islice(waiting, AT_ONCE)):
        yield plain(command, name, *(value for pair in part for value in pair))


def _transactions(source: LmdbStore, target: RedisStore, txn: lmdb.Transaction) -> Iterator[Command]:
    vectors = source.tables["vectors"]
    for name, data in txn.cursor(db=source.tables["seen"]):
        record, transaction = decode_counted(bytes(data)), bytes(name)
        vector = txn.get(_MOMENT.pack(record.event_time) + transaction, db=vectors)
        state, packed = KNOWN_ONLY[record.is_late], b""
        if vector is not None:
            state, packed = ANSWERED[record.is_late], pack_vector(decode_vector(vector))
        yield plain("SET", target.names.seen(transaction), claimed(record, state) + packed)
        kind = "known" if vector is None else "vectors"
        yield from target.dated(kind, record.event_time // HOUR_MS, [transaction])


def _moment(name: bytes) -> int:
    moment: int = _MOMENT.unpack_from(name)[0]
    return moment


def load_from_warehouse(
    warehouse: Warehouse,
    store: RedisStore,
    watermark: int | None = None,
    progress: Progress = lambda message: None,
    live: Sequence[Transaction | LabelEvent] = (),
) -> LoadReport:
    """Bulk load by way of a store on LMDB in a temporary folder; `store` is new and nobody uses it yet."""
    with TemporaryDirectory(prefix="load-") as folder:
        path = Path(folder) / "store"
        report = load_store(warehouse, store.contract, path, watermark, progress, live)
        progress("copying to Redis")
        with LmdbStore.open(path, store.contract) as source:
            copy_store(source, store)
    return report


def drop_store(store: RedisStore) -> int:
    """Removes every key of the store's namespace; how many there were. The store is of no use afterwards."""
    client = redis_client(store.url)
    try:
        names = list(client.scan_iter(match=store.names.everything, count=AT_ONCE * 5))
        for name in names:
            client.unlink(name)
    finally:
        client.close()
    return len(names)


def redis_client(url: str) -> Redis | RedisCluster:
    """A client for administration: of a server, or of a cluster for redis+cluster://."""
    if url.startswith(CLUSTER):
        return RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER))
    return Redis.from_url(url)
