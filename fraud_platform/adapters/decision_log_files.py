"""The decision log's files: lines, segments, the chain of hashes, the index; reading them.

    <folder>/<worker>/<first sequence>.jsonl   {"sequence": 7, "previous_hash": "...", "record": {...}}
    <folder>/<worker>/removed.json             up to where retention has removed the chain, and who did it
    <folder>/index/                            LMDB: key -> place of its line; worker -> the chain's head

The hash of a line is the SHA-256 of its bytes without the newline; a chain's first line follows 64 zeros.
Does not belong here: writing lines (`decision_log`), checking them (`decision_log_audit`), what a record
means (`serve.record`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import NamedTuple

import lmdb
import msgspec

from fraud_platform.errors import DecisionLogError

INDEX = "index"
REMOVED = "removed.json"
OWN_FILE = re.compile(r"lock|\.?removed\.json|\d{16}\.jsonl")
GENESIS = "0" * 64
INDEX_MAP_BYTES = 1 << 36
"""Address space, not disk."""

_PLACE = struct.Struct(">QQI")  # segment's first sequence, offset, length
_HEAD = struct.Struct(">QQQ32s")  # segment's first sequence, end offset, sequence, hash


class Line(msgspec.Struct):
    """One line: `record` is its JSON as it was written."""

    sequence: int
    previous_hash: str
    record: msgspec.Raw


@dataclass(frozen=True)
class LoggedRecord:
    """hash: of its line."""

    worker: str
    sequence: int
    payload: bytes
    hash: str


@dataclass(frozen=True)
class Head:
    """Where a chain ends: the last line's sequence and hash, and the place behind it."""

    segment: int
    offset: int
    sequence: int
    hash: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What retention took off a chain's beginning: everything up to `sequence`, whose line had `hash`.

    segments: how many files; up_to: the last record's moment; change: the last change of the store that one
    of them was; at: when (ms UTC).
    """

    sequence: int
    hash: str
    segments: int
    up_to: int
    change: int
    at: int
    by: str


EMPTY = Head(segment=1, offset=0, sequence=0, hash=GENESIS)
decode_line = msgspec.json.Decoder(Line).decode


class Index:
    """key -> worker and place of its last line; worker -> head of its chain. Shared by the workers."""

    def __init__(self, folder: Path, *, is_readonly: bool = False) -> None:
        self._env = lmdb.open(
            str(folder / INDEX),
            map_size=INDEX_MAP_BYTES,
            max_dbs=2,
            sync=False,
            metasync=False,
            readonly=is_readonly,
        )
        self._keys = self._env.open_db(b"keys")
        self._heads = self._env.open_db(b"heads")

    def put(self, key: str, worker: bytes, place: tuple[int, int, int], head: Head) -> None:
        packed = _HEAD.pack(head.segment, head.offset, head.sequence, bytes.fromhex(head.hash))
        with self._env.begin(write=True) as transaction:
            transaction.put(_digest(key), _PLACE.pack(*place) + worker, db=self._keys)
            transaction.put(worker, packed, db=self._heads)

    def place(self, key: str) -> tuple[str, tuple[int, int, int]] | None:
        with self._env.begin() as transaction:
            found = transaction.get(_digest(key), db=self._keys)
        if found is None:
            return None
        segment, offset, length = _PLACE.unpack_from(found)
        return bytes(found[_PLACE.size :]).decode(), (segment, offset, length)

    def head(self, worker: bytes) -> Head | None:
        with self._env.begin() as transaction:
            found = transaction.get(worker, db=self._heads)
        if found is None:
            return None
        segment, offset, sequence, digest = _HEAD.unpack(found)
        return Head(segment, offset, sequence, digest.hex())

    def heads(self) -> dict[str, Head]:
        """Of every chain that was ever written here."""
        with self._env.begin() as transaction:
            workers = [bytes(worker) for worker, _ in transaction.cursor(db=self._heads)]
        return {worker.decode(): head for worker in workers if (head := self.head(worker)) is not None}

    def close(self) -> None:
        self._env.close()


class Place(NamedTuple):
    """Where a line lies."""

    worker: str
    segment: int
    offset: int
    length: int


def read_places(folder: Path) -> Iterator[tuple[Place, bytes]]:
    """Every record's payload and the place of its line, chain by chain."""
    for worker in workers_of(folder):
        for segment in segments_of(folder / worker):
            offset = 0
            for line, raw in lines_of(segment_path(folder / worker, segment)):
                yield Place(worker, segment, offset, len(raw)), bytes(line.record)
                offset += len(raw) + 1


def read_at(folder: Path, place: Place) -> bytes:
    """The payload of the line at a place."""
    with segment_path(folder / place.worker, place.segment).open("rb") as file:
        file.seek(place.offset)
        return bytes(decode_line(file.read(place.length)).record)


def read_records(folder: Path, after: Mapping[str, int] | None = None) -> Iterator[LoggedRecord]:
    """Records in order, worker by worker, behind the sequence that `after` gives for a worker.

    A line that is still being written is left for the next time. Reads only; a live log may be read.
    """
    for worker in workers_of(folder):
        known = (after or {}).get(worker, 0)
        segments = segments_of(folder / worker)
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            if following is not None and following <= known + 1:
                continue
            for line, raw in lines_of(segment_path(folder / worker, segment)):
                if line.sequence > known:
                    yield LoggedRecord(worker, line.sequence, bytes(line.record), sha256(raw).hexdigest())


def check_link(path: Path, line: Line, sequence: int, digest: str) -> None:
    if line.sequence != sequence + 1:
        raise DecisionLogError(f"{path}: sequence {line.sequence} follows {sequence}; lines are missing")
    if line.previous_hash != digest:
        raise DecisionLogError(f"{path}, sequence {sequence}: this line was changed after it was written")


def lines_of(path: Path, start: int = 0) -> Iterator[tuple[Line, bytes]]:
    """Whole lines and their bytes without the newline. DecisionLogError for a whole line that is no line."""
    with path.open("rb") as file:
        file.seek(start)
        for number, raw in enumerate(file):
            if not raw.endswith(b"\n"):
                return
            try:
                yield decode_line(raw), raw[:-1]
            except msgspec.MsgspecError as error:
                raise DecisionLogError(f"{path}, line {number + 1} of {start}..: {error}") from error


def start_of(chain: Path) -> Head:
    """Where a chain begins that no index knows: at its first line, or behind what retention removed."""
    removed = removed_of(chain)
    return EMPTY if removed is None else Head(removed.sequence + 1, 0, removed.sequence, removed.hash)


def workers_of(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != INDEX)


def removed_of(chain: Path) -> Removed | None:
    """What retention has removed of a chain; None where it is whole."""
    path = chain / REMOVED
    return msgspec.json.decode(path.read_bytes(), type=Removed) if path.is_file() else None


def segments_of(chain: Path) -> list[int]:
    return sorted(int(path.stem) for path in chain.glob("*.jsonl") if path.stem.isdecimal())


def strangers_of(chain: Path) -> list[Path]:
    """Files in a chain's folder that are none of the log's."""
    return sorted(path for path in chain.glob("*") if not OWN_FILE.fullmatch(path.name))


def segment_path(chain: Path, segment: int) -> Path:
    return chain / f"{segment:016d}.jsonl"


def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=16).digest()
