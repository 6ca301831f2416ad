"""What goes wrong with a service, each way by its real means where there is one, and undone by itself.

Belongs here: a running service in this process and the faults that tests and benchmarks inject into it.
Does not belong here: what is demanded of it (tests/integration/test_faults.py, tests/perf/fault_matrix.py).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from fraud_platform.adapters.online import OnlineService
from fraud_platform.adapters.service import Service, ServiceSettings
from fraud_platform.serve.clock import SteadyClock

PATIENT_MS = 10_000
"""A deadline for tests where nothing hangs: how busy the machine is may change no answer."""

LOCK_STORE = """
import sys
from pathlib import Path
from fraud_platform.adapters.lmdb import open_environment
environment = open_environment(Path(sys.argv[1]))
with environment.begin(write=True):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def patient(bundle: Path, state: Path, **changes: Any) -> ServiceSettings:
    """Settings of a service that has time."""
    return ServiceSettings(bundle, state, **{"deadline_ms": PATIENT_MS, **changes})


class Running:
    """A service with its lane on an event loop of its own; `ask` returns what a client would get."""

    def __init__(self, settings: ServiceSettings, clock: Callable[[], int] | None = None) -> None:
        self.settings = settings
        self.service = Service(settings, clock or SteadyClock())
        self._runner = asyncio.Runner()
        self.online = self._run(self._started())

    async def _started(self) -> OnlineService:
        return OnlineService(self.service)

    def _run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def ask(self, request: Any) -> Any:
        return self._run(self.online.decide(request))

    def ask_all(self, requests: list[Any]) -> list[Any]:
        """All at the same moment."""

        async def together() -> list[Any]:
            return await asyncio.gather(*(self.online.decide(request) for request in requests))

        return list(self._run(together()))

    def find(self, transaction_id: str) -> Any:
        return self._run(self.online.decision(transaction_id))

    def learn(self, request: Any) -> Any:
        return self._run(self.online.learn(request))

    def close(self) -> None:
        self._run(self.online.close())
        self._runner.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def locked_store(state: Path) -> Iterator[None]:
    """Another process holds the store's write lock, as one that was stopped in mid-event does."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK_STORE, str(state / "store")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.communicate("\n", timeout=60)


@contextmanager
def hanging(owner: object, method: str) -> Iterator[None]:
    """Calls of a method wait until the end of the block, then go on."""
    original = getattr(owner, method)
    released = Event()

    def waits(*arguments: Any, **named: Any) -> Any:
        released.wait()
        return original(*arguments, **named)

    with replaced(owner, method, waits):
        try:
            yield
        finally:
            released.set()


@contextmanager
def replaced(owner: object, method: str, by: Any) -> Iterator[None]:
    original = getattr(owner, method)
    setattr(owner, method, by)
    try:
        yield
    finally:
        setattr(owner, method, original)


def missing_mounts() -> str | None:
    """Why no small disk can be mounted here, None where it can."""
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    return None if shutil.which("mount") else "mount not found"


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], check=True, timeout=60
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Not a byte is free until the end of the block."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()
