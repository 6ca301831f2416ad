"""Checks a decision log: every byte of every segment, the ends, the index, and heads kept elsewhere.

A changed, missing, added or reordered byte breaks the chain at the line behind it. What was cut off or added
at an end is betrayed by the index's head; the index lies on the same disk, so whoever may change both is only
betrayed by an anchor: a head that was kept elsewhere. Belongs here: looking. Does not belong here: repairing
(`decision_log`), what a record means (`serve.record`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec

from fraud_platform.adapters.decision_log_files import (
    GENESIS,
    INDEX,
    Head,
    Index,
    Removed,
    check_link,
    lines_of,
    removed_of,
    segment_path,
    segments_of,
    strangers_of,
    workers_of,
)
from fraud_platform.errors import DecisionLogError

FINDINGS_MAX = 20
UNFINISHED_S = 0.5
"""How long a line may take to be written by a running service."""

KeyOf = Callable[[bytes], str]


class Anchor(msgspec.Struct, frozen=True):
    """A chain's head at a moment (ms UTC), to be kept where the log is not."""

    log: str
    worker: str
    sequence: int
    hash: str
    at: int


@dataclass(frozen=True)
class LogReport:
    """What a check looked at, and what it found wrong, chain by chain; `removed`: by retention.

    counts: lines by chain; anchors: how many were met; behind: how many lie in what retention removed.
    """

    counts: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    findings: tuple[str, ...] = ()
    removed: dict[str, Removed] = field(default_factory=dict)
    anchors: int = 0
    behind: int = 0

    @property
    def is_whole(self) -> bool:
        return not self.findings


def verify(folder: Path) -> dict[str, int]:
    """Lines by chain, when every chain is whole. DecisionLogError names the first place that is not."""
    report = check_log(folder)
    if report.findings:
        raise DecisionLogError(report.findings[0])
    return report.counts


def check_log(folder: Path, anchors: Iterable[Anchor] = (), key_of: KeyOf | None = None) -> LogReport:
    """Looks at everything; a running service may go on writing.

    key_of: the key of a payload; every line is then looked up in the index too. DecisionLogError where there
    is no log.
    """
    if not folder.is_dir():
        raise DecisionLogError(f"no log at {folder}: give the state folder of a service")
    wanted: dict[str, dict[int, str]] = {}
    for anchor in anchors:
        wanted.setdefault(anchor.worker, {})[anchor.sequence] = anchor.hash
    workers = workers_of(folder)
    if not (folder / INDEX).is_dir():
        if not workers and not wanted:
            return LogReport()
        return _merged(
            [_Chain(folder, worker, None, wanted, None).check() for worker in workers],
            [
                f"{folder}: the index is missing, and nothing else tells where the chains ended; start "
                "the service, which makes it anew, and compare with an anchor"
            ],
        )
    index = Index(folder, is_readonly=True)
    try:
        known = sorted({*workers, *index.heads(), *wanted})
        return _merged([_Chain(folder, worker, index, wanted, key_of).check() for worker in known], [])
    finally:
        index.close()


def heads_of(folder: Path, log: str, at: int) -> list[Anchor]:
    """The present head of every chain, as anchors."""
    if not (folder / INDEX).is_dir():
        return []
    index = Index(folder, is_readonly=True)
    heads = index.heads()
    index.close()
    return [Anchor(log, worker, head.sequence, head.hash, at) for worker, head in sorted(heads.items())]


