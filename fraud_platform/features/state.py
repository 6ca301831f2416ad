"""What the online store remembers of one entity's key: its latest transactions, exact totals per window and
facts of its past.

The totals cover [moment - w, moment) for each window w; what is newer counts once a later event moves
`moment` forward. All numbers are integers, so that no order of events can round them.
"""

from __future__ import annotations

import msgspec

from fraud_platform.features.recent import Entry, KnownPlace, Recent

NEVER = -1
"""No such moment (times are milliseconds since 1970 and never negative)."""
FAR = 1 << 62
"""Later than every moment: the oldest entry of an empty window."""

WAITING_MAX = 4
"""So many entries wait in a State; more of them, of one busy millisecond, wait in the log."""

TOTALS = ("counts", "sums", "squares", "distincts", "oldest")
"""Fields of a State that nothing is kept in as long as it carries the transactions along."""

_SPLIT = 1 << 53


class State(msgspec.Struct, array_like=True, gc=False):
    """Mutable while one event is observed, then stored again.

    counts, sums, squares: one integer per window of transactions (squares as two: above and below 2^53);
    distincts: one per distinct column and window; reports: one per window of fraud_reports;
    oldest, oldest_report: the moment of the oldest entry inside each window, FAR where it is empty;
    recent: all transactions that were not forgotten yet, as long as they are few: the log is empty then, and
    the totals of transactions are counted anew when they are asked for; None where the log holds them, or
    nothing does;
    waiting: of the log's transactions those at or after `moment`, None where it has to be asked;
    log_from: what is older has been trimmed; trimmed_last, trimmed_place, trimmed_report: the
    newest of what was trimmed; is_due: whether the store will look after the key once it has been idle for
    as long as anything of its log can count.
    """

    moment: int
    counts: list[int] = []
    sums: list[int] = []
    squares: list[int] = []
    distincts: list[int] = []
    oldest: list[int] = []
    reports: list[int] = []
    oldest_report: list[int] = []
    first: int = NEVER
    last: int = NEVER
    before_last: int = NEVER
    last_report: int = NEVER
    place: KnownPlace | None = None
    place_before: KnownPlace | None = None
    recent: Recent | None = None
    waiting: list[Entry] | None = []
    log_from: int = 0
    trimmed_last: int = NEVER
    trimmed_place: KnownPlace | None = None
    trimmed_report: int = NEVER
    is_due: bool = False

    def drop_totals(self) -> None:
        """Of transactions: they can be counted from those it carries along."""
        self.counts, self.sums, self.squares, self.distincts, self.oldest = [], [], [], [], []

    def square(self, window: int) -> int:
        return self.squares[2 * window] * _SPLIT + self.squares[2 * window + 1]

    def set_square(self, window: int, value: int) -> None:
        self.squares[2 * window], self.squares[2 * window + 1] = divmod(value, _SPLIT)

    def add_square(self, window: int, value: int) -> None:
        self.set_square(window, self.square(window) + value)

    def last_before(self, moment: int) -> int:
        """The last moment strictly before `moment`, NEVER where there is none."""
        return self.last if self.last < moment else self.before_last

    def place_at_last(self, moment: int) -> KnownPlace | None:
        """The last known place strictly before `moment`."""
        if self.place is not None and self.place[0] < moment:
            return self.place
        return self.place_before

    def remember(self, moment: int, place: KnownPlace | None) -> None:
        """Takes one transaction into the facts of the past, whatever its order of arrival."""
        if self.first == NEVER or moment < self.first:
            self.first = moment
        if place is not None:
            self._remember_place(place)
        if moment > self.last:
            self.before_last, self.last = self.last, moment
        elif self.before_last < moment < self.last:
            self.before_last = moment

    def forget(self, moment: int, place: KnownPlace | None) -> None:
        """Notes one transaction that is forgotten."""
        self.trimmed_last = max(self.trimmed_last, moment)
        if place is not None and (self.trimmed_place is None or place > self.trimmed_place):
            self.trimmed_place = place

    def _remember_place(self, place: KnownPlace) -> None:
        if self.place is None or place[0] > self.place[0]:
            self.place, self.place_before = place, self.place
        elif place[0] == self.place[0]:
            self.place = max(self.place, place)
        elif self.place_before is None or place > self.place_before:
            self.place_before = place


def exact_double(value: int) -> float:
    """The double of a large integer by two rounded steps, the twin of the macro exact_double.

    >>> exact_double(2**80 + 1) == float(2**80 + 1)
    True
    """
    high, low = divmod(value, _SPLIT)
    return float(high) * 9007199254740992.0 + float(low)
