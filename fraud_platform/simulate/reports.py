"""What becomes known, by whom and when: cardholder reports, chargebacks, manual reviews, and errors.

Belongs here: label events and what a bank does on them (a new card). Does not belong here: the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.simulate import geography as geo
from fraud_platform.simulate import tactics
from fraud_platform.simulate.draws import Bools, Floats, Ints, lognormal
from fraud_platform.simulate.merchants import ONLINE, Merchants
from fraud_platform.simulate.people import People
from fraud_platform.simulate.rows import Rows
from fraud_platform.simulate.spending import MILLISECONDS_PER_HOUR
from fraud_platform.simulate.tactics import FRIENDLY, KINDS

SOURCES: tuple[str, ...] = ("cardholder_report", "chargeback", "manual_review")
REPORT, CHARGEBACK, REVIEW = range(3)
_NEVER = np.iinfo(np.int64).max
_CHARGEBACK_AFTER_REPORT = 0.6
_REVIEWED_HONEST = 0.0015
_REVIEWED_FRAUD = 0.12
_REVIEW_RIGHT_HONEST = 0.99
_REVIEW_RIGHT_FRAUD = 0.85
_WRONG_REPORTS_ONLINE = 0.0004
_WRONG_REPORTS_REVERSED = 0.45


@dataclass(frozen=True)
class Reporting:
    """report, chargeback: shares of misused cards first noticed so (the rest never is); medians in days."""

    report: float
    report_days: float
    chargeback: float
    chargeback_days: float


REPORTING: dict[str, Reporting] = {
    tactics.CARD_TESTING: Reporting(0.35, 3.0, 0.30, 22.0),
    tactics.STOLEN_CARD: Reporting(0.70, 0.9, 0.24, 16.0),
    tactics.ACCOUNT_TAKEOVER: Reporting(0.45, 2.5, 0.45, 26.0),
    tactics.COMPROMISED_MERCHANT: Reporting(0.40, 4.0, 0.48, 30.0),
    tactics.RING: Reporting(0.10, 15.0, 0.68, 42.0),
    tactics.FRIENDLY: Reporting(0.0, 1.0, 1.0, 55.0),
}
_REPORT_SPREAD = 0.7
_CHARGEBACK_SPREAD = 0.45


@dataclass(frozen=True)
class Events:
    """Label events (n,): row, index into SOURCES, whether the outcome is fraud, known_ms from the start."""

    row: Ints
    source: Ints
    is_fraud: Bools
    known_ms: Ints

    @classmethod
    def of(cls, row: Ints, source: int, is_fraud: Bools | bool, known_ms: Ints) -> Events:
        return cls(row, np.full(row.size, source), np.broadcast_to(is_fraud, row.shape).copy(), known_ms)


def all_events(parts: list[Events]) -> Events:
    """Joined, in the order of becoming known; of one moment, in the order of rows."""
    row, source, is_fraud, known = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("row", "source", "is_fraud", "known_ms")
    )
    order = np.lexsort((source, row, known))
    return Events(row[order], source[order], is_fraud[order], known[order])


def noticed_fraud(rng: np.random.Generator, rows: Rows, kinds: Ints) -> Events:
    """Reports and chargebacks of misused cards; each card of a campaign is noticed as a whole, or never."""
    row = np.flatnonzero(rows.campaign >= 0)
    time_ms, kind = rows.time_ms[row], kinds[rows.campaign[row]]
    pair = np.stack((rows.campaign[row], rows.card[row]))
    _, first, unit = np.unique(pair, axis=1, return_index=True, return_inverse=True)
    habit = [REPORTING[name] for name in KINDS]
    unit_kind = kind[first]
    report_share = np.array([one.report for one in habit])[unit_kind]
    chargeback_share = np.array([one.chargeback for one in habit])[unit_kind]
    point = rng.random(first.size)
    is_reported = (point < report_share)[unit]
    is_charged_back = ((point >= report_share) & (point < report_share + chargeback_share))[unit]
    began_ms = np.full(first.size, _NEVER)
    np.minimum.at(began_ms, unit, time_ms)
    wait = _days_ms(rng, np.array([one.report_days for one in habit])[unit_kind], _REPORT_SPREAD)
    report_ms = (began_ms + wait)[unit] + rng.integers(0, MILLISECONDS_PER_HOUR, row.size)
    lag = _days_ms(rng, np.array([one.chargeback_days for one in habit])[unit_kind], _CHARGEBACK_SPREAD)
    chargeback_ms = time_ms + lag[unit] + rng.integers(0, 5 * MILLISECONDS_PER_HOUR, row.size)
    follows = is_reported & (rng.random(row.size) < _CHARGEBACK_AFTER_REPORT)
    chargeback_ms = np.where(
        follows, np.maximum(chargeback_ms, report_ms + MILLISECONDS_PER_DAY), chargeback_ms
    )
    is_charged_back |= follows
    is_reported &= report_ms > time_ms
    return all_events(
        [
            Events.of(row[is_reported], REPORT, True, report_ms[is_reported]),
            Events.of(row[is_charged_back], CHARGEBACK, True, chargeback_ms[is_charged_back]),
        ]
    )


def replace_cards(rows: Rows, events: Events, kinds: Ints, people: People) -> tuple[Rows, Events]:
    """A card whose fraud became known is dead from then on: its thieves stop, its owner pays with a new one.

    Friendly fraud blocks nothing. Returns the rows that remain and their events.
    """
    is_friendly = np.append(kinds == KINDS.index(FRIENDLY), False)[rows.campaign]
    blocking = ~is_friendly[events.row]
    dead_from_ms = np.full(people.card_codes, _NEVER)
    np.minimum.at(dead_from_ms, rows.card[events.row[blocking]], events.known_ms[blocking])
    is_late = rows.time_ms >= dead_from_ms[rows.card]
    is_theft = (rows.campaign >= 0) & ~is_friendly
    kept = ~(is_late & is_theft)
    rows = replace(rows, card=np.where(is_late, rows.card + people.card_codes, rows.card)).take(kept)
    still = kept[events.row]
    place = np.cumsum(kept) - 1
    return rows, Events(
        place[events.row[still]], events.source[still], events.is_fraud[still], events.known_ms[still]
    )


def reviews(
    rng: np.random.Generator, rows: Rows, merchants: Merchants, people: People, kinds: Ints
) -> Events:
    """Analysts look at some rows, rather at large and foreign ones, and are mostly right.

    A friendly fraud looks honest to them.
    """
    abroad = geo.CITY_COUNTRY[merchants.city[rows.merchant]] != people.card_country[rows.customer]
    chance = _REVIEWED_HONEST * (0.4 + 5.0 * (rows.amount_minor > 25_000) + 1.5 * abroad)
    chance = np.where(rows.campaign >= 0, _REVIEWED_FRAUD, chance)
    row = np.flatnonzero(rng.random(len(rows)) < chance)
    is_fraud = rows.campaign[row] >= 0
    is_friendly = np.append(kinds == KINDS.index(FRIENDLY), False)[rows.campaign[row]]
    is_right = rng.random(row.size) < np.where(is_fraud, _REVIEW_RIGHT_FRAUD, _REVIEW_RIGHT_HONEST)
    wait = _days_ms(rng, np.full(row.size, 0.4), 0.8)
    return Events.of(row, REVIEW, (is_fraud == is_right) & ~is_friendly, rows.time_ms[row] + wait)


def wrong_reports(rng: np.random.Generator, rows: Rows, merchants: Merchants) -> Events:
    """Honest online purchases that their buyer did not recognise; some are reversed by a review."""
    online = (rows.campaign < 0) & (merchants.channel[rows.merchant] == ONLINE)
    row = np.flatnonzero(online & (rng.random(len(rows)) < _WRONG_REPORTS_ONLINE))
    known_ms = rows.time_ms[row] + _days_ms(rng, np.full(row.size, 8.0), 0.8)
    is_reversed = rng.random(row.size) < _WRONG_REPORTS_REVERSED
    later_ms = known_ms + _days_ms(rng, np.full(row.size, 6.0), 0.6)
    return all_events(
        [
            Events.of(row, REPORT, True, known_ms),
            Events.of(row[is_reversed], REVIEW, False, later_ms[is_reversed]),
        ]
    )


def _days_ms(rng: np.random.Generator, median_days: Floats, spread: float) -> Ints:
    """Waits around a median, never shorter than a minute."""
    days = lognormal(rng, median_days, spread, median_days.size)
    return np.maximum(days * MILLISECONDS_PER_DAY, 60_000).astype(np.int64)
