"""What one event reads and writes of the LMDB store, and the bytes of it.

Belongs here: keys, records and one write transaction. Does not belong here: opening a store (lmdb.py), what
an event means (features/engine.py).

Six tables. `keys`: all of one entity's key lies side by side, so that an event changes few pages:
(plan, key), then 0 -> State, which carries the transactions of most keys along; 3, moment, transaction -> a
report; 4, transaction -> when it was reported, where the plan looks at outcomes. Of keys with a log also 1,
column, value -> times in each window; 2, moment, transaction -> entry of the log.
`seen`: transaction -> its keys. `vectors` and `known`: event_time, transaction -> its vector for as long as a
repeat gets it, then nothing; both are cleaned up by time. `due`: moment, (plan, key) -> nothing, the keys to
look after. `meta`: name -> text. Ids are tokenised by 128 bits of SHA-256, so that any length fits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any

import lmdb
import msgspec

from fraud_platform.adapters.store_bytes import (
    EntryCodec,
    SeenRecord,
    decode_state,
    decode_vector,
    encode,
    key_bytes,
    seen_keys,
    token,
)
from fraud_platform.features.engine import Engine, Key, Seen, Vector
from fraud_platform.features.lookback import Outcome, Outcomes
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.recent import Entry
from fraud_platform.features.state import FAR, NEVER, State
from fraud_platform.schema import Transaction

TABLES = ("meta", "keys", "seen", "vectors", "known", "due")
FORGOTTEN_EACH = 2
"""Expired vectors, transactions and idle keys that one event cleans up: more than it adds."""


class CountedRecord(SeenRecord, array_like=True):
    """counted_at, reported_at_change: the numbers of the store's changes that counted the transaction and its
    report, None where they came by a load; is_late: as it was answered. A change that was made before a kill
    and asked for again keeps its number, and a late one stays late."""

    counted_at: int | None = None
    reported_at_change: int | None = None
    is_late: bool = False


decode_counted = msgspec.msgpack.Decoder(CountedRecord).decode

_MOMENT = struct.Struct(">Q")
_AMOUNT = struct.Struct("<q")
_TRANSACTION, _REPORT, _REPORTED = b"\x02", b"\x03", b"\x04"


def state_key(prefix: bytes) -> bytes:
    return prefix + b"\x00"


def log_key(prefix: bytes, is_report: bool, moment: int, transaction: bytes) -> bytes:
    return prefix + (_REPORT if is_report else _TRANSACTION) + _MOMENT.pack(moment) + transaction


def reported_key(prefix: bytes, transaction: bytes) -> bytes:
    return prefix + _REPORTED + transaction


def dated(moment: int, name: bytes) -> bytes:
    """A key that sorts by moment."""
    return _MOMENT.pack(moment) + name


class LmdbKeySession:
    """One entity's key within a write transaction."""

    __slots__ = ("_codec", "_cursor", "_plan", "_point", "_prefix", "_session", "_times")

    def __init__(self, session: LmdbSession, plan: EntityPlan, prefix: bytes) -> None:
        self._session = session
        self._cursor = session.cursor
        self._point = session.point
        self._codec = session.codecs[plan.number]
        self._plan = plan
        self._prefix = prefix
        self._times: dict[bytes, list[int]] = {}

    def state(self) -> State | None:
        data = self._point.get(state_key(self._prefix))
        return None if data is None else decode_state(data)

    def save(self, state: State) -> None:
        put = self._point.put
        put(state_key(self._prefix), encode(state))
        if self._times:
            pack = self._codec.times.pack
            for name, times in self._times.items():
                if any(times):
                    put(name, pack(*times))
                else:
                    self._delete(name)
            self._times.clear()

    def scan(self, is_report: bool, lower: int, upper: int) -> Iterator[Entry]:
        if upper <= 0:
            return
        prefix, unpack = self._prefix, self._codec.unpack
        end = log_key(prefix, is_report, upper, b"")
        start = len(prefix) + 1
        if not self._cursor.set_range(log_key(prefix, is_report, max(lower, 0), b"")):
            return
        for name, data in self._cursor.iternext():
            if name >= end:
                return
            yield unpack(_MOMENT.unpack_from(name, start)[0], data)

    def leave(self, is_report: bool, lower: int, bound: int, upper: int) -> tuple[list[Entry], int]:
        unpack, beginning = self._codec.unpack, self._prefix + (_REPORT if is_report else _TRANSACTION)
        entries: list[Entry] = []
        if not self._cursor.set_range(beginning + _MOMENT.pack(lower)):
            return entries, FAR
        start = len(beginning)
        for name, data in self._cursor.iternext():
            if name[:start] != beginning:
                break
            moment = _MOMENT.unpack_from(name, start)[0]
            if moment >= bound:
                return entries, moment if moment < upper else FAR
            if moment >= upper:
                break
            entries.append(unpack(moment, data))
        return entries, FAR

    def scan_back(self, upper: int) -> Iterator[Entry]:
        start = len(self._prefix) + 1
        for name, data in self._back(False, 0, upper):
            yield self._codec.unpack(_MOMENT.unpack_from(name, start)[0], data)

    def amounts(self, lower: int, upper: int, last: int) -> list[int]:
        return [_AMOUNT.unpack_from(data)[0] for _, data in self._last(lower, upper, last)]

    def outcomes(self, now: int, lower: int, upper: int, last: int, has_reports: bool) -> Outcomes:
        lines = self._last(lower, upper, last)
        start = len(self._prefix) + 1
        end = start + _MOMENT.size
        reported = self.reported([name[end:] for name, _ in lines]) if has_reports and lines else {}
        if lines and not reported:  # as it is nearly always
            return Outcomes(len(lines), good=_MOMENT.unpack_from(lines[0][0], start)[0])
        found = []
        for name, data in lines:
            moment = _MOMENT.unpack_from(name, start)[0]
            found.append(Outcome(moment, reported.get(name[end:], NEVER), _AMOUNT.unpack_from(data)[0]))
        return Outcomes.by(now, found)

    def reported(self, names: Sequence[bytes]) -> dict[bytes, int]:
        beginning = reported_key(self._prefix, b"")
        found = self._cursor.getmulti([beginning + name for name in names])
        start = len(beginning)
        return {name[start:]: _MOMENT.unpack(known_at)[0] for name, known_at in found}

    def outer_reports(self, lower: int, upper: int) -> tuple[int, int]:
        start = len(self._prefix) + 1
        for name, _ in self._back(True, lower, upper):
            newest = int(_MOMENT.unpack_from(name, start)[0])
            return next(self.scan(True, lower, upper)).moment, newest
        return NEVER, NEVER

    def _last(self, lower: int, upper: int, last: int) -> list[tuple[bytes, bytes]]:
        """Lines of the transactions' log of the last moments in [lower, upper), the latest first."""
        start = len(self._prefix) + 1
        end = start + _MOMENT.size
        back = self._back(False, lower, upper)
        lines = list(islice(back, last + 1))
        if len(lines) <= last:
            return lines
        moments = {name[start:end] for name, _ in lines}
        if len(moments) > last:  # as it is nearly always
            lines.pop()
            return lines
        for line in back:  # tied with the last moment, or another one where moments tied before
            moment = line[0][start:end]
            if moment not in moments:
                if len(moments) == last:
                    break
                moments.add(moment)
            lines.append(line)
        return lines

    def _back(self, is_report: bool, lower: int, upper: int) -> Iterator[tuple[bytes, bytes]]:
        beginning = log_key(self._prefix, is_report, max(lower, 0), b"")
        if upper <= 0:
            return iter(())
        is_inside = self._cursor.set_range(log_key(self._prefix, is_report, upper, b""))
        if not (self._cursor.prev() if is_inside else self._cursor.last()):
            return iter(())
        return takewhile(lambda line: line[0] >= beginning, self._cursor.iterprev())

    def append(self, name: bytes, entry: Entry) -> None:
        self._point.put(log_key(self._prefix, False, entry.moment, name), self._codec.pack(entry))

    def append_report(self, transaction_id: str, known_at: int) -> None:
        name = token(transaction_id)
        self._point.put(log_key(self._prefix, True, known_at, name), b"")
        if self._plan.wanted.outcomes is not None:
            self._point.put(reported_key(self._prefix, name), _MOMENT.pack(known_at))

    def remove_report(self, transaction_id: str, known_at: int) -> None:
        name = token(transaction_id)
        self._delete(log_key(self._prefix, True, known_at, name))
        if self._plan.wanted.outcomes is not None:
            self._delete(reported_key(self._prefix, name))

    def trim(self, upper: int, limit: int) -> Sequence[Entry]:
        return self._removed(False, upper, limit)

    def trim_reports(self, upper: int) -> int:
        removed = self._removed(True, upper, None)
        return removed[-1].moment if removed else NEVER

    def times(self, column: int, value: bytes) -> list[int]:
        name = self._prefix + bytes((1, column)) + value
        times = self._times.get(name)
        if times is None:
            data = self._point.get(name)
            times = self._codec.unpack_times(data)
            self._times[name] = times
        return times

    def schedule(self, moment: int) -> None:
        self._session.txn.put(dated(moment, self._prefix), b"", db=self._session.tables["due"])

    def _delete(self, name: bytes) -> None:
        if self._point.set_key(name):
            self._point.delete()

    def _removed(self, is_report: bool, upper: int, limit: int | None) -> list[Entry]:
        end = log_key(self._prefix, is_report, upper, b"")
        start = len(self._prefix) + 1
        removed: list[Entry] = []
        transactions: list[bytes] = []
        self._cursor.set_range(log_key(self._prefix, is_report, 0, b""))
        while len(removed) != limit:
            name = self._cursor.key()  # empty behind the last one
            if not name or name >= end:
                break
            removed.append(self._codec.unpack(_MOMENT.unpack_from(name, start)[0], self._cursor.value()))
            transactions.append(name[start + _MOMENT.size :])
            self._cursor.delete()
        if is_report and self._plan.wanted.outcomes is not None:
            for transaction in transactions:
                self._delete(reported_key(self._prefix, transaction))
        return removed


