"""What was done to the journal itself, as a hash-chained log of its own: erasures and removals.

    <state>/audit

Belongs here: writing and reading these events. Does not belong here: doing what they say (`erasure`,
`retention`). An event names a person by a digest, never by an id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from fraud_platform.adapters.decision_log import DecisionLog, read_records
from fraud_platform.adapters.decision_log_files import Removed
from fraud_platform.adapters.group_commit import SyncPolicy
from fraud_platform.adapters.sealed_records import key_of

AUDIT = "audit"


class Erasure(msgspec.Struct, frozen=True, kw_only=True, tag="erasure"):
    """persons: digests; keys: numbers of the keys that are destroyed; decisions, labels: records that are
    noise from then on; at: ms UTC."""

    key: str
    persons: tuple[str, ...]
    keys: tuple[int, ...]
    decisions: int
    labels: int
    at: int
    by: str
    reason: str


class Removal(msgspec.Struct, frozen=True, kw_only=True, tag="removal"):
    """Of a chain's beginning, as its `removed.json` says it too."""

    key: str
    log: str
    worker: str
    removed: Removed


Event = Erasure | Removal

_decode = msgspec.json.Decoder(Event).decode


def record_event(state: Path, event: Event) -> None:
    """Returns when the event is on the disk."""
    with DecisionLog.claim(state / AUDIT, sync=SyncPolicy(every=1), key_of=key_of) as log:
        log.append(event.key, msgspec.json.encode(event))


def read_events(state: Path) -> Iterator[Event]:
    for logged in read_records(state / AUDIT):
        yield _decode(logged.payload)
