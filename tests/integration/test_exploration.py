"""A service that explores: what it answers, records, counts and replays, across restarts and kills."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import lmdb
import msgspec
import pytest

from fraud_platform.adapters import period_counts
from fraud_platform.adapters.bundle_files import build_bundle, bundle_path, load_bundle
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_monitor import load_decisions, logged_columns
from fraud_platform.adapters.exploration import FOLDER, ExplorationCounter
from fraud_platform.adapters.journal import read_decisions
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.replay import Wanted, replay_log
from fraud_platform.adapters.service import Service
from fraud_platform.cli.replay import explain
from fraud_platform.exploration import DAY_MS, Venture, exact
from fraud_platform.labels import LabelRule
from fraud_platform.monitor import declines
from fraud_platform.package import BundleParts
from fraud_platform.policy import load_policy, load_policy_text
from fraud_platform.serve.record import DecisionRecord
from tests.faults import patient

NOW = 20_000 * DAY_MS
ALLOWED = 6_000.0
POLICY = (
    load_policy_text()
    .replace("share: 0 ", "share: 0.3 ")
    .replace("loss_per_day: 500", f"loss_per_day: {ALLOWED:g}")
)
ASKING = """
import sys
from pathlib import Path
from fraud_platform.adapters.exploration import ExplorationCounter
from fraud_platform.exploration import Venture
counter = ExplorationCounter(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    print(int(counter.chance(int(sys.argv[2]), Venture(10.0, 500.0, 0.9, 0.0)) > 0.0), flush=True)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_parts: BundleParts) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    parts = dataclasses.replace(tiny_parts, policy_text=POLICY)
    return bundle_path(root, build_bundle(parts, root).id)


def payment(number: int, **fields: Any) -> dict[str, Any]:
    """Large enough for the tiny model to decline it."""
    asked = {"transaction_id": f"live{number}", "event_time": NOW + number * 1000, "card_id": f"card{number}"}
    return asked | {"merchant_id": f"shop{number}", "amount_minor": 90_000, "currency": "EUR"} | fields


def served(
    bundle: Path, state: Path, on_explored: Callable[[DecisionRecord], object] = lambda record: None
) -> Service:
    return Service(patient(bundle, state), lambda: NOW + 10**7, on_explored)


def records(state: Path) -> list[DecisionRecord]:
    return [one.record for one in read_decisions(state)]


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[ExplorationCounter]:
    counter = ExplorationCounter(tmp_path)
    yield counter
    counter.close()


def test_what_a_service_explored_replays_to_the_byte_and_passes_no_day_s_loss(
    bundle: Path, tmp_path: Path
) -> None:
    """Restarted in the middle of the day, whose counts go on."""
    state, metrics, answers = tmp_path / "state", Metrics(), []
    for numbers in (range(20), range(20, 80)):
        service = served(bundle, state, metrics.explored)
        for number in numbers:
            answers.append(service.decide(payment(number, amount_minor=90_000 if number % 4 else 2_000)))
        day = service.exploration.day(NOW + 10**7)
        service.close()
    found = records(state)
    explored = [record for record in found if record.is_explored]
    spent = sum(record.expected_costs[0] for record in explored)
    assert 0.0 < spent <= ALLOWED
    assert (day.explored, day.loss) == (len(explored), pytest.approx(spent, abs=1e-4))
    assert {(r.action, r.decided_by, r.reasons) for r in explored} == {("approve", "policy", ())}
    assert all(0.0 < record.propensity <= exact(0.3) for record in explored)
    declined = [record.propensity for record in found if record.action == "decline"]
    assert 1.0 - 0.3 <= min(declined) < max(declined) < 1.0, "the chance is lowered, and none is without"
    asked = sum(record.expected_costs[0] for record in found if record.propensity != 1.0)
    assert day.asked == pytest.approx(asked * 1e6)
    said = b"".join(msgspec.json.encode(answer) for answer in answers)
    assert b"explored" not in said
    assert b"propensity" not in said
    assert f"fraud_explored_total {len(explored)}.0".encode() in metrics.exposition()
    lines = metrics.exposition().decode().splitlines()
    counted = next(line.split()[1] for line in lines if line.startswith("fraud_explored_loss_total"))
    assert float(counted) == pytest.approx(spent)
    report = replay_log(state, lambda _: load_bundle(bundle))
    assert report.is_equal, report.lines()
    assert (report.compared, report.equal_features) == (80, 80)


def test_a_repeat_gets_the_same_answer_and_is_counted_once(bundle: Path, tmp_path: Path) -> None:
    told: list[DecisionRecord] = []
    service = served(bundle, tmp_path / "state", told.append)
    first = [service.decide(payment(number)) for number in range(12)]
    day = service.exploration.day(NOW + 10**7)
    again = [service.decide(payment(number)) for number in range(12)]
    assert [one.action for one in again] == [one.action for one in first]
    assert {one.action for one in first} == {"approve", "decline"}
    assert all(one.is_repeat for one in again)
    assert service.exploration.day(NOW + 10**7) == day
    assert len(told) == day.explored > 0
    service.close()


def test_with_exploration_off_nothing_is_opened_and_records_are_as_they_were(
    tmp_path: Path, tiny_parts: BundleParts
) -> None:
    path = bundle_path(tmp_path, build_bundle(tiny_parts, tmp_path).id)
    service = served(path, tmp_path / "state")
    for number in range(10):
        service.decide(payment(number))
    service.close()
    assert not (tmp_path / "state" / FOLDER).exists()
    found = records(tmp_path / "state")
    assert {(record.action, record.propensity) for record in found} == {("decline", 1.0)}
    logged = b"".join(
        one.read_bytes() for one in (tmp_path / "state" / "decisions").rglob("*") if one.is_file()
    )
    assert b'"propensity":1.0' in logged
    assert b"explored" not in logged


