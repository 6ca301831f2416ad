"""Observes the timeline event by event and answers with the exact vector, whatever stores the state.

Belongs here: what an event means for each entity, ties, late events, repeated ids, fraud reports, and what
may be forgotten. Does not belong here: bytes on disk or on a wire; a store implements `Session` and
`KeySession` (adapters/lmdb_session.py, adapters/redis_session.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from fraud_platform.errors import TooLateError
from fraud_platform.features.aggregates import Now
from fraud_platform.features.compiler import compile_plans
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.late import as_of
from fraud_platform.features.past import KeyLog
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.recent import Entry, KnownPlace
from fraud_platform.features.rows import compile_rows, transaction_place
from fraud_platform.features.state import NEVER, State
from fraud_platform.schema import LabelEvent, Transaction

LATENESS_MS = 86_400_000
"""How far behind the newest event of the store an event is answered exactly for certain."""
TRIM_ENTRIES = 64
"""Entries that one event trims of a key at the most, so that no event pays for many."""

Key = tuple[str, ...]
Vector = tuple[float | str | None, ...]


class Observation(NamedTuple):
    """vector: in contract order; is_repeat: the id was seen before and nothing was counted again;
    is_late: older than what a key had seen when it was first answered, from the log."""

    vector: Vector
    is_repeat: bool = False
    is_late: bool = False


class Seen(NamedTuple):
    """What a store knows of a transaction: its vector (None where it was loaded, or is too old), a
    transaction with its key columns and event_time, when it was first reported as fraud, and whether it was
    answered as a late one."""

    vector: Vector | None
    keys: Transaction
    reported_at: int | None
    is_late: bool = False


class FeatureStore(Protocol):
    """An online store: every call is one atomic change.

    sequence: the number of the last change by this process, in the order of all changes of the store; None
    where the store numbers none.
    """

    contract: FeatureContract
    sequence: int | None

    def observe(self, transaction: Transaction) -> Observation: ...

    def observe_all(self, events: Iterable[Transaction | LabelEvent]) -> Iterator[Observation | None]: ...

    def learn(self, event: LabelEvent) -> bool: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class KeySession(KeyLog, Protocol):
    """One entity's key within one atomic change. What `count` changed is kept with `save`."""

    def state(self) -> State | None: ...

    def save(self, state: State) -> None: ...

    def append_report(self, transaction_id: str, known_at: int) -> None: ...

    def remove_report(self, transaction_id: str, known_at: int) -> None: ...

    def trim(self, upper: int, limit: int) -> Sequence[Entry]:
        """Removes the oldest transactions before a moment from the log, `limit` at the most."""

    def trim_reports(self, upper: int) -> int:
        """Removes the reports before a moment; the newest of them, NEVER where there was none."""

    def schedule(self, moment: int) -> None:
        """Has the key looked after (`Engine.settle`) once events have passed the moment."""


class Session(Protocol):
    """What the engine asks of a store within one atomic change; times are ms."""

    def token(self, value: str) -> bytes: ...

    def at(self, plan: EntityPlan, key: Key) -> KeySession: ...

    def due(self, moment: int) -> Iterable[tuple[EntityPlan, KeySession]]:
        """A few of the keys that were scheduled before the moment; each is handed out once."""

    def seen(self, transaction_id: str) -> Seen | None: ...

    def save_vector(self, transaction: Transaction, vector: Vector, is_late: bool) -> None: ...

    def mark_reported(self, transaction_id: str, known_at: int) -> None: ...


