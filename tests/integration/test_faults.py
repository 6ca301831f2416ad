"""The worst day: whatever fails, a decision is answered while it still fails, says so, and is made up for.

Each fault lasts until the block around the question ends: an answer inside the block did not wait for it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
from fraud_platform.adapters.decision_log import verify
from fraud_platform.adapters.journal import read_decisions, read_observed
from fraud_platform.adapters.redis import READY, RedisStore, namespace_of
from fraud_platform.adapters.service import ServiceSettings
from fraud_platform.errors import BundleError, StoreError
from fraud_platform.features.contract import load_contract
from fraud_platform.package import BundleParts
from fraud_platform.serve.clock import SteadyClock
from tests.faults import (
    Running,
    full_disk,
    hanging,
    locked_store,
    missing_mounts,
    patient,
    replaced,
    small_disk,
)
from tests.servers import free_port, missing_redis, redis_says

NOW_MS = 1_790_000_000_000
Build = Callable[..., dict[str, Any]]
PATIENCE_S = 120.0
HURRIED_MS = 2_000
"""Where something hangs for ever: far beyond what a busy machine takes for the rest."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_parts: BundleParts) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    return bundle_path(folder, build_bundle(tiny_parts, folder).id)


@pytest.fixture
def settings(bundle: Path, tmp_path: Path) -> ServiceSettings:
    return patient(bundle, tmp_path / "state", spill=tmp_path / "spill")


@pytest.fixture
def running(settings: ServiceSettings, payment: Callable[..., Any]) -> Iterator[Running]:
    yield from _running(settings, payment)


@pytest.fixture
def hurried(settings: ServiceSettings, payment: Callable[..., Any]) -> Iterator[Running]:
    """A service whose lane is about to hang."""
    yield from _running(dataclasses.replace(settings, deadline_ms=HURRIED_MS), payment)


def _running(settings: ServiceSettings, payment: Callable[..., Any]) -> Iterator[Running]:
    with Running(settings, lambda: NOW_MS) as running:
        assert running.ask(payment(0)).tier == "model"
        yield running
    verify(settings.state / "decisions")


@pytest.fixture
def payment(transaction_request: Build) -> Callable[..., dict[str, Any]]:
    def build(number: int, **fields: Any) -> dict[str, Any]:
        named = {"transaction_id": f"t{number}", "event_time": NOW_MS - 10**6 + 1000 * number}
        return transaction_request(**{**named, **fields})

    return build


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_made_up(running: Running, numbers: range) -> None:
    """Everything that was answered is in the log once and was counted once, and the next is scored again."""
    eventually(lambda: running.service.decider.behind.waiting == (0, 0))
    logged = [one.record.transaction_id for one in read_decisions(running.settings.state)]
    assert sorted(logged) == sorted(f"t{number}" for number in numbers)
    assert all(running.service.store.seen(transaction_id) for transaction_id in logged)


def scored_again(running: Running, payment: Callable[..., Any], first: int) -> int:
    """Asks until the model answers; the number of the next payment."""
    for number in range(first, first + 2000):
        if running.ask(payment(number)).tier == "model":
            return number + 1
        time.sleep(0.01)
    raise AssertionError("the model does not come back")


def test_a_store_that_another_process_locks(hurried: Running, payment: Callable[..., Any]) -> None:
    with locked_store(hurried.settings.state):
        answers = [hurried.ask(payment(number)) for number in range(1, 6)]
        assert {answer.tier for answer in answers} == {"request"}
        assert {answer.faults for answer in answers} == {("store_slow",)}
        assert hurried.ask(payment(1)).is_repeat
        assert hurried.online.waiting["unlogged"] == 5
    following = scored_again(hurried, payment, 6)
    assert_made_up(hurried, range(following))


