"""Go-live: a store made anew takes the place of a running service's; no event is missed or counted twice."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pandas as pd
import pytest

from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
from fraud_platform.adapters.decision_log import verify
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.erasure import erase_customer
from fraud_platform.adapters.go_live import GoLiveReport, go_live, is_live
from fraud_platform.adapters.journal import Journal, read_decisions, read_labels
from fraud_platform.adapters.lmdb import LmdbStore, fresh_store, in_flight, retired_store
from fraud_platform.adapters.lmdb_load import load_store
from fraud_platform.adapters.lmdb_session import TABLES
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.redis import open_live
from fraud_platform.adapters.redis_live import go_live_on_redis
from fraud_platform.adapters.redis_load import drop_store
from fraud_platform.adapters.service import Service
from fraud_platform.adapters.store_audit import audit_store
from fraud_platform.errors import StoreError, StoreMovedError
from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.features.engine import Engine
from fraud_platform.ingest import Mapping
from fraud_platform.package import BundleParts
from fraud_platform.schema import MILLISECONDS_PER_DAY, LabelEvent, Transaction
from tests.faults import patient
from tests.stores import Stores

CONTRACT = load_contract()
OTHER = msgspec.structs.replace(CONTRACT, report_horizon_ms=500 * MILLISECONDS_PER_DAY)
HOUR = 3_600_000
START = 1_772_000_000_000
NOW = START + 40 * 24 * HOUR
MAPPING = """
name: small
transactions:
  files: transactions.parquet
  columns: {transaction_id: transaction_id, event_time: event_time, card_id: card_id,
    merchant_id: merchant_id, amount_minor: amount_minor, currency: "'EUR'"}
labels:
  files: labels.parquet
  columns: {transaction_id: transaction_id, source: "'chargeback'", outcome: "'fraud'", known_at: known_at}
maturity_days: 20
label_precedence: [chargeback]
split: {test_days: 5, validation_days: 5}
"""

WORKER = """
import json, sys
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.redis import open_live
from fraud_platform.adapters.redis_live import go_live_on_redis
from fraud_platform.adapters.service import Service, ServiceSettings
from pathlib import Path
bundle, state, now, name = sys.argv[1:]
settings = ServiceSettings(Path(bundle), Path(state), deadline_ms=10_000)
service = Service(settings, lambda: int(now) + 10**9)
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "known_at" in request:
        service.learn(request)
        print("learned", flush=True)
    else:
        print(service.decide(request).bundle_id, flush=True)
service.close()
"""


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Forty days on twenty cards and four shops, with some chargebacks."""
    folder = tmp_path_factory.mktemp("small")
    rows = [
        {
            "transaction_id": f"old{number}",
            "event_time": START + number * HOUR // 2,
            "card_id": f"card{number % 20}",
            "merchant_id": f"shop{number % 4}",
            "amount_minor": 100 + number,
        }
        for number in range(1900)
    ]
    pd.DataFrame(rows).to_parquet(folder / "transactions.parquet")
    reported = [
        {"transaction_id": row["transaction_id"], "known_at": row["event_time"] + 5 * HOUR}
        for row in rows[::50]
    ]
    pd.DataFrame(reported).to_parquet(folder / "labels.parquet")
    warehouse = Warehouse(folder / "warehouse.duckdb", threads=1)
    warehouse.ingest(Mapping.from_yaml(MAPPING, "the test"), folder, now_ms=NOW)
    return warehouse


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, tiny_parts: BundleParts) -> dict[str, Path]:
    """By contract: the tiny model's bundle, and the same of a contract with another horizon."""
    root = tmp_path_factory.mktemp("bundles")
    parts = {c.hash: dataclasses.replace(tiny_parts, contract=c) for c in (CONTRACT, OTHER)}
    return {name: bundle_path(root, build_bundle(part, root).id) for name, part in parts.items()}


def payment(number: int) -> dict[str, Any]:
    return {
        "transaction_id": f"live{number}",
        "event_time": NOW + number * 1000,
        "card_id": f"card{number % 20}",
        "merchant_id": f"shop{number % 4}",
        "amount_minor": number,
        "currency": "EUR",
    }


