"""One class a kind of aggregate: the online twin of the macro aggregate_<kind>.

A class says which totals a window must keep (`totals`), what of the log it wants to see (`lookback`), and how
a State and a Lookback become the feature's value: as text, like its twin, so that all features of an entity
are compiled into one function (text.py). A new kind is one class here and one macro;
tests/contract/test_features.py discovers both and demands their parity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import ClassVar, NamedTuple

from fraud_platform.errors import ContractError
from fraud_platform.features.contract import STREAMS, Feature, unknown
from fraud_platform.features.geometry import Place, distance_km, place
from fraud_platform.features.state import NEVER, KnownPlace, exact_double
from fraud_platform.features.text import filling
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

    @property
    def value(self) -> str:
        """A Python expression of a float or None. It may name `state`, its lists `counts`, `sums`, `reports`
        and `distincts`, `now` (ms), `here` (a Place or None), `back` (a Lookback), and what this module
        knows."""
        raise NotImplementedError(self.kind)

    def within(self, total: str) -> str:
        """Of a total by window, `{}` in the text or a list's name: what lies in the feature's own."""
        by_window = total if "{}" in total else total + "[{}]"
        whole = by_window.format(self.slots.window)
        return whole if self.slots.until is None else f"({whole} - {by_window.format(self.slots.until)})"


class Count(Aggregate):
    kind = "count"
    is_windowed = True
    streams = STREAMS
    has_offset = True

    @property
    def value(self) -> str:
        return f"float({self.within('reports' if self.feature.stream == 'fraud_reports' else 'counts')})"


class Sum(Aggregate):
    kind = "sum"
    is_windowed = True
    of = ("amount_minor",)
    has_offset = True

    @property
    def value(self) -> str:
        return f"float({self.within('sums')})"


class Mean(Aggregate):
    kind = "mean"
    is_windowed = True
    of = ("amount_minor",)
    has_offset = True

    @property
    def value(self) -> str:
        total, count = self.within("sums"), self.within("counts")
        return f"float({total}) / float({count}) if {count} else None"


class Std(Aggregate):
    """Population standard deviation, from exact integers until the square root."""

    kind = "std"
    totals = frozenset({"squares"})
    is_windowed = True
    of = ("amount_minor",)
    has_offset = True

    @property
    def value(self) -> str:
        return f"spread({self.within('counts')}, {self.within('sums')}, {self.within('state.square({})')})"


class Distinct(Aggregate):
    kind = "distinct"
    totals = frozenset({"distincts"})
    is_windowed = True
    of = None

    @property
    def value(self) -> str:
        return f"float(distincts[{self.slots.distinct}])"


class SecondsSinceLast(Aggregate):
    kind = "seconds_since_last"
    totals = frozenset({"moments"})
    value = "seconds_since(state.last_before(now), now)"


class AgeSeconds(Aggregate):
    kind = "age_seconds"
    value = "seconds_since(state.first, now) if state.first < now else None"


class IsNew(Aggregate):
    kind = "is_new"
    value = "0.0 if NEVER < state.first < now else 1.0"


class DistanceKm(Aggregate):
    kind = "distance_km"
    totals = frozenset({"place"})
    value = "distance_from(state.place_at_last(now), here)"


class SpeedKmh(Aggregate):
    kind = "speed_kmh"
    totals = frozenset({"place"})
    value = "speed_from(state.place_at_last(now), here, now)"


class SecondsSinceReport(Aggregate):
    """Since the window's newest report, None where it holds none."""

    kind = "seconds_since_report"
    is_windowed = True
    streams = ("fraud_reports",)
    lookback = "reports"
    value = "seconds_since(back.newest_report, now)"


class SecondsSinceFirstReport(Aggregate):
    """Since the window's oldest report, None where it holds none."""

    kind = "seconds_since_first_report"
    is_windowed = True
    streams = ("fraud_reports",)
    lookback = "reports"
    value = "seconds_since(back.oldest_report, now)"


class LastMax(Aggregate):
    """The largest amount of the window's last few moments."""

    kind = "last_max"
    is_windowed = True
    of = ("amount_minor",)
    lookback = "amounts"
    value = "float(max(back.amounts)) if back.amounts else None"


class LastMedian(Aggregate):
    """The middle amount of the window's last few moments, the mean of two where their number is even."""

    kind = "last_median"
    is_windowed = True
    of = ("amount_minor",)
    lookback = "amounts"
    value = "middle(back.amounts)"


class LastFraudShare(Aggregate):
    """Of the transactions of the window's last few moments, the share that is known as fraud by now."""

    kind = "last_fraud_share"
    is_windowed = True
    streams = ("fraud_reports",)
    has_offset = True
    lookback = "outcomes"
    value = "float(len(back.outcomes.frauds)) / float(back.outcomes.number) if back.outcomes.number else None"


class LastFraudMean(Aggregate):
    """The mean amount of those of the window's last few moments that are known as fraud by now."""

    kind = "last_fraud_mean"
    is_windowed = True
    streams = ("fraud_reports",)
    of = ("amount_minor",)
    has_offset = True
    lookback = "outcomes"
    value = "mean(back.outcomes.frauds)"


class SecondsSinceGood(Aggregate):
    """Since the latest of the window's last few moments with a transaction not known as fraud by now."""

    kind = "seconds_since_good"
    is_windowed = True
    streams = ("fraud_reports",)
    has_offset = True
    lookback = "outcomes"
    value = "seconds_since(back.outcomes.good, now)"


class SecondsSinceFraudOnly(Aggregate):
    """Since the oldest of the window's last few moments after which all are known as fraud by now, itself
    included; None where the latest is not."""

    kind = "seconds_since_fraud_only"
    is_windowed = True
    streams = ("fraud_reports",)
    has_offset = True
    lookback = "outcomes"
    value = "seconds_since(back.outcomes.fraud_only, now)"


def spread(count: int, total: int, squares: int) -> float | None:
    """The population standard deviation of amounts, by their exact sums; None of fewer than two."""
    return sqrt(exact_double(count * squares - total * total)) / float(count) if count > 1 else None


def seconds_since(moment: int, now: int) -> float | None:
    return None if moment == NEVER else float(now - moment) / 1000.0


def distance_from(last: KnownPlace | None, here: Place | None) -> float | None:
    return None if last is None or here is None else distance_km(place(last[1], last[2]), here)


def speed_from(last: KnownPlace | None, here: Place | None, now: int) -> float | None:
    distance = distance_from(last, here)
    return None if last is None or distance is None else distance / (float(now - last[0]) / 3600000.0)


def mean(amounts: Sequence[int]) -> float | None:
    return float(sum(amounts)) / float(len(amounts)) if amounts else None


def middle(amounts: Sequence[int]) -> float | None:
    """The median of amounts in any order."""
    ordered = sorted(amounts)
    number = len(ordered)
    if not number:
        return None
    return (float(ordered[(number - 1) // 2]) + float(ordered[number // 2])) / 2.0


def compile_aggregates(readers: Sequence[tuple[int, Aggregate]]) -> Callable[..., None]:
    """One function of a State, the moment (ms), the Place, a Lookback and the vector that it fills."""
    lists = [f"{name} = state.{name}" for name in ("counts", "sums", "reports", "distincts")]
    expressions = [(place_in_vector, reader.value) for place_in_vector, reader in readers]
    return filling(expressions, "state, now, here, back, vector", globals(), lists)


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
