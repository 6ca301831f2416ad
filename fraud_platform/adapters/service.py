"""The decision service, composed: a bundle's folder and a state folder in, a decider out.

<state>/store      the online feature store (LMDB), where FRAUD_PLATFORM_STORE names no Redis
<state>/decisions, labels, observed  the journal
<state>/last_good  the bundle that decided last, for a start at which its own does not hold
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from fraud_platform.adapters.bundle_files import bundle_path, keep_bundle, load_bundle
from fraud_platform.adapters.bundle_switch import (
    Serving,
    WishReader,
    forget_serving,
    make_wish,
    note_serving,
    ready_judge,
)
from fraud_platform.adapters.capacity import CapacityCounter
from fraud_platform.adapters.exploration import ExplorationCounter
from fraud_platform.adapters.journal import Journal, read_decisions, read_labels
from fraud_platform.adapters.lmdb import LmdbStore, finish_move
from fraud_platform.adapters.redis import RedisStore, open_live
from fraud_platform.adapters.spill import Spill, spill_folder
from fraud_platform.errors import (
    BundleError,
    FraudPlatformError,
    RequestError,
    SettingsError,
    StoreMovedError,
    TooLateError,
    in_short,
)
from fraud_platform.features.contract import FeatureContract
from fraud_platform.package import Bundle
from fraud_platform.schema import LabelEvent
from fraud_platform.serve import Decider, Judge
from fraud_platform.serve.case import Case
from fraud_platform.serve.catch_up import with_sequence
from fraud_platform.serve.clock import SteadyClock
from fraud_platform.serve.decider import DEADLINE_MS, Learned
from fraud_platform.serve.record import Decision, DecisionRecord
from fraud_platform.serve.requests import Request

BUNDLE_VARIABLE = "FRAUD_PLATFORM_BUNDLE"
BUNDLES_VARIABLE = "FRAUD_PLATFORM_BUNDLES"
STATE_VARIABLE = "FRAUD_PLATFORM_STATE"
STORE_VARIABLE = "FRAUD_PLATFORM_STORE"
SYNC_VARIABLE = "FRAUD_PLATFORM_SYNC_EVERY"
SYNC_MS_VARIABLE = "FRAUD_PLATFORM_SYNC_MS"
DEADLINE_VARIABLE = "FRAUD_PLATFORM_DEADLINE_MS"
SPILL_VARIABLE = "FRAUD_PLATFORM_SPILL"

DEADLINE_MIN_MS, DEADLINE_MAX_MS = 20, 10_000
SYNC_MAX = 1_000_000
LAST_GOOD, REFUSED = "last_good", "bundle_refused"
TAIL = 10_000
"""The last records of the log, which the store must know."""

Answer = TypeVar("Answer")
Clock = Callable[[], int]
logger = logging.getLogger("fraud_platform.service")


@dataclass(frozen=True)
class ServiceSettings:
    """sync_every, sync_ms: how many records and milliseconds a power loss may cost (`group_commit`); store:
    the address of a Redis that several machines share, empty for the LMDB in `state`; deadline_ms: of a
    decision; spill: the folder for what the log cannot take, by default the state's own place in shared
    memory."""

    bundle: Path
    state: Path
    sync_every: int = 0
    store: str = ""
    deadline_ms: int = DEADLINE_MS
    sync_ms: int = 0
    spill: Path | None = None
    other_bundles: Path | None = None

    @property
    def bundles(self) -> Path:
        """Where the bundles lie that may be switched to: beside its own, unless another folder is named."""
        return self.other_bundles or self.bundle.parent

    @classmethod
    def from_env(cls, env: Mapping[str, str], bundle: Path) -> ServiceSettings:
        """FRAUD_PLATFORM_STATE must be set; FRAUD_PLATFORM_BUNDLE replaces `bundle`. SettingsError names the
        variable that is wrong."""
        state, spill, bundles = map(env.get, (STATE_VARIABLE, SPILL_VARIABLE, BUNDLES_VARIABLE))
        if not state:
            raise SettingsError(f"{STATE_VARIABLE} is not set: give the folder of store and logs")
        return cls(
            bundle=Path(env.get(BUNDLE_VARIABLE) or bundle).resolve(),
            state=Path(state).resolve(),
            sync_every=_whole(env, SYNC_VARIABLE, 0, 0, SYNC_MAX),
            sync_ms=_whole(env, SYNC_MS_VARIABLE, 0, 0, SYNC_MAX),
            store=env.get(STORE_VARIABLE) or "",
            deadline_ms=_whole(env, DEADLINE_VARIABLE, DEADLINE_MS, DEADLINE_MIN_MS, DEADLINE_MAX_MS),
            spill=Path(spill).resolve() if spill else None,
            other_bundles=Path(bundles).resolve() if bundles else None,
        )


def _whole(env: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        raise SettingsError(f"{name}={text!r}: give a whole number from {lowest} to {highest}")
    return int(text)


class Service:
    """Decides with a bundle, a store and its logs; goes on with another store, and bundle, where told to.

    Raises BundleError, StoreError or DecisionLogError when a part is damaged or does not fit the others.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        clock: Clock,
        on_explored: Callable[[DecisionRecord], object] = lambda record: None,
    ) -> None:
        """on_explored: is told of each decline that was approved to learn its outcome, in its own thread."""
        self._settings = settings
        self.journal = Journal(settings.state, sync_every=settings.sync_every, sync_ms=settings.sync_ms)
        self.capacity = CapacityCounter(settings.state)
        self.exploration = ExplorationCounter(settings.state)
        self.spill = Spill(settings.spill or spill_folder(settings.state))
        self._wishes = WishReader(settings.state)
        self._standing: set[str] = set()
        judge = self._first_judge()
        past = self.journal.tail(TAIL)
        if isinstance(clock, SteadyClock) and past:
            clock.not_before(past[-1].decided_at)
        self.decider = Decider(
            judge,
            self._open_store(judge.bundle.contract),
            self.journal,
            self.spill,
            clock,
            capacity=self.capacity,
            exploration=self.exploration,
            on_explored=on_explored,
            standing=self._standing,
            past=lambda: (one.record for one in read_decisions(settings.state)),
            deadline_ms=settings.deadline_ms,
            has_jumped=clock.has_jumped if isinstance(clock, SteadyClock) else lambda: False,
        )
        self._make_up([*past, *self.spill.waiting()])
        self._finish_last()
        self._keep_good()
        self._note()

    @property
    def bundle(self) -> Bundle:
        return self.decider.bundle

    @property
    def store(self) -> LmdbStore | RedisStore:
        return cast("LmdbStore | RedisStore", self.decider.store)

    @property
    def stage(self) -> str:
        return self.decider.stage

    def open_case(self, request: Request) -> Case:
        return self.decider.open_case(request)

    def fall_back(self, case: Case, fault: str) -> Decision:
        return self.decider.fall_back(case, fault)

    def conclude(self, case: Case) -> Decision:
        return self._following(lambda: self.decider.conclude(case))

    def conclude_all(self, cases: Sequence[Case]) -> list[Decision | FraudPlatformError]:
        """A decision or a refusal for each case."""
        answers: list[Decision | FraudPlatformError] = []
        for case in cases:
            try:
                answers.append(self.conclude(case))
            except (RequestError, TooLateError) as refusal:
                answers.append(refusal)
        return answers

    def decide(self, request: Request) -> Decision:
        return self.conclude(self.open_case(request))

    def decision(self, transaction_id: str) -> Decision | None:
        return self.decider.decision(transaction_id)

    def learn(self, request: Request) -> Learned:
        return self._following(lambda: self.decider.learn(request))

    def tidy(self) -> bool:
        return self.decider.behind.tidy()

    def wished_judge(self) -> Judge | None:
        """A bundle that is newly wanted and holds, ready to decide; any thread may ask, one at a time."""
        wish = None
        try:
            wish = self._wishes.changed()
            if wish is None or wish.id == self.bundle.id or wish.instead_of != self._started_with:
                return self._look_at_own()
            return ready_judge(load_bundle(Path(wish.bundle)), self.bundle.contract.hash)
        except BundleError as error:
            logger.error("the bundle %s is refused: %s", wish.id[:12] if wish else "", error)
            self._note(refused=wish.id if wish else "", why=str(error))
            return None

    def want(self, bundle_id: str) -> str:
        """Checks a bundle and has every worker of the state go on with it; its whole id. For any thread."""
        path = bundle_path(self._settings.bundles, bundle_id)
        contract = self.bundle.contract.hash
        return make_wish(self._settings.state, path, self._started_with, contract).id

    def adopt(self, judge: Judge) -> None:
        """Decides with another bundle of the same contract from the next decision on."""
        self.decider.adopt(judge).close()
        self._standing.discard(REFUSED)
        logger.info("bundle %s decides now", judge.bundle.id)
        self._keep_good()
        self._note()

    def close(self) -> None:
        forget_serving(self._settings.state, self.journal.worker)
        counters = (self.capacity, self.exploration)
        for part in (self.decider, self.journal, self.spill, *counters, self.store):
            part.close()

    def _first_judge(self) -> Judge:
        """The wanted bundle, where it was wanted instead of the service's own; its own; where that does not
        hold, the last that did; its rules alone, where it is only the model. BundleError where none is left.
        """
        own = self._settings.bundle
        try:
            bundle = load_bundle(own)
        except BundleError as error:
            judge = self._last_good(error)
            self._started_with = judge.bundle.id
            return judge
        self._started_with = bundle.id
        try:
            wish = self._wishes.changed()
            if wish is not None and wish.instead_of == bundle.id:
                return ready_judge(load_bundle(Path(wish.bundle)), bundle.contract.hash)
        except BundleError as error:
            logger.error("the wanted bundle is refused, its own decides: %s", error)
        try:
            return ready_judge(bundle, bundle.contract.hash)
        except BundleError as error:
            try:
                return self._last_good(error)
            except BundleError:
                self._standing.add(REFUSED)
                return Judge(bundle, has_model=False)

    def _last_good(self, refused: BundleError) -> Judge:
        """What the service decided with before. Raises what is given where there is nothing."""
        path = self._settings.state / LAST_GOOD
        logger.error("its own bundle is refused: %s", refused)
        try:
            bundle = load_bundle(path)
            judge = ready_judge(bundle, bundle.contract.hash)
        except BundleError:
            raise refused from None
        self._standing.add(REFUSED)
        return judge

    def _look_at_own(self) -> Judge | None:
        """Its own bundle, where that was refused and holds now."""
        if REFUSED not in self._standing:
            return None
        try:
            bundle = load_bundle(self._settings.bundle)
            return ready_judge(bundle, self.bundle.contract.hash)
        except BundleError:
            return None

    def _keep_good(self) -> None:
        """For a start at which no better bundle is there. A disk that is full is no reason not to decide."""
        path = self._settings.state / LAST_GOOD
        if self._standing:
            return
        try:
            if not path.is_dir() or load_bundle(path).id != self.bundle.id:
                keep_bundle(self.bundle, path)
        except (BundleError, OSError) as error:
            logger.error("the bundle could not be kept for the next start: %s", in_short(error))

    def _note(self, refused: str = "", why: str = "") -> None:
        bundle = self.bundle
        serving = Serving(os.getpid(), self._started_with, bundle.id, bundle.contract.hash, refused, why)
        note_serving(self._settings.state, self.journal.worker, serving)

    def _make_up(self, past: Sequence[DecisionRecord]) -> None:
        """What was decided and not counted before a kill; all of it where the store is an older one."""
        if self.decider.behind.make_up(past):
            self.decider.behind.make_up(one.record for one in read_decisions(self._settings.state))
            for label in read_labels(self._settings.state):
                self.store.learn(label.record.event)

    def _finish_last(self) -> None:
        """Decides or records what a killed process had only counted: nothing counts that no log has, nor at
        a place in the order that no log tells."""
        store = self.store
        event = store.last_event() if isinstance(store, LmdbStore) else None
        if event is None:
            return
        if isinstance(event, LabelEvent):
            self.learn(msgspec.to_builtins(event))
            return
        record = self.decider.recorded(event.transaction_id)
        case = self.decider.resume(event)
        try:
            if record is None:
                self.conclude(case)
            elif record.store_sequence is None:
                store.observe(event)  # a repeat, which tells its number
                self.decider.behind.note_observed(with_sequence(record, store.sequence))
        except TooLateError:
            if record is None:  # so long ago that the store cannot tell its features any more
                self.decider.fall_back(case, "store_stale")
                self.conclude(case)

    def _following(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except StoreMovedError as moved:
            if not moved.bundle:
                raise
            bundle = load_bundle(Path(moved.bundle))
            judge = ready_judge(bundle, bundle.contract.hash)
            self.store.close()
            finish_move(self._settings.state / "store")
            self.decider.store = self._open_store(bundle.contract)
            self.adopt(judge)
        return ask()

    def _open_store(self, contract: FeatureContract) -> LmdbStore | RedisStore:
        if self._settings.store:
            return open_live(self._settings.store, contract)
        return LmdbStore.open(
            self._settings.state / "store",
            contract,
            is_synced=self._settings.sync_every == 1,
            writer=self.journal.worker,
        )
