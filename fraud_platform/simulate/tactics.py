"""How fraudsters work, before and after the dated change of tactics.

Belongs here: numbers that describe a kind of campaign. Does not belong here: drawing rows from them.
"""

from __future__ import annotations

from dataclasses import dataclass

CARD_TESTING = "card_testing"
STOLEN_CARD = "stolen_card"
ACCOUNT_TAKEOVER = "account_takeover"
COMPROMISED_MERCHANT = "compromised_merchant"
RING = "ring"
FRIENDLY = "friendly"
KINDS: tuple[str, ...] = (
    CARD_TESTING,
    STOLEN_CARD,
    ACCOUNT_TAKEOVER,
    COMPROMISED_MERCHANT,
    RING,
    FRIENDLY,
)
BEFORE, AFTER = 0, 1


@dataclass(frozen=True)
class Tactic:
    """One kind of campaign in one era.

    share: of the era's fraud rows. cards, size: least and most cards of a campaign and purchases of a card.
    amount: median in major units; spread: of its logarithm; blend: share of purchases at the shop's
    usual amounts. categories: what is bought. online: share of purchases without the card in hand.
    abroad: share of cards used in `countries`. hours: local hours of the first purchase (25 is 1 at night).
    gap_minutes: mean pause between purchases. cards_per_device: how many cards one device serves.
    insider: share of cards used from the victim's own device and address (malware, family).
    """

    share: float
    cards: tuple[int, int]
    size: tuple[int, int]
    amount: float
    spread: float
    blend: float
    categories: tuple[str, ...]
    online: float
    abroad: float
    countries: tuple[str, ...]
    hours: tuple[float, float]
    gap_minutes: float
    cards_per_device: int = 1
    insider: float = 0.0


_FAR = ("US", "MX", "BR")
_NEAR = ("PL", "CZ", "TR", "GB", "ES")

TACTICS: dict[str, tuple[Tactic, Tactic]] = {
    CARD_TESTING: (
        Tactic(
            0.20, (6, 20), (1, 2), 1.6, 0.5, 0.1, ("digital_goods", "gaming"), 1.0, 0.5, _FAR, (0, 6), 1.0, 8
        ),
        Tactic(
            0.14, (4, 12), (1, 2), 9.0, 0.5, 0.4, ("food_delivery", "marketplace", "digital_goods"),
            1.0, 0.2, _NEAR, (9, 22), 9.0, 3, 0.0,
        ),
    ),
    STOLEN_CARD: (
        Tactic(
            0.24, (1, 1), (3, 8), 170.0, 0.8, 0.3, ("electronics", "jewellery", "gift_cards", "clothing"),
            0.45, 0.4, _FAR, (17, 27), 30.0,
        ),
        Tactic(
            0.18, (1, 1), (3, 7), 70.0, 0.6, 0.5, ("grocery", "clothing", "marketplace", "gift_cards"),
            0.7, 0.2, _NEAR, (9, 21), 80.0, 1, 0.05,
        ),
    ),
    ACCOUNT_TAKEOVER: (
        Tactic(
            0.18, (1, 3), (2, 6), 220.0, 0.7, 0.25, ("electronics", "travel", "gift_cards"),
            1.0, 0.3, _FAR, (0, 7), 45.0, 3, 0.08,
        ),
        Tactic(
            0.26, (1, 2), (3, 6), 95.0, 0.6, 0.45, ("marketplace", "clothing", "electronics"), 1.0,
            0.15, _NEAR, (10, 22), 400.0, 1, 0.15,
        ),
    ),
    COMPROMISED_MERCHANT: (
        Tactic(
            0.20, (4, 14), (1, 3), 90.0, 0.8, 0.35, ("electronics", "marketplace", "clothing"),
            0.8, 0.35, _FAR, (8, 26), 240.0, 3,
        ),
        Tactic(
            0.22, (4, 14), (1, 3), 45.0, 0.7, 0.5, ("food_delivery", "marketplace", "travel"),
            0.9, 0.15, _NEAR, (9, 23), 600.0, 2,
        ),
    ),
    RING: (
        Tactic(
            0.12, (3, 7), (4, 9), 60.0, 0.6, 0.5, ("marketplace", "gift_cards"),
            1.0, 0.1, _FAR, (9, 23), 2_880.0, 3,
        ),
        Tactic(
            0.14, (3, 6), (4, 8), 110.0, 0.6, 0.5, ("travel", "gaming", "electronics"),
            1.0, 0.1, _NEAR, (9, 23), 1_500.0, 2,
        ),
    ),
    FRIENDLY: (
        Tactic(0.06, (1, 1), (1, 3), 60.0, 0.0, 1.0, (), 1.0, 0.0, (), (0, 24), 0.0, 1, 1.0),
        Tactic(0.06, (1, 1), (1, 3), 40.0, 0.0, 1.0, (), 1.0, 0.0, (), (0, 24), 0.0, 1, 1.0),
    ),
}  # fmt: skip
"""Kind: the tactic before the change and after it. The shares of an era add up to 1."""
