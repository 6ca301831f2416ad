"""What each UTC day has explored and is expected to lose by it, kept in a small LMDB in the state folder.

<state>/exploration   day since 1970 (8 bytes) -> `exploration.DayCounts`

All worker processes of a state folder share it: a venture is counted and granted in one write transaction, so
that no day's loss is passed. It is counted before its decision is on record: a process that is killed in
between has spent a venture's loss for nothing, never one more. What a power loss takes are the last seconds'
counts. Does not belong here: what may be explored (`serve.exploration`, `fraud_platform.exploration`).
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from threading import Lock

import lmdb

from fraud_platform.exploration import DAY_MS, DayCounts, Venture, venture

FOLDER = "exploration"
MAP_BYTES = 1 << 20
DAYS_KEPT = 2
"""Days before and behind the present one that are kept: a clock that jumped back finds its counts."""

_KEY = struct.Struct(">q")

log = logging.getLogger(__name__)


class ExplorationCounter:
    """The counts of a state folder, for the threads of one process. Opened when the first venture comes.

    is_failing: the last venture could not be counted. It had no chance then: what nobody counts has no limit.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER
        self._env: lmdb.Environment | None = None
        self._opening = Lock()
        self.is_failing = False

    def chance(self, now_ms: int, asked: Venture) -> float:
        """The chance that its day gives it; where its lot is below that, it is counted as explored."""
        try:
            chance = self._ask(now_ms, asked)
            self.is_failing = False
        except (lmdb.Error, struct.error, OSError):
            if not self.is_failing:
                log.exception("exploration %s cannot be counted; nothing is explored", self._folder)
            self.is_failing = True
            return 0.0
        return chance

    def day(self, now_ms: int) -> DayCounts:
        """The counts of the day of `now_ms`."""
        with self._opened().begin() as txn:
            return _read(txn, now_ms // DAY_MS) or DayCounts()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _ask(self, now_ms: int, asked: Venture) -> float:
        day = now_ms // DAY_MS
        with self._opened().begin(write=True) as txn:
            known = _read(txn, day)
            if known is None:
                _forget(txn, day)
            counts, chance = venture(asked, now_ms, known or DayCounts(), _read(txn, day - 1))
            txn.put(_KEY.pack(day), counts.to_bytes())
        return chance

    def _opened(self) -> lmdb.Environment:
        with self._opening:
            if self._env is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._env = lmdb.open(str(self._folder), map_size=MAP_BYTES, sync=False, metasync=False)
            return self._env


def _read(txn: lmdb.Transaction, day: int) -> DayCounts | None:
    data = txn.get(_KEY.pack(day))
    return None if data is None else DayCounts.from_bytes(bytes(data))


def _forget(txn: lmdb.Transaction, present: int) -> None:
    """Removes the days that are far from the present one, at its first venture."""
    for key in [bytes(key) for key in txn.cursor().iternext(values=False)]:
        if abs(_KEY.unpack(key)[0] - present) > DAYS_KEPT:
            txn.delete(key)
