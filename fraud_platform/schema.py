"""The canonical vocabulary: two streams on one clock, and the values they may carry.

`transactions`: one row per authorization attempt, known at `event_time`.
`labels`: one row per thing learned about a transaction, known at `known_at`.

Times are integer milliseconds UTC, money is an integer in minor units, ids are opaque tokens.
Empty text is the same as a missing value everywhere. No I/O, no third-party import but msgspec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

MILLISECONDS_PER_DAY = 86_400_000
AMOUNT_MINOR_MAX = 1_000_000_000_000
"""Larger amounts are refused as absurd (10 billion of a two-digit currency)."""

Outcome = Literal["fraud", "legitimate"]
LabelStatus = Literal["fraud", "legitimate", "immature"]
Action = Literal["approve", "step_up", "decline"]
ACTIONS: tuple[Action, ...] = ("approve", "step_up", "decline")


@dataclass(frozen=True)
class Column:
    """One canonical column; `type` is its DuckDB type."""

    name: str
    type: Literal["VARCHAR", "BIGINT", "DOUBLE"]
    is_required: bool
    description: str


TRANSACTION_COLUMNS: tuple[Column, ...] = (
    Column("transaction_id", "VARCHAR", True, "Opaque id of the authorization attempt; unique"),
    Column("event_time", "BIGINT", True, "When it was asked, ms since 1970-01-01 UTC"),
    Column("card_id", "VARCHAR", True, "Opaque token of the card"),
    Column("customer_id", "VARCHAR", False, "Opaque token of the customer"),
    Column("device_id", "VARCHAR", False, "Opaque token of the device"),
    Column("ip_id", "VARCHAR", False, "Opaque token of the IP address"),
    Column("merchant_id", "VARCHAR", True, "Opaque token of the merchant or terminal"),
    Column("amount_minor", "BIGINT", True, "Amount in minor units of the currency, 0 or more"),
    Column("currency", "VARCHAR", True, "ISO 4217 code"),
    Column("channel", "VARCHAR", False, "How it was asked: pos, ecommerce, atm, ..."),
    Column("category", "VARCHAR", False, "The merchant's category"),
    Column("card_country", "VARCHAR", False, "ISO 3166-1 alpha-2 country of the card"),
    Column("merchant_country", "VARCHAR", False, "ISO 3166-1 alpha-2 country of the merchant"),
    Column("latitude", "DOUBLE", False, "Where the card was used, degrees north"),
    Column("longitude", "DOUBLE", False, "Where the card was used, degrees east"),
    Column("home_latitude", "DOUBLE", False, "The customer's home, degrees north"),
    Column("home_longitude", "DOUBLE", False, "The customer's home, degrees east"),
)

TEXT_COLUMNS = tuple(column.name for column in TRANSACTION_COLUMNS if column.type == "VARCHAR")

LABEL_COLUMNS: tuple[Column, ...] = (
    Column("transaction_id", "VARCHAR", True, "The transaction that something was learned about"),
    Column("source", "VARCHAR", True, "chargeback, cardholder_report, manual_review, ..."),
    Column("outcome", "VARCHAR", True, "fraud or legitimate"),
    Column("known_at", "BIGINT", True, "When it became known, ms since 1970-01-01 UTC"),
)

ID_COLUMNS: tuple[str, ...] = (
    "transaction_id",
    "card_id",
    "customer_id",
    "device_id",
    "ip_id",
    "merchant_id",
)

# ISO 4217 currencies in use and the digits of their minor unit.
CURRENCY_EXPONENTS: dict[str, int] = dict.fromkeys(
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF "
    "CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU "
    "MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR "
    "SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED "
    "VES WST XCD YER ZAR ZMW ZWG".split(),
    2,
)
CURRENCY_EXPONENTS |= dict.fromkeys(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(), 0
)
CURRENCY_EXPONENTS |= dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3)


class Transaction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One authorization attempt, with the canonical columns of TRANSACTION_COLUMNS.

    `extras` holds the extra model inputs that a dataset mapping adds, by name.
    """

    transaction_id: str
    event_time: int
    card_id: str
    merchant_id: str
    amount_minor: int
    currency: str
    customer_id: str | None = None
    device_id: str | None = None
    ip_id: str | None = None
    channel: str | None = None
    category: str | None = None
    card_country: str | None = None
    merchant_country: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    home_latitude: float | None = None
    home_longitude: float | None = None
    extras: dict[str, float | str | None] = {}


class LabelEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing learned about a transaction at `known_at`."""

    transaction_id: str
    source: str
    outcome: Outcome
    known_at: int


def looks_like_card_number(text: str) -> bool:
    """13 to 19 digits, spaces and hyphens aside, that pass the Luhn check.

    >>> looks_like_card_number("4111 1111 1111 1111"), looks_like_card_number("4111111111111112")
    (True, False)
    """
    digits = text.replace(" ", "").replace("-", "")
    if not (13 <= len(digits) <= 19 and digits.isascii() and digits.isdigit()):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0
