"""The signal to train again, and why; a cool-down keeps one cause from starting many runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from fraud_platform.monitor.drift import DriftReport
from fraud_platform.monitor.performance import Performance

PRECISION_DROP = 0.2
"""Average precision this share below what the evaluation promised is a reason."""
FRAUDS_MIN = 30
"""Fewer mature frauds say nothing about a model."""


@dataclass(frozen=True)
class Signal:
    """is_raised: train now; reasons: why, or why not; id: the same within one cool-down, one run for it."""

    is_raised: bool
    reasons: tuple[str, ...]
    id: str


def retrain_signal(
    drift: DriftReport | None,
    performance: Performance | None,
    last_trained_at: int,
    now: int,
    cool_down: int,
    promised_average_precision: float | None = None,
) -> Signal:
    """Whether to train before the nightly schedule does. Times in ms UTC, cool_down in ms.

    None for a report that could not be made. promised_average_precision: of the evaluation that approved it.
    """
    reasons = (
        *(drift.reasons if drift else ()),
        *(_performance_reasons(performance, promised_average_precision) if performance else ()),
    )
    signal_id = f"{last_trained_at}-{(now - last_trained_at) // max(cool_down, 1)}"
    if not reasons:
        return Signal(False, (_nothing(drift),), signal_id)
    ready_at = last_trained_at + cool_down
    if now < ready_at:
        until = datetime.fromtimestamp(ready_at / 1000, UTC).isoformat(timespec="minutes")
        return Signal(False, (f"cooling down until {until}", *reasons), signal_id)
    return Signal(True, reasons, signal_id)


def _performance_reasons(performance: Performance, promised: float | None) -> tuple[str, ...]:
    if performance.fraud_count < FRAUDS_MIN:
        return ()
    said = []
    measured = performance.average_precision
    if promised is not None and measured is not None and measured < (1.0 - PRECISION_DROP) * promised:
        said.append(f"average precision {measured:.3f} on mature labels, {promised:.3f} was promised")
    if performance.saved < 0.0:
        said.append(f"the decisions cost {-performance.saved:,.0f} more than approving everything")
    return tuple(said)


def _nothing(drift: DriftReport | None) -> str:
    if drift is not None and not drift.is_enough:
        return f"{drift.row_count} recent decisions; {drift.thresholds.rows_min} are needed to see drift"
    return "nothing moved"
