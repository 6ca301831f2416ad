"""Counts of the hour or day, kept in a small LMDB in the state folder for all worker processes of it.

<folder>   period since 1970 (8 bytes) -> its counts

What is asked is counted and granted in one write transaction, so that no limit is passed. It is counted
before its decision is on record: a process that is killed in between has spent for nothing, never once more.
What a power loss takes are the last seconds' counts. Does not belong here: what is counted, and what is
granted (serve/capacity.py, fraud_platform/exploration.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, Protocol, Self, TypeVar

import lmdb

MAP_BYTES = 1 << 20
PERIODS_KEPT = 2
"""Before and behind the present one: a clock that jumped back finds its counts."""
UNCOUNTED = (lmdb.Error, struct.error, OSError)
"""What is raised where nothing could be counted."""

_KEY = struct.Struct(">q")

Result = TypeVar("Result")


class Counts(Protocol):
    """What a period has used. Without arguments: nothing yet."""

    def to_bytes(self) -> bytes: ...

    @classmethod
    def from_bytes(cls, data: bytes) -> Self: ...


Kept = TypeVar("Kept", bound=Counts)


class PeriodCounts(Generic[Kept]):
    """The counts in a folder, for the threads of one process. Opened when first asked.

    Its calls raise one of UNCOUNTED where the folder fails.
    """

    def __init__(self, folder: Path, period_ms: int, kind: type[Kept]) -> None:
        self._folder = folder
        self._period_ms = period_ms
        self._kind = kind
        self._env: lmdb.Environment | None = None
        self._opening = Lock()

    def change(self, now_ms: int, ask: Callable[[Kept, Kept | None], tuple[Kept, Result]]) -> Result:
        """Puts what `ask` makes of the counts of now, and of the period before if there are any."""
        period = now_ms // self._period_ms
        with self._opened().begin(write=True) as txn:
            known = self._read(txn, period)
            if known is None:
                _forget(txn, period)
            counts, result = ask(known or self._kind(), self._read(txn, period - 1))
            txn.put(_KEY.pack(period), counts.to_bytes())
        return result

    def at(self, now_ms: int) -> Kept:
        """The counts of the period of `now_ms`."""
        with self._opened().begin() as txn:
            return self._read(txn, now_ms // self._period_ms) or self._kind()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _opened(self) -> lmdb.Environment:
        with self._opening:
            if self._env is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._env = lmdb.open(str(self._folder), map_size=MAP_BYTES, sync=False, metasync=False)
            return self._env

    def _read(self, txn: lmdb.Transaction, period: int) -> Kept | None:
        data = txn.get(_KEY.pack(period))
        return None if data is None else self._kind.from_bytes(bytes(data))


def _forget(txn: lmdb.Transaction, present: int) -> None:
    """Removes the periods that are far from the present one, when that is first asked."""
    for key in [bytes(key) for key in txn.cursor().iternext(values=False)]:
        if abs(_KEY.unpack(key)[0] - present) > PERIODS_KEPT:
            txn.delete(key)
