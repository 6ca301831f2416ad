"""features: decisions, reports and sweeps that meet at one key of the store in Redis, in every order.

What comes out of a visit is written later, where nobody else was faster: so another visit may lie in between,
and an outcome may come late, out of order or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fraud_platform.adapters.redis import RedisStore
from fraud_platform.adapters.redis_link import Command, Talk
from fraud_platform.adapters.redis_load import redis_client
from fraud_platform.adapters.redis_session import claimed
from fraud_platform.adapters.store_bytes import SeenRecord, key_bytes, seen_keys, token
from fraud_platform.errors import TooLateError
from fraud_platform.features.engine import LATENESS_MS, KeySession
from fraud_platform.features.plan import EntityPlan
from fraud_platform.schema import Transaction
from tests.oracle import DAY, HOUR, Oracle, require_equal
from tests.stores import PATIENT, StoreAddress, Stores
from tests.worlds import CONTRACT, EDGES, NOW, report, transaction

pytestmark = pytest.mark.usefixtures("carried")
every_redis = pytest.mark.parametrize("kind", ["redis", "redis_cluster"])


def opened(address: StoreAddress) -> RedisStore:
    return RedisStore.open(address.place, CONTRACT, limits=PATIENT)


def plan_of(store: RedisStore, entity: str) -> EntityPlan:
    return next(plan for plan in store.engine.plans if plan.name == entity)


@contextmanager
def outcomes_kept_from(store: RedisStore) -> Iterator[list[Command]]:
    """What the store's decisions write afterwards is held back: the list of it."""
    held: list[Command] = []

    class Slow(Talk):
        def post(self, commands: Sequence[Command]) -> None:
            held.extend(commands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.link, "talk", lambda: Slow(store.link))
        yield held


@contextmanager
def between_visit_and_outcome(store: RedisStore, work: Callable[[EntityPlan], None]) -> Iterator[None]:
    """Of each key that a sweep meets: `work` is done once the sweep has read it, before it writes."""
    settle = store.engine.settle

    def settled(plan: EntityPlan, log: KeySession, moment: int) -> None:
        settle(plan, log, moment)
        work(plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.engine, "settle", settled)
        yield


def sweep_for_months(store: RedisStore, moment: int) -> None:
    for days in range(0, 200, 10):
        store.sweep(moment + days * DAY)


def reports_kept(address: StoreAddress, store: RedisStore, card: str) -> int:
    client = redis_client(address.place)
    name = key_bytes(plan_of(store, "card"), (card,))
    kept = int(client.zcard(store.names.entity(name)[3]))
    client.close()
    return kept


@every_redis
def test_a_decision_that_meets_the_end_of_a_log_is_kept(stores: Stores, kind: str) -> None:
    """The sweep has taken in nothing; its outcome is a new version of the State all the same."""
    oracle = Oracle(CONTRACT)
    with stores.empty(kind) as address, opened(address) as store, opened(address) as other:
        card = plan_of(store, "card")
        for number in range(25):
            event = transaction(f"t{number}", NOW + number * HOUR, merchant_id=f"m{number % 3}")
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))
        moment = NOW + 24 * HOUR + card.reach + 2 * LATENESS_MS + 1
        elsewhere = transaction("elsewhere", moment, card_id="x", merchant_id="y")
        require_equal(CONTRACT, store.observe(elsewhere).vector, oracle.observe(elsewhere))
        event = transaction("meets", moment, amount_minor=777, merchant_id="z", latitude=1.0, longitude=2.0)
        left = [event]
        with outcomes_kept_from(other) as held:

            def decide(plan: EntityPlan) -> None:
                if plan.name == card.name and left:
                    require_equal(CONTRACT, other.observe(left.pop()).vector, oracle.observe(event))

            with between_visit_and_outcome(store, decide):
                store.sweep(moment)
        assert not left
        with other.link.talk() as talk:
            talk.call(held)
        for number, after in enumerate((HOUR, 2 * HOUR, 31 * DAY)):
            event = transaction(f"after{number}", moment + after, merchant_id="z")
            require_equal(CONTRACT, store.observe(event).vector, oracle.observe(event))


@every_redis
def test_a_report_that_a_sweep_has_not_seen_is_forgotten_in_time(stores: Stores, kind: str) -> None:
    with stores.empty(kind) as address, opened(address) as store:
        moment = NOW + 100 * DAY
        store.observe(transaction("a", NOW))
        label = report("a", moment)
        counted = []

        def learn(plan: EntityPlan) -> None:
            if plan.name == "card" and not counted:
                counted.append(store.learn(label))

        with between_visit_and_outcome(store, learn):
            store.sweep(moment)
        assert counted == [True]
        assert reports_kept(address, store, "c") == 1
        sweep_for_months(store, moment)
        assert reports_kept(address, store, "c") == 0


@every_redis
def test_a_report_of_what_is_forgotten_already_does_not_stay(stores: Stores, kind: str) -> None:
    with stores.empty(kind) as address, opened(address) as store:
        moment = NOW + 100 * DAY
        store.observe(transaction("a", NOW))
        while store.sweep(moment):
            moment += 1
        assert store.learn(report("a", NOW + HOUR))
        sweep_for_months(store, moment)
        assert reports_kept(address, store, "c") == 0


