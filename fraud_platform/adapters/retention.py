"""Removes old records: whole segments from a chain's beginning, so that what follows can still be checked.

A chain says in `removed.json` up to which line it was shortened, with its hash, when and by whom; the audit
trail says the same. Only what the warehouse has taken in is removed. Belongs here: which segments, and the
order of the steps. Does not belong here: the warehouse (`duckdb_monitor`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from fraud_platform.adapters.audit_trail import Removal, record_event
from fraud_platform.adapters.decision_log_files import (
    REMOVED,
    Removed,
    lines_of,
    removed_of,
    segment_path,
    segments_of,
    workers_of,
)
from fraud_platform.adapters.go_live import bases_of
from fraud_platform.adapters.journal import DECISIONS, LABELS
from fraud_platform.errors import DecisionLogError
from fraud_platform.schema import MILLISECONDS_PER_DAY

LoadedUpTo = Mapping[str, Mapping[str, int]]
"""log -> chain -> the last sequence that the warehouse has taken in."""


@dataclass(frozen=True)
class RetentionReport:
    """removed: by log and chain; bases: copies of stores that no record needs any more."""

    removed: dict[str, Removed]
    bases: int


class _Moment(msgspec.Struct):
    decided_at: int = 0
    received_at: int = 0
    store_sequence: int | None = None


class _Line(msgspec.Struct):
    clear: _Moment


_decode = msgspec.json.Decoder(_Line).decode


def retain(state: Path, loaded: LoadedUpTo, *, days: int, by: str, at: int) -> RetentionReport:
    """Removes the segments whose last record is older than so many days at `at` (ms UTC); the last segment of
    a chain stays. Safe to start again after a kill. DecisionLogError, with nothing removed, where the
    warehouse lacks a record that would go."""
    before = at - days * MILLISECONDS_PER_DAY
    planned = {
        (log, worker): plan
        for log in (DECISIONS, LABELS)
        for worker in workers_of(state / log)
        if (plan := _plan(state / log / worker, before, by, at)) is not None
    }
    for (log, worker), plan in planned.items():
        known = loaded.get(log, {}).get(worker, 0)
        if known < plan.sequence:
            raise DecisionLogError(
                f"{log}/{worker}: records {known + 1} to {plan.sequence} are not in the warehouse yet; run "
                "fraud-platform monitor, then remove them"
            )
    for (log, worker), plan in planned.items():
        record_event(state, Removal(key=f"removal {at} {log} {worker}", log=log, worker=worker, removed=plan))
        _remove(state / log / worker, plan)
    for log in (DECISIONS, LABELS):
        for worker in workers_of(state / log):
            _finish(state / log / worker)
    report = {f"{log}/{worker}": plan for (log, worker), plan in planned.items()}
    return RetentionReport(report, _drop_bases(state))


def last_removed_change(state: Path) -> int:
    """The last change of the store that was one of the removed records; 0 where nothing was removed."""
    found = [removed_of(state / log / w) for log in (DECISIONS, LABELS) for w in workers_of(state / log)]
    return max((removed.change for removed in found if removed is not None), default=0)


def _plan(chain: Path, before: int, by: str, at: int) -> Removed | None:
    known = removed_of(chain)
    start = known.sequence if known is not None else 0
    plan, change = None, known.change if known is not None else 0
    segments = [segment for segment in segments_of(chain) if segment > start]
    for number, segment in enumerate(segments[:-1], start=1):
        last, moment = b"", 0
        for line, raw in lines_of(segment_path(chain, segment)):
            clear = _decode(bytes(line.record)).clear
            moment, last, sequence = max(clear.decided_at, clear.received_at), raw, line.sequence
            change = max(change, clear.store_sequence or 0)
        if not last or moment >= before:
            break
        plan = Removed(
            sequence=sequence,
            hash=sha256(last).hexdigest(),
            segments=number,
            up_to=moment,
            change=change,
            at=at,
            by=by,
        )
    return plan


def _remove(chain: Path, plan: Removed) -> None:
    """The note first: a chain that is shorter than its note says is only not finished."""
    building = chain / f".{REMOVED}"
    with building.open("wb") as file:
        file.write(msgspec.json.encode(plan))
        file.flush()
        os.fsync(file.fileno())
    building.rename(chain / REMOVED)


def _finish(chain: Path) -> None:
    removed = removed_of(chain)
    for segment in segments_of(chain):
        if removed is not None and segment <= removed.sequence:
            segment_path(chain, segment).unlink()


def _drop_bases(state: Path) -> int:
    """A replay of what is left begins with the last store before it."""
    bases, removed = bases_of(state), last_removed_change(state)
    needed = max((change for change in bases if change <= removed), default=0)
    old = [path for change, path in bases.items() if change < needed]
    for path in old:
        shutil.rmtree(path)
    return len(old)
