"""Honest spending: outings and online sessions with habits, journeys, new devices, and subscriptions.

Belongs here: everything that is not fraud. Does not belong here: fraud, labels, names.
Much of what fraud looks like happens here too: bursts, strange places, new devices, shared addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.simulate import geography as geo
from fraud_platform.simulate.draws import Bools, Floats, Fresh, Ints, Weighted, running_within, within
from fraud_platform.simulate.merchants import ATM, ONLINE, POS, RECURRING, Merchants
from fraud_platform.simulate.people import (
    CARD_SLOTS,
    DEVICE_SLOTS,
    JOURNEYS,
    LAPTOP,
    NIGHT_OWL,
    RETIRED,
    RHYTHMS,
    STUDENT,
    People,
)
from fraud_platform.simulate.rows import NOBODY, Rows, joined
from fraud_platform.simulate.spec import WorldSpec

MILLISECONDS_PER_HOUR = 3_600_000
MILLISECONDS_PER_MINUTE = 60_000
_ROWS_PER_SESSION = 1.43
_SHIFT_ONLINE = 0.05
_SHIFT_AMOUNT = 1.05
_SUBSCRIPTIONS_PER_CUSTOMER = 1.2
_SUBSCRIPTION_SHARE = 0.06


@dataclass(frozen=True)
class Sessions:
    """One outing or online session a row, (n,): who, when, by which channel, in which city."""

    customer: Ints
    day: Ints
    time_ms: Ints
    channel: Ints
    city: Ints
    is_away: Bools
    size: Ints


def honest_rows(
    rng: np.random.Generator, spec: WorldSpec, people: People, merchants: Merchants, devices: Fresh
) -> Rows:
    """About (1 - fraud_share) of the world's transactions, in no order."""
    target = spec.transactions * (1 - spec.fraud_share)
    billed = _subscriptions(rng, spec, people, merchants, target * _SUBSCRIPTION_SHARE)
    sessions = _sessions(rng, spec, people, round((target - len(billed)) / _ROWS_PER_SESSION))
    bought = _purchases(rng, spec, people, merchants, sessions, devices)
    return joined([bought.take(bought.time_ms < spec.span_ms), billed])


def _sessions(rng: np.random.Generator, spec: WorldSpec, people: People, count: int) -> Sessions:
    customer = people.by_activity.draw(rng, np.zeros(count, dtype=np.int64))
    rhythm = people.rhythm[customer]
    day = _days(spec).draw(rng, rhythm)
    city, is_away = _whereabouts(people, customer, day)
    online = people.online_share[customer] + np.where(day >= spec.tactics_change, _SHIFT_ONLINE, 0.0)
    point = rng.random(count)
    channel = np.where(point < online, ONLINE, np.where(point > 0.96, ATM, POS))
    hour = _hours().draw(rng, rhythm * 2 + (channel == ONLINE)) - geo.CITY_UTC_OFFSET_HOURS[city]
    time_ms = day * MILLISECONDS_PER_DAY + hour % 24 * MILLISECONDS_PER_HOUR
    time_ms += rng.integers(0, MILLISECONDS_PER_HOUR, count)
    return Sessions(customer, day, time_ms, channel, city, is_away, _sizes(rng, channel))


def _days(spec: WorldSpec) -> Weighted:
    """Days of the world by rhythm of life: weekends, pay days, a slow growth."""
    day = np.arange(spec.total_days)
    weekday = (day + spec.start.weekday()) % 7
    base = 1 + 0.1 * day / spec.total_days + 0.12 * (day % 30 < 4)
    weights = np.tile(base, (RHYTHMS, 1))
    weights *= np.where(weekday >= 5, 1.3, 1.0)
    weights[RETIRED] *= np.where(weekday >= 5, 0.6, 1.1)
    group = np.repeat(np.arange(RHYTHMS), day.size)
    return Weighted.of(group, weights.ravel(), RHYTHMS, np.tile(day, RHYTHMS))


