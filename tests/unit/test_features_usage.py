"""`fraud-platform features`: what is listed, and where each feature is used."""

from __future__ import annotations

import lightgbm
import pytest

from fraud_platform.cli.features import choose
from fraud_platform.errors import ContractError
from fraud_platform.features.contract import load_contract
from fraud_platform.package import ReasonTexts, load_reasons_text
from fraud_platform.package.usage import Usage, gain_shares, usages
from fraud_platform.rules import load_rules

CONTRACT = load_contract()
REASONS = ReasonTexts.from_yaml(load_reasons_text())


def used(name: str, gains: dict[str, float] | None = None) -> Usage:
    found = usages(CONTRACT, load_rules(CONTRACT.dtypes), REASONS, gains)
    return found[CONTRACT.index(name)]


def test_rules_row_expressions_and_reason_are_found() -> None:
    one = used("card_txn_count_30d")
    assert one.rules == ("first_purchase_large",)
    assert used("customer_age_seconds").rules == ("new_customer_large",), "in shadow"
    assert one.read_by == ("card_burst_share_24h",)
    assert one.reason == "M07"
    assert one.gain_share is None


def test_a_model_that_leaves_a_feature_out_gives_it_nothing() -> None:
    assert used("channel", {"amount_minor": 1.0}).gain_share == 0.0
    assert used("amount_minor", {"amount_minor": 1.0}).gain_share == 1.0


def test_gain_is_what_lightgbm_says(tiny_booster: lightgbm.Booster) -> None:
    shares = gain_shares(tiny_booster.model_to_string())
    gains = tiny_booster.feature_importance("gain")
    assert sum(shares.values()) == pytest.approx(1.0)
    for name, gain in zip(tiny_booster.feature_name(), gains, strict=True):
        assert shares.get(name, 0.0) == pytest.approx(gain / gains.sum(), rel=1e-3, abs=1e-6)


def test_a_model_of_stumps_that_never_split_has_no_shares() -> None:
    assert gain_shares("feature_names=a b\n\nTree=0\nnum_leaves=1\n") == {}


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ({}, len(CONTRACT.names)),
        ({"name": "card_txn_count_1h"}, 1),
        ({"name": "card"}, sum(f.entity == "card" for f in CONTRACT.features)),
        ({"name": "7d"}, sum(f.window == "7d" for f in CONTRACT.features)),
        ({"name": "card", "window": "1h"}, 3),
        ({"entity": "device", "stream": "fraud_reports"}, 2),
        ({"stream": "transactions", "window": "30d", "entity": "merchant"}, 4),
        ({"name": "card_txn_count_1h", "entity": "ip"}, 0),
    ],
)
def test_words_are_a_name_an_entity_or_a_window(words: dict[str, str], count: int) -> None:
    assert len(choose(CONTRACT, **words)) == count


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ({"name": "card_txn_cuont_1h"}, "card_txn_count_1h"),
        ({"name": "crad"}, "card"),
        ({"entity": "shop"}, "card, card_merchant, customer, customer_device, device, ip, merchant"),
        ({"window": "8d"}, "7d, 10m, 1h, 24h, 30d"),
        ({"stream": "chargebacks"}, "fraud_reports, transactions"),
    ],
)
def test_an_unknown_word_lists_the_known_ones(words: dict[str, str], known: str) -> None:
    with pytest.raises(ContractError) as caught:
        choose(CONTRACT, **words)
    assert known in str(caught.value)
