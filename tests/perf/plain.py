"""The plain stack beside the service, in turns within one run: the same model, machine, load and bodies.

Belongs here: starting both and comparing them. Does not belong here: the plain stack's code (plain_stack.py,
which runs in an environment of its own); none of it is a dependency.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.perf.beside_feast import REQUIREMENT
from tests.perf.bodies import known_ids, live_bodies
from tests.perf.environment import Missing, ended, python_with
from tests.perf.load import Loaded
from tests.perf.measured import Measured, Sizes
from tests.perf.service_load import Feed, median, told
from tests.perf.serving import CONNECTIONS, bundle_of, port_of, served
from tests.servers import free_port, missing_redis, redis_server

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

REQUIREMENTS = (REQUIREMENT, "fastapi", "uvicorn[standard]", "pydantic>=2", "lightgbm==4.*")
ROUNDS, SECONDS, WARM_UP_S = 3, 10.0, 3.0
READY_S = 90.0
THROUGHPUT_TARGET, P99_TARGET = 8.0, 0.1
USUAL, TUNED = "as usually written", "tuned"
VARIANTS: dict[str, tuple[str, ...]] = {USUAL: (), TUNED: ("--tuned",)}
"""See plain_stack.py; ours is compared with both."""


def plain(platform: Platform, sizes: Sizes) -> Measured:
    """As fast as answered at 8 connections, in turns; then ours at the plain stack's pace."""
    took: dict[str, list[Loaded]] = {"ours": [], **{name: [] for name in VARIANTS}}
    try:
        with ExitStack() as stack:
            service = stack.enter_context(served(platform, "beside-plain"))
            sides = {"ours": (port_of(service), _feed(platform, "ours"))}
            for name, port in _plain_ports(platform, sizes.cache, stack).items():
                sides[name] = (port, _feed(platform, name))
            for port, feed in sides.values():
                feed.load(port, CONNECTIONS, WARM_UP_S, words=())
            for _round in range(ROUNDS):
                for name, (port, feed) in sides.items():
                    took[name].append(feed.load(port, CONNECTIONS, SECONDS, words=()))
            ours = took.pop("ours")
            port, feed = sides["ours"]
            rate = median(took[USUAL], "per_second")
            paced = [feed.load(port, CONNECTIONS, SECONDS, rate, words=()) for _ in range(ROUNDS)]
    except Missing as missing:
        return Measured.skipped(str(missing))
    ratios = "; ".join(f"{name}: {_ratio(ours, rounds)}" for name, rounds in took.items())
    note = f"over the plain stack (targets {THROUGHPUT_TARGET:g} and {P99_TARGET:g}): {ratios}"
    lines = (
        _line("ours: exact features updated, rules, policy, record", ours),
        *(_line(f"plain, {name}: features read, scored", rounds) for name, rounds in took.items()),
        f"ours at the usual one's pace, a constant {rate:,.0f} a second: {told(paced)}",
    )
    answered = sorted(one.answered for one in ours)[ROUNDS // 2]
    return Measured(answered, tuple(answered / one.per_second for one in ours), note, lines)


def _ratio(ours: Sequence[Loaded], theirs: Sequence[Loaded]) -> str:
    more, share = (median(ours, name) / median(theirs, name) for name in ("per_second", "p99_ms"))
    return f"{more:.2f} times its decisions at {share:.2f} of its p99"


def _line(name: str, rounds: Sequence[Loaded]) -> str:
    return f"{name}: {median(rounds, 'per_second'):,.0f} decisions a second, {told(rounds)}"


def _feed(platform: Platform, name: str) -> Feed:
    return Feed(live_bodies(platform), platform.settings.home / f"bodies {name}")


def _plain_ports(platform: Platform, cache: Path, stack: ExitStack) -> dict[str, int]:
    missing = missing_redis()
    if missing is not None:
        raise Missing(missing)
    python = python_with(cache / "plain", REQUIREMENTS)
    home = platform.settings.home / "plain"
    home.mkdir()
    ids = {name.removesuffix("_id"): found for name, found in known_ids(platform).items()}
    (home / "ids.json").write_text(json.dumps(ids))
    ports = {}
    for name, options in VARIANTS.items():
        folder = home / name.replace(" ", "-")
        redis = stack.enter_context(redis_server(folder / "redis"))
        ports[name] = stack.enter_context(
            _stack(python, redis, folder, home / "ids.json", bundle_of(platform) / "model.txt", options)
        )
    return ports


@contextmanager
def _stack(
    python: Path, redis: int, folder: Path, ids: Path, model: Path, options: Sequence[str]
) -> Iterator[int]:
    """The plain stack, ready; its port."""
    port = free_port()
    program = Path(__file__).with_name("plain_stack.py")
    # -I: nothing of this folder or of PYTHONPATH is imported there.
    command = [str(python), "-I", "-W", "ignore", str(program), "--redis", str(redis), "--port", str(port)]
    command += ["--folder", str(folder), "--ids", str(ids), "--model", str(model), *options]
    environment = {**os.environ, "FEAST_USAGE": "False"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL)
    with ended(process):
        _await(process, port)
        yield port


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise SystemExit(f"the plain stack is not ready, status {process.poll()}; see above")
