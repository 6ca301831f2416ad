"""One class a kind of aggregate: the online twin of the macro aggregate_<kind>.

A class says which totals a window must keep (`totals`) and turns a State into the feature's value. A new kind
is one class here and one macro; tests/contract/test_features.py discovers both and demands their parity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import ClassVar, NamedTuple, Self

from fraud_platform.errors import ContractError
from fraud_platform.features.contract import STREAMS, Feature, unknown
from fraud_platform.features.geometry import Place, distance_km, place
from fraud_platform.features.state import NEVER, State, exact_double
from fraud_platform.schema import TRANSACTION_COLUMNS

TEXT_COLUMNS = tuple(column.name for column in TRANSACTION_COLUMNS if column.type == "VARCHAR")


class Now(NamedTuple):
    """The moment that asks: event_time (ms) and the place of the transaction, if known."""

    time: int
    place: Place | None


class Slots(NamedTuple):
    """Where an entity's plan keeps what a feature reads: places in the State's lists."""

    window: int = 0
    distinct: int = 0


Reader = Callable[[State, Now], Sequence[float | None]]


class Aggregate:
    """Base: `totals` names what a State keeps for the kind beside counts and sums of its window.

    is_windowed: whether an entry declares windows; streams: which ones the kind can read; of: the columns
    it can read, None for any text column of the transaction.
    """

    kind: ClassVar[str]
    totals: ClassVar[frozenset[str]] = frozenset()
    is_windowed: ClassVar[bool] = False
    streams: ClassVar[tuple[str, ...]] = ("transactions",)
    of: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, feature: Feature, slots: Slots) -> None:
        self.feature = feature
        self.slots = slots
        self.window = slots.window

    def value(self, state: State, now: Now) -> float | None:
        raise NotImplementedError(self.kind)

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        """Reads several features of this kind and of one stream; a kind may know a shorter way."""
        values = [reader.value for reader in readers]
        return lambda state, now: [value(state, now) for value in values]


class Count(Aggregate):
    kind = "count"
    is_windowed = True
    streams = STREAMS

    def __init__(self, feature: Feature, slots: Slots) -> None:
        super().__init__(feature, slots)
        self.counts_reports = feature.stream == "fraud_reports"

    def value(self, state: State, now: Now) -> float:
        return float((state.reports if self.counts_reports else state.counts)[self.window])

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        windows = [reader.window for reader in readers]
        if readers[0].counts_reports:
            return lambda state, now: [float(state.reports[window]) for window in windows]
        return lambda state, now: [float(state.counts[window]) for window in windows]


class Sum(Aggregate):
    kind = "sum"
    is_windowed = True
    of = ("amount_minor",)

    def value(self, state: State, now: Now) -> float:
        return float(state.sums[self.window])

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        windows = [reader.window for reader in readers]
        return lambda state, now: [float(state.sums[window]) for window in windows]


class Mean(Aggregate):
    kind = "mean"
    is_windowed = True
    of = ("amount_minor",)

    def value(self, state: State, now: Now) -> float | None:
        count = state.counts[self.window]
        return float(state.sums[self.window]) / float(count) if count else None

    @classmethod
    def together(cls, readers: Sequence[Self]) -> Reader:
        windows = [reader.window for reader in readers]

        def read(state: State, now: Now) -> list[float | None]:
            sums, counts = state.sums, state.counts
            return [float(sums[w]) / float(counts[w]) if counts[w] else None for w in windows]

        return read


class Std(Aggregate):
    """Population standard deviation, from exact integers until the square root."""

    kind = "std"
    totals = frozenset({"squares"})
    is_windowed = True
    of = ("amount_minor",)

    def value(self, state: State, now: Now) -> float | None:
        window = self.window
        count = state.counts[window]
        if count < 2:
            return None
        total = state.sums[window]
        return sqrt(exact_double(count * state.square(window) - total * total)) / float(count)


class Distinct(Aggregate):
    kind = "distinct"
    totals = frozenset({"distincts"})
    is_windowed = True
    of = None

    def value(self, state: State, now: Now) -> float:
        return float(state.distincts[self.slots.distinct])


class SecondsSinceLast(Aggregate):
    kind = "seconds_since_last"
    totals = frozenset({"moments"})

    def value(self, state: State, now: Now) -> float | None:
        last = state.last_before(now.time)
        return None if last == NEVER else float(now.time - last) / 1000.0


class AgeSeconds(Aggregate):
    kind = "age_seconds"

    def value(self, state: State, now: Now) -> float | None:
        return float(now.time - state.first) / 1000.0 if NEVER < state.first < now.time else None


class IsNew(Aggregate):
    kind = "is_new"

    def value(self, state: State, now: Now) -> float:
        return 0.0 if NEVER < state.first < now.time else 1.0


class DistanceKm(Aggregate):
    kind = "distance_km"
    totals = frozenset({"place"})

    def value(self, state: State, now: Now) -> float | None:
        last = state.place_at_last(now.time)
        if last is None or now.place is None:
            return None
        return distance_km(place(last[1], last[2]), now.place)


class SpeedKmh(DistanceKm):
    kind = "speed_kmh"

    def value(self, state: State, now: Now) -> float | None:
        distance = super().value(state, now)
        last = state.place_at_last(now.time)
        if distance is None or last is None:
            return None
        return distance / (float(now.time - last[0]) / 3600000.0)


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
    wanted = TEXT_COLUMNS if kind.of is None else kind.of
    if len(feature.of) != bool(wanted) or not set(feature.of) <= set(wanted):
        raise ContractError(
            f"feature {feature.name!r}: {kind.kind} reads "
            f"{'one of ' + ', '.join(wanted) if wanted else 'no column'}, not {list(feature.of)}"
        )
