"""The deeds: what one campaign of each kind does to whom.

Belongs here: drawing one campaign's rows. Does not belong here: how many campaigns there are, or reports.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.simulate import geography as geo
from fraud_platform.simulate.draws import Bools, Fresh, Ints, lognormal, running_within
from fraud_platform.simulate.merchants import ONLINE, POS, Merchants, category_codes, priced
from fraud_platform.simulate.people import CARD_SLOTS, People
from fraud_platform.simulate.rows import NOBODY, Rows, joined
from fraud_platform.simulate.spec import WorldSpec
from fraud_platform.simulate.spending import MILLISECONDS_PER_HOUR, MILLISECONDS_PER_MINUTE
from fraud_platform.simulate.tactics import STOLEN_CARD, TACTICS, Tactic

_CANDIDATES = 4
_HIDDEN_DEVICE = 0.12
_TESTED_CARDS_USED = 0.25


@dataclass(frozen=True)
class Index:
    """Honest rows by one key and time, so that a window of one key is a slice."""

    row: Ints
    key: Ints
    time_ms: Ints

    @classmethod
    def of(cls, key: Ints, time_ms: Ints, row: Ints) -> Index:
        order = np.lexsort((time_ms, key))
        return cls(row[order], key[order], time_ms[order])

    def between(self, key: int, start_ms: int, end_ms: int) -> Ints:
        """Rows of `key` from start_ms on, before end_ms."""
        low, high = np.searchsorted(self.key, [key, key + 1])
        first, last = np.searchsorted(self.time_ms[low:high], [start_ms, end_ms])
        return self.row[low + first : low + last]


@dataclass(frozen=True)
class Scene:
    """The honest world that campaigns act in; `devices` and `ips` hand out unused codes."""

    spec: WorldSpec
    people: People
    merchants: Merchants
    honest: Rows
    by_merchant: Index
    online_by_customer: Index
    online_by_time: Index
    devices: Fresh
    ips: Fresh


@dataclass(frozen=True)
class Victims:
    """Columns (cards,): whose card, which one, and when its misuse begins."""

    customer: Ints
    card: Ints
    start_ms: Ints


def card_testing(scene: Scene, rng: np.random.Generator, start_ms: int, era: int, tactic: Tactic) -> Rows:
    """Many cards tried for small amounts from few devices; some that work are used soon after."""
    count = _between(rng, tactic.cards)
    begin = int(_clock(scene, rng, np.array([start_ms]), _strangers(scene, rng, 1), tactic)[0])
    pauses = rng.exponential(tactic.gap_minutes * MILLISECONDS_PER_MINUTE, count)
    customer = _strangers(scene, rng, count)
    victims = Victims(customer, _cards(scene, rng, customer), begin + np.cumsum(pauses).astype(np.int64))
    tests = _spree(scene, rng, victims, tactic)
    used = np.flatnonzero(rng.random(count) < _TESTED_CARDS_USED)
    later = victims.start_ms[used] + rng.integers(2, 96, used.size) * MILLISECONDS_PER_HOUR
    sold = Victims(customer[used], victims.card[used], later)
    return joined([tests, _spree(scene, rng, sold, TACTICS[STOLEN_CARD][era])])


def stolen_cards(scene: Scene, rng: np.random.Generator, start_ms: int, era: int, tactic: Tactic) -> Rows:
    """Cards of strangers used hastily: a spree, an account taken over, or one thief's handful of either."""
    customer = _strangers(scene, rng, _between(rng, tactic.cards))
    start = start_ms + rng.integers(0, 2 * MILLISECONDS_PER_DAY, customer.size)
    victims = Victims(customer, _cards(scene, rng, customer), _clock(scene, rng, start, customer, tactic))
    return _spree(scene, rng, victims, tactic)