class _Chain:
    """One chain, looked at once."""

    def __init__(
        self,
        folder: Path,
        worker: str,
        index: Index | None,
        wanted: dict[str, dict[int, str]],
        key_of: KeyOf | None,
    ) -> None:
        self._chain = folder / worker
        self._worker = worker
        self._index = index
        self._anchors = dict(wanted.get(worker, {}))
        self._key_of = key_of if index is not None else None
        self._findings: list[str] = []
        self._sequence, self._hash = 0, GENESIS
        self._count = self._bytes = self._met = self._behind = 0
        self._recorded: Head | None = None
        self._is_recorded_met = False

    def check(self) -> LogReport:
        removed = self._start()
        # What is written from here on is not looked at: it may be half there.
        self._recorded = self._head()
        segments = segments_of(self._chain) if self._chain.is_dir() else []
        if not self._chain.is_dir():
            self._find(f"chain {self._chain} is missing")
        for stranger in strangers_of(self._chain):
            self._find(f"{stranger} is no file of the log")
        try:
            for segment in segments:
                self._check_segment(segment, is_last=segment == segments[-1])
        except DecisionLogError as error:
            # Behind it nothing can be told: the chain is broken there.
            place = "" if "sequence" in str(error) else f", behind sequence {self._sequence}"
            self._find(f"{error}{place}")
        else:
            self._check_end()
            for sequence in sorted(self._anchors):
                self._find(f"{self._chain}, sequence {sequence}: an anchor knows this line, it is missing")
        return LogReport(
            counts={self._worker: self._sequence},
            bytes=self._bytes,
            findings=tuple(self._findings),
            removed={} if removed is None else {self._worker: removed},
            anchors=self._met,
            behind=self._behind,
        )

    def _start(self) -> Removed | None:
        """Where the chain begins: at its first line, or behind what retention removed."""
        try:
            removed = removed_of(self._chain)
        except msgspec.MsgspecError as error:
            self._find(f"{self._chain}: what retention removed cannot be read: {error}")
            return None
        if removed is not None:
            self._sequence, self._hash = removed.sequence, removed.hash
            self._compare_anchor(removed.sequence, removed.hash)
            for sequence in [one for one in self._anchors if one < removed.sequence]:
                del self._anchors[sequence]
                self._behind += 1
        return removed

    def _check_segment(self, segment: int, *, is_last: bool) -> None:
        path = segment_path(self._chain, segment)
        if segment <= self._sequence and not self._count:
            self._find(f"{path} is before sequence {self._sequence}: a removal was stopped, do it again")
            return
        if segment != self._sequence + 1:
            raise DecisionLogError(
                f"{path} follows sequence {self._sequence}: lines from {self._sequence + 1} on are missing"
            )
        end = 0
        for line, raw in lines_of(path):
            check_link(path, line, self._sequence, self._hash)
            place = (segment, end, len(raw))
            end += len(raw) + 1
            self._sequence, self._hash = line.sequence, sha256(raw).hexdigest()
            self._count += 1
            self._compare_anchor(self._sequence, self._hash)
            if self._recorded is not None and self._recorded.sequence == self._sequence:
                self._is_recorded_met = True
                if self._recorded.hash != self._hash:
                    raise DecisionLogError(
                        f"{path}, sequence {self._sequence}: the last known line was changed"
                    )
            self._check_key(path, bytes(line.record), place)
        self._bytes += end
        if path.stat().st_size > end and (not is_last or self._is_unfinished(path, end)):
            raise DecisionLogError(
                f"{path}, behind sequence {self._sequence}: bytes that are no line; if a service was killed "
                "here its next start cuts them off"
            )

    def _is_unfinished(self, path: Path, end: int) -> bool:
        """Whether a line stays unfinished: a running service finishes it at once."""
        size = path.stat().st_size
        time.sleep(UNFINISHED_S)
        head, segment = self._head(), int(path.stem)
        is_indexed = head is not None and (head.segment, head.offset) > (segment, end)
        return path.stat().st_size == size and not is_indexed

    def _check_end(self) -> None:
        recorded = self._recorded
        if self._index is None:
            return
        if recorded is not None and recorded.sequence > self._sequence:
            self._find(
                f"{self._chain} ends at sequence {self._sequence}, {recorded.sequence} was recorded: "
                "lines are missing"
            )
        now = self._head()
        known = now.sequence if now is not None else 0
        if self._sequence > known + 1:
            self._find(
                f"{self._chain}, sequence {known + 1}: lines up to {self._sequence} are not in the index; if "
                "the machine lost its power the service's next start takes them in; compare with an anchor"
            )

    def _check_key(self, path: Path, payload: bytes, place: tuple[int, int, int]) -> None:
        if self._index is None or self._key_of is None:
            return
        found = self._index.place(self._key_of(payload))
        is_later = found is not None and (found[0] != self._worker or found[1] >= place)
        is_known = self._recorded is not None and self._sequence <= self._recorded.sequence
        if is_known and not is_later:
            self._find(f"{path}, sequence {self._sequence}: the index does not lead to this line")

    def _compare_anchor(self, sequence: int, digest: str) -> None:
        anchored = self._anchors.pop(sequence, None)
        if anchored is None:
            return
        self._met += 1
        if anchored != digest:
            self._find(f"{self._chain}, sequence {sequence}: this line is not the one that was anchored")

    def _head(self) -> Head | None:
        return None if self._index is None else self._index.head(self._worker.encode())

    def _find(self, finding: str) -> None:
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(finding)


def _merged(reports: list[LogReport], findings: list[str]) -> LogReport:
    return LogReport(
        counts={worker: count for report in reports for worker, count in report.counts.items()},
        bytes=sum(report.bytes for report in reports),
        findings=(*findings, *(finding for report in reports for finding in report.findings)),
        removed={worker: one for report in reports for worker, one in report.removed.items()},
        anchors=sum(report.anchors for report in reports),
        behind=sum(report.behind for report in reports),
    )
