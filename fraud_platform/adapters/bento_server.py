"""A Bento as a running process: started outside the repository, stopped by its own process id."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from fraud_platform.adapters.bento import QUIET
from fraud_platform.adapters.http_settings import KEYS_VARIABLE, NO_KEYS
from fraud_platform.adapters.service import STATE_VARIABLE
from fraud_platform.errors import FraudPlatformError

HOST = "127.0.0.1"
LOG_TAIL_LINES = 30
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1


class ServiceError(FraudPlatformError):
    """The service did not start."""


@dataclass(frozen=True)
class RunningService:
    """url: without a slash at its end; log: what the server wrote."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End the server and every process it started; the workers close store and log first."""
        atexit.unregister(self.stop)
        family = _family(self.process.pid)
        self.process.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
        self.process.wait()

    def worker_pids(self) -> list[int]:
        """The processes that answer requests."""
        return [p.pid for p in _family(self.process.pid) if p.pid != self.process.pid]

    def __enter__(self) -> RunningService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_service(
    bento_path: Path, port: int, state_dir: Path, *, timeout_s: float = 90.0, keys: str = ""
) -> RunningService:
    """Serve a Bento on loopback and wait until it is ready.

    ServiceError for a port that is taken, and, with the end of its log, when it ended or was not ready in
    time; it is stopped then. The log of an earlier run stays: state_dir/service.log grows.
    """
    if _is_taken(port):
        raise ServiceError(
            f"port {port}: something listens on {HOST}:{port} already; stop it, or give another port"
        )
    state_dir.mkdir(parents=True, exist_ok=True)
    log = state_dir / "service.log"
    command = [sys.executable, "-m", "bentoml", "serve", str(bento_path.resolve())]
    with log.open("ab") as output:
        log_start = output.tell()
        process = subprocess.Popen(
            [*command, "--host", HOST, "--port", str(port)],
            cwd=state_dir,
            env=_environment(state_dir, keys),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = RunningService(f"http://{HOST}:{port}", log, process)
    atexit.register(service.stop)  # an exit may come before whoever asked for the service has it
    is_started = False
    try:
        _await(service, bento_path, timeout_s, log_start)
        is_started = True
    finally:
        if not is_started:
            service.stop()  # whatever ended the wait, an interrupt too: nothing may stay behind
    return service


def _await(service: RunningService, bento_path: Path, timeout_s: float, log_start: int) -> None:
    """Ready is what answers as ready while the process lives: another server may have come to the port."""
    deadline = time.monotonic() + timeout_s
    while True:
        is_ready = _is_ready(service.url)
        is_alive = service.process.poll() is None
        if is_ready and is_alive:
            return
        if not is_alive or time.monotonic() > deadline:
            what = f"not ready in {timeout_s:.0f} s" if is_alive else "not ready: it ended"
            tail = _tail(service.log, log_start)
            raise ServiceError(f"the service of {bento_path} was {what}:\n{tail}")
        time.sleep(POLL_SECONDS)


def _tail(log: Path, start: int) -> str:
    """The last lines that were written after byte `start`."""
    written = log.read_bytes()[start:].decode(errors="replace")
    return "\n".join(written.splitlines()[-LOG_TAIL_LINES:])


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _environment(state_dir: Path, keys: str) -> dict[str, str]:
    """This process's environment, without what would let the repository's code in.

    On loopback no key is asked for, unless `keys` or the environment name a keys file.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept[KEYS_VARIABLE] = keys or kept.get(KEYS_VARIABLE) or NO_KEYS
    home = state_dir.resolve() / "bentoml"
    return {**kept, **QUIET, "BENTOML_HOME": str(home), STATE_VARIABLE: str(state_dir.resolve())}


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
