"""features: what only the store in Redis has to prove: waits, lost messages, lost scripts, time-outs, sweeps.

That it answers with the definition, for several processes and after kills, is tested for every kind of store
in tests/property and tests/integration/test_features_*.py.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.redis import FORMAT, SWEEP_AT_ONCE, SWEEP_KEYS, RedisStore
from fraud_platform.adapters.redis_link import Limits
from fraud_platform.adapters.redis_load import copy_store
from fraud_platform.adapters.redis_session import claimed, pack_vector, unpack_vector
from fraud_platform.adapters.store_bytes import SeenRecord, seen_keys, token
from fraud_platform.errors import StoreError, TooLateError
from fraud_platform.features.contract import load_contract
from fraud_platform.features.engine import LATENESS_MS
from fraud_platform.features.recent import TOKEN_BYTES
from fraud_platform.schema import LabelEvent, Transaction
from tests.oracle import DAY, HOUR, Oracle, Vector, require_equal
from tests.servers import free_port, missing_redis, redis_cluster, redis_says, redis_server
from tests.stores import PATIENT, StoreAddress, Stores
from tests.worlds import CONTRACT, FIELDS, MERCHANT_ALONE, MOMENTS, NOW, OUTCOMES, report, transaction

pytestmark = pytest.mark.usefixtures("carried")
every_redis = pytest.mark.parametrize("kind", ["redis", "redis_cluster"])
QUIET_SECONDS = 0.2
"""A client that sends nothing for so long waits for an answer."""
PATIENCE_SECONDS = 120.0


def opened(address: StoreAddress, **changes: Any) -> RedisStore:
    return RedisStore.open(address.place, CONTRACT, limits=PATIENT, **changes)


def named(vector: Vector) -> dict[str, Any]:
    return dict(zip(CONTRACT.names, vector, strict=True))


def port_of(address: StoreAddress) -> int:
    return int(address.place.rpartition(":")[2])


# Against the oracle, many events under way at once

EVENTS = st.lists(
    st.one_of(
        st.builds(
            lambda number, moment, fields: Transaction(
                transaction_id=f"t{number}", event_time=moment, **fields
            ),
            st.integers(0, 40),
            MOMENTS,
            FIELDS,
        ),
        st.builds(
            LabelEvent,
            transaction_id=st.sampled_from([f"t{number}" for number in range(42)]),
            source=st.just("chargeback"),
            outcome=OUTCOMES,
            known_at=MOMENTS,
        ),
    ),
    min_size=10,
    max_size=80,
)


def moment_of(event: Transaction | LabelEvent) -> int:
    return event.event_time if isinstance(event, Transaction) else event.known_at


@every_redis
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_a_replay_answers_with_the_definition(stores: Stores, kind: str, events: list[Any]) -> None:
    oracle = Oracle(CONTRACT)
    answered: dict[str, Vector] = {}
    events = sorted(events, key=moment_of)
    with stores.empty(kind) as address, opened(address) as store:
        for event, answer in zip(events, store.observe_all(events), strict=True):
            if isinstance(event, LabelEvent):
                assert answer is None
                oracle.learn(event)
                continue
            assert answer is not None
            assert answer.is_repeat == (event.transaction_id in answered)
            wanted = answered.get(event.transaction_id) or oracle.observe(event)
            require_equal(CONTRACT, answer.vector, wanted)
            answered[event.transaction_id] = wanted


# Waits


class Gate:
    """A proxy that holds a server's replies back until the client waits for them. It counts how often,
    and the most scripts that a client sent at once."""

    def __init__(self, port: int) -> None:
        self.waits = 0
        self.scripts_at_once = 0
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def waits_so_far(self) -> int:
        """Once nothing is held back any more."""
        time.sleep(3 * QUIET_SECONDS)
        return self.waits

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        self._listening.close()
        server = socket.create_connection(("127.0.0.1", self._port))
        held = b""
        with client, server:
            while True:
                readable, _, _ = select.select([client, server], [], [], QUIET_SECONDS)
                if client in readable:
                    sent = client.recv(1 << 20)
                    if not sent:
                        return
                    self.scripts_at_once = max(self.scripts_at_once, sent.count(b"EVALSHA"))
                    server.sendall(sent)
                elif server in readable:
                    held += server.recv(1 << 20)
                elif held:
                    self.waits += 1
                    client.sendall(held)
                    held = b""


def test_a_decision_waits_for_one_answer(stores: Stores) -> None:
    with stores.empty("redis") as address:
        gate = Gate(port_of(address))
        with RedisStore.open(f"redis://127.0.0.1:{gate.port}", CONTRACT, limits=PATIENT) as store:
            store.observe(transaction("loads the script", NOW, latitude=1.0, longitude=2.0))
            for number, hours in enumerate((1, 30, 29, 29, 800, 799, 801)):
                before = gate.waits_so_far()
                store.observe(transaction(f"t{number}", NOW + hours * HOUR, ip_id="i", device_id="d"))
                assert gate.waits - before == 1
            before = gate.waits_so_far()
            assert store.observe(transaction("t1", NOW)).is_repeat
            assert gate.waits - before == 1


# What is lost on the way


@every_redis
def test_an_event_whose_outcome_is_lost_is_taken_in_by_the_next_visitor(stores: Stores, kind: str) -> None:
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store:
        for number in range(12):
            event = transaction(f"t{number}", NOW + number * 50 * HOUR, ip_id="i", amount_minor=number)
            wanted = oracle.observe(event)
            if number % 3 == 1:  # A client that dies before it has computed anything.
                arrive = store._arrive_on_cluster if kind == "redis_cluster" else store._arrive
                with store.link.talk() as talk:
                    arrive(talk, [event], [store._visits(event)])
                again = store.observe(event)
                assert again.is_repeat
                require_equal(CONTRACT, again.vector, wanted)
                assert store.observe(event).vector == again.vector
            else:
                require_equal(CONTRACT, store.observe(event).vector, wanted)


@every_redis
def test_an_event_that_reached_some_of_its_keys_reaches_all_when_it_is_sent_again(
    stores: Stores, kind: str
) -> None:
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store:
        for number in range(4):
            event = transaction(f"t{number}", NOW + number * HOUR // 2, ip_id="i", amount_minor=number)
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
        torn = transaction("torn", NOW + 3 * HOUR, ip_id="i")
        record = SeenRecord(seen_keys(torn), torn.event_time)
        with store.link.talk() as talk:
            name = store.names.seen(token("torn"))
            talk.call([store.script.command([name], "claim", claimed(record))])
            talk.call([store._arrival("event", torn, store._visits(torn)[:1])])
        again = store.observe(transaction("torn", NOW + 9 * HOUR, ip_id="other"))
        assert again.is_repeat
        oracle.observe(torn)
        last = transaction("last", NOW + 4 * HOUR, ip_id="i")
        require_equal(CONTRACT, store.observe(last).vector, oracle.observe(last))


def test_an_owner_that_is_slower_than_the_repeat_counts_nothing_twice(stores: Stores) -> None:
    """On a cluster the id is claimed a step before the keys: a repeat may be done in between."""
    oracle = Oracle(CONTRACT)
    with stores.empty("redis_cluster") as address, opened(address) as store:
        for number in range(4):
            event = transaction(f"t{number}", NOW + number * HOUR // 2, ip_id="i")
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
        slow = transaction("slow", NOW + 2 * HOUR, ip_id="i")
        visits = [store._visits(slow)]
        with store.link.talk() as talk:
            assert store._claimed(talk, [slow], visits) == [None]
        assert store.observe(slow).is_repeat
        commands = [store._arrival("event", slow, [visit]) for visit in visits[0]]
        with store.link.talk() as talk:
            plans = [plan for plan, _, _ in visits[0]]
            for plan, (kind, *_) in zip(plans, talk.call(commands), strict=True):
                assert (kind == b"there") == plan.has_log
        oracle.observe(slow)
        last = transaction("last", NOW + 3 * HOUR, ip_id="i")
        require_equal(CONTRACT, store.observe(last).vector, oracle.observe(last))


@every_redis
def test_a_report_that_reached_some_keys_counts_once_when_it_is_sent_again(stores: Stores, kind: str) -> None:
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store:
        first = transaction("a", NOW, ip_id="i")
        require_equal(CONTRACT, store.observe(first).vector, oracle.observe(first))
        plan, name, _ = store._visits(first)[0]
        assert plan.has_reports
        with store.link.talk() as talk:
            arguments = "report", token("a"), NOW + HOUR, ""
            talk.call([store.script.command(store.names.entity(name), *arguments)])
        label = report("a", NOW + HOUR)
        assert store.learn(label)
        assert not store.learn(label)
        oracle.learn(label)
        last = transaction("last", NOW + 2 * HOUR, ip_id="i")
        require_equal(CONTRACT, store.observe(last).vector, oracle.observe(last))


@every_redis
def test_a_server_that_lost_the_script_gets_it_again(stores: Stores, kind: str) -> None:
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store:
        for number in range(6):
            event = transaction(f"t{number}", NOW + number * HOUR)
            for _, port in store.link.masters():
                assert redis_says(port or port_of(address), "SCRIPT", "FLUSH") == "OK"
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
            require_equal(CONTRACT, store.observe(event).vector, store.observe(event).vector)


def test_a_killed_master_is_replaced_and_its_events_count_once(tmp_path: Path) -> None:
    reason = missing_redis()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    oracle = Oracle(CONTRACT)
    with replicated(tmp_path) as (ports, master):
        store = RedisStore.open(f"redis+cluster://127.0.0.1:{ports[0]}", CONTRACT, limits=PATIENT)
        events = [
            transaction(f"t{number}", NOW + number * HOUR, card_id=f"c{number % 7}", ip_id="i")
            for number in range(60)
        ]
        for number, event in enumerate(events):
            if number == 30:
                assert int(redis_says(master, "WAIT", "1", "5000")) == 1
                redis_says(master, "SHUTDOWN", "NOSAVE")
            require_equal(CONTRACT, until_answered(store, event), oracle.observe(event))
        for event in events:
            assert store.observe(event).is_repeat
        store.close()


@contextmanager
def replicated(folder: Path) -> Iterator[tuple[list[int], int]]:
    """A cluster whose second master has a replica; gives its ports and that master's."""
    replicas = redis_server(folder / "replica", is_of_cluster=True)
    with redis_cluster(folder / "masters") as ports, replicas as replica:
        for port in (*ports, replica):
            redis_says(port, "CONFIG", "SET", "cluster-node-timeout", "1000")
        joining = "--cluster", "add-node", f"127.0.0.1:{replica}", f"127.0.0.1:{ports[0]}", "--cluster-slave"
        redis_says(ports[0], *joining, "--cluster-master-id", redis_says(ports[1], "CLUSTER", "MYID"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "state=online" not in redis_says(ports[1], "INFO", "replication"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield ports, ports[1]


def until_answered(store: RedisStore, event: Transaction) -> Vector:
    """As a caller does that sends an event again after an error."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return store.observe(event).vector
        except StoreError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


# Limits and errors


def test_a_server_that_is_silent_gives_an_error_in_time_and_the_event_counts_once(stores: Stores) -> None:
    with stores.empty("redis") as address:
        limits = Limits(connect_s=1.0, command_s=0.05)
        with RedisStore.open(address.place, CONTRACT, limits=limits) as store:
            store.observe(transaction("a", NOW))
            assert redis_says(port_of(address), "CLIENT", "PAUSE", "400", "ALL") == "OK"
            with pytest.raises(StoreError, match=r"no answer within 50 ms.*counts once"):
                store.observe(transaction("b", NOW + 1))
            assert redis_says(port_of(address), "PING") == "PONG"
        with opened(address) as store:
            store.observe(transaction("b", NOW + 1))
            found = named(store.observe(transaction("c", NOW + 2)).vector)
            assert found["card_txn_count_1h"] == 2.0


def test_no_more_connections_than_allowed(stores: Stores) -> None:
    limits = Limits(connect_s=5.0, command_s=5.0, connections=1, wait_s=0.01)
    with (
        stores.empty("redis") as address,
        RedisStore.open(address.place, CONTRACT, limits=limits) as store,
    ):
        with held(store), pytest.raises(StoreError, match="all 1 connections are busy"):
            store.observe(transaction("a", NOW))
        assert not store.observe(transaction("a", NOW)).is_repeat


@contextmanager
def held(store: RedisStore) -> Iterator[None]:
    """A conversation that keeps its connection."""
    with store.link.talk() as talk:
        talk.call([store.script.command([store.names.seen(b"x")], "unclaim")])
        yield


def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    with pytest.raises(StoreError, match=f"127.0.0.1:{port}.*start the server"):
        RedisStore.open(f"redis://127.0.0.1:{port}", CONTRACT)
    with pytest.raises(StoreError, match="no node of the cluster answers"):
        RedisStore.open(f"redis+cluster://127.0.0.1:{port}", CONTRACT)
    with pytest.raises(StoreError, match="redis\\+cluster://host:port"):
        RedisStore.open("http://127.0.0.1", CONTRACT)


def test_a_server_on_the_same_machine_is_reached_by_its_socket(tmp_path: Path) -> None:
    if reason := missing_redis():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with (
        TemporaryDirectory(prefix="socket-") as short,
        redis_server(tmp_path / "server", "--unixsocket", f"{short}/redis"),
        RedisStore.open(f"unix://{short}/redis", CONTRACT, limits=PATIENT) as store,
    ):
        store.observe(transaction("a", NOW))
        assert named(store.observe(transaction("b", NOW + 1)).vector)["card_txn_count_1h"] == 1.0


@every_redis
def test_a_store_of_another_contract_is_refused_and_namespaces_are_apart(stores: Stores, kind: str) -> None:
    with stores.empty(kind) as address, opened(address) as store:
        store.observe(transaction("a", NOW))
        with pytest.raises(StoreError, match="rebuild it"):
            RedisStore.open(address.place, load_contract(), limits=PATIENT)
        with opened(address, namespace="other") as other:
            assert not other.seen("a")
            assert store.seen("a")
        assert store.meta("format") == FORMAT


@every_redis
def test_late_events_at_the_beginning_of_all_time_are_answered(stores: Stores, kind: str) -> None:
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store:
        for number, moment in enumerate((1000, 999, DAY, 0, DAY - 1, HOUR)):
            event = transaction(f"t{number}", moment, ip_id="i", latitude=1.0, longitude=2.0)
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))


@every_redis
def test_an_event_that_comes_too_late_changes_nothing(stores: Stores, kind: str) -> None:
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store:
        for number in range(80):
            event = transaction(f"t{number}", NOW + number * DAY)
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
        with pytest.raises(TooLateError, match="rebuild the store"):
            store.observe(transaction("late", NOW + DAY, merchant_id="new"))
        assert not store.seen("late")
        event = transaction("next", NOW + 81 * DAY, merchant_id="new")
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))


# What is forgotten


@every_redis
def test_a_sweep_forgets_what_no_event_needs_and_nothing_else(stores: Stores, kind: str) -> None:
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store:
        for number in range(30):
            event = transaction(f"t{number}", NOW + number * HOUR, card_id=f"c{number % 3}", ip_id="i")
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
        store.learn(report("t3", NOW + 5 * HOUR))
        oracle.learn(report("t3", NOW + 5 * HOUR))
        store.sweep(NOW + 2 * DAY)
        assert transactions_kept(store) > 0
        moment = NOW + 2 * DAY + store.engine.retention_ms + LATENESS_MS
        while store.sweep(moment):
            moment += LATENESS_MS
        assert transactions_kept(store) == 0
        with pytest.raises(TooLateError):
            store.observe(transaction("t3", NOW))
        assert store.seen("t3")
        event = transaction("after", moment, card_id="c1", ip_id="i")
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
        horizon = NOW + 3 * HOUR + CONTRACT.report_horizon_ms + LATENESS_MS
        while store.sweep(horizon):
            pass
        assert store.seen("t3")
        horizon = moment + CONTRACT.report_horizon_ms + LATENESS_MS + 2 * HOUR
        while store.sweep(horizon):
            horizon += LATENESS_MS
        assert not store.seen("t3")


def test_a_sweep_keeps_a_server_busy_for_a_few_scripts_at_once(stores: Stores) -> None:
    with stores.empty("redis") as address:
        with opened(address) as store:
            for number in range(SWEEP_KEYS):
                store.observe(
                    transaction(f"t{number}", NOW + number, card_id=f"c{number}", ip_id=f"i{number}")
                )
            store.flush()
        gate = Gate(port_of(address))
        moment = NOW + 2 * DAY + store.engine.retention_ms + LATENESS_MS
        with RedisStore.open(f"redis://127.0.0.1:{gate.port}", CONTRACT, limits=PATIENT) as store:
            assert store.sweep(moment) >= 2 * SWEEP_KEYS
        assert 1 < gate.scripts_at_once <= SWEEP_AT_ONCE


def transactions_kept(store: RedisStore) -> int:
    """Those in logs, and those that States carry along for as long as a window can hold them."""
    total = 0
    for _, port in store.link.masters():
        port = port or int(store.url.rpartition(":")[2])
        for name in redis_says(port, "--scan", "--pattern", "*:t").split():
            total += int(redis_says(port, "ZCARD", name))
        for name in redis_says(port, "--scan", "--pattern", "*:s").split():
            entity = bytes.fromhex(name[name.index("{") + 1 : name.index("}")])
            if not store.engine.plan(entity[0]).is_kept:
                total += int(redis_says(port, "HSTRLEN", name, "n")) // TOKEN_BYTES
    return total


@every_redis
def test_a_copy_of_an_embedded_store_goes_on_where_that_one_was(
    stores: Stores, kind: str, tmp_path: Path
) -> None:
    oracle = Oracle(CONTRACT)
    with (
        stores.empty(kind) as address,
        opened(address) as store,
        LmdbStore.open(tmp_path / "store", CONTRACT) as source,
    ):
        events = [
            transaction(
                f"t{number}",
                NOW + number * 7 * HOUR,
                card_id=f"c{number % 3}",
                ip_id="i",
                amount_minor=number,
                latitude=1.0 if number % 2 else None,
                longitude=2.0,
            )
            for number in range(160)
        ]
        answered = {}
        for number, event in enumerate(events[:120]):
            answered[event.transaction_id] = source.observe(event).vector
            oracle.observe(event)
            if number % 10 == 9:
                label = report(f"t{number - 5}", event.event_time + 1)
                source.learn(label)
                oracle.learn(label)
        assert copy_store(source, store) > 120
        for event in events[100:120]:
            again = store.observe(event)
            assert again.is_repeat
            assert again.vector == answered[event.transaction_id]
        for event in events[120:]:
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
        with pytest.raises(StoreError, match="copy between stores of one contract"):
            copy_store(source, RedisStore.open(address.place, load_contract(), namespace="o", limits=PATIENT))


@every_redis
def test_a_copy_knows_what_was_late_and_has_no_vector_any_more(
    stores: Stores, kind: str, tmp_path: Path
) -> None:
    with (
        stores.empty(kind) as address,
        RedisStore.open(address.place, MERCHANT_ALONE, limits=PATIENT) as store,
        LmdbStore.open(tmp_path / "store", MERCHANT_ALONE) as source,
    ):
        for name, moment in (("first", NOW), ("late", NOW - HOUR)):
            source.observe(transaction(name, moment))
        moment = NOW + source.engine.retention_ms + HOUR
        for number in range(2):
            source.observe(transaction(f"t{number}", moment, card_id="other", merchant_id="other"))
        copy_store(source, store)
        found = [store.observe(transaction(name, NOW)) for name in ("first", "late")]
        assert [(one.is_repeat, one.is_late) for one in found] == [(True, False), (True, True)]


@every_redis
def test_a_sweep_meets_no_key_that_is_busy(stores: Stores, kind: str) -> None:
    days = 80
    with stores.empty(kind) as address, opened(address) as store:
        assert days * DAY > 2 * store.engine.retention_ms
        for day in range(days):
            store.observe(transaction(f"t{day}", NOW + day * DAY))
        with store.link.talk() as talk:
            assert store._sweep_keys(talk, NOW + days * DAY, SWEEP_KEYS) == 0
            assert store._sweep_keys(talk, NOW + days * DAY + store.engine.retention_ms * 2, SWEEP_KEYS) > 0


@every_redis
def test_a_copy_knows_the_moments_and_late_marks_of_what_was_observed(
    stores: Stores, kind: str, tmp_path: Path
) -> None:
    """A log of moments alone lacks those on LMDB that the State knows, and has no names for the others."""
    oracle = Oracle(CONTRACT)

    def observe(store: RedisStore | LmdbStore, event: Transaction) -> bool:
        wanted, found = oracle.observe(event), store.observe(event)
        require_equal(CONTRACT, found.vector, wanted)
        return found.is_late

    with (
        stores.empty(kind) as address,
        opened(address) as store,
        LmdbStore.open(tmp_path / "store", CONTRACT) as source,
    ):
        observe(source, transaction("old", NOW - 90 * DAY, merchant_id="idle"))
        for number in range(6):
            observe(source, transaction(f"t{number}", NOW + number * 1000))
        late = transaction("late", NOW + 2500)
        assert observe(source, late)
        copy_store(source, store)
        assert store.observe(late).is_late
        assert not store.observe(transaction("t5", NOW + 5000)).is_late
        observe(store, transaction("behind the copy", NOW + 5500))
        for number in range(6, 9):
            observe(store, transaction(f"t{number}", NOW + number * 1000))
            observe(store, transaction(f"idle{number}", NOW + number * 1000, merchant_id="idle"))
        for behind in range(500, 8000, 1000):
            assert observe(store, transaction(f"late{behind}", NOW + behind))
        assert observe(store, transaction("before idle", NOW, merchant_id="idle"))
        moment = NOW + store.engine.retention_ms + 4 * LATENESS_MS
        while store.sweep(moment):
            moment += LATENESS_MS
        assert transactions_kept(store) == 0


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False), st.text(), st.integers(0, 9).map(float))))
def test_a_packed_vector_comes_back_bit_for_bit(values: list[Any]) -> None:
    back = unpack_vector(pack_vector(tuple(values)))
    assert [repr(value) for value in back] == [repr(value) for value in values]
