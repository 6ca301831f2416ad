"""What could not be done in time, and is done afterwards: records for the log, transactions for the store.

Belongs here: what waits, for how long what failed is left alone, and when all has been made up for.
Does not belong here: the decision itself (`decider`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import perf_counter_ns

from msgspec import structs

from fraud_platform.errors import DecisionLogError, StoreError, TooLateError
from fraud_platform.serve.breaker import Breaker
from fraud_platform.serve.parts import Journal, Spill, Store
from fraud_platform.serve.record import DecisionRecord

UNOBSERVED_MAX = 20_000
"""Transactions that wait in memory for the store; what comes after them is found in the log again."""
LOOKED_UP = 50
"""Records of the log that are looked at at once, after an outage in which more came than memory takes."""
EVENTS = 8
"""What is made up for at once, so that no request waits long for it."""
LOG_REST_NS = 200_000_000
LOOK_NS = 1_000_000_000
"""Between two looks at whether the store still knows what it counted."""

Records = Callable[[], Iterator[DecisionRecord]]


class CatchUp:
    """Of one store and one journal. For one thread, except `waiting`.

    past: every record of the log, in order; recent: the last decisions.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        spill: Spill,
        store_breaker: Breaker,
        past: Records,
        recent: Callable[[], Iterable[DecisionRecord]],
    ) -> None:
        self.store = store
        self.is_stale = False
        """The store has lost what it had counted; until all is made up for nothing is to be scored."""
        self._journal = journal
        self._spill = spill
        self._store_breaker = store_breaker
        self._past = past
        self._recent = recent
        self._unobserved: deque[DecisionRecord] = deque()
        self._is_more_unobserved = False
        self._looking: Iterator[DecisionRecord] | None = None
        self._log_failed_ns = -LOG_REST_NS
        self._next_look_ns = 0

    @property
    def waiting(self) -> tuple[int, int]:
        """(transactions that the store has not counted, records that the log has not taken)."""
        return len(self._unobserved), len(self._spill.waiting())

    def record(self, record: DecisionRecord) -> bool:
        """Appends to the log; False where that fails, or did a moment ago: the record is to wait outside."""
        if not self._is_log_tried():
            return False
        try:
            self._journal.append(record)
        except (DecisionLogError, OSError):
            self._log_failed_ns = perf_counter_ns()
            return False
        self._spill.discard(record.transaction_id)
        return True

    def await_store(self, record: DecisionRecord) -> None:
        """A transaction that was decided without the store."""
        if len(self._unobserved) < UNOBSERVED_MAX:
            self._unobserved.append(record)
        else:
            self._is_more_unobserved = True

    def note_observed(self, record: DecisionRecord) -> None:
        """That, and as which change, the store counted a transaction whose record does not tell it."""
        if record.store_sequence is None:
            return
        try:
            self._journal.append_observed(record)
        except (DecisionLogError, OSError):
            self._log_failed_ns = perf_counter_ns()

    def make_up(self, records: Iterable[DecisionRecord]) -> bool:
        """Leaves to `tidy` what the store does not know of what was decided; True where it knew it once."""
        missing = [record for record in records if not self.store.seen(record.transaction_id)]
        for record in missing:
            self.await_store(record)
        is_stale = any(record.vector is not None for record in missing)
        self.is_stale |= is_stale
        return is_stale

    def tidy(self) -> bool:
        """Makes up for a little; True where more is left."""
        self._log_late()
        now = perf_counter_ns()
        if now >= self._next_look_ns:
            self._next_look_ns = now + LOOK_NS
            self._look_at_store()
        for _ in range(min(EVENTS, len(self._unobserved))):
            if not self._store_breaker.allows(now) or not self._observe_late(self._unobserved[0]):
                break
            self._unobserved.popleft()
        self._look_into_past()
        is_waiting = bool(self._unobserved) or self._looking is not None
        self.is_stale = self.is_stale and is_waiting
        return is_waiting or bool(self._spill.waiting())

    def _is_log_tried(self) -> bool:
        return perf_counter_ns() - self._log_failed_ns >= LOG_REST_NS

    def _log_late(self) -> None:
        for record in self._spill.waiting()[:EVENTS]:
            if not self._is_log_tried():
                return
            try:
                is_known = self._journal.find(record.transaction_id) is not None
            except (DecisionLogError, OSError):
                self._log_failed_ns = perf_counter_ns()
                return
            if is_known:
                self._spill.discard(record.transaction_id)
            else:
                self.record(record)

    def _observe_late(self, record: DecisionRecord) -> bool:
        """False where the store cannot take it yet; what is too late for it stays in the log alone."""
        started, is_failed = perf_counter_ns(), False
        try:
            if not self.store.seen(record.transaction_id):
                self.store.observe(record.request)
                self.note_observed(with_sequence(record, self.store.sequence))
        except TooLateError:
            return True
        except StoreError:
            is_failed = True
        self._store_breaker.ended(started, perf_counter_ns(), is_failed=is_failed)
        return not is_failed

    def _look_at_store(self) -> None:
        """Whether it no longer knows what it counted a moment ago: an older copy took its place."""
        recent = tuple(self._recent())
        try:
            if recent and recent[-1].vector is not None and not self.store.seen(recent[-1].transaction_id):
                self.make_up(recent)
        except StoreError:
            return

    def _look_into_past(self) -> None:
        """Finds in the log, a piece at once, what memory did not take, when the store answers again."""
        if self._unobserved or not self._store_breaker.allows(perf_counter_ns()):
            return
        if self._is_more_unobserved:
            self._looking, self._is_more_unobserved = self._past(), False
        if self._looking is not None:
            records = list(islice(self._looking, LOOKED_UP))
            self.make_up(records)
            if len(records) < LOOKED_UP:
                self._looking = None


def with_sequence(record: DecisionRecord, sequence: int | None) -> DecisionRecord:
    return structs.replace(record, store_sequence=sequence)
