"""The contract compiled once: for each entity, which totals its State keeps and who reads them.

Belongs here: the static plan and the arithmetic of moving one State through time. Does not belong here: where
States and log entries are stored (engine, adapters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from fraud_platform.features.aggregates import Aggregate, Now, Slots, aggregate, check_aggregate
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.features.state import FAR, WAITING_MAX, Entry, State
from fraud_platform.schema import Transaction

TRIM_STRIDE_MIN_MS = 86_400_000


class KeyLog(Protocol):
    """What a plan reads of one key's past; one iterable is read at a time."""

    def scan(self, is_report: bool, lower: int, upper: int) -> Iterable[Entry]:
        """Entries of one stream with lower <= moment < upper, in order of moment."""

    def scan_back(self, upper: int) -> Iterable[Entry]:
        """Transactions before a moment, the latest first."""

    def count(self, column: int, value: bytes, window: int, delta: int) -> int:
        """How often a distinct column's value is in the window, after the change by `delta`."""


@dataclass(frozen=True)
class EntityPlan:
    """What one entity's State keeps.

    number: the entity's place among the sorted names, which stores keep in their keys; windows,
    report_windows: ms, ascending; distincts: (column, window) of each distinct total; has_log: whether a
    late event needs more of the past than a State holds; reach: ms, the longest window.
    """

    name: str
    number: int
    columns: tuple[str, ...]
    windows: tuple[int, ...]
    report_windows: tuple[int, ...]
    square_windows: tuple[int, ...]
    distinct_columns: tuple[str, ...]
    distincts: tuple[tuple[int, int], ...]
    has_place: bool
    has_log: bool
    readers: tuple[tuple[int, Aggregate], ...]

    @cached_property
    def reach(self) -> int:
        return max(self.windows + self.report_windows, default=0)

    @cached_property
    def stride(self) -> int:
        """A busy key's log is trimmed once so much (ms) of it is needed no more."""
        return max(self.reach // 8, TRIM_STRIDE_MIN_MS)

    def empty(self) -> State:
        return State(
            moment=0,
            counts=[0] * len(self.windows),
            sums=[0] * len(self.windows),
            squares=[0, 0] * len(self.windows),
            distincts=[0] * len(self.distincts),
            oldest=[FAR] * len(self.windows),
            reports=[0] * len(self.report_windows),
            oldest_report=[FAR] * len(self.report_windows),
        )

    def key(self, transaction: Transaction) -> tuple[str, ...] | None:
        """The values of the key columns, None where one is missing."""
        if len(self.columns) == 1:
            value = getattr(transaction, self.columns[0])
            return (value,) if value else None
        values = tuple([getattr(transaction, column) for column in self.columns])
        return values if all(values) else None

    @cached_property
    def window_totals(self) -> tuple[tuple[int, int, bool, tuple[tuple[int, int], ...]], ...]:
        """Of each window: number, ms, whether it keeps squares, and (slot, column) of its distincts."""
        return tuple(
            (
                window,
                width,
                window in self.square_windows,
                tuple((slot, column) for slot, (column, w) in enumerate(self.distincts) if w == window),
            )
            for window, width in enumerate(self.windows)
        )

    def read(self, state: State, now: Now, vector: list[float | str | None]) -> None:
        for place_in_vector, value in self._values:
            vector[place_in_vector] = value(state, now)

    @cached_property
    def _values(self) -> tuple[tuple[int, Callable[[State, Now], float | None]], ...]:
        return tuple((place_in_vector, reader.value) for place_in_vector, reader in self.readers)

    def advance(self, state: State, moment: int, log: KeyLog) -> None:
        """Moves every window's totals from [state.moment - w, state.moment) to [moment - w, moment).

        Each entry is read once when it enters and once a window when it leaves: amortised constant work.
        """
        oldest = state.oldest
        for window, width in enumerate(self.windows):
            if oldest[window] < moment - width:
                self._expire(state, window, moment - width, log)
        for window, width in enumerate(self.report_windows):
            if state.oldest_report[window] < moment - width:
                _expire_reports(state, window, moment - width, log)
        if state.last >= state.moment:
            self._enter(state, moment, log)
        if state.last_report >= state.moment:
            for entry in log.scan(True, state.moment, moment):
                self._add_report(state, entry.moment, moment)
        state.moment = moment

    def take(self, state: State, entry: Entry, log: KeyLog) -> None:
        """A transaction of the log becomes a fact of the past, and counts in the windows ahead of it."""
        state.remember(entry.moment, entry.place)
        if entry.moment < state.moment:
            self._add(state, entry, state.moment, log)
        elif state.waiting is not None:
            state.waiting = [*state.waiting, entry] if len(state.waiting) < WAITING_MAX else None

    def take_report(self, state: State, known_at: int) -> None:
        state.last_report = max(state.last_report, known_at)
        if known_at < state.moment:
            self._add_report(state, known_at, state.moment)

    def drop_report(self, state: State, known_at: int) -> None:
        """Takes a report out of the windows that hold it; `oldest_report` may stay behind, a lower bound."""
        for window, width in enumerate(self.report_windows):
            if state.moment - width <= known_at < state.moment:
                state.reports[window] -= 1

    def change(self, state: State, window: int, entry: Entry, sign: int, log: KeyLog) -> None:
        """Counts an entry into one window (sign 1) or out of it (sign -1)."""
        _, _, has_square, distincts = self.window_totals[window]
        amount = entry.amount_minor
        state.counts[window] += sign
        state.sums[window] += sign * amount
        if has_square:
            state.add_square(window, sign * amount * amount)
        for slot, column in distincts:
            value = entry.values[column]
            if value is not None and log.count(column, value, window, sign) == (sign > 0):
                state.distincts[slot] += sign

    def _enter(self, state: State, moment: int, log: KeyLog) -> None:
        """Counts what has waited and lies before `moment`."""
        waiting = state.waiting
        if waiting is None:
            for entry in log.scan(False, state.moment, moment):
                self._add(state, entry, moment, log)
            if state.last < moment:
                state.waiting = []
            return
        for entry in waiting:
            if entry.moment < moment:
                self._add(state, entry, moment, log)
        state.waiting = [entry for entry in waiting if entry.moment >= moment] if waiting else waiting

    def _add(self, state: State, entry: Entry, moment: int, log: KeyLog) -> None:
        """Counts an entry into the windows before `moment` that hold it."""
        entered = entry.moment
        oldest = state.oldest
        for window, width in enumerate(self.windows):
            if entered >= moment - width:
                if entered < oldest[window]:
                    oldest[window] = entered
                self.change(state, window, entry, 1, log)

    def _add_report(self, state: State, known_at: int, moment: int) -> None:
        for window, width in enumerate(self.report_windows):
            if known_at >= moment - width:
                state.oldest_report[window] = min(state.oldest_report[window], known_at)
                state.reports[window] += 1

    def _expire(self, state: State, window: int, bound: int, log: KeyLog) -> None:
        oldest = FAR
        for entry in log.scan(False, state.oldest[window], state.moment):
            if entry.moment >= bound:
                oldest = entry.moment
                break
            self.change(state, window, entry, -1, log)
        state.oldest[window] = oldest


def _expire_reports(state: State, window: int, bound: int, log: KeyLog) -> None:
    oldest = FAR
    for entry in log.scan(True, state.oldest_report[window], state.moment):
        if entry.moment >= bound:
            oldest = entry.moment
            break
        state.reports[window] -= 1
    state.oldest_report[window] = oldest


def compile_plans(contract: FeatureContract) -> tuple[EntityPlan, ...]:
    """A plan for each entity that a feature reads; raises ContractError for a kind that is unknown or cannot
    compute what is declared. Entities come sorted, so that a contract read from JSON gives the same plans."""
    plans = []
    for number, (name, columns) in enumerate(sorted(contract.entities.items())):
        placed = [
            (place, feature) for place, feature in enumerate(contract.features) if feature.entity == name
        ]
        if placed:
            plans.append(_compile(name, number, columns, placed))
    return tuple(plans)


def _compile(
    name: str, number: int, columns: tuple[str, ...], placed: list[tuple[int, Feature]]
) -> EntityPlan:
    features = [feature for _, feature in placed]
    for feature in features:
        check_aggregate(feature)
    windows = _widths(f for f in features if f.stream == "transactions")
    report_windows = _widths(f for f in features if f.stream == "fraud_reports")
    distinct_columns = tuple(dict.fromkeys(f.of[0] for f in features if f.kind == "distinct"))
    distincts = tuple(
        dict.fromkeys(
            (distinct_columns.index(f.of[0]), windows.index(f.window_ms or 0))
            for f in features
            if f.kind == "distinct"
        )
    )
    readers = []
    for place_in_vector, feature in placed:
        widths = report_windows if feature.stream == "fraud_reports" else windows
        window = widths.index(feature.window_ms) if feature.window_ms is not None else 0
        distinct = 0
        if feature.kind == "distinct":
            distinct = distincts.index((distinct_columns.index(feature.of[0]), window))
        readers.append((place_in_vector, aggregate(feature, Slots(window, distinct))))
    totals = frozenset[str]().union(*(type(reader).totals for _, reader in readers))
    return EntityPlan(
        name=name,
        number=number,
        columns=columns,
        windows=windows,
        report_windows=report_windows,
        square_windows=tuple(sorted({r.slots.window for _, r in readers if "squares" in type(r).totals})),
        distinct_columns=distinct_columns,
        distincts=distincts,
        has_place="place" in totals,
        has_log=bool(windows) or not totals.isdisjoint({"place", "moments"}),
        readers=tuple(readers),
    )


def _widths(features: Iterable[Feature]) -> tuple[int, ...]:
    return tuple(sorted({feature.window_ms for feature in features if feature.window_ms is not None}))
