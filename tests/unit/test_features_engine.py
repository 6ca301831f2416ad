"""features: the engine over LMDB against the definition, recomputed from plain lists for every event."""

from __future__ import annotations

import multiprocessing
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.store_bytes import decode_state, key_bytes
from fraud_platform.errors import StoreError, TooLateError
from fraud_platform.features.aggregates import AGGREGATES
from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.features.engine import LATENESS_MS, TRIM_ENTRIES
from fraud_platform.schema import LabelEvent, Transaction
from tests.oracle import DAY, HOUR, Oracle, Vector, require_equal
from tests.worlds import CONTRACT, FIELDS, MOMENTS, NOW, OUTCOMES, report, transaction

pytestmark = pytest.mark.usefixtures("carried")
LOOKING_BACK = FeatureContract(
    CONTRACT.entities,
    tuple(
        feature
        for feature in CONTRACT.features
        if feature.kind in AGGREGATES and AGGREGATES[feature.kind].lookback is not None
    ),
)


def named(vector: Vector) -> dict[str, Any]:
    return dict(zip(CONTRACT.names, vector, strict=True))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    with LmdbStore.open(tmp_path / "store", CONTRACT) as opened:
        yield opened


# Against the oracle

TRANSACTIONS = st.builds(
    lambda transaction_id, event_time, fields: Transaction(
        transaction_id=transaction_id, event_time=event_time, **fields
    ),
    st.sampled_from([f"t{number}" for number in range(40)]),
    MOMENTS,
    FIELDS,
)
LABELS = st.builds(
    LabelEvent,
    transaction_id=st.sampled_from([f"t{number}" for number in range(42)]),
    source=st.just("chargeback"),
    outcome=OUTCOMES,
    known_at=MOMENTS,
)
RESTART = "restart"
EVENTS = st.lists(
    st.one_of(TRANSACTIONS, TRANSACTIONS, TRANSACTIONS, LABELS, st.just(RESTART)), min_size=10, max_size=40
)


def moment_of(event: Any) -> int:
    return event.event_time if isinstance(event, Transaction) else getattr(event, "known_at", 0)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.booleans())
def test_every_vector_is_the_definition(events: list[Any], is_ordered: bool) -> None:
    """Ties, edges of windows, gaps, repeats, huge amounts, reports; late events where not ordered."""
    require_definition(CONTRACT, events, is_ordered)


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.booleans())
def test_an_entity_that_only_looks_back_keeps_what_it_looks_at(events: list[Any], is_ordered: bool) -> None:
    """No feature of these entities has a window with totals."""
    require_definition(LOOKING_BACK, events, is_ordered)


def require_definition(contract: FeatureContract, events: list[Any], is_ordered: bool) -> None:
    oracle = Oracle(contract)
    answered: dict[str, Vector] = {}
    times: dict[str, int] = {}
    latest = 0
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbStore.open(Path(folder), contract)
        for event in sorted(events, key=moment_of) if is_ordered else events:
            if event == RESTART:
                store.close()
                store = LmdbStore.open(Path(folder), FeatureContract.from_json(contract.to_json()))
            elif isinstance(event, LabelEvent):
                oracle.learn(event)
                store.learn(event)
            else:
                try:
                    observation = store.observe(event)
                except TooLateError:
                    assert latest - times.get(event.transaction_id, event.event_time) > LATENESS_MS
                    continue
                assert observation.is_repeat == (event.transaction_id in answered)
                wanted = answered.get(event.transaction_id) or oracle.observe(event)
                if latest - times.get(event.transaction_id, latest) <= store.engine.retention_ms:
                    require_equal(contract, observation.vector, wanted)
                if not observation.is_repeat:
                    assert not (observation.is_late and event.event_time >= latest)
                    latest = max(latest, event.event_time)
                answered[event.transaction_id] = wanted
                times.setdefault(event.transaction_id, event.event_time)
        store.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3)), min_size=20, max_size=80), st.randoms())
