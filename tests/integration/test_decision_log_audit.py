"""Whatever is done to a log's bytes is found: attacks at random places of a real journal."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_platform.adapters.decision_log import DecisionLog
from fraud_platform.adapters.decision_log_audit import check_log, heads_of
from fraud_platform.adapters.erasure import erase_customer
from fraud_platform.adapters.journal import Journal, read_decisions
from fraud_platform.adapters.sealed_records import key_of
from fraud_platform.errors import DecisionLogError
from fraud_platform.settings import PROJECT_ROOT
from tests.records import decision

WRITER = """
import sys
from itertools import count
from pathlib import Path
from fraud_platform.adapters.erasure import erase_customer
from fraud_platform.adapters.journal import Journal, read_decisions
from tests.records import decision
with Journal(Path(sys.argv[1])) as journal:
    journal._decisions._segment_bytes = 20_000
    for number in count():
        journal.append(decision(number))
        if number == 10:
            print("ready", flush=True)
"""
RECORDS = 24
QUIET = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
    "derandomize": True,
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real log of two chains; the first has several segments."""
    state = tmp_path_factory.mktemp("real")
    fill(state, [number for number in range(RECORDS) if number % 4])
    with (state / "decisions" / "worker-1" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fill(state, range(0, RECORDS, 4))
    return state / "decisions"


def fill(state: Path, numbers: Iterable[int]) -> None:
    with Journal(state) as journal:
        journal._decisions._segment_bytes = 4000
        for number in numbers:
            journal.append(decision(number))


@pytest.fixture
def attacked(log: Path, tmp_path: Path) -> Path:
    shutil.copytree(log, tmp_path / "decisions")
    return tmp_path / "decisions"


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("worker-*/*.jsonl"))


def reset(log: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(log, folder)


def test_a_log_that_nobody_touched_is_whole(log: Path) -> None:
    anchors = heads_of(log, "decisions", at=1)
    report = check_log(log, anchors, key_of)
    assert report.findings == ()
    assert report.counts == {"worker-1": 18, "worker-2": 6}
    assert (report.anchors, report.bytes) == (2, sum(path.stat().st_size for path in segments(log)))
    assert len(segments(log)) > 4


Attack = Callable[[bytes, int, int], bytes]
ATTACKS: dict[str, Attack] = {
    "flip": lambda data, a, b: data[:a] + bytes([data[a] ^ (1 << b % 8)]) + data[a + 1 :],
    "delete": lambda data, a, b: data[:a] + data[a + 1 + b % 50 :],
    "insert": lambda data, a, b: data[:a] + bytes([b % 256]) + data[a:],
    "space": lambda data, a, b: data[:a] + b" " + data[a:],
    "cut": lambda data, a, b: data[:a],
}


@settings(max_examples=60, **QUIET)
@given(
    name=st.sampled_from(sorted(ATTACKS)),
    file=st.integers(0, 10**6),
    place=st.integers(0, 10**9),
    more=st.integers(0, 10**6),
)
def test_any_change_of_any_byte_is_found(
    log: Path, tmp_path: Path, name: str, file: int, place: int, more: int
) -> None:
    folder = tmp_path / "decisions"
    reset(log, folder)
    path = segments(folder)[file % len(segments(folder))]
    data = path.read_bytes()
    changed = ATTACKS[name](data, place % len(data), more)
    assert changed != data
    path.write_bytes(changed)
    findings = check_log(folder).findings
    assert findings
    assert path.parent.name in findings[0]
    assert "sequence" in findings[0]


@settings(max_examples=30, **QUIET)
@given(first=st.integers(0, 10**6), second=st.integers(0, 10**6), file=st.integers(0, 10**6))
def test_lines_that_changed_places_are_found(
    log: Path, tmp_path: Path, first: int, second: int, file: int
) -> None:
    folder = tmp_path / "decisions"
    reset(log, folder)
    path = segments(folder)[file % len(segments(folder))]
    lines = path.read_bytes().splitlines(keepends=True)
    one, other = first % len(lines), second % len(lines)
    lines[one], lines[other] = lines[other], lines[one]
    path.write_bytes(b"".join(lines))
    assert bool(check_log(folder).findings) is (one != other)


@pytest.mark.parametrize("number", range(5))
def test_a_missing_segment_is_found(attacked: Path, number: int) -> None:
    segments(attacked)[number].unlink()
    assert "missing" in check_log(attacked).findings[0]


def test_a_missing_chain_index_or_log_is_found(attacked: Path) -> None:
    shutil.rmtree(attacked / "worker-2")
    assert [f for f in check_log(attacked).findings if "worker-2 is missing" in f]
    shutil.rmtree(attacked / "index")
    assert "index is missing" in check_log(attacked).findings[0]
    with pytest.raises(DecisionLogError, match="no log at"):
        check_log(attacked / "elsewhere")


def test_a_file_that_does_not_belong_there_is_found(attacked: Path) -> None:
    (attacked / "worker-1" / "more.jsonl").write_text("{}")
    assert "no file of the log" in check_log(attacked).findings[0]


def test_an_index_that_leads_elsewhere_is_found(attacked: Path) -> None:
    shutil.rmtree(attacked / "index")
    with DecisionLog(attacked, "worker-1", key_of=key_of):
        pass
    with DecisionLog(attacked, "worker-2", key_of=lambda payload: "nobody"):
        pass
    findings = check_log(attacked, key_of=key_of).findings
    assert len(findings) == 6
    assert "the index does not lead to this line" in findings[0]
    assert check_log(attacked).is_whole


@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_forged_end_is_found_by_the_index_or_at_last_by_an_anchor(
    log: Path, attacked: Path, is_indexed: bool
) -> None:
    """Lines with right hashes in the place of the last ones: only a head that was kept elsewhere tells."""
    anchors = heads_of(log, "decisions", at=1)
    path = segments(attacked)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]))
    shutil.rmtree(attacked / "index")
    for worker in ("worker-1", "worker-2"):
        with DecisionLog(attacked, worker, key_of=key_of) as chain:
            if worker == "worker-2":
                for _ in range(5):
                    chain.append("k", b'{"key":"k"}')
    assert check_log(attacked, key_of=None).is_whole
    report = check_log(attacked, anchors if is_indexed else anchors[1:])
    assert "not the one that was anchored" in report.findings[0]


