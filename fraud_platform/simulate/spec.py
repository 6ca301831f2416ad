"""What world to play: one frozen value, checked when it is made.

Belongs here: sizes, dates and shares of a world. Does not belong here: anything drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from fraud_platform.errors import SettingsError
from fraud_platform.schema import MILLISECONDS_PER_DAY

WORLD_VERSION = 1
"""Raised whenever the same spec would play another world."""

TRANSACTIONS_PER_CUSTOMER_AND_DAY = 0.55


@dataclass(frozen=True)
class WorldSpec:
    """A world of `days` delivered days and one live day after them.

    seed: same seed, same world. start: the first day (UTC). customers: how many people.
    transactions_per_day: about how many rows a day. tactics_change: the day index from which new
    campaigns use the second set of tactics. fraud_share: about which share of rows is fraud.
    Raises SettingsError when a value cannot make a world.
    """

    seed: int = 7
    start: date = date(2025, 1, 1)
    days: int = 150
    customers: int = 3_000
    transactions_per_day: int = 1_655
    tactics_change: int = 110
    fraud_share: float = 0.0045

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(30 <= self.days <= 3_650, "days", self.days, "30 to 3650")
        _require(100 <= self.customers <= 10_000_000, "customers", self.customers, "100 to 10 million")
        _require(self.transactions_per_day >= 20, "transactions_per_day", self.transactions_per_day, ">= 20")
        _require(
            0 < self.tactics_change < self.days, "tactics_change", self.tactics_change, "within the days"
        )
        _require(0 < self.fraud_share <= 0.02, "fraud_share", self.fraud_share, "above 0, at most 0.02")

    @classmethod
    def demo(cls) -> WorldSpec:
        """About 350,000 transactions over 210 days, and a live day; what is mature knows the new tactics."""
        return cls(days=210, tactics_change=165)

    @classmethod
    def sized(cls, transactions: int, seed: int = 7) -> WorldSpec:
        """About `transactions` rows over 150 days and the live day, with customers to match."""
        per_day = max(20, round(transactions / 151))
        customers = max(100, round(per_day / TRANSACTIONS_PER_CUSTOMER_AND_DAY))
        return cls(seed=seed, customers=customers, transactions_per_day=per_day)

    @property
    def total_days(self) -> int:
        """The delivered days and the live day."""
        return self.days + 1

    @property
    def start_ms(self) -> int:
        return int(datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC).timestamp()) * 1000

    @property
    def live_from_ms(self) -> int:
        """The live day's first millisecond: nothing known from here on is delivered."""
        return self.start_ms + self.days * MILLISECONDS_PER_DAY

    @property
    def span_ms(self) -> int:
        return self.total_days * MILLISECONDS_PER_DAY

    @property
    def change_ms(self) -> int:
        """When the tactics change, ms since the world's start."""
        return self.tactics_change * MILLISECONDS_PER_DAY

    @property
    def transactions(self) -> int:
        """About how many rows, the live day included."""
        return self.transactions_per_day * self.total_days

    @property
    def merchants(self) -> int:
        """About how many merchants."""
        return max(400, self.customers // 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the version of the world."""
        return {"world_version": WORLD_VERSION, **asdict(self), "start": self.start.isoformat()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> WorldSpec | None:
        """Back from `to_dict`; None where it was another version of the world."""
        values = dict(content)
        if values.pop("world_version", None) != WORLD_VERSION:
            return None
        return cls(**{**values, "start": date.fromisoformat(values["start"])})


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise SettingsError(f"world's {name}={value!r}: must be {rule}")
