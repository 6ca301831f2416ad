"""One request, one decision: validate, observe, judge, record, and only then answer.

Belongs here: the order of these steps, and what a repeated or contradictory request gets.
Does not belong here: HTTP (`adapters.http`), files (`adapters.decision_log`), the judgement itself (`judge`).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Protocol

import msgspec

from fraud_platform.errors import RequestError
from fraud_platform.package import Bundle
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve.judge import Judge, Judgement, Vector
from fraud_platform.serve.record import Decision, DecisionRecord, Timings
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

    def observe(self, transaction: Transaction) -> Observation: ...

    def learn(self, event: LabelEvent) -> object: ...


class Log(Protocol):
    """Append-only records by key. `append` returns when the record survives the process."""

    def append(self, key: str, payload: bytes) -> object: ...

    def find(self, key: str) -> bytes | None: ...


class Decider:
    """Decides with one bundle, one store and one log. Not safe for several threads at once.

    clock: the present in ms UTC; labels: the log of label events that were posted.
    """

    def __init__(
        self, bundle: Bundle, store: Store, log: Log, clock: Callable[[], int], labels: Log | None = None
    ) -> None:
        self.bundle = bundle
        self._judge = Judge(bundle)
        self._store = store
        self._log = log
        self._labels = labels
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
        recorded = self._log.find(transaction.transaction_id)
        if recorded is not None:
            return self._repeat(transaction, _decoded(recorded))
        observed = perf_counter_ns()
        observation = self._store.observe(transaction)
        judged = perf_counter_ns()
        judgement = self._judge.judge(transaction, observation.vector)
        ended = perf_counter_ns()
        timings = Timings(_us(observed, judged), _us(judged, ended), _us(started, ended))
        record = self._record(transaction, now_ms, observation, judgement, timings)
        self._log.append(transaction.transaction_id, msgspec.json.encode(record))
        return Decision.of(record, is_repeat=False)

    def decision(self, transaction_id: str) -> Decision | None:
        """The recorded decision on a transaction, None when there is none."""
        recorded = self._log.find(transaction_id)
        return None if recorded is None else Decision.of(_decoded(recorded), is_repeat=True)

    def learn(self, request: Request) -> LabelEvent:
        """Take in a label event; the same event again changes nothing. RequestError when it is invalid."""
        event = parse_label(request, self._clock())
        self._store.learn(event)
        content = canonical(event)
        if self._labels is not None and self._labels.find(content.decode()) is None:
            self._labels.append(content.decode(), content)
        return event

    def close(self) -> None:
        self._judge.close()

    def _repeat(self, transaction: Transaction, record: DecisionRecord) -> Decision:
        if canonical(record.request) != canonical(transaction):
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
            is_late=observation.is_late,
            raw_score=judgement.raw_score,
            probability=judgement.probability,
            expected_costs=judgement.expected_costs,
            action=judgement.action,
            reasons=judgement.reasons,
            rules=judgement.rules,
            shadow_rules=judgement.shadow_rules,
            tier=judgement.tier,
            bundle_id=self.bundle.id,
            propensity=PROPENSITY,
            timings=timings,
        )


def _decoded(payload: bytes) -> DecisionRecord:
    return msgspec.json.decode(payload, type=DecisionRecord)


def _us(start_ns: int, end_ns: int) -> int:
    return (end_ns - start_ns) // 1000
