"""The label delay and its bake-off over a warehouse: the assets, the tables and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fraud_platform.adapters.duckdb_delay import FEATURES, end_of_data, fraud_reports, true_rows
from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.adapters.landing import write_world
from fraud_platform.cli import app
from fraud_platform.cli.simulated import show_delay
from fraud_platform.defs.delay_bakeoff import DelayBakeoffConfig, delay_bakeoff, judged_delay
from fraud_platform.defs.label_delay import label_delay
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.train import TrainConfig, candidate, candidate_split
from fraud_platform.errors import SettingsError, SourceError
from fraud_platform.ingest.mapping import DATASETS
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.settings import Settings
from fraud_platform.simulate import World, WorldSpec, simulate

SPEC = WorldSpec(
    seed=11, days=75, customers=250, transactions_per_day=250, tactics_change=50, fraud_share=0.02
)
SMALL = DelayBakeoffConfig(windows_days=[7], as_ofs=1, assessed_days=10, rounds_max=10)
CONFIG = dg.RunConfig(ops={"learning__delay_bakeoff": SMALL})


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(SPEC)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, world: World) -> Platform:
    """A played and ingested world, with features of which one tells the frauds and the others nothing."""
    platform = Platform(Settings(tmp_path_factory.mktemp("var")))
    settings = platform.settings
    write_world(world, settings.landing, settings.var / "truth" / "simulated", settings.home / "live")
    platform.warehouse.ingest(platform.mapping, settings.landing, SPEC.live_from_ms)
    rows = platform.warehouse.frame("select * from ingest.transactions order by event_time, transaction_id")
    is_fraud = rows["transaction_id"].isin(world.truth.loc[world.truth["is_fraud"], "transaction_id"])
    told: dict[str, object] = {"transaction_id": rows["transaction_id"], "event_time": rows["event_time"]}
    for feature in platform.contract.features:
        missing = None if feature.dtype == "category" else np.nan
        told[feature.name] = rows.get(feature.name, missing)
    noise = np.random.default_rng(1).normal(size=len(rows))
    told["card_txn_count_1h"] = noise + 2.0 * is_fraud.to_numpy()
    platform.warehouse.write_table(FEATURES, pd.DataFrame(told))
    return platform


def test_reports_are_those_known_at_the_moment(platform: Platform, world: World) -> None:
    """One a transaction and source, the first; fails where a later word, or a later transaction, is seen."""
    as_of = SPEC.start_ms + 40 * DAY
    found = fraud_reports(platform.warehouse, as_of)
    known = world.labels["known_at"].dt.tz_convert(None).to_numpy().astype("datetime64[ms]").astype(np.int64)
    told = world.labels.assign(known_at=known)
    told = told.loc[(told["outcome"] == "fraud") & (told["known_at"] < as_of)]
    first = told.groupby(["transaction_id", "source"])["known_at"].min()
    assert found.set_index(["transaction_id", "source"])["known_at"].sort_index().equals(first.sort_index())
    assert 0 < len(found) < (world.labels["outcome"] == "fraud").sum()


def test_the_truth_joins_every_row(platform: Platform, world: World) -> None:
    rows = true_rows(platform.warehouse, platform.settings.var / "truth" / "simulated")
    delivered = world.transactions["event_time"].dt.tz_convert(None) < pd.Timestamp(
        SPEC.live_from_ms, unit="ms"
    )
    truth = world.truth.loc[delivered.to_numpy()]
    assert len(rows) == len(truth)
    assert rows["is_fraud"].sum() == truth["is_fraud"].sum()
    assert rows["is_friendly"].sum() == (truth["campaign_kind"] == "friendly").sum() > 0
    assert not (rows["is_friendly"] & ~rows["is_fraud"]).any()


def test_the_asset_draws_and_tells_the_delay(platform: Platform) -> None:
    result = dg.materialize([label_delay], resources={"platform": platform})
    metadata = result.asset_materializations_for_node("learning__label_delay")[0].metadata
    records = [record.data for record in metadata["by_group"].records]
    assert records[0]["dimension"] == "all"
    assert {"source", "channel"} <= {record["dimension"] for record in records}
    assert metadata["plot_all"].value.startswith("![plot](data:image/png;base64,iVBOR")
    assert metadata["plot_source"].value != metadata["plot_all"].value
    early, at, late = (
        metadata[f"known_at_maturity{suffix}"].value for suffix in ("_low", "", "_by_histogram")
    )
    assert early <= at <= late
    known = platform.warehouse.frame(
        "select count(distinct transaction_id) as n from ingest.labels "
        "where outcome = 'fraud' and known_at < ?",
        [end_of_data(platform.warehouse)],
    )
    assert metadata["dagster/row_count"].value == known["n"].iloc[0]


def test_the_asset_looks_at_labels_as_of_the_moment_asked_for(platform: Platform) -> None:
    config = dg.RunConfig(ops={"learning__label_delay": {"config": {"as_of": "2025-02-20"}}})
    result = dg.materialize([label_delay], resources={"platform": platform}, run_config=config)
    metadata = result.asset_materializations_for_node("learning__label_delay")[0].metadata
    assert "known as of 2025-02-20" in metadata["summary"].value
    assert metadata["horizon_days"].value < 50


def test_a_maturity_window_that_nothing_is_old_enough_for_is_left_out(
    platform: Platform, tmp_path: Path
) -> None:
    """Fails where it stands there as 100 % known."""
    other = other_mapping(platform, tmp_path, maturity_days=SPEC.days + 1)
    result = dg.materialize([label_delay], resources={"platform": other})
    metadata = result.asset_materializations_for_node("learning__label_delay")[0].metadata
    assert metadata["horizon_days"].value < SPEC.days
    assert not [name for name in metadata if name.startswith("known_at_maturity")]
    assert f"window of {SPEC.days + 1} days cannot be told" in metadata["summary"].value


def test_the_bakeoff_is_an_asset_with_tables(platform: Platform) -> None:
    result = dg.materialize([delay_bakeoff], resources={"platform": platform}, run_config=CONFIG)
    metadata = result.asset_materializations_for_node("learning__delay_bakeoff")[0].metadata
    records = [record.data for record in metadata["by_contender"].records]
    names = [record["contender"] for record in records if record["as_ofs"] == "later"]
    assert names[:3] == ["naive", "wait 7", "wait 30"]
    assert names[-1] == "oracle"
    assert metadata["best_window"].value in ("wait 7", "wait 30")
    ways = {record.data["way"]: record.data for record in metadata["by_way"].records}
    assert ways["policy on wait 30"]["cost"] < ways["approve all"]["cost"]


def test_the_command_prints_the_same(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    found = show_delay(platform, SMALL)
    printed = capsys.readouterr().out
    for one in found.contenders["test"]:
        assert one.name in printed
    for line in found.explain():
        assert line in printed
    assert "rules alone" in printed


def test_another_dataset_or_a_missing_truth_is_refused(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="only the simulated world has"):
        judged_delay(Platform(Settings(tmp_path, "handbook", tmp_path)), SMALL, print)
    with pytest.raises(SourceError, match="only a world that the platform played has a truth"):
        true_rows(platform.warehouse, tmp_path)
    other = pd.DataFrame({"transaction_id": ["t"], "is_fraud": [False], "campaign_kind": ["friendly"]})
    other.to_parquet(tmp_path / "truth.parquet")
    with pytest.raises(SourceError, match="it is of another world"):
        true_rows(platform.warehouse, tmp_path)


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--var", str(tmp_path), "benchmark", "simulated", "--transactions", "-1"])
    assert isinstance(done.exception, SettingsError)
    assert "--transactions -1" in str(done.exception)


@pytest.fixture(scope="module")
def taught(platform: Platform, world: World) -> Callable[[Platform], dict[str, Any]]:
    """The metadata of `train/candidate` on the world's rows of before its last 20 days, called mature."""
    columns = platform.warehouse.frame(f"select * from {FEATURES}")
    is_fraud = columns["transaction_id"].isin(world.truth.loc[world.truth["is_fraud"], "transaction_id"])
    rows = columns.assign(is_fraud=is_fraud)
    last = int(rows["event_time"].max())
    platform.warehouse.write_table(TRAINING_SET, rows[rows["event_time"] < last - 20 * DAY])

    def materialize(one: Platform) -> dict[str, Any]:
        config = dg.RunConfig(ops={"train__candidate": TrainConfig(rounds_max=5)})
        result = dg.materialize([candidate], resources={"platform": one}, run_config=config)
        return dict(result.asset_materializations_for_node("train__candidate")[0].metadata)

    return materialize


