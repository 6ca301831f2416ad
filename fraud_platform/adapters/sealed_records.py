"""What of a record is sealed with the key of its person, and what stays in the clear.

    {"key": "...", "person": "...", "slot": 7, "sealed": "...", "clear": {...}}

key: a keyed digest that finds the record again; person: one that stands for whose it is; slot: the number of
the key. Sealed (AES-256-GCM): the request with every id, amount, time and place, the transaction's id and the
vector. Clear: what the company answers for, whoever it was about: the action and what chose it, reasons,
rules, probability, costs, bundle, times. The chain hashes these bytes: once the key is destroyed it holds as
before, and what was sealed is noise.

Whose a record is: the customer's, or the card's where the request names no customer. A label is its
transaction's person's; one of a transaction that was not decided here names nobody and is not sealed.
"""

from __future__ import annotations

import os
from operator import attrgetter
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag

from fraud_platform.adapters.vault import NONCE_BYTES, PersonKey, Vault
from fraud_platform.errors import DecisionLogError
from fraud_platform.schema import LabelEvent, Outcome, Transaction
from fraud_platform.serve.record import ERASED, DecisionRecord, LabelRecord
from fraud_platform.serve.requests import canonical

PERSONAL = ("transaction_id", "request", "vector")
NO_SLOT = -1


class SealedRecord(msgspec.Struct, frozen=True):
    """See the module; `slot` is NO_SLOT, and `sealed` empty, where there is no key."""

    key: str
    person: str
    slot: int
    sealed: bytes
    clear: msgspec.Raw


class Opened(NamedTuple):
    """The record, and the number of the key that it was sealed with."""

    record: DecisionRecord
    slot: int


class OpenedLabel(NamedTuple):
    """As `Opened`; the transaction_id is ERASED where the person is."""

    record: LabelRecord
    slot: int


class _Personal(msgspec.Struct, frozen=True, array_like=True):
    request: Transaction
    vector: tuple[float | str | None, ...] | None


