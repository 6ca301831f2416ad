"""A service's own store, made anew beside the running one and put in its place while decisions go on.

Belongs here: the order of the steps that lose no event and count none twice. Does not belong here: bulk
loading (lmdb_load.py), serving (service.py), proving the result (store_audit.py), replaying (replay.py).

1. Load: all of the warehouse, what the service's logs hold by now and what its workers counted last.
2. Catch up: what was logged in the meantime, until little is left.
3. Switch, with the old store locked, so that no worker observes: the rest of the logs, and each worker's last
   event if it was observed and is not logged yet. Each worker's slot goes along under its name: whoever was
   killed before its log had the event finds it there. One whose event the logs held before the load stays
   behind: it is of no use, and holds the event in clear where the logs seal it. Then the old store is marked
   as moved. A worker that finds the mark goes on with the new store; where the contract changed, with the
   bundle that goes with it.

A copy of the new store as it begins is kept below <state>/bases, under the number of the last change before
it: what was decided with it can be replayed from there (replay.py), whatever the warehouse holds by then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import lmdb

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.journal import (
    LoggedDecision,
    LoggedLabel,
    read_decisions,
    read_labels,
    recorded,
)
from fraud_platform.adapters.lmdb import (
    FIRST_CHANGE,
    MOVED,
    LmdbStore,
    Slot,
    finish_move,
    fresh_store,
    open_environment,
    put_in_place,
    put_slots,
    read_meta,
    read_slots,
    retired_store,
)
from fraud_platform.adapters.lmdb_load import load_store
from fraud_platform.adapters.lmdb_session import TABLES
from fraud_platform.errors import StoreError, TooLateError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import FeatureStore
from fraud_platform.schema import LabelEvent, Transaction

STAMP = "store.source"
BASES = "bases"
LITTLE = 200
ROUNDS_MAX = 20
AGAIN = "start it again, it will be loaded with the rest"

Event = Transaction | LabelEvent
Positions = dict[str, Mapping[str, int]]
Progress = Callable[[str], None]
Logged = TypeVar("Logged", LoggedDecision, LoggedLabel)


class CountingStore(FeatureStore, Protocol):
    def seen(self, transaction_id: str) -> bool: ...


@dataclass(frozen=True)
class GoLiveReport:
    """loaded: transactions in the store after the bulk load, with those of the service's logs (live);
    caught_up: events that were logged meanwhile and counted; known: those that were counted before; locked:
    events taken in while the old store was locked; in_flight: events that no log held when they were loaded
    or taken in; watermark: ms UTC."""

    watermark: int
    loaded: int
    live: int
    caught_up: int
    known: int
    locked: int
    in_flight: int
    is_switched: bool
    contract: str

    def __str__(self) -> str:
        return (
            f"loaded {self.loaded:,} transactions ({self.live:,} events of the service's logs), caught up "
            f"with {self.caught_up:,}, took {self.locked:,} while the old store was locked"
        )


@dataclass
class Logs:
    """The service's two logs, and how far they have been read."""

    state: Path
    positions: Positions = field(default_factory=dict)
    last_change: int = 0

    def new(self) -> list[Event]:
        """What has been logged since the last call, in the order in which it became known.

        Labels are read first: the transaction of each is then among the decisions.
        """
        learned = [one.record.event for one in self._read("labels", read_labels)]
        decided = [one.record.request for one in self._read("decisions", read_decisions)]
        return sorted([*decided, *learned], key=_moment)

    def _read(
        self, name: str, read: Callable[[Path, Mapping[str, int]], Iterator[Logged]]
    ) -> Iterator[Logged]:
        after = dict(self.positions.get(name, {}))
        for logged in read(self.state, after):
            after[logged.worker] = logged.sequence
            self.last_change = max(self.last_change, logged.record.store_sequence or 0)
            yield logged
        self.positions[name] = after


