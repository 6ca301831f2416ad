"""What each hour has used of the step-up and review capacities, kept in a small LMDB in the state folder.

<state>/capacity   hour of the clock (8 bytes) -> `serve.capacity.HourCounts`

All worker processes of a state folder share it: a wish is counted and granted in one write transaction, so
that no limit is passed. A wish is counted before its decision is on record: a process that is killed in
between has used up a unit for nothing, never one more. What a power loss takes are the last seconds' counts.
Does not belong here: what is granted (`serve.capacity`).
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from threading import Lock

import lmdb

from fraud_platform.schema import Action
from fraud_platform.serve.capacity import HOUR_MS, HourCounts, Wish, ask

FOLDER = "capacity"
MAP_BYTES = 1 << 20
HOURS_KEPT = 2
"""Hours before and behind the present one that are kept: a clock that jumped back finds its counts."""

_KEY = struct.Struct(">q")

log = logging.getLogger(__name__)


class CapacityCounter:
    """The counts of a state folder, for the threads of one process. Opened when the first wish comes.

    is_failing: the last wish could not be counted. It was granted then: a step-up too many costs less than a
    payment without an answer.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER
        self._env: lmdb.Environment | None = None
        self._opening = Lock()
        self.is_failing = False

    def closed(self, now_ms: int, wish: Wish) -> tuple[Action, ...]:
        """("step_up",) where the wish is refused; otherwise it is counted as granted, and () is returned."""
        if not wish.limits.is_limited:
            return ()
        try:
            is_granted = self._ask(now_ms, wish)
            self.is_failing = False
        except (lmdb.Error, struct.error, OSError):
            if not self.is_failing:
                log.exception("capacity %s cannot be counted; wishes are granted", self._folder)
            self.is_failing = True
            return ()
        return () if is_granted else ("step_up",)

    def hour(self, now_ms: int) -> HourCounts:
        """The counts of the hour of `now_ms`."""
        with self._opened().begin() as txn:
            return _read(txn, now_ms // HOUR_MS) or HourCounts()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _ask(self, now_ms: int, wish: Wish) -> bool:
        hour = now_ms // HOUR_MS
        with self._opened().begin(write=True) as txn:
            known = _read(txn, hour)
            if known is None:
                _forget(txn, hour)
            counts, is_granted = ask(wish, now_ms, known or HourCounts(), _read(txn, hour - 1))
            txn.put(_KEY.pack(hour), counts.to_bytes())
        return is_granted

    def _opened(self) -> lmdb.Environment:
        with self._opening:
            if self._env is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._env = lmdb.open(str(self._folder), map_size=MAP_BYTES, sync=False, metasync=False)
            return self._env


def _read(txn: lmdb.Transaction, hour: int) -> HourCounts | None:
    data = txn.get(_KEY.pack(hour))
    return None if data is None else HourCounts.from_bytes(bytes(data))


def _forget(txn: lmdb.Transaction, present: int) -> None:
    """Removes the hours that are far from the present one, at its first wish."""
    for key in [bytes(key) for key in txn.cursor().iternext(values=False)]:
        if abs(_KEY.unpack(key)[0] - present) > HOURS_KEPT:
            txn.delete(key)
