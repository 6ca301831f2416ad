"""Observes the timeline event by event and answers with the exact vector, whatever stores the state.

Belongs here: what an event means for each entity, ties, late events, repeated ids, fraud reports. Does not
belong here: bytes on disk or on a wire; a store implements `Session` (adapters/lmdb.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from fraud_platform.features.aggregates import Now
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.plan import EntityPlan, Entry, compile_plans
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
    """What the engine asks of a store within one atomic change. Keys are per plan; times are ms."""

    def token(self, value: str) -> bytes: ...

    def state(self, plan: EntityPlan, key: Key) -> State | None: ...

    def save_state(self, plan: EntityPlan, key: Key, state: State) -> None: ...

    def scan(
        self, plan: EntityPlan, key: Key, is_report: bool, lower: int, upper: int
    ) -> Iterable[Entry]: ...

    def append(
        self, plan: EntityPlan, key: Key, is_report: bool, transaction_id: str, entry: Entry
    ) -> None: ...

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
                plan.read(rebuild(session, plan, key, now.time), now, vector)
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

        An unknown transaction changes nothing: its label waits in the warehouse's quarantine.
        """
        if event.outcome != "fraud":
            return False
        seen = session.seen(event.transaction_id)
        if seen is None or seen.reported_at is not None:
            return False
        session.mark_reported(event.transaction_id, event.known_at)
        for plan in self.plans:
            key = plan.key(seen.keys)
            if key is not None and plan.report_windows:
                self._report_key(session, plan, key, event)
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
        is_late = now.time < state.moment
        if is_late:
            plan.read(rebuild(session, plan, key, now.time), now, vector)
        else:
            self._advance(session, plan, key, state, now.time)
            plan.read(state, now, vector)
        entry = self._entry(session, plan, transaction)
        state.remember(entry.moment, entry.place)
        if plan.windows or plan.has_place:
            session.append(plan, key, False, transaction.transaction_id, entry)
        if is_late:
            plan.add(state, entry, state.moment, _counter(session, plan, key))
        session.save_state(plan, key, state)
        return is_late

    def _report_key(self, session: Session, plan: EntityPlan, key: Key, event: LabelEvent) -> None:
        state = session.state(plan, key) or plan.empty()
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
        values = [column_value(transaction, column) for column in plan.distinct_columns]
        tokens = tuple(None if value is None else session.token(str(value)) for value in values)
        return Entry(transaction.event_time, transaction.amount_minor, place, tokens)


def rebuild(session: Session, plan: EntityPlan, key: Key, moment: int) -> State:
    """The State as of `moment`, from the log alone: for events older than what the key has seen."""
    state = plan.empty()
    times: dict[tuple[int, bytes, int], int] = {}

    def count(column: int, value: bytes, window: int, delta: int) -> int:
        times[column, value, window] = times.get((column, value, window), 0) + delta
        return times[column, value, window]

    current = session.state(plan, key)
    for entry in session.scan(plan, key, False, 0, moment):
        state.remember(entry.moment, entry.place)
        plan.add(state, entry, moment, count)
    for entry in session.scan(plan, key, True, 0, moment):
        plan.add_report(state, entry.moment, moment)
    if current is not None:
        _inherit_past(state, current, moment)
    state.moment = moment
    return state


def _inherit_past(state: State, current: State, moment: int) -> None:
    """Facts older than the log (it may have been trimmed or loaded from a watermark)."""
    for known in (current.first, current.before_last, current.last):
        if 0 <= known < moment:
            state.remember(known, None)
    for place in (current.place_before, current.place):
        if place is not None and place[0] < moment:
            state.remember(place[0], place)


def _counter(session: Session, plan: EntityPlan, key: Key):  # type: ignore[no-untyped-def]
    return lambda column, value, window, delta: session.count(plan, key, column, value, window, delta)