class LmdbSession:
    """One write transaction: everything that one event changes, or nothing of it.

    cursor: walks the table of keys; point: gets and puts single records of it, which costs a cursor half of
    what it costs a transaction and leaves the walk where it is.
    """

    token = staticmethod(token)

    def __init__(
        self,
        transaction: lmdb.Transaction,
        tables: Mapping[str, Any],
        codecs: Mapping[int, EntryCodec],
        engine: Engine,
        change: int | None = None,
    ) -> None:
        """change: the number of this change of the store."""
        self.change = change
        self.txn = transaction
        self.tables = tables
        self.codecs = codecs
        self.cursor = transaction.cursor(db=tables["keys"])
        self.point = transaction.cursor(db=tables["keys"])
        self._engine = engine

    def at(self, plan: EntityPlan, key: Key) -> LmdbKeySession:
        return LmdbKeySession(self, plan, key_bytes(plan, key))

    def due(self, moment: int) -> Iterator[tuple[EntityPlan, LmdbKeySession]]:
        for name in self._expired("due", moment):
            prefix = name[_MOMENT.size :]
            plan = self._engine.plan(prefix[0])
            yield plan, LmdbKeySession(self, plan, prefix)

    def seen(self, transaction_id: str) -> Seen | None:
        name = token(transaction_id)
        data = self.txn.get(name, db=self.tables["seen"])
        if data is None:
            return None
        record = decode_counted(data)
        vector = self.txn.get(dated(record.event_time, name), db=self.tables["vectors"])
        return Seen(
            None if vector is None else decode_vector(vector),
            record.transaction(transaction_id),
            record.reported_at,
            record.is_late,
        )

    def save_vector(self, transaction: Transaction, vector: Vector, is_late: bool) -> None:
        moment, name = transaction.event_time, token(transaction.transaction_id)
        record = CountedRecord(seen_keys(transaction), moment, counted_at=self.change, is_late=is_late)
        self.txn.put(name, encode(record), db=self.tables["seen"])
        self.txn.put(dated(moment, name), encode(vector), db=self.tables["vectors"])
        old = self._expired("vectors", moment - self._engine.retention_ms)
        for expired in old:
            self.txn.put(expired, b"", db=self.tables["known"])
        if old:
            for expired in self._expired("known", moment - self._engine.remembered_ms):
                self.txn.delete(expired[_MOMENT.size :], db=self.tables["seen"])

    def mark_reported(self, transaction_id: str, known_at: int) -> None:
        name = token(transaction_id)
        record = decode_counted(self.txn.get(name, b"", db=self.tables["seen"]))
        record.reported_at, record.reported_at_change = known_at, self.change
        self.txn.put(name, encode(record), db=self.tables["seen"])

    def counted(self, transaction_id: str) -> CountedRecord | None:
        """By which changes a transaction and its report were counted."""
        data = self.txn.get(token(transaction_id), db=self.tables["seen"])
        return None if data is None else decode_counted(data)

    def _expired(self, table: str, moment: int) -> list[bytes]:
        """Takes out the oldest names of a table that are dated before the moment, a few at a time."""
        expired: list[bytes] = []
        cursor = self.txn.cursor(db=self.tables[table])
        cursor.first()
        while len(expired) < FORGOTTEN_EACH:
            name = cursor.key()  # empty behind the last one
            if not name or _MOMENT.unpack_from(name)[0] >= moment:
                break
            expired.append(name)
            cursor.delete()
        return expired
