"""The decision log: append-only JSON lines, one hash chain for each worker process, found again by key.

A line is written by one write(2) before its decision is answered: a killed process loses nothing that was
answered. What a power loss may cost is set by `sync_every`. Belongs here: appending, recovery, finding.
Does not belong here: the layout of the files (`decision_log_files`), what a record means (`serve.record`).
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

from fraud_platform.adapters.decision_log_files import (
    EMPTY,
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
    verify,
)
from fraud_platform.errors import DecisionLogError

__all__ = ["DecisionLog", "LoggedRecord", "read_records", "verify"]

SEGMENT_BYTES = 64 << 20
WORKERS_MAX = 64
TAIL_SEGMENTS = 2
"""Segments that `tail` looks into."""


class ChainTakenError(DecisionLogError):
    """Another process writes this chain."""


class DecisionLog:
    """One worker's end of the log. DecisionLogError when the log is damaged or another process writes it.

    sync_every: force every so many records to the disk; 0 leaves it to the operating system.
    key_of: the key of a payload, to find records that the index lost.
    """

    def __init__(
        self,
        folder: Path,
        worker: str = "worker-1",
        *,
        sync_every: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        key_of: Callable[[bytes], str],
    ) -> None:
        if worker == INDEX or not worker.replace("-", "").isalnum():
            raise DecisionLogError(f"worker {worker!r}: a name of letters, digits and hyphens, not {INDEX!r}")
        self._chain = folder / worker
        self._worker = worker.encode()
        self._folder = folder
        self._sync_every = sync_every
        self._segment_bytes = segment_bytes
        self._chain.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._chain / "lock")
        self._index = Index(folder)
        self.head = self._recover(key_of)
        self._file = self._segment_file(self.head.segment)

    @classmethod
    def claim(cls, folder: Path, *, sync_every: int = 0, key_of: Callable[[bytes], str]) -> DecisionLog:
        """The first worker's chain that no process writes: a restarted worker goes on with its own."""
        for number in range(1, WORKERS_MAX + 1):
            try:
                return cls(folder, f"worker-{number}", sync_every=sync_every, key_of=key_of)
            except ChainTakenError:
                continue
        raise DecisionLogError(f"{folder}: all {WORKERS_MAX} chains are being written; stop other services")

    @property
    def worker(self) -> str:
        """The name of the chain that this process writes."""
        return self._worker.decode()

    def append(self, key: str, payload: bytes) -> int:
        """Write a record and return its sequence. DecisionLogError when it could not be written whole."""
        sequence = self.head.sequence + 1
        line = b'{"sequence":%d,"previous_hash":"%b","record":%b}' % (
            sequence,
            self.head.hash.encode(),
            payload,
        )
        if self.head.offset and self.head.offset + len(line) >= self._segment_bytes:
            self._rotate(sequence)
        place = (self.head.segment, self.head.offset, len(line))
        after = Head(place[0], place[1] + len(line) + 1, sequence, sha256(line).hexdigest())
        try:
            self._write(line + b"\n")
            self._index.put(key, self._worker, place, after)
        except (OSError, lmdb.Error) as error:
            os.ftruncate(self._file, self.head.offset)
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
        with segment_path(self._folder / worker, segment).open("rb") as file:
            file.seek(offset)
            return bytes(decode_line(file.read(length)).record)

    def tail(self, count: int) -> list[bytes]:
        """The last records of this chain, at most `count`, in order."""
        found: deque[bytes] = deque(maxlen=count)
        for segment in segments_of(self._chain)[-TAIL_SEGMENTS:]:
            found.extend(bytes(line.record) for line, _ in lines_of(segment_path(self._chain, segment)))
        return list(found)

    def close(self) -> None:
        os.close(self._file)
        self._index.close()
        os.close(self._lock)

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"{written} of {len(line)} bytes fitted")
        if self._sync_every and (self.head.sequence + 1) % self._sync_every == 0:
            os.fdatasync(self._file)

    def _rotate(self, sequence: int) -> None:
        os.fdatasync(self._file)
        os.close(self._file)
        self.head = Head(sequence, 0, self.head.sequence, self.head.hash)
        self._file = self._segment_file(sequence)

    def _segment_file(self, segment: int) -> int:
        path = segment_path(self._chain, segment)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _recover(self, key_of: Callable[[bytes], str]) -> Head:
        """Index what was written after the index's head, and cut off a line that was not finished."""
        head = self._index.head(self._worker) or EMPTY
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
                self._index.put(key_of(bytes(line.record)), self._worker, place, head)
            if path.stat().st_size > head.offset:
                os.truncate(path, head.offset)  # torn by a kill: it was never answered
        if head.sequence and not segment_path(self._chain, head.segment).exists():
            raise DecisionLogError(f"segment {head.segment} of {self._chain} is missing: restore it")
        return head


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
