"""The embedded online store: LMDB, shared by the processes of one machine, one write transaction an event.

Belongs here: opening, growing, sharing, moving and closing the store. Does not belong here: keys and bytes
(lmdb_session.py), what an event means (features/engine.py).

The file is written through its memory map, which saves a third of an event's time. It grows in steps whose
blocks are reserved first, so that a full disk is an error and not a signal.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, cast

import lmdb
import msgspec

from fraud_platform.adapters.lmdb_session import (
    TABLES,
    CountedRecord,
    LmdbSession,
    dated,
    decode_counted,
)
from fraud_platform.adapters.store_bytes import EntryCodec, encode, token
from fraud_platform.errors import StoreError, StoreMovedError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import Engine, Observation
from fraud_platform.schema import LabelEvent, Transaction

FORMAT = b"5"
MOVED, IN_FLIGHT, FIRST_CHANGE = b"moved", b"in_flight:", b"first_change"
STEP_BYTES, STEP_BYTES_MAX = 16 << 20, 1 << 30
BATCH_EVENTS = 1000

Result = TypeVar("Result")


class LmdbStore:
    """A FeatureStore in a folder. Raises StoreError where the folder holds another contract or format.

    is_synced=True forces every event to the disk. False leaves that to the operating system: a killed process
    loses nothing, a power loss may; the store is then rebuilt from the warehouse and the decision log.
    writer: names this process among those that share the store; its last event stays readable (`in_flight`)
    for whoever takes the store over between an observation and its record in the decision log.
    is_numbered=False: its changes are a load's, and have no number among those of the service.

    Changes are numbered through all stores that took each other's place: a store begins behind the last
    number of the one before.
    """

    def __init__(
        self,
        path: Path,
        contract: FeatureContract,
        *,
        is_synced: bool = False,
        writer: str = "main",
        is_numbered: bool = True,
    ) -> None:
        self.path = path
        self.contract = contract
        self.sequence: int | None = None
        self.engine = Engine(contract)
        self.codecs = {plan.number: EntryCodec(plan) for plan in self.engine.plans}
        self._is_synced = is_synced
        self._is_numbered = is_numbered
        self._first_change = 0
        self._slot = IN_FLIGHT + writer.encode()
        self._open()

    @classmethod
    def open(
        cls,
        path: Path,
        contract: FeatureContract,
        *,
        is_synced: bool = False,
        writer: str = "main",
        is_numbered: bool = True,
    ) -> LmdbStore:
        """An existing or a new store at `path`."""
        return cls(path, contract, is_synced=is_synced, writer=writer, is_numbered=is_numbered)

    def observe(self, transaction: Transaction) -> Observation:
        def work(session: LmdbSession) -> Observation:
            session.txn.put(self._slot, msgspec.json.encode(transaction), db=self.tables["meta"])
            observation = self.engine.observe(session, transaction)
            if observation.is_repeat:
                counted = session.counted(transaction.transaction_id)
                self.sequence = (counted and counted.counted_at) or self.sequence
            return observation

        return self._write(work)

    def observe_all(self, events: Iterable[Transaction | LabelEvent]) -> Iterator[Observation | None]:
        """Events in the order of the timeline, many in one transaction, for replays; None for labels."""
        waiting = iter(events)
        while batch := list(islice(waiting, BATCH_EVENTS)):
            yield from self._write(partial(self._take, batch))

    def learn(self, event: LabelEvent) -> bool:
        def work(session: LmdbSession) -> bool:
            session.txn.put(self._slot, msgspec.json.encode(event), db=self.tables["meta"])
            is_counted = self.engine.learn(session, event)
            counted = None if is_counted else session.counted(event.transaction_id)
            if counted is not None and counted.reported_at == event.known_at:
                self.sequence = counted.reported_at_change or self.sequence
            return is_counted

        return self._write(work)

    def last_event(self) -> Transaction | LabelEvent | None:
        """What this writer, or the one before it, counted last: after a kill no log may have it."""
        slot = self._read(lambda txn: txn.get(self._slot, db=self.tables["meta"]))
        return None if slot is None else _event(bytes(slot))

    def seen(self, transaction_id: str) -> bool:
        """Whether the transaction has been observed or loaded."""
        return self._read(lambda txn: txn.get(token(transaction_id), db=self.tables["seen"])) is not None

    def meta(self, name: str) -> str | None:
        data = self._read(lambda txn: txn.get(name.encode(), db=self.tables["meta"]))
        return None if data is None else bytes(data).decode()

    def write(self, work: Callable[[lmdb.Transaction], Result]) -> Result:
        """What `work` puts into the tables in one transaction, for bulk loads; it may be called again."""
        return self._write(lambda session: work(session.txn))

    def snapshot(self) -> AbstractContextManager[lmdb.Transaction]:
        """A reading transaction: the store as it is now, while others go on writing."""
        return cast(AbstractContextManager[lmdb.Transaction], self._env.begin(buffers=False))

    def flush(self) -> None:
        """Force what was written to the disk."""
        self._env.sync(True)

    def copy(self, path: Path) -> None:
        """The store as it is now, as another one in an empty folder."""
        path.mkdir(parents=True)
        self._env.copy(str(path), compact=True)

    @property
    def used_bytes(self) -> int:
        """Of its file, what holds anything; the rest is room to grow."""
        return int((self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"])

    def close(self) -> None:
        self._env.close()

    def __enter__(self) -> LmdbStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(
        self, events: Iterable[Transaction | LabelEvent], session: LmdbSession
    ) -> list[Observation | None]:
        answers: list[Observation | None] = []
        for event in events:
            if isinstance(event, Transaction):
                answers.append(self.engine.observe(session, event))
            else:
                self.engine.learn(session, event)
                answers.append(None)
        return answers

    def _open(self) -> None:
        if not self.path.exists():
            finish_move(self.path)
        self._env = open_environment(self.path, is_synced=self._is_synced)
        self.tables = {name: self._env.open_db(name.encode()) for name in TABLES}
        self._write(self._claim)
        self._first_change = int(self.meta(FIRST_CHANGE.decode()) or 0)

    def _write(self, work: Callable[[LmdbSession], Result]) -> Result:
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    moved = txn.get(MOVED, db=self.tables["meta"])
                    if moved is None:
                        self.sequence = change = self._first_change + txn.id() if self._is_numbered else None
                        return work(LmdbSession(txn, self.tables, self.codecs, self.engine, change))
            except lmdb.MapFullError:
                grow(self._env, self.path)
                continue
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)
                continue
            except lmdb.Error as error:
                raise StoreError(f"online store {self.path}: {error}; restore it, or make it anew") from error
            self._follow(bytes(moved))

    def _read(self, work: Callable[[lmdb.Transaction], Result]) -> Result:
        try:
            with self._env.begin() as txn:
                return work(txn)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)
            return self._read(work)

    def _follow(self, moved: bytes) -> None:
        """Goes on with the store that took this one's place; StoreMovedError: it has another contract."""
        contract, bundle = moved.decode().split(" ", 1)
        if contract != self.contract.hash:
            raise StoreMovedError(self.path, contract, bundle)  # and again at each further event
        self._env.close()
        finish_move(self.path)
        self._open()

    def _claim(self, session: LmdbSession) -> None:
        meta = self.tables["meta"]
        for name, value in {"format": FORMAT, "contract": self.contract.hash.encode()}.items():
            found = session.txn.get(name.encode(), db=meta)
            if found is None:
                session.txn.put(name.encode(), value, db=meta)
            elif bytes(found) != value:
                raise StoreError(
                    f"online store {self.path}: its {name} is {bytes(found).decode()[:12]}, wanted is "
                    f"{value.decode()[:12]}; rebuild it from the warehouse (asset features/online_store)"
                )


