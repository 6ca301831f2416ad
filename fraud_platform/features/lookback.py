"""What a key's past tells of one moment beyond totals: its last few amounts, outcomes, and outermost reports.

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


class Outcomes(NamedTuple):
    """What is known by one moment of the transactions of the last few: their number; amount_minor of those
    that are known as fraud; the latest moment with one that is not, and the oldest after it, NEVER where
    there is none."""

    number: int = 0
    frauds: Sequence[int] = ()
    good: int = NEVER
    fraud_only: int = NEVER

    @classmethod
    def by(cls, now: int, found: Sequence[Outcome]) -> Outcomes:
        """Of transactions in any order; one that became known at `now` or later is not known yet."""
        frauds = [one for one in found if NEVER < one.reported_at < now]
        good = max([one.moment for one in found if not NEVER < one.reported_at < now], default=NEVER)
        fraud_only = min([one.moment for one in frauds if one.moment > good], default=NEVER)
        return cls(len(found), [one.amount for one in frauds], good, fraud_only)


class KeyPast(Protocol):
    """What is answered of one key's past, by a store or from memory."""

    def amounts(self, lower: int, upper: int, last: int) -> Sequence[int]:
        """amount_minor of the transactions of the last moments in [lower, upper), in any order."""

    def outcomes(self, now: int, lower: int, upper: int, last: int, has_reports: bool) -> Outcomes:
        """What is known by `now` of the transactions of the last moments in [lower, upper). has_reports:
        False where the key has no report, so that none has to be looked for."""

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
    """What was found for the moment that asks."""

    amounts: Sequence[int] = ()
    outcomes: Outcomes = Outcomes()
    oldest_report: int = NEVER
    newest_report: int = NEVER


NOTHING = Lookback()


def look_back(wanted: Wanted, moment: int, past: KeyPast, has_reports: bool) -> Lookback:
    """Everything strictly before `moment`; has_reports: whether the key has any report at all."""
    amounts: Sequence[int] = ()
    outcomes = Outcomes()
    reports = NEVER, NEVER
    if wanted.amounts is not None:
        last, width, offset = wanted.amounts
        amounts = past.amounts(moment - offset - width, moment - offset, last)
    if wanted.outcomes is not None:
        last, width, offset = wanted.outcomes
        outcomes = past.outcomes(moment, moment - offset - width, moment - offset, last, has_reports)
    if wanted.reports and has_reports:
        reports = past.outer_reports(moment - wanted.reports, moment)
    return Lookback(amounts, outcomes, *reports)
