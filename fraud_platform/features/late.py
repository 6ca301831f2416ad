"""The State of a key as of a moment that it has left behind: how late events are answered, exactly.

Belongs here: walking a State back through its log. Does not belong here: moving it forward (plan.py), when an
event is late (engine.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from fraud_platform.features.plan import CountValue, EntityPlan, Entry, ScanLog
from fraud_platform.features.state import NEVER, KnownPlace, State

ScanBack = Callable[[int], Iterable[Entry]]
"""Transactions of one key before a moment, the latest first."""


def as_of(
    plan: EntityPlan,
    current: State,
    moment: int,
    transactions: ScanLog,
    reports: ScanLog,
    back: ScanBack,
    count: CountValue,
) -> State:
    """A copy of `current` as it would stand at `moment`; `count` is read, never changed.

    The work grows with how late the moment is, not with the length of a window: a window becomes an
    older one by leaving out what came since and taking in again what had expired.
    """
    state = copy.deepcopy(current)
    if moment < current.moment:
        _rewind(plan, state, moment, transactions, reports, _Overlay(count).change)
    state.first = current.first if NEVER < current.first < moment else NEVER
    state.last = _last(current, moment, back)
    state.before_last = NEVER
    state.place = _place(plan, current, moment, back)
    state.place_before = None
    return state


class _Overlay:
    """Counts of values as they change on the way back, over those that the store holds."""

    def __init__(self, count: CountValue) -> None:
        self._stored = count
        self._times: dict[tuple[int, bytes, int], int] = {}

    def change(self, column: int, value: bytes, window: int, delta: int) -> int:
        name = column, value, window
        if name not in self._times:
            self._times[name] = self._stored(column, value, window, 0)
        self._times[name] += delta
        return self._times[name]


def _rewind(
    plan: EntityPlan,
    state: State,
    moment: int,
    transactions: ScanLog,
    reports: ScanLog,
    count: CountValue,
) -> None:
    for window, width in enumerate(plan.windows):
        for entry in transactions(max(moment, state.moment - width), state.moment):
            plan.change(state, window, entry, -1, count)
        for entry in transactions(moment - width, min(moment, state.moment - width)):
            plan.change(state, window, entry, 1, count)
    for window, width in enumerate(plan.report_windows):
        state.reports[window] -= _length(reports(max(moment, state.moment - width), state.moment))
        state.reports[window] += _length(reports(moment - width, min(moment, state.moment - width)))
    state.moment = moment


def _length(entries: Iterable[Entry]) -> int:
    return sum(1 for _ in entries)


def _last(current: State, moment: int, back: ScanBack) -> int:
    """The last moment before `moment`: from the State where it knows, else from the log."""
    for known in (current.last, current.before_last):
        if known < moment:
            return known
    return next((entry.moment for entry in back(moment)), current.first if current.first < moment else NEVER)


def _place(plan: EntityPlan, current: State, moment: int, back: ScanBack) -> KnownPlace | None:
    """The last known place before `moment`; of a tied moment the greatest."""
    if not plan.has_place or current.place is None:
        return None
    for known in (current.place, current.place_before):
        if known is None or known[0] < moment:
            return known
    found: KnownPlace | None = None
    for entry in back(moment):
        if found is not None and entry.moment < found[0]:
            break
        if entry.place is not None and (found is None or entry.place > found):
            found = entry.place
    return found
