"""Payments made up for the online store alone: every entity present, keys as skewed as people and shops are.

Belongs here: events in memory, the same for the same numbers. Does not belong here: a world with fraud in it
(fraud_platform/simulate plays one), timing anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fraud_platform.schema import MILLISECONDS_PER_DAY, LabelEvent, Transaction

START = 1_735_689_600_000
"""2025-01-01 UTC, ms."""
DAYS = 75
REPORT_EVERY = 200
CARD_LIFE_DAYS = 60
_COUNTRIES = ("DE", "FR", "NL", "US", "GB", "ES")
_CHANNELS = ("ecommerce", "pos", "atm")
_CATEGORIES = ("grocery", "fuel", "travel", "electronics", "fashion", "gaming")

Event = Transaction | LabelEvent


class Keys(NamedTuple):
    card_id: str
    customer_id: str
    device_id: str
    ip_id: str
    merchant_id: str


@dataclass(frozen=True)
class Payments:
    """`events` transactions, evenly over `days` days from START, and a fraud report after every 200th.

    A customer pays every few days. Merchants and shared addresses are skewed as 1/rank: the largest merchant
    takes some per cent of all events. Cards are replaced after 60 days, and some events come from a device or
    an address that nobody has seen, so that keys never stop growing in number. Nothing arrives late.
    """

    events: int
    days: int = DAYS
    seed: int = 7

    @property
    def step_ms(self) -> float:
        return self.days * MILLISECONDS_PER_DAY / self.events

    def day(self, number: int) -> float:
        """When event `number` happens, in days since START."""
        return number / self.events * self.days

    def blocks(self, size: int) -> Iterator[list[Event]]:
        for start in range(0, self.events, size):
            yield self.block(start, min(start + size, self.events))

    def block(self, start: int, stop: int) -> list[Event]:
        """Events `start` to `stop`, in order, with the reports among them."""
        rng = np.random.default_rng((self.seed, start))
        moments = self._moments(rng, start, stop)
        block: list[Event] = []
        for number, moment, keys, values in zip(
            range(start, stop), moments, self._keys(rng, start, stop), _values(rng, stop - start), strict=True
        ):
            block.append(transaction(number, moment, keys, values))
            if number % REPORT_EVERY == REPORT_EVERY - 1:
                block.append(self._report(rng, number, moment))
        return block

    @cached_property
    def _cards(self) -> int:
        return max(self.events * CARD_LIFE_DAYS // (self.days * 30), 50)

    def _moments(self, rng: np.random.Generator, start: int, stop: int) -> list[int]:
        jittered = np.arange(start, stop) + rng.random(stop - start)
        return (START + (jittered * self.step_ms).astype(np.int64)).tolist()

    def _keys(self, rng: np.random.Generator, start: int, stop: int) -> Iterator[Keys]:
        count = stop - start
        cards = (rng.random(count) ** 2 * self._cards).astype(int)
        days = (np.arange(start, stop) / self.events * self.days).astype(int)
        lives = (days + cards) // CARD_LIFE_DAYS
        merchants = ranks(rng, count, max(self.events // 100, 50))
        shared = ranks(rng, count, max(self.events // 200, 50))
        draws = rng.random((count, 3))
        columns = zip(
            cards.tolist(), lives.tolist(), merchants.tolist(), shared.tolist(), draws.tolist(), strict=True
        )
        for number, (card, life, merchant, address, (device, ip, stranger)) in enumerate(columns, start):
            customer = card * 3 // 4
            own = f"d{customer}-{device < 0.2:d}"
            yield Keys(
                f"c{card}-{life}",
                f"u{customer}",
                f"d-new{number}" if stranger < 0.01 else own,
                f"i-new{number}" if stranger > 0.97 else f"i{customer}" if ip < 0.7 else f"i-shared{address}",
                f"m{merchant}",
            )

    def _report(self, rng: np.random.Generator, number: int, moment: int) -> LabelEvent:
        """Some transaction of the last 20 days becomes known as fraud."""
        reach = min(int(20 * MILLISECONDS_PER_DAY / self.step_ms), number)
        about = number - int(rng.integers(0, reach + 1))
        return LabelEvent(
            transaction_id=f"t{about}", source="chargeback", outcome="fraud", known_at=moment + 1
        )


def ranks(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    """Ranks 0 to `most` - 1, each as frequent as 1 / (rank + 1), nearly."""
    return np.floor((most + 1) ** rng.random(count)).astype(int) - 1


def transaction(number: int, moment: int, keys: Keys, values: tuple[int, float, float, int]) -> Transaction:
    amount_minor, latitude, longitude, choice = values
    return Transaction(
        transaction_id=f"t{number}",
        event_time=moment,
        amount_minor=amount_minor,
        currency="EUR",
        channel=_CHANNELS[choice % len(_CHANNELS)],
        category=_CATEGORIES[choice % len(_CATEGORIES)],
        card_country=_COUNTRIES[0],
        merchant_country=_COUNTRIES[choice % len(_COUNTRIES)],
        latitude=latitude,
        longitude=longitude,
        home_latitude=48.1,
        home_longitude=11.6,
        card_id=keys.card_id,
        customer_id=keys.customer_id,
        device_id=keys.device_id,
        ip_id=keys.ip_id,
        merchant_id=keys.merchant_id,
    )


def _values(rng: np.random.Generator, count: int) -> Iterator[tuple[int, float, float, int]]:
    """Amount (minor units), place (degrees) and a number that decides categories."""
    amounts = np.exp(rng.normal(8.0, 1.2, count)).astype(int) + 1
    places = rng.uniform((45.0, 5.0), (54.0, 15.0), (count, 2))
    return zip(
        amounts.tolist(),
        places[:, 0].tolist(),
        places[:, 1].tolist(),
        rng.integers(0, 60, count).tolist(),
        strict=True,
    )