def test_slightly_late_events_on_one_hot_key(arrivals: list[tuple[int, int]], random: Any) -> None:
    """What several workers do to a busy merchant: nearly in order, many within the same millisecond."""
    oracle, passed = Oracle(CONTRACT), 0
    with tempfile.TemporaryDirectory() as folder, LmdbStore.open(Path(folder), CONTRACT) as store:
        for number, (jitter, step) in enumerate(arrivals):
            passed += step * HOUR // 4
            moment = NOW + passed - jitter * HOUR // 20
            event = transaction(
                f"t{number}",
                moment,
                card_id=random.choice("abc"),
                ip_id=random.choice(["i", None]),
                amount_minor=number,
                merchant_country=random.choice(["DE", "FR", None]),
                latitude=random.choice([None, 10.0, 20.0]),
                longitude=5.0,
            )
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
            if random.random() < 0.3:
                label = report(f"t{random.randrange(number + 1)}", moment - random.randrange(3) * HOUR)
                store.learn(label)
                oracle.learn(label)


# One rule each, so that a failure has a name


@pytest.mark.parametrize("window", ["10m", "1h", "24h", "7d", "30d"])
@pytest.mark.parametrize(("offset", "is_inside"), [(-1, False), (0, True), (1, True)])
def test_a_window_reaches_back_to_exactly_its_length(
    store: LmdbStore, window: str, offset: int, is_inside: bool
) -> None:
    width = CONTRACT.features[CONTRACT.index(f"card_txn_count_{window}")].reach_ms
    store.observe(transaction("a", NOW - width + offset))
    found = named(store.observe(transaction("b", NOW)).vector)
    assert found[f"card_txn_count_{window}"] == float(is_inside)


def test_a_tie_is_not_seen(store: LmdbStore) -> None:
    for number in range(3):
        found = named(store.observe(transaction(f"t{number}", NOW)).vector)
        assert found["card_txn_count_1h"] == 0.0
        assert found["card_seconds_since_last"] is None
        assert found["is_new_merchant"] == 1.0
    assert named(store.observe(transaction("t3", NOW + 1)).vector)["card_txn_count_1h"] == 3.0


def test_a_repeated_id_gets_its_first_answer_and_counts_nothing(store: LmdbStore) -> None:
    first = store.observe(transaction("a", NOW))
    store.observe(transaction("b", NOW + 1))
    again = store.observe(transaction("a", NOW + 2, amount_minor=7))
    assert again.is_repeat
    assert again.vector == first.vector
    assert named(store.observe(transaction("c", NOW + 3)).vector)["card_txn_count_1h"] == 2.0


def test_a_late_event_is_answered_as_of_its_time_and_seen_by_later_ones(store: LmdbStore) -> None:
    for number, moment in enumerate((NOW, NOW + 1000, NOW + 5000, NOW + 9000)):
        store.observe(transaction(f"t{number}", moment))
    late = store.observe(transaction("late", NOW + 2000, amount_minor=1))
    assert late.is_late
    found = named(late.vector)
    assert found["card_txn_count_1h"] == 2.0
    # The pair of card and merchant keeps a log too: its last time before a late event was lost once.
    assert found["card_merchant_seconds_since_last"] == found["card_seconds_since_last"] == 1.0
    found = named(store.observe(transaction("next", NOW + 9500)).vector)
    assert found["card_txn_count_1h"] == 5.0
    assert found["card_amount_sum_1h"] == 401.0


def test_a_report_counts_once_at_the_moment_it_was_first_known(store: LmdbStore) -> None:
    store.observe(transaction("a", NOW))
    assert not store.learn(report("unknown", NOW + 10))
    assert store.learn(report("a", NOW + 5 * DAY))
    assert not store.learn(report("a", NOW + 6 * DAY))
    assert not store.learn(LabelEvent(transaction_id="a", source="s", outcome="legitimate", known_at=NOW + 1))
    assert named(store.observe(transaction("b", NOW + 5 * DAY)).vector)["card_fraud_reports_7d"] == 0.0
    assert named(store.observe(transaction("c", NOW + 5 * DAY + 1)).vector)["card_fraud_reports_7d"] == 1.0
    assert named(store.observe(transaction("d", NOW + 12 * DAY)).vector)["card_fraud_reports_7d"] == 1.0
    assert named(store.observe(transaction("e", NOW + 12 * DAY + 1)).vector)["card_fraud_reports_7d"] == 0.0


