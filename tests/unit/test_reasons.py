from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from fraud_platform import package
from fraud_platform.errors import BundleError, SettingsError
from fraud_platform.features.contract import load_contract
from fraud_platform.package import BundleParts, ReasonTexts, load_reasons_text
from fraud_platform.policy import PRICES
from fraud_platform.rules import load_rules_text
from fraud_platform.schema import Transaction
from fraud_platform.serve import Judge, Reason
from fraud_platform.serve.judge import Vector
from fraud_platform.serve.reasons import REASONS_MAX, SHARE_MIN_STEPS, SHARE_STEPS, FamilyReasons, chosen

CONTRACT = load_contract()
TEXTS = ReasonTexts.from_yaml(load_reasons_text())
NAMES = CONTRACT.names
FAMILY_OF = TEXTS.family_of(NAMES)
Build = Callable[..., dict[str, Any]]


def families(row: np.ndarray, contributions: np.ndarray, used: tuple[int, ...] | None = None) -> list[str]:
    used = tuple(range(len(NAMES))) if used is None else used
    return [reason.code for reason in FamilyReasons(TEXTS, NAMES, used).of(row, contributions)]


def raised(**by_feature: float) -> np.ndarray:
    return np.array([by_feature.get(name, 0.0) for name in NAMES])


@pytest.fixture(scope="module")
def judge(tiny_parts: BundleParts) -> Iterator[Judge]:
    judge = Judge(package.build(tiny_parts))
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def rows(tiny_columns: dict[str, np.ndarray]) -> list[Vector]:
    listed = [tiny_columns[name].tolist() for name in NAMES]
    return [tuple(None if v != v else v for v in row) for row in zip(*listed, strict=True)][:200]


def test_families_stand_by_their_share_and_the_weak_are_not_named() -> None:
    row = np.zeros(len(NAMES))
    strong = raised(device_txn_count_1h=3.0, amount_minor=1.0, hour_of_day=0.1, ip_txn_count_1h=-2.0)
    assert families(row, strong) == ["M02", "M05"]
    assert families(row, -strong) == ["M03"]
    assert families(row, raised()) == []


def test_shares_that_differ_by_less_than_the_grid_stand_in_the_order_of_the_file() -> None:
    row = np.zeros(len(NAMES))
    for nudge in (-1e-3, -1e-15, 0.0, 1e-15, 1e-3):
        two = raised(device_txn_count_1h=1.0, amount_minor=1.0 + nudge)
        assert families(row, two) == ["M02", "M05"], nudge


def test_what_was_not_scored_is_never_named() -> None:
    """A feature that is unknown, or that the model never splits by, had no say in the score."""
    both = raised(device_txn_count_1h=3.0, amount_minor=1.0)
    unknown = np.where(both == 3.0, np.nan, 0.0)
    assert families(unknown, both) == ["M05"]
    assert families(np.zeros(len(NAMES)), both, used=(CONTRACT.index("amount_minor"),)) == ["M05"]


def test_used_features_are_those_of_the_model_s_splits(judge: Judge, tiny_parts: BundleParts) -> None:
    split = set()
    for line in tiny_parts.model_text.splitlines():
        if line.startswith("split_feature="):
            split |= {int(place) for place in line.removeprefix("split_feature=").split()}
    assert judge._booster is not None
    assert set(judge._booster.used_features) == split
    assert 0 < len(split) <= len(NAMES)


def test_every_named_family_has_a_known_feature_that_the_model_reads(
    judge: Judge, rows: list[Vector], transaction_request: Build
) -> None:
    asked = msgspec.convert(transaction_request(amount_minor=90_000), type=Transaction)
    assert judge._booster is not None
    used = set(judge._booster.used_features)
    codes = {family.code: place for place, family in enumerate(TEXTS.families)}
    for row in rows:
        encoded = judge.bundle.encoder.vector(row, CONTRACT)
        speaking = {FAMILY_OF[place] for place in used if not np.isnan(encoded[place])}
        named = {reason.code for reason in judge.judge(asked, row).reasons} & codes.keys()
        assert {codes[code] for code in named} <= speaking


def test_the_price_has_a_place_behind_the_causes() -> None:
    rules, causes = [Reason(f"R{n}", "r") for n in range(5)], [Reason(f"M{n}", "m") for n in range(5)]
    price = TEXTS.prices["missed_fraud"]

    def codes(rules: list[Reason], causes: list[Reason], price: Any) -> list[str]:
        return [reason.code for reason in chosen(rules, causes, price)]

    assert codes([], causes, price) == ["M0", "M1", "M2", "P01"]
    assert codes(rules[:1], causes, price) == ["R0", "M0", "M1", "P01"]
    assert codes(rules[:3], causes, price) == ["R0", "R1", "R2", "P01"]
    assert codes(rules, causes, price) == ["R0", "R1", "R2", "R3"]
    assert codes(rules[:1], causes, None) == ["R0", "M0", "M1", "M2"]


