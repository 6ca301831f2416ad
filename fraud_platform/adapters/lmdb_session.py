"""What one event reads and writes of the LMDB store, and the bytes of it.

Belongs here: keys, records and one write transaction. Does not belong here: opening a store (lmdb.py), what
an event means (features/engine.py).

Three tables: `meta`; `seen`, transaction -> vector and its keys; and `keys`, where all of one entity's key
lies side by side, so that an event changes few pages: (plan, key), then 0 -> State; 1, column, value -> times
in each window; 2 or 3 (the stream), moment, transaction -> entry of the log. Keys and values are tokenised by
a 128-bit BLAKE2b digest, so that any length fits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from math import isnan, nan
from typing import Any

import lmdb
import msgspec

from fraud_platform.features.engine import Key, Seen
from fraud_platform.features.plan import EntityPlan, Entry
from fraud_platform.features.state import State
from fraud_platform.schema import Transaction

TABLES = ("meta", "keys", "seen")

_TOKEN_BYTES = 16
_NO_TOKEN = bytes(_TOKEN_BYTES)
_MOMENT = struct.Struct(">Q")


class SeenRecord(msgspec.Struct, array_like=True):
    """What is kept of a transaction: its vector, and its keys for labels that arrive later."""

    vector: tuple[float | str | None, ...] | None
    keys: tuple[str, str, str | None, str | None, str | None]
    reported_at: int | None = None


encode = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(State).decode
_decode_seen = msgspec.msgpack.Decoder(SeenRecord).decode


@lru_cache(maxsize=1 << 14)
def token(value: str) -> bytes:
    """128 bits that stand for a key or value of any length."""
    return blake2b(value.encode(), digest_size=_TOKEN_BYTES).digest()


def key_bytes(plan: EntityPlan, key: Key) -> bytes:
    """The plan's number, then the key's token; columns are joined so that no two keys run together."""
    joined = key[0] if len(key) == 1 else "".join(f"{len(part)}:{part}" for part in key)
    return bytes((plan.number,)) + token(joined)


def state_key(prefix: bytes) -> bytes:
    return prefix + b"\x00"


def log_key(prefix: bytes, is_report: bool, moment: int, transaction: bytes) -> bytes:
    return prefix + (b"\x03" if is_report else b"\x02") + _MOMENT.pack(moment) + transaction


def seen_keys(transaction: Transaction) -> tuple[str, str, str | None, str | None, str | None]:
    return (
        transaction.card_id,
        transaction.merchant_id,
        transaction.customer_id,
        transaction.device_id,
        transaction.ip_id,
    )


class EntryCodec:
    """An entry's bytes for one plan: amount, then the place, then a token for each distinct column."""

    def __init__(self, plan: EntityPlan) -> None:
        self._has_place = plan.has_place
        self._columns = len(plan.distinct_columns)
        self._layout = struct.Struct("<q" + "dd" * plan.has_place + f"{_TOKEN_BYTES}s" * self._columns)

    def pack(self, entry: Entry) -> bytes:
        fields: list[object] = [entry.amount_minor]
        if self._has_place:
            fields += entry.place[1:] if entry.place else (nan, nan)
        fields += [value or _NO_TOKEN for value in entry.values]
        return self._layout.pack(*fields)

    def unpack(self, moment: int, data: bytes) -> Entry:
        if not data:
            return Entry(moment)
        fields = self._layout.unpack(data)
        place = None
        if self._has_place and not isnan(fields[1]):
            place = (moment, fields[1], fields[2])
        values = tuple(None if v == _NO_TOKEN else v for v in fields[len(fields) - self._columns :])
        return Entry(moment, fields[0], place, values)