def test_the_warehouse_takes_in_what_was_explored(bundle: Path, tmp_path: Path) -> None:
    """Also into a table that was made before there was any exploration."""
    state, warehouse = tmp_path / "state", Warehouse(tmp_path / "warehouse.duckdb")
    service = served(bundle, state)
    for number in range(12):
        service.decide(payment(number))
    service.close()
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("create schema monitor")
        connection.execute("create table monitor.decisions (worker varchar, sequence bigint)")
    load_decisions(warehouse, state, lambda _: load_bundle(bundle).contract)
    columns = logged_columns(warehouse)
    taken = zip(columns.propensity.tolist(), columns.is_explored.tolist(), strict=True)
    known = {record.transaction_id: (record.propensity, record.is_explored) for record in records(state)}
    assert dict(zip(columns.transaction_id.tolist(), taken, strict=True)) == known
    assert columns.is_explored.sum() > 0
    later = dataclasses.replace(columns, event_time=columns.event_time - 100 * DAY_MS)
    found = declines(later, [], LabelRule(30, ()), NOW, load_policy())
    assert found is not None
    assert (found.declined, found.explored) == (12, columns.is_explored.sum())


def test_what_was_loaded_before_there_was_any_exploration_had_no_alternative(
    bundle: Path, tmp_path: Path
) -> None:
    state, warehouse = tmp_path / "state", Warehouse(tmp_path / "warehouse.duckdb")
    service = served(bundle, state)
    for number in range(6):
        service.decide(payment(number, amount_minor=100))
    service.close()
    load_decisions(warehouse, state, lambda _: load_bundle(bundle).contract)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        for name in ("propensity", "is_explored"):
            connection.execute(f"alter table monitor.decisions drop column {name}")
    columns = logged_columns(warehouse)
    assert (columns.propensity.tolist(), columns.is_explored.any()) == ([1.0] * 6, False)


def test_a_killed_service_has_spent_no_more_than_it_counts(bundle: Path, tmp_path: Path) -> None:
    """kill -9 while it decides: every recorded explored decision is counted, at most one more is."""
    state = tmp_path / "state"
    code = (
        "import sys, json\nfrom pathlib import Path\n"
        "from tests.integration.test_exploration import payment, served\n"
        "service = served(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "for number in range(10**6):\n"
        "    print(service.decide(payment(number, amount_minor=60_000)).action, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bundle), str(state)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(12)]
        process.kill()
        process.wait()
    service = served(bundle, state)
    found = records(state)
    day = service.exploration.day(NOW + 10**7)
    explored = [record for record in found if record.is_explored]
    assert len(found) >= 12
    assert said == [record.action for record in found[:12]]
    assert len(explored) <= day.explored <= len(explored) + 1
    for number in range(60):
        service.decide(payment(1_000 + number))
    service.close()
    assert sum(record.expected_costs[0] for record in records(state) if record.is_explored) <= ALLOWED
    report = replay_log(state, lambda _: load_bundle(bundle))
    assert report.is_equal, report.lines()


def test_worker_processes_share_one_limit(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", ASKING, str(tmp_path), str(NOW), "40"]
    started = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    granted = sum(process.communicate(timeout=180)[0].count("1") for process in started)
    assert granted == 50
    counter = ExplorationCounter(tmp_path)
    assert (counter.day(NOW).explored, counter.day(NOW).loss) == (50, 500.0)
    counter.close()


def test_threads_of_a_process_share_the_counter(counter: ExplorationCounter) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: counter.chance(NOW, Venture(10.0, 55.0, 0.9, 0.0)), range(40)))
    assert sum(chance > 0.0 for chance in answers) == 5
    assert not counter.is_failing


def test_a_new_day_has_a_new_limit_and_days_far_away_are_forgotten(counter: ExplorationCounter) -> None:
    asked = Venture(10.0, 15.0, 0.9, 0.0)
    for day in (0, 1, 2):
        assert [counter.chance(NOW + day * DAY_MS, asked) > 0.0 for _ in range(2)] == [True, False]
    assert counter.day(NOW).explored == 1, "a clock that jumped back finds its counts"
    assert counter.chance(NOW, asked) == 0.0
    assert counter.chance(NOW + 3 * DAY_MS, asked) > 0.0
    assert [counter.day(NOW + day * DAY_MS).explored for day in range(4)] == [0, 1, 1, 1]


def test_what_cannot_be_counted_is_not_explored(
    counter: ExplorationCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise lmdb.Error("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(period_counts.lmdb, "open", full)
        assert counter.chance(NOW, Venture(1.0, 100.0, 0.5, 0.0)) == 0.0
        assert counter.is_failing
    assert counter.chance(NOW, Venture(1.0, 100.0, 0.5, 0.0)) > 0.0
    assert not counter.is_failing


def test_the_explained_replay_says_what_was_explored(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    service = served(bundle, state)
    for number in range(12):
        service.decide(payment(number))
    service.close()
    name = next(record.transaction_id for record in records(state) if record.is_explored)
    replay_log(state, lambda _: load_bundle(bundle), Wanted(name), each=explain)
    assert "explored: the policy declined it; taken with probability 0." in capsys.readouterr().out
