"""What a power loss may cost, told by what was forced to the disk and when."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_platform.adapters.group_commit import GroupCommit, SyncPolicy
from fraud_platform.adapters.journal import Journal
from fraud_platform.errors import DecisionLogError, SettingsError
from tests.records import decision

WAIT_S = 20


class Disk:
    """Counts what was written and what is safe; `forcing` may be held to play a slow disk."""

    def __init__(self) -> None:
        self.written = self.safe = self.forced = 0
        self.is_quick = threading.Event()
        self.is_quick.set()
        self.error: OSError | None = None

    def force(self) -> None:
        written = self.written
        assert self.is_quick.wait(WAIT_S)
        if self.error:
            raise self.error
        self.forced += 1
        self.safe = max(self.safe, written)

    def append(self, commit: GroupCommit) -> None:
        commit.room()
        self.written += 1
        commit.wrote()

    def append_all(self, commit: GroupCommit, count: int) -> None:
        for _ in range(count):
            self.append(commit)


@pytest.mark.parametrize("every", [2, 3, 10])
def test_no_more_than_so_many_records_are_ever_unforced(every: int) -> None:
    disk = Disk()
    commit = GroupCommit(SyncPolicy(every=every), disk.force)
    for _ in range(200):
        disk.append(commit)
        assert disk.written - disk.safe <= every
    commit.close()
    assert disk.safe == 200
    assert disk.forced <= 2 * 200 / every + 101


def test_with_one_each_record_is_forced_before_it_is_answered() -> None:
    disk = Disk()
    commit = GroupCommit(SyncPolicy(every=1), disk.force)
    for number in range(5):
        disk.append(commit)
        assert (disk.safe, disk.forced) == (number + 1, number + 1)
    commit.close()


def test_what_is_older_than_the_bound_is_forced_without_another_record() -> None:
    disk, done = Disk(), threading.Event()

    def force() -> None:
        disk.force()
        done.set()

    commit = GroupCommit(SyncPolicy(ms=20), force)
    disk.append(commit)
    assert done.wait(WAIT_S)
    assert disk.safe == 1
    commit.close()


def test_a_slow_disk_makes_records_wait_and_not_the_bound_grow() -> None:
    disk = Disk()
    commit = GroupCommit(SyncPolicy(every=4), disk.force)
    disk.is_quick.clear()
    writer = threading.Thread(target=lambda: [disk.append(commit) for _ in range(20)])
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    assert disk.written == 4
    disk.is_quick.set()
    writer.join(WAIT_S)
    assert not writer.is_alive()
    commit.close()
    assert disk.safe == 20


def test_nothing_is_written_while_the_disk_fails_and_it_goes_on_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fraud_platform.adapters.group_commit.WAIT_MAX_S", 0.2)
    disk = Disk()
    commit = GroupCommit(SyncPolicy(every=2), disk.force)
    disk.error = OSError("no medium")
    with pytest.raises(DecisionLogError, match="no medium"):
        disk.append_all(commit, 3)
    monkeypatch.setattr("fraud_platform.adapters.group_commit.WAIT_MAX_S", WAIT_S)
    disk.error = None
    disk.append(commit)
    commit.close()
    assert disk.safe == disk.written


@pytest.mark.parametrize(("every", "forced"), [(0, 0), (1, 10), (5, None), (100, None)])
def test_the_journal_forces_key_before_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, forced: int | None
) -> None:
    names: list[str] = []
    real: Callable[[int], None] = os.fdatasync

    def fdatasync(file: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        real(file)

    with Journal(tmp_path, sync_every=every) as journal:
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        for number in range(10):
            journal.append(decision(number))
        if every == 1:
            assert names[:2] == ["keys", "0000000000000001.jsonl"]
        counted = len([name for name in names if name.endswith(".jsonl")])
        assert forced is None or counted == forced
    in_all = [name for name in names if name == "0000000000000001.jsonl"]
    assert len(in_all) < 10 or every in (1, 5)
    assert bool(in_all) is (every > 0)


def test_a_bound_is_no_negative_number() -> None:
    with pytest.raises(SettingsError, match="0 or more"):
        SyncPolicy(every=-1)
