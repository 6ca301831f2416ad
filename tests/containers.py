"""Containers of the tests' own: an engine with its own storage, a base image, containers that end with it.

Belongs here: making a base without a registry, starting, asking and ending containers. Does not belong here:
what an image must do (tests/e2e/test_image.py).

podman and buildah keep images, containers and volumes in one temporary folder, so that nothing of the machine
is seen and nothing left behind. Containers share the host's network: each service listens on a free port of
loopback, and no bridge and no firewall rule is made. What is kept for the next run is the base, one file
(FRAUD_PLATFORM_TEST_CACHE, by default in the user's cache folder).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.servers import free_port

PROGRAMS = ("buildah", "podman", "runc", "mmdebstrap")
CACHE_VARIABLE = "FRAUD_PLATFORM_TEST_CACHE"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
BASE = "localhost/base:test"
DEBIAN = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates", "libgomp1")
INSTALLER = (
    'chroot "$1" sh -ec "python3 -m venv /usr/local/lib/uv && '
    "SSL_CERT_FILE={authorities} PIP_CERT={authorities} "
    "/usr/local/lib/uv/bin/pip install -q --no-cache-dir uv && "
    'ln -s ../lib/uv/bin/uv /usr/local/bin/uv"'
)
"""What BentoML does on a base that has none: it installs uv by pip."""

ENGINE = """
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""
LOCKED = (
    "--read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges "
    "--memory 1g --cpus 1 --pids-limit 512 --no-healthcheck"
).split()
"""How the image is meant to run. podman's timer for health checks needs systemd: tests ask by themselves."""
READY_SECONDS = 180.0


def missing_programs() -> str | None:
    """Why no container can be built and run here, None where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not found: apt-get install {' '.join(missing)}"
    return None if os.getuid() == 0 else "mmdebstrap and chroot builds need root here"


@dataclass(frozen=True)
class Container:
    """A container of the service; port: on loopback; pids: its first process and its monitor, while alive."""

    engine: Engine
    name: str
    port: int
    pids: tuple[int, ...]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> float:
        """Seconds until it was ready. RuntimeError, with its log, where it ended or took too long."""
        started = time.monotonic()
        while not self._is_ready():
            if time.monotonic() - started > READY_SECONDS or not _is_alive(self.pids[0]):
                raise RuntimeError(f"{self.name} is not ready:\n{self.log()}")
            time.sleep(0.05)
        return time.monotonic() - started

    def wait_until_ended(self) -> int:
        """The exit code. `podman wait` is not asked: it may miss the end, and then waits for 20 s more."""
        deadline = time.monotonic() + READY_SECONDS
        while any(map(_is_alive, self.pids)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not end in {READY_SECONDS:.0f} s:\n{self.log()}")
            time.sleep(0.05)
        return int(self.inspect("{{.State.ExitCode}}"))

    def kill(self, signal: str) -> int:
        """Sends the signal and waits for the end: the exit code."""
        self.engine.podman("kill", "--signal", signal, self.name)
        return self.wait_until_ended()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside the container, as its own user."""
        return self.engine.command("podman", "exec", self.name, *command)

    def inspect(self, template: str) -> str:
        return self.engine.podman("inspect", "--format", template, self.name)

    def log(self) -> str:
        done = self.engine.command("podman", "logs", self.name)
        return done.stdout + done.stderr

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Engine:
    """podman and buildah over one folder. `close` ends and removes everything that was made with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._containers = 0
        folder.mkdir(parents=True)
        settings, storage = folder / "containers.conf", folder / "storage.conf"
        settings.write_text(ENGINE)
        storage.write_text(STORAGE.format(folder=folder))
        self.env = {
            "CONTAINERS_CONF": str(settings),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_ISOLATION": "chroot",
        }

    def load_base(self) -> float:
        """Make the base image, or take it from the cache: seconds."""
        started = time.monotonic()
        change = f"ENV SSL_CERT_FILE={AUTHORITIES}"
        self.podman("import", "--quiet", "--change", change, str(cached_base()), BASE)
        return time.monotonic() - started

    def start(self, image: str, *options: str, env: Mapping[str, str] | None = None) -> Container:
        """Run the image in the background, locked down; it listens on a free port of loopback."""
        self._containers += 1
        name, port = f"test-{self._containers}", free_port()
        given = {"BENTOML_PORT": str(port), "BENTOML_HOST": "127.0.0.1", **(env or {})}
        variables = [word for pair in given.items() for word in ("--env", "=".join(pair))]
        self.podman(
            "run", "--detach", "--network", "host", "--name", name, *LOCKED, *variables, *options, image
        )
        said = self.podman("inspect", "--format", "{{.State.Pid}} {{.State.ConmonPid}}", name)
        return Container(self, name, port, tuple(int(pid) for pid in said.split() if pid != "0"))

    def podman(self, *arguments: str) -> str:
        """What it printed. RuntimeError where it failed."""
        done = self.command("podman", *arguments)
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env={**os.environ, **self.env}, capture_output=True, text=True, check=False, timeout=600
        )

    def close(self) -> None:
        self.command("podman", "rm", "--all", "--force", "--time", "5", "--volumes")
        self.command("podman", "volume", "prune", "--force")  # images go with the folder
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            place = line.split(" ")[1]
            if place.startswith(f"{self._folder}/"):
                subprocess.run(["umount", place], check=True)
        shutil.rmtree(self._folder)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cached_base() -> Path:
    """The base image's file system as a tar file, made where the cache has none."""
    hook = INSTALLER.format(authorities=AUTHORITIES)
    recipe = [f"--include={','.join(PACKAGES)}", f"--customize-hook=upload {AUTHORITIES} {AUTHORITIES}"]
    recipe += [f"--customize-hook={hook}", DEBIAN]
    kept = hashlib.sha256("\n".join(recipe).encode() + Path(AUTHORITIES).read_bytes()).hexdigest()[:16]
    folder = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "fraud_platform")
    base = folder / f"base-{kept}.tar"
    if not base.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{os.getpid()}-{base.name}"
        command = ["mmdebstrap", "--variant=minbase", *recipe, str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            unfinished.unlink(missing_ok=True)
            raise RuntimeError(f"mmdebstrap: {done.returncode}\n{done.stderr[-3000:]}")
        unfinished.rename(base)
    return base
