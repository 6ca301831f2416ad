"""Redis servers of the tests' own: on free ports, in temporary folders, stopped by their own process id.

Belongs here: starting, waiting for and stopping a server. Does not belong here: which store uses it
(stores.py).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

REDIS_BINARIES = ("redis-server", "redis-cli")
MASTERS = 3
READY_SECONDS = 120.0
PORTS_TRIED = 5


def missing_redis() -> str | None:
    """Why no Redis can be started here, None where it can."""
    missing = [name for name in REDIS_BINARIES if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found: apt-get install redis-server" if missing else None


@contextmanager
def redis_server(folder: Path, *options: str, is_of_cluster: bool = False) -> Iterator[int]:
    """A server without persistence in `folder`; gives its port."""
    folder.mkdir(parents=True)
    process, port = _started(folder, options, is_of_cluster)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(READY_SECONDS)


def _started(
    folder: Path, options: Sequence[str], is_of_cluster: bool
) -> tuple[subprocess.Popen[bytes], int]:
    """A free port may be taken by another program before the server has it: then on others."""
    for tried in range(1, PORTS_TRIED + 1):
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no", *options]
        if is_of_cluster:
            command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until(process, folder / "log", partial(_answers, port))
        except BaseException as error:
            process.kill()
            process.wait(READY_SECONDS)
            if "Address already in use" not in str(error) or tried == PORTS_TRIED:
                raise
        else:
            return process, port
    raise AssertionError


def _answers(port: int) -> bool:
    return redis_says(port, "PING") == "PONG"


@contextmanager
def redis_cluster(folder: Path) -> Iterator[list[int]]:
    """MASTERS servers that share the slots; gives their ports."""
    with ExitStack() as servers:
        ports = [
            servers.enter_context(redis_server(folder / str(number), is_of_cluster=True))
            for number in range(MASTERS)
        ]
        addresses = [f"127.0.0.1:{port}" for port in ports]
        done = subprocess.run(
            ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"no cluster of {addresses}: {done.stdout[-2000:]} {done.stderr}")
        deadline = time.monotonic() + READY_SECONDS
        while not all("cluster_state:ok" in redis_says(port, "CLUSTER", "INFO") for port in ports):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster of {addresses} is not ready after {READY_SECONDS:.0f} s")
            time.sleep(0.05)
        yield ports


def redis_says(port: int, *words: str) -> str:
    """What a server answers; empty where nobody listens."""
    done = subprocess.run(
        ["redis-cli", "-p", str(port), *words], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a server did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)
