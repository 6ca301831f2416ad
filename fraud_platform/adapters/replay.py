"""Makes recorded decisions again, from the logs, the bundles and the store that the service began with.

Each go-live keeps the store as it began (`go_live.bases_of`). In a copy of it the events of the logs are
counted again in the order of the store's changes, which all workers share, and every vector is computed anew.
Belongs here: reading, ordering, scratch stores. Does not belong here: judging and comparing (`serve.replay`).
Nothing of the live state is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from fraud_platform.adapters.decision_log_files import Place, read_at, read_places
from fraud_platform.adapters.go_live import bases_of
from fraud_platform.adapters.journal import DECISIONS, LABELS, read_observed, reading
from fraud_platform.adapters.lmdb import LmdbStore, read_meta
from fraud_platform.adapters.retention import last_removed_change
from fraud_platform.adapters.sealed_records import NO_SLOT, Sealer
from fraud_platform.errors import BundleError, TooLateError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import Observation
from fraud_platform.package import Bundle
from fraud_platform.schema import MILLISECONDS_PER_DAY, LabelEvent, Transaction
from fraud_platform.serve.judge import Judge
from fraud_platform.serve.record import DecisionRecord
from fraud_platform.serve.replay import (
    ERASED,
    NEAR_ERASED,
    REMOVED,
    Replayed,
    ReplayReport,
    replay,
)

BATCH_EVENTS = 500
NO_CHANGE = "the store numbers no changes, or never counted it"
NO_HISTORY = "the store that it was decided with was not kept; give the one that the service began with"
OTHER_CONTRACT = "its bundle has another contract than its store"
TOO_LATE = "it is too late for the store to be exact"

Progress = Callable[[str], None]
BundleOf = Callable[[str], Bundle]


class Entry(NamedTuple):
    """A line of a log, as far as the order needs it; `change` is 0 where the store numbered none."""

    change: int
    is_label: bool
    place: Place
    is_erased: bool
    is_wanted: bool
    bundle_id: str


@dataclass(frozen=True)
class Wanted:
    """Which decisions: one, those of a day (UTC, days since 1970), or all."""

    transaction_id: str = ""
    day: int | None = None


class _ClearPart(msgspec.Struct):
    store_sequence: int | None = None
    decided_at: int = 0
    bundle_id: str = ""


class _Line(msgspec.Struct):
    key: str
    slot: int
    clear: _ClearPart


_decode = msgspec.json.Decoder(_Line).decode


def replay_log(
    state: Path,
    bundle_of: BundleOf,
    wanted: Wanted = Wanted(),
    *,
    base: Path | None = None,
    progress: Progress = lambda message: None,
    each: Callable[[DecisionRecord, Replayed, Judge], None] = lambda record, replayed, judge: None,
) -> ReplayReport:
    """Compares every wanted decision with what comes out now. BundleError of `bundle_of`: it is not there.

    base: the store that the service began with, where no go-live made it; each: is shown every comparison.
    DecisionLogError where a log is damaged.
    """
    with reading(state) as sealer:
        entries = sorted(_entries(state, sealer, wanted))
        run = _Run(state, sealer, bundle_of, progress, each, entries)
        run.replay_unobserved([one for one in entries if not one.change and not one.is_label])
        for change, store, part in _generations(state, base, [one for one in entries if one.change]):
            run.replay_from(change, store, part)
        run.close()
    return run.report


def _entries(state: Path, sealer: Sealer, wanted: Wanted) -> Iterator[Entry]:
    observed = {one.key: one.store_sequence or 0 for one in read_observed(state)}
    key = sealer.decision_key(wanted.transaction_id) if wanted.transaction_id else ""
    for place, payload in read_places(state / DECISIONS):
        line = _decode(payload)
        change = line.clear.store_sequence or observed.get(line.key, 0)
        is_day = wanted.day is None or line.clear.decided_at // MILLISECONDS_PER_DAY == wanted.day
        is_wanted = is_day and key in ("", line.key)
        is_erased = sealer.vault.key_at(line.slot) is None
        yield Entry(change, False, place, is_erased, is_wanted, line.clear.bundle_id)
    for place, payload in read_places(state / LABELS):
        line = _decode(payload)
        is_erased = b'"transaction_id":null' in payload and (
            line.slot == NO_SLOT or sealer.vault.key_at(line.slot) is None
        )
        yield Entry(line.clear.store_sequence or 0, True, place, is_erased, False, "")


def _generations(
    state: Path, base: Path | None, entries: list[Entry]
) -> Iterator[tuple[int, Path | None, list[Entry]]]:
    """The entries by the store that counted them, up to the last wanted one, and the change before it.

    None: an empty store.
    """
    kept: Mapping[int, Path | None] = bases_of(state)
    first = base if base is not None else _beginning(state)
    starts = sorted({0: first, **kept}.items(), key=lambda item: item[0])
    ends = [change for change, _ in starts[1:]] + [1 << 62]
    for (change, store), end in zip(starts, ends, strict=True):
        part = [one for one in entries if change < one.change <= end]
        last = max((place for place, one in enumerate(part) if one.is_wanted), default=-1)
        if last >= 0:
            yield change, store, part[: last + 1]


def _beginning(state: Path) -> Path | None:
    """None: a service began with an empty store; a path that is not there: with one that was not kept."""
    live = state / "store"
    is_loaded = (live / "data.mdb").is_file() and read_meta(live, b"watermark") is not None
    return state / "the store it began with" if is_loaded else None


class _Run:
    """One replay: the judges of the bundles, and the report."""

    def __init__(
        self,
        state: Path,
        sealer: Sealer,
        bundle_of: BundleOf,
        progress: Progress,
        each: Callable[[DecisionRecord, Replayed, Judge], None],
        entries: Iterable[Entry],
    ) -> None:
        self.report = ReplayReport()
        self._state = state
        self._sealer = sealer
        self._bundle_of = bundle_of
        self._progress = progress
        self._each = each
        self._judges: dict[str, Judge | BundleError] = {}
        self._is_shortened = False
        self._removed_change = last_removed_change(state)
        self._first_erased = min((one.change for one in entries if one.is_erased), default=1 << 62)

    def close(self) -> None:
        for judge in self._judges.values():
            if isinstance(judge, Judge):
                judge.close()

    def replay_unobserved(self, entries: Iterable[Entry]) -> None:
        """Decisions that no store counted in a known order: judged by what was recorded."""
        for entry in entries:
            if entry.is_wanted:
                self._compare(entry, None, NO_CHANGE)

    def replay_from(self, change: int, store: Path | None, entries: list[Entry]) -> None:
        self._is_shortened = change < self._removed_change
        contract = self._contract(store, entries)
        if store is not None and not (store / "data.mdb").is_file():
            self._without_features(entries, NO_HISTORY)
        elif contract is None:
            self._without_features(entries, "no bundle of its store's contract is there")
        else:
            with _scratch(store, contract) as scratch:
                for first in range(0, len(entries), BATCH_EVENTS):
                    self._replay_batch(scratch, contract, entries[first : first + BATCH_EVENTS])
                    self._progress(f"replayed {self.report.decisions:,} decisions")

    def _without_features(self, entries: Iterable[Entry], why: str) -> None:
        for entry in entries:
            if entry.is_wanted:
                self._compare(entry, None, why)

    def _replay_batch(self, scratch: LmdbStore, contract: FeatureContract, batch: list[Entry]) -> None:
        known = [(entry, self._event(entry)) for entry in batch if not entry.is_erased]
        answers = dict(zip((entry for entry, _ in known), _counted(scratch, known), strict=True))
        for entry in batch:
            if entry.is_wanted:
                answer = answers.get(entry)
                self._compare(entry, answer, TOO_LATE if answer is None else "", contract)

    def _compare(
        self, entry: Entry, answer: Observation | None, why: str, contract: FeatureContract | None = None
    ) -> None:
        self.report.decisions += 1
        if entry.is_erased:
            self.report.unreplayed[ERASED] += 1
            return
        record = self._record(entry)
        judge = self._judge(entry.bundle_id)
        if isinstance(judge, BundleError):
            self.report.unreplayed[f"its bundle {entry.bundle_id[:16]} is not there"] += 1
            self.report.example(f"{record.transaction_id}: {judge}")
            return
        if answer is not None and contract is not None and judge.bundle.contract.hash != contract.hash:
            answer, why = None, OTHER_CONTRACT
        if record.vector is None:
            answer = None  # it was decided without features
        elif answer is not None and answer.vector != record.vector:
            if self._first_erased < entry.change:
                answer, why = None, NEAR_ERASED
            elif self._is_shortened:
                answer, why = None, REMOVED
        replayed = replay(judge, record, answer)
        if record.vector is not None and answer is None:
            self.report.unobserved[why] += 1
        elif answer is not None:
            self.report.equal_features += "features" not in replayed.differing
        self.report.count(record.transaction_id, replayed)
        self._each(record, replayed, judge)

    def _record(self, entry: Entry) -> DecisionRecord:
        return self._sealer.open(read_at(self._state / DECISIONS, entry.place)).record

    def _event(self, entry: Entry) -> Transaction | LabelEvent:
        if not entry.is_label:
            return self._record(entry).request
        return self._sealer.open_label(read_at(self._state / LABELS, entry.place)).record.event

    def _judge(self, bundle_id: str) -> Judge | BundleError:
        if bundle_id not in self._judges:
            try:
                bundle = self._bundle_of(bundle_id)
                if bundle.id != bundle_id:
                    raise BundleError(f"bundle {bundle_id}: {bundle.id} is in its place; restore it")
                self._judges[bundle_id] = Judge(bundle)
            except BundleError as error:
                self._judges[bundle_id] = error
        return self._judges[bundle_id]

    def _contract(self, store: Path | None, entries: Iterable[Entry]) -> FeatureContract | None:
        """The store's, as one of the bundles that decided with it holds it."""
        is_there = store is not None and (store / "data.mdb").is_file()
        wanted = read_meta(store, b"contract") if store is not None and is_there else None
        for bundle_id in dict.fromkeys(entry.bundle_id for entry in entries if entry.bundle_id):
            judge = self._judge(bundle_id)
            if isinstance(judge, Judge) and wanted in (None, judge.bundle.contract.hash):
                return judge.bundle.contract
        return None


@contextmanager
def _scratch(store: Path | None, contract: FeatureContract) -> Iterator[LmdbStore]:
    """A copy of a store, or an empty one, that is removed again."""
    with TemporaryDirectory(prefix="replay-") as folder:
        path = Path(folder) / "store"
        if store is not None:
            path.mkdir()
            shutil.copyfile(store / "data.mdb", path / "data.mdb")
        with LmdbStore.open(path, contract, is_numbered=False) as scratch:
            yield scratch


def _counted(
    store: LmdbStore, known: list[tuple[Entry, Transaction | LabelEvent]]
) -> list[Observation | None]:
    """What the store answers to each event, None to labels and to what is too late for it."""
    events = [event for _, event in known]
    try:
        return list(store.observe_all(events))
    except TooLateError:
        return [_counted_alone(store, event) for event in events]


def _counted_alone(store: LmdbStore, event: Transaction | LabelEvent) -> Observation | None:
    try:
        return next(store.observe_all([event]))
    except TooLateError:
        return None
