"""What a key's log tells of one moment beyond totals: its last few amounts, outcomes, and outermost reports.

Belongs here: what is looked back for, and how far. Does not belong here: how a store finds it.
Each looks at a bounded number of moments, so that an event costs the same whatever a window holds; whole
moments, so that ties of one millisecond need no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fraud_platform.features.state import NEVER


class Span(NamedTuple):
    """The `last` moments with transactions in [t - offset - width, t - offset); ms."""

    last: int
    width: int
    offset: int = 0

    @property
    def reach(self) -> int:
        return self.width + self.offset


class Outcome(NamedTuple):
    """One transaction: its event_time (ms); when it was first reported as fraud (ms), NEVER where it was not;
    its amount_minor."""

    moment: int
    reported_at: int
    amount: int

    def is_known(self, now: int) -> bool:
        """Whether it is known as fraud at `now`."""
        return NEVER < self.reported_at < now


class KeyPast(Protocol):
    """What a store answers of one key's log."""

    def amounts(self, lower: int, upper: int, last: int) -> Sequence[int]:
        """amount_minor of the transactions of the last moments in [lower, upper), in any order."""

    def outcomes(self, lower: int, upper: int, last: int) -> Sequence[Outcome]:
        """Of each transaction of the last moments in [lower, upper), in any order."""

    def outer_reports(self, lower: int, upper: int) -> tuple[int, int]:
        """The first and the last moment of a report in [lower, upper), NEVER where there is none."""


class Wanted(NamedTuple):
    """amounts, outcomes: None where no feature asks; reports: how far back (ms) a report is looked for."""

    amounts: Span | None = None
    outcomes: Span | None = None
    reports: int = 0

    @property
    def has_entries(self) -> bool:
        """Whether transactions are looked for, and not reports alone."""
        return self.amounts is not None or self.outcomes is not None

    @property
    def reach(self) -> int:
        return max(self.reports, *(span.reach for span in (self.amounts, self.outcomes) if span), 0)


class Lookback(NamedTuple):
    """What was found; an outcome may have become known only after the moment that asks."""

    amounts: Sequence[int] = ()
    outcomes: Sequence[Outcome] = ()
    oldest_report: int = NEVER
    newest_report: int = NEVER


NOTHING = Lookback()


def look_back(wanted: Wanted, moment: int, past: KeyPast) -> Lookback:
    """Everything strictly before `moment`."""
    amounts: Sequence[int] = ()
    outcomes: Sequence[Outcome] = ()
    reports = NEVER, NEVER
    if wanted.amounts is not None:
        last, width, offset = wanted.amounts
        amounts = past.amounts(moment - offset - width, moment - offset, last)
    if wanted.outcomes is not None:
        last, width, offset = wanted.outcomes
        outcomes = past.outcomes(moment - offset - width, moment - offset, last)
    if wanted.reports:
        reports = past.outer_reports(moment - wanted.reports, moment)
    return Lookback(amounts, outcomes, *reports)
