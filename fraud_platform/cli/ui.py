"""`ui`: Dagster (web server and daemon) and MLflow over the same `var/`, until interrupted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from fraud_platform.cli.instance import console, prepare_environment
from fraud_platform.errors import SettingsError
from fraud_platform.settings import PROJECT_ROOT, Settings

HOST = "127.0.0.1"
STOP_SECONDS = 20


def serve_ui(settings: Settings, dagster_port: int, mlflow_port: int) -> None:
    """Both servers as children; when one ends or this process is told to, both end."""
    for option, port in (("--dagster-port", dagster_port), ("--mlflow-port", mlflow_port)):
        _require_free(option, port)
    prepare_environment(settings)
    settings.mlflow_home.mkdir(parents=True, exist_ok=True)
    # A shell that starts this in the background ignores interrupts for it, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    children = [
        _start(_dagster(dagster_port), PROJECT_ROOT),
        _start(_mlflow(settings, mlflow_port), settings.mlflow_home),
    ]
    console.print(
        f"Dagster  http://{HOST}:{dagster_port}\nMLflow   http://{HOST}:{mlflow_port}", soft_wrap=True
    )
    console.print("Ctrl-C stops both.")
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.5)
        ended = next(child for child in children if child.poll() is not None)
        raise SettingsError(f"{ended.args!r} ended with {ended.returncode}; its last lines above say why")
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.SIG_IGN)
        for child in children:
            _tell(child, signal.SIGINT)
        for child in children:
            _stop(child)


def _require_free(option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(f"{option} {port}: something listens there already; give another") from error


def _dagster(port: int) -> list[str]:
    command = [_tool("dagster"), "dev", "--workspace", str(PROJECT_ROOT / "workspace.yaml")]
    return [*command, "--host", HOST, "--port", str(port)]


def _mlflow(settings: Settings, port: int) -> list[str]:
    command = [_tool("mlflow"), "server", "--backend-store-uri", settings.mlflow_uri, "--host", HOST]
    command += ["--port", str(port), "--workers", "1"]
    return [*command, "--artifacts-destination", str(settings.mlflow_artifacts)]


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Waits for the group that the child leads, with everything it started; ends it by force at last."""
    for sign in (None, signal.SIGTERM, signal.SIGKILL):
        if sign is not None:
            _tell(child, sign)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            child.poll()
            if not _tell(child, 0):
                return
            time.sleep(0.1)


def _tell(child: subprocess.Popen[bytes], sign: int) -> bool:
    """Signals the child's group; False where nobody is left in it."""
    try:
        os.killpg(child.pid, sign)
    except ProcessLookupError:
        return False
    return True
