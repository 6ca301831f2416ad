"""Half an hour of load: `python -m tests.perf.soak --minutes 30`. Does latency grow, or memory; any error?

The service runs as a Bento on loopback, without keys, at 70 % of the rate that it reached at 8 connections
just before. Every request is a new transaction, in order of time. Nothing here is a test.
Belongs here: the run and its slopes. Does not belong here: the generator (load.py), the service (serving.py).
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.perf.bodies import live_bodies, live_count
from tests.perf.load import Loaded
from tests.perf.measured import slope
from tests.perf.service_load import FAULTED, LIMIT_MS, TIERS, Feed
from tests.perf.serving import CONNECTIONS, port_of, served

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

SHARE = 0.7
MOST_S, MOST_ROUNDS = 10.0, 3
DECIDED = r"^fraud_decisions_total\{.*\} (\S+)$"
MINUTES_MIN, WARM_UP_MINUTES = 3, 2
PARTS_A_MINUTE, SAMPLE_S = 2, 5.0
POPULATIONS = 4
"""People of the live day side by side: half an hour of requests takes less than a year of event time."""
WARM_DAYS, WARM_S = 31, 30.0
"""Of event time, before anything is measured: then as much leaves the longest windows as enters them."""
FAULTS = ("busy", "store_slow", "store_down", "store_stale", "model_slow", "log_slow", "log_down")
WORDS = (*(f'"tier":"{tier}"' for tier in TIERS), FAULTED, *(f'"{fault}"' for fault in FAULTS))
SHOWN = 10


@dataclass(frozen=True)
class Sample:
    """memory_mib: what the worker holds for itself, without the pages of the store's file, which it maps;
    processor_s: what it has used; decided: since its start."""

    minute: float
    memory_mib: float
    processor_s: float
    decided: float


@dataclass
class Watch:
    """Looks at the service's worker until the generator ends."""

    pid: int
    url: str
    samples: list[Sample] = field(default_factory=list)

    def __call__(self, generator: subprocess.Popen[str]) -> None:
        started = time.monotonic()
        while generator.poll() is None:
            self.samples.append(self._sample((time.monotonic() - started) / 60))
            try:
                generator.wait(SAMPLE_S)
            except subprocess.TimeoutExpired:
                continue

    def _sample(self, minute: float) -> Sample:
        used = psutil.Process(self.pid).cpu_times()
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            told = answer.read().decode()
        decided = sum(float(number) for number in re.findall(DECIDED, told, re.MULTILINE))
        return Sample(minute, anonymous_mib(self.pid), used.user + used.system, decided)

    def processor_us(self) -> list[tuple[float, float]]:
        """Of a decision, between two samples: (minute, microseconds). It hardly depends on what else runs."""
        return [
            (later.minute, (later.processor_s - one.processor_s) / (later.decided - one.decided) * 1e6)
            for one, later in pairwise(self.samples)
            if later.decided > one.decided
        ]


def anonymous_mib(pid: int) -> float:
    """Resident memory of a process that is no file's."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Anonymous: +(\d+) kB", told, re.MULTILINE)) / 1024


def soak(platform: Platform, minutes: float) -> tuple[str, ...]:
    """What to say of it. SystemExit where a request was not answered with 200."""
    with served(platform, "soaked") as service:
        port = port_of(service)
        feed = Feed(live_bodies(platform, POPULATIONS), platform.settings.home / "bodies")
        _fill(feed, port, WARM_DAYS * live_count(platform, POPULATIONS))
        closed = [feed.load(port, CONNECTIONS, MOST_S) for _ in range(MOST_ROUNDS)]
        most = sorted(one.per_second for one in closed)[MOST_ROUNDS // 2]
        worker = max(service.worker_pids(), key=lambda pid: psutil.Process(pid).memory_info().rss)
        watch, rate = Watch(worker, service.url), round(most * SHARE)
        parts = int(minutes * PARTS_A_MINUTE)
        found = feed.load(port, CONNECTIONS, minutes * 60, rate, parts=parts, words=WORDS, meanwhile=watch)
    said = f"the most at {CONNECTIONS} connections is {most:,.0f} a second; {rate:,} for {minutes:g} minutes"
    return (said, *_lines(found, watch))


def _fill(feed: Feed, port: int, wanted: int) -> None:
    """Sends as many bodies as are wanted, or a few more."""
    sent = 0
    while sent < wanted:
        sent += feed.load(port, CONNECTIONS, WARM_S).answered
        print(f"windows fill: {sent:,} of {wanted:,}", file=sys.stderr)


def _lines(found: Loaded, watch: Watch) -> list[str]:
    shown = found.parts[:: max(1, len(found.parts) // SHOWN)]
    words = {word.strip('"').replace('":"', " ").strip('":'): count for word, count in found.words.items()}
    after = [(at / 60, p50, p99) for at, p50, p99 in found.parts if at / 60 >= WARM_UP_MINUTES]
    memory = [(one.minute, one.memory_mib) for one in watch.samples if one.minute >= WARM_UP_MINUTES]
    processor = [one for one in watch.processor_us() if one[0] >= WARM_UP_MINUTES]
    return [
        *(f"minute {at / 60:4.1f}: p50 {p50:.2f} ms, p99 {p99:.2f} ms" for at, p50, p99 in shown),
        f"{found.answered:,} answered, all with 200, {found.over:,} over {LIMIT_MS:g} ms, "
        f"the longest {found.max_ms:.1f} ms; p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms, "
        f"p99.9 {found.p999_ms:.2f} ms",
        "answers: " + ", ".join(f"{word} {count:,}" for word, count in sorted(words.items())),
        f"slopes after {WARM_UP_MINUTES} minutes, a minute: "
        f"p50 {_slope([(at, p50 * 1000) for at, p50, _ in after]):+.2f} us, "
        f"p99 {_slope([(at, p99 * 1000) for at, _, p99 in after]):+.2f} us, "
        f"processor time of a decision {_slope(processor):+.2f} us, memory {_slope(memory):+.3f} MiB",
        f"the worker's own memory {memory[0][1]:.1f} MiB then, {memory[-1][1]:.1f} MiB at the end; "
        f"processor time of a decision {processor[0][1]:.0f} us then, {processor[-1][1]:.0f} us at the end",
    ]


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """A minute."""
    return slope([at for at, _ in points], [value for _, value in points]) if len(points) > 1 else 0.0


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
