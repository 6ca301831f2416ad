"""A service's own store: the warehouse's, and then everything that the service itself decided and learned.

Belongs here: making that store before a service starts. Does not belong here: serving from it (service.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from fraud_platform.adapters.decision_log import ChainTakenError, DecisionLog
from fraud_platform.adapters.decision_log_files import read_records
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.errors import StoreError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve.record import DecisionRecord

STAMP = "store.source"


def refresh_state(state: Path, store: Path, source: str, contract: FeatureContract) -> bool:
    """Gives `state` a store made of `store` and the service's logs; False where it has that one already.

    source: what `store` was built from. A store of an earlier source or another contract is replaced; what
    was decided and learned is replayed, so nothing of it is lost. StoreError while a service uses the
    state, or where `store` was never built.
    """
    own, stamp = state / "store", state / STAMP
    if own.is_dir() and stamp.is_file() and stamp.read_text() == source:
        return False
    if not store.is_dir():
        raise StoreError(f"no online store at {store}: materialize features/online_store first")
    _require_unused(state)
    building = state / "store.building"
    shutil.rmtree(building, ignore_errors=True)
    state.mkdir(parents=True, exist_ok=True)
    shutil.copytree(store, building)
    with LmdbStore.open(building, contract) as fresh:
        for event in _logged(state):
            fresh.observe(event) if isinstance(event, Transaction) else fresh.learn(event)
        fresh.flush()
    stamp.unlink(missing_ok=True)
    shutil.rmtree(own, ignore_errors=True)
    building.rename(own)
    stamp.write_text(source)
    return True


def _require_unused(state: Path) -> None:
    if not (state / "decisions").is_dir():
        return
    try:
        DecisionLog(state / "decisions").close()
    except ChainTakenError as error:
        raise StoreError(
            f"the store of {state} is out of date, but a service uses it: stop that service, then start"
        ) from error


def _logged(state: Path) -> list[Transaction | LabelEvent]:
    """Requests and label events in the order in which they became known."""
    decided = [
        msgspec.json.decode(logged.payload, type=DecisionRecord).request
        for logged in read_records(state / "decisions")
    ]
    learned = [
        msgspec.json.decode(logged.payload, type=LabelEvent) for logged in read_records(state / "labels")
    ]
    arrivals = [((t.event_time, 0, t.transaction_id), t) for t in decided]
    arrivals += [((e.known_at, 1, e.transaction_id), e) for e in learned]  # type: ignore[misc]
    return [event for _, event in sorted(arrivals, key=lambda arrival: arrival[0])]
