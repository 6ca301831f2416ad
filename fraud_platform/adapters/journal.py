"""The service's journal: decisions and label events as records, in the decision logs of a state folder.

<state>/decisions  one line a decision
<state>/labels     one line a label event that was posted
<state>/observed   one line a transaction that the store counted only after it had been decided
<state>/vault      the keys of the persons whom the records are about

Belongs here: from records to the log's bytes and back, for who writes and for who reads them later.
Does not belong here: chains and segments (`decision_log`), what is sealed (`sealed_records`), what a record
holds (`serve.record`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from fraud_platform.adapters.decision_log import DecisionLog, read_records
from fraud_platform.adapters.group_commit import SyncPolicy
from fraud_platform.adapters.sealed_records import NO_SLOT, Sealer, key_of
from fraud_platform.adapters.vault import Vault
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve.record import ERASED, DecisionRecord, LabelRecord

DECISIONS = "decisions"
LABELS = "labels"
OBSERVED = "observed"
LOGS = (DECISIONS, LABELS, OBSERVED)
VAULT = "vault"


class LoggedDecision(NamedTuple):
    """A record and its place: the chain (worker), its number there and its line's hash; slot: the number of
    the key that seals it."""

    worker: str
    sequence: int
    record: DecisionRecord
    hash: str = ""
    slot: int = NO_SLOT


class LoggedLabel(NamedTuple):
    worker: str
    sequence: int
    record: LabelRecord
    hash: str = ""
    slot: int = NO_SLOT


class ObservedRecord(msgspec.Struct, frozen=True):
    """A decided transaction (by its record's key) that the store counted later, and the number of the change
    that did."""

    key: str
    store_sequence: int | None


class _Number(msgspec.Struct):
    store_sequence: int | None = None


class _Numbered(msgspec.Struct):
    key: str
    clear: _Number


_decode_numbered = msgspec.json.Decoder(_Numbered).decode


class Journal:
    """One worker's end of the logs. DecisionLogError where one is damaged or cannot be written."""

    def __init__(self, state: Path, *, sync_every: int = 0, sync_ms: int = 0) -> None:
        """sync_every: records, sync_ms: milliseconds that a power loss may cost at the most; 0 and 0 leave it
        to the operating system (see `group_commit`)."""
        sync = SyncPolicy(sync_every, sync_ms)
        self._vault = Vault(state / VAULT)
        self._sealer = Sealer(self._vault)
        force = self._vault.force
        self._decisions, self._labels, self._observed = (
            DecisionLog.claim(state / name, sync=sync, force_first=force, key_of=key_of) for name in LOGS
        )

    @property
    def worker(self) -> str:
        """The name of the chain of decisions that this process writes."""
        return self._decisions.worker

    def append(self, record: DecisionRecord) -> None:
        """Returns when the record survives the process."""
        key, payload = self._sealer.seal(record)
        self._decisions.append(key, payload, record.decided_at)

    def append_observed(self, record: DecisionRecord) -> None:
        """Notes when the store counted a decided transaction: its record in the log does not tell."""
        note = ObservedRecord(self._sealer.decision_key(record.transaction_id), record.store_sequence)
        self._observed.append(note.key, msgspec.json.encode(note), record.decided_at)

    def find(self, transaction_id: str) -> DecisionRecord | None:
        """The last record on a transaction, of any worker of this folder; None where retention removed it."""
        found = self._decisions.find(self._sealer.decision_key(transaction_id))
        return None if found is None else self._sealer.open(found, transaction_id).record

    def tail(self, count: int) -> list[DecisionRecord]:
        """The last records of this process's own chain, at most `count`, in order; none of erased persons."""
        opened = [self._sealer.open(payload).record for payload in self._decisions.tail(count)]
        return [record for record in opened if not record.is_erased]

    def append_label(self, record: LabelRecord, *, is_counted: bool = False) -> bool:
        """False where the same event was recorded before: nothing is written then, unless the store counted
        it only now. It did not know the transaction the first time, and a replay needs to know since when."""
        if not is_counted and self._labels.find(self._sealer.label_key(record.event)) is not None:
            return False
        decision = self._decisions.find(self._sealer.decision_key(record.event.transaction_id))
        key, payload = self._sealer.seal_label(record, decision)
        self._labels.append(key, payload, record.received_at)
        return True

    def close(self) -> None:
        for log in (self._decisions, self._labels, self._observed):
            log.close()
        self._vault.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_decisions(
    state: Path, after: Mapping[str, int] | None = None, *, with_erased: bool = False
) -> Iterator[LoggedDecision]:
    """Records chain by chain, in order, behind the sequence that `after` gives for a chain.

    with_erased: also those of persons who were erased (`is_erased`), of which the request is gone.
    """
    if not (state / DECISIONS).is_dir():
        return
    with reading(state) as sealer:
        for logged in read_records(state / DECISIONS, after):
            record, slot = sealer.open(logged.payload)
            if with_erased or not record.is_erased:
                yield LoggedDecision(logged.worker, logged.sequence, record, logged.hash, slot)


def read_labels(
    state: Path, after: Mapping[str, int] | None = None, *, with_erased: bool = False
) -> Iterator[LoggedLabel]:
    """As `read_decisions`, of the label events."""
    if not (state / LABELS).is_dir():
        return
    with reading(state) as sealer:
        for logged in read_records(state / LABELS, after):
            record, slot = sealer.open_label(logged.payload)
            if with_erased or record.event.transaction_id != ERASED:
                yield LoggedLabel(logged.worker, logged.sequence, record, logged.hash, slot)


def read_observed(state: Path) -> Iterator[ObservedRecord]:
    for logged in read_records(state / OBSERVED):
        yield msgspec.json.decode(logged.payload, type=ObservedRecord)


def recorded(state: Path, events: Iterable[Transaction | LabelEvent]) -> list[bool]:
    """Of each event whether the logs hold it and the number of its change of the store, which may have been
    noted later; also where its person was erased since: its key stays."""
    logs = [state / name for name in (DECISIONS, LABELS) if (state / name).is_dir()]
    asked = list(events)
    if not asked or not logs:
        return [False] * len(asked)
    with reading(state) as sealer:
        keys = [
            sealer.decision_key(one.transaction_id) if isinstance(one, Transaction) else sealer.label_key(one)
            for one in asked
        ]
    wanted = set(keys)
    lines = (_decode_numbered(logged.payload) for log in logs for logged in read_records(log))
    found = {line.key for line in lines if line.key in wanted and line.clear.store_sequence is not None}
    found |= {note.key for note in read_observed(state) if note.store_sequence is not None}
    return [key in found for key in keys]


@contextmanager
def reading(state: Path) -> Iterator[Sealer]:
    """Opens records of a state folder, beside whoever writes it."""
    with Vault(state / VAULT, is_reader=True) as vault:
        yield Sealer(vault)
