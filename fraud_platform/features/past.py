"""One key's past: what a store is asked of it, and the same answers where its State carries it along.

Belongs here: the interface to a log, and its twin in memory. Does not belong here: what is looked for
(lookback.py), bytes (adapters).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from fraud_platform.features.lookback import KeyPast, Outcome, Outcomes
from fraud_platform.features.recent import Entry, Recent
from fraud_platform.features.state import NEVER


class KeyReports(KeyPast, Protocol):
    """What a store knows of a key's reports."""

    def reported(self, names: Sequence[bytes]) -> dict[bytes, int]:
        """When (ms) those of the transactions that were reported as fraud were, by the token of the id."""


class Counts(Protocol):
    """How often values are in the windows of a key."""

    def times(self, column: int, value: bytes) -> list[int]:
        """How often a distinct column's value is in each window; what the caller changes is kept."""


class KeyLog(Counts, KeyReports, Protocol):
    """What a plan reads of one key's past, and what it adds; one iterable is read at a time."""

    def scan(self, is_report: bool, lower: int, upper: int) -> Iterable[Entry]:
        """Entries of one stream with lower <= moment < upper, in order of moment."""

    def leave(self, is_report: bool, lower: int, bound: int, upper: int) -> tuple[list[Entry], int]:
        """Entries with lower <= moment < bound, and the moment of the next one, FAR where there is none; all
        lie before `upper`."""

    def scan_back(self, upper: int) -> Iterable[Entry]:
        """Transactions before a moment, the latest first."""

    def append(self, name: bytes, entry: Entry) -> None:
        """name: the token of the transaction's id."""


class RecentPast:
    """A KeyPast of recent transactions; `log` tells of reports."""

    __slots__ = ("_log", "_recent")

    def __init__(self, recent: Recent, log: KeyReports) -> None:
        self._recent = recent
        self._log = log

    def scan_back(self, upper: int) -> Iterator[Entry]:
        """Transactions before a moment, the latest first."""
        for place in reversed(self._recent.between(0, upper)):
            yield self._recent.entry(place)

    def amounts(self, lower: int, upper: int, last: int) -> Sequence[int]:
        places = self._last(lower, upper, last)
        return self._recent.amounts[places.start : places.stop]

    def outcomes(self, now: int, lower: int, upper: int, last: int, has_reports: bool) -> Outcomes:
        recent, places = self._recent, self._last(lower, upper, last)
        reported: dict[bytes, int] = {}
        if places and has_reports:
            reported = self._log.reported([recent.name(place) for place in places])
        if places and not reported:  # as it is nearly always
            return Outcomes(len(places), good=recent.moments[places[-1]])
        return Outcomes.by(
            now,
            [
                Outcome(recent.moments[place], reported.get(recent.name(place), NEVER), recent.amounts[place])
                for place in places
            ],
        )

    def outer_reports(self, lower: int, upper: int) -> tuple[int, int]:
        return self._log.outer_reports(lower, upper)

    def _last(self, lower: int, upper: int, last: int) -> range:
        """Where the transactions of the last moments in [lower, upper) stand."""
        places = self._recent.between(lower, upper)
        if len(places) <= last:
            return places
        moments = self._recent.moments
        different = sorted(set(moments[places.start : places.stop]))[-last:]
        return self._recent.between(different[0], upper)
