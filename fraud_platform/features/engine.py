"""Observes the timeline event by event and answers with the exact vector, whatever stores the state.

Belongs here: what an event means for each entity, ties, late events, repeated ids, fraud reports. Does not
belong here: bytes on disk or on a wire; a store implements `Session` (adapters/lmdb.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from fraud_platform.features.aggregates import Now
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.late import as_of
from fraud_platform.features.plan import CountValue, EntityPlan, Entry, compile_plans
from fraud_platform.features.rows import RowExpression, column_value, row_expression, transaction_place
from fraud_platform.features.state import KnownPlace, State
from fraud_platform.schema import LabelEvent, Transaction

Key = tuple[str, ...]


class Observation(NamedTuple):
    """vector: in contract order; is_repeat: the id was seen before and nothing was counted again;
    is_late: older than what a key had seen, answered from the log."""

    vector: tuple[float | str | None, ...]
    is_repeat: bool = False
    is_late: bool = False


class Seen(NamedTuple):
    """What a store knows of a transaction: its vector (None where it was loaded from history), a transaction
    with its key columns, and when it was first reported as fraud."""

    vector: tuple[float | str | None, ...] | None
    keys: Transaction
    reported_at: int | None


class FeatureStore(Protocol):
    """An online store: every call is one atomic change."""

    contract: FeatureContract

    def observe(self, transaction: Transaction) -> Observation: ...

    def learn(self, event: LabelEvent) -> bool: ...

    def close(self) -> None: ...


class Session(Protocol):
    """What the engine asks of a store within one atomic change. Keys are per plan; times are ms.

    One iterable of `scan` or `scan_back` is read at a time; what `count` changed is kept with `save_state`
    of the same key.
    """

    def token(self, value: str) -> bytes: ...

    def state(self, plan: EntityPlan, key: Key) -> State | None: ...

    def save_state(self, plan: EntityPlan, key: Key, state: State) -> None: ...

    def scan(
        self, plan: EntityPlan, key: Key, is_report: bool, lower: int, upper: int
    ) -> Iterable[Entry]: ...

    def scan_back(self, plan: EntityPlan, key: Key, upper: int) -> Iterable[Entry]: ...

    def append(
        self, plan: EntityPlan, key: Key, is_report: bool, transaction_id: str, entry: Entry
    ) -> None: ...

    def remove_report(self, plan: EntityPlan, key: Key, transaction_id: str, known_at: int) -> None: ...

    def count(
        self, plan: EntityPlan, key: Key, column: int, value: bytes, window: int, delta: int
    ) -> int: ...

    def seen(self, transaction_id: str) -> Seen | None: ...

    def save_vector(self, transaction: Transaction, vector: tuple[float | str | None, ...]) -> None: ...

    def mark_reported(self, transaction_id: str, known_at: int) -> None: ...


class Engine:
    """The contract compiled once; `observe` and `learn` run inside a store's session."""

    def __init__(self, contract: FeatureContract) -> None:
        self.contract = contract
        self.plans = compile_plans(contract)
        self._rows: tuple[tuple[int, RowExpression], ...] = tuple(
            (place, row_expression(feature, contract))
            for place, feature in enumerate(contract.features)
            if feature.entity is None
        )

    def observe(self, session: Session, transaction: Transaction) -> Observation:
        """The transaction's vector from everything known strictly before it; then it counts itself.

        A repeated transaction_id gets the vector it got before and counts nothing; one that was loaded from
        history without its vector is answered from the log.
        """
        seen = session.seen(transaction.transaction_id)
        if seen is not None and seen.vector is not None:
            return Observation(seen.vector, is_repeat=True)
        now = Now(transaction.event_time, transaction_place(transaction))
        vector: list[float | str | None] = [None] * len(self.contract.features)
        is_late = False
        for plan in self.plans:
            key = plan.key(transaction)
            if key is not None and seen is not None:
                state = session.state(plan, key) or plan.empty()
                plan.read(self._past(session, plan, key, state, now.time), now, vector)
                session.save_state(plan, key, state)
            elif key is not None:
                is_late |= self._observe_key(session, plan, key, transaction, now, vector)
        for place_in_vector, expression in self._rows:
            vector[place_in_vector] = expression(transaction, vector)
        answer = tuple(vector)
        if seen is None:
            session.save_vector(transaction, answer)
        return Observation(answer, is_repeat=seen is not None, is_late=is_late)

    def learn(self, session: Session, event: LabelEvent) -> bool:
        """Counts the first fraud report of a transaction; False where the event changes no feature.

        A report that arrives later but was known earlier takes the place of the one that was counted. An
        unknown transaction changes nothing: its label waits in the warehouse's quarantine.
        """
        if event.outcome != "fraud":
            return False
        seen = session.seen(event.transaction_id)
        if seen is None or (seen.reported_at is not None and seen.reported_at <= event.known_at):
            return False
        session.mark_reported(event.transaction_id, event.known_at)
        for plan in self.plans:
            key = plan.key(seen.keys)
            if key is not None and plan.report_windows:
                self._report_key(session, plan, key, event, seen.reported_at)
        return True

    def _observe_key(
        self,
        session: Session,
        plan: EntityPlan,
        key: Key,
        transaction: Transaction,
        now: Now,
        vector: list[float | str | None],
    ) -> bool:
        state = session.state(plan, key) or plan.empty()
        is_late = now.time < max(state.moment, state.last)
        if is_late:
            plan.read(self._past(session, plan, key, state, now.time), now, vector)
        else:
            self._advance(session, plan, key, state, now.time)
            plan.read(state, now, vector)
        entry = self._entry(session, plan, transaction)
        state.remember(entry.moment, entry.place)
        if plan.has_log:
            session.append(plan, key, False, transaction.transaction_id, entry)
        if now.time < state.moment:
            plan.add(state, entry, state.moment, _counter(session, plan, key))
        session.save_state(plan, key, state)
        return is_late

    def _past(self, session: Session, plan: EntityPlan, key: Key, state: State, moment: int) -> State:
        """The key's State as of an earlier moment; windows that lie behind it (after a load) catch up."""
        if state.moment < moment:
            self._advance(session, plan, key, state, moment)
        return as_of(
            plan,
            state,
            moment,
            lambda lower, upper: session.scan(plan, key, False, lower, upper),
            lambda lower, upper: session.scan(plan, key, True, lower, upper),
            lambda upper: session.scan_back(plan, key, upper),
            _counter(session, plan, key),
        )

    @staticmethod
    def _report_key(
        session: Session, plan: EntityPlan, key: Key, event: LabelEvent, reported_at: int | None
    ) -> None:
        state = session.state(plan, key) or plan.empty()
        if reported_at is not None:
            session.remove_report(plan, key, event.transaction_id, reported_at)
            plan.remove_report(state, reported_at)
        session.append(plan, key, True, event.transaction_id, Entry(event.known_at))
        state.last_report = max(state.last_report, event.known_at)
        if event.known_at < state.moment:
            plan.add_report(state, event.known_at, state.moment)
        session.save_state(plan, key, state)

    @staticmethod
    def _advance(session: Session, plan: EntityPlan, key: Key, state: State, moment: int) -> None:
        plan.advance(
            state,
            moment,
            lambda lower, upper: session.scan(plan, key, False, lower, upper),
            lambda lower, upper: session.scan(plan, key, True, lower, upper),
            _counter(session, plan, key),
        )

    @staticmethod
    def _entry(session: Session, plan: EntityPlan, transaction: Transaction) -> Entry:
        place: KnownPlace | None = None
        if plan.has_place and transaction.latitude is not None and transaction.longitude is not None:
            place = (transaction.event_time, transaction.latitude, transaction.longitude)
        if not plan.distinct_columns:
            return Entry(transaction.event_time, transaction.amount_minor, place)
        values = [column_value(transaction, column) for column in plan.distinct_columns]
        tokens = tuple(None if value is None else session.token(str(value)) for value in values)
        return Entry(transaction.event_time, transaction.amount_minor, place, tokens)


def _counter(session: Session, plan: EntityPlan, key: Key) -> CountValue:
    return lambda column, value, window, delta: session.count(plan, key, column, value, window, delta)
