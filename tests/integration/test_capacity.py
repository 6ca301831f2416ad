from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from fraud_platform import package
from fraud_platform.adapters import period_counts
from fraud_platform.adapters.capacity import FOLDER, CapacityCounter
from fraud_platform.package import BundleParts
from fraud_platform.policy import Capacity, load_policy_text
from fraud_platform.schema import Transaction
from fraud_platform.serve import Judge
from fraud_platform.serve.capacity import HOUR_MS, Wish

NOON = 480_000 * HOUR_MS
LATE = NOON + HOUR_MS - 1
"""So late in its hour that nothing more is expected of it."""
SCARCE = Wish(10.0, 0.5, Capacity(5))
PROCESSES, WISHES = 3, 40
ASKING = """
import sys
from pathlib import Path
from fraud_platform.adapters.capacity import CapacityCounter
from fraud_platform.policy import Capacity
from fraud_platform.serve.capacity import Wish
counter, now_ms = CapacityCounter(Path(sys.argv[1])), int(sys.argv[2])
wish = Wish(10.0, 0.5, Capacity(50))
print(sum(not counter.closed(now_ms, wish) for _ in range(int(sys.argv[3]))))
"""


ENDLESS = """
import sys
from pathlib import Path
from fraud_platform.adapters.capacity import CapacityCounter
from fraud_platform.policy import Capacity
from fraud_platform.serve.capacity import Wish
counter, wish = CapacityCounter(Path(sys.argv[1])), Wish(10.0, 0.5, Capacity(10**6))
for number in range(1, 10**6):
    counter.closed(int(sys.argv[2]), wish)
    print(number, flush=True)
"""


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[CapacityCounter]:
    counter = CapacityCounter(tmp_path)
    yield counter
    counter.close()


def test_an_hour_s_capacity_is_granted_and_then_closed_and_the_next_hour_is_open(
    counter: CapacityCounter,
) -> None:
    answers = [counter.closed(LATE, SCARCE) for _ in range(7)]
    assert answers == [()] * 5 + [("step_up",)] * 2
    assert counter.closed(LATE + HOUR_MS, SCARCE) == ()
    assert (counter.hour(LATE).step_ups, counter.hour(LATE).reviews) == (5, 2500)


def test_counts_outlive_the_process(tmp_path: Path) -> None:
    for expected in [()] * 5 + [("step_up",)]:
        counter = CapacityCounter(tmp_path)
        assert counter.closed(LATE, SCARCE) == expected
        counter.close()


def test_worker_processes_share_one_limit(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", ASKING, str(tmp_path), str(LATE), str(WISHES)]
    started = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    granted = [int(process.communicate(timeout=180)[0]) for process in started]
    assert sum(granted) == 50
    counter = CapacityCounter(tmp_path)
    assert sum(counter.hour(LATE).wishes) == PROCESSES * WISHES
    counter.close()


def test_a_kill_costs_one_unit_at_most(tmp_path: Path) -> None:
    """What is printed here stands for the record that follows the count."""
    for attempt in range(3):
        state = tmp_path / str(attempt)
        arguments = [sys.executable, "-c", ENDLESS, str(state), str(LATE)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(40 + attempt):
                process.stdout.readline()
            process.kill()
            recorded = 40 + attempt + len(process.stdout.read().splitlines())
        counter = CapacityCounter(state)
        assert recorded <= counter.hour(LATE).step_ups <= recorded + 1
        assert counter.closed(LATE, SCARCE) == ("step_up",), "the file goes on being used"
        counter.close()


def test_threads_of_a_process_share_the_counter(counter: CapacityCounter) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: counter.closed(LATE, SCARCE), range(40)))
    assert answers.count(()) == 5
    assert not counter.is_failing


def test_a_judge_obeys_the_counter_and_its_record_is_judged_alike(
    counter: CapacityCounter, tiny_parts: BundleParts, transaction_request: Callable[..., dict[str, Any]]
) -> None:
    policy = load_policy_text().replace("step_ups_per_hour: null", "step_ups_per_hour: 2")
    judge = Judge(package.build(replace(tiny_parts, policy_text=policy)), has_model=False)
    asked = msgspec.convert(transaction_request(amount_minor=300_000), type=Transaction)
    judged = [judge.judge(asked, None, closed=partial(counter.closed, LATE)) for _ in range(4)]
    assert [one.action for one in judged] == ["step_up", "step_up", "approve", "approve"]
    assert [one.closed_actions for one in judged] == [(), (), ("step_up",), ("step_up",)]
    assert [judge.judge(asked, None, closed=one.closed_actions) for one in judged] == judged
    assert counter.hour(LATE).step_ups == 2


def test_without_a_limit_nothing_is_opened(counter: CapacityCounter, tmp_path: Path) -> None:
    assert counter.closed(NOON, Wish(10.0, 0.5, Capacity())) == ()
    assert not (tmp_path / FOLDER).exists()


def test_hours_far_away_are_forgotten_whichever_way_the_clock_jumped(counter: CapacityCounter) -> None:
    for hours in (0, 1, 1_000, 2):
        counter.closed(LATE + hours * HOUR_MS, SCARCE)
    kept = [hours for hours in (0, 1, 1_000, 2) if counter.hour(LATE + hours * HOUR_MS).step_ups]
    assert kept == [2], "the jump forward forgot the past, the jump back forgot the future"


def test_what_cannot_be_counted_is_granted_until_it_can(
    counter: CapacityCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise lmdb.DiskError("no space")

    with monkeypatch.context() as broken:
        broken.setattr(period_counts.lmdb, "open", full)
        assert [counter.closed(LATE, SCARCE) for _ in range(7)] == [()] * 7
        assert counter.is_failing
    assert counter.closed(LATE, SCARCE) == ()
    assert not counter.is_failing
    assert counter.hour(LATE).step_ups == 1


def test_a_damaged_file_refuses_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "data.mdb").write_bytes(b"not a database" * 1000)
    counter = CapacityCounter(tmp_path)
    assert counter.closed(LATE, SCARCE) == ()
    assert counter.is_failing
    counter.close()
