"""A whole world from its spec: people, honest payments, campaigns, what becomes known, and the truth.

Belongs here: the order of the parts, and giving names to codes. Does not belong here: files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fraud_platform.simulate import geography as geo
from fraud_platform.simulate.campaigns import commit_fraud
from fraud_platform.simulate.crimes import make_scene
from fraud_platform.simulate.draws import Fresh, Ints, Texts, stream, tokens
from fraud_platform.simulate.merchants import CATEGORY_NAMES, CHANNELS, POS, Merchants, make_merchants
from fraud_platform.simulate.people import People, make_people
from fraud_platform.simulate.reports import (
    SOURCES,
    Events,
    all_events,
    noticed_fraud,
    replace_cards,
    reviews,
    wrong_reports,
)
from fraud_platform.simulate.rows import Rows
from fraud_platform.simulate.spec import WorldSpec
from fraud_platform.simulate.spending import honest_rows
from fraud_platform.simulate.tactics import KINDS

Progress = Callable[[str, float], None]
"""Told what is being done and the share of the work that is done, 0 to 1."""

_PLACE_MISSING = 0.015


@dataclass(frozen=True)
class World:
    """What happened in a played world; times are pandas timestamps in ms, UTC.

    transactions: ordered by event_time, the canonical columns of schema.TRANSACTION_COLUMNS.
    labels: transaction_id, source, outcome, known_at, ordered by known_at; some become known only after
    the world's end. truth: transaction_id, is_fraud, campaign, campaign_kind, one row a transaction.
    """

    spec: WorldSpec
    transactions: pd.DataFrame
    labels: pd.DataFrame
    truth: pd.DataFrame


def simulate(spec: WorldSpec, progress: Progress | None = None) -> World:
    """Play the world of `spec`: the same spec gives the same bytes."""
    tell = progress or (lambda text, share: None)
    tell("people and merchants", 0.0)
    merchants = make_merchants(stream(spec.seed, "merchants"), spec.merchants)
    people = make_people(stream(spec.seed, "people"), spec.customers, spec.total_days, merchants)
    devices, ips = Fresh(people.first_free_device), Fresh(people.addresses.total)
    tell("honest payments", 0.1)
    honest = honest_rows(stream(spec.seed, "honest"), spec, people, merchants, devices)
    tell("fraud campaigns", 0.4)
    rows, kinds = commit_fraud(make_scene(spec, people, merchants, honest, devices, ips))
    rows = _on_the_clock(rows, merchants)
    tell("reports", 0.6)
    rows, events = _known(spec, rows, kinds, people, merchants)
    tell("names", 0.7)
    return _named(spec, rows, kinds, events, people, merchants, devices.total, ips.total)


def _on_the_clock(rows: Rows, merchants: Merchants) -> Rows:
    """In order of time; terminals with a coarse clock report whole seconds."""
    second = rows.time_ms // 1000 * 1000
    time_ms = np.where(merchants.has_second_clock[rows.merchant], second, rows.time_ms)
    order = np.argsort(time_ms, kind="stable")
    return replace(rows.take(order), time_ms=time_ms[order])


def _known(
    spec: WorldSpec, rows: Rows, kinds: Ints, people: People, merchants: Merchants
) -> tuple[Rows, Events]:
    noticed = noticed_fraud(stream(spec.seed, "noticed"), rows, kinds)
    rows, noticed = replace_cards(rows, noticed, kinds, people)
    reviewed = reviews(stream(spec.seed, "reviews"), rows, merchants, people, kinds)
    mistaken = wrong_reports(stream(spec.seed, "mistaken"), rows, merchants)
    return rows, all_events([noticed, reviewed, mistaken])


def _named(
    spec: WorldSpec,
    rows: Rows,
    kinds: Ints,
    events: Events,
    people: People,
    merchants: Merchants,
    devices: int,
    ips: int,
) -> World:
    transaction_id = pd.array(tokens(stream(spec.seed, "transaction_id"), "t_", len(rows)), dtype="str")

    def names(prefix: str, count: int, codes: Ints) -> pd.api.extensions.ExtensionArray:
        return _pick(tokens(stream(spec.seed, prefix), prefix, count), codes)

    channel, city = merchants.channel[rows.merchant], merchants.city[rows.merchant]
    card_country = people.card_country[rows.customer]
    lost = stream(spec.seed, "places").random(len(rows)) < _PLACE_MISSING
    has_place = (channel != CHANNELS.index("ecommerce")) & (channel != CHANNELS.index("recurring"))
    has_place &= ~(lost & (channel == POS))
    transactions = pd.DataFrame(
        {
            "transaction_id": transaction_id,
            "event_time": _moments(spec, rows.time_ms),
            "card_id": names("k_", 2 * people.card_codes, rows.card),
            "customer_id": names("c_", people.count, rows.customer),
            "device_id": names("d_", devices, rows.device),
            "ip_id": names("i_", ips, rows.ip),
            "merchant_id": names("m_", merchants.city.size, rows.merchant),
            "amount_minor": rows.amount_minor,
            "currency": _pick(geo.CURRENCIES, geo.COUNTRY_CURRENCY[card_country]),
            "channel": _pick(CHANNELS, channel),
            "category": _pick(CATEGORY_NAMES, merchants.category[rows.merchant]),
            "card_country": _pick(geo.COUNTRIES, card_country),
            "merchant_country": _pick(geo.COUNTRIES, geo.CITY_COUNTRY[city]),
            "latitude": np.where(has_place, merchants.latitude[rows.merchant], np.nan),
            "longitude": np.where(has_place, merchants.longitude[rows.merchant], np.nan),
            "home_latitude": people.latitude[rows.customer],
            "home_longitude": people.longitude[rows.customer],
        }
    )
    labels = pd.DataFrame(
        {
            "transaction_id": transaction_id.take(events.row),
            "source": _pick(SOURCES, events.source),
            "outcome": _pick(("legitimate", "fraud"), events.is_fraud.astype(np.int64)),
            "known_at": _moments(spec, events.known_ms),
        }
    )
    return World(spec, transactions, labels, _truth(spec, rows, kinds, transaction_id))


def _truth(
    spec: WorldSpec, rows: Rows, kinds: Ints, transaction_id: pd.api.extensions.ExtensionArray
) -> pd.DataFrame:
    campaign = tokens(stream(spec.seed, "campaign"), "f_", kinds.size)
    kind = np.append(kinds, -1)[rows.campaign]
    return pd.DataFrame(
        {
            "transaction_id": transaction_id,
            "is_fraud": rows.campaign >= 0,
            "campaign": _pick(campaign, rows.campaign),
            "campaign_kind": _pick(KINDS, kind),
        }
    )


def _pick(names: Texts | tuple[str, ...], codes: Ints) -> pd.api.extensions.ExtensionArray:
    """The codes' names; a missing value for code -1."""
    return pd.array(np.asarray(names), dtype="str").take(codes, allow_fill=True)


def _moments(spec: WorldSpec, time_ms: Ints) -> pd.DatetimeIndex:
    return pd.DatetimeIndex((time_ms + spec.start_ms).astype("datetime64[ms]")).tz_localize("UTC")
