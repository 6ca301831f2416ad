"""One request, one decision: validate, observe, judge, record, and only then answer.

Belongs here: the order of these steps, and what a repeated or contradictory request gets.
Does not belong here: HTTP (`adapters.http`), files (`adapters.journal`), the judgement itself (`judge`).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Protocol

from fraud_platform.errors import RequestError
from fraud_platform.package import Bundle
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve.judge import Judge, Judgement, Vector
from fraud_platform.serve.record import Decision, DecisionRecord, LabelRecord, Timings
from fraud_platform.serve.requests import Request, canonical, parse_label, parse_transaction

PROPENSITY = 1.0
"""The policy is deterministic: the action it takes had no alternative."""


class ConflictError(RequestError):
    """The id is known with other content."""


class Observation(Protocol):
    @property
    def vector(self) -> Vector: ...

    @property
    def is_late(self) -> bool: ...


class Store(Protocol):
    """The feature store as the decider uses it; `features.engine.FeatureStore` fits."""

    @property
    def sequence(self) -> int | None:
        """The number of the store's last change by this process; None where the store numbers none."""

    def observe(self, transaction: Transaction) -> Observation: ...

    def learn(self, event: LabelEvent) -> object: ...


class Journal(Protocol):
    """Records of decisions and label events. What appends returns when the record survives the process."""

    def append(self, record: DecisionRecord) -> None: ...

    def find(self, transaction_id: str) -> DecisionRecord | None: ...

    def append_label(self, record: LabelRecord) -> bool: ...


class Decider:
    """Decides with one bundle, one store and one journal. Not safe for several threads at once.

    clock: the present in ms UTC.
    """

    def __init__(self, bundle: Bundle, store: Store, journal: Journal, clock: Callable[[], int]) -> None:
        self.bundle = bundle
        self._judge = Judge(bundle)
        self._store = store
        self._journal = journal
        self._clock = clock
        self._extras = frozenset(
            feature.name.removeprefix("extra_")
            for feature in bundle.contract.features
            if feature.name.startswith("extra_")
        )

    def decide(self, request: Request) -> Decision:
        """The decision on a transaction, recorded before it is returned.

        A transaction that was decided before gets the recorded decision. RequestError when the request is
        invalid, ConflictError when its id is known with other content; neither leaves a trace.
        """
        started = perf_counter_ns()
        now_ms = self._clock()
        transaction = parse_transaction(request, now_ms, self._extras)
        recorded = self._journal.find(transaction.transaction_id)
        if recorded is not None:
            return self._repeat(transaction, recorded)
        observed = perf_counter_ns()
        observation = self._store.observe(transaction)
        judged = perf_counter_ns()
        judgement = self._judge.judge(transaction, observation.vector)
        ended = perf_counter_ns()
        timings = Timings(_us(observed, judged), _us(judged, ended), _us(started, ended))
        record = self._record(transaction, now_ms, observation, judgement, timings)
        self._journal.append(record)
        return Decision.of(record, is_repeat=False)

    def decision(self, transaction_id: str) -> Decision | None:
        """The recorded decision on a transaction, None when there is none."""
        recorded = self._journal.find(transaction_id)
        return None if recorded is None else Decision.of(recorded, is_repeat=True)

    def learn(self, request: Request) -> LabelEvent:
        """Take in a label event; the same event again changes nothing. RequestError when it is invalid."""
        now_ms = self._clock()
        event = parse_label(request, now_ms)
        self._store.learn(event)
        sequence = self._store.sequence
        self._journal.append_label(LabelRecord(event=event, received_at=now_ms, store_sequence=sequence))
        return event

    def close(self) -> None:
        self._judge.close()

    def _repeat(self, transaction: Transaction, record: DecisionRecord) -> Decision:
        if not record.is_erased and canonical(record.request) != canonical(transaction):
            rule = "was decided with other content; send new content under a new id"
            raise ConflictError("transaction_id", transaction.transaction_id, rule)
        return Decision.of(record, is_repeat=True)

    def _record(
        self,
        transaction: Transaction,
        now_ms: int,
        observation: Observation,
        judgement: Judgement,
        timings: Timings,
    ) -> DecisionRecord:
        return DecisionRecord(
            transaction_id=transaction.transaction_id,
            decided_at=now_ms,
            request=transaction,
            vector=observation.vector,
            store_sequence=self._store.sequence,
            is_late=observation.is_late,
            raw_score=judgement.raw_score,
            probability=judgement.probability,
            expected_costs=judgement.expected_costs,
            action=judgement.action,
            reasons=judgement.reasons,
            rules=judgement.rules,
            shadow_rules=judgement.shadow_rules,
            tier=judgement.tier,
            decided_by=judgement.decided_by,
            bundle_id=self.bundle.id,
            propensity=PROPENSITY,
            timings=timings,
        )


def _us(start_ns: int, end_ns: int) -> int:
    return (end_ns - start_ns) // 1000