class LmdbSession:
    """One write transaction: everything that one event changes, or nothing of it."""

    def __init__(
        self, transaction: lmdb.Transaction, tables: Mapping[str, Any], codecs: Mapping[int, EntryCodec]
    ) -> None:
        self._txn = transaction
        self._keys = tables["keys"]
        self._seen_table = tables["seen"]
        self._codecs = codecs
        self._cursor = transaction.cursor(db=self._keys)
        self._key: Key | None = None
        self._plan: EntityPlan | None = None
        self._prefix = b""
        self._times: dict[bytes, list[int]] = {}

    def token(self, value: str) -> bytes:
        return token(value)

    def state(self, plan: EntityPlan, key: Key) -> State | None:
        data = self._txn.get(state_key(self._at(plan, key)), db=self._keys)
        return None if data is None else _decode_state(data)

    def save_state(self, plan: EntityPlan, key: Key, state: State) -> None:
        self._txn.put(state_key(self._at(plan, key)), encode(state), db=self._keys)
        for name, times in self._times.items():
            if any(times):
                self._txn.put(name, struct.pack(f"<{len(times)}i", *times), db=self._keys)
            else:
                self._txn.delete(name, db=self._keys)
        self._times.clear()

    def scan(self, plan: EntityPlan, key: Key, is_report: bool, lower: int, upper: int) -> Iterator[Entry]:
        prefix = self._at(plan, key)
        codec = self._codecs[plan.number]
        end = log_key(prefix, is_report, upper, b"")
        start = len(prefix) + 1
        if not self._cursor.set_range(log_key(prefix, is_report, max(lower, 0), b"")):
            return
        for name, data in self._cursor.iternext():
            if name >= end:
                return
            yield codec.unpack(_MOMENT.unpack_from(name, start)[0], data)

    def scan_back(self, plan: EntityPlan, key: Key, upper: int) -> Iterator[Entry]:
        prefix = self._at(plan, key)
        codec = self._codecs[plan.number]
        beginning = log_key(prefix, False, 0, b"")
        start = len(prefix) + 1
        is_inside = self._cursor.set_range(log_key(prefix, False, upper, b""))
        if not (self._cursor.prev() if is_inside else self._cursor.last()):
            return
        for name, data in self._cursor.iterprev():
            if name < beginning:
                return
            yield codec.unpack(_MOMENT.unpack_from(name, start)[0], data)

    def append(self, plan: EntityPlan, key: Key, is_report: bool, transaction_id: str, entry: Entry) -> None:
        data = b"" if is_report else self._codecs[plan.number].pack(entry)
        name = log_key(self._at(plan, key), is_report, entry.moment, token(transaction_id))
        self._txn.put(name, data, db=self._keys)

    def remove_report(self, plan: EntityPlan, key: Key, transaction_id: str, known_at: int) -> None:
        name = log_key(self._at(plan, key), True, known_at, token(transaction_id))
        self._txn.delete(name, db=self._keys)

    def count(self, plan: EntityPlan, key: Key, column: int, value: bytes, window: int, delta: int) -> int:
        name = self._at(plan, key) + bytes((1, column)) + value
        times = self._times.get(name)
        if times is None:
            data = self._txn.get(name, db=self._keys)
            width = len(plan.windows)
            times = list(struct.unpack(f"<{width}i", data)) if data else [0] * width
            self._times[name] = times
        times[window] += delta
        return times[window]

    def _at(self, plan: EntityPlan, key: Key) -> bytes:
        """key_bytes of the key in hand: the engine deals with one after the other."""
        if key is not self._key or plan is not self._plan:
            self._key, self._plan, self._prefix = key, plan, key_bytes(plan, key)
        return self._prefix

    def seen(self, transaction_id: str) -> Seen | None:
        record = self._seen(transaction_id)
        if record is None:
            return None
        card, merchant, customer, device, ip = record.keys
        keys = Transaction(
            transaction_id=transaction_id,
            event_time=0,
            amount_minor=0,
            currency="",
            card_id=card,
            merchant_id=merchant,
            customer_id=customer,
            device_id=device,
            ip_id=ip,
        )
        return Seen(record.vector, keys, record.reported_at)

    def save_vector(self, transaction: Transaction, vector: tuple[float | str | None, ...]) -> None:
        self._save_seen(transaction.transaction_id, SeenRecord(vector, seen_keys(transaction)))

    def mark_reported(self, transaction_id: str, known_at: int) -> None:
        record = self._seen(transaction_id)
        if record is not None:
            record.reported_at = known_at
            self._save_seen(transaction_id, record)

    def _seen(self, transaction_id: str) -> SeenRecord | None:
        data = self._txn.get(token(transaction_id), db=self._seen_table)
        return None if data is None else _decode_seen(data)

    def _save_seen(self, transaction_id: str, record: SeenRecord) -> None:
        self._txn.put(token(transaction_id), encode(record), db=self._seen_table)
