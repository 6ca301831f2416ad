"""The definition of every feature, by brute force: what all stores and the SQL are held against.

Belongs here: the vector of a transaction from plain lists, and what equal means. Does not belong here: which
events are tried (worlds.py), which store is asked (stores.py). Nothing is imported of the code under test but
the declaration, the vocabulary and the geometry, whose operations parity defines to the bit.
"""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.features.geometry import distance_km, place
from fraud_platform.schema import LabelEvent, Transaction

HOUR, DAY = 3_600_000, 86_400_000
Vector = tuple[float | str | None, ...]


@dataclass(frozen=True)
class Past:
    """Of one entity before a moment: its transactions, and when transactions were first reported."""

    transactions: list[Transaction]
    reports: list[int]
    reported: dict[str, int]


@dataclass
class Oracle:
    """The definition: what has arrived, in lists, and every feature from scratch."""

    contract: FeatureContract
    transactions: list[Transaction] = field(default_factory=list)
    reported: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def observe(self, transaction: Transaction) -> Vector:
        vector = self.vector(transaction)
        self.arrive(transaction)
        return vector

    def arrive(self, transaction: Transaction) -> None:
        self.transactions.append(transaction)
        self.times[transaction.transaction_id] = transaction.event_time

    def learn(self, event: LabelEvent) -> None:
        moment = self.times.get(event.transaction_id)
        if event.outcome == "fraud" and moment is not None and event.known_at >= moment:
            earlier = self.reported.get(event.transaction_id, event.known_at)
            first = min(earlier, event.known_at)
            if first - moment <= self.contract.report_horizon_ms:
                self.reported[event.transaction_id] = first

    def vector(self, now: Transaction) -> Vector:
        """From everything that has arrived and was known strictly before `now`."""
        pasts = {name: self.past(columns, now) for name, columns in self.contract.entities.items()}
        values: dict[str, Any] = {}
        for feature in sorted(self.contract.features, key=lambda f: len(f.inputs)):
            if feature.entity is None:
                values[feature.name] = getattr(self, f"row_{feature.kind}")(feature, now, values)
            else:
                values[feature.name] = self.aggregate(feature, now, pasts[feature.entity])
        return tuple(values[name] for name in self.contract.names)

    def past(self, columns: Sequence[str], now: Transaction) -> Past | None:
        """What one entity of the transaction has seen before it, None where the entity is missing."""
        key = [getattr(now, column) for column in columns]
        if not all(key):
            return None
        same = [t for t in self.transactions if [getattr(t, column) for column in columns] == key]
        moments = [self.reported[t.transaction_id] for t in same if t.transaction_id in self.reported]
        return Past(
            [t for t in same if t.event_time < now.event_time],
            [moment for moment in moments if moment < now.event_time],
            {name: moment for name, moment in self.reported.items() if moment < now.event_time},
        )

    def aggregate(self, feature: Feature, now: Transaction, past: Past | None) -> Any:
        if past is None:
            return None
        upper = now.event_time - feature.offset_ms
        lower = -1 if feature.window_ms is None else upper - feature.window_ms
        inside = [t for t in past.transactions if lower <= t.event_time < upper]
        if feature.last is not None:
            moments = sorted({t.event_time for t in inside})[-feature.last :]
            inside = [t for t in inside if t.event_time in moments]
        if feature.kind == "last_fraud_share":
            return sum(t.transaction_id in past.reported for t in inside) / len(inside) if inside else None
        if feature.kind == "last_fraud_mean":
            amounts = [t.amount_minor for t in inside if t.transaction_id in past.reported]
            return float(sum(amounts)) / float(len(amounts)) if amounts else None
        if feature.kind.startswith("seconds_since_") and feature.last is not None:
            good = [t.event_time for t in inside if t.transaction_id not in past.reported]
            frauds = [t.event_time for t in inside if t.event_time > max(good, default=-1)]
            moment = max(good, default=None) if feature.kind.endswith("good") else min(frauds, default=None)
            return None if moment is None else float(now.event_time - moment) / 1000.0
        if feature.stream == "fraud_reports":
            known = [moment for moment in past.reports if lower <= moment < upper]
            return getattr(self, f"reports_{feature.kind}")(now, known)
        return getattr(self, f"past_{feature.kind}")(feature, now, inside)

    def reports_count(self, now: Transaction, reports: list[int]) -> float:
        return float(len(reports))

    def reports_seconds_since_report(self, now: Transaction, reports: list[int]) -> float | None:
        return float(now.event_time - max(reports)) / 1000.0 if reports else None

    def reports_seconds_since_first_report(self, now: Transaction, reports: list[int]) -> float | None:
        return float(now.event_time - min(reports)) / 1000.0 if reports else None

    def past_last_max(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float | None:
        return float(max(t.amount_minor for t in past)) if past else None

    def past_last_median(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float | None:
        return float(statistics.median(float(t.amount_minor) for t in past)) if past else None

    def past_count(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float:
        return float(len(past))

    def past_sum(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float:
        return float(sum(t.amount_minor for t in past))

    def past_mean(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float | None:
        return float(sum(t.amount_minor for t in past)) / float(len(past)) if past else None

    def past_std(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float | None:
        amounts = [t.amount_minor for t in past]
        if len(amounts) < 2:
            return None
        return math.sqrt(float(len(amounts) * sum(a * a for a in amounts) - sum(amounts) ** 2)) / len(amounts)

    def past_distinct(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float:
        return float(len({getattr(t, feature.of[0]) or None for t in past} - {None}))

    def past_seconds_since_last(self, feature: Feature, now: Transaction, past: list[Transaction]) -> Any:
        return float(now.event_time - max(t.event_time for t in past)) / 1000.0 if past else None

    def past_age_seconds(self, feature: Feature, now: Transaction, past: list[Transaction]) -> Any:
        return float(now.event_time - min(t.event_time for t in past)) / 1000.0 if past else None

    def past_is_new(self, feature: Feature, now: Transaction, past: list[Transaction]) -> float:
        return 0.0 if past else 1.0

    def last_place(self, now: Transaction, past: list[Transaction]) -> tuple[int, float, float] | None:
        places = [
            (t.event_time, t.latitude, t.longitude) for t in past if None not in (t.latitude, t.longitude)
        ]
        return max(places, default=None) if None not in (now.latitude, now.longitude) else None  # type: ignore[arg-type]

    def past_distance_km(self, feature: Feature, now: Transaction, past: list[Transaction]) -> Any:
        last = self.last_place(now, past)
        return last and distance_km(place(*last[1:]), place(now.latitude, now.longitude))  # type: ignore[arg-type]

    def past_speed_kmh(self, feature: Feature, now: Transaction, past: list[Transaction]) -> Any:
        last = self.last_place(now, past)
        hours = last and float(now.event_time - last[0]) / 3600000.0
        return last and self.past_distance_km(feature, now, past) / hours

    def column(self, now: Transaction, name: str) -> Any:
        found = now.extras.get(name[6:]) if name.startswith("extra_") else getattr(now, name)
        return None if found == "" else found

    def row_field(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> Any:
        found = self.column(now, feature.of[0])
        return None if found is None else float(found)

    def row_category(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> Any:
        return self.column(now, feature.of[0])

    def row_ratio(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> Any:
        upper, lower = (values[name] for name in feature.inputs)
        return None if upper is None or not lower else upper / lower

    def row_zscore(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> Any:
        x, mean, spread = (values[name] for name in feature.inputs)
        return None if mean is None or not spread else (x - mean) / spread

    def row_home_distance_km(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> Any:
        places = (now.home_latitude, now.home_longitude, now.latitude, now.longitude)
        return None if None in places else distance_km(place(*places[:2]), place(*places[2:]))  # type: ignore[arg-type]

    def row_hour_of_day(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> float:
        return float(now.event_time % DAY // HOUR)

    def row_day_of_week(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> float:
        return float((now.event_time // DAY - 4) % 7)

    def row_is_weekend(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> float:
        return float((now.event_time // DAY - 4) % 7 in (5, 6))

    def row_is_night(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> float:
        return float(now.event_time % DAY < 6 * HOUR)

    def row_roundness(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> float:
        digits = str(now.amount_minor)
        return float(min(6, len(digits) - len(digits.rstrip("0")))) if now.amount_minor else 6.0

    def row_is_different(self, feature: Feature, now: Transaction, values: dict[str, Any]) -> Any:
        left, right = (self.column(now, name) for name in feature.of)
        return None if None in (left, right) else float(left != right)


def bits(vector: Vector) -> list[bytes | str | None]:
    return [struct.pack("<d", value) if isinstance(value, float) else value for value in vector]


def require_equal(contract: FeatureContract, served: Vector, wanted: Vector) -> None:
    """Every value of two vectors, as bits: -0.0 is not 0.0, and None equals only None."""
    different = {
        name: (a, b)
        for name, a, b, x, y in zip(contract.names, served, wanted, bits(served), bits(wanted), strict=True)
        if x != y
    }
    assert not different
