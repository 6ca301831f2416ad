"""The decision service, composed: a bundle's folder and a state folder in, a decider out.

<state>/store      the online feature store (LMDB), where FRAUD_PLATFORM_STORE names no Redis
<state>/decisions  the decision log
<state>/labels     the log of posted label events
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.adapters.journal import Journal
from fraud_platform.adapters.lmdb import LmdbStore, finish_move
from fraud_platform.adapters.redis import RedisStore, open_live
from fraud_platform.errors import SettingsError, StoreMovedError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.package import Bundle
from fraud_platform.schema import LabelEvent
from fraud_platform.serve import Decider
from fraud_platform.serve.record import Decision
from fraud_platform.serve.requests import Request

BUNDLE_VARIABLE = "FRAUD_PLATFORM_BUNDLE"
STATE_VARIABLE = "FRAUD_PLATFORM_STATE"
STORE_VARIABLE = "FRAUD_PLATFORM_STORE"
SYNC_VARIABLE = "FRAUD_PLATFORM_SYNC_EVERY"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ServiceSettings:
    """sync_every: force every so many records to the disk; 0 leaves that to the operating system; store: the
    address of a Redis that several machines share, empty for the LMDB in `state`."""

    bundle: Path
    state: Path
    sync_every: int = 0
    store: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str], bundle: Path) -> ServiceSettings:
        """FRAUD_PLATFORM_STATE must be set; FRAUD_PLATFORM_BUNDLE replaces `bundle`."""
        state, sync = env.get(STATE_VARIABLE), env.get(SYNC_VARIABLE) or "0"
        if not state:
            raise SettingsError(f"{STATE_VARIABLE} is not set: give the folder of store and logs")
        if not sync.isdecimal():
            raise SettingsError(f"{SYNC_VARIABLE}={sync!r}: give a whole number of records, 0 or more")
        chosen = Path(env.get(BUNDLE_VARIABLE) or bundle)
        return cls(chosen.resolve(), Path(state).resolve(), int(sync), env.get(STORE_VARIABLE) or "")


class Service:
    """Decides with a bundle, a store and its logs; goes on with another store, and bundle, where told to.

    Raises BundleError, StoreError or DecisionLogError when a part is damaged or does not fit the others.
    """

    def __init__(self, settings: ServiceSettings, clock: Callable[[], int]) -> None:
        self._settings = settings
        self._clock = clock
        self.journal = Journal(settings.state, sync_every=settings.sync_every)
        self._start(load_bundle(settings.bundle))

    @property
    def bundle(self) -> Bundle:
        return self.decider.bundle

    def decide(self, request: Request) -> Decision:
        return self._following(lambda decider: decider.decide(request))

    def decision(self, transaction_id: str) -> Decision | None:
        return self.decider.decision(transaction_id)

    def learn(self, request: Request) -> LabelEvent:
        return self._following(lambda decider: decider.learn(request))

    def close(self) -> None:
        for part in (self.decider, self.journal, self.store):
            part.close()

    def _following(self, ask: Callable[[Decider], Answer]) -> Answer:
        try:
            return ask(self.decider)
        except StoreMovedError as moved:
            if not moved.bundle:
                raise
            bundle = load_bundle(Path(moved.bundle))
            self.decider.close()
            self.store.close()
            finish_move(self._settings.state / "store")
            self._start(bundle)
        return ask(self.decider)

    def _start(self, bundle: Bundle) -> None:
        self.store = self._open_store(bundle.contract)
        self.decider = Decider(bundle, self.store, self.journal, self._clock)

    def _open_store(self, contract: FeatureContract) -> LmdbStore | RedisStore:
        if self._settings.store:
            return open_live(self._settings.store, contract)
        return LmdbStore.open(
            self._settings.state / "store",
            contract,
            is_synced=self._settings.sync_every == 1,
            writer=self.journal.worker,
        )