def test_what_was_answered_without_the_store_counts_in_later_vectors(
    hurried: Running, payment: Callable[..., Any]
) -> None:
    with locked_store(hurried.settings.state):
        assert hurried.ask(payment(1)).tier == "request"
    eventually(lambda: hurried.service.decider.behind.waiting == (0, 0))
    assert hurried.ask(payment(2)).tier == "model"
    last = [one.record for one in read_decisions(hurried.settings.state)][-1]
    assert last.vector is not None
    assert last.vector[hurried.online.bundle.contract.index("card_txn_count_1h")] == 2.0


def test_a_model_that_hangs_costs_the_score_alone(hurried: Running, payment: Callable[..., Any]) -> None:
    with hanging(hurried.service.decider.judge._booster, "score"):
        answers = [hurried.ask(payment(number)) for number in range(1, 4)]
        assert answers[0].tier == "rules"
        assert answers[0].faults == ("model_slow",)
        assert {answer.faults for answer in answers} == {("model_slow",)}
    following = scored_again(hurried, payment, 4)
    assert_made_up(hurried, range(following))


def test_a_log_that_hangs_does_not_hold_up_an_answer(hurried: Running, payment: Callable[..., Any]) -> None:
    with hanging(hurried.service.journal, "append"):
        first = hurried.ask(payment(1))
        assert (first.tier, first.faults) == ("model", ("log_slow",))
        rest = [hurried.ask(payment(number)) for number in range(2, 5)]
        assert {answer.faults for answer in rest} == {("log_slow",)}
        assert hurried.ask(payment(1)).is_repeat
    following = scored_again(hurried, payment, 5)
    assert_made_up(hurried, range(following))


def test_a_killed_service_loses_nothing_that_its_log_could_not_take(
    settings: ServiceSettings, payment: Callable[..., Any], tmp_path: Path
) -> None:
    """What lies on the disk and in shared memory in the middle of the fault is all that a new process has."""
    left = tmp_path / "left"
    hurried = dataclasses.replace(settings, deadline_ms=HURRIED_MS)
    with Running(hurried, lambda: NOW_MS) as running:
        running.ask(payment(0))
        with hanging(running.service.journal, "append"):
            given = [running.ask(payment(number)) for number in range(1, 4)]
            shutil.copytree(settings.state, left / "state")
            shutil.copytree(tmp_path / "spill", left / "spill")
    after = dataclasses.replace(settings, state=left / "state", spill=left / "spill")
    with Running(after, lambda: NOW_MS) as restarted:
        again = [restarted.ask(payment(number)) for number in range(1, 4)]
        assert [one.action for one in again] == [one.action for one in given]
        assert all(one.is_repeat for one in again)
        assert_made_up(restarted, range(4))


def test_a_full_disk(bundle: Path, payment: Callable[..., Any], tmp_path: Path) -> None:
    reason = missing_mounts()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"full disk: {reason}")
    with small_disk(tmp_path / "disk", 96) as disk:
        settings = patient(bundle, disk / "state", spill=tmp_path / "spill")
        with Running(settings, lambda: NOW_MS) as running:
            running.ask(payment(0))
            with full_disk(disk):
                answers = [running.ask(payment(number)) for number in range(1, 40)]
                assert {"log_down"} <= set(answers[-1].faults)
                assert running.ask(payment(39)).is_repeat
            following = scored_again(running, payment, 40)
            eventually(lambda: running.ask(payment(following - 1)).is_repeat)
            assert_made_up(running, range(following))


