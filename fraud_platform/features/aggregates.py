"""One class a kind of aggregate: the online twin of the macro aggregate_<kind>.

A class says which totals a window must keep (`totals`) and turns a State into the feature's value. A new kind
is one class here and one macro; tests/contract/test_features.py discovers both and demands their parity.
"""

from __future__ import annotations

from math import sqrt
from typing import ClassVar, NamedTuple

from fraud_platform.features.contract import Feature, unknown
from fraud_platform.features.geometry import Place, distance_km, place
from fraud_platform.features.state import NEVER, State, exact_double


class Now(NamedTuple):
    """The moment that asks: event_time (ms) and the place of the transaction, if known."""

    time: int
    place: Place | None


class Slots(NamedTuple):
    """Where an entity's plan keeps what a feature reads: places in the State's lists."""

    window: int = 0
    distinct: int = 0


class Aggregate:
    """Base: `totals` names the running totals of the window that the kind needs."""

    kind: ClassVar[str]
    totals: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, feature: Feature, slots: Slots) -> None:
        self.feature = feature
        self.slots = slots

    def value(self, state: State, now: Now) -> float | None:
        raise NotImplementedError(self.kind)


class Count(Aggregate):
    kind = "count"

    def value(self, state: State, now: Now) -> float:
        counted = state.counts if self.feature.stream == "transactions" else state.reports
        return float(counted[self.slots.window])


class Sum(Aggregate):
    kind = "sum"

    def value(self, state: State, now: Now) -> float:
        return float(state.sums[self.slots.window])


class Mean(Aggregate):
    kind = "mean"

    def value(self, state: State, now: Now) -> float | None:
        count = state.counts[self.slots.window]
        return float(state.sums[self.slots.window]) / float(count) if count else None


class Std(Aggregate):
    """Population standard deviation, from exact integers until the square root."""

    kind = "std"
    totals = frozenset({"squares"})

    def value(self, state: State, now: Now) -> float | None:
        window = self.slots.window
        count = state.counts[window]
        if count < 2:
            return None
        total = state.sums[window]
        return sqrt(exact_double(count * state.square(window) - total * total)) / float(count)


class Distinct(Aggregate):
    kind = "distinct"
    totals = frozenset({"distincts"})

    def value(self, state: State, now: Now) -> float:
        return float(state.distincts[self.slots.distinct])


class SecondsSinceLast(Aggregate):
    kind = "seconds_since_last"

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
