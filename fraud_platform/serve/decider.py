"""One request, one decision: validate, observe, judge, record, and only then answer. And always an answer.

The ladder, best first, is `record.Tier`. A part that fails or is slow costs its rung and not the answer; what
it was stands in `faults`. What could not be observed or recorded in time is left to `catch_up`.

Belongs here: the order of these steps, and what a repeated or contradictory request gets.
Does not belong here: HTTP (`adapters.http`), threads (`adapters.lane`), files (`adapters.journal`), the
judgement itself (`judge`).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Set
from functools import partial
from time import perf_counter_ns
from typing import NamedTuple

from fraud_platform.errors import (
    DecisionLogError,
    RequestError,
    StoreError,
    StoreMovedError,
    TooLateError,
    in_short,
)
from fraud_platform.exploration import Venture
from fraud_platform.package import Bundle
from fraud_platform.schema import Action, LabelEvent, Transaction
from fraud_platform.serve.breaker import Breaker
from fraud_platform.serve.capacity import Wish
from fraud_platform.serve.case import Case
from fraud_platform.serve.catch_up import CatchUp, Records, with_sequence
from fraud_platform.serve.exploration import Taken, taken
from fraud_platform.serve.judge import Closed, Judge, Judgement, Vector
from fraud_platform.serve.parts import Capacities, Journal, Spill, Store, Ventures
from fraud_platform.serve.record import Decision, DecisionRecord, LabelRecord, Timings
from fraud_platform.serve.requests import (
    Request,
    canonical,
    check_known_after,
    parse_label,
    parse_transaction,
)

DEADLINE_MS = 50
RECENT_MAX = 10_000
"""Decisions that a repeat is answered from, even where the log cannot be read."""

logger = logging.getLogger("fraud_platform.decider")


class ConflictError(RequestError):
    """The id is known with other content."""


class Learned(NamedTuple):
    """A label event that was taken in; whether its transaction was decided here."""

    event: LabelEvent
    is_transaction_known: bool


class Decider:
    """Decides with one bundle, one store and one journal. For one thread, except `open_case` and `fall_back`.

    clock: the present in ms UTC; has_jumped: whether the wall's clock disagrees with it; capacity: None where
    every action may be had; exploration: None explores nothing, whatever the policy says; on_explored: is
    told of each explored record, once; standing: faults of every decision, for as long as they are in the
    set; past: the log's records, in order. behind: what is to be made up for.
    """

    def __init__(
        self,
        judge: Judge,
        store: Store,
        journal: Journal,
        spill: Spill,
        clock: Callable[[], int],
        *,
        capacity: Capacities | None = None,
        exploration: Ventures | None = None,
        on_explored: Callable[[DecisionRecord], object] = lambda record: None,
        standing: Set[str] = frozenset(),
        past: Records = lambda: iter(()),
        deadline_ms: int = DEADLINE_MS,
        has_jumped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal = journal
        self._spill = spill
        self._clock = clock
        self._capacity = capacity
        self._exploration = exploration
        self._on_explored = on_explored
        self._standing = standing
        self._has_jumped = has_jumped
        self._deadline_ns = deadline_ms * 1_000_000
        self._recent: OrderedDict[str, DecisionRecord] = OrderedDict()
        self._store_breaker = Breaker(self._deadline_ns // 2)
        self._model_breaker = Breaker(self._deadline_ns // 2)
        self.behind = CatchUp(store, journal, spill, self._store_breaker, past, self._recent.values)
        self.stage = ""
        """The part that is at work: `log`, `store`, `model`; empty between requests."""
        self.adopt(judge)

    def adopt(self, judge: Judge) -> Judge:
        """Goes on with another bundle from the next request on; the judge that was replaced."""
        replaced = getattr(self, "judge", judge)
        self.judge = judge
        self._extras = frozenset(
            feature.name.removeprefix("extra_")
            for feature in judge.bundle.contract.features
            if feature.name.startswith("extra_")
        )
        return replaced

    @property
    def bundle(self) -> Bundle:
        return self.judge.bundle

    @property
    def store(self) -> Store:
        return self.behind.store

    @store.setter
    def store(self, store: Store) -> None:
        self.behind.store = store

    def decide(self, request: Request) -> Decision:
        """The decision on a transaction, recorded before it is returned.

        A transaction that was decided before gets the recorded decision. RequestError when the request is
        invalid, ConflictError when its id is known with other content, TooLateError when its time is out of
        every store's reach; none of them leaves a trace.
        """
        return self.conclude(self.open_case(request))

    def open_case(self, request: Request) -> Case:
        """A valid request, its deadline running."""
        started, now_ms = perf_counter_ns(), self._clock()
        return self._case(parse_transaction(request, now_ms, self._extras), now_ms, started)

    def resume(self, transaction: Transaction) -> Case:
        """A transaction that was valid before a kill, its deadline running."""
        return self._case(transaction, self._clock(), perf_counter_ns())

    def _case(self, transaction: Transaction, now_ms: int, started: int) -> Case:
        faults = set(self._standing)
        if self._has_jumped():
            faults.add("clock_jump")
        return Case(transaction, self.judge, now_ms, started, started + self._deadline_ns, faults)

    def conclude(self, case: Case) -> Decision:
        """Observes, judges and records; what its deadline has settled is observed and recorded as it is."""
        try:
            if case.record is None:
                case.judge = self.judge
                recorded = self._recorded(case)
                if recorded is not None:
                    return self._repeat(case.transaction, recorded)
            self._observe(case)
            record = case.record or case.settle(self._judged(case))
            self._keep(case, record)
            if record.is_explored:
                self._on_explored(record)
            return self._answer(record, case)
        finally:
            self.stage = ""

    def fall_back(self, case: Case, fault: str) -> Decision:
        """The answer of a case whose work does not end in time: by another thread, while it goes on.

        Rules over what features there are, or over the request alone; the configured answer where even that
        fails. The record waits outside the log, which may be what is slow.
        """
        if case.record is None:
            recorded = self._at_hand(case.transaction.transaction_id)
            if recorded is not None:
                return self._repeat(case.transaction, recorded)
        case.faults.add(fault)
        record = case.record or case.settle(self._unscored(case))
        if not case.is_recorded:
            case.is_spilled = self._spill.put(record)
            if not case.is_spilled:
                case.faults.add("unrecorded")
        return self._answer(record, case)

    def decision(self, transaction_id: str) -> Decision | None:
        """The recorded decision on a transaction, None when there is none."""
        found = self.recorded(transaction_id)
        return None if found is None else Decision.of(found, is_repeat=True)

    def recorded(self, transaction_id: str) -> DecisionRecord | None:
        """The record of a transaction, in the log or on its way there."""
        return self._spill.find(transaction_id) or self._journal.find(transaction_id)

    def learn(self, request: Request) -> Learned:
        """Take in a label event; the same event again changes nothing. RequestError when it is invalid.

        An event on a transaction that this service did not decide is kept: the warehouse may know it.
        """
        now_ms = self._clock()
        event = parse_label(request, now_ms)
        recorded = self._at_hand(event.transaction_id) or self._journal.find(event.transaction_id)
        if recorded is not None:
            check_known_after(event, recorded.request.event_time)
        is_counted = self.store.learn(event)
        record = LabelRecord(event=event, received_at=now_ms, store_sequence=self.store.sequence)
        self._journal.append_label(record, is_counted=is_counted)
        return Learned(event, recorded is not None)

    def close(self) -> None:
        self.judge.close()

    def _at_hand(self, transaction_id: str) -> DecisionRecord | None:
        """What is known of a transaction without the log."""
        return self._recent.get(transaction_id) or self._spill.find(transaction_id)

    def _recorded(self, case: Case) -> DecisionRecord | None:
        transaction_id = case.transaction.transaction_id
        self.stage = "log"
        try:
            return self._at_hand(transaction_id) or self._journal.find(transaction_id)
        except (DecisionLogError, OSError):
            case.faults.add("log_down")
            return None

    def _observe(self, case: Case) -> None:
        started = perf_counter_ns()
        if not self._store_breaker.allows(started):
            case.faults.add("store_slow" if self._store_breaker.is_slow else "store_down")
            return
        self.stage = "store"
        try:
            observation = self.store.observe(case.transaction)
        except StoreMovedError:
            raise
        except TooLateError:
            if case.record is None:
                raise
            return
        except StoreError:
            self._store_breaker.ended(started, perf_counter_ns(), is_failed=True)
            case.faults.add("store_slow" if self._store_breaker.is_slow else "store_down")
            return
        ended = perf_counter_ns()
        self._store_breaker.ended(started, ended)
        case.is_late = observation.is_late
        case.store_sequence = self.store.sequence
        case.observed_us = _us(started, ended)
        case.vector = observation.vector

    def _judged(self, case: Case) -> DecisionRecord:
        """By the best rung that can still be reached in time."""
        started = perf_counter_ns()
        if self.behind.is_stale:
            case.faults.add("store_stale")
            return self._unscored(case, partial(self._closed, case))
        if case.vector is None:
            return self._unscored(case, partial(self._closed, case))
        if not self._model_breaker.allows(started):
            case.faults.add("model_slow")
            return self._unscored(case, partial(self._closed, case))
        self.stage = "model"
        try:
            judgement = case.judge.judge(case.transaction, case.vector, closed=partial(self._closed, case))
        except Exception as error:  # noqa: BLE001  whatever it was, there is an answer
            logger.error("the judge failed: %s", in_short(error))
            return self._unscored(case)
        self._model_breaker.ended(started, perf_counter_ns())
        case.faults.update(judgement.faults)
        plan = case.judge.bundle.policy.exploration
        done = taken(plan, case.transaction, judgement, partial(self._chance, case))
        return self._record(case, case.judge, case.vector, judgement, done)

    def _chance(self, case: Case, asked: Venture) -> float:
        return 0.0 if self._exploration is None else self._exploration.chance(case.now_ms, asked)

    def _closed(self, case: Case, wish: Wish) -> tuple[Action, ...]:
        return () if self._capacity is None else self._capacity.closed(case.now_ms, wish)

    def _unscored(self, case: Case, closed: Closed = ()) -> DecisionRecord:
        """closed: nothing, where another thread asks: whether there is capacity may not be waited for."""
        judge, vector = case.judge, case.vector  # as they are now: another thread may go on with the case
        try:
            judgement = judge.judge(case.transaction, vector, closed=closed, can_score=False)
        except Exception as error:  # noqa: BLE001  whatever it was, there is an answer
            logger.error("the rules failed: %s", in_short(error))
            case.faults.add("rules_failed")
            judgement = judge.fixed_answer()
        return self._record(case, judge, vector, judgement)

    def _keep(self, case: Case, record: DecisionRecord) -> None:
        """Records a decision; where the log cannot take it, it waits outside."""
        if record.store_sequence is None and case.store_sequence is not None:
            record = with_sequence(record, case.store_sequence)
        self.stage = "log"
        self._remember(record)
        if case.is_spilled and self._spill.find(record.transaction_id) is None:
            self.behind.note_observed(record)  # it has been recorded meanwhile
        elif not self.behind.record(record):
            case.faults.add("log_down")
            if not self._spill.put(record):
                case.faults.add("unrecorded")
        case.is_recorded = True
        if case.vector is None:
            self.behind.await_store(record)

    def _remember(self, record: DecisionRecord) -> None:
        self._recent[record.transaction_id] = record
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)

    @staticmethod
    def _repeat(transaction: Transaction, record: DecisionRecord) -> Decision:
        if not record.is_erased and canonical(record.request) != canonical(transaction):
            rule = "was decided with other content; send new content under a new id"
            raise ConflictError("transaction_id", transaction.transaction_id, rule)
        return Decision.of(record, is_repeat=True)

    @staticmethod
    def _answer(record: DecisionRecord, case: Case) -> Decision:
        return Decision.of(record, is_repeat=False, faults=tuple(sorted(case.faults)))

    @staticmethod
    def _record(
        case: Case, judge: Judge, vector: Vector | None, judgement: Judgement, done: Taken | None = None
    ) -> DecisionRecord:
        done = done or Taken(judgement.action, judgement.reasons)
        now = perf_counter_ns()
        total = _us(case.started_ns, now)
        return DecisionRecord(
            transaction_id=case.transaction.transaction_id,
            decided_at=case.now_ms,
            request=case.transaction,
            vector=vector,
            store_sequence=case.store_sequence,
            is_late=case.is_late,
            raw_score=judgement.raw_score,
            probability=judgement.probability,
            expected_costs=judgement.expected_costs,
            action=done.action,
            reasons=done.reasons,
            rules=judgement.rules,
            shadow_rules=judgement.shadow_rules,
            tier=judgement.tier,
            decided_by=judgement.decided_by,
            closed_actions=judgement.closed_actions,
            price=judgement.price,
            faults=tuple(sorted(case.faults)),
            bundle_id=judge.bundle.id,
            propensity=done.propensity,
            explored=done.explored,
            timings=Timings(case.observed_us, total - case.observed_us, total),
        )


def _us(start_ns: int, end_ns: int) -> int:
    return (end_ns - start_ns) // 1000