def test_an_adverse_action_by_the_policy_says_which_price_decided(
    judge: Judge, rows: list[Vector], transaction_request: Build
) -> None:
    asked = msgspec.convert(transaction_request(amount_minor=90_000), type=Transaction)
    seen = set()
    for row in rows:
        judged = judge.judge(asked, row)
        if judged.action != "approve" and judged.decided_by == "policy":
            assert judged.reasons[-1].code == TEXTS.prices[judged.price].code
            seen.add(judged.price)
        if judged.action == "approve":
            assert judged.reasons == ()
        assert len(judged.reasons) <= REASONS_MAX
    assert {"missed_fraud", "blocked_customer"} <= seen


def test_tiny_changes_of_the_inputs_leave_action_and_reasons_alone(
    judge: Judge, rows: list[Vector], transaction_request: Build
) -> None:
    asked = msgspec.convert(transaction_request(amount_minor=90_000), type=Transaction)
    adverse = 0
    for row in rows:
        before = judge.judge(asked, row)
        adverse += before.action != "approve"
        for factor in (1.0 - 1e-9, 1.0 + 1e-9):
            nudged = tuple(value * factor if isinstance(value, float) else value for value in row)
            after = judge.judge(asked, nudged)
            assert (after.action, after.reasons, after.price) == (before.action, before.reasons, before.price)
    assert adverse > 50


def test_the_last_bits_of_score_and_contributions_leave_the_reasons_alone(
    judge: Judge, rows: list[Vector], transaction_request: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = msgspec.convert(transaction_request(amount_minor=90_000), type=Transaction)
    before = [judge.judge(asked, row) for row in rows]
    booster, explain = judge._booster, judge._explain
    assert booster is not None
    assert explain is not None
    score, rng = booster.score, np.random.default_rng(3)
    monkeypatch.setattr(booster, "score", lambda row: float(np.nextafter(score(row), rng.choice([0.0, 1.0]))))
    monkeypatch.setattr(
        judge,
        "_explain",
        lambda row: explain(row) * (1.0 + rng.choice([-1e-12, 1e-12], len(row))),
    )
    after = [judge.judge(asked, row) for row in rows]
    assert [one.reasons for one in after] == [one.reasons for one in before]


def test_the_grid_can_always_name_the_strongest() -> None:
    """Even where every family raised the score alike, at least one is named."""
    assert SHARE_MIN_STEPS / SHARE_STEPS <= 0.1
    first = {family: NAMES[FAMILY_OF.index(family)] for family in sorted(set(FAMILY_OF))}
    assert len(families(np.zeros(len(NAMES)), raised(**dict.fromkeys(first.values(), 1.0)))) >= 1


def test_every_rule_of_the_shipped_file_has_its_text_in_the_reasons_file_and_none_is_left_over() -> None:
    assert {rule["code"] for rule in yaml.safe_load(load_rules_text())["rules"]} == TEXTS.rules.keys()


def test_a_rule_without_a_text_makes_no_bundle(tiny_parts: BundleParts) -> None:
    unnamed = replace(tiny_parts, rules_text=load_rules_text().replace("code: R01", "code: R77"))
    with pytest.raises(BundleError, match=r"rule codes \['R77'\] have no text"):
        package.build(unnamed)


def test_a_rule_speaks_with_the_text_of_the_reasons_file(
    tiny_parts: BundleParts, transaction_request: Build
) -> None:
    text = load_reasons_text().replace(TEXTS.rules["R01"], "Another wording")
    judge = Judge(package.build(replace(tiny_parts, reasons_text=text)), has_model=False)
    asked = msgspec.convert(transaction_request(), type=Transaction)
    testing = {"card_txn_count_1h": 25.0, "card_merchant_distinct_24h": 25.0}
    judged = judge.judge(asked, tuple(testing.get(name) for name in NAMES))
    assert judged.reasons[0] == Reason("R01", "Another wording")


def test_every_price_and_every_rung_without_a_score_has_a_text() -> None:
    assert set(TEXTS.prices) == set(PRICES)
    assert set(TEXTS.fallback) == {"rules", "request", "fixed"}
    assert all(a != b for a, b in pairwise(sorted(TEXTS.codes)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("code: P05", "code: P04"), r"\['P04'\]"),
        (("code: F01", "code: R01"), r"\['R01'\]"),
        (("  capacity: {", "  capacities: {"), "reason prices"),
        (("  fixed: {", "  last: {"), "reason fallback"),
        (("version: 2", "version: 1"), "version: 2"),
        (("text: The payment could not be assessed in the usual way", "text: ''"), "not empty"),
    ],
)
def test_a_wrong_reasons_file_names_what_is_wrong(change: tuple[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ReasonTexts.from_yaml(load_reasons_text().replace(*change))
