"""`switch`: another bundle for a running service, without a request that fails."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from fraud_platform.adapters.bundle_files import ID_DIGITS
from fraud_platform.adapters.bundle_switch import Serving, Wish, make_wish, read_serving
from fraud_platform.cli.instance import console
from fraud_platform.errors import BundleError
from fraud_platform.settings import Settings

PATIENCE_S = 30.0
POLL_S = 0.2


def switch_bundle(settings: Settings, bundle: str, state: Path | None) -> None:
    """Returns when every worker decides with it. BundleError where it is refused, or nobody serves."""
    folder = state or settings.service_state
    path = _bundle(settings, bundle)
    serving = _workers(folder)
    wish = make_wish(folder, path, serving[0].started_with, serving[0].contract)
    with console.status(f"waiting for {len(serving)} workers"):
        _await(folder, wish)
    console.print(f"bundle {wish.id} decides now, in {len(serving)} workers")


def _bundle(settings: Settings, name: str) -> Path:
    if name and Path(name).is_dir():
        return Path(name)
    found = sorted(
        (path for path in settings.bundles.glob("[0-9a-f]*") if path.name.startswith(name[:ID_DIGITS])),
        key=lambda path: path.stat().st_mtime,
    )
    if not found:
        raise BundleError(f"no bundle {name!r} in {settings.bundles}: package an approved version first")
    if name and len(found) > 1:
        raise BundleError(f"bundle {name!r}: {[path.name for path in found]} begin so; give more digits")
    return found[-1]


def _workers(state: Path) -> list[Serving]:
    serving = [one for one in read_serving(state) if psutil.pid_exists(one.pid)]
    if not serving:
        raise BundleError(f"no service runs on {state}: start it with the bundle (fraud-platform serve)")
    return serving


def _await(state: Path, wish: Wish) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        serving = _workers(state)
        refused = [one for one in serving if one.refused == wish.id]
        if refused:
            raise BundleError(f"bundle {wish.id[:12]} was refused, the old one stays: {refused[0].why}")
        if all(one.bundle == wish.id for one in serving):
            return
        if time.monotonic() > deadline:
            slow = [one.pid for one in serving if one.bundle != wish.id]
            raise BundleError(f"bundle {wish.id[:12]} is not taken yet by {slow} after {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)