def test_an_earlier_report_that_arrives_later_takes_the_place_of_the_first(store: LmdbStore) -> None:
    store.observe(transaction("a", NOW))
    store.learn(report("a", NOW + 5 * DAY))
    store.observe(transaction("b", NOW + 6 * DAY))
    assert store.learn(report("a", NOW + DAY))
    assert named(store.observe(transaction("c", NOW + 8 * DAY)).vector)["card_fraud_reports_7d"] == 1.0
    assert named(store.observe(transaction("d", NOW + 8 * DAY + 1)).vector)["card_fraud_reports_7d"] == 0.0


def test_a_report_that_claims_to_be_older_than_its_transaction_changes_nothing(store: LmdbStore) -> None:
    """Its transaction would outlive it in the log."""
    oracle = Oracle(CONTRACT)
    for number, moment in enumerate((NOW, NOW + 39 * DAY)):
        event = transaction(f"t{number}", moment)
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
    early = report("t1", NOW + 32 * DAY)
    oracle.learn(early)
    assert not store.learn(early)
    for number in (71, 72):
        event = transaction(f"t{number}", NOW + number * DAY)
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))


def test_a_busy_key_is_looked_after_again_and_stays_as_it_is(store: LmdbStore) -> None:
    """One place in the calendar for each key with a log, however busy it is, and always ahead."""

    def noted() -> dict[bytes, int]:
        with store.snapshot() as txn:
            lines = [
                (name[8:], struct.unpack(">Q", name[:8])[0]) for name, _ in txn.cursor(db=store.tables["due"])
            ]
        assert len(dict(lines)) == len(lines)
        return dict(lines)

    days = 80
    for number in range(days):
        store.observe(transaction(f"t{number}", NOW + number * DAY))
        if number == 3:
            first = noted()
    assert days * DAY > store.engine.retention_ms
    assert noted().keys() == first.keys() != set()
    assert min(noted().values()) >= NOW + (days - 1) * DAY


def test_a_log_begins_with_one_transaction_too_many_and_ends_when_all_are_forgotten(store: LmdbStore) -> None:
    """Few transactions are one record, with their State; their key has no other."""
    oracle = Oracle(CONTRACT)
    card = next(plan for plan in store.engine.plans if plan.name == "card")

    def observe(name: str, moment: int, card_id: str) -> None:
        event = transaction(name, moment, card_id=card_id)
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))

    def records() -> list[int]:
        """Marks of the key's records: 0 State, 1 counts of values, 2 log."""
        prefix = key_bytes(card, ("card",))
        with store.snapshot() as txn:
            names = [bytes(name) for name in txn.cursor(db=store.tables["keys"]).iternext(values=False)]
        return [name[len(prefix)] for name in names if name.startswith(prefix)]

    few = card.recent_max
    for number in range(few):
        observe(f"t{number}", NOW + number, "card")
    assert records() == [0]
    observe("more", NOW + HOUR, "card")
    assert records().count(2) == few + 1
    assert records().count(1) > 0
    for number in range(few + 8):
        observe(f"other{number}", NOW + 2 * store.engine.retention_ms + number, "other")
    assert records() == [0]
    observe("again", NOW + 3 * store.engine.retention_ms, "card")
    assert records() == [0]


def test_a_late_event_of_a_key_that_was_forgotten_is_forgotten_again(store: LmdbStore) -> None:
    oracle = Oracle(CONTRACT)
    card = next(plan for plan in store.engine.plans if plan.name == "card")

    def observe(name: str, moment: int, card_id: str) -> None:
        event = transaction(name, moment, card_id=card_id, merchant_id=name)
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))

    def carried() -> list[int]:
        with store.snapshot() as txn:
            data = txn.get(key_bytes(card, ("card",)) + b"\x00", db=store.tables["keys"])
        recent = decode_state(data).recent
        assert recent is not None
        return recent.moments

    far = NOW + 200 * DAY
    observe("a", NOW, "card")
    for number in range(8):
        observe(f"far{number}", far + number, "other")
    assert carried() == []
    observe("late", NOW + 100 * DAY, "card")
    assert carried() == [NOW + 100 * DAY]
    for number in range(20):
        observe(f"after{number}", far + (number + 1) * 10 * DAY, f"other{number}")
    assert carried() == []


