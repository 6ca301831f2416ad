"""The contract compiled once: for each entity, which totals its State keeps and who reads them.

Belongs here: from declared features to plans, and what cannot be computed. Does not belong here: the
arithmetic of a plan (plan.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from fraud_platform.errors import ContractError
from fraud_platform.features.aggregates import AGGREGATES, Aggregate, Slots, aggregate, check_aggregate
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.features.lookback import Span, Wanted
from fraud_platform.features.plan import EntityPlan


def compile_plans(contract: FeatureContract) -> tuple[EntityPlan, ...]:
    """A plan for each entity that a feature reads; raises ContractError for a kind that is unknown or cannot
    compute what is declared. Entities come sorted, so that a contract read from JSON gives the same plans."""
    plans = []
    for number, (name, columns) in enumerate(sorted(contract.entities.items())):
        placed = [
            (place, feature) for place, feature in enumerate(contract.features) if feature.entity == name
        ]
        if placed:
            plans.append(_compile(name, number, columns, placed))
    return tuple(plans)


def _compile(
    name: str, number: int, columns: tuple[str, ...], placed: list[tuple[int, Feature]]
) -> EntityPlan:
    features = [feature for _, feature in placed]
    for feature in features:
        check_aggregate(feature)
    with_totals = [feature for feature in features if AGGREGATES[feature.kind].lookback is None]
    windows = _widths(f for f in with_totals if f.stream == "transactions")
    report_windows = _widths(f for f in with_totals if f.stream == "fraud_reports")
    wanted = _wanted(features)
    distinct_columns = tuple(dict.fromkeys(f.of[0] for f in features if f.kind == "distinct"))
    distincts = tuple(
        dict.fromkeys(
            (distinct_columns.index(f.of[0]), windows.index(f.window_ms or 0))
            for f in features
            if f.kind == "distinct"
        )
    )
    readers = []
    for place_in_vector, feature in placed:
        widths = report_windows if feature.stream == "fraud_reports" else windows
        has_totals = feature in with_totals
        window = widths.index(feature.reach_ms) if feature.window_ms is not None and has_totals else 0
        until = widths.index(feature.offset_ms) if feature.offset_ms and has_totals else None
        distinct = 0
        if feature.kind == "distinct":
            distinct = distincts.index((distinct_columns.index(feature.of[0]), window))
        readers.append((place_in_vector, aggregate(feature, Slots(window, distinct, until))))
    totals = frozenset[str]().union(*(type(reader).totals for _, reader in readers))
    return EntityPlan(
        name=name,
        number=number,
        columns=columns,
        windows=windows,
        report_windows=report_windows,
        square_windows=_square_windows(readers),
        distinct_columns=distinct_columns,
        distincts=distincts,
        has_place="place" in totals,
        has_log=bool(windows) or wanted.has_entries or not totals.isdisjoint({"place", "moments"}),
        wanted=wanted,
        readers=tuple(readers),
    )


def _widths(features: Iterable[Feature]) -> tuple[int, ...]:
    """How far back windows begin, and, for those that end before the event, where they end."""
    windowed = [feature for feature in features if feature.window_ms is not None]
    return tuple(sorted({f.reach_ms for f in windowed} | {f.offset_ms for f in windowed if f.offset_ms}))


def _square_windows(readers: Iterable[tuple[int, Aggregate]]) -> tuple[int, ...]:
    slots = [reader.slots for _, reader in readers if "squares" in type(reader).totals]
    return tuple(sorted({s.window for s in slots} | {s.until for s in slots if s.until is not None}))


def _wanted(features: Iterable[Feature]) -> Wanted:
    """A key's log is read once: ContractError where features of an entity look back at different spans."""
    found: dict[str, Feature] = {}
    for feature in features:
        what = AGGREGATES[feature.kind].lookback
        if what is None:
            continue
        first = found.setdefault(what, feature)
        if (first.last, first.reach_ms, first.offset_ms) != (
            feature.last,
            feature.reach_ms,
            feature.offset_ms,
        ):
            raise ContractError(
                f"feature {feature.name!r}: {feature.kind} looks back at other moments than {first.name!r}; "
                f"all of one entity share last, window and offset"
            )
    spans = {
        what: Span(first.last, first.window_ms or 0, first.offset_ms)
        for what, first in found.items()
        if first.last is not None
    }
    reports = found["reports"].reach_ms if "reports" in found else 0
    return Wanted(spans.get("amounts"), spans.get("outcomes"), reports)
