"""Every fault of tests/faults.py under requests: who is answered in time, by which tier, and what follows.

Each fault has a service of its own in this process, asked through its lane at the default deadline, over the
loaded store (on Redis over an empty one).
Belongs here: the matrix and its figures. Does not belong here: the faults (tests/faults.py).
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults import Running, full_disk, hanging, locked_store, missing_mounts, replaced, small_disk
from tests.perf.bodies import live_bodies
from tests.perf.measured import Measured, Sizes, quantile
from tests.perf.serving import bundle_of
from tests.servers import free_port, missing_redis, redis_says

if TYPE_CHECKING:
    from fraud_platform.adapters.service import ServiceSettings
    from fraud_platform.defs.platform import Platform
    from fraud_platform.serve.record import Decision

REQUESTS, DEADLINE_MS = 200, 50.0
WARM_UP = 300
PATIENCE_S, POLL_S = 30.0, 0.002
DAY_NS = 86_400 * 10**9
SPARE_MIB = 64

Fault = Callable[[Running], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Endured:
    """took_ms: of each answer; answers: those under the fault; recovery_ms: from its end to an answer by the
    model without a fault."""

    took_ms: list[float]
    answers: list[Decision]
    recovery_ms: float

    @property
    def in_time(self) -> float:
        return sum(ms <= DEADLINE_MS for ms in self.took_ms) / len(self.took_ms)

    def line(self, name: str) -> str:
        tiers = Counter(answer.tier for answer in self.answers)
        faults = Counter(fault for answer in self.answers for fault in answer.faults)
        p50, p99 = (quantile(self.took_ms, share) for share in (0.5, 0.99))
        return (
            f"{name}: {self.in_time:.1%} within {DEADLINE_MS:g} ms, p50 {p50:.2f} ms, p99 {p99:.1f} ms, "
            f"at the most {max(self.took_ms):.1f} ms; tiers {_counts(tiers)}; faults {_counts(faults)}; "
            f"the model again after {self.recovery_ms:.0f} ms"
        )


def faults(platform: Platform, _: Sizes) -> Measured:
    started, endured, missing = time.perf_counter(), {}, []
    for name, endure in MATRIX.items():
        reason = NEEDS.get(name, lambda: None)()
        if reason is None:
            endured[name] = endure(Place(platform, platform.settings.home / f"fault {name}"))
        else:
            missing.append(f"{name}: not run: {reason}")
    late = sum(sum(ms > DEADLINE_MS for ms in one.took_ms) for one in endured.values())
    answers = sum(len(one.answers) for one in endured.values())
    note = (
        f"{1 - late / answers:.2%} answered within {DEADLINE_MS:g} ms (target 100 %), {late} were not; below"
    )
    lines = (*(one.line(name) for name, one in endured.items()), *missing)
    return Measured(answers, (time.perf_counter() - started,), note, lines)


@dataclass(frozen=True)
class Place:
    """Where one fault happens."""

    platform: Platform
    folder: Path

    @property
    def settings(self) -> ServiceSettings:
        from fraud_platform.adapters.service import ServiceSettings

        return ServiceSettings(bundle_of(self.platform), self.folder / "state", spill=self.folder / "spill")

    def with_store(self) -> ServiceSettings:
        shutil.copytree(self.platform.settings.store, self.folder / "state" / "store")
        return self.settings

    def endure(
        self, settings: ServiceSettings, fault: Fault, ask: Callable[..., Any] | None = None
    ) -> Endured:
        with Running(settings) as running:
            return endure(running, live_bodies(self.platform), fault, ask or one_by_one)


def endure(running: Running, bodies: Iterator[bytes], fault: Fault, ask: Callable[..., Any]) -> Endured:
    _until_well(running, bodies)
    for _ in range(WARM_UP):
        running.ask(next(bodies))
    with fault(running):
        took, answers = ask(running, bodies)
    ended = time.perf_counter()
    _until_well(running, bodies)
    return Endured(took, answers, (time.perf_counter() - ended) * 1000)


def one_by_one(running: Running, bodies: Iterator[bytes]) -> tuple[list[float], list[Decision]]:
    took, answers = [], []
    for _ in range(REQUESTS):
        body, started = next(bodies), time.perf_counter()
        answers.append(running.ask(body))
        took.append((time.perf_counter() - started) * 1000)
    return took, answers


def all_at_once(running: Running, bodies: Iterator[bytes]) -> tuple[list[float], list[Decision]]:
    """Each from the moment at which it is handed to the service."""

    async def timed(body: bytes) -> tuple[float, Decision]:
        started = time.perf_counter()
        answer = await running.online.decide(body)
        return (time.perf_counter() - started) * 1000, answer

    async def together() -> list[tuple[float, Decision]]:
        return list(await asyncio.gather(*(timed(next(bodies)) for _ in range(REQUESTS))))

    found = running._run(together())
    return [ms for ms, _ in found], [answer for _, answer in found]


def _until_well(running: Running, bodies: Iterator[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = running.ask(next(bodies))
        if answer.tier == "model" and not answer.faults:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"after {PATIENCE_S:g} s still tier {answer.tier}, faults {answer.faults}")
        time.sleep(POLL_S)


def no_fault(place: Place) -> Endured:
    @contextmanager
    def nothing(_: Running) -> Iterator[None]:
        yield

    return place.endure(place.with_store(), nothing)


def store_locked(place: Place) -> Endured:
    return place.endure(place.with_store(), lambda running: locked_store(running.settings.state))


def model_hangs(place: Place) -> Endured:
    return place.endure(place.with_store(), lambda one: hanging(one.service.decider.judge._booster, "score"))


def model_nan(place: Place) -> Endured:
    return place.endure(
        place.with_store(),
        lambda one: replaced(one.service.decider.judge._booster, "score", lambda row: math.nan),
    )


def model_fails(place: Place) -> Endured:
    return place.endure(
        place.with_store(), lambda one: replaced(one.service.decider.judge._booster, "score", _fails)
    )


def model_unreadable(place: Place) -> Endured:
    """A judge that could not read its model decides until the switch to a whole bundle."""
    from fraud_platform.serve.judge import Judge

    @contextmanager
    def unreadable(running: Running) -> Iterator[None]:
        decider = running.service.decider
        whole = decider.adopt(Judge(running.service.bundle, has_model=False))
        try:
            yield
        finally:
            decider.adopt(whole)

    return place.endure(place.with_store(), unreadable)


def log_hangs(place: Place) -> Endured:
    return place.endure(place.with_store(), lambda running: hanging(running.service.journal, "append"))


def disk_full(place: Place) -> Endured:
    size = (place.platform.settings.store / "data.mdb").stat().st_size
    with small_disk(place.folder / "disk", 2 * size // (1 << 20) + SPARE_MIB) as disk:
        shutil.copytree(place.platform.settings.store, disk / "state" / "store")
        return place.endure(replace(place.settings, state=disk / "state"), lambda _: full_disk(disk))


def clock_jumps(place: Place) -> Endured:
    from fraud_platform.serve.clock import SteadyClock

    ahead = [0]
    clock = SteadyClock(wall=lambda: time.time_ns() + ahead[0])

    @contextmanager
    def jumped(_: Running) -> Iterator[None]:
        ahead[0] = -DAY_NS
        try:
            yield
        finally:
            ahead[0] = 0

    with Running(place.with_store(), clock) as running:
        return endure(running, live_bodies(place.platform), jumped, one_by_one)


def rules_fail(place: Place) -> Endured:
    return place.endure(place.with_store(), lambda one: replaced(one.service.decider.judge, "judge", _fails))


def burst(place: Place) -> Endured:
    @contextmanager
    def nothing(_: Running) -> Iterator[None]:
        yield

    return place.endure(place.with_store(), nothing, all_at_once)


def redis_stopped(place: Place) -> Endured:
    @contextmanager
    def stopped(server: Server) -> Iterator[None]:
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server.process.pid, signal.SIGCONT)

    return _on_redis(place, stopped)


def redis_gone(place: Place) -> Endured:
    @contextmanager
    def gone(server: Server) -> Iterator[None]:
        server.end()
        try:
            yield
        finally:
            server.start()

    return _on_redis(place, gone)


class Server:
    """A Redis that keeps what it holds when it ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self._command = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
        ]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        while redis_says(self.port, "PING") != "PONG":
            time.sleep(0.02)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def _on_redis(place: Place, fault: Callable[[Server], AbstractContextManager[None]]) -> Endured:
    from fraud_platform.adapters.redis import READY, RedisStore, namespace_of

    contract = place.platform.contract
    with ExitStack() as ends:
        server = Server(place.folder / "redis")
        ends.callback(lambda: server.end())
        url = f"redis://127.0.0.1:{server.port}"
        with RedisStore.open(url, contract, namespace=namespace_of(contract)) as store:
            store.set_meta(READY, "yes")
        return place.endure(replace(place.settings, store=url), lambda _: fault(server))


def _fails(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in found.most_common()) or "none"


MATRIX: dict[str, Callable[[Place], Endured]] = {
    "no fault": no_fault,
    "store locked": store_locked,
    "Redis stopped": redis_stopped,
    "Redis gone": redis_gone,
    "model hangs": model_hangs,
    "model gives NaN": model_nan,
    "model fails": model_fails,
    "model unreadable": model_unreadable,
    "log hangs": log_hangs,
    "disk full": disk_full,
    "clock jumps by a day": clock_jumps,
    "rules fail": rules_fail,
    f"burst of {REQUESTS}": burst,
}
NEEDS: dict[str, Callable[[], str | None]] = {
    "disk full": missing_mounts,
    "Redis stopped": missing_redis,
    "Redis gone": missing_redis,
}