def test_a_redis_that_is_stopped_and_one_that_is_gone(
    bundle: Path, payment: Callable[..., Any], tmp_path: Path, stores: Any
) -> None:
    reason = missing_redis()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]

    def started() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(lambda: redis_says(port, "PING") == "PONG")
        return process

    with ExitStack() as ends:
        server = started()
        ends.callback(lambda: (server.kill(), server.wait()))
        url = f"redis://127.0.0.1:{port}"
        _ready(url, load_contract())
        spill = tmp_path / "spill"
        settings = ServiceSettings(bundle, tmp_path / "state", store=url, spill=spill, deadline_ms=HURRIED_MS)
        running = ends.enter_context(Running(settings, lambda: NOW_MS))
        first = scored_again(running, payment, 0)
        os.kill(server.pid, signal.SIGSTOP)
        slow = [running.ask(payment(number)) for number in range(first, first + 5)]
        os.kill(server.pid, signal.SIGCONT)
        assert {answer.tier for answer in slow} == {"request"}
        assert all({"store_slow", "store_down", "busy"} & set(answer.faults) for answer in slow)
        following = scored_again(running, payment, first + 5)
        server.kill()
        server.wait()
        down = [running.ask(payment(number)) for number in range(following, following + 5)]
        assert {answer.tier for answer in down} == {"request"}
        assert "store_down" in down[-1].faults
        server = started()
        following = scored_again(running, payment, following + 5)
        assert_made_up(running, range(following))


