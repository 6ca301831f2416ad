"""A service as a process that is killed under load: what it acknowledged, and what must hold afterwards.

Belongs here: the process, its clients, the kills and the checks. Does not belong here: how often, and where
the bundle comes from (tests/integration/test_service_kill.py, tests/perf/kills.py).
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Lock, Thread
from typing import Any

import msgspec

from fraud_platform.adapters.audit import StateReport, check_state
from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.adapters.journal import read_decisions, read_labels
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.replay import replay_log
from fraud_platform.adapters.service import Service, ServiceSettings
from fraud_platform.serve.clock import SteadyClock
from fraud_platform.serve.record import Decision
from fraud_platform.serve.replay import ReplayReport
from fraud_platform.settings import PROJECT_ROOT

HOST = "127.0.0.1"
CLIENTS = 4
LABEL_EVERY = 10
READY_S, MADE_UP_S = 180.0, 300.0
JSON = {"content-type": "application/json"}

PROGRAM = """
import sys
from pathlib import Path
import uvicorn
from fraud_platform.adapters.http import Api
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.online import OnlineService
from fraud_platform.adapters.service import Service, ServiceSettings
from fraud_platform.serve.clock import SteadyClock

bundle, state, spill, port = sys.argv[1:]
settings = ServiceSettings(Path(bundle), Path(state), spill=Path(spill))
api = Api()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        api.start(OnlineService(Service(settings, SteadyClock())), Metrics(None))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await api(scope, receive, send)

uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
"""
"""The Bento's service and interface without BentoML around them, so that hundreds of starts take minutes."""


class Acknowledged:
    """What clients were told: the answer by transaction_id, the transactions whose label was taken in, and
    answers that were none. Safe for several threads."""

    def __init__(self, bodies: Iterator[bytes]) -> None:
        self._bodies = bodies
        self._lock = Lock()
        self._again: list[bytes] = []
        self._asked: set[bytes] = set()
        self.decisions: dict[str, dict[str, Any]] = {}
        self.labels: set[str] = set()
        self.refused: list[str] = []

    @property
    def open(self) -> list[bytes]:
        """What was asked and not answered."""
        return [*self._again, *self._asked]

    def next_body(self) -> bytes:
        with self._lock:
            body = self._again.pop() if self._again else next(self._bodies)
            self._asked.add(body)
            return body

    def answered(self, body: bytes, answer: tuple[int, bytes]) -> None:
        status, content = answer
        with self._lock:
            self._asked.discard(body)
            if status == 200:
                decision = json.loads(content)
                self.decisions[decision["transaction_id"]] = _lasting(decision)
            else:
                self.refused.append(f"{status}: {content.decode()}")

    def ask_again(self) -> None:
        """What was not answered is asked before anything new."""
        self._again += self._asked
        self._asked.clear()


@dataclass(frozen=True)
class Aftermath:
    """What is left after the kills. lost, changed, labels_lost: of what was acknowledged; doubled, uncounted:
    of what is logged."""

    kills: int
    decisions: int
    labels: int
    refused: tuple[str, ...]
    lost: int
    changed: int
    labels_lost: int
    logged: int
    doubled: int
    uncounted: int
    audit: StateReport
    replay: ReplayReport

    @property
    def is_whole(self) -> bool:
        """Nothing acknowledged is lost or another, every chain holds, a replay makes the same of all."""
        wrong = self.lost + self.changed + self.labels_lost + self.doubled + self.uncounted
        is_asked = self.decisions > self.kills and not self.refused
        return is_asked and not wrong and self.audit.is_whole and self.replay.is_equal

    def lines(self) -> tuple[str, ...]:
        return (
            f"{self.kills} kills: {self.decisions:,} decisions and {self.labels:,} labels acknowledged, "
            f"{self.lost} lost, {self.changed} with another answer, {self.labels_lost} labels lost",
            *self.refused[:3],
            f"log: {self.logged:,} decisions, {self.doubled} twice, {self.uncounted} not in the store",
            *self.audit.lines(),
            *self.replay.examples[:3],
            *self.replay.lines(),
        )


