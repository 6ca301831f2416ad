"""What the service counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from fraud_platform.schema import LabelEvent
from fraud_platform.serve import Decision

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0)


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
        self._refused = Counter("fraud_requests_refused", "Requests refused", ["status"], registry=own)
        self._labels = Counter("fraud_labels", "Label events taken in", ["source", "outcome"], registry=own)
        self._seconds = Histogram(
            "fraud_decision_seconds", "Time of a decision", buckets=LATENCY_BUCKETS_S, registry=own
        )
        self._registry = own
        if multiprocess_folder is not None:
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry, multiprocess_folder)

    def decided(self, decision: Decision, seconds: float) -> None:
        self._seconds.observe(seconds)
        if decision.is_repeat:
            self._repeats.inc()
        else:
            self._decisions.labels(decision.action, decision.tier).inc()
            self._late.inc(decision.is_late)

    def learned(self, event: LabelEvent) -> None:
        self._labels.labels(_known(event.source), event.outcome).inc()

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


def _known(source: str) -> str:
    """Sources come from outside: only known ones become a label value."""
    known = ("chargeback", "cardholder_report", "manual_review")
    return source if source in known else "other"