def compromised_merchant(
    scene: Scene, rng: np.random.Generator, start_ms: int, era: int, tactic: Tactic
) -> Rows:
    """Cards that visited one merchant in some days are used elsewhere, days to weeks later."""
    leak_ms = start_ms - int(rng.integers(3, 25)) * MILLISECONDS_PER_DAY
    merchant = int(scene.honest.merchant[rng.integers(0, len(scene.honest))])
    visits = scene.by_merchant.between(merchant, leak_ms - 6 * MILLISECONDS_PER_DAY, leak_ms)
    cards, first = np.unique(scene.honest.card[visits], return_index=True)
    chosen = rng.permutation(cards.size)[: _between(rng, tactic.cards)]
    customer = scene.honest.customer[visits[first[chosen]]]
    start = start_ms + rng.integers(0, 9 * MILLISECONDS_PER_DAY, chosen.size)
    victims = Victims(customer, cards[chosen], _clock(scene, rng, start, customer, tactic))
    return _spree(scene, rng, victims, tactic)


def ring(scene: Scene, rng: np.random.Generator, start_ms: int, era: int, tactic: Tactic) -> Rows:
    """A few accounts buy for weeks from devices that they share."""
    customer = _strangers(scene, rng, _between(rng, tactic.cards))
    start = start_ms + rng.integers(0, 7 * MILLISECONDS_PER_DAY, customer.size)
    victims = Victims(customer, customer * CARD_SLOTS, _clock(scene, rng, start, customer, tactic))
    return _spree(scene, rng, victims, tactic)


def friendly_rows(scene: Scene, rng: np.random.Generator, start_ms: int, tactic: Tactic) -> Ints:
    """Honest rows that their own buyer will deny: indices into the scene's honest rows."""
    first = scene.online_by_time.between(0, start_ms, start_ms + 5 * MILLISECONDS_PER_DAY)
    first = first[scene.honest.amount_minor[first] >= tactic.amount * 100]
    if first.size == 0:
        return first
    buyer = int(scene.honest.customer[rng.choice(first)])
    bought = scene.online_by_customer.between(buyer, start_ms, start_ms + 30 * MILLISECONDS_PER_DAY)
    bought = bought[scene.honest.amount_minor[bought] >= tactic.amount * 50]
    return bought[: _between(rng, tactic.size)]