def _hours() -> Weighted:
    """Hours of the local day, for each rhythm of life in shops (even groups) and online (odd groups)."""
    hour = np.arange(24)

    def peak(at: float, width: float, height: float) -> Floats:
        away = np.minimum((hour - at) % 24, (at - hour) % 24)
        return height * np.exp(-0.5 * (away / width) ** 2)

    shops = np.tile(peak(12.5, 2.0, 1.0) + peak(18, 2.2, 1.2) + 0.02, (RHYTHMS, 1))
    shops[RETIRED] = peak(11, 2.5, 1.5) + peak(16, 2.0, 0.6) + 0.01
    shops[NIGHT_OWL] = peak(20, 3.0, 1.2) + peak(0, 2.5, 0.5) + 0.03
    shops[STUDENT] = peak(13, 2.5, 1.0) + peak(21, 3.0, 0.9) + 0.03
    online = 0.45 * shops + peak(20.5, 2.6, 1.0) + 0.06
    online[NIGHT_OWL] += peak(1, 2.5, 0.8)
    weights = np.stack((shops, online), axis=1).reshape(2 * RHYTHMS, 24)
    return Weighted.of(np.repeat(np.arange(2 * RHYTHMS), 24), weights.ravel(), 2 * RHYTHMS, np.tile(hour, 8))


def _whereabouts(people: People, customer: Ints, day: Ints) -> tuple[Ints, Bools]:
    """The city each customer is in on that day, and whether it is not home."""
    city = people.city[customer].copy()
    is_away = np.zeros(customer.size, dtype=bool)
    for slot in range(JOURNEYS):
        away = (day >= people.journey_from[customer, slot]) & (day < people.journey_until[customer, slot])
        city[away] = people.journey_city[customer[away], slot]
        is_away |= away
    return city, is_away


def _sizes(rng: np.random.Generator, channel: Ints) -> Ints:
    """Purchases of a session: usually one; a few online sessions are long runs of small purchases."""
    size = rng.choice(5, channel.size, p=[0.76, 0.15, 0.05, 0.025, 0.015]) + 1
    is_run = (channel == ONLINE) & (rng.random(channel.size) < 0.04)
    size = np.where(is_run, size + rng.geometric(0.25, channel.size), size)
    return np.where(channel == ATM, 1, size)


def _purchases(
    rng: np.random.Generator,
    spec: WorldSpec,
    people: People,
    merchants: Merchants,
    sessions: Sessions,
    devices: Fresh,
) -> Rows:
    of = np.repeat(np.arange(sessions.size.size), sessions.size)
    is_first = within(of, sessions.size) == 0
    customer, online = sessions.customer[of], sessions.channel[of] == ONLINE
    gap = rng.exponential(np.where(online, 5, 22) * MILLISECONDS_PER_MINUTE) + 8_000
    delay = running_within(np.where(is_first, 0.0, gap), of, sessions.size).astype(np.int64)
    merchant = _merchants(rng, people, merchants, sessions, of)
    first_row = np.flatnonzero(is_first)[of]
    stays = online & (rng.random(of.size) < 0.65)
    merchant = np.where(stays, merchant[first_row], merchant)
    level = people.spending[customer] * np.where(sessions.day[of] >= spec.tactics_change, _SHIFT_AMOUNT, 1.0)
    level = np.where(sessions.is_away[of], level * 1.15, level)
    device, ip = _equipment(rng, people, sessions, devices)
    return Rows(
        time_ms=sessions.time_ms[of] + delay,
        customer=customer,
        card=_cards(rng, people, sessions.customer)[of],
        device=device[of],
        ip=ip[of],
        merchant=merchant,
        amount_minor=merchants.honest_amounts(rng, merchant, level),
        campaign=np.full(of.size, NOBODY, dtype=np.int64),
    )