@every_redis
def test_sweeps_of_one_moment_come_to_an_end_after_a_late_event(stores: Stores, kind: str) -> None:
    """It lies before what its key has forgotten, so that nothing has to wait for it."""
    with stores.empty(kind) as address, opened(address) as store:
        far = NOW + 200 * DAY
        store.observe(transaction("a", NOW))
        while store.sweep(far):
            pass
        store.observe(transaction("late", NOW + 100 * DAY))
        assert sum(1 for _ in takewhile(bool, (store.sweep(far) for _ in range(20)))) < 20


def test_an_event_is_repaired_where_its_key_has_forgotten_what_was_before(stores: Stores) -> None:
    """On a cluster an owner may die between two keys, and the other one go on for months."""
    oracle = Oracle(CONTRACT)
    with stores.empty("redis_cluster") as address, opened(address) as store:
        torn = transaction("torn", NOW + 100 * DAY, card_id="c1")
        before = transaction("before", NOW, card_id="c2")
        require_equal(CONTRACT, store.observe(before).vector, oracle.observe(before))
        visits = [visit for visit in store._visits(torn) if visit[0].name == "card"]
        with store.link.talk() as talk:
            record = SeenRecord(seen_keys(torn), torn.event_time)
            talk.call([store.script.command([store.names.seen(token("torn"))], "claim", claimed(record))])
            talk.call([store._arrival("event", torn, visits)])
        after = transaction("after", NOW + 200 * DAY, card_id="c3")
        store.observe(after)
        require_equal(CONTRACT, store.observe(torn).vector, oracle.observe(torn))
        oracle.arrive(after)
        late = transaction("late", NOW + 100 * DAY + HOUR, card_id="c4")
        require_equal(CONTRACT, store.observe(late).vector, oracle.observe(late))


class Traffic:
    """Decisions of two clients about few keys, each against the definition; outcomes of theirs that wait."""

    def __init__(self, stores: Sequence[RedisStore], random: Random) -> None:
        self.clock = NOW
        self.waiting: list[list[Command]] = []
        self._stores = stores
        self._random = random
        self._oracle = Oracle(CONTRACT)
        self._observed: list[Transaction] = []

    def decide(self) -> None:
        event = self._event()
        wanted = self._oracle.vector(event)
        try:
            found = self._random.choice(self._stores).observe(event)
        except TooLateError:
            assert self.clock - event.event_time > LATENESS_MS
            return
        require_equal(CONTRACT, found.vector, wanted)
        self._oracle.arrive(event)
        self._observed.append(event)
        self.clock = max(self.clock, event.event_time)

    def learn(self) -> None:
        if self._observed:
            about = self._random.choice(self._observed[-20:])
            late = self._random.choice((0, 1, HOUR, self._random.randrange(8 * DAY)))
            label = report(about.transaction_id, min(about.event_time + late, self.clock))
            self._oracle.learn(label)
            self._random.choice(self._stores).learn(label)

    def deliver(self, most: float) -> None:
        """Some of what waits, in any order."""
        self._random.shuffle(self.waiting)
        while self.waiting and self._random.random() < most:
            with Talk(self._stores[0].link) as talk:
                talk.call(self.waiting.pop())

    def _event(self) -> Transaction:
        choice = self._random.choice
        return transaction(
            f"t{len(self._observed)}-{self._random.getrandbits(32)}",
            max(self._moment(), 0),
            card_id=choice(("c", "d")),
            merchant_id=choice(("m", "n")),
            amount_minor=choice((0, 1, 1000)),
            ip_id=choice((None, "i")),
            latitude=choice((None, 10.0, self._random.uniform(-90, 90))),
            longitude=5.0,
        )

    def _moment(self) -> int:
        kind = self._random.random()
        if kind < 0.5:
            return self.clock + self._random.choice((0, 1, HOUR, DAY))
        if kind < 0.65:  # at the edge of a window of an earlier one
            about = self._random.choice(self._observed).event_time if self._observed else self.clock
            return about + self._random.choice(EDGES) + self._random.choice((-1, 0, 1))
        if kind < 0.8:
            return self.clock - self._random.choice((1, HOUR, DAY, 2 * DAY, 33 * DAY))
        return self.clock + self._random.choice((8, 31, 33, 39, 60)) * DAY


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 1 << 32))
@example(seed=27290126)  # a late event came while a younger one was trimmed
def test_outcomes_that_wait_or_are_lost_change_no_answer(stores: Stores, seed: int) -> None:
    random = Random(seed)

    class Slow(Talk):
        def post(self, commands: Sequence[Command]) -> None:
            kind = random.random()
            if kind < 0.5:
                self.call(commands)
            elif kind < 0.9:
                traffic.waiting.append(list(commands))

    with (
        stores.empty("redis") as address,
        opened(address) as store,
        opened(address) as other,
        pytest.MonkeyPatch.context() as patch,
    ):
        traffic = Traffic((store, other), random)
        for each in (store, other):
            patch.setattr(each, "_sweep_beside", lambda moment: None)
            patch.setattr(each.link, "talk", lambda link=each.link: Slow(link))
        is_within = False

        def meanwhile(plan: EntityPlan) -> None:
            nonlocal is_within
            if is_within or random.random() < 0.5:
                return
            is_within = True
            for _ in range(random.choice((1, 1, 2, 3))):
                (traffic.learn if random.random() < 0.15 else traffic.decide)()
            traffic.deliver(0.3)
            is_within = False

        with between_visit_and_outcome(store, meanwhile):
            for _ in range(50):
                kind = random.random()
                if kind < 0.7:
                    traffic.decide()
                elif kind < 0.85:
                    traffic.learn()
                else:
                    store.sweep(traffic.clock)
                traffic.deliver(0.4)