def kill_often(
    settings: ServiceSettings, bodies: Iterator[bytes], kills: int, port: int, life_s: float, seed: int = 0
) -> Acknowledged:
    """Starts the service, asks it and kills it (SIGKILL) at a random moment, `kills` times.

    What was not answered is asked again after the next start, as clients do. life_s: from the first request
    to the kill, at the most. settings must name a spill folder.
    """
    random, told = Random(seed), Acknowledged(bodies)
    for _ in range(kills):
        process = _started(settings, port)
        try:
            clients = [Thread(target=_ask, args=(port, told)) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            time.sleep(life_s * random.uniform(0.1, 1.0))
            assert process.poll() is None, "the service ended by itself"
        finally:
            process.kill()
            process.wait()
        for client in clients:
            client.join()
        told.ask_again()
    return told


def aftermath(settings: ServiceSettings, base: Path | None, told: Acknowledged, kills: int) -> Aftermath:
    """Starts once more, here, asks what is open, and looks at everything.

    base: a copy of the store that the service began with; None where that was empty.
    """
    service = Service(settings, SteadyClock())
    try:
        for body in told.open:
            service.decide(body)
        _make_up(service)
        found = {name: service.decision(name) for name in told.decisions}
    finally:
        service.close()
    state, contract = settings.state, load_bundle(settings.bundle).contract
    records = [one.record for one in read_decisions(state)]
    names = [record.transaction_id for record in records]
    labels = {one.record.event.transaction_id for one in read_labels(state)}
    with LmdbStore.open(state / "store", contract) as store:
        uncounted = sum(not store.seen(name) for name in names)
    audit = check_state(state)
    return Aftermath(
        kills=kills,
        decisions=len(told.decisions),
        labels=len(told.labels),
        refused=tuple(told.refused),
        lost=sum(one is None for one in found.values()),
        changed=sum(one is not None and _told(one) != told.decisions[name] for name, one in found.items()),
        labels_lost=len(told.labels - labels),
        logged=len(names),
        doubled=len(names) - len(set(names)),
        uncounted=uncounted,
        audit=audit,
        replay=replay_log(state, lambda _: load_bundle(settings.bundle), base=base),
    )


def _started(settings: ServiceSettings, port: int) -> subprocess.Popen[bytes]:
    folders = [str(settings.bundle), str(settings.state), str(settings.spill)]
    command = [sys.executable, "-c", PROGRAM, *folders, str(port)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + READY_S
    while not _is_ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"the service is not ready, status {process.returncode}; see above")
        time.sleep(0.02)
    return process


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _ask(port: int, told: Acknowledged) -> None:
    """One client until the service is gone. Each tenth payment is reported as soon as it was answered."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        for number in itertools.count(1):
            body = told.next_body()
            answer = _post(connection, "/v1/decisions", body)
            told.answered(body, answer)
            if number % LABEL_EVERY == 0:
                asked = json.loads(body)
                label = {
                    "transaction_id": asked["transaction_id"],
                    "source": "chargeback",
                    "outcome": "fraud",
                }
                label["known_at"] = asked["event_time"] + 1000
                if _post(connection, "/v1/labels", json.dumps(label).encode())[0] == 202:
                    told.labels.add(asked["transaction_id"])
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", path, body, JSON)
    answer = connection.getresponse()
    return answer.status, answer.read()


def _make_up(service: Service) -> None:
    deadline = time.monotonic() + MADE_UP_S
    while service.decider.behind.waiting != (0, 0):
        assert time.monotonic() < deadline, f"(unobserved, unlogged) stays {service.decider.behind.waiting}"
        service.tidy()
        time.sleep(0.001)


def _told(decision: Decision) -> dict[str, Any]:
    """What of an answer must stay: whether it is a repeat, and faults of the moment, need not."""
    return _lasting(json.loads(msgspec.json.encode(decision)))


def _lasting(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("is_repeat", "faults")}