def test_an_end_that_was_cut_off_with_its_index_is_found_by_an_anchor(log: Path, attacked: Path) -> None:
    anchors = heads_of(log, "decisions", at=1)
    shutil.rmtree(attacked / "worker-2")
    shutil.rmtree(attacked / "index")
    with DecisionLog(attacked, "worker-1", key_of=key_of):
        pass
    assert check_log(attacked).is_whole
    assert "worker-2" in check_log(attacked, anchors).findings[0]


def test_bytes_behind_the_last_line_are_found_and_the_next_start_cuts_them_off(attacked: Path) -> None:
    path = segments(attacked)[-1]
    path.write_bytes(path.read_bytes() + b'{"sequence":')
    assert "no line" in check_log(attacked).findings[0]
    with DecisionLog(attacked, "worker-2", key_of=key_of):
        pass
    assert check_log(attacked).is_whole


def test_lines_that_no_index_knows_are_found(log: Path, attacked: Path) -> None:
    with DecisionLog(attacked, "worker-2", key_of=key_of) as chain:
        for _ in range(3):
            chain.append("k", b'{"key":"k"}')
    shutil.rmtree(attacked / "index")
    shutil.copytree(log / "index", attacked / "index")
    assert "not in the index" in check_log(attacked).findings[0]


def test_a_running_service_is_no_finding_and_may_lose_a_person(tmp_path: Path) -> None:
    """It writes, rotates and caches keys meanwhile."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        counts = []
        for number in range(12):
            report = check_log(tmp_path / "decisions", key_of=key_of)
            assert report.findings == ()
            counts.append(report.counts["worker-1"])
            if number == 5:
                erased = erase_customer(tmp_path, "anna1", by="Ada", reason="asked", at=1)
                assert erased.decisions > 3
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()  # type: ignore[union-attr]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    decided = list(read_decisions(tmp_path, with_erased=True))
    assert sum(one.record.is_erased for one in decided) >= erased.decisions
    again = {one.slot for one in decided if one.record.request.customer_id == "anna1"}
    assert again == {3}  # the person came again and has another key


def test_a_segment_holds_one_day(tmp_path: Path) -> None:
    day = 86_400_000
    with Journal(tmp_path) as journal:
        for number in range(6):
            journal.append(decision(number, decided_at=(20_000 + number // 2) * day))
        journal.append(decision(6, decided_at=20_000 * day))  # a clock that goes back begins no segment
    assert [int(path.stem) for path in segments(tmp_path / "decisions")] == [1, 3, 5]
    assert check_log(tmp_path / "decisions").is_whole