def _merchants(
    rng: np.random.Generator, people: People, merchants: Merchants, sessions: Sessions, of: Ints
) -> Ints:
    """Usually a favourite one, else any of the city or of the web, by popularity."""
    customer, channel, city = sessions.customer[of], sessions.channel[of], sessions.city[of]
    away = sessions.is_away[of]
    merchant = np.empty(of.size, dtype=np.int64)
    for code, favourite, others in (
        (POS, people.shops, merchants.pos_in_city),
        (ATM, people.cash_points, merchants.atm_in_city),
        (ONLINE, people.online_shops, merchants.of_channel),
    ):
        row = np.flatnonzero(channel == code)
        place = (favourite.shape[1] * rng.random(row.size) ** 1.8).astype(np.int64)
        group = np.full(row.size, ONLINE) if code == ONLINE else city[row]
        explores = (rng.random(row.size) < 0.24) | (away[row] & (code != ONLINE))
        merchant[row] = np.where(explores, others.draw(rng, group), favourite[customer[row], place])
    return merchant


def _cards(rng: np.random.Generator, people: People, customer: Ints) -> Ints:
    """Mostly the first card."""
    slot = (people.cards[customer] * rng.random(customer.size) ** 2.2).astype(np.int64)
    return customer * CARD_SLOTS + slot


def _equipment(
    rng: np.random.Generator, people: People, sessions: Sessions, devices: Fresh
) -> tuple[Ints, Ints]:
    """Device and address of each online session; none elsewhere."""
    online = np.flatnonzero(sessions.channel == ONLINE)
    customer, day, city = sessions.customer[online], sessions.day[online], sessions.city[online]
    away, count = sessions.is_away[online], online.size
    point = rng.random(count)
    device = people.phone(customer, day)
    laptop = (point < 0.33) & people.has_laptop[customer]
    device = np.where(laptop, customer * DEVICE_SLOTS + LAPTOP, device)
    device = np.where((point > 0.33) & (point < 0.39), people.tablet[customer], device)
    device = np.where(point > 0.99, people.public_device(rng, city), device)
    borrowed = (point > 0.975) & (point <= 0.99)
    device[borrowed] = devices.take(int(borrowed.sum()))
    device = np.where(rng.random(count) < 0.04, NOBODY, device)
    ip = _addresses(rng, people, customer, day, city, away)
    whole = np.full((2, sessions.customer.size), NOBODY, dtype=np.int64)
    whole[:, online] = device, np.where(rng.random(count) < 0.01, NOBODY, ip)
    return whole[0], whole[1]


def _addresses(
    rng: np.random.Generator, people: People, customer: Ints, day: Ints, city: Ints, away: Bools
) -> Ints:
    count = customer.size
    point = rng.random(count)
    country = geo.CITY_COUNTRY[city]
    ip = people.home_address(customer, day)
    ip = np.where(point < 0.3, people.addresses.mobile(rng, country), ip)
    ip = np.where((point > 0.3) & (point < 0.42), people.office[customer], ip)
    ip = np.where(away & (point > 0.3), people.addresses.public(rng, city), ip)
    return np.where(point > 0.98, people.addresses.vpn(rng, count), ip)


def _subscriptions(
    rng: np.random.Generator, spec: WorldSpec, people: People, merchants: Merchants, target: float
) -> Rows:
    """The same amount every thirty days at night, asked by the merchant: no device, no place."""
    months = spec.total_days // 30 + 1
    count = max(1, min(round(_SUBSCRIPTIONS_PER_CUSTOMER * people.count), round(target / months)))
    customer = rng.integers(0, people.count, count)
    merchant = merchants.of_channel.draw(rng, np.full(count, RECURRING))
    amount = merchants.honest_amounts(rng, merchant, np.ones(count))
    day = (rng.integers(0, 30, count)[:, None] + 30 * np.arange(months)).ravel()
    of = np.repeat(np.arange(count), months)
    night = rng.integers(1 * MILLISECONDS_PER_HOUR, 5 * MILLISECONDS_PER_HOUR, of.size)
    nobody = np.full(of.size, NOBODY, dtype=np.int64)
    rows = Rows(
        time_ms=day * MILLISECONDS_PER_DAY + night,
        customer=customer[of],
        card=customer[of] * CARD_SLOTS,
        device=nobody,
        ip=nobody,
        merchant=merchant[of],
        amount_minor=amount[of],
        campaign=nobody,
    )
    return rows.take(rows.time_ms < spec.span_ms)
