"""The decision service, in process and over HTTP.

Belongs here: the service under requests of the simulated world's live day. Does not belong here: the store
alone (online.py), other stacks (plain.py), faults (fault_matrix.py, kills.py, soak.py).
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tests.perf.bodies import live_bodies
from tests.perf.load import Loaded
from tests.perf.measured import Measured, Sizes, quantile
from tests.perf.service_load import BATCHES, LIMIT_MS, Feed, median, other_tiers, told

if TYPE_CHECKING:
    from fraud_platform.adapters.bento_server import RunningService
    from fraud_platform.defs.platform import Platform

IN_PROCESS, REPEATS = 6_000, 3
WARM_UP_S = 3.0
CONNECTIONS = 8
ALONE_RATE, ALONE_S, ALONE_TARGETS = 300.0, 10.0, {"p50": 0.9, "p99": 2.5}
CLOSED_S = 8.0
RATE, RATE_S, RATE_TARGETS = 1_000.0, 20.0, {"p99": 12.0}
BATCH, BATCH_CONNECTIONS, BATCH_S, BATCH_TARGET = 25, 2, 6.0, 4_000
BATCH_MOST = 8_000


def serve_in_process(platform: Platform, _: Sizes) -> Measured:
    from fraud_platform.adapters.service import Service, ServiceSettings

    state = state_of(platform, "in-process")
    service = Service(ServiceSettings(bundle_of(platform), state, spill=state / "spill"), platform.now_ms)
    requests = list(islice(live_bodies(platform), IN_PROCESS))
    gc.collect()
    gc.freeze()  # as the Bento's service does once it has started
    took = _timed(service.decide, requests)
    gc.unfreeze()
    service.close()
    return _latencies(took)


def serve_over_http(platform: Platform, _: Sizes) -> Measured:
    """The served Bento on loopback, without keys, one worker."""
    alone, closed, constant, batches = [], [], [], []
    with served(platform, "service") as service:
        port, feed = port_of(service), Feed(live_bodies(platform), platform.settings.home / "bodies")
        feed.load(port, CONNECTIONS, WARM_UP_S)
        for _round in range(REPEATS):
            alone.append(feed.load(port, 1, ALONE_S, ALONE_RATE))
            closed.append(feed.load(port, CONNECTIONS, CLOSED_S))
            constant.append(feed.load(port, CONNECTIONS, RATE_S, RATE))
            batches.append(
                feed.load(port, BATCH_CONNECTIONS, BATCH_S, batch=BATCH, path=BATCHES, most=BATCH_MOST)
            )
    decided = median(batches, "per_second") * BATCH
    over = sum(one.over for one in constant) / sum(one.answered for one in constant)
    lines = (
        f"1 connection, {ALONE_RATE:g} a second: {told(alone, ALONE_TARGETS)}",
        f"{CONNECTIONS} connections, as fast as answered: {median(closed, 'per_second'):,.0f} a second, "
        f"{told(closed)}",
        f"{CONNECTIONS} connections, {RATE:,.0f} a second for {RATE_S:g} s: "
        f"{median(constant, 'per_second'):,.0f} answered a second, {told(constant, RATE_TARGETS)}, "
        f"{over:.3%} over {LIMIT_MS:g} ms; {_others(constant)}",
        f"batches of {BATCH}, {BATCH_CONNECTIONS} connections: {decided:,.0f} decisions a second "
        f"(target {BATCH_TARGET:,}), {told(batches)} a batch; {_others(batches)}",
        f"the generator sent {max(one.behind_ms for one in alone + constant):.1f} ms late at the most; "
        "no key, one worker",
    )
    note = f"one connection at {ALONE_RATE:g} a second: {told(alone, ALONE_TARGETS)}; below"
    size = int(ALONE_RATE * ALONE_S)
    return Measured(size, tuple(size / one.per_second for one in closed), note, lines)


def _others(rounds: Sequence[Loaded]) -> str:
    return f"{other_tiers(rounds):.3%} by another tier than the model's"


@contextmanager
def served(platform: Platform, name: str) -> Iterator[RunningService]:
    """The packaged Bento over a copy of the loaded store, stopped at the end."""
    from fraud_platform.adapters.bento_server import free_port, start_service
    from fraud_platform.adapters.spill import spill_folder

    path, state = Path((platform.settings.home / "bento.txt").read_text()), state_of(platform, name)
    try:
        with start_service(path, free_port(), state) as service:
            yield service
    finally:
        shutil.rmtree(spill_folder(state), ignore_errors=True)


def port_of(service: RunningService) -> int:
    return int(service.url.rpartition(":")[2])


def state_of(platform: Platform, name: str) -> Path:
    """A new state folder with a copy of the loaded store."""
    state = platform.settings.home / name
    shutil.copytree(platform.settings.store, state / "store")
    return state


def bundle_of(platform: Platform) -> Path:
    return next(path for path in platform.settings.bundles.iterdir() if path.is_dir())


def _timed(ask: Callable[[bytes], object], requests: list[bytes]) -> list[float]:
    """Seconds of each request, the first tenth left out: it warms up."""
    took = []
    for body in requests:
        started = time.perf_counter()
        ask(body)
        took.append(time.perf_counter() - started)
    return took[len(took) // 10 :]


def _latencies(took: list[float]) -> Measured:
    size = len(took) // REPEATS
    parts = [took[start * size : (start + 1) * size] for start in range(REPEATS)]
    p50, p99 = (quantile(took, share) * 1000 for share in (0.5, 0.99))
    return Measured(size, tuple(sum(part) for part in parts), f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
