"""What is counted, by one worker and by several together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fraud_platform.adapters.metrics import Metrics
from fraud_platform.schema import LabelEvent
from fraud_platform.serve import Decision
from fraud_platform.settings import PROJECT_ROOT

DECISION = Decision(
    transaction_id="t",
    action="decline",
    probability=None,
    reasons=(),
    tier="rules",
    decided_by="rule",
    bundle_id="b",
    decided_at=1,
    faults=("store_slow", "store_stale"),
)


def count(metrics: Metrics) -> None:
    metrics.decided(DECISION, 0.001)
    metrics.batch("decisions", 25)
    metrics.in_flight(1)
    metrics.waiting({"requests": 1, "unlogged": 3, "unobserved": 2})
    metrics.rate_limited("shop")


def said(metrics: Metrics) -> set[str]:
    return set(metrics.exposition().decode().splitlines())


def test_a_decision_counts_by_action_tier_and_fault() -> None:
    metrics = Metrics()
    count(metrics)
    metrics.fault("log_blocked")
    assert said(metrics) >= {
        'fraud_decisions_total{action="decline",tier="rules"} 1.0',
        'fraud_faults_total{fault="store_slow"} 1.0',
        'fraud_faults_total{fault="store_stale"} 1.0',
        'fraud_faults_total{fault="log_blocked"} 1.0',
        'fraud_batch_items_bucket{kind="decisions",le="25.0"} 1.0',
        'fraud_rate_limited_total{key="shop"} 1.0',
        "fraud_requests_in_flight 1.0",
        "fraud_waiting_unlogged 3.0",
        "fraud_waiting_unobserved 2.0",
    }


def test_no_text_of_a_request_becomes_a_label() -> None:
    metrics = Metrics()
    metrics.learned(LabelEvent(transaction_id="t", source="whatever came", outcome="fraud", known_at=1))
    assert 'fraud_labels_total{outcome="fraud",source="other"} 1.0' in said(metrics)
    assert b"whatever" not in metrics.exposition()


def test_several_workers_are_counted_together(tmp_path: Path) -> None:
    worker = (
        "import sys; from fraud_platform.adapters.metrics import Metrics\n"
        "from tests.unit.test_metrics import count\n"
        "metrics = Metrics(sys.argv[1])\n"
        "if sys.argv[2] == 'work': count(metrics)\n"
        "else: print(metrics.exposition().decode())"
    )
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(PROJECT_ROOT)}
    printed = ""
    for task in ("work", "work", "tell"):
        command = [sys.executable, "-c", worker, str(tmp_path), task]
        done = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=True)
        printed = done.stdout
    assert {
        'fraud_decisions_total{action="decline",tier="rules"} 2.0',
        'fraud_faults_total{fault="store_slow"} 2.0',
        'fraud_batch_items_bucket{kind="decisions",le="25.0"} 2.0',
        "fraud_waiting_unlogged 6.0",
    } <= set(printed.splitlines())
