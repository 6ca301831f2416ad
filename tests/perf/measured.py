"""What a stage of the benchmark found, and the few figures that are made of timings.

Belongs here: values and arithmetic. Does not belong here: running, timing (clock.py) or printing anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Sizes:
    """transactions: of the simulated world; events: of the engine's world; hot: events of a hot key in 30 d;
    cache: where what is slow to install is kept; retrain: rows that teach in the stage retrain."""

    transactions: int
    events: int
    hot: int
    cache: Path
    retrain: int = 2_000_000


@dataclass(frozen=True)
class Measured:
    """rows of one repetition; seconds of each, none where the stage could not run; note: what else it found;
    details: lines that are printed below the table."""

    rows: int
    seconds: tuple[float, ...]
    note: str = ""
    details: tuple[str, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @classmethod
    def skipped(cls, reason: str) -> Measured:
        return cls(0, (), f"not run: {reason}")


def quantile(took: Sequence[float], share: float) -> float:
    """The value below which `share` of the timings lie."""
    ordered = sorted(took)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def microseconds(took_ns: Sequence[int]) -> dict[str, float]:
    """p50, p99 and p99.9 of timings in nanoseconds, in microseconds."""
    ordered = sorted(took_ns)
    return {name: quantile(ordered, share) / 1000 for name, share in SHARES.items()}


def told(figures: dict[str, float], targets: dict[str, float] | None = None) -> str:
    """`p50 180 us (target 200), ...`."""
    wanted = {name: f" (target {target:,.0f})" for name, target in (targets or {}).items()}
    return ", ".join(f"{name} {value:,.0f} us{wanted.get(name, '')}" for name, value in figures.items())


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """Of the straight line with the least squares."""
    return float(np.polyfit(places, values, 1)[0])


def slope_with_error(places: Sequence[float], values: Sequence[float]) -> str:
    """The slope, and twice its standard error: what lies within it of nothing is no growth that was shown."""
    line, covariance = np.polyfit(places, values, 1, cov=True)
    return f"{line[0]:+.2f} (± {2 * float(np.sqrt(covariance[0, 0])):.2f})"