def other_mapping(platform: Platform, folder: Path, **changes: str | int) -> Platform:
    """The same warehouse under a changed mapping of the simulated dataset."""
    text = (DATASETS / "simulated.yaml").read_text()
    for name, value in changes.items():
        text = re.sub(rf"^{name}:.*\n", "", text, flags=re.MULTILINE) + f"{name}: {value}\n"
    path = folder / "simulated.yaml"
    path.write_text(text)
    return Platform(replace(platform.settings, dataset=str(path)))


def test_rows_of_the_gap_teach_unless_the_mapping_leaves_them_out(
    platform: Platform, taught: Callable[[Platform], dict[str, Any]], tmp_path: Path
) -> None:
    short = {"maturity_days": 14, "split": "{test_days: 8, validation_days: 8}"}
    corrected = taught(other_mapping(platform, tmp_path, **short))
    found = re.fullmatch(
        r"[\d,]+ rows from .*; (\d+) frauds reported before .* count as (\d+), .*",
        corrected["young_rows"].value,
    )
    assert found
    assert 0 < int(found[1]) < int(found[2])
    left_out = taught(other_mapping(platform, tmp_path, **short, young_rows="left_out"))
    assert left_out["young_rows"].value == "none: the dataset's mapping leaves them out"
    assert left_out["fingerprint"].value != corrected["fingerprint"].value


def test_too_few_reports_leave_them_out_and_say_why(
    platform: Platform, taught: Callable[[Platform], dict[str, Any]], tmp_path: Path
) -> None:
    """Fails where a night without a delay model is a night without a candidate: 12 reports in each part that
    teaches are enough for one, and too few to tell how long they take."""
    short = other_mapping(platform, tmp_path, maturity_days=14, split="{test_days: 8, validation_days: 8}")
    told = platform.warehouse.frame("select * from ingest.labels")
    rows = platform.warehouse.frame(f"select * from {TRAINING_SET} order by event_time")
    split = candidate_split(short, rows)
    moments = rows["event_time"].to_numpy()
    few = pd.concat([rows.loc[part.mask(moments)].head(12) for part in (split.train, split.validation)])
    reports = few[["transaction_id"]].assign(source="chargeback", outcome="fraud")
    platform.warehouse.write_table("ingest.labels", reports.assign(known_at=few["event_time"] + DAY))
    try:
        metadata = taught(short)
    finally:
        platform.warehouse.write_table("ingest.labels", told)
    assert re.match(
        r"none: 24 known frauds, of which at most \d+ are old enough", metadata["young_rows"].value
    )
