"""The decision log: append-only JSON lines, one hash chain for each worker process, found again by key.

A line is written by one write(2) before its decision is answered: a killed process loses nothing that was
answered. What a power loss may cost is set by a `SyncPolicy` (`group_commit`). A segment holds one day and a
limited number of bytes, so that retention can remove whole ones. Belongs here: appending, recovery, finding.
Does not belong here: the layout of the files (`decision_log_files`), checking them (`decision_log_audit`),
what a record means (`serve.record`).
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType

import lmdb
import msgspec

from fraud_platform.adapters.decision_log_audit import verify
from fraud_platform.adapters.decision_log_files import (
    INDEX,
    Head,
    Index,
    LoggedRecord,
    check_link,
    decode_line,
    lines_of,
    read_records,
    segment_path,
    segments_of,
    start_of,
)
from fraud_platform.adapters.group_commit import GroupCommit, SyncPolicy
from fraud_platform.errors import DecisionLogError
from fraud_platform.schema import MILLISECONDS_PER_DAY

__all__ = ["DecisionLog", "LoggedRecord", "read_records", "verify"]

SEGMENT_BYTES = 64 << 20
WORKERS_MAX = 64
TAIL_SEGMENTS = 2
"""Segments that `tail` looks into."""


class ChainTakenError(DecisionLogError):
    """Another process writes this chain."""


class _Segment:
    """The file that is written; `force` is also called by the thread of the group commit."""

    def __init__(self, descriptor: int, force_first: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self._force_first = force_first

    def force(self) -> None:
        self._force_first()
        file = os.dup(self.descriptor)  # which no rotation closes meanwhile
        try:
            os.fdatasync(file)
        finally:
            os.close(file)


class DecisionLog:
    """One worker's end of the log. DecisionLogError when the log is damaged or another process writes it.

    sync: what a power loss may cost; force_first: makes durable what a record needs to be read, and is called
    before records are forced; key_of: the key of a payload, to find records that the index lost.
    """

    def __init__(
        self,
        folder: Path,
        worker: str = "worker-1",
        *,
        sync: SyncPolicy = SyncPolicy(),
        force_first: Callable[[], None] = lambda: None,
        segment_bytes: int = SEGMENT_BYTES,
        key_of: Callable[[bytes], str],
    ) -> None:
        if worker == INDEX or not worker.replace("-", "").isalnum():
            raise DecisionLogError(f"worker {worker!r}: a name of letters, digits and hyphens, not {INDEX!r}")
        self._chain = folder / worker
        self._worker = worker.encode()
        self._folder = folder
        self._key_of = key_of
        self._segment_bytes = segment_bytes
        self._day = 0
        self._chain.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._chain / "lock")
        self._index = Index(folder)
        self.head = self._recover()
        self._file = _Segment(self._open_segment(self.head.segment), force_first)
        self._commit = GroupCommit(sync, self._file.force)

    @classmethod
    def claim(
        cls,
        folder: Path,
        *,
        sync: SyncPolicy = SyncPolicy(),
        force_first: Callable[[], None] = lambda: None,
        key_of: Callable[[bytes], str],
    ) -> DecisionLog:
        """The first worker's chain that no process writes: a restarted worker goes on with its own."""
        for number in range(1, WORKERS_MAX + 1):
            try:
                return cls(folder, f"worker-{number}", sync=sync, force_first=force_first, key_of=key_of)
            except ChainTakenError:
                continue
        raise DecisionLogError(f"{folder}: all {WORKERS_MAX} chains are being written; stop other services")

    @property
    def worker(self) -> str:
        """The name of the chain that this process writes."""
        return self._worker.decode()

    def append(self, key: str, payload: bytes, at_ms: int = 0) -> int:
        """Write a record and return its sequence. DecisionLogError when it could not be written whole.

        at_ms: the record's moment (ms UTC); a later day than the segment's begins a segment. 0: it has none.
        """
        self._commit.room()
        sequence = self.head.sequence + 1
        line = b'{"sequence":%d,"previous_hash":"%b","record":%b}' % (
            sequence,
            self.head.hash.encode(),
            payload,
        )
        day = at_ms // MILLISECONDS_PER_DAY
        is_full = self.head.offset + len(line) >= self._segment_bytes or 0 < self._day < day
        if self.head.offset and is_full:
            self._rotate(sequence)
        self._day = max(self._day, day)
        place = (self.head.segment, self.head.offset, len(line))
        after = Head(place[0], place[1] + len(line) + 1, sequence, sha256(line).hexdigest())
        try:
            self._write(line + b"\n")
            self._commit.wrote()
            self._index.put(key, self._worker, place, after)
        except (OSError, lmdb.Error) as error:
            os.ftruncate(self._file.descriptor, self.head.offset)
            raise DecisionLogError(
                f"record {sequence} could not be written: {error}; free the disk"
            ) from error
        self.head = after
        return sequence

    def find(self, key: str) -> bytes | None:
        """The last record under this key, of any worker of this folder; None when there is none."""
        found = self._index.place(key)
        if found is None:
            return None
        worker, (segment, offset, length) = found
        try:
            with segment_path(self._folder / worker, segment).open("rb") as file:
                file.seek(offset)
                record = bytes(decode_line(file.read(length)).record)
        except FileNotFoundError:
            return None  # retention removed it
        except msgspec.MsgspecError as error:
            raise _misled(worker, segment, offset) from error
        if self._key_of(record) != key:
            raise _misled(worker, segment, offset)
        return record

    def tail(self, count: int) -> list[bytes]:
        """The last records of this chain, at most `count`, in order."""
        found: deque[bytes] = deque(maxlen=count)
        for segment in segments_of(self._chain)[-TAIL_SEGMENTS:]:
            found.extend(bytes(line.record) for line, _ in lines_of(segment_path(self._chain, segment)))
        return list(found)

    def close(self) -> None:
        self._commit.close()
        os.close(self._file.descriptor)
        self._index.close()
        os.close(self._lock)

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        written = os.write(self._file.descriptor, line)
        if written != len(line):
            raise OSError(f"{written} of {len(line)} bytes fitted")

    def _rotate(self, sequence: int) -> None:
        self._file.force()
        retired = self._file.descriptor
        self._file.descriptor = self._open_segment(sequence)
        os.close(retired)
        self.head = Head(sequence, 0, self.head.sequence, self.head.hash)

    def _open_segment(self, segment: int) -> int:
        path = segment_path(self._chain, segment)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _recover(self) -> Head:
        """Index what was written after the index's head, and cut off a line that was not finished."""
        head = self._index.head(self._worker) or start_of(self._chain)
        for segment in [s for s in segments_of(self._chain) if s >= head.segment]:
            path = segment_path(self._chain, segment)
            start = head.offset if segment == head.segment else 0
            if path.stat().st_size < start:
                raise DecisionLogError(
                    f"{path} is shorter than what was recorded: lines are missing; restore the segment, or "
                    f"remove {self._folder / INDEX} to accept the loss"
                )
            head = Head(segment, start, head.sequence, head.hash)
            for line, raw in lines_of(path, start):
                check_link(path, line, head.sequence, head.hash)
                place = (segment, head.offset, len(raw))
                digest = sha256(raw).hexdigest()
                head = Head(segment, head.offset + len(raw) + 1, line.sequence, digest)
                self._index.put(self._key_of(bytes(line.record)), self._worker, place, head)
            if path.stat().st_size > head.offset:
                os.truncate(path, head.offset)  # torn by a kill: it was never answered
        if head.sequence and not segment_path(self._chain, head.segment).exists():
            raise DecisionLogError(f"segment {head.segment} of {self._chain} is missing: restore it")
        return head


def _misled(worker: str, segment: int, offset: int) -> DecisionLogError:
    return DecisionLogError(
        f"{worker}, segment {segment}, byte {offset}: the index leads to another record; run audit verify"
    )


def _lock(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise ChainTakenError(
            f"{path.parent} is written by another process: give each worker a name"
        ) from error
    return file
