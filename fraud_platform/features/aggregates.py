"""One class a kind of aggregate: the online twin of the macro aggregate_<kind>.

A class says which totals a window must keep (`totals`), what of the log it wants to see (`lookback`), and
turns a State and a Lookback into the feature's value. A new kind is one class here and one macro;
tests/contract/test_features.py discovers both and demands their parity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import ClassVar, NamedTuple, Self

from fraud_platform.errors import ContractError
from fraud_platform.features.contract import STREAMS, Feature, unknown
from fraud_platform.features.geometry import Place, distance_km, place
from fraud_platform.features.lookback import Lookback
from fraud_platform.features.state import NEVER, State, exact_double
from fraud_platform.schema import TEXT_COLUMNS


class Now(NamedTuple):
    """The moment that asks: event_time (ms) and the place of the transaction, if known."""

    time: int
    place: Place | None


class Slots(NamedTuple):
    """Where an entity's plan keeps what a feature reads: places in the State's lists.

    until: the window that begins where the feature's own ends, None where that is the event itself.
    """

    window: int = 0
    distinct: int = 0
    until: int | None = None


Reader = Callable[[State, Now, Lookback], Sequence[float | None]]


class Aggregate:
    """Base: `totals` names what a State keeps for the kind beside counts and sums of its window.

    is_windowed: whether an entry declares windows; streams: which ones the kind can read; of: the columns
    it can read, None for any text column of the transaction; has_offset: whether its window may end before
    the event; lookback: the field of Lookback that it reads.
    """

    kind: ClassVar[str]
    totals: ClassVar[frozenset[str]] = frozenset()
    is_windowed: ClassVar[bool] = False
    streams: ClassVar[tuple[str, ...]] = ("transactions",)
    of: ClassVar[tuple[str, ...] | None] = ()
    has_offset: ClassVar[bool] = False
    lookback: ClassVar[str | None] = None

    def __init__(self, feature: Feature, slots: Slots) -> None:
        self.feature = feature
        self.slots = slots
        self.window = slots.window
        self.until = slots.until

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        raise NotImplementedError(self.kind)

    def within(self, totals: Sequence[int]) -> int:
        """Of a total by window: what lies in the feature's own."""
        if self.until is None:
            return totals[self.window]
        return totals[self.window] - totals[self.until]

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        """Reads several features of this kind and of one stream; a kind may know a shorter way."""
        values = [reader.value for reader in readers]
        return lambda state, now, back: [value(state, now, back) for value in values]


class Count(Aggregate):
    kind = "count"
    is_windowed = True
    streams = STREAMS
    has_offset = True

    def __init__(self, feature: Feature, slots: Slots) -> None:
        super().__init__(feature, slots)
        self.counts_reports = feature.stream == "fraud_reports"

    def value(self, state: State, now: Now, back: Lookback) -> float:
        return float(self.within(state.reports if self.counts_reports else state.counts))

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        if any(reader.until is not None for reader in readers):
            return super().together(readers)
        windows = [reader.window for reader in readers]
        if readers[0].counts_reports:
            return lambda state, now, back: [float(state.reports[window]) for window in windows]
        return lambda state, now, back: [float(state.counts[window]) for window in windows]


class Sum(Aggregate):
    kind = "sum"
    is_windowed = True
    of = ("amount_minor",)
    has_offset = True

    def value(self, state: State, now: Now, back: Lookback) -> float:
        return float(self.within(state.sums))

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        if any(reader.until is not None for reader in readers):
            return super().together(readers)
        windows = [reader.window for reader in readers]
        return lambda state, now, back: [float(state.sums[window]) for window in windows]


class Mean(Aggregate):
    kind = "mean"
    is_windowed = True
    of = ("amount_minor",)
    has_offset = True

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        count = self.within(state.counts)
        return float(self.within(state.sums)) / float(count) if count else None

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        if any(reader.until is not None for reader in readers):
            return super().together(readers)
        windows = [reader.window for reader in readers]

        def read(state: State, now: Now, back: Lookback) -> list[float | None]:
            sums, counts = state.sums, state.counts
            return [float(sums[w]) / float(counts[w]) if counts[w] else None for w in windows]

        return read


class Std(Aggregate):
    """Population standard deviation, from exact integers until the square root."""

    kind = "std"
    totals = frozenset({"squares"})
    is_windowed = True
    of = ("amount_minor",)
    has_offset = True

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        count = self.within(state.counts)
        if count < 2:
            return None
        total = self.within(state.sums)
        squares = state.square(self.window)
        if self.until is not None:
            squares -= state.square(self.until)
        return sqrt(exact_double(count * squares - total * total)) / float(count)


class Distinct(Aggregate):
    kind = "distinct"
    totals = frozenset({"distincts"})
    is_windowed = True
    of = None

    def value(self, state: State, now: Now, back: Lookback) -> float:
        return float(state.distincts[self.slots.distinct])


class SecondsSinceLast(Aggregate):
    kind = "seconds_since_last"
    totals = frozenset({"moments"})

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        last = state.last_before(now.time)
        return None if last == NEVER else float(now.time - last) / 1000.0


class AgeSeconds(Aggregate):
    kind = "age_seconds"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        return float(now.time - state.first) / 1000.0 if NEVER < state.first < now.time else None


class IsNew(Aggregate):
    kind = "is_new"

    def value(self, state: State, now: Now, back: Lookback) -> float:
        return 0.0 if NEVER < state.first < now.time else 1.0


class DistanceKm(Aggregate):
    kind = "distance_km"
    totals = frozenset({"place"})

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        last = state.place_at_last(now.time)
        if last is None or now.place is None:
            return None
        return distance_km(place(last[1], last[2]), now.place)