class Worker:
    """A service in a process of its own, asked one request at a time."""

    def __init__(self, bundle: Path, state: Path, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(bundle), str(state), str(NOW), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def ask(self, request: dict[str, Any]) -> str:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        assert self.process.stdout
        self.process.stdout.close()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@contextmanager
def workers(bundle: Path, state: Path) -> Iterator[list[Worker]]:
    running = [Worker(bundle, state, name) for name in ("one", "two")]
    try:
        yield running
        for worker in running:
            worker.close()
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.wait()
            assert worker.process.stdout
            worker.process.stdout.close()


def go_live_under_traffic(
    running: list[Worker], first: int, start: Callable[[], subprocess.Popen[str]]
) -> tuple[int, list[str]]:
    """Alternates between the workers until the go-live has ended; the next number and the answers."""
    process, number, answers = start(), first, []
    while process.poll() is None or number < first + 20:
        answers.append(running[number % 2].ask(payment(number)))
        if number % 25 == 0:
            running[0].ask(
                {
                    "transaction_id": f"live{number - 3}",
                    "source": "chargeback",
                    "outcome": "fraud",
                    "known_at": NOW + number * 1000,
                }
            )
        number += 1
        time.sleep(0.002)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return number, answers


def starting(warehouse: Warehouse, state: Path, bundle: Path) -> Callable[[], subprocess.Popen[str]]:
    """Starts a go-live for the bundle's contract in a process of its own."""
    code = (
        "import sys, msgspec\n"
        "from pathlib import Path\n"
        "from fraud_platform.adapters.bundle_files import load_bundle\n"
        "from fraud_platform.adapters.duckdb import Warehouse\n"
        "from fraud_platform.adapters.go_live import go_live\n"
        "warehouse, state, bundle = map(Path, sys.argv[1:])\n"
        "contract = load_bundle(bundle).contract\n"
        "print(go_live(Warehouse(warehouse, threads=1), contract, state, bundle=str(bundle)))\n"
    )
    command = [sys.executable, "-c", code, str(warehouse.path), str(state), str(bundle)]
    return lambda: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def replayed(warehouse: Warehouse, contract: FeatureContract, state: Path, path: Path) -> LmdbStore:
    """What the store must be: the warehouse's past, then the service's own, event by event."""
    load_store(warehouse, contract, path)
    store = LmdbStore.open(path, contract)
    decided = [one.record.request for one in read_decisions(state)]
    for transaction in sorted(decided, key=lambda one: one.event_time):
        assert not store.observe(transaction).is_repeat
    for one in read_labels(state):
        store.learn(one.record.event)
    return store


def assert_equal_to_a_replay(
    warehouse: Warehouse, contract: FeatureContract, state: Path, path: Path
) -> None:
    with (
        replayed(warehouse, contract, state, path) as wanted,
        LmdbStore.open(state / "store", contract) as found,
    ):
        for number in range(40):
            probe = msgspec.convert(
                payment(10**6 + number) | {"event_time": NOW + 10**8 + number}, Transaction
            )
            assert found.observe(probe).vector == wanted.observe(probe).vector


@pytest.mark.parametrize("contract", [CONTRACT, OTHER], ids=["same_contract", "other_contract"])
def test_traffic_goes_on_while_the_store_is_replaced(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, contract: FeatureContract
) -> None:
    state = tmp_path / "state"
    first = go_live(warehouse, CONTRACT, state)
    assert not first.is_switched
    assert first.loaded == 1900
    start = starting(warehouse, state, bundles[contract.hash])
    with workers(bundles[CONTRACT.hash], state) as running:
        number, answers = go_live_under_traffic(running, 0, start)
        number, more = go_live_under_traffic(running, number, start)
    assert sum(verify(state / "decisions").values()) == number
    ids = [bundles[CONTRACT.hash].name, bundles[contract.hash].name]
    assert answers[0].startswith(ids[0][:12])
    assert more[-1].startswith(ids[1][:12])
    audit = audit_store(warehouse, contract, state)
    assert audit.differences == ()
    assert audit.is_whole
    assert not fresh_store(state / "store").exists()
    assert not retired_store(state / "store").exists()
    assert_equal_to_a_replay(warehouse, contract, state, tmp_path / "replayed")


def test_an_event_that_no_log_holds_yet_is_taken_along(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Between the observation and the record of a decision the store alone knows the event."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    with LmdbStore.open(state / "store", CONTRACT, writer="worker-1") as store:
        store.observe(msgspec.convert(payment(1), Transaction))
    report = go_live(warehouse, CONTRACT, state)
    assert (report.loaded, report.in_flight, report.is_switched) == (1901, 1, True)
    with LmdbStore.open(state / "store", CONTRACT) as store:
        assert store.seen("live1")
    assert audit_store(warehouse, CONTRACT, state).is_whole


def test_an_event_that_is_counted_during_the_go_live_is_taken_along(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """The worker is killed while the new store catches up: after the load, before the switch."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    observing = observing_once(state, payment(1), "worker-1")
    report = go_live(warehouse, CONTRACT, state, progress=observing)
    assert (report.loaded, report.locked, report.in_flight) == (1900, 1, 1)
    assert last_events(state, "worker-1", "main") == ["live1", None]
    assert audit_store(warehouse, CONTRACT, state).is_whole
    base = max((state / "bases").glob("[0-9]*"))
    with LmdbStore.open(base, CONTRACT, writer="worker-1") as store:
        assert str(store.last_event()).startswith("Transaction(transaction_id='live1'")


def test_what_killed_workers_had_only_counted_is_decided_after_a_go_live(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Each worker finds its own event, also where the store was replaced twice before it came back."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    answered = {}
    for number in (1, 2):
        with LmdbStore.open(state / "store", CONTRACT, writer=f"worker-{number}") as store:
            found = store.observe(msgspec.convert(payment(number), Transaction))
            answered[f"live{number}"] = (found.vector, store.sequence)
    for _ in range(2):
        assert go_live(warehouse, CONTRACT, state).in_flight == 2
        assert last_events(state, "worker-1", "worker-2", "main") == ["live1", "live2", None]
        assert audit_store(warehouse, CONTRACT, state).is_whole
    with workers(bundles[CONTRACT.hash], state):
        pass
    records = {one.worker: one.record for one in read_decisions(state)}
    assert {name: record.transaction_id for name, record in records.items()} == {
        "worker-1": "live1",
        "worker-2": "live2",
    }
    assert {r.transaction_id: (r.vector, r.store_sequence) for r in records.values()} == answered
    assert audit_store(warehouse, CONTRACT, state).is_whole


def test_a_label_that_was_only_counted_is_recorded_after_a_go_live(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    event = LabelEvent(transaction_id="old1899", source="bank", outcome="fraud", known_at=NOW)
    with LmdbStore.open(state / "store", CONTRACT, writer="worker-1") as store:
        assert store.learn(event)
        change = store.sequence
    assert go_live(warehouse, CONTRACT, state).in_flight == 1
    Service(patient(bundles[CONTRACT.hash], state), lambda: NOW + 10**9).close()
    assert [(one.record.event, one.record.store_sequence) for one in read_labels(state)] == [(event, change)]
    assert audit_store(warehouse, CONTRACT, state).is_whole


@pytest.mark.parametrize("is_erased", [False, True])
@pytest.mark.parametrize("contract", [CONTRACT, OTHER], ids=["same_contract", "other_contract"])
def test_what_the_logs_hold_stays_in_no_slot(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, contract: FeatureContract, is_erased: bool
) -> None:
    """Of a worker that never comes back the last event stood in every store to come, in clear, and no erasure
    of its person reached it. What no log holds is carried on."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    with workers(bundles[CONTRACT.hash], state) as running:
        running[0].ask(payment(1) | {"customer_id": "anna"})
        running[1].ask({"transaction_id": "old7", "source": "bank", "outcome": "fraud", "known_at": NOW})
    assert len(slots(state / "store")) == 2
    with LmdbStore.open(state / "store", CONTRACT, writer="killed") as store:
        store.observe(msgspec.convert(payment(3), Transaction))
    if is_erased:
        assert erase_customer(state, "anna", by="Ada", reason="asked for it", at=NOW).decisions == 1
    assert go_live(warehouse, contract, state).in_flight == 1
    assert slots(state / "store") == ["live3"]
    assert slots(max((state / "bases").glob("[0-9]*"))) == ["live3"]
    assert audit_store(warehouse, contract, state).is_whole
    with LmdbStore.open(state / "store", contract) as store:
        assert store.seen("live1") != is_erased


@pytest.mark.parametrize("is_erased", [False, True])
def test_what_was_counted_after_its_decision_stays_in_no_slot(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, is_erased: bool
) -> None:
    """Its record has no number, a note beside the log has."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    decide_until(state, bundles[CONTRACT.hash], days=1)
    last = max(read_decisions(state), key=lambda one: one.record.request.event_time).record
    late = msgspec.structs.replace(
        last.request, transaction_id="late", event_time=last.request.event_time + HOUR, customer_id="anna"
    )
    record = msgspec.structs.replace(last, transaction_id="late", request=late, store_sequence=None)
    with Journal(state) as journal, LmdbStore.open(state / "store", CONTRACT, writer="killed") as store:
        journal.append(record)
        store.observe(late)
        journal.append_observed(msgspec.structs.replace(record, store_sequence=store.sequence))
    assert "late" in slots(state / "store")
    if is_erased:
        assert erase_customer(state, "anna", by="Ada", reason="asked for it", at=NOW).decisions > 0
    go_live(warehouse, CONTRACT, state)
    assert "late" not in slots(state / "store")
    assert audit_store(warehouse, CONTRACT, state).is_whole
    with LmdbStore.open(state / "store", CONTRACT) as store:
        assert store.seen("late") != is_erased


def slots(path: Path) -> list[str]:
    """The transactions of the events that stand in clear in a store's slots."""
    with lmdb.open(str(path), max_dbs=len(TABLES), readonly=True, lock=False) as environment:
        meta = environment.open_db(b"meta", create=False)
        with environment.begin() as txn:
            return sorted(event.transaction_id for event in in_flight(txn, meta))


@pytest.mark.parametrize("contract", [CONTRACT, OTHER], ids=["same_contract", "other_contract"])
def test_an_event_of_days_ago_that_no_log_holds_is_loaded_with_the_rest(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, contract: FeatureContract
) -> None:
    """Its worker was killed and the others went on. When it comes back, it decides: under another contract
    without features, since no store can tell them any more."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    with LmdbStore.open(state / "store", CONTRACT, writer="worker-2") as store:
        vector = store.observe(msgspec.convert(payment(1), Transaction)).vector
    decide_until(state, bundles[CONTRACT.hash], days=4)
    report = go_live(warehouse, contract, state)
    assert (report.loaded, report.in_flight) == (1900 + 9, 1)
    assert go_live(warehouse, contract, state).in_flight == 1
    assert audit_store(warehouse, contract, state).is_whole
    with workers(bundles[contract.hash], state):
        pass
    [record] = [one.record for one in read_decisions(state) if one.worker == "worker-2"]
    assert record.transaction_id == "live1"
    if contract is CONTRACT:
        assert (record.vector, record.faults) == (vector, ())
    else:
        assert (record.vector, record.faults) == (None, ("store_stale",))
    assert audit_store(warehouse, contract, state).is_whole


def test_a_go_live_that_meets_an_event_too_late_succeeds_when_it_is_started_again(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """The old store can still answer the event that comes to its quiet card; the new one is days ahead."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    decide_until(state, bundles[CONTRACT.hash], days=4)
    observing = observing_once(state, payment(1), "worker-2")
    with pytest.raises(StoreError, match="start it again, it will be loaded"):
        go_live(warehouse, CONTRACT, state, progress=observing)
    assert go_live(warehouse, CONTRACT, state).in_flight == 1
    assert audit_store(warehouse, CONTRACT, state).is_whole


def observing_once(state: Path, request: dict[str, Any], writer: str) -> Callable[[str], None]:
    """Has a worker observe, and no more, when the go-live has caught up for the first time."""
    waiting = [request]

    def observe(message: str) -> None:
        if message.startswith("caught up") and waiting:
            code = (
                "import json, sys, msgspec\n"
                "from pathlib import Path\n"
                "from fraud_platform.adapters.lmdb import LmdbStore\n"
                "from fraud_platform.schema import Transaction\n"
                "from tests.integration.test_go_live import CONTRACT\n"
                "with LmdbStore.open(Path(sys.argv[1]), CONTRACT, writer=sys.argv[2]) as store:\n"
                "    store.observe(msgspec.convert(json.loads(sys.argv[3]), Transaction))\n"
            )
            asked = [str(state / "store"), writer, json.dumps(waiting.pop())]
            subprocess.run([sys.executable, "-c", code, *asked], check=True)

    return observe


def decide_until(state: Path, bundle: Path, days: int) -> None:
    """Two payments a day, with one card in one shop."""
    service = Service(patient(bundle, state), lambda: NOW + 10**9)
    for number in range(10, 10 + 2 * days):
        moment = {"event_time": NOW + (number - 9) * 12 * HOUR}
        service.decide(payment(number) | {"card_id": "card0", "merchant_id": "shop0"} | moment)
    service.close()


def last_events(state: Path, *writers: str) -> list[str | None]:
    found = []
    for writer in writers:
        with LmdbStore.open(state / "store", CONTRACT, writer=writer) as store:
            event = store.last_event()
            found.append(None if event is None else event.transaction_id)
    return found


def test_the_audit_finds_what_is_missing_and_what_is_counted_twice(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    assert audit_store(warehouse, CONTRACT, state).is_whole
    with LmdbStore.open(state / "store", CONTRACT) as store:
        store.observe(msgspec.convert(payment(1) | {"transaction_id": "nobody's"}, Transaction))
    with LmdbStore.open(state / "store", CONTRACT, writer="other") as store:
        store.observe(msgspec.convert(payment(2) | {"card_id": "late", "merchant_id": "new"}, Transaction))
    with LmdbStore.open(state / "store", CONTRACT) as store:
        store.observe(msgspec.convert(payment(3) | {"merchant_id": "newer"}, Transaction))
    audit = audit_store(warehouse, CONTRACT, state)
    assert audit.differing == 3  # the event of "main" that another has replaced as the last in flight
    assert "card" in audit.differences[0]


def test_a_go_live_that_was_killed_is_finished_by_the_next(warehouse: Warehouse, tmp_path: Path) -> None:
    """At the worst place: the old store is marked, the new one not yet in its place."""
    state, moved = tmp_path / "state", tmp_path / "moved"
    go_live(warehouse, CONTRACT, state)
    report: GoLiveReport = go_live(warehouse, CONTRACT, moved)
    with LmdbStore.open(state / "store", CONTRACT) as store:
        store.write(lambda txn: txn.put(b"moved", f"{CONTRACT.hash} ".encode(), db=store.tables["meta"]))
        (moved / "store").rename(fresh_store(state / "store"))
        store.observe(msgspec.convert(payment(1), Transaction))
    assert report.loaded == 1900
    with LmdbStore.open(state / "store", CONTRACT) as store:
        assert store.seen("live1")
    assert not fresh_store(state / "store").exists()


def test_a_store_of_another_contract_without_its_bundle_is_named(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    service = Service(patient(bundles[CONTRACT.hash], state), lambda: NOW + 10**9)
    process = starting(warehouse, state, bundles[OTHER.hash])()
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert service.decide(payment(1)).bundle_id.startswith(bundles[OTHER.hash].name[:12])
    service.close()
    with pytest.raises(StoreError, match="rebuild it"):
        LmdbStore.open(state / "store", CONTRACT)
    assert "bundle" in str(StoreMovedError(state, OTHER.hash, ""))


def test_it_is_known_whether_a_store_is_up_to_date(warehouse: Warehouse, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert not is_live(state, CONTRACT, "now")
    go_live(warehouse, CONTRACT, state, source="now")
    assert is_live(state, CONTRACT, "now")
    assert not is_live(state, CONTRACT, "later")
    assert not is_live(state, OTHER, "now")


def test_a_late_decision_is_counted_and_says_so(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    service, metrics = Service(patient(bundles[CONTRACT.hash], state), lambda: NOW + 10**9), Metrics()
    for number in (50, 30):
        metrics.decided(service.decide(payment(number) | {"card_id": "card0"}), 0.001)
    service.close()
    records = [one.record for one in read_decisions(state)]
    assert [record.is_late for record in records] == [False, True]
    assert b"fraud_decisions_late_total 1.0" in metrics.exposition()


# On Redis


@pytest.mark.parametrize("kind", ["redis", "redis_cluster"])
def test_a_service_decides_on_a_redis_that_was_filled(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, stores: Stores, kind: str
) -> None:
    state, bundle = tmp_path / "state", bundles[CONTRACT.hash]
    with stores.empty(kind) as address:
        settings = patient(bundle, state, store=address.place)
        with pytest.raises(StoreError, match="go-live --store"):
            Service(settings, lambda: NOW + 10**9)
        assert go_live_on_redis(warehouse, CONTRACT, state, address.place).loaded == 1900
        service = Service(settings, lambda: NOW + 10**9)
        for number in range(60):
            service.decide(payment(number))
        service.close()
        again = go_live_on_redis(warehouse, CONTRACT, state, address.place)
        assert (again.loaded, again.caught_up) == (0, 0)
    wanted = replayed_vectors(warehouse, tmp_path / "replayed", 60)
    records = [one.record for one in read_decisions(state)]
    assert [record.vector for record in records] == wanted


def replayed_vectors(warehouse: Warehouse, path: Path, count: int) -> list[Any]:
    load_store(warehouse, CONTRACT, path)
    with LmdbStore.open(path, CONTRACT) as store:
        return [store.observe(msgspec.convert(payment(n), Transaction)).vector for n in range(count)]


def test_a_load_of_redis_takes_in_what_was_decided_elsewhere(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, stores: Stores
) -> None:
    """The old bundle decides on while the new one's store is filled; a second go-live takes the rest."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    with stores.empty("redis") as address:
        service = Service(patient(bundles[CONTRACT.hash], state), lambda: NOW + 10**9)
        for number in range(20):
            service.decide(payment(number))
        first = go_live_on_redis(warehouse, OTHER, state, address.place)
        for number in range(20, 30):
            service.decide(payment(number))
        service.close()
        second = go_live_on_redis(warehouse, OTHER, state, address.place)
        assert (first.loaded, first.caught_up, second.loaded) == (1920, 0, 0)
        assert second.caught_up == 10
        with open_live(address.place, OTHER) as store:
            assert all(store.seen(f"live{number}") for number in range(30))


def test_a_go_live_on_redis_is_repeated_when_the_log_is_older_than_what_the_store_remembers(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, stores: Stores
) -> None:
    """Payments of one card at hours 0, 20 and, a year and a half later, 10; then one that others decided."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    remembered = Engine(CONTRACT).remembered_ms
    service = Service(patient(bundles[CONTRACT.hash], state), lambda: NOW + 2 * remembered)
    moments = [NOW, NOW + 20 * HOUR, NOW + remembered + 10 * HOUR]
    for number, moment in enumerate(moments):
        service.decide(payment(number) | {"card_id": "card0", "event_time": moment})
    service.close()
    with stores.empty("redis") as address:
        assert go_live_on_redis(warehouse, CONTRACT, state, address.place).loaded == 2
        again = go_live_on_redis(warehouse, CONTRACT, state, address.place)
        assert (again.loaded, again.caught_up, again.left_out) == (0, 0, 1)
        assert "left out 1 " in str(again)
        with open_live(address.place, CONTRACT) as store:
            others = payment(3) | {"event_time": NOW + remembered + 30 * HOUR}
            store.observe(msgspec.convert(others, Transaction))
            store.sweep(others["event_time"], limit=10_000)
            assert [store.seen(f"live{number}") for number in range(4)] == [False, False, True, True]
        again = go_live_on_redis(warehouse, CONTRACT, state, address.place)
        assert (again.caught_up, again.left_out) == (0, 2)


def test_a_go_live_on_redis_that_meets_an_event_too_late_says_what_helps(
    warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path, stores: Stores
) -> None:
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    with stores.empty("redis") as address:
        go_live_on_redis(warehouse, CONTRACT, state, address.place)
        with open_live(address.place, CONTRACT) as store:
            for day in range(4, 80):
                later = {"event_time": NOW + day * 24 * HOUR}
                store.observe(msgspec.convert(payment(100 + day) | {"card_id": "card0"} | later, Transaction))
        decide_until(state, bundles[CONTRACT.hash], days=1)
        with pytest.raises(StoreError, match=r"delete its keys \(fraud:\w+:\*\) and start it again"):
            go_live_on_redis(warehouse, CONTRACT, state, address.place)
        with open_live(address.place, CONTRACT) as store:
            drop_store(store)
        assert go_live_on_redis(warehouse, CONTRACT, state, address.place).loaded == 1902
