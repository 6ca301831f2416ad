"""The decision service, composed: a bundle's folder and a state folder in, a decider out.

<state>/store      the online feature store (LMDB)
<state>/decisions  the decision log
<state>/labels     the log of posted label events
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.adapters.decision_log import DecisionLog, decision_key, label_key
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.errors import SettingsError
from fraud_platform.serve import Decider

BUNDLE_VARIABLE = "FRAUD_PLATFORM_BUNDLE"
STATE_VARIABLE = "FRAUD_PLATFORM_STATE"
SYNC_VARIABLE = "FRAUD_PLATFORM_SYNC_EVERY"


@dataclass(frozen=True)
class ServiceSettings:
    """sync_every: force every so many records to the disk; 0 leaves that to the operating system."""

    bundle: Path
    state: Path
    sync_every: int = 0

    @classmethod
    def from_env(cls, env: Mapping[str, str], bundle: Path) -> ServiceSettings:
        """FRAUD_PLATFORM_STATE must be set; FRAUD_PLATFORM_BUNDLE replaces `bundle`."""
        state, sync = env.get(STATE_VARIABLE), env.get(SYNC_VARIABLE) or "0"
        if not state:
            raise SettingsError(f"{STATE_VARIABLE} is not set: give the folder of store and logs")
        if not sync.isdecimal():
            raise SettingsError(f"{SYNC_VARIABLE}={sync!r}: give a whole number of records, 0 or more")
        return cls(Path(env.get(BUNDLE_VARIABLE) or bundle).resolve(), Path(state).resolve(), int(sync))


@dataclass(frozen=True)
class Service:
    """A decider and what it holds open."""

    decider: Decider
    store: LmdbStore
    decisions: DecisionLog
    labels: DecisionLog

    def close(self) -> None:
        for part in (self.decider, self.decisions, self.labels, self.store):
            part.close()


def open_service(settings: ServiceSettings, clock: Callable[[], int]) -> Service:
    """BundleError, StoreError or DecisionLogError when a part is damaged or does not fit the others."""
    bundle = load_bundle(settings.bundle)
    store = LmdbStore.open(settings.state / "store", bundle.contract, is_synced=settings.sync_every == 1)
    sync = settings.sync_every
    decisions = DecisionLog.claim(settings.state / "decisions", sync_every=sync, key_of=decision_key)
    labels = DecisionLog.claim(settings.state / "labels", sync_every=sync, key_of=label_key)
    return Service(Decider(bundle, store, decisions, clock, labels), store, decisions, labels)