class SpeedKmh(DistanceKm):
    kind = "speed_kmh"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        distance = super().value(state, now, back)
        last = state.place_at_last(now.time)
        if distance is None or last is None:
            return None
        return distance / (float(now.time - last[0]) / 3600000.0)


class SecondsSinceReport(Aggregate):
    """Since the window's newest report, None where it holds none."""

    kind = "seconds_since_report"
    is_windowed = True
    streams = ("fraud_reports",)
    lookback = "reports"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        return None if back.newest_report == NEVER else float(now.time - back.newest_report) / 1000.0


class SecondsSinceFirstReport(Aggregate):
    """Since the window's oldest report, None where it holds none."""

    kind = "seconds_since_first_report"
    is_windowed = True
    streams = ("fraud_reports",)
    lookback = "reports"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        return None if back.oldest_report == NEVER else float(now.time - back.oldest_report) / 1000.0


class LastMax(Aggregate):
    """The largest amount of the window's last few moments."""

    kind = "last_max"
    is_windowed = True
    of = ("amount_minor",)
    lookback = "amounts"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        return float(max(back.amounts)) if back.amounts else None


class LastMedian(Aggregate):
    """The middle amount of the window's last few moments, the mean of two where their number is even."""

    kind = "last_median"
    is_windowed = True
    of = ("amount_minor",)
    lookback = "amounts"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        amounts = sorted(back.amounts)
        if not amounts:
            return None
        number = len(amounts)
        return (float(amounts[(number - 1) // 2]) + float(amounts[number // 2])) / 2.0


class LastFraudShare(Aggregate):
    """Of the transactions of the window's last few moments, the share that is known as fraud by now."""

    kind = "last_fraud_share"
    is_windowed = True
    streams = ("fraud_reports",)
    has_offset = True
    lookback = "outcomes"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        number, frauds = back.outcomes.number, back.outcomes.frauds
        return float(len(frauds)) / float(number) if number else None


class LastFraudMean(Aggregate):
    """The mean amount of those of the window's last few moments that are known as fraud by now."""

    kind = "last_fraud_mean"
    is_windowed = True
    streams = ("fraud_reports",)
    of = ("amount_minor",)
    has_offset = True
    lookback = "outcomes"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        frauds = back.outcomes.frauds
        return float(sum(frauds)) / float(len(frauds)) if frauds else None


class SecondsSinceGood(Aggregate):
    """Since the latest of the window's last few moments with a transaction not known as fraud by now."""

    kind = "seconds_since_good"
    is_windowed = True
    streams = ("fraud_reports",)
    has_offset = True
    lookback = "outcomes"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        good = back.outcomes.good
        return None if good == NEVER else float(now.time - good) / 1000.0


class SecondsSinceFraudOnly(Aggregate):
    """Since the oldest of the window's last few moments after which all are known as fraud by now, itself
    included; None where the latest is not."""

    kind = "seconds_since_fraud_only"
    is_windowed = True
    streams = ("fraud_reports",)
    has_offset = True
    lookback = "outcomes"

    def value(self, state: State, now: Now, back: Lookback) -> float | None:
        first = back.outcomes.fraud_only
        return None if first == NEVER else float(now.time - first) / 1000.0


AGGREGATES: dict[str, type[Aggregate]] = {
    aggregate.kind: aggregate
    for aggregate in (
        Count,
        Sum,
        Mean,
        Std,
        Distinct,
        SecondsSinceLast,
        AgeSeconds,
        IsNew,
        DistanceKm,
        SpeedKmh,
        SecondsSinceReport,
        SecondsSinceFirstReport,
        LastMax,
        LastMedian,
        LastFraudShare,
        LastFraudMean,
        SecondsSinceGood,
        SecondsSinceFraudOnly,
    )
}


def aggregate(feature: Feature, slots: Slots) -> Aggregate:
    """The aggregate of a declared feature; ContractError lists the known kinds."""
    if feature.kind not in AGGREGATES:
        raise unknown(f"kind of feature {feature.name!r}", feature.kind, AGGREGATES)
    return AGGREGATES[feature.kind](feature, slots)


def check_aggregate(feature: Feature) -> None:
    """ContractError where the entry asks of its kind what the kind cannot compute."""
    if feature.kind not in AGGREGATES:
        raise unknown(f"kind of feature {feature.name!r}", feature.kind, AGGREGATES)
    kind = AGGREGATES[feature.kind]
    if feature.stream not in kind.streams:
        raise ContractError(
            f"feature {feature.name!r}: {kind.kind} reads {', '.join(kind.streams)}, not {feature.stream!r}"
        )
    if kind.is_windowed != (feature.window_ms is not None):
        rule = "declare its windows" if kind.is_windowed else "it knows no windows, leave them out"
        raise ContractError(f"feature {feature.name!r} is of kind {kind.kind}: {rule}")
    if feature.offset_ms and not kind.has_offset:
        raise ContractError(
            f"feature {feature.name!r}: a window of {kind.kind} ends at the event; leave offset out"
        )
    if (kind.lookback in ("amounts", "outcomes")) != (feature.last is not None and feature.last > 0):
        rule = (
            "say how many moments with last: N"
            if kind.lookback
            else "it looks at whole windows, leave last out"
        )
        raise ContractError(f"feature {feature.name!r} is of kind {kind.kind}: {rule}")
    wanted = TEXT_COLUMNS if kind.of is None else kind.of
    if len(feature.of) != bool(wanted) or not set(feature.of) <= set(wanted):
        raise ContractError(
            f"feature {feature.name!r}: {kind.kind} reads "
            f"{'one of ' + ', '.join(wanted) if wanted else 'no column'}, not {list(feature.of)}"
        )
