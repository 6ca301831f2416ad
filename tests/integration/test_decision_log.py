from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fraud_platform.adapters.decision_log import DecisionLog, read_records, verify
from fraud_platform.errors import DecisionLogError

WRITER = """
import sys
from pathlib import Path
from fraud_platform.adapters.decision_log import DecisionLog
key_of = lambda payload: payload.decode().split('"')[3]
log = DecisionLog(Path(sys.argv[1]), segment_bytes=5000, key_of=key_of)
number = log.head.sequence
while True:
    number += 1
    log.append(f"t{number}", b'{"transaction_id":"t%d","filler":"%b"}' % (number, b"x" * 200))
    print(number, flush=True)
"""


def key_of(payload: bytes) -> str:
    return msgspec.json.decode(payload)["transaction_id"]


def payload(number: int) -> bytes:
    return msgspec.json.encode({"transaction_id": f"t{number}", "value": number})


def fill(folder: Path, numbers: range, segment_bytes: int = 400) -> None:
    with DecisionLog(folder, segment_bytes=segment_bytes, key_of=key_of) as log:
        for number in numbers:
            log.append(f"t{number}", payload(number))


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "worker-1").glob("*.jsonl"))


def test_what_was_appended_is_found_read_and_verified(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 11))
    fill(tmp_path, range(11, 21))
    assert len(segments(tmp_path)) > 3
    records = list(read_records(tmp_path))
    assert [record.payload for record in records] == [payload(n) for n in range(1, 21)]
    assert verify(tmp_path) == {"worker-1": 20}
    with DecisionLog(tmp_path, key_of=key_of) as log:
        assert [log.find(f"t{n}") for n in (1, 11, 20)] == [payload(1), payload(11), payload(20)]
        assert log.find("t21") is None


@pytest.mark.parametrize("known", range(11))
def test_reading_goes_on_where_it_ended(tmp_path: Path, known: int) -> None:
    fill(tmp_path, range(1, 11))
    rest = list(read_records(tmp_path, after={"worker-1": known}))
    assert [record.sequence for record in rest] == list(range(known + 1, 11))


@pytest.mark.parametrize("torn", [b"{", b'{"sequence":6,"previous_hash":"', b'{"sequence":6}'])
def test_a_torn_last_line_is_cut_off_and_the_chain_goes_on(tmp_path: Path, torn: bytes) -> None:
    fill(tmp_path, range(1, 6))
    with segments(tmp_path)[-1].open("ab") as file:
        file.write(torn)
    assert len(list(read_records(tmp_path))) == 5
    fill(tmp_path, range(6, 8))
    assert verify(tmp_path) == {"worker-1": 7}


def test_lines_that_the_index_lost_are_found_again(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 6))
    for file in (tmp_path / "index").iterdir():
        file.unlink()
    with DecisionLog(tmp_path, key_of=key_of) as log:
        assert log.find("t3") == payload(3)
        assert log.append("t6", payload(6)) == 6
    assert verify(tmp_path) == {"worker-1": 6}


@pytest.mark.parametrize("number", range(1, 6))
def test_a_changed_byte_is_found_wherever_it_is(tmp_path: Path, number: int) -> None:
    fill(tmp_path, range(1, 6), segment_bytes=1 << 20)
    path = segments(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b'"value":%d' % number, b'"value":9'))
    with pytest.raises(DecisionLogError, match=f"sequence {number}: .* changed"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("order", "message"),
    [([0, 2, 1, 3, 4], "3 follows 1"), ([0, 1, 3, 4], "4 follows 2"), ([0, 1, 2], "ends at sequence 3")],
)
def test_reordered_and_missing_lines_are_found(tmp_path: Path, order: list[int], message: str) -> None:
    fill(tmp_path, range(1, 6), segment_bytes=1 << 20)
    path = segments(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[place] for place in order))
    with pytest.raises(DecisionLogError, match=message):
        verify(tmp_path)


def test_a_log_that_lost_its_end_is_not_continued(tmp_path: Path) -> None:
    fill(tmp_path, range(1, 6), segment_bytes=1 << 20)
    os.truncate(segments(tmp_path)[0], 100)
    with pytest.raises(DecisionLogError, match="lines are missing"):
        DecisionLog(tmp_path, key_of=key_of)


def test_a_record_that_does_not_fit_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_full(file: int, data: bytes) -> int:
        return real_write(file, data[: len(data) // 2])

    real_write = os.write
    with DecisionLog(tmp_path, key_of=key_of) as log:
        log.append("t1", payload(1))
        monkeypatch.setattr(os, "write", half_full)
        with pytest.raises(DecisionLogError, match="free the disk"):
            log.append("t2", payload(2))
        monkeypatch.undo()
        assert log.find("t2") is None
        assert log.append("t2", payload(2)) == 2
    assert verify(tmp_path) == {"worker-1": 2}


def test_one_process_writes_a_chain_and_workers_have_their_own(tmp_path: Path) -> None:
    script = "import sys\nfrom pathlib import Path\n" + (
        "from fraud_platform.adapters.decision_log import DecisionLog\n"
        "log = DecisionLog(Path(sys.argv[1]), sys.argv[2], key_of=str)\n"
        "log.append('t2', b'{\"transaction_id\":\"t2\"}')\n"
    )
    with DecisionLog(tmp_path, key_of=key_of) as log:
        log.append("t1", payload(1))
        command = [sys.executable, "-c", script]
        same, other = (
            subprocess.run([*command, str(tmp_path), worker], capture_output=True, text=True)
            for worker in ("worker-1", "worker-2")
        )
        assert "written by another process" in same.stderr
        assert other.returncode == 0, other.stderr
        assert log.find("t2") == b'{"transaction_id":"t2"}'
    assert verify(tmp_path) == {"worker-1": 1, "worker-2": 1}


def test_no_acknowledged_record_is_lost_by_a_kill(tmp_path: Path) -> None:
    acknowledged = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged % 50 == 0:
                process.send_signal(signal.SIGKILL)
                break
        rest = process.stdout.read().split("\n")
        process.stdout.close()
        process.wait()
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1])])
        counts = verify(tmp_path)
        assert acknowledged <= counts["worker-1"] <= acknowledged + 1
    with DecisionLog(tmp_path, key_of=key_of) as log:
        assert all(log.find(f"t{number}") for number in range(1, acknowledged + 1))
