"""features: every kind of store against the definition, by a machine that tries whatever may happen to one.

What is demanded: each vector equals the definition bit for bit; a repeat gets what it got before and counts
nothing; an event may be refused only where it is more than LATENESS_MS behind, and then changes nothing.
`EXAMPLES=1000 python -m pytest tests/property` tries more timelines than the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.redis import SWEEP_EVERY, RedisStore
from fraud_platform.adapters.redis_link import plain
from fraud_platform.adapters.redis_session import known
from fraud_platform.adapters.store_bytes import token
from fraud_platform.errors import TooLateError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import LATENESS_MS, Observation
from fraud_platform.schema import LabelEvent, Transaction
from tests.oracle import DAY, HOUR, Oracle, Vector, bits, require_equal
from tests.stores import Stores, every_store
from tests.worlds import (
    BESIDE,
    CARDS,
    CONTRACT,
    EDGES,
    FIELDS,
    MERCHANT_ALONE,
    MERCHANTS,
    NOW,
    OUTCOMES,
    WINDOWS,
    transaction,
)

pytestmark = pytest.mark.usefixtures("carried")
BUDGET = settings(
    max_examples=int(os.environ.get("EXAMPLES", "40")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SPAN_MAX = CONTRACT.report_horizon_ms - 100 * DAY
"""A store forgets ids a day after the horizon of reports; within it a repeat is known."""
KEPT_MS = max(WINDOWS) + LATENESS_MS
"""For so long, by event time, a repeat gets the very vector that it got."""
ANY = st.integers(0, 1 << 20)


class FeatureStoreMachine(RuleBasedStateMachine):
    """A store and the definition side by side. clock: the newest event_time so far."""

    stores: ClassVar[Stores]
    kind: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.address = self.resources.enter_context(self.stores.empty(self.kind))
        self.store = self.address.open(CONTRACT)
        self.oracle = Oracle(CONTRACT)
        self.answered: dict[str, tuple[Transaction, Vector]] = {}
        self.refused: list[Transaction] = []
        self.late: set[str] = set()
        self.clock = NOW
        self.ids = 0

    @initialize(fields=FIELDS)
    def first(self, fields: dict[str, Any]) -> None:
        self.observe_new(self.clock, fields)

    @rule(anchor=ANY, edge=st.sampled_from(EDGES), beside=st.sampled_from(BESIDE), fields=FIELDS)
    def at_an_edge_of_a_window(self, anchor: int, edge: int, beside: int, fields: dict[str, Any]) -> None:
        """Exactly a window after an earlier event, or a millisecond beside it; late by a day at the most."""
        earlier = self.oracle.transactions[anchor % len(self.oracle.transactions)]
        moment = earlier.event_time + edge + beside
        self.observe_new(max(moment, self.clock - LATENESS_MS), fields)

    @rule(step=st.sampled_from((0, 0, 1, 1000, HOUR, DAY)), fields=FIELDS)
    def next(self, step: int, fields: dict[str, Any]) -> None:
        self.observe_new(self.clock + step, fields)

    @rule(behind=st.sampled_from((1, 2, 1000, HOUR - 1, HOUR, HOUR + 1, DAY - 1, DAY)), fields=FIELDS)
    def late(self, behind: int, fields: dict[str, Any]) -> None:
        self.observe_new(self.clock - behind, fields)

    @rule(behind=st.sampled_from((DAY + 1, 2 * DAY, 8 * DAY, 31 * DAY, 32 * DAY, 90 * DAY)), fields=FIELDS)
    def very_late(self, behind: int, fields: dict[str, Any]) -> None:
        self.observe_new(self.clock - behind, fields)

    @precondition(lambda self: self.refused)
    @rule(number=ANY)
    def refused_again(self, number: int) -> None:
        """It was not counted, so that it is no repeat."""
        again = self.refused[number % len(self.refused)]
        if again.transaction_id not in self.answered:
            self.observe(again)

    @precondition(lambda self: self.clock < NOW + SPAN_MAX - 120 * DAY)
    @rule(days=st.integers(1, 90), beside=st.sampled_from(BESIDE), fields=FIELDS)
    def jump(self, days: int, beside: int, fields: dict[str, Any]) -> None:
        """Nothing for weeks: windows run empty, logs are trimmed, vectors forgotten."""
        self.observe_new(self.clock + days * DAY + beside, fields)

    @rule(number=ANY, recent=st.booleans())
    def repeat(self, number: int, recent: bool) -> None:
        known, _ = self.pick(number, recent)
        self.observe_repeat(known)

    @rule(number=ANY, step=st.sampled_from((-DAY, -1, 0, 1, DAY)), fields=FIELDS)
    def repeat_with_other_content(self, number: int, step: int, fields: dict[str, Any]) -> None:
        known, _ = self.pick(number, recent=True)
        self.observe_repeat(
            Transaction(
                transaction_id=known.transaction_id, event_time=max(0, known.event_time + step), **fields
            )
        )

    @rule(
        number=ANY,
        recent=st.booleans(),
        outcome=OUTCOMES,
        behind=st.sampled_from((0, 0, 1, HOUR, DAY, 7 * DAY, -1, -HOUR)),
    )
    def label(self, number: int, recent: bool, outcome: Any, behind: int) -> None:
        """Known about now; a second one may have been known earlier than the first."""
        known, _ = self.pick(number, recent)
        self.learn(known.transaction_id, outcome, max(0, self.clock - behind))

    @rule(number=ANY, outcome=OUTCOMES, edge=st.sampled_from(EDGES), beside=st.sampled_from(BESIDE))
    def label_at_an_edge(self, number: int, outcome: Any, edge: int, beside: int) -> None:
        """Known a window after its transaction, whenever that was."""
        known, _ = self.pick(number, recent=False)
        self.learn(known.transaction_id, outcome, min(known.event_time + edge + beside, self.clock))

    @rule(outcome=OUTCOMES)
    def label_of_nothing_known(self, outcome: Any) -> None:
        assert not self.learn("unknown", outcome, self.clock)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = self.address.open(FeatureContract.from_json(CONTRACT.to_json()))

    @rule(
        length=st.sampled_from((3, 6, 12, 70)),
        step=st.sampled_from((0, 0, 1, HOUR // 5)),
        card=st.sampled_from(CARDS),
        fields=FIELDS,
    )
    def burst(self, length: int, step: int, card: str, fields: dict[str, Any]) -> None:
        """A hot key: more ties than wait in a State, more entries than one event trims."""
        start = self.clock
        for number in range(length):
            several = {"card_id": card, "amount_minor": number, "merchant_country": f"country{number % 7}"}
            self.observe_new(start + number * step, fields | several)

    def teardown(self) -> None:
        """What is never asked again must be right as well: every key is asked at the end."""
        try:
            for number, merchant in enumerate(MERCHANTS):
                for card in CARDS:
                    probe = {"card_id": card, "merchant_id": merchant, "ip_id": "a", "customer_id": "a"}
                    self.observe(transaction(f"probe{number}{card}", self.clock + 1, device_id="a", **probe))
        finally:
            self.store.close()
            self.resources.close()

    # What is done and demanded

    def pick(self, number: int, recent: bool) -> tuple[Transaction, Vector]:
        known = list(self.answered.values())
        if recent:
            known = [pair for pair in known if pair[0].event_time >= self.clock - KEPT_MS]
        return known[number % len(known)]

    def observe_new(self, moment: int, fields: dict[str, Any]) -> None:
        self.ids += 1
        self.observe(Transaction(transaction_id=str(self.ids), event_time=max(0, moment), **fields))

    def observe(self, event: Transaction) -> None:
        wanted = self.oracle.vector(event)
        try:
            found = self._answer(event)
        except TooLateError:
            assert self.clock - event.event_time > LATENESS_MS
            self.refused.append(event)
            return
        assert not found.is_repeat
        assert not (found.is_late and event.event_time > self.clock)
        require_equal(CONTRACT, found.vector, wanted)
        self.oracle.arrive(event)
        self.answered[event.transaction_id] = event, wanted
        if found.is_late:
            self.late.add(event.transaction_id)
        self.clock = max(self.clock, event.event_time)

    def observe_repeat(self, event: Transaction) -> None:
        first, wanted = self.answered[event.transaction_id]
        is_kept = self.clock - first.event_time <= KEPT_MS
        try:
            found = self._answer(event)
        except TooLateError:
            assert not is_kept
            return
        assert found.is_repeat
        assert found.is_late == (event.transaction_id in self.late)
        if is_kept:
            require_equal(CONTRACT, found.vector, wanted)
        else:
            assert bits(found.vector) in (bits(wanted), bits(self.oracle.vector(first)))

    def _answer(self, event: Transaction) -> Observation:
        """What a store forgets in a thread of its own it has forgotten before the next step: a timeline that
        is run again has to meet the same refusals."""
        found = self.store.observe(event)
        if isinstance(self.store, RedisStore):
            self.store.flush()
        return found

    def learn(self, transaction_id: str, outcome: Any, known_at: int) -> bool:
        event = LabelEvent(transaction_id=transaction_id, source="s", outcome=outcome, known_at=known_at)
        before = dict(self.oracle.reported)
        self.oracle.learn(event)
        is_counted = self.store.learn(event)
        assert is_counted == (self.oracle.reported != before)
        return is_counted


@every_store
def test_whatever_happens_to_a_store_it_answers_with_the_definition(kind: str, stores: Stores) -> None:
    machine: Callable[[], RuleBasedStateMachine] = type(
        f"Machine_{kind}", (FeatureStoreMachine,), {"kind": kind, "stores": stores}
    )
    run_state_machine_as_test(machine, settings=BUDGET)


@every_store
def test_what_was_late_stays_late_when_its_vector_is_forgotten(kind: str, stores: Stores) -> None:
    """A repeat is then answered from the log, which has to say how the first one was answered."""
    with stores.empty(kind) as address:
        store = address.open(MERCHANT_ALONE)
        for name, moment in (("first", NOW), ("late", NOW - HOUR)):
            store.observe(transaction(name, moment))
        moment = NOW + KEPT_MS + 2 * HOUR
        for number in range(4 * SWEEP_EVERY):
            store.observe(transaction(f"t{number}", moment, card_id="other", merchant_id="other"))
            store.flush()
        if isinstance(store, LmdbStore):
            with store.snapshot() as txn:
                assert txn.stat(store.tables["vectors"])["entries"] == 4 * SWEEP_EVERY
        else:
            assert isinstance(store, RedisStore)
            with store.link.talk() as talk:
                kept = talk.call([plain("GET", store.names.seen(token(name))) for name in ("first", "late")])
            assert [known(data).vector for data in kept] == [None, None]
        found = [store.observe(transaction(name, NOW)) for name in ("first", "late")]
        assert [(one.is_repeat, one.is_late) for one in found] == [(True, False), (True, True)]
        store.close()
