"""What a container of the image runs first: check what it was given, then become BentoML's server.

Belongs here: everything that a wrong mount, user or variable would otherwise turn into a server that starts
again and again. Does not belong here: what the settings mean (`adapters.service`), how the image is built
(`adapters.image`). Runs inside the image, from the Bento's own files, as process 1.

    image_start [serve]   check, then serve BENTO_PATH; other words are run as a command, for a look inside
    image_start health    status 0 where the server in this container is ready
"""

from __future__ import annotations

import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

from fraud_platform.errors import SettingsError

BENTO_VARIABLE = "BENTO_PATH"
PORT_VARIABLE = "BENTOML_PORT"
WORKERS_VARIABLE = "FRAUD_PLATFORM_WORKERS"
STATE_VARIABLE = "FRAUD_PLATFORM_STATE"
OPTIONS_VARIABLE = "BENTOML_CONFIG_OPTIONS"
TEMPORARY = Path("/tmp")
WORKERS_MAX = 64
HEALTH_SECONDS = 3.0


def main(arguments: Sequence[str], env: MutableMapping[str, str]) -> int:
    """Does not return where it becomes another program; EX_CONFIG, with one line, where a check fails."""
    if arguments and arguments[0] == "health":
        return 0 if is_healthy(int(env.get(PORT_VARIABLE) or 3000)) else 1
    if arguments and arguments[0] != "serve":
        return _become(arguments, env)
    try:
        check(env)
        env.update(worker_options(env))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return os.EX_CONFIG
    return _become(["bentoml", "serve", env[BENTO_VARIABLE], *arguments[1:]], env)


def check(env: Mapping[str, str], is_mount: Callable[[Path], bool] = os.path.ismount) -> None:
    """SettingsError for the first thing that is missing, names the wrong place or may not be used."""
    # Heavy, and `health` runs every few seconds.
    from fraud_platform.adapters.http_settings import KEYS_VARIABLE, NO_KEYS, HttpSettings
    from fraud_platform.adapters.service import ServiceSettings

    HttpSettings.from_env(env)
    settings = ServiceSettings.from_env(env, Path(env[BENTO_VARIABLE]) / "src" / "bundle")
    check_state(settings.state, is_mount)
    check_writable(TEMPORARY, "BentoML keeps its metrics there", f"give the container a tmpfs at {TEMPORARY}")
    for variable, value in sorted(env.items()):
        is_file = variable.startswith("FRAUD_PLATFORM_") and variable.endswith("_FILE")
        if value and (is_file or (variable == KEYS_VARIABLE and value != NO_KEYS)):
            check_secret(variable, value)


def check_state(state: Path, is_mount: Callable[[Path], bool] = os.path.ismount) -> None:
    """The state must lie on a volume: a container's own filesystem ends with the container."""
    place = state
    while not is_mount(place) and place != place.parent:
        place = place.parent
    if place == place.parent:
        raise SettingsError(
            f"{STATE_VARIABLE}={state} is on the container's own filesystem, which ends with the container: "
            f"mount a volume at {state} for store and logs"
        )
    check_writable(
        state,
        "store and logs are kept there",
        f"give it to the user (chown -R {os.getuid()} on a host, fsGroup: {os.getgid()} on Kubernetes)",
    )


def check_writable(folder: Path, why: str, fix: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be written by user {os.getuid()} ({error.strerror}), and {why}: {fix}"
        ) from error


def check_secret(variable: str, path: str) -> None:
    try:
        is_empty = not Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{variable}={path} cannot be read by user {os.getuid()} ({error.strerror}): "
            "mount the secret there, readable for that user"
        ) from error
    if is_empty:
        raise SettingsError(f"{variable}={path} is empty: put the secret into the file")


def worker_options(env: Mapping[str, str]) -> dict[str, str]:
    """BentoML's options, with the number of workers in them where FRAUD_PLATFORM_WORKERS gives it."""
    workers = env.get(WORKERS_VARIABLE)
    if not workers:
        return {}
    if not workers.isdecimal() or not 1 <= int(workers) <= WORKERS_MAX:
        raise SettingsError(f"{WORKERS_VARIABLE}={workers!r}: give a whole number from 1 to {WORKERS_MAX}")
    said = [env.get(OPTIONS_VARIABLE, ""), f"services.fraud_platform.workers={int(workers)}"]
    return {OPTIONS_VARIABLE: " ".join(filter(None, said))}


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=HEALTH_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _become(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    os.execvpe(command[0], list(command), dict(env))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
