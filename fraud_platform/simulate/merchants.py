"""Merchants: a category, a place, a price level and a skewed popularity.

Belongs here: what a merchant is and what it honestly charges. Does not belong here: who buys there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.simulate import geography as geo
from fraud_platform.simulate.draws import Bools, Floats, Ints, Weighted, lognormal

CHANNELS: tuple[str, ...] = ("pos", "ecommerce", "atm", "recurring")
POS, ONLINE, ATM, RECURRING = range(4)


@dataclass(frozen=True)
class Category:
    """median: usual amount in major units; spread: of its logarithm; whole: share of round amounts."""

    name: str
    channel: int
    median: float
    spread: float
    weight: float
    whole: float = 0.05


CATEGORIES: tuple[Category, ...] = (
    Category("grocery", POS, 28, 0.65, 10.0),
    Category("restaurant", POS, 24, 0.6, 7.0, 0.2),
    Category("transport", POS, 4, 0.7, 4.0, 0.1),
    Category("fuel", POS, 48, 0.35, 3.0, 0.3),
    Category("pharmacy", POS, 17, 0.6, 2.5),
    Category("clothing", POS, 55, 0.7, 2.5),
    Category("home", POS, 60, 0.8, 1.5),
    Category("leisure", POS, 30, 0.6, 1.5, 0.3),
    Category("electronics", POS, 140, 0.9, 1.0),
    Category("hotel", POS, 160, 0.6, 0.4, 0.2),
    Category("jewellery", POS, 220, 0.8, 0.15, 0.3),
    Category("cash", ATM, 80, 0.6, 2.0, 1.0),
    Category("marketplace", ONLINE, 34, 0.85, 6.0),
    Category("digital_goods", ONLINE, 8, 0.8, 4.0),
    Category("food_delivery", ONLINE, 26, 0.4, 3.0),
    Category("gaming", ONLINE, 13, 0.9, 2.5, 0.2),
    Category("clothing", ONLINE, 58, 0.7, 2.0),
    Category("electronics", ONLINE, 150, 0.9, 1.5),
    Category("travel", ONLINE, 210, 0.8, 1.0),
    Category("gift_cards", ONLINE, 50, 0.5, 0.4, 0.9),
    Category("subscription", RECURRING, 11, 0.5, 3.0),
    Category("telecom", RECURRING, 32, 0.4, 2.0),
    Category("insurance", RECURRING, 48, 0.6, 1.0),
)
CATEGORY_NAMES = np.array([category.name for category in CATEGORIES])
_CHANNEL = np.array([category.channel for category in CATEGORIES])
_MEDIAN = np.array([category.median for category in CATEGORIES])
_SPREAD = np.array([category.spread for category in CATEGORIES])
_WEIGHT = np.array([category.weight for category in CATEGORIES])
_WHOLE = np.array([category.whole for category in CATEGORIES])

_CHANNEL_SHARE = (0.6, 0.25, 0.12, 0.03)
_ZIPF_EXPONENT = 0.95


@dataclass(frozen=True)
class Merchants:
    """Arrays (merchants,): codes of category, channel and city, place in degrees, usual amount, popularity.

    has_second_clock: the terminal reports whole seconds, so that ties are part of the world.
    """

    category: Ints
    channel: Ints
    city: Ints
    latitude: Floats
    longitude: Floats
    median: Floats
    popularity: Floats
    has_second_clock: Bools
    pos_in_city: Weighted
    atm_in_city: Weighted
    online_in_country: Weighted
    online_in_category: Weighted
    of_channel: Weighted

    def honest_amounts(self, rng: np.random.Generator, merchant: Ints, factor: Floats) -> Ints:
        """What honest customers pay there, in minor units; `factor` is the customer's level (n,)."""
        category = self.category[merchant]
        amount = lognormal(rng, self.median[merchant] * factor, _SPREAD[category], merchant.size)
        amount *= np.where(rng.random(merchant.size) < 0.01, rng.uniform(2, 7, merchant.size), 1.0)
        return priced(rng, amount, category)


def priced(rng: np.random.Generator, amount: Floats, category: Ints) -> Ints:
    """Amounts as tills and price tags make them, in minor units: round, ending in .99, or neither."""
    minor = np.maximum(np.round(amount * 100), 50).astype(np.int64)
    ending = rng.random(amount.size)
    whole = (ending < _WHOLE[category]) & (minor > 300)
    tagged = ~whole & (ending > 0.75) & (minor > 300)
    minor = np.where(whole, np.round(minor / 500).clip(1) * 500, minor)
    minor = np.where(tagged, np.round(minor / 100) * 100 - 1, minor).astype(np.int64)
    cash = _CHANNEL[category] == ATM
    return np.where(cash, (minor // 2000).clip(1, 50) * 2000, minor)


def category_codes(names: tuple[str, ...], channel: int) -> Ints:
    """Codes of the named categories that are sold through `channel`."""
    return np.flatnonzero((channel == _CHANNEL) & np.isin(CATEGORY_NAMES, names))


def make_merchants(rng: np.random.Generator, count: int) -> Merchants:
    """About `count` merchants, at least one of each channel in each city."""
    parts = [_of_channel(rng, channel, count) for channel in range(len(CHANNELS))]
    category, city, popularity = (np.concatenate(column) for column in zip(*parts, strict=True))
    size = category.size
    channel = _CHANNEL[category]
    return Merchants(
        category=category,
        channel=channel,
        city=city,
        latitude=np.round(geo.CITY_LATITUDE[city] + rng.normal(0, 0.05, size), 4),
        longitude=np.round(geo.CITY_LONGITUDE[city] + rng.normal(0, 0.07, size), 4),
        median=lognormal(rng, _MEDIAN[category], 0.35, size),
        popularity=popularity,
        has_second_clock=rng.random(size) < 0.25,
        pos_in_city=_weighted(channel == POS, city, popularity, geo.CITIES),
        atm_in_city=_weighted(channel == ATM, city, popularity, geo.CITIES),
        online_in_country=_weighted(
            channel == ONLINE, geo.CITY_COUNTRY[city], popularity, len(geo.COUNTRIES)
        ),
        online_in_category=_weighted(channel == ONLINE, category, popularity, len(CATEGORIES)),
        of_channel=Weighted.of(channel, popularity, len(CHANNELS)),
    )


def _of_channel(rng: np.random.Generator, channel: int, count: int) -> tuple[Ints, Ints, Floats]:
    size = max(geo.CITIES, round(count * _CHANNEL_SHARE[channel]))
    kinds = np.flatnonzero(channel == _CHANNEL)
    share = np.sqrt(_WEIGHT[kinds])
    category = np.concatenate((kinds, rng.choice(kinds, size - kinds.size, p=share / share.sum())))
    city_weight = geo.HOME_WEIGHT + 0.3 * geo.JOURNEY_WEIGHT
    cities = rng.choice(geo.CITIES, size - geo.CITIES, p=city_weight / city_weight.sum())
    city = rng.permutation(np.concatenate((np.arange(geo.CITIES), cities)))
    rank = rng.permutation(size) + 1.0
    return category, city, rank**-_ZIPF_EXPONENT * np.sqrt(_WEIGHT[category])


def _weighted(mask: Bools, group: Ints, weight: Floats, groups: int) -> Weighted:
    member = np.flatnonzero(mask)
    return Weighted.of(group[member], weight[member], groups, member)
