"""The played world: what must hold of any world, and what makes it worth learning from."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from fraud_platform import schema
from fraud_platform.errors import SettingsError
from fraud_platform.simulate import World, WorldSpec, simulate
from fraud_platform.simulate.tactics import AFTER, BEFORE, KINDS, TACTICS


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(WorldSpec.demo())


@pytest.fixture(scope="module")
def known(world: World) -> pd.DataFrame:
    """Label events with their transaction and its truth; delay in days."""
    frame = world.labels.merge(world.transactions, on="transaction_id", validate="m:1")
    frame = frame.merge(world.truth, on="transaction_id", validate="m:1")
    frame["delay_days"] = (frame["known_at"] - frame["event_time"]) / pd.Timedelta(days=1)
    return frame


@pytest.fixture(scope="module")
def fraud(world: World) -> pd.DataFrame:
    """Fraudulent transactions, and whether they fall after the change of tactics."""
    frame = world.transactions.merge(world.truth.query("is_fraud"), on="transaction_id")
    change = pd.Timestamp(world.spec.start_ms + world.spec.change_ms, unit="ms", tz="UTC")
    first = frame.groupby("campaign")["event_time"].transform("min")
    return frame.assign(is_after=first >= change + pd.Timedelta(days=9))


def test_same_seed_same_world_and_another_seed_another() -> None:
    spec = WorldSpec.sized(8_000)
    first, second, other = simulate(spec), simulate(spec), simulate(replace(spec, seed=8))
    for name in ("transactions", "labels", "truth"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name), check_exact=True)
    assert not set(first.transactions["transaction_id"]) & set(other.transactions["transaction_id"])
    assert not set(first.transactions["card_id"]) & set(other.transactions["card_id"])
    assert first.transactions["amount_minor"].sum() != other.transactions["amount_minor"].sum()


def test_has_the_canonical_columns_and_types(world: World) -> None:
    assert list(world.transactions.columns) == [column.name for column in schema.TRANSACTION_COLUMNS]
    assert list(world.labels.columns) == [column.name for column in schema.LABEL_COLUMNS]
    assert str(world.transactions["event_time"].dtype) == "datetime64[ms, UTC]"
    assert str(world.labels["known_at"].dtype) == "datetime64[ms, UTC]"
    required = [column.name for column in schema.TRANSACTION_COLUMNS if column.is_required]
    assert world.transactions[required].notna().all().all()
    assert world.labels.notna().all().all()
    assert world.transactions["amount_minor"].between(1, 100_000_000).all()


def test_ids_are_unique_opaque_tokens(world: World) -> None:
    assert world.transactions["transaction_id"].is_unique
    for column in schema.ID_COLUMNS:
        assert world.transactions[column].dropna().str.fullmatch(r"[a-z]_[a-p]{16}").all()
    cards = world.transactions.groupby("card_id")["customer_id"].nunique()
    assert cards.max() == 1


def test_covers_its_days_in_order_and_near_its_size(world: World) -> None:
    spec, times = world.spec, world.transactions["event_time"]
    assert times.is_monotonic_increasing
    assert world.labels["known_at"].is_monotonic_increasing
    day = ((times.astype("int64") - spec.start_ms) // schema.MILLISECONDS_PER_DAY).to_numpy()
    assert set(day) == set(range(spec.total_days))
    assert len(times) == pytest.approx(spec.transactions, rel=0.05)
    assert len(times) == pytest.approx(350_000, rel=0.05)


def test_fraud_is_rare_and_of_every_kind(world: World) -> None:
    assert 0.002 <= world.truth["is_fraud"].mean() <= 0.005
    assert len(world.truth) == len(world.transactions)
    kinds = world.truth["campaign_kind"].value_counts()
    assert set(kinds.index) == set(KINDS)
    assert kinds.min() >= 20
    assert (world.truth["campaign"].notna() == world.truth["is_fraud"]).all()
    assert world.truth.dropna().groupby("campaign")["campaign_kind"].nunique().max() == 1


@pytest.mark.parametrize("era", [BEFORE, AFTER])
def test_shares_of_an_era_add_up_to_one(era: int) -> None:
    assert set(TACTICS) == set(KINDS)
    assert sum(tactics[era].share for tactics in TACTICS.values()) == pytest.approx(1.0)


def test_campaigns_start_and_end(fraud: pd.DataFrame) -> None:
    spans = fraud.groupby("campaign")["event_time"].agg(lambda times: times.max() - times.min())
    assert spans.max() < pd.Timedelta(days=75)
    assert spans.median() < pd.Timedelta(days=10)


def test_tactics_change_what_where_and_when(fraud: pd.DataFrame) -> None:
    before, after = fraud[~fraud["is_after"]], fraud[fraud["is_after"]]
    amount = [part.groupby("campaign_kind")["amount_minor"].median() for part in (before, after)]
    assert amount[1]["account_takeover"] < 0.7 * amount[0]["account_takeover"]
    far = [part["merchant_country"].isin(["US", "MX", "BR"]).mean() for part in (before, after)]
    assert far[1] < 0.5 * far[0]
    night = [
        part.query("campaign_kind == 'account_takeover'")["event_time"].dt.hour.lt(7).mean()
        for part in (before, after)
    ]
    assert night[1] < 0.5 * night[0]


def test_honest_customers_shift_mildly(world: World) -> None:
    honest = world.transactions[~world.truth["is_fraud"].to_numpy()]
    change = pd.Timestamp(world.spec.start_ms + world.spec.change_ms, unit="ms", tz="UTC")
    is_online = honest["channel"].eq("ecommerce")
    gain = is_online[honest["event_time"] >= change].mean() - is_online[honest["event_time"] < change].mean()
    assert 0.01 < gain < 0.12


def test_no_label_is_known_before_its_transaction(known: pd.DataFrame) -> None:
    assert (known["known_at"] > known["event_time"]).all()


def test_some_news_comes_after_the_end(world: World) -> None:
    is_late = world.labels["known_at"].astype("int64") >= world.spec.live_from_ms
    assert 0.01 < is_late.mean() < 0.5


def test_delays_differ_by_source_and_kind(known: pd.DataFrame) -> None:
    delay = known[known["is_fraud"]].groupby(["source", "campaign_kind"])["delay_days"].median()
    chargeback = delay["chargeback"]
    assert chargeback["stolen_card"] < chargeback["ring"] < chargeback["friendly"]
    assert chargeback["friendly"] > 40
    assert delay["cardholder_report"]["stolen_card"] < 3
    assert known.query("source == 'chargeback'")["delay_days"].quantile(0.95) > 60


def test_only_a_chargeback_reveals_friendly_fraud(known: pd.DataFrame) -> None:
    friendly = known[known["campaign_kind"] == "friendly"]
    assert set(friendly.query("outcome == 'fraud'")["source"]) == {"chargeback"}


def test_some_fraud_is_never_reported(world: World, known: pd.DataFrame) -> None:
    revealed = set(known.query("outcome == 'fraud'")["transaction_id"])
    fraud = world.truth.query("is_fraud")
    hidden = ~fraud["transaction_id"].isin(revealed)
    assert 0.05 < hidden.mean() < 0.3


def test_some_reports_are_wrong_and_some_of_those_reversed(known: pd.DataFrame) -> None:
    wrong = known[
        ~known["is_fraud"] & (known["outcome"] == "fraud") & (known["source"] == "cardholder_report")
    ]
    reversals = known.query("source == 'manual_review' and outcome == 'legitimate'")
    reversed_at = reversals.groupby("transaction_id")["known_at"].max()
    later = wrong["transaction_id"].map(reversed_at) > wrong["known_at"]
    assert 10 <= len(wrong) <= 200
    assert 0.2 < later.mean() < 0.8


def test_reviews_have_both_outcomes(known: pd.DataFrame) -> None:
    outcome = known.query("source == 'manual_review'")["outcome"].value_counts()
    assert outcome["legitimate"] > outcome["fraud"] > 20


def test_place_device_and_address_follow_the_channel(world: World) -> None:
    by_channel = world.transactions.set_index("channel").notna().groupby(level=0).mean()
    assert by_channel.loc["ecommerce", "latitude"] == 0
    assert by_channel.loc["ecommerce", "device_id"] > 0.9
    assert by_channel.loc["ecommerce", "ip_id"] > 0.95
    assert by_channel.loc["pos", "device_id"] == 0
    assert 0.95 < by_channel.loc["pos", "latitude"] < 1
    assert by_channel.loc["recurring", ["latitude", "device_id"]].max() == 0


def test_popularity_is_skewed_and_moments_tie(world: World) -> None:
    counts = world.transactions["merchant_id"].value_counts(normalize=True)
    assert 0.01 < counts.iloc[0] < 0.15
    assert counts.head(len(counts) // 10).sum() > 0.4
    ties = world.transactions.duplicated(["event_time", "merchant_id"], keep=False).sum()
    assert 10 <= ties <= 0.01 * len(world.transactions)


def test_honest_people_travel_share_and_change_devices(world: World) -> None:
    honest = world.transactions[~world.truth["is_fraud"].to_numpy()]
    assert 0.1 < (honest["card_country"] != honest["merchant_country"]).mean() < 0.5
    assert honest.groupby("device_id")["customer_id"].nunique().gt(1).mean() > 0.02
    assert honest.groupby("customer_id")["device_id"].nunique().median() >= 2
    assert honest.groupby("customer_id")["card_id"].nunique().gt(1).mean() > 0.15


def test_thieves_stop_when_the_card_is_known_to_be_stolen(known: pd.DataFrame, fraud: pd.DataFrame) -> None:
    theft = known[known["is_fraud"] & (known["campaign_kind"] != "friendly")]
    noticed = theft[theft["source"] != "manual_review"].groupby("card_id")["known_at"].min()
    stolen = fraud[fraud["campaign_kind"] != "friendly"]
    stopped = stolen["card_id"].map(noticed)
    assert (stopped.isna() | (stolen["event_time"] < stopped)).all()


def test_rings_and_card_testers_share_devices(fraud: pd.DataFrame) -> None:
    cards = fraud.groupby(["campaign_kind", "device_id"])["card_id"].nunique()
    assert cards["ring"].max() >= 2
    assert cards["card_testing"].max() >= 4


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"days": 3}, "days=3"),
        ({"customers": 5}, "customers=5"),
        ({"tactics_change": 150}, "tactics_change=150"),
        ({"fraud_share": 0.5}, "fraud_share=0.5"),
        ({"seed": -1}, "seed=-1"),
        ({"transactions_per_day": 0}, "transactions_per_day=0"),
    ],
)
def test_an_impossible_spec_is_refused(change: dict[str, float], name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        WorldSpec(**change)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_small_and_short_worlds_play(seed: int) -> None:
    spec = WorldSpec(
        seed=seed, start=date(2024, 2, 20), days=30, customers=100, transactions_per_day=20, tactics_change=1
    )
    world = simulate(spec)
    assert len(world.transactions) == pytest.approx(spec.transactions, rel=0.2)
    assert set(world.truth["campaign_kind"].dropna()) <= set(KINDS)
    assert world.transactions["event_time"].min() >= pd.Timestamp("2024-02-20", tz="UTC")


def test_progress_is_told_and_optional() -> None:
    told: list[float] = []
    simulate(WorldSpec.sized(8_000), lambda text, share: told.append(share))
    assert told == sorted(told)
    assert len(told) >= 4
    assert np.all((np.array(told) >= 0) & (np.array(told) <= 1))
