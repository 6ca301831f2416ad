"""The service's journal: decisions and label events as records, in the decision logs of a state folder.

<state>/decisions  one line a decision
<state>/labels     one line a label event that was posted
<state>/observed   one line a transaction that the store counted only after it had been decided

Belongs here: from records to the log's bytes and back, for who writes and for who reads them later.
Does not belong here: chains and segments (`decision_log`), what a record holds (`serve.record`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from fraud_platform.adapters.decision_log import DecisionLog, read_records
from fraud_platform.schema import LabelEvent
from fraud_platform.serve.record import DecisionRecord, LabelRecord
from fraud_platform.serve.requests import canonical

DECISIONS = "decisions"
LABELS = "labels"
OBSERVED = "observed"

decode_decision = msgspec.json.Decoder(DecisionRecord).decode
decode_label = msgspec.json.Decoder(LabelRecord).decode


class LoggedDecision(NamedTuple):
    """A record and its place: the chain (worker) and its number there."""

    worker: str
    sequence: int
    record: DecisionRecord


class LoggedLabel(NamedTuple):
    worker: str
    sequence: int
    record: LabelRecord


class ObservedRecord(msgspec.Struct, frozen=True):
    """A decided transaction that the store counted later, and the number of the change that did."""

    transaction_id: str
    store_sequence: int | None


class Journal:
    """One worker's end of both logs. DecisionLogError where one is damaged or cannot be written."""

    def __init__(self, state: Path, *, sync_every: int = 0) -> None:
        """sync_every: force every so many records to the disk; 0 leaves it to the operating system."""
        self._decisions = DecisionLog.claim(state / DECISIONS, sync_every=sync_every, key_of=decision_key)
        self._labels = DecisionLog.claim(state / LABELS, sync_every=sync_every, key_of=label_key)
        self._observed = DecisionLog.claim(state / OBSERVED, sync_every=sync_every, key_of=observed_key)

    @property
    def worker(self) -> str:
        """The name of the chain of decisions that this process writes."""
        return self._decisions.worker

    def append(self, record: DecisionRecord) -> None:
        """Returns when the record survives the process."""
        self._decisions.append(record.transaction_id, msgspec.json.encode(record))

    def append_observed(self, record: DecisionRecord) -> None:
        """Notes when the store counted a decided transaction: its record in the log does not tell."""
        note = ObservedRecord(record.transaction_id, record.store_sequence)
        self._observed.append(note.transaction_id, msgspec.json.encode(note))

    def find(self, transaction_id: str) -> DecisionRecord | None:
        """The last record on a transaction, of any worker of this folder."""
        found = self._decisions.find(transaction_id)
        return None if found is None else decode_decision(found)

    def tail(self, count: int) -> list[DecisionRecord]:
        """The last records of this process's own chain, at most `count`, in order."""
        return [decode_decision(payload) for payload in self._decisions.tail(count)]

    def append_label(self, record: LabelRecord) -> bool:
        """False where the same event was recorded before: nothing is written then."""
        key = _label_key(record.event)
        if self._labels.find(key) is not None:
            return False
        self._labels.append(key, msgspec.json.encode(record))
        return True

    def close(self) -> None:
        self._decisions.close()
        self._labels.close()
        self._observed.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_decisions(state: Path, after: Mapping[str, int] | None = None) -> Iterator[LoggedDecision]:
    """Records chain by chain, in order, behind the sequence that `after` gives for a chain."""
    for logged in read_records(state / DECISIONS, after):
        yield LoggedDecision(logged.worker, logged.sequence, decode_decision(logged.payload))


def read_labels(state: Path, after: Mapping[str, int] | None = None) -> Iterator[LoggedLabel]:
    """As `read_decisions`, of the label events."""
    for logged in read_records(state / LABELS, after):
        yield LoggedLabel(logged.worker, logged.sequence, decode_label(logged.payload))


def read_observed(state: Path) -> Iterator[ObservedRecord]:
    for logged in read_records(state / OBSERVED):
        yield msgspec.json.decode(logged.payload, type=ObservedRecord)


def observed_key(payload: bytes) -> str:
    return msgspec.json.decode(payload, type=ObservedRecord).transaction_id


def decision_key(payload: bytes) -> str:
    return decode_decision(payload).transaction_id


def label_key(payload: bytes) -> str:
    return _label_key(decode_label(payload).event)


def _label_key(event: LabelEvent) -> str:
    """A label event has no id: its content names it."""
    return canonical(event).decode()