def go_live(
    warehouse: Warehouse,
    contract: FeatureContract,
    state: Path,
    *,
    bundle: str = "",
    source: str = "",
    progress: Progress = lambda message: None,
) -> GoLiveReport:
    """Gives the service of `state` a store of `contract`; a running service goes on with it by itself.

    bundle: the folder of the bundle that goes with another contract than the service's; source: what the
    warehouse's streams were, kept to tell whether a store is still up to date (`is_live`). May be killed at
    any point and started again. Raises StoreError where the warehouse is empty.
    """
    path = state / "store"
    state.mkdir(parents=True, exist_ok=True)
    finish_move(path)
    (state / STAMP).unlink(missing_ok=True)
    logs = Logs(state)
    live, waiting = logs.new(), _slots_of(path, contract)
    done = _recorded(state, waiting)
    waiting = [slot for slot in waiting if slot.data not in done]
    loading = once([*live, *(slot.event for slot in waiting)])
    load = load_store(warehouse, contract, fresh_store(path), progress=progress, live=loading)
    caught_up = known = 0
    with LmdbStore.open(fresh_store(path), contract, is_numbered=False) as fresh:
        for _ in range(ROUNDS_MAX):
            events = logs.new()
            counted = take(fresh, events)
            caught_up, known = caught_up + counted, known + len(events) - counted
            progress(f"caught up with {caught_up:,} events")
            if len(events) < LITTLE:
                break
        is_switched = path.is_dir()
        with (
            _new_base(state, fresh, contract) as base,
            _locked(path, contract) if is_switched else _nothing() as old,
        ):
            slots = [slot for slot in old.slots if slot.data not in done]
            rest, flying = logs.new(), _newer(slots, waiting)
            locked, unlogged = take(fresh, rest), take(fresh, flying)
            take(base, [*rest, *flying])
            first_change = max(old.change, logs.last_change)
            for store in (fresh, base):
                store.write(partial(_begin, store, first_change, slots))
                store.flush()
            kept, used_bytes = _keep_base(state, first_change), base.used_bytes
            old.mark_moved(f"{contract.hash} {bundle}")
    os.truncate(kept / "data.mdb", used_bytes)
    if is_switched:
        finish_move(path)
        shutil.rmtree(retired_store(path), ignore_errors=True)
    else:
        put_in_place(path)
    (state / STAMP).write_text(_stamp(contract, source))
    return GoLiveReport(
        watermark=load.watermark,
        loaded=load.transactions,
        live=len(live),
        caught_up=caught_up,
        known=known,
        locked=locked + unlogged,
        in_flight=len(loading) - len(once(live)) + unlogged,
        is_switched=is_switched,
        contract=contract.hash,
    )


def is_live(state: Path, contract: FeatureContract, source: str) -> bool:
    """Whether the service's store was made of these streams and for this contract."""
    stamp = state / STAMP
    return (state / "store").is_dir() and stamp.is_file() and stamp.read_text() == _stamp(contract, source)


def logged_events(state: Path) -> list[Event]:
    """Everything that the service of `state` decided and learned, each transaction once."""
    return once(Logs(state).new())


def bases_of(state: Path) -> dict[int, Path]:
    """The stores that the service began with, by the number of the last change before; in order.

    One that a killed go-live left behind was never served from, and is none.
    """
    folders = [path for path in (state / BASES).glob("*") if path.name.isdecimal()]
    live = state / "store"
    last = int(read_meta(live, FIRST_CHANGE) or 0) if (live / "data.mdb").is_file() else None
    found = {int(path.name): path for path in sorted(folders)}
    return {change: path for change, path in found.items() if last is None or change <= last}


@contextmanager
def _new_base(state: Path, fresh: LmdbStore, contract: FeatureContract) -> Iterator[LmdbStore]:
    """A copy of the fresh store, which takes what the fresh one takes."""
    kept, building = bases_of(state).values(), state / BASES / "building"
    for path in (state / BASES).glob("*"):
        if path not in kept:
            shutil.rmtree(path)
    fresh.copy(building)
    with LmdbStore.open(building, contract, is_numbered=False) as base:
        yield base