def _between(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _strangers(scene: Scene, rng: np.random.Generator, count: int) -> Ints:
    """Who pays often is robbed more often."""
    return scene.people.by_activity.draw(rng, np.zeros(count, dtype=np.int64))


def _cards(scene: Scene, rng: np.random.Generator, customer: Ints) -> Ints:
    slot = (scene.people.cards[customer] * rng.random(customer.size) ** 1.5).astype(np.int64)
    return customer * CARD_SLOTS + slot


def _clock(scene: Scene, rng: np.random.Generator, start_ms: Ints, customer: Ints, tactic: Tactic) -> Ints:
    """The same days, at the local hours that the tactic prefers."""
    hour = rng.uniform(*tactic.hours, start_ms.size)
    hour -= geo.CITY_UTC_OFFSET_HOURS[scene.people.city[customer]]
    day_ms = start_ms // MILLISECONDS_PER_DAY * MILLISECONDS_PER_DAY
    return np.maximum(day_ms + (hour * MILLISECONDS_PER_HOUR).astype(np.int64), 0)


def _spree(scene: Scene, rng: np.random.Generator, victims: Victims, tactic: Tactic) -> Rows:
    """Each victim's card is used some times in a row."""
    cards = victims.card.size
    size = rng.integers(tactic.size[0], tactic.size[1] + 1, cards)
    of = np.repeat(np.arange(cards), size)
    pause = rng.exponential(tactic.gap_minutes * MILLISECONDS_PER_MINUTE, of.size) + 1_500
    time_ms = victims.start_ms[of] + running_within(pause, of, size).astype(np.int64)
    online = rng.random(of.size) < tactic.online
    merchant = _targets(scene, rng, victims, tactic, of, online)
    device, ip = _gear(scene, rng, victims, tactic)
    shows_device = online & (rng.random(of.size) > _HIDDEN_DEVICE)
    return Rows(
        time_ms=time_ms,
        customer=victims.customer[of],
        card=victims.card[of],
        device=np.where(shows_device, device[of], NOBODY),
        ip=np.where(online, ip[of], NOBODY),
        merchant=merchant,
        amount_minor=_amounts(scene, rng, tactic, merchant),
        campaign=np.full(of.size, NOBODY, dtype=np.int64),
    )


def _targets(
    scene: Scene, rng: np.random.Generator, victims: Victims, tactic: Tactic, of: Ints, online: Bools
) -> Ints:
    """Merchants of the wanted categories: online, in the victim's city, or abroad."""
    shops, count = scene.merchants, victims.card.size
    abroad = rng.random(count) < tactic.abroad
    far = rng.choice(geo.cities_of(tactic.countries), count)
    city = np.where(abroad, far, scene.people.city[victims.customer])[of]
    web = rng.choice(category_codes(tactic.categories, ONLINE), of.size)
    remote = shops.online_in_category.draw(rng, web)
    foreign = shops.online_in_country.draw(rng, geo.CITY_COUNTRY[city])
    remote = np.where(abroad[of] & (rng.random(of.size) < 0.6), foreign, remote)
    return np.where(online, remote, _nearby(scene, rng, city, tactic))


def _nearby(scene: Scene, rng: np.random.Generator, city: Ints, tactic: Tactic) -> Ints:
    """Of some shops in each city, the first that sells what is wanted, or else the first."""
    shops = scene.merchants
    candidates = shops.pos_in_city.draw(rng, np.repeat(city, _CANDIDATES)).reshape(-1, _CANDIDATES)
    is_wanted = np.isin(shops.category[candidates], category_codes(tactic.categories, POS))
    return candidates[np.arange(city.size), is_wanted.argmax(axis=1)]


def _gear(scene: Scene, rng: np.random.Generator, victims: Victims, tactic: Tactic) -> tuple[Ints, Ints]:
    """Device and address of each card: the thief's own, shared by some cards, or the victim's."""
    count = victims.card.size
    people, addresses = scene.people, scene.people.addresses
    day = victims.start_ms // MILLISECONDS_PER_DAY
    place = np.arange(count) // tactic.cards_per_device
    device = scene.devices.take(int(place.max(initial=-1)) + 1)[place]
    own = scene.ips.take(int(place.max(initial=-1)) + 1)[place]
    country = geo.CITY_COUNTRY[people.city[victims.customer]]
    point = rng.random(count)
    ip = np.where(point < 0.25, addresses.mobile(rng, country), own)
    ip = np.where(point > 0.75, addresses.vpn(rng, count), ip)
    inside = rng.random(count) < tactic.insider
    device = np.where(inside, people.phone(victims.customer, day), device)
    return device, np.where(inside, people.home_address(victims.customer, day), ip)


def _amounts(scene: Scene, rng: np.random.Generator, tactic: Tactic, merchant: Ints) -> Ints:
    usual = scene.merchants.honest_amounts(rng, merchant, np.full(merchant.size, 1.2))
    wanted = lognormal(rng, tactic.amount, tactic.spread, merchant.size)
    minor = priced(rng, wanted, scene.merchants.category[merchant])
    return np.where(rng.random(merchant.size) < tactic.blend, usual, minor)


def make_scene(
    spec: WorldSpec, people: People, merchants: Merchants, honest: Rows, devices: Fresh, ips: Fresh
) -> Scene:
    everything = np.arange(len(honest))
    online = np.flatnonzero(merchants.channel[honest.merchant] == ONLINE)
    return Scene(
        spec=spec,
        people=people,
        merchants=merchants,
        honest=honest,
        by_merchant=Index.of(honest.merchant, honest.time_ms, everything),
        online_by_customer=Index.of(honest.customer[online], honest.time_ms[online], online),
        online_by_time=Index.of(np.zeros(online.size, dtype=np.int64), honest.time_ms[online], online),
        devices=devices,
        ips=ips,
    )