def test_an_older_copy_of_the_store_is_caught_up_before_anything_is_scored(
    settings: ServiceSettings, payment: Callable[..., Any], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with Running(settings, lambda: NOW_MS) as running:
        running.ask(payment(0))
        shutil.copytree(settings.state / "store", copy)
        for number in range(1, 30):
            running.ask(payment(number))
        running.learn(
            {"transaction_id": "t3", "source": "chargeback", "outcome": "fraud", "known_at": NOW_MS - 10}
        )
    shutil.rmtree(settings.state / "store")
    shutil.copytree(copy, settings.state / "store")
    with Running(settings, lambda: NOW_MS) as running:
        first = running.ask(payment(30))
        assert (first.tier, first.faults) == ("rules", ("store_stale",)) or first.tier == "model"
        following = scored_again(running, payment, 31)
        assert_made_up(running, range(following))
        last = [one.record for one in read_decisions(settings.state)][-1]
        assert last.vector is not None
        count = last.vector[running.online.bundle.contract.index("card_txn_count_1h")]
        assert count == following - 1


def test_a_clock_that_jumps_refuses_nobody(settings: ServiceSettings, payment: Callable[..., Any]) -> None:
    wall = NOW_MS * 1_000_000
    walls = [wall]
    clock = SteadyClock(wall=lambda: walls[0], steady=lambda: 10**9)
    with Running(settings, clock) as running:
        assert running.ask(payment(0)).faults == ()
        for jump in (-(10**9) * 86_400, 10**9 * 86_400):
            walls[0] = wall + jump
            answer = running.ask(payment(1 if jump < 0 else 2))
            assert (answer.tier, answer.faults, answer.decided_at) == ("model", ("clock_jump",), NOW_MS)
        walls[0] = wall
        assert running.ask(payment(3)).faults == ()


def test_a_clock_that_starts_behind_the_log_goes_on_from_there(
    settings: ServiceSettings, payment: Callable[..., Any]
) -> None:
    with Running(settings, lambda: NOW_MS) as running:
        running.ask(payment(0))
    behind = SteadyClock(wall=lambda: (NOW_MS - 86_400_000) * 1_000_000, steady=lambda: 0)
    with Running(settings, behind) as running:
        answer = running.ask(payment(1))
        assert (answer.decided_at, answer.faults) == (NOW_MS, ("clock_jump",))


def test_rules_that_fail_leave_the_configured_answer(running: Running, payment: Callable[..., Any]) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with replaced(running.service.decider.judge, "judge", fails):
        answer = running.ask(payment(1))
        assert (answer.tier, answer.decided_by, answer.faults) == ("fixed", "fallback", ("rules_failed",))
    assert running.ask(payment(2)).tier == "model"


def test_a_burst_is_answered_whole(running: Running, payment: Callable[..., Any]) -> None:
    answers = running.ask_all([payment(number) for number in range(1, 400)])
    assert len(answers) == 399
    assert {answer.tier for answer in answers} <= {"model", "request", "rules"}
    assert_made_up(running, range(400))


def test_when_the_store_counted_is_noted_for_who_replays(
    running: Running, payment: Callable[..., Any]
) -> None:
    def down(_: Any) -> Any:
        raise StoreError("gone")

    with replaced(running.service.store, "observe", down):
        assert running.ask(payment(1)).faults == ("store_down",)
    eventually(lambda: running.service.decider.behind.waiting == (0, 0))
    (note,) = read_observed(running.settings.state)
    assert len(note.key) == 32  # a digest: the log names nobody
    assert note.store_sequence is not None


def _ready(url: str, contract: Any) -> None:
    """An empty store of the contract that may serve."""
    with RedisStore.open(url, contract, namespace=namespace_of(contract)) as store:
        store.set_meta(READY, "yes")


# A model that does not hold at the start


def test_a_bundle_that_is_damaged_leaves_the_last_good_one(
    settings: ServiceSettings, payment: Callable[..., Any], tmp_path: Path
) -> None:
    damaged = tmp_path / "bundle"
    shutil.copytree(settings.bundle, damaged)
    settings = dataclasses.replace(settings, bundle=damaged)
    with Running(settings, lambda: NOW_MS) as running:
        good = running.ask(payment(0)).bundle_id
    (damaged / "model.txt").write_text("tree\n")
    with Running(settings, lambda: NOW_MS) as running:
        answer = running.ask(payment(1))
        assert (answer.tier, answer.bundle_id, answer.faults) == ("model", good, ("bundle_refused",))
        shutil.copy(settings.state / "last_good" / "model.txt", damaged / "model.txt")
        eventually(lambda: running.ask(payment(2)).faults == () or not running.service._standing)
        assert running.ask(payment(3)).faults == ()
    (damaged / "model.txt").write_text("tree\n")
    shutil.rmtree(settings.state / "last_good")
    with pytest.raises(BundleError, match=r"model\.txt"):
        Running(settings, lambda: NOW_MS)


def test_a_model_that_cannot_be_read_leaves_the_rules(
    tiny_parts: BundleParts, payment: Callable[..., Any], tmp_path: Path
) -> None:
    """Whole, as its manifest says, and no model for this LightGBM."""
    bundle = build_bundle(dataclasses.replace(tiny_parts, model_text="tree\n"), tmp_path / "bundles")
    path = bundle_path(tmp_path / "bundles", bundle.id)
    settings = patient(path, tmp_path / "state", spill=tmp_path / "spill")
    with Running(settings, lambda: NOW_MS) as running:
        answer = running.ask(payment(0))
        assert (answer.tier, answer.decided_by) == ("rules", "fallback")
        assert answer.faults == ("bundle_refused", "model_missing")
        assert not (settings.state / "last_good").exists()


def test_a_score_that_is_no_number_leaves_the_rules(running: Running, payment: Callable[..., Any]) -> None:
    with replaced(running.service.decider.judge._booster, "score", lambda _: float("nan")):
        answer = running.ask(payment(1))
        assert (answer.tier, answer.faults) == ("rules", ("model_invalid",))
    assert running.ask(payment(2)).tier == "model"


def test_more_than_memory_takes_is_found_in_the_log_again(
    running: Running, payment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fraud_platform.serve.catch_up.UNOBSERVED_MAX", 3)

    def down(_: Any) -> Any:
        raise StoreError("gone")

    with replaced(running.service.store, "observe", down):
        for number in range(1, 40):
            assert running.ask(payment(number)).tier == "request"
        assert running.online.waiting["unobserved"] == 3
    eventually(lambda: running.service.store.seen("t39"))
    following = scored_again(running, payment, 40)
    assert_made_up(running, range(following))


def test_a_spill_that_is_full_keeps_nothing_and_says_so(
    hurried: Running, payment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fraud_platform.adapters.spill.BYTES_MAX", 10_000)
    with hanging(hurried.service.journal, "append"):
        answers = [hurried.ask(payment(number)) for number in range(1, 12)]
    assert "unrecorded" not in answers[0].faults
    assert "unrecorded" in answers[-1].faults
    following = scored_again(hurried, payment, 12)
    assert_made_up(hurried, range(following))
