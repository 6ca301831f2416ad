"""The State of a key as of a moment that it has left behind: how late events are answered, exactly.

Belongs here: walking a State back through its log. Does not belong here: moving it forward (plan.py), when an
event is late (engine.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from fraud_platform.features.past import KeyLog, RecentPast
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.recent import Entry, KnownPlace
from fraud_platform.features.state import NEVER, State


def as_of(plan: EntityPlan, current: State, moment: int, log: KeyLog) -> State:
    """A copy of `current` as it would stand at `moment`; the log and its counts are read, never changed.

    The work grows with how late the moment is, not with the length of a window: a window becomes an
    older one by leaving out what came since and taking in again what had expired. Right where the log is
    whole from the moment's longest window on, which the caller sees to.
    """
    state = copy.deepcopy(current)
    if moment < current.moment or state.recent is not None:
        _rewind(plan, state, moment, log)
    past = log if current.recent is None else RecentPast(current.recent, log)
    state.first = current.first if NEVER < current.first < moment else NEVER
    state.last = _last(current, moment, past)
    state.before_last = NEVER
    state.place = _place(plan, current, moment, past)
    state.place_before = None
    return state


class _Overlay:
    """Counts of values that change on the way back, over those that the store holds."""

    def __init__(self, log: KeyLog) -> None:
        self._stored = log.times
        self._times: dict[tuple[int, bytes], list[int]] = {}

    def times(self, column: int, value: bytes) -> list[int]:
        name = column, value
        if name not in self._times:
            self._times[name] = list(self._stored(column, value))
        return self._times[name]


def _rewind(plan: EntityPlan, state: State, moment: int, log: KeyLog) -> None:
    if state.recent is not None:
        plan.recount(state, state.recent, moment)
    else:
        values = _Overlay(log)
        for window, width in enumerate(plan.windows):
            since = list(log.scan(False, max(moment, state.moment - width), state.moment))
            plan.change(state, window, since, -1, values)
            expired = list(log.scan(False, moment - width, min(moment, state.moment - width)))
            plan.change(state, window, expired, 1, values)
    for window, width in enumerate(plan.report_windows):
        state.reports[window] -= _length(log.scan(True, max(moment, state.moment - width), state.moment))
        state.reports[window] += _length(log.scan(True, moment - width, min(moment, state.moment - width)))
    state.moment = moment


def _length(entries: Iterable[Entry]) -> int:
    return sum(1 for _ in entries)


def _last(current: State, moment: int, past: KeyLog | RecentPast) -> int:
    """The last moment before `moment`: from the State where it knows, else from the log."""
    for known in (current.last, current.before_last):
        if known < moment:
            return known
    for entry in past.scan_back(moment):  # an older one may have come while a younger one was trimmed
        return max(entry.moment, current.trimmed_last)
    if current.trimmed_last != NEVER:
        return current.trimmed_last
    return current.first if current.first < moment else NEVER


def _place(plan: EntityPlan, current: State, moment: int, past: KeyLog | RecentPast) -> KnownPlace | None:
    """The last known place before `moment`; of a tied moment the greatest."""
    if not plan.has_place or current.place is None:
        return None
    for known in (current.place, current.place_before):
        if known is None or known[0] < moment:
            return known
    found: KnownPlace | None = None
    for entry in past.scan_back(moment):
        if found is not None and entry.moment < found[0]:
            break
        if entry.place is not None and (found is None or entry.place > found):
            found = entry.place
    return max((place for place in (found, current.trimmed_place) if place is not None), default=None)
