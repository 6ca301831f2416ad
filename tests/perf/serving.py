"""The decision service, in process and over HTTP.

Belongs here: requests of the simulated world's live day. Does not belong here: the store alone (online.py).
"""

from __future__ import annotations

import gc
import http.client
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.perf.measured import Measured, Sizes, quantile

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

IN_PROCESS, OVER_HTTP, REPEATS = 6_000, 3_000, 3


def serve_in_process(platform: Platform, _: Sizes) -> Measured:
    from fraud_platform.adapters.service import Service, ServiceSettings

    state = _state(platform, "in-process")
    bundle = next(path for path in platform.settings.bundles.iterdir() if path.is_dir())
    service = Service(ServiceSettings(bundle, state), platform.now_ms)
    requests = _requests(platform, IN_PROCESS)
    gc.collect()
    gc.freeze()  # as the Bento's service does once it has started
    took = _timed(service.decide, requests)
    gc.unfreeze()
    service.close()
    return _latencies(took)


def serve_over_http(platform: Platform, _: Sizes) -> Measured:
    from fraud_platform.adapters.bento_server import free_port, start_service

    path, port = Path((platform.settings.home / "bento.txt").read_text()), free_port()
    state = _state(platform, "service")
    requests = _requests(platform, OVER_HTTP)
    with start_service(path, port, state):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        took = _timed(lambda body: _post(connection, body), requests)
        connection.close()
    return _latencies(took)


def _state(platform: Platform, name: str) -> Path:
    state = platform.settings.home / name
    shutil.copytree(platform.settings.store, state / "store")
    return state


def _requests(platform: Platform, count: int) -> list[bytes]:
    """The live day as a client posts it; where it is too short, the same day again a day later."""
    from fraud_platform.schema import MILLISECONDS_PER_DAY, TRANSACTION_COLUMNS

    names = [column.name for column in TRANSACTION_COLUMNS]
    chosen = ", ".join("epoch_ms(event_time)" if name == "event_time" else name for name in names)
    path = str(platform.settings.home / "live" / "transactions.parquet")
    with platform.warehouse.connect(read_only=True) as connection:
        rows = connection.execute(
            f"select {chosen} from read_parquet(?) order by event_time", [path]
        ).fetchall()
    bodies = []
    for number in range(count):
        again, place = divmod(number, len(rows))
        values = {name: value for name, value in zip(names, rows[place], strict=True) if value is not None}
        values["transaction_id"] += f"-{again}"
        values["event_time"] += again * MILLISECONDS_PER_DAY
        bodies.append(json.dumps(values).encode())
    return bodies


def _timed(ask: Callable[[bytes], object], requests: list[bytes]) -> list[float]:
    """Seconds of each request, the first tenth left out: it warms up."""
    took = []
    for body in requests:
        started = time.perf_counter()
        ask(body)
        took.append(time.perf_counter() - started)
    return took[len(took) // 10 :]


def _post(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/v1/decisions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"the service answered {answer.status}: {content.decode()}")


def _latencies(took: list[float]) -> Measured:
    size = len(took) // REPEATS
    parts = [took[start * size : (start + 1) * size] for start in range(REPEATS)]
    p50, p99 = (quantile(took, share) * 1000 for share in (0.5, 0.99))
    return Measured(size, tuple(sum(part) for part in parts), f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
