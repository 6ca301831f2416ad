"""Half an hour of load: `python -m tests.perf.soak --minutes 30`. Does latency grow, or memory; any error?

The service runs as a Bento on loopback, without keys, at 70 % of the rate that it reached at 8 connections
just before. Every request is a new transaction, in order of time. Nothing here is a test.
Belongs here: the run and its slopes. Does not belong here: the generator (load.py), the service (serving.py).
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.perf.bodies import live_bodies
from tests.perf.load import Loaded
from tests.perf.measured import slope
from tests.perf.service_load import FAULTED, LIMIT_MS, TIERS, Feed
from tests.perf.serving import CONNECTIONS, state_of

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

SHARE = 0.7
MOST_S, MOST_ROUNDS = 10.0, 3
MINUTES_MIN, WARM_UP_MINUTES = 3, 2
PARTS_A_MINUTE, SAMPLE_S = 2, 5.0
POPULATIONS = 12
"""People of the live day side by side, so that half an hour of requests takes some weeks of event time."""
FAULTS = ("busy", "store_slow", "store_down", "store_stale", "model_slow", "log_slow", "log_down")
WORDS = (*(f'"tier":"{tier}"' for tier in TIERS), FAULTED, *(f'"{fault}"' for fault in FAULTS))
MIB = 1 << 20


@dataclass
class Memory:
    """Resident memory of the service's worker, (minute, MiB)."""

    pid: int
    samples: list[tuple[float, float]] = field(default_factory=list)

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Until the generator ends."""
        worker, started = psutil.Process(self.pid), time.monotonic()
        while process.poll() is None:
            own = worker.memory_full_info().uss  # the store's pages are shared and grow with the file
            self.samples.append(((time.monotonic() - started) / 60, own / MIB))
            try:
                process.wait(SAMPLE_S)
            except subprocess.TimeoutExpired:
                continue


def soak(platform: Platform, minutes: float) -> tuple[str, ...]:
    """What to say of it. SystemExit where a request was not answered with 200."""
    from fraud_platform.adapters.bento_server import free_port, start_service

    path, port = Path((platform.settings.home / "bento.txt").read_text()), free_port()
    with start_service(path, port, state_of(platform, "soaked")) as service:
        feed = Feed(live_bodies(platform, POPULATIONS), platform.settings.home / "bodies")
        closed = [feed.load(port, CONNECTIONS, MOST_S) for _ in range(MOST_ROUNDS)]
        most = sorted(one.per_second for one in closed)[MOST_ROUNDS // 2]
        memory = Memory(max(service.worker_pids(), key=lambda pid: psutil.Process(pid).memory_info().rss))
        rate = round(most * SHARE)
        parts = int(minutes * PARTS_A_MINUTE)
        found = feed.load(
            port,
            CONNECTIONS,
            minutes * 60,
            rate,
            parts=parts,
            words=WORDS,
            meanwhile=memory.watch,
        )
    return (
        f"at the most {most:,.0f} a second; {rate:,} a second for {minutes:g} minutes",
        *_lines(found, memory),
    )


def _lines(found: Loaded, memory: Memory) -> list[str]:
    after = [part for part in found.parts if part[0] / 60 >= WARM_UP_MINUTES]
    own = [sample for sample in memory.samples if sample[0] >= WARM_UP_MINUTES]
    words = {word.strip('"').replace('":"', " "): count for word, count in found.words.items()}
    minutes = [at / 60 for at, _, _ in after]
    shown = found.parts[:: max(1, len(found.parts) // 10)]
    return [
        *(f"minute {at / 60:4.1f}: p50 {p50:.2f} ms, p99 {p99:.2f} ms" for at, p50, p99 in shown),
        f"{found.answered:,} answered, all with 200, {found.over:,} over {LIMIT_MS:g} ms, "
        f"the longest {found.max_ms:.1f} ms; p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms, "
        f"p99.9 {found.p999_ms:.2f} ms",
        "answers: " + ", ".join(f"{word} {count:,}" for word, count in sorted(words.items())),
        f"slopes after {WARM_UP_MINUTES} minutes: "
        f"p50 {_slope(minutes, [p50 * 1000 for _, p50, _ in after]):+.2f} us a minute, "
        f"p99 {_slope(minutes, [p99 * 1000 for _, _, p99 in after]):+.2f} us a minute, "
        f"memory {_slope([at for at, _ in own], [mib for _, mib in own]):+.3f} MiB a minute",
        f"memory of the worker alone: {own[0][1]:.1f} MiB then, {own[-1][1]:.1f} MiB at the end",
    ]


def _slope(places: Sequence[float], values: Sequence[float]) -> float:
    return slope(places, values) if len(places) > 1 else 0.0


def main() -> None:
    from tests.perf.bench import NEEDED_BY_A_SERVICE, TRANSACTIONS, prepared, unwind

    parser = argparse.ArgumentParser(prog="python -m tests.perf.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS, help="of the simulated world")
    options = parser.parse_args()
    if options.minutes < MINUTES_MIN:
        parser.error(f"--minutes {options.minutes:g}: give {MINUTES_MIN} or more; {WARM_UP_MINUTES} warm up")
    signal.signal(signal.SIGTERM, unwind)
    with prepared(NEEDED_BY_A_SERVICE, options.transactions) as platform:
        print("\n".join(soak(platform, options.minutes)))


if __name__ == "__main__":
    sys.exit(main())
