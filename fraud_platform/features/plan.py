"""What the State of one entity's key keeps, and how it moves through time.

Belongs here: the arithmetic of totals and facts. Does not belong here: how a plan comes from a contract
(compiler.py), where States and log entries are stored (engine, adapters).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fraud_platform.features.aggregates import Aggregate, Now, compile_aggregates
from fraud_platform.features.lookback import NOTHING, KeyPast, Wanted, look_back
from fraud_platform.features.past import Counts, KeyLog, RecentPast
from fraud_platform.features.recent import NO_TOKEN, TOKEN_BYTES, Entry, Recent
from fraud_platform.features.state import FAR, NEVER, WAITING_MAX, State
from fraud_platform.schema import Transaction

TRIM_STRIDE_MIN_MS = 86_400_000
RECENT_MAX, RECENT_BYTES_MAX = 32, 1_600
"""So many transactions a State carries along, in so many bytes: it is read and written with each event."""


@dataclass(frozen=True)
class EntityPlan:
    """What one entity's State keeps.

    number: the entity's place among the sorted names, which stores keep in their keys; windows,
    report_windows: ms, ascending; distincts: (column, window) of each distinct total; has_log: whether single
    transactions are needed again, from the State or, where they are many, from a log; wanted: what is looked
    for among them; reach: ms, how far back.
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
    wanted: Wanted
    readers: tuple[tuple[int, Aggregate], ...]

    @cached_property
    def reach(self) -> int:
        return max(*self.windows, *self.report_windows, self.wanted.reach, 0)

    @cached_property
    def has_reports(self) -> bool:
        """Whether any feature reads the reports of a key."""
        return bool(self.report_windows or self.wanted.reports or self.wanted.outcomes)

    @cached_property
    def recent_max(self) -> int:
        """How many transactions a State of the entity carries along."""
        line = TOKEN_BYTES * (1 + len(self.distinct_columns)) + 14 + 18 * self.has_place
        return min(RECENT_MAX, RECENT_BYTES_MAX // line)

    @cached_property
    def is_kept(self) -> bool:
        """Whether a State keeps the transactions it carries along: moments alone, few and small."""
        return self.has_log and not (self.windows or self.has_place or self.wanted.has_entries)

    def holds(self, state: State) -> bool:
        """Whether transactions are kept for the key that will have to be forgotten."""
        if state.recent is None:
            return self.has_log
        return bool(state.recent.moments) and not self.is_kept

    @cached_property
    def stride(self) -> int:
        """A busy key's log is trimmed once so much (ms) of it is needed no more."""
        return max(self.reach // 8, TRIM_STRIDE_MIN_MS)

    def empty(self) -> State:
        return State(
            moment=0,
            reports=[0] * len(self.report_windows),
            oldest_report=[FAR] * len(self.report_windows),
            recent=self.no_transactions() if self.has_log else None,
        )

    def no_transactions(self) -> Recent:
        return Recent([], [], b"", [], [b""] * len(self.distinct_columns))

    def key(self, transaction: Transaction) -> tuple[str, ...] | None:
        """The values of the key columns, None where one is missing."""
        if len(self.columns) == 1:
            value = getattr(transaction, self.columns[0])
            return (value,) if value else None
        values = tuple([getattr(transaction, column) for column in self.columns])
        return values if all(values) else None

    @cached_property
    def _totals(self) -> tuple[tuple[bool, tuple[tuple[int, int], ...]], ...]:
        """Of each window: whether it keeps squares, and (slot, column) of its distincts."""
        return tuple(
            (
                window in self.square_windows,
                tuple((slot, column) for slot, (column, w) in enumerate(self.distincts) if w == window),
            )
            for window in range(len(self.windows))
        )

    @cached_property
    def _widest_first(self) -> tuple[tuple[int, int, bool, tuple[tuple[int, int], ...]], ...]:
        """Of each window: its place, its width, and its totals."""
        totals = zip(range(len(self.windows)), self.windows, self._totals, strict=True)
        return tuple((window, width, *kept) for window, width, kept in totals)[::-1]

    @cached_property
    def _slots(self) -> tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]:
        """Of each distinct column: its place, its widest window, and (slot, window) of its distincts."""
        slots = [
            (column, tuple((slot, w) for slot, (owner, w) in enumerate(self.distincts) if owner == column))
            for column in range(len(self.distinct_columns))
        ]
        return tuple((column, max(w for _, w in owned), owned) for column, owned in slots)

    def read(self, state: State, now: Now, vector: list[float | str | None], log: KeyLog) -> None:
        """Puts the values of the entity's features into the vector of a contract."""
        back = NOTHING
        if self._looks_back:
            past: KeyPast = log if state.recent is None else RecentPast(state.recent, log)
            back = look_back(self.wanted, now.time, past, state.last_report != NEVER)
        self._fill(state, now.time, now.place, back, vector)

    @cached_property
    def _fill(self) -> Callable[..., None]:
        return compile_aggregates(self.readers)

    @cached_property
    def _looks_back(self) -> bool:
        return self.wanted.reach > 0

    def advance(self, state: State, moment: int, log: KeyLog) -> None:
        """Moves every window's totals from [state.moment - w, state.moment) to [moment - w, moment).

        Where the State carries all of them along, a bounded number of entries is counted anew. Else each is
        read once when it enters and once a window when it leaves: amortised constant work.
        """
        if state.recent is not None:
            self.recount(state, state.recent, moment)
        elif self.has_log:
            oldest = state.oldest
            for window, width in enumerate(self.windows):
                bound = moment - width
                if oldest[window] < bound:
                    entries, oldest[window] = log.leave(False, oldest[window], bound, state.moment)
                    self.change(state, window, entries, -1, log)
            if state.last >= state.moment:
                self._enter(state, moment, log)
        for window, width in enumerate(self.report_windows):
            if state.oldest_report[window] < moment - width:
                _expire_reports(state, window, moment - width, log)
        if state.last_report >= state.moment:
            for entry in log.scan(True, state.moment, moment):
                self._add_report(state, entry.moment, moment)
        state.moment = moment

    def recount(self, state: State, recent: Recent, moment: int) -> None:
        """Every window's totals over [moment - w, moment), of transactions that a State carries along."""
        moments, amounts = recent.moments, recent.amounts
        counts, sums = [0] * len(self.windows), [0] * len(self.windows)
        distincts = [0] * len(self.distincts)
        state.squares = [0, 0] * len(self.windows)
        start, stop = 0, len(moments)
        if stop and moments[-1] >= moment:
            stop = bisect_left(moments, moment)
        values: list[tuple[bytes, ...]] = []
        for window, width, has_square, slots in self._widest_first:
            start = bisect_left(moments, moment - width, start)
            if start == stop:
                break
            counts[window] = stop - start
            within = amounts[start:stop]
            sums[window] = sum(within)
            if has_square:
                state.set_square(window, sum([amount * amount for amount in within]))
            if slots:
                if not values:
                    values = [recent.tokens(column, start, stop) for column in range(len(recent.values))]
                for slot, column in slots:
                    different = set(values[column][start - stop :])
                    distincts[slot] = len(different) - (NO_TOKEN in different)
        state.counts, state.sums, state.distincts = counts, sums, distincts

    def take(self, state: State, name: bytes, entry: Entry, log: KeyLog) -> None:
        """A transaction becomes a fact of the past, and counts in the windows ahead of it. name: the token of
        its id."""
        state.remember(entry.moment, entry.place)
        if state.recent is not None:
            state.recent.add(name, entry, self.has_place)
            return
        if not self.has_log:
            return
        log.append(name, entry)
        if entry.moment < state.moment:
            self._add(state, entry, state.moment, log)
        elif state.waiting is not None:
            state.waiting = [*state.waiting, entry] if len(state.waiting) < WAITING_MAX else None

    def begin_log(self, state: State, recent: Recent, log: KeyLog) -> None:
        """The log takes over the transactions; from now on totals move from event to event."""
        self.recount(state, recent, state.moment)
        state.oldest = []
        for width in self.windows:
            within = recent.between(state.moment - width, state.moment)
            state.oldest.append(recent.moments[within.start] if within else FAR)
        for column, _, slots in self._slots:
            for _, window in slots:
                within = recent.between(state.moment - self.windows[window], state.moment)
                for value in recent.tokens(column, within.start, within.stop):
                    if value != NO_TOKEN:
                        log.times(column, value)[window] += 1
        entries = [recent.entry(place) for place in range(len(recent))]
        for place, entry in enumerate(entries):
            log.append(recent.name(place), entry)
        waiting = [entry for entry in entries if entry.moment >= state.moment]
        state.waiting = waiting if len(waiting) <= WAITING_MAX else None
        state.recent = None

    def forget(self, state: State, recent: Recent, upper: int) -> None:
        """Lets go of what a State carries along from before `upper`."""
        old = recent.between(0, upper)
        for place in old:
            entry = recent.entry(place)
            state.forget(entry.moment, entry.place)
        if old:
            recent.drop(len(old))

    def take_report(self, state: State, known_at: int) -> None:
        state.last_report = max(state.last_report, known_at)
        if known_at < state.moment:
            self._add_report(state, known_at, state.moment)

    def drop_report(self, state: State, known_at: int) -> None:
        """Takes a report out of the windows that hold it; `oldest_report` may stay behind, a lower bound."""
        for window, width in enumerate(self.report_windows):
            if state.moment - width <= known_at < state.moment:
                state.reports[window] -= 1

    def change(self, state: State, window: int, entries: Sequence[Entry], sign: int, counts: Counts) -> None:
        """Counts entries into one window (sign 1) or out of it (sign -1)."""
        has_square, distincts = self._totals[window]
        amounts = [entry.amount_minor for entry in entries]
        state.counts[window] += sign * len(amounts)
        state.sums[window] += sign * sum(amounts)
        if has_square:
            state.add_square(window, sign * sum([amount * amount for amount in amounts]))
        for slot, column in distincts:
            for entry in entries:
                value = entry.values[column]
                if value is not None:
                    times = counts.times(column, value)
                    times[window] += sign
                    if times[window] == (sign > 0):
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
        """Counts an entry into the windows before `moment` that hold it: all from `narrowest` on."""
        entered, amount = entry.moment, entry.amount_minor
        oldest, counts, sums = state.oldest, state.counts, state.sums
        narrowest = bisect_left(self.windows, moment - entered)
        for window in range(narrowest, len(counts)):
            if entered < oldest[window]:
                oldest[window] = entered
            counts[window] += 1
            sums[window] += amount
        for window in self.square_windows:
            if window >= narrowest:
                state.add_square(window, amount * amount)
        for column, widest, slots in self._slots:
            value = entry.values[column]
            if value is None or widest < narrowest:
                continue
            times = log.times(column, value)
            for slot, window in slots:
                if window >= narrowest:
                    times[window] += 1
                    if times[window] == 1:
                        state.distincts[slot] += 1

    def _add_report(self, state: State, known_at: int, moment: int) -> None:
        for window, width in enumerate(self.report_windows):
            if known_at >= moment - width:
                state.oldest_report[window] = min(state.oldest_report[window], known_at)
                state.reports[window] += 1


def _expire_reports(state: State, window: int, bound: int, log: KeyLog) -> None:
    entries, oldest = log.leave(True, state.oldest_report[window], bound, state.moment)
    state.reports[window] -= len(entries)
    state.oldest_report[window] = oldest
