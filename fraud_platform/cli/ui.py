"""`ui`: Dagster (web server and daemon) and MLflow over the same `var/`, until interrupted."""

from __future__ import annotations

import os
import signal
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
    prepare_environment(settings)
    settings.mlflow_home.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
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
        raise SettingsError(
            f"{Path(str(ended.args[0])).name} ended with {ended.returncode}; is its port taken? see above"  # type: ignore[index]
        )
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        for child in children:
            _stop(child)


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
    """Interrupts the group that the child leads, which holds everything it started, and waits."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            return
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if not _group_lives(child.pid):
            return


def _group_lives(group: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True
