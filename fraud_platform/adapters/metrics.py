"""What the service counts, for Prometheus.

No label comes from a request: sources that are not known are `other`, and keys are named by the keys file.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from fraud_platform.schema import ACTIONS, LabelEvent
from fraud_platform.serve import Decision, DecisionRecord

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0)
BATCH_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 200, 500, 1000)


class Metrics:
    """Counters of one process.

    multiprocess_folder: where prometheus_client keeps the values of several workers (its own environment
    variable must name the same folder before it is imported); None: this process alone.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, multiprocess_folder: str | None = None) -> None:
        own = CollectorRegistry()
        self._decisions = Counter("fraud_decisions", "Decisions taken", ["action", "tier"], registry=own)
        self._repeats = Counter("fraud_decision_repeats", "Requests on decided transactions", registry=own)
        self._late = Counter("fraud_decisions_late", "Decisions on late events", registry=own)
        self._explored = Counter(
            "fraud_explored", "Declines that were approved to learn their outcome", registry=own
        )
        self._explored_loss = Counter(
            "fraud_explored_loss", "What they are expected to lose, in major units", registry=own
        )
        self._faults = Counter("fraud_faults", "Faults met by decisions", ["fault"], registry=own)
        self._refused = Counter("fraud_requests_refused", "Requests refused", ["status"], registry=own)
        self._keys = Counter("fraud_keys_refused", "Keys refused", ["reason"], registry=own)
        self._limited = Counter(
            "fraud_rate_limited", "Requests above their key's rate", ["key"], registry=own
        )
        self._labels = Counter("fraud_labels", "Label events taken in", ["source", "outcome"], registry=own)
        self._unknown = Counter("fraud_labels_unknown", "Label events on unknown transactions", registry=own)
        self._tokenised = Counter("fraud_requests_tokenised", "Requests with raw ids", registry=own)
        self._seconds = Histogram(
            "fraud_decision_seconds", "Time of a decision", buckets=LATENCY_BUCKETS_S, registry=own
        )
        self._batches = Histogram(
            "fraud_batch_items", "Items of a batch", ["kind"], buckets=BATCH_BUCKETS, registry=own
        )
        self._gauges = {
            name: Gauge(f"fraud_{name}", said, registry=own, multiprocess_mode="livesum")
            for name, said in (
                ("requests_in_flight", "Requests at work"),
                ("waiting_requests", "Requests that wait for the service's working thread"),
                ("waiting_unlogged", "Records that wait outside a log that cannot take them"),
                ("waiting_unobserved", "Decided transactions that the store has not counted yet"),
            )
        }
        self._in_flight = self._gauges["requests_in_flight"]
        self._registry = own
        if multiprocess_folder is not None:
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry, multiprocess_folder)

    def decided(self, decision: Decision, seconds: float) -> None:
        """seconds: of this decision; of its share where it was one of a batch."""
        self._seconds.observe(seconds)
        if decision.is_repeat:
            self._repeats.inc()
            return
        self._decisions.labels(decision.action, decision.tier).inc()
        if decision.is_late:
            self._late.inc()
        for fault in decision.faults:
            self.fault(fault)

    def learned(self, event: LabelEvent, is_known: bool = True) -> None:
        self._labels.labels(_known(event.source), event.outcome).inc()
        if not is_known:
            self._unknown.inc()

    def explored(self, record: DecisionRecord) -> None:
        """For any thread. Its answer does not tell, so that it is counted where it is recorded."""
        self._explored.inc()
        self._explored_loss.inc(record.expected_costs[ACTIONS.index("approve")])

    def fault(self, name: str) -> None:
        self._faults.labels(name).inc()

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def key_refused(self, reason: str) -> None:
        self._keys.labels(reason).inc()

    def rate_limited(self, key: str) -> None:
        self._limited.labels(key).inc()

    def batch(self, kind: str, items: int) -> None:
        """kind: decisions or labels."""
        self._batches.labels(kind).observe(items)

    def tokenised(self) -> None:
        self._tokenised.inc()

    def in_flight(self, change: int) -> None:
        self._in_flight.inc(change)

    def waiting(self, counts: Mapping[str, int]) -> None:
        """What the service has yet to do: requests, unlogged, unobserved."""
        for name, count in counts.items():
            self._gauges[f"waiting_{name}"].set(count)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


def _known(source: str) -> str:
    """Sources come from outside: only known ones become a label value."""
    known = ("chargeback", "cardholder_report", "manual_review")
    return source if source in known else "other"
