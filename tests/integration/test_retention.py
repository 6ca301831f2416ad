"""Old segments go, what follows can still be checked, and nothing goes that the warehouse lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from fraud_platform.adapters.audit import check_state, heads
from fraud_platform.adapters.decision_log_files import REMOVED, removed_of
from fraud_platform.adapters.journal import Journal, read_decisions
from fraud_platform.adapters.retention import retain
from fraud_platform.errors import DecisionLogError
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from tests.records import decision, label

FIRST_DAY = 20_000
ALL = {"decisions": {"worker-1": 100}, "labels": {"worker-1": 100}}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Ten days with two decisions each, and a label on the first."""
    fill(tmp_path, range(20))
    with Journal(tmp_path) as journal:
        journal.append_label(label(1, known_at=FIRST_DAY * DAY))
    return tmp_path


def fill(state: Path, numbers: range) -> None:
    with Journal(state) as journal:
        for number in numbers:
            journal.append(decision(number, decided_at=(FIRST_DAY + number // 2) * DAY))


def removed(state: Path, days: int, loaded: dict[str, dict[str, int]] | None = None) -> dict[str, int]:
    report = retain(state, loaded or ALL, days=days, by="Ada", at=(FIRST_DAY + 10) * DAY)
    return {chain: one.sequence for chain, one in report.removed.items()}


def test_whole_segments_go_and_the_rest_is_whole(state: Path) -> None:
    before = heads(state, at=1)
    assert removed(state, days=6) == {"decisions/worker-1": 8}
    found = check_state(state, before)
    assert found.is_whole, found.findings
    assert [line for line in found.lines() if "up to sequence 8 removed by Ada" in line]
    assert [one.record.transaction_id for one in read_decisions(state)] == [f"t{n}" for n in range(8, 20)]
    with Journal(state) as journal:
        assert (journal.find("t7"), journal.find("t8")) == (None, read(state, "t8"))
    fill(state, range(20, 24))
    assert removed(state, days=4) == {"decisions/worker-1": 12}
    assert check_state(state, before).is_whole
    assert removed(state, days=4) == {}


def read(state: Path, transaction_id: str) -> object:
    return next(one.record for one in read_decisions(state) if one.record.transaction_id == transaction_id)


def test_the_last_segment_stays_however_old(state: Path) -> None:
    assert removed(state, days=1) == {"decisions/worker-1": 18}
    assert len(list(read_decisions(state))) == 2


def test_nothing_goes_that_the_warehouse_lacks(state: Path) -> None:
    with pytest.raises(DecisionLogError, match="records 4 to 8 are not in the warehouse yet"):
        removed(state, days=6, loaded={"decisions": {"worker-1": 3}})
    assert len(list(read_decisions(state))) == 20
    assert check_state(state).is_whole


def test_an_anchor_in_what_was_removed_is_told_and_one_behind_it_still_counts(state: Path) -> None:
    old = heads(state, at=1)
    fill(state, range(20, 30))
    new = heads(state, at=2)
    retain(state, ALL, days=1, by="Ada", at=(FIRST_DAY + 13) * DAY)
    report = check_state(state, [*old, *new]).logs["decisions"]
    assert (report.findings, report.behind, report.anchors) == ((), 1, 1)


def test_a_removal_that_was_killed_is_finished(state: Path, tmp_path: Path) -> None:
    chain = state / "decisions" / "worker-1"
    kept = shutil.copytree(chain, tmp_path / "kept")
    removed(state, days=6)
    for path in kept.glob("*.jsonl"):
        shutil.copy(path, chain)
    assert "a removal was stopped" in check_state(state).findings[0]
    assert removed(state, days=6) == {}
    assert check_state(state).is_whole


def test_a_removal_that_nobody_told_of_is_found(state: Path, tmp_path: Path) -> None:
    """Segments deleted by hand, with a note that makes the chain look shortened on purpose."""
    chain = state / "decisions" / "worker-1"
    with pytest.raises(StopIteration):
        next(iter(removed(shutil.copytree(state, tmp_path / "other"), days=100)))
    removed(tmp_path / "other", days=6)
    note = removed_of(tmp_path / "other" / "decisions" / "worker-1")
    (chain / REMOVED).write_bytes(msgspec.json.encode(note))
    for path in sorted(chain.glob("*.jsonl"))[:4]:
        path.unlink()
    assert "tells of no removal" in check_state(state).findings[0]


def test_a_chain_that_was_shortened_goes_on_without_its_index(state: Path) -> None:
    removed(state, days=6)
    shutil.rmtree(state / "decisions" / "index")
    fill(state, range(20, 22))
    assert check_state(state).is_whole
    with Journal(state) as journal:
        assert journal.find("t9") == read(state, "t9")
