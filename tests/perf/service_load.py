"""The load generator, started beside a server, with bodies that are each sent once.

Belongs here: running load.py and reading what it found. Does not belong here: servers (serving.py, plain.py).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from fraud_platform.settings import PROJECT_ROOT
from tests.perf.bodies import write_bodies
from tests.perf.load import Loaded

DECISIONS, BATCHES = "/v1/decisions", "/v1/decisions/batch"
TIERS = ("model", "rules", "request", "fixed")
FAULTED = '"faults":'
WORDS = (*(f'"tier":"{tier}"' for tier in TIERS), FAULTED)
CLOSED_MOST = 4_000
"""Requests a second that bodies are made for where the service sets the pace."""
LIMIT_MS = 50.0
SPARE_S = 120.0


@dataclass
class Feed:
    """Where the bodies of one server come from, and a file for the next of them. Single bodies that were not
    sent come first the next time, so that no stretch of time is left out."""

    bodies: Iterator[bytes]
    file: Path

    def load(
        self,
        port: int,
        connections: int,
        seconds: float,
        rate: float = 0.0,
        *,
        batch: int = 1,
        path: str = DECISIONS,
        parts: int = 1,
        words: Sequence[str] = WORDS,
        most: int = CLOSED_MOST,
        meanwhile: Callable[[subprocess.Popen[str]], object] = lambda process: None,
    ) -> Loaded:
        """One run of the generator; without a rate as fast as answers come. SystemExit where a request was
        not answered, or not with 200."""
        number = int((rate or most / batch) * seconds)
        write_bodies(self.bodies, self.file, number, batch)
        command = [sys.executable, "-m", "tests.perf.load", str(self.file), "--port", str(port)]
        command += ["--path", path, "--connections", str(connections), "--rate", str(rate)]
        command += ["--seconds", str(seconds), "--limit-ms", str(LIMIT_MS), "--parts", str(parts)]
        command += ["--words", *words]
        with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                meanwhile(process)
                output, _ = process.communicate(timeout=seconds + SPARE_S)
            finally:
                if process.poll() is None:
                    process.kill()
        lines = self.file.read_bytes().splitlines() if batch == 1 and not rate else []
        self.file.unlink()
        if process.returncode != 0:
            raise SystemExit(f"the load generator ended with {process.returncode}; see above")
        found = Loaded(**json.loads(output))
        if found.unanswered or set(found.statuses) != {"200"}:
            raise SystemExit(f"{found.unanswered} requests without an answer, statuses {found.statuses}")
        self.bodies = chain(lines[found.answered :], self.bodies)
        return found


def median(rounds: Sequence[Loaded], figure: str) -> float:
    return float(statistics.median(getattr(one, figure) for one in rounds))


def total(rounds: Sequence[Loaded], word: str) -> int:
    return sum(one.words.get(word, 0) for one in rounds)


def other_tiers(rounds: Sequence[Loaded]) -> float:
    """The share of decisions that another tier than the model's made."""
    made = {tier: total(rounds, f'"tier":"{tier}"') for tier in TIERS}
    return 1.0 - made["model"] / sum(made.values())


def told(rounds: Sequence[Loaded], targets: dict[str, float] | None = None) -> str:
    """`p50 0.71 ms (target 0.9), p99 2.1 ms, by round 1.9 to 2.4 ms`: medians, and the range of the p99."""
    wanted = {name: f" (target {target:g})" for name, target in (targets or {}).items()}
    said = ", ".join(
        f"{name} {median(rounds, f'{name}_ms'):.2f} ms{wanted.get(name, '')}" for name in ("p50", "p99")
    )
    least, most = (pick(one.p99_ms for one in rounds) for pick in (min, max))
    return f"{said}, by round {least:.2f} to {most:.2f} ms"