def _keep_base(state: Path, first_change: int) -> Path:
    """A store that is open may be renamed: its file stays the same."""
    target = state / BASES / f"{first_change:020d}"
    shutil.rmtree(target, ignore_errors=True)
    return (state / BASES / "building").rename(target)


def _begin(store: LmdbStore, change: int, slots: Sequence[Slot], txn: lmdb.Transaction) -> None:
    txn.put(FIRST_CHANGE, str(change).encode(), db=store.tables["meta"])
    put_slots(txn, store.tables, slots)


@dataclass(frozen=True)
class _Old:
    """The store that is being left, locked: its workers' slots, the number of its last change, and the mark
    that sends the workers on."""

    slots: Sequence[Slot]
    change: int
    mark_moved: Callable[[str], None]


@contextmanager
def _locked(path: Path, contract: FeatureContract) -> Iterator[_Old]:
    """Keeps every worker from observing until the block ends; what it does to the store is then committed."""
    with _opened(path) as (environment, tables):
        meta = tables["meta"]
        with environment.begin(write=True) as txn:
            change = int(txn.get(FIRST_CHANGE, b"0", db=meta)) + txn.id()
            yield _Old(read_slots(txn, tables, contract), change, partial(_mark_moved, txn, meta))
        environment.sync(True)


def _slots_of(path: Path, contract: FeatureContract) -> list[Slot]:
    """Of a store that workers go on writing to; of none where there is none."""
    if not path.is_dir():
        return []
    with _opened(path) as (environment, tables), environment.begin() as txn:
        return read_slots(txn, tables, contract)


def _recorded(state: Path, slots: Sequence[Slot]) -> set[bytes]:
    """The contents of the slots that nobody has to finish."""
    is_done = recorded(state, [slot.event for slot in slots])
    return {slot.data for slot, is_one in zip(slots, is_done, strict=True) if is_one}


def _newer(slots: Iterable[Slot], before: Iterable[Slot]) -> list[Event]:
    """The events that came into the slots since, in the order in which they became known."""
    known = {slot.data for slot in before}
    return sorted((slot.event for slot in slots if slot.data not in known), key=_moment)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[lmdb.Environment, dict[str, Any]]]:
    environment = open_environment(path)
    try:
        yield environment, {name: environment.open_db(name.encode()) for name in TABLES}
    finally:
        environment.close()


@contextmanager
def _nothing() -> Iterator[_Old]:
    yield _Old((), 0, lambda mark: None)


def _mark_moved(txn: lmdb.Transaction, meta: Any, mark: str) -> None:
    txn.put(MOVED, mark.encode(), db=meta)


def take(store: CountingStore, events: Iterable[Event], advice: str = AGAIN) -> int:
    """Events that the store had not counted yet; a transaction that is too late for it stops the go-live with
    the advice."""
    counted = 0
    for event in events:
        if isinstance(event, LabelEvent):
            counted += store.learn(event)
        elif not store.seen(event.transaction_id):
            try:
                store.observe(event)
            except TooLateError as error:
                raise StoreError(f"go-live: {error}; {advice}") from error
            counted += 1
    return counted


def once(events: Iterable[Event]) -> list[Event]:
    """Each transaction once, the first time it was decided; each label event once."""
    first: dict[str | LabelEvent, Event] = {}
    for event in events:
        first.setdefault(event.transaction_id if isinstance(event, Transaction) else event, event)
    return list(first.values())


def _moment(event: Event) -> tuple[int, int, str]:
    if isinstance(event, Transaction):
        return event.event_time, 0, event.transaction_id
    return event.known_at, 1, event.transaction_id


def _stamp(contract: FeatureContract, source: str) -> str:
    return f"{contract.hash} {source}"