class Engine:
    """The contract compiled once; `observe` and `learn` run inside a store's session."""

    def __init__(self, contract: FeatureContract) -> None:
        self.contract = contract
        self.plans = compile_plans(contract)
        self.retention_ms = max((plan.reach for plan in self.plans), default=0) + LATENESS_MS
        """How long, by event time, a store keeps what a window can hold and what a repeat is answered."""
        self.remembered_ms = contract.report_horizon_ms + LATENESS_MS
        """How long, by event time, a store knows an id: a report that still counts may arrive late, too."""
        self._plan_of = {plan.number: plan for plan in self.plans}
        self._fill_rows = compile_rows(contract)

    def plan(self, number: int) -> EntityPlan:
        return self._plan_of[number]

    def observe(self, session: Session, transaction: Transaction) -> Observation:
        """The transaction's vector from everything known strictly before it; then it counts itself.

        A repeated transaction_id gets the vector it got before and counts nothing; one whose vector is not
        stored is answered from the log. Raises TooLateError, with nothing changed once the session is
        undone, where a window reaches back to what has been trimmed.
        """
        seen = session.seen(transaction.transaction_id)
        if seen is not None and seen.vector is not None:
            return Observation(seen.vector, is_repeat=True, is_late=seen.is_late)
        if seen is not None:
            transaction = msgspec.structs.replace(transaction, event_time=seen.keys.event_time)
        now = Now(transaction.event_time, transaction_place(transaction))
        name = session.token(transaction.transaction_id)
        vector: list[float | str | None] = [None] * len(self.contract.features)
        is_late = seen is not None and seen.is_late
        for plan in self.plans:
            key = plan.key(transaction)
            if key is None:
                continue
            log = session.at(plan, key)
            if seen is not None:
                state = log.state() or plan.empty()
                plan.read(self._past(plan, log, state, transaction), now, vector, log)
                self._keep(plan, log, state)
            else:
                entry = self.entry(session.token, plan, transaction)
                is_late |= self._observe_key(plan, log, transaction, name, entry, now, vector)
        self._fill_rows(transaction, now.place, vector)
        answer = tuple(vector)
        if seen is None:
            session.save_vector(transaction, answer, is_late)
            for plan, log in session.due(now.time):
                self.settle(plan, log, now.time)
        return Observation(answer, is_repeat=seen is not None, is_late=is_late)

    def learn(self, session: Session, event: LabelEvent) -> bool:
        """Counts the first fraud report of a transaction; False where the event changes no feature.

        A report that arrives later but was known earlier takes the place of the one that was counted. An
        unknown transaction changes nothing: its label waits in the warehouse's quarantine. Nor does a report
        that claims to have been known before its transaction.
        """
        if event.outcome != "fraud":
            return False
        seen = session.seen(event.transaction_id)
        if seen is None or (seen.reported_at is not None and seen.reported_at <= event.known_at):
            return False
        if not 0 <= event.known_at - seen.keys.event_time <= self.contract.report_horizon_ms:
            return False
        session.mark_reported(event.transaction_id, event.known_at)
        for plan in self.plans:
            key = plan.key(seen.keys)
            if key is not None and plan.has_reports:
                self._report_key(plan, session.at(plan, key), event, seen.reported_at)
        return True

    def settle(self, plan: EntityPlan, log: KeySession, moment: int) -> None:
        """Forgets what no event needs that is less than LATENESS_MS older than `moment`: of an idle key the
        whole log. A key that was busy in the meantime stays as it is, since its events trim it, and is looked
        after again when its time has come."""
        state = log.state()
        if state is None:
            return
        if state.is_due and self.due_at(plan, state) > moment:
            log.schedule(self.due_at(plan, state))
            return
        state.is_due = False
        settled = moment - LATENESS_MS
        if state.moment <= settled and max(state.last, state.last_report) < settled:
            plan.advance(state, settled, log)
        is_whole = self._trim(plan, log, state)
        if not is_whole:
            self.schedule(plan, log, state, moment)
        self._keep(plan, log, state)

    @staticmethod
    def entry(token: Callable[[str], bytes], plan: EntityPlan, transaction: Transaction) -> Entry:
        """The line of the key's log that the transaction becomes."""
        place: KnownPlace | None = None
        if plan.has_place and transaction.latitude is not None and transaction.longitude is not None:
            place = (transaction.event_time, transaction.latitude, transaction.longitude)
        if not plan.distinct_columns:
            return Entry(transaction.event_time, transaction.amount_minor, place)
        values = [getattr(transaction, column) for column in plan.distinct_columns]
        tokens = tuple([token(value) if value else None for value in values])
        return Entry(transaction.event_time, transaction.amount_minor, place, tokens)

    def _observe_key(
        self,
        plan: EntityPlan,
        log: KeySession,
        transaction: Transaction,
        name: bytes,
        entry: Entry,
        now: Now,
        vector: list[float | str | None],
    ) -> bool:
        state = log.state() or plan.empty()
        is_late = now.time < state.last
        is_behind = is_late or now.time < state.moment
        if is_behind:
            plan.read(self._past(plan, log, state, transaction), now, vector, log)
        else:
            plan.advance(state, now.time, log)
            plan.read(state, now, vector, log)
        plan.take(state, name, entry, log)
        if plan.has_log and not is_behind:
            settled = now.time - plan.reach - LATENESS_MS
            if settled - plan.stride > max(state.log_from, state.first):
                self._trim(plan, log, state)
        self._keep(plan, log, state)
        return is_late

    @staticmethod
    def _past(plan: EntityPlan, log: KeySession, state: State, transaction: Transaction) -> State:
        """The key's State as of an earlier moment; windows that lie behind it catch up first."""
        moment = transaction.event_time
        if max(moment - plan.reach, 0) <= max(state.trimmed_last, state.trimmed_report):
            raise too_late(plan, state, transaction)
        if state.moment < moment:
            plan.advance(state, moment, log)
        return as_of(plan, state, moment, log)

    @staticmethod
    def _report_key(plan: EntityPlan, log: KeySession, event: LabelEvent, reported_at: int | None) -> None:
        state = log.state() or plan.empty()
        if reported_at is not None:
            log.remove_report(event.transaction_id, reported_at)
            plan.drop_report(state, reported_at)
        if event.known_at >= state.log_from:
            log.append_report(event.transaction_id, event.known_at)
        else:
            state.trimmed_report = max(state.trimmed_report, event.known_at)
        plan.take_report(state, event.known_at)
        Engine._keep(plan, log, state)

    @staticmethod
    def _trim(plan: EntityPlan, log: KeySession, state: State) -> bool:
        """Forgets what lies before every window of every event to come; False where some of it is left."""
        upper = state.moment - plan.reach - LATENESS_MS
        if upper < state.log_from:
            return True
        is_whole = True
        state.log_from = upper
        if state.recent is not None:
            if not plan.is_kept:
                plan.forget(state, state.recent, upper)
        elif plan.has_log:
            trimmed = log.trim(upper, TRIM_ENTRIES)
            for entry in trimmed:
                state.forget(entry.moment, entry.place)
            is_whole = len(trimmed) < TRIM_ENTRIES
            if not is_whole:
                state.log_from = trimmed[-1].moment + 1
            elif state.last < upper:
                state.recent = plan.no_transactions()
        if state.last_report != NEVER:
            state.trimmed_report = max(state.trimmed_report, log.trim_reports(upper))
        return is_whole

    @staticmethod
    def _keep(plan: EntityPlan, log: KeySession, state: State) -> None:
        """Saves the State. The log takes over the transactions where too many for a State can still count; a
        key that nobody looks after is looked after where something will have to be forgotten."""
        recent = state.recent
        if recent is not None and len(recent.moments) > plan.recent_max:
            newest = min(state.moment, state.last)  # a loaded State stands behind it
            plan.forget(state, recent, newest - plan.reach - LATENESS_MS)
            if len(recent.moments) > plan.recent_max:
                plan.begin_log(state, recent, log)
        if not state.is_due and (plan.holds(state) or state.last_report >= state.log_from):
            Engine.schedule(plan, log, state)
        if state.recent is not None:
            state.drop_totals()
        log.save(state)

    @staticmethod
    def schedule(plan: EntityPlan, log: KeySession, state: State, moment: int = NEVER) -> None:
        """Has the key looked after when all of its log is too old to count, or at `moment`."""
        log.schedule(moment if moment != NEVER else Engine.due_at(plan, state))
        state.is_due = True

    @staticmethod
    def due_at(plan: EntityPlan, state: State) -> int:
        """When (ms) all of the key's log is too old to count, where nothing more comes."""
        return max(state.last, state.last_report) + plan.reach + 2 * LATENESS_MS


def too_late(plan: EntityPlan, state: State, transaction: Transaction) -> TooLateError:
    """The error for an event whose windows reach back to what the key's log no longer holds."""
    moment = transaction.event_time
    return TooLateError(
        f"transaction {transaction.transaction_id!r}: event_time {moment} is too late: of its {plan.name} "
        f"the log is needed from {moment - plan.reach} on, and was trimmed up to "
        f"{max(state.trimmed_last, state.trimmed_report)}; what is at most {LATENESS_MS // 3_600_000} h "
        "behind the newest event is answered exactly: send events in time, or rebuild the store with them"
    )
