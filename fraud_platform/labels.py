"""labels: what may be taught about a transaction at a moment.

Belongs here: the rule for one transaction, as the reference that the set-based dbt model
(training.labels) is tested against, and the refusal of labels that are too young.
Does not belong here: reading label events (ingest), or joining them to features (training).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fraud_platform.errors import LabelError
from fraud_platform.schema import MILLISECONDS_PER_DAY, LabelEvent, LabelStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ResolvedLabel:
    """`source` and `known_at` (ms UTC) of the strongest event; None where nothing was said."""

    status: LabelStatus
    source: str | None = None
    known_at: int | None = None


@dataclass(frozen=True)
class LabelRule:
    """When a label may teach, for one dataset.

    maturity_days: how long a fraud may take to become known. precedence: sources, strongest first; a source
    that is not listed is weaker than all that are.

    >>> rule = LabelRule(maturity_days=30, precedence=("chargeback", "cardholder_report"))
    >>> rule.resolve([], event_time=0, as_of_ms=29 * 86_400_000).status
    'immature'
    >>> rule.resolve([], event_time=0, as_of_ms=30 * 86_400_000).status
    'legitimate'
    """

    maturity_days: int
    precedence: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.maturity_days < 0:
            raise LabelError(f"maturity_days is {self.maturity_days}; it must be 0 or more")

    def mature_before(self, as_of_ms: int) -> int:
        """The latest event_time (ms, included) whose label is mature at `as_of_ms`."""
        return as_of_ms - self.maturity_days * MILLISECONDS_PER_DAY

    def is_mature(self, event_time: int, as_of_ms: int) -> bool:
        return event_time <= self.mature_before(as_of_ms)

    def resolve(self, events: Iterable[LabelEvent], event_time: int, as_of_ms: int) -> ResolvedLabel:
        """The label of one transaction at `as_of_ms`, from its `events` in any order.

        Only what was known strictly before as_of counts. The strongest source decides, by its latest event;
        among equals fraud decides, then the source's name. A fraud is known at once. Anything else is
        legitimate only when the window has passed, since until then a fraud may still be reported; before
        that it is immature, whatever was said.
        """
        known = [event for event in events if event.known_at < as_of_ms]
        decisive = min(known, key=self._strength, default=None)
        status: LabelStatus = "legitimate" if self.is_mature(event_time, as_of_ms) else "immature"
        if decisive is None:
            return ResolvedLabel(status)
        if decisive.outcome == "fraud":
            status = "fraud"
        return ResolvedLabel(status, decisive.source, decisive.known_at)

    def require_mature(self, transaction_id: str, event_time: int, as_of_ms: int) -> None:
        """Raises LabelError when this transaction's label may not teach at `as_of_ms` yet."""
        if self.is_mature(event_time, as_of_ms):
            return
        age_days = (as_of_ms - event_time) // MILLISECONDS_PER_DAY
        ready_ms = event_time + self.maturity_days * MILLISECONDS_PER_DAY
        raise LabelError(
            f"label for transaction {transaction_id} is {age_days} days old at {_moment(as_of_ms)}; "
            f"maturity is {self.maturity_days} days: leave it out, "
            f"or take an as_of of {_moment(ready_ms)} or later"
        )

    def _strength(self, event: LabelEvent) -> tuple[int, int, bool, str]:
        """Least is strongest."""
        rank = len(self.precedence)
        if event.source in self.precedence:
            rank = self.precedence.index(event.source)
        return rank, -event.known_at, event.outcome != "fraud", event.source


def _moment(time_ms: int) -> str:
    """2026-03-01 at midnight, else with its time, to the millisecond where it has any."""
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    if time_ms % MILLISECONDS_PER_DAY == 0:
        return moment.date().isoformat()
    return moment.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds").replace("+00:00", "Z")
