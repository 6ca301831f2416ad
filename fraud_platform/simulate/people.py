"""Customers: homes, habits, cards, devices, internet addresses and journeys.

Belongs here: who somebody is before the first payment. Does not belong here: payments.
Cards, devices and addresses are integer codes; tokens are given at the very end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.simulate import geography as geo
from fraud_platform.simulate.draws import Floats, Ints, Weighted
from fraud_platform.simulate.merchants import Merchants

CARD_SLOTS = 3
DEVICE_SLOTS = 4
PHONE, NEXT_PHONE, LAPTOP, TABLET = range(DEVICE_SLOTS)
JOURNEYS = 3
_PUBLIC_PER_CITY = 12
_VPN_ADDRESSES = 40
_LEASE_DAYS_MIN = 25

WORKER, RETIRED, NIGHT_OWL, STUDENT = range(4)
RHYTHMS = 4


@dataclass(frozen=True)
class Addresses:
    """Which codes mean which kind of internet address: homes, offices, mobile carriers, public, VPN."""

    leases: int
    office_first: int
    mobile_first: int
    mobile_per_country: int
    public_first: int
    vpn_first: int
    total: int

    @classmethod
    def plan(cls, customers: int, households: int, days: int) -> Addresses:
        leases = days // _LEASE_DAYS_MIN + 3
        office_first = households * leases
        mobile_first = office_first + customers // 20 + 1
        per_country = max(3, customers // 400)
        public_first = mobile_first + per_country * len(geo.COUNTRIES)
        vpn_first = public_first + geo.CITIES * _PUBLIC_PER_CITY
        return cls(
            leases,
            office_first,
            mobile_first,
            per_country,
            public_first,
            vpn_first,
            vpn_first + _VPN_ADDRESSES,
        )

    def mobile(self, rng: np.random.Generator, country: Ints) -> Ints:
        """A carrier's shared address in each country."""
        slot = (self.mobile_per_country * rng.random(country.size) ** 1.5).astype(np.int64)
        return self.mobile_first + country * self.mobile_per_country + slot

    def public(self, rng: np.random.Generator, city: Ints) -> Ints:
        """A hotel, café or library in each city."""
        return self.public_first + city * _PUBLIC_PER_CITY + rng.integers(0, _PUBLIC_PER_CITY, city.size)

    def vpn(self, rng: np.random.Generator, count: int) -> Ints:
        return self.vpn_first + rng.integers(0, _VPN_ADDRESSES, count)


@dataclass(frozen=True)
class People:
    """Arrays (customers,) unless said; codes are integers, places degrees, days indices from the start."""

    household: Ints
    city: Ints
    latitude: Floats
    longitude: Floats
    card_country: Ints
    rhythm: Ints
    activity: Floats
    spending: Floats
    online_share: Floats
    cards: Ints
    has_laptop: np.ndarray
    next_phone_day: Ints
    tablet: Ints
    office: Ints
    lease_days: Ints
    lease_phase: Ints
    journey_from: Ints
    journey_until: Ints
    journey_city: Ints
    shops: Ints
    online_shops: Ints
    cash_points: Ints
    addresses: Addresses
    by_activity: Weighted

    @property
    def count(self) -> int:
        return self.city.size

    @property
    def card_codes(self) -> int:
        """Cards held at the start; a card's replacement is its code plus this number."""
        return self.count * CARD_SLOTS

    @property
    def first_free_device(self) -> int:
        return self.count * DEVICE_SLOTS + geo.CITIES * _PUBLIC_PER_CITY

    def public_device(self, rng: np.random.Generator, city: Ints) -> Ints:
        """A shared computer in each city."""
        slot = rng.integers(0, _PUBLIC_PER_CITY, city.size)
        return self.count * DEVICE_SLOTS + city * _PUBLIC_PER_CITY + slot

    def phone(self, customer: Ints, day: Ints) -> Ints:
        slot = np.where(day < self.next_phone_day[customer], PHONE, NEXT_PHONE)
        return customer * DEVICE_SLOTS + slot

    def home_address(self, customer: Ints, day: Ints) -> Ints:
        """The household's address on that day: providers change it now and then."""
        lease = (day + self.lease_phase[customer]) // self.lease_days[customer]
        return self.household[customer] * self.addresses.leases + lease


