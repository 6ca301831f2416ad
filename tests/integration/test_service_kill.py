"""The whole service, killed (SIGKILL) at any moment under load: what it acknowledged it has.

Ten kills here; `KILLS=200 python -m pytest tests/integration/test_service_kill.py` for more.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
from fraud_platform.adapters.service import ServiceSettings
from fraud_platform.package import BundleParts
from tests.killed import aftermath, kill_often
from tests.servers import free_port

KILLS = int(os.environ.get("KILLS", "10"))
LIFE_SECONDS = 0.4
CARDS, DEVICES, MERCHANTS = 9, 5, 3
"""So few that what is counted twice, or not at all, shows in many vectors."""


def payments(build: Callable[..., dict[str, Any]]) -> Iterator[bytes]:
    start = time.time_ns() // 1_000_000 - 30 * 86_400_000
    for number in itertools.count():
        names = {"card_id": f"c{number % CARDS}", "device_id": f"d{number % DEVICES}"}
        names |= {"merchant_id": f"m{number % MERCHANTS}", "transaction_id": f"p{number}"}
        yield json.dumps(build(**names, event_time=start + number * 1000)).encode()


def test_a_killed_service_has_all_that_it_acknowledged(
    tiny_parts: BundleParts, transaction_request: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    bundle = bundle_path(tmp_path / "bundles", build_bundle(tiny_parts, tmp_path / "bundles").id)
    settings = ServiceSettings(bundle, tmp_path / "state", spill=tmp_path / "spill")
    told = kill_often(settings, payments(transaction_request), KILLS, free_port(), LIFE_SECONDS)
    left = aftermath(settings, None, told, KILLS)
    assert left.is_whole, "\n".join(left.lines())
    assert left.labels > 0
    assert left.replay.equal_features > left.decisions / 2
