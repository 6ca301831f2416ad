"""The service, killed under load many times: `python -m tests.perf.kills --kills 200`, or the stage kills.

Belongs here: the loaded store under it, and the report. Does not belong here: processes, clients and checks
(tests/killed.py).
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

from tests.killed import aftermath, kill_often
from tests.perf.bodies import live_bodies
from tests.perf.measured import Measured, Sizes
from tests.perf.serving import bundle_of, state_of
from tests.servers import free_port

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

KILLS = 20
LIFE_S = 0.6


def kills(platform: Platform, _: Sizes) -> Measured:
    return kill(platform, KILLS)


def kill(platform: Platform, number: int) -> Measured:
    """Over the loaded store. SystemExit where anything acknowledged is lost, or anything differs."""
    from fraud_platform.adapters.service import ServiceSettings
    from fraud_platform.adapters.store_audit import audit_store

    home, started = platform.settings.home, time.perf_counter()
    state = state_of(platform, "killed")
    shutil.copytree(platform.settings.store, home / "before-kills")
    settings = ServiceSettings(bundle_of(platform), state, spill=home / "killed-spill")
    told = kill_often(settings, live_bodies(platform), number, free_port(), LIFE_S)
    left = aftermath(settings, home / "before-kills", told, number)
    counted = audit_store(platform.warehouse, platform.contract, state)
    lines = (*left.lines(), f"store: {counted}", *counted.differences[:3])
    if not left.is_whole or not counted.is_whole:
        raise SystemExit("\n".join(("after the kills not everything holds:", *lines)))
    note = f"nothing acknowledged is lost of {left.decisions:,} decisions and {left.labels:,} labels; below"
    return Measured(number, (time.perf_counter() - started,), note, lines)


def main() -> None:
    from tests.perf.bench import NEEDED_BY_A_SERVICE, TRANSACTIONS_MIN, prepared, unwind

    parser = argparse.ArgumentParser(prog="python -m tests.perf.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS_MIN, help="of the simulated world")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, unwind)
    with prepared(NEEDED_BY_A_SERVICE, options.transactions) as platform:
        found = kill(platform, options.kills)
    print("\n".join((found.note, *found.details)))


if __name__ == "__main__":
    sys.exit(main())