def make_people(rng: np.random.Generator, count: int, days: int, merchants: Merchants) -> People:
    """`count` customers in households, for a world of `days` days."""
    household = np.cumsum(np.concatenate(([0], rng.random(count - 1) < 0.55))).astype(np.int64)
    households = int(household[-1]) + 1
    home_city = rng.choice(geo.CITIES, households, p=geo.HOME_WEIGHT / geo.HOME_WEIGHT.sum())
    north, east = rng.normal(0, 0.06, households), rng.normal(0, 0.09, households)
    city = home_city[household]
    country = geo.CITY_COUNTRY[city]
    addresses = Addresses.plan(count, households, days)
    activity = rng.gamma(1.4, 1 / 1.4, count) + 0.03
    lease_days = rng.integers(_LEASE_DAYS_MIN, 160, households)
    first_of_household = np.searchsorted(household, np.arange(households))
    start, length, destination = _journeys(rng, count, days)
    return People(
        household=household,
        city=city,
        latitude=np.round(geo.CITY_LATITUDE[city] + north[household], 4),
        longitude=np.round(geo.CITY_LONGITUDE[city] + east[household], 4),
        card_country=np.where(rng.random(count) < 0.97, country, rng.choice(geo.HOME_COUNTRIES, count)),
        rhythm=rng.choice(RHYTHMS, count, p=[0.5, 0.2, 0.15, 0.15]),
        activity=activity,
        spending=np.exp(rng.normal(0, 0.4, count)),
        online_share=rng.beta(2.0, 3.6, count),
        cards=1 + (rng.random(count) < 0.3) + (rng.random(count) < 0.06),
        has_laptop=rng.random(count) < 0.7,
        next_phone_day=rng.integers(0, 3 * days, count),
        tablet=first_of_household[household] * DEVICE_SLOTS + TABLET,
        office=addresses.office_first + rng.integers(0, count // 20 + 1, count),
        lease_days=lease_days[household],
        lease_phase=rng.integers(0, _LEASE_DAYS_MIN, households)[household],
        journey_from=start,
        journey_until=start + length,
        journey_city=destination,
        shops=_favourites(rng, merchants.pos_in_city, city, 14),
        online_shops=_online_favourites(rng, merchants, country, 8),
        cash_points=_favourites(rng, merchants.atm_in_city, city, 2),
        addresses=addresses,
        by_activity=Weighted.of(np.zeros(count, dtype=np.int64), activity, 1),
    )


def _journeys(rng: np.random.Generator, count: int, days: int) -> tuple[Ints, Ints, Ints]:
    """Start day, length in days and city of up to JOURNEYS journeys each (count, JOURNEYS)."""
    shape = (count, JOURNEYS)
    taken = rng.random(shape) < min(0.9, 0.3 * days / 150)
    length = np.where(taken, 2 + rng.geometric(0.25, shape), 0)
    weight = geo.JOURNEY_WEIGHT / geo.JOURNEY_WEIGHT.sum()
    return rng.integers(0, days, shape), length, rng.choice(geo.CITIES, shape, p=weight)


def _favourites(rng: np.random.Generator, group: Weighted, city: Ints, width: int) -> Ints:
    return group.draw(rng, np.repeat(city, width)).reshape(city.size, width)


def _online_favourites(rng: np.random.Generator, merchants: Merchants, country: Ints, width: int) -> Ints:
    size = country.size * width
    at_home = merchants.online_in_country.draw(rng, np.repeat(country, width))
    anywhere = merchants.of_channel.draw(rng, np.ones(size, dtype=np.int64))
    return np.where(rng.random(size) < 0.55, at_home, anywhere).reshape(country.size, width)
