"""What is looked back for, of a key whose State carries all of its transactions along.

Belongs here: the answers of a store's log, from memory. Does not belong here: what is looked for
(lookback.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fraud_platform.features.lookback import KeyPast, Outcome, Outcomes
from fraud_platform.features.recent import Entry, Recent
from fraud_platform.features.state import NEVER


class KeyReports(KeyPast, Protocol):
    """What a store knows of a key's reports."""

    def reported(self, names: Sequence[bytes]) -> dict[bytes, int]:
        """When (ms) those of the transactions that were reported as fraud were, by the token of the id."""


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
