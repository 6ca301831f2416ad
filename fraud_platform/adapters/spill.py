"""Where a decision waits that the log cannot take: in memory, and in a file outside of the log's disk.

The file lies in memory that outlives the process (/dev/shm): a killed process loses nothing, a machine that
goes down does. It holds one JSON line a record, and is emptied when the log has taken all.
Does not belong here: when the log is tried again (`serve.decider`).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from threading import Lock

import msgspec

from fraud_platform.serve.record import DecisionRecord

SHARED_MEMORY = Path("/dev/shm")
BYTES_MAX = 64 << 20
"""Some 25,000 records. What comes after them is answered, and is on no record."""
WORKERS_MAX = 64

_decode = msgspec.json.Decoder(DecisionRecord).decode


def spill_folder(state: Path) -> Path:
    """A state folder's own place in shared memory, or among the temporary files where there is none."""
    root = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    name = blake2b(str(state.resolve()).encode(), digest_size=8).hexdigest()
    return root / f"fraud-platform-{name}"


class Spill:
    """Records by transaction_id, in the order they came. Safe for several threads."""

    def __init__(self, folder: Path) -> None:
        """Takes over what a process left that is gone. One process writes one file of the folder."""
        self._lock = Lock()
        self._records: dict[str, DecisionRecord] = {}
        self._bytes = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._file = _first_free(folder)
        self._take_over()

    def put(self, record: DecisionRecord) -> bool:
        """False where it could not be written: nothing is kept of it, so that memory has its limit."""
        line = msgspec.json.encode(record) + b"\n"
        with self._lock:
            if self._bytes + len(line) > BYTES_MAX:
                return False
            try:
                written = os.write(self._file, line)
            except OSError:
                written = 0
            if written != len(line):
                os.ftruncate(self._file, self._bytes)
                return False
            self._records[record.transaction_id] = record
            self._bytes += written
            return True

    def find(self, transaction_id: str) -> DecisionRecord | None:
        return self._records.get(transaction_id)

    def discard(self, transaction_id: str) -> None:
        """The log has it."""
        if not self._records:
            return
        with self._lock:
            if self._records.pop(transaction_id, None) is not None and not self._records:
                os.ftruncate(self._file, 0)
                self._bytes = 0

    def waiting(self) -> Sequence[DecisionRecord]:
        """The oldest first."""
        if not self._records:
            return ()
        with self._lock:
            return tuple(self._records.values())

    def close(self) -> None:
        """An empty file is removed: nothing is left in shared memory of a service that has ended well."""
        if not self._records:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):
                self._path.parent.rmdir()
        os.close(self._file)

    def _take_over(self) -> None:
        """A last line that was not finished was not answered either."""
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            record = _decode(line)
            self._records[record.transaction_id] = record
        os.ftruncate(self._file, len(whole))
        self._bytes = len(whole)


def _first_free(folder: Path) -> tuple[Path, int]:
    """The first file that no process writes, so that what a dead one left is taken over first."""
    for number in range(1, WORKERS_MAX + 1):
        path = folder / f"{number}.jsonl"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        if path.exists():  # whoever had it before may have removed it in the meantime
            return path, file
        os.close(file)
    raise OSError(f"{folder}: all {WORKERS_MAX} files are being written; stop other services")