def in_flight(txn: lmdb.Transaction, meta: Any) -> list[Transaction | LabelEvent]:
    """The last event of each process that writes to the store: it may stand in no log yet."""
    return [_event(data) for _, data in _slots(txn, meta)]


class Slot(NamedTuple):
    """A writer's last event, under the writer's name. counted: what the store keeps of its transaction;
    vector: what it was answered. Both as bytes, None where they are of no use to another store."""

    name: bytes
    data: bytes
    counted: bytes | None
    vector: bytes | None

    @property
    def event(self) -> Transaction | LabelEvent:
        return _event(self.data)


def read_slots(txn: lmdb.Transaction, tables: Mapping[str, Any], contract: FeatureContract) -> list[Slot]:
    """The slots of a store that one of `contract` is to take the place of."""
    is_known = txn.get(b"format", db=tables["meta"]) == FORMAT
    is_same = is_known and txn.get(b"contract", db=tables["meta"]) == contract.hash.encode()
    slots = []
    for name, data in _slots(txn, tables["meta"]):
        transaction, counted, vector = token(_event(data).transaction_id), None, None
        if is_known:
            counted = txn.get(transaction, db=tables["seen"])
        if is_same and counted is not None:
            moment = decode_counted(counted).event_time
            vector = txn.get(dated(moment, transaction), db=tables["vectors"])
        slots.append(Slot(name, data, counted, vector))
    return slots