class _ClearLabel(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    source: str
    outcome: Outcome
    known_at: int
    received_at: int
    store_sequence: int | None
    transaction_id: str | None = None


_CLEAR_FIELDS = tuple(field for field in msgspec.structs.fields(DecisionRecord) if field.name not in PERSONAL)
_CLEAR_NAMES = tuple(field.name for field in _CLEAR_FIELDS)
_ClearDecision = msgspec.defstruct(
    "_ClearDecision",
    [(f.name, f.type, f.default) if f.default is msgspec.UNSET else (f.name, f.type) for f in _CLEAR_FIELDS],
    frozen=True,
)

_clear_values = attrgetter(*_CLEAR_NAMES)
_encode = msgspec.json.Encoder().encode
_decode_sealed = msgspec.json.Decoder(SealedRecord).decode
_decode_personal = msgspec.json.Decoder(_Personal).decode
_decode_clear = msgspec.json.Decoder(_ClearDecision).decode
_decode_clear_label = msgspec.json.Decoder(_ClearLabel).decode


def person_of(transaction: Transaction) -> str:
    """The name under which a person's key is kept."""
    if transaction.customer_id is not None:
        return customer(transaction.customer_id)
    return card(transaction.card_id)


def customer(customer_id: str) -> str:
    return f"customer:{customer_id}"


def card(card_id: str) -> str:
    return f"card:{card_id}"


class Sealer:
    """Turns records into the log's bytes and back, with the keys of a vault."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    def decision_key(self, transaction_id: str) -> str:
        return self.vault.digest("decision", transaction_id)

    def label_key(self, event: LabelEvent) -> str:
        """A label event has no id: its content names it."""
        return self.vault.digest("label", canonical(event).decode())

    def seal(self, record: DecisionRecord) -> tuple[str, bytes]:
        """(key, bytes) of a decision."""
        key = self.decision_key(record.transaction_id)
        owner = self.vault.key_for(person_of(record.request))
        sealed = _seal(owner, key, _encode(_Personal(record.request, record.vector)))
        clear = msgspec.Raw(_encode(_ClearDecision(*_clear_values(record))))
        return key, _encode(SealedRecord(key, owner.person, owner.slot, sealed, clear))

    def open(self, payload: bytes, transaction_id: str = ERASED) -> Opened:
        """A decision; of one whose person was erased what is left, under the id by which it was found."""
        stored = _decode_sealed(payload)
        clear = _decode_clear(stored.clear)
        owner = self.vault.key_at(stored.slot)
        if owner is None:
            request, vector = _nobody(transaction_id), None
        else:
            personal = _decode_personal(_unseal(owner, stored))
            request, vector = personal.request, personal.vector
        values = dict(zip(_CLEAR_NAMES, _clear_values(clear), strict=True))
        record = DecisionRecord(
            transaction_id=request.transaction_id, request=request, vector=vector, **values
        )
        return Opened(record, stored.slot)

    def seal_label(self, record: LabelRecord, decision: bytes | None) -> tuple[str, bytes]:
        """(key, bytes) of a label event; decision: the bytes of the decision it is about, if it is here."""
        event, key = record.event, self.label_key(record.event)
        person, slot, sealed, clear_id = "", NO_SLOT, b"", None
        if decision is None:
            clear_id = event.transaction_id
        else:
            about = _decode_sealed(decision)
            owner, person = self.vault.key_at(about.slot), about.person
            if owner is not None:
                slot, sealed = owner.slot, _seal(owner, key, event.transaction_id.encode())
        clear = _ClearLabel(
            version=record.version,
            source=event.source,
            outcome=event.outcome,
            known_at=event.known_at,
            received_at=record.received_at,
            store_sequence=record.store_sequence,
            transaction_id=clear_id,
        )
        return key, _encode(SealedRecord(key, person, slot, sealed, msgspec.Raw(_encode(clear))))

    def open_label(self, payload: bytes) -> OpenedLabel:
        stored = _decode_sealed(payload)
        clear = _decode_clear_label(stored.clear)
        transaction_id = clear.transaction_id
        if transaction_id is None:
            owner = self.vault.key_at(stored.slot) if stored.slot != NO_SLOT else None
            transaction_id = ERASED if owner is None else _unseal(owner, stored).decode()
        event = LabelEvent(
            transaction_id=transaction_id,
            source=clear.source,
            outcome=clear.outcome,
            known_at=clear.known_at,
        )
        record = LabelRecord(
            version=clear.version,
            event=event,
            received_at=clear.received_at,
            store_sequence=clear.store_sequence,
        )
        return OpenedLabel(record, stored.slot)


class _KeyOnly(msgspec.Struct, frozen=True):
    key: str


class Whose(msgspec.Struct, frozen=True):
    """Of a record's bytes, what tells whose it is."""

    key: str
    person: str
    slot: int


_decode_key = msgspec.json.Decoder(_KeyOnly).decode
whose = msgspec.json.Decoder(Whose).decode


def key_of(payload: bytes) -> str:
    """By which key a record is found; needs no vault."""
    return _decode_key(payload).key


def _seal(owner: PersonKey, key: str, content: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + owner.cipher.encrypt(nonce, content, key.encode())


def _unseal(owner: PersonKey, stored: SealedRecord) -> bytes:
    try:
        return owner.cipher.decrypt(
            stored.sealed[:NONCE_BYTES], stored.sealed[NONCE_BYTES:], stored.key.encode()
        )
    except InvalidTag as error:
        raise DecisionLogError(
            f"record {stored.key}: it was not sealed with key {stored.slot} of this vault; restore the vault "
            "that belongs to this log"
        ) from error


def _nobody(transaction_id: str) -> Transaction:
    return Transaction(
        transaction_id=transaction_id,
        event_time=0,
        card_id=ERASED,
        merchant_id=ERASED,
        amount_minor=0,
        currency="XXX",
    )