@pytest.mark.parametrize("step", [1.0, -1.0])
def test_of_a_moment_that_is_trimmed_in_part_the_greatest_place_counts(store: LmdbStore, step: float) -> None:
    oracle = Oracle(CONTRACT)
    card = next(plan for plan in store.engine.plans if plan.name == "card")
    moment = NOW + card.reach + LATENESS_MS + card.stride + DAY
    ties = [(NOW, step * number) for number in range(TRIM_ENTRIES + 6)]
    for number, (at, latitude) in enumerate([*ties, (moment, 1.0), (moment - 10, 2.0), (moment - 20, 3.0)]):
        event = transaction(f"t{number}", at, latitude=latitude, longitude=0.0, merchant_id=f"m{number}")
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))


def test_a_report_within_the_horizon_counts_a_day_later_too(store: LmdbStore) -> None:
    """Known on the horizon's last moment, delivered when the newest event is LATENESS_MS past that."""
    known_at = NOW + CONTRACT.report_horizon_ms
    oracle = Oracle(CONTRACT)
    for event in (
        transaction("earlier", NOW - 1),
        transaction("a", NOW),
        transaction("newest", known_at + LATENESS_MS),
    ):
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
    assert not store.seen("earlier")
    assert store.learn(report("a", known_at))
    oracle.learn(report("a", known_at))
    last = transaction("last", known_at + LATENESS_MS + 1)
    require_equal(CONTRACT, store.observe(last).vector, oracle.observe(last))


def test_late_events_at_the_beginning_of_all_time_are_answered(store: LmdbStore) -> None:
    """Their windows begin before 1970, and nothing was trimmed."""
    oracle = Oracle(CONTRACT)
    for number, moment in enumerate((1000, 999, DAY, 0, DAY - 1, HOUR)):
        event = transaction(f"t{number}", moment, ip_id="i", latitude=1.0, longitude=2.0)
        require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))


def test_keys_do_not_run_together(store: LmdbStore) -> None:
    store.observe(transaction("a", NOW, card_id="1", merchant_id="1:2"))
    found = named(store.observe(transaction("b", NOW + 1, card_id="11", merchant_id=":2")).vector)
    assert found["is_new_merchant"] == 1.0


def test_a_store_of_another_contract_is_refused(tmp_path: Path) -> None:
    LmdbStore.open(tmp_path, CONTRACT).close()
    with pytest.raises(StoreError, match="rebuild it"):
        LmdbStore.open(tmp_path, load_contract())


def test_an_error_in_the_middle_changes_nothing(store: LmdbStore) -> None:
    store.observe(transaction("a", NOW))
    broken = transaction("b", NOW + 1, amount_minor=1 << 70)
    with pytest.raises((OverflowError, struct.error)):
        store.observe(broken)
    assert not store.seen("b")
    assert named(store.observe(transaction("c", NOW + 2)).vector)["card_txn_count_1h"] == 1.0


# Several processes

PROCESSES, EVENTS_EACH = 3, 60


def write_alternately(path: str, number: int, answers: Any) -> None:
    """In a process of its own: every PROCESSES-th event of one card, as fast as it can."""
    with LmdbStore.open(Path(path), CONTRACT) as store:
        for moment in range(number, PROCESSES * EVENTS_EACH, PROCESSES):
            store.observe(transaction(f"t{moment}", NOW + moment, amount_minor=moment))
    answers.put(number)


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [
        context.Process(target=write_alternately, args=(str(tmp_path), number, answers))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    total = PROCESSES * EVENTS_EACH
    with LmdbStore.open(tmp_path, CONTRACT) as store:
        found = named(store.observe(transaction("last", NOW + total)).vector)
    assert found["card_txn_count_1h"] == total
    assert found["card_amount_sum_30d"] == sum(range(total))
    assert found["card_seconds_since_last"] == 0.001