def put_slots(txn: lmdb.Transaction, tables: Mapping[str, Any], slots: Iterable[Slot]) -> None:
    """Makes them the only ones of a store that has counted their events: each with the number and the answer
    that the event had in the store before, so that it is finished as if that one had stayed."""
    for name, _ in _slots(txn, tables["meta"]):
        txn.delete(name, db=tables["meta"])
    for slot in slots:
        txn.put(slot.name, slot.data, db=tables["meta"])
        transaction = token(slot.event.transaction_id)
        found = txn.get(transaction, db=tables["seen"])
        if found is None or slot.counted is None:
            continue
        record, before = decode_counted(found), decode_counted(slot.counted)
        txn.put(transaction, encode(_as_counted(record, before)), db=tables["seen"])
        if slot.vector is not None and record.event_time == before.event_time:
            txn.put(dated(record.event_time, transaction), slot.vector, db=tables["vectors"])


def _as_counted(record: CountedRecord, before: CountedRecord) -> CountedRecord:
    is_same_report = record.reported_at == before.reported_at
    return msgspec.structs.replace(
        record,
        counted_at=before.counted_at,
        reported_at_change=before.reported_at_change if is_same_report else record.reported_at_change,
        is_late=before.is_late,
    )


def _slots(txn: lmdb.Transaction, meta: Any) -> list[tuple[bytes, bytes]]:
    named = [(bytes(name), bytes(data)) for name, data in txn.cursor(db=meta)]
    return [(name, data) for name, data in named if name.startswith(IN_FLIGHT)]


def _event(slot: bytes) -> Transaction | LabelEvent:
    if b'"card_id":' in slot:
        return msgspec.json.decode(slot, type=Transaction)
    return msgspec.json.decode(slot, type=LabelEvent)


def open_environment(path: Path, *, is_synced: bool = False) -> lmdb.Environment:
    """The environment of a store's folder, made where there is none. StoreError where the disk is full."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / "data.mdb"
    if not file.exists() and shutil.disk_usage(path).free < 2 * STEP_BYTES:
        raise _disk_full(path, STEP_BYTES)
    environment = lmdb.open(
        str(path),
        map_size=max(STEP_BYTES, file.stat().st_size if file.exists() else 0),
        max_dbs=len(TABLES),
        sync=is_synced,
        metasync=is_synced,
        readahead=False,
        writemap=True,
    )
    _reserve(path, environment.info()["map_size"])
    return environment


def grow(environment: lmdb.Environment, path: Path) -> None:
    """Gives the store a half more of room, reserved on the disk. StoreError where the disk is full."""
    size = environment.info()["map_size"]
    wanted = size + min(max(size // 2, STEP_BYTES), STEP_BYTES_MAX)
    _reserve(path, wanted)
    environment.set_mapsize(wanted)


def finish_move(path: Path) -> None:
    """Puts the fresh store in the place of one that is marked as moved, whoever was stopped before that.

    Nothing happens where nothing is to be done; several processes may call it at once.
    """
    if not path.parent.is_dir():
        return
    with _only_one(path.with_name(path.name + ".lock")):
        fresh = fresh_store(path)
        if path.is_dir() and fresh.is_dir() and _is_moved(path):
            _replace(path)
        elif not path.exists() and fresh.is_dir() and retired_store(path).is_dir():
            fresh.rename(path)


def put_in_place(path: Path) -> None:
    """The fresh store becomes the one at `path`; what was there is removed."""
    with _only_one(path.with_name(path.name + ".lock")):
        _replace(path)
    shutil.rmtree(retired_store(path), ignore_errors=True)


def _replace(path: Path) -> None:
    """Stopped between the two renames it is finished by `finish_move`: then there is no store at `path`."""
    retired = retired_store(path)
    if path.is_dir():
        shutil.rmtree(retired, ignore_errors=True)
        path.rename(retired)
    fresh_store(path).rename(path)


def fresh_store(path: Path) -> Path:
    """Where the store is made that will take the place of the one at `path`."""
    return path.with_name(path.name + ".fresh")


def retired_store(path: Path) -> Path:
    return path.with_name(path.name + ".retired")


def _is_moved(path: Path) -> bool:
    return read_meta(path, MOVED) is not None


def read_meta(path: Path, name: bytes) -> str | None:
    """Asked of the file alone, which stays as it is: a process may have a store open only once."""
    with lmdb.open(str(path), max_dbs=len(TABLES), readonly=True, lock=False) as environment:
        meta = environment.open_db(b"meta", create=False)
        with environment.begin() as txn:
            found = txn.get(name, db=meta)
            return None if found is None else bytes(found).decode()


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _reserve(path: Path, size: int) -> None:
    file = os.open(path / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise _disk_full(path, size) from error
    finally:
        os.close(file)


def _disk_full(path: Path, size: int) -> StoreError:
    return StoreError(f"online store {path}: {size >> 20} MiB do not fit on its disk; free the disk")
