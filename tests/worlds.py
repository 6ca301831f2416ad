"""Events that are hard on windows: values, moments and fields that every attack on the features draws from.

Belongs here: plain builders and Hypothesis strategies. Does not belong here: what is expected (oracle.py).
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.schema import AMOUNT_MINOR_MAX, Column, LabelEvent, Transaction
from tests.oracle import DAY, HOUR

NOW = 1_790_000_000_000
WINDOWS = (HOUR // 6, HOUR, DAY, 7 * DAY, 8 * DAY, 14 * DAY, 30 * DAY, 37 * DAY)
EXTRAS = (Column("extra_risk", "DOUBLE", False, "R"), Column("extra_kind", "VARCHAR", False, "K"))
CONTRACT = load_contract(EXTRAS)
MERCHANT_ALONE = FeatureContract(
    {"merchant": ("merchant_id",)}, tuple(one for one in CONTRACT.features if one.entity == "merchant")
)
"""Of one reach: for a day its logs answer repeats whose vectors are forgotten."""

EDGES = (0, *WINDOWS, HOUR + DAY, 7 * DAY + HOUR, 31 * DAY, 38 * DAY)
"""Distances between events at which something enters a window, leaves one, or is trimmed (ms)."""
BESIDE = (-1, 0, 1)

CARDS = ("1", "11", "1:1")
"""Ids that look like each other, also once joined with a merchant's."""
MERCHANTS = ("1", "1:1", "11", "\u00e9", "e\u0301")
"""The last two look the same and are not."""
TEXT = st.sampled_from(["a", "\U0001f4b3", " a", "", None])
AMOUNTS = st.one_of(
    st.sampled_from([0, 1, 1000, 10**6, AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX - 1]),
    st.integers(0, AMOUNT_MINOR_MAX),
)
DEGREES = st.sampled_from([None, 0.0, -0.0, 12.5, -89.99, 90.0])
RISKS = st.sampled_from([None, 1.0, 0.1, -0.0, 5e-324, 1.7976931348623157e308])

FIELDS = st.fixed_dictionaries(
    {
        "card_id": st.sampled_from(CARDS),
        "merchant_id": st.sampled_from(MERCHANTS),
        "amount_minor": AMOUNTS,
        "currency": st.sampled_from(["EUR", "JPY"]),
        "customer_id": TEXT,
        "device_id": TEXT,
        "ip_id": TEXT,
        "channel": TEXT,
        "category": TEXT,
        "card_country": TEXT,
        "merchant_country": TEXT,
        "latitude": DEGREES,
        "longitude": DEGREES,
        "home_latitude": DEGREES,
        "home_longitude": DEGREES,
        "extras": st.fixed_dictionaries({}, optional={"risk": RISKS, "kind": TEXT}),
    }
)
"""Every field of a transaction but its id and moment."""

MOMENTS = st.builds(
    lambda a, b, c: NOW + a - b + c, st.sampled_from(EDGES), st.sampled_from(EDGES), st.sampled_from(BESIDE)
)
OUTCOMES = st.sampled_from(["fraud", "fraud", "fraud", "legitimate"])


def transaction(transaction_id: str, event_time: int, **changes: Any) -> Transaction:
    plain = {"card_id": "c", "merchant_id": "m", "amount_minor": 100, "currency": "EUR"}
    return Transaction(transaction_id=transaction_id, event_time=event_time, **(plain | changes))


def report(transaction_id: str, known_at: int) -> LabelEvent:
    return LabelEvent(transaction_id=transaction_id, source="chargeback", outcome="fraud", known_at=known_at)
