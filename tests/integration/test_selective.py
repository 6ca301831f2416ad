"""The experiments on declines, over a warehouse and the truth beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from fraud_platform.adapters.candidates import write_candidate
from fraud_platform.adapters.landing import read_truth
from fraud_platform.defs import selective
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SourceError, TrainingError
from fraud_platform.learning.selective_retraining import Retraining, retraining
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.schema import TRANSACTION_COLUMNS
from fraud_platform.settings import Settings
from fraud_platform.train import Part, Split, TrainParams, train

START, DAYS = 20_000 * DAY, 60
SPLIT = Split(
    Part(START, START + 30 * DAY),
    Part(START + 30 * DAY, START + 45 * DAY),
    Part(START + 45 * DAY, START + DAYS * DAY),
    gap_ms=0,
)
PARAMS = TrainParams(rounds_max=20, early_stopping_rounds=0, min_data_in_leaf=10, legit_share=1.0, threads=1)


@pytest.fixture(scope="module")
def training_set(tiny_columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """Sixty days of payments whose amount nearly tells the frauds: of large ones 85 %, of small ones 6 %."""
    features = pd.DataFrame(tiny_columns)
    place = np.arange(len(features))
    told = pd.DataFrame(
        {
            "transaction_id": [f"t{i:05d}" for i in place],
            "event_time": START + place * (DAYS * DAY // len(place)),
            "card_id": [f"c{i % 300}" for i in place],
            "customer_id": None,
            "merchant_id": "m",
            "currency": "EUR",
        }
    )
    chance = np.where(features["amount_minor"] > 20_000, 0.85, 0.06)
    is_fraud = np.random.default_rng(8).random(len(features)) < chance
    return pd.concat([told, features], axis=1).assign(is_fraud=is_fraud)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, training_set: pd.DataFrame) -> Platform:
    platform = Platform(Settings(tmp_path_factory.mktemp("var")))
    asked = pd.DataFrame({column.name: None for column in TRANSACTION_COLUMNS}, index=training_set.index)
    names = [name for name in asked if name in training_set]
    asked = asked.assign(**{name: training_set[name] for name in names})
    platform.warehouse.write_table("ingest.transactions", asked)
    platform.warehouse.write_table("training.training_set", training_set)
    write_candidate(train(training_set, platform.contract, SPLIT, PARAMS), platform.settings.candidates)
    return platform


@pytest.fixture(scope="module")
def truth(platform: Platform, training_set: pd.DataFrame) -> Path:
    folder = platform.settings.var / "truth" / platform.settings.dataset_name
    with pytest.raises(SourceError, match="only a simulated world knows the truth"):
        read_truth(folder)
    folder.mkdir(parents=True)
    training_set[["transaction_id", "is_fraud"]].to_parquet(folder / "truth.parquet")
    return folder


def materialized(asset: Any, platform: Platform, **config: Any) -> dict[str, Any]:
    run_config = {"ops": {asset.op.name: {"config": config}}} if config else {}
    result = dg.materialize([asset], resources={"platform": platform}, run_config=run_config)
    return dict(result.asset_materializations_for_node(asset.op.name)[0].metadata)


def test_the_asset_shows_each_estimate_beside_the_truth(platform: Platform, truth: Path) -> None:
    metadata = materialized(selective.selective_labels, platform, shares=[0.0, 0.9], draws=8, times=2)
    exploring = [record.data for record in metadata["exploring"].records]
    assert [(one["share"], one["limits"]) for one in exploring] == [
        (0.0, "none"),
        (0.9, "none"),
        (0.9, "the policy's"),
    ]
    assert exploring[0]["explored"] == exploring[0]["cost_per_1000"] == 0.0
    assert exploring[1]["explored"] > exploring[2]["explored"], "these declines are of large amounts"
    for measure in ("precision", "recall", "saved"):
        records = [record.data for record in metadata[f"by_{measure}"].records]
        told = {one["estimator"] for one in records if one["share"] == 0.0}
        assert told == {"as_labelled", "model"}
        assert len({one["truth"] for one in records}) == 1
        robust = next(o for o in records if (o["estimator"], o["limits"]) == ("doubly_robust", "none"))
        labelled = next(o for o in records if (o["estimator"], o["share"]) == ("as_labelled", 0.9))
        assert abs(robust["bias"]) < abs(labelled["bias"])


def test_a_truth_of_another_world_is_refused(
    platform: Platform, training_set: pd.DataFrame, truth: Path
) -> None:
    model = train(training_set, platform.contract, SPLIT, PARAMS)
    known = read_truth(truth)
    with pytest.raises(TrainingError, match="the truth does not know transaction 't00001'"):
        selective.decided_world(model, training_set, known.drop(index=1), platform.policy, platform.rules)


def test_what_a_live_rule_has_a_say_in_is_left_out(
    platform: Platform, training_set: pd.DataFrame, truth: Path
) -> None:
    """Nobody would explore it."""
    model = train(training_set, platform.contract, SPLIT, PARAMS)
    ruled = training_set.assign(card_txn_count_1h=25.0, card_merchant_distinct_24h=25.0)
    free = training_set.assign(card_txn_count_1h=1.0, card_distance_km=np.nan)
    both = pd.concat([ruled.iloc[:100], free.iloc[100:]])
    world = selective.decided_world(model, both, read_truth(truth), platform.policy, platform.rules)
    assert world.event_time.min() >= both["event_time"].iloc[100]
    assert world.is_declined.sum() > 0


@pytest.fixture(scope="module")
def retrained(platform: Platform, training_set: pd.DataFrame) -> Retraining:
    return retraining(training_set, platform.contract, platform.policy, PARAMS, draws=2, resamples=100)


def test_each_contender_learns_from_what_it_would_see(retrained: Retraining) -> None:
    found = {one.name: one for one in retrained.contenders}
    assert list(found) == ["all_known", "left_out", "as_labelled", "explored 5%", "explored 10%"]
    seen = {name: (one.declined, one.frauds) for name, one in found.items()}
    assert seen["all_known"] == (retrained.declined, retrained.frauds)
    assert seen["left_out"] == (0.0, 0.0)
    assert seen["as_labelled"] == (retrained.declined, 0.0)
    assert 0 < seen["explored 10%"][1] <= seen["explored 10%"][0] < 0.3 * retrained.declined
    assert found["all_known"].lost.estimate == found["all_known"].lost.high == 0.0


def test_to_take_declines_for_good_ones_costs_most(retrained: Retraining) -> None:
    """The large amounts that the first model declined would look good: what is learned from them is wrong."""
    found = {one.name: one for one in retrained.contenders}
    assert found["as_labelled"].lost.low > 0.0
    assert abs(found["explored 10%"].lost.estimate) < found["as_labelled"].lost.estimate


def test_too_short_a_history_is_refused(training_set: pd.DataFrame, platform: Platform) -> None:
    short = training_set.loc[training_set["event_time"] < START + 30 * DAY]
    with pytest.raises(TrainingError, match="more than 40 are needed"):
        retraining(short, platform.contract, platform.policy, PARAMS)
    nothing = platform.policy.__class__(**{**vars(platform.policy), "blocked_customer": 1e9})
    with pytest.raises(TrainingError, match="declines nothing"):
        retraining(training_set, platform.contract, nothing, PARAMS)


def test_the_asset_shows_each_contender(platform: Platform) -> None:
    metadata = materialized(selective.selective_retraining, platform)
    records = [record.data for record in metadata["by_contender"].records]
    assert [one["contender"] for one in records][:3] == ["all_known", "left_out", "as_labelled"]
    assert all(one["lost_low"] <= one["lost"] <= one["lost_high"] for one in records)
