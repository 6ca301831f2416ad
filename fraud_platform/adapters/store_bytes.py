"""Bytes that every online store keeps alike: tokens of ids, a log's entry, what is known of a transaction.

Belongs here: packing and unpacking of single values. Does not belong here: keys, tables and connections
(lmdb_session.py, redis_session.py).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import sha256
from math import isnan, nan

import msgspec

from fraud_platform.features.engine import Key, Vector
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.recent import NO_TOKEN, TOKEN_BYTES, Entry
from fraud_platform.features.state import State
from fraud_platform.schema import Transaction


class SeenRecord(msgspec.Struct, array_like=True):
    """What is kept of a transaction for labels that arrive later: its keys and event_time."""

    keys: tuple[str, str, str | None, str | None, str | None]
    event_time: int
    reported_at: int | None = None

    def transaction(self, transaction_id: str) -> Transaction:
        """A transaction with these keys and this event_time, for what a label needs to know."""
        card, merchant, customer, device, ip = self.keys
        return Transaction(
            transaction_id=transaction_id,
            event_time=self.event_time,
            amount_minor=0,
            currency="",
            card_id=card,
            merchant_id=merchant,
            customer_id=customer,
            device_id=device,
            ip_id=ip,
        )


encode = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(State).decode
decode_seen = msgspec.msgpack.Decoder(SeenRecord).decode
decode_vector = msgspec.msgpack.Decoder(Vector).decode


@lru_cache(maxsize=1 << 14)
def token(value: str) -> bytes:
    """128 bits that stand for a key or value of any length."""
    return sha256(value.encode()).digest()[:TOKEN_BYTES]


def key_bytes(plan: EntityPlan, key: Key) -> bytes:
    """The plan's number, then the key's token; columns are joined so that no two keys run together."""
    return bytes((plan.number,)) + token(joined(key))


def joined(key: Key) -> str:
    return key[0] if len(key) == 1 else "".join([f"{len(part.encode())}:{part}" for part in key])


def seen_keys(transaction: Transaction) -> tuple[str, str, str | None, str | None, str | None]:
    return (
        transaction.card_id,
        transaction.merchant_id,
        transaction.customer_id,
        transaction.device_id,
        transaction.ip_id,
    )


class EntryCodec:
    """An entry's bytes for one plan: amount, then the place, then a token for each distinct column; and those
    of `times`, how often a value is in each window."""

    def __init__(self, plan: EntityPlan) -> None:
        self._has_place = plan.has_place
        self._columns = len(plan.distinct_columns)
        self.times = struct.Struct(f"<{len(plan.windows)}i")
        self.layout = struct.Struct("<q" + "dd" * plan.has_place + f"{TOKEN_BYTES}s" * self._columns)

    def pack(self, entry: Entry) -> bytes:
        fields: list[object] = [entry.amount_minor]
        if self._has_place:
            fields += entry.place[1:] if entry.place else (nan, nan)
        fields += [value or NO_TOKEN for value in entry.values]
        return self.layout.pack(*fields)

    def unpack_times(self, data: bytes | None) -> list[int]:
        """None: the value is in no window."""
        return list(self.times.unpack(data or bytes(self.times.size)))

    def unpack(self, moment: int, data: bytes) -> Entry:
        if not data:
            return Entry(moment)
        fields = self.layout.unpack(data)
        place = None
        if self._has_place and not isnan(fields[1]):
            place = (moment, fields[1], fields[2])
        if not self._columns:
            return Entry(moment, fields[0], place)
        values = fields[-self._columns :]
        if NO_TOKEN in values:
            values = tuple([None if value == NO_TOKEN else value for value in values])
        return Entry(moment, fields[0], place, values)
