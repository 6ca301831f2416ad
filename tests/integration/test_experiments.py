"""Experiments over a warehouse: assets, commands, trials in MLflow, and a candidate that uses them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fraud_platform.adapters.candidates import read_candidate
from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.adapters.mlflow import load_mlflow
from fraud_platform.cli import app
from fraud_platform.defs.blend import BlendConfig, blend
from fraud_platform.defs.experiments import Experiment, FoldConfig
from fraud_platform.defs.imbalance import ImbalanceConfig, imbalance_bakeoff_table
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.search import SearchConfig, searched_params
from fraud_platform.defs.train import TrainConfig, candidate, candidate_split
from fraud_platform.learning.imbalance import WAYS
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.settings import Settings

START = 20_000 * DAY
DAYS = 120
FOLDS: dict[str, Any] = {
    "validation_folds": 1,
    "test_folds": 1,
    "assessed_days": 10,
    "held_out_days": 14,
    "rows_max": 700,
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tiny_columns: dict[str, np.ndarray]) -> Platform:
    """Payments of 120 days; the larger the amount, the likelier a fraud."""
    platform = Platform(Settings(tmp_path_factory.mktemp("var")))
    features = pd.DataFrame(tiny_columns)
    place = np.arange(len(features))
    told = {
        "transaction_id": [f"t{i:05d}" for i in place],
        "event_time": START + place * (DAYS * DAY // len(place)),
        "card_id": [f"c{i % 200}" for i in place],
        "customer_id": None,
        "merchant_id": "m",
        "currency": "EUR",
    }
    rows = pd.concat([pd.DataFrame(told), features], axis=1)
    noise = np.random.default_rng(8).random(len(rows))
    rows["is_fraud"] = np.log(features["amount_minor"]) > 8.7 + 2.5 * noise
    platform.warehouse.write_table("training.training_set", rows)
    reports = rows.loc[rows["is_fraud"], ["transaction_id", "event_time"]]
    labels = {"transaction_id": reports["transaction_id"], "source": "chargeback", "outcome": "fraud"}
    platform.warehouse.write_table(
        "ingest.labels", pd.DataFrame(labels | {"known_at": reports["event_time"] + 20 * DAY})
    )
    return platform


@pytest.fixture(scope="module")
def shown(platform: Platform) -> Callable[..., dict[str, Any]]:
    """An asset's metadata, materialized with a config."""

    def materialize(asset: dg.AssetsDefinition, config: dg.Config) -> dict[str, Any]:
        name = asset.op.name
        result = dg.materialize(
            [asset], resources={"platform": platform}, run_config=dg.RunConfig(ops={name: config})
        )
        return dict(result.asset_materializations_for_node(name)[0].metadata)

    return materialize


def records(metadata: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [record.data for record in metadata[name].records]


def test_the_bakeoff_shows_every_way_and_reconciles(shown: Callable[..., dict[str, Any]]) -> None:
    metadata = shown(imbalance_bakeoff_table, ImbalanceConfig(**FOLDS))
    rows = records(metadata, "validation_folds")
    assert [row["way"] for row in rows] == [way.name for way in WAYS]
    cheapest = min(rows, key=lambda row: row["cost"])
    assert metadata["winner"].value == cheapest["way"]
    default = rows[0]
    for row in rows:
        assert row["saved"] == pytest.approx(default["cost"] - row["cost"])
        assert row["saved_low"] <= row["saved"] <= row["saved_high"]
        assert 0 < row["share"] <= 1
    assert {row["way"] for row in records(metadata, "test_folds")} == {"default", cheapest["way"]}
    assert f"least cost on the validation folds: {cheapest['way']}" in metadata["summary"].value


def test_the_blend_says_why(shown: Callable[..., dict[str, Any]]) -> None:
    metadata = shown(blend, BlendConfig(**FOLDS, latency_budget_ms=0.0))
    assert metadata["is_kept"].value is False
    assert "above the budget of 0 ms" in metadata["reasons"].value
    assert {row["way"] for row in records(metadata, "latency")} >= {"lightgbm", "xgboost"}


def test_what_a_search_chooses_on_never_judges_a_candidate(platform: Platform) -> None:
    frame = platform.warehouse.frame(f"select * from {TRAINING_SET}")
    judges = candidate_split(platform, frame).test
    folds = Experiment(platform, FoldConfig(**FOLDS), spares_test=True).folds
    assert {fold.role for fold in folds} == {"validation", "test"}
    assert max(fold.split.test.end_ms for fold in folds) <= judges.start_ms
    assert (
        max(fold.split.test.end_ms for fold in Experiment(platform, FoldConfig(**FOLDS)).folds)
        > judges.start_ms
    )


def test_a_candidate_learns_what_was_known_when_the_rows_that_judge_it_began(
    platform: Platform, shown: Callable[..., dict[str, Any]]
) -> None:
    """Of 20 frauds of the train part the report comes a day after that."""
    config = TrainConfig(rounds_max=6)
    frauds = told_frauds(shown(candidate, config))
    warehouse = platform.warehouse
    labels = warehouse.frame("select * from ingest.labels")
    frame = warehouse.frame(f"select * from {TRAINING_SET}")
    split = candidate_split(platform, frame)
    is_late = split.train.mask(frame["event_time"].to_numpy()) & frame["is_fraud"].to_numpy()
    late = labels["transaction_id"].isin(frame.loc[is_late, "transaction_id"].head(20))
    later = labels.assign(known_at=labels["known_at"].where(~late, split.test.start_ms + DAY))
    warehouse.write_table("ingest.labels", later)
    try:
        assert told_frauds(shown(candidate, config)) == frauds - 20
    finally:
        warehouse.write_table("ingest.labels", labels)


def told_frauds(metadata: dict[str, Any]) -> int:
    """Of the train part."""
    found = re.search(r"([0-9,]+) frauds", metadata["train"].value)
    assert found
    return int(found[1].replace(",", ""))


def test_a_search_goes_on_is_logged_once_and_teaches_when_told_to(
    platform: Platform, shown: Callable[..., dict[str, Any]]
) -> None:
    options = {**FOLDS, "metric": "average_precision", "minutes": 60.0}
    assert shown(searched_params, SearchConfig(**options, trials=2))["dagster/row_count"].value == 2
    metadata = shown(searched_params, SearchConfig(**options, trials=4))
    assert [row["trial"] for row in records(metadata, "trials")] == [0, 1, 2, 3]

    client = load_mlflow().MlflowClient(platform.settings.mlflow_uri)
    experiment = client.get_experiment_by_name(f"{platform.settings.registered_model}-search")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "trial" not in run.data.tags]
    children = {int(run.data.tags["trial"]): run for run in runs if run is not parent}
    assert sorted(children) == [0, 1, 2, 3]
    assert len(runs) == 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert parent.data.metrics["trials"] == 4
    (best,) = records(metadata, "best")
    assert parent.data.metrics["best_num_leaves"] == best["num_leaves"]
    assert any(run.data.params["num_leaves"] == str(best["num_leaves"]) for run in children.values())

    trained = shown(candidate, TrainConfig(use_search=True, rounds_max=5))
    model = read_candidate(platform.settings.candidates / trained["fingerprint"].value)
    assert model.params.num_leaves == best["num_leaves"]
    assert model.log.params_source.startswith(f"search {metadata['study'].value}, 4 trials")
    assert trained["params_source"].value == model.log.params_source


def _run(platform: Platform, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["--var", str(platform.settings.var), *arguments], env={"COLUMNS": "240"})
    return done.exit_code, done.output if done.exit_code == 0 else str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("search", "--metric", "profit"), "metric 'profit' must be one of cost, average_precision"),
        (("search", "--trials", "0"), "trials=0: must be above 0"),
        (("search", "--folds", "0"), "2"),
        (("run", "--dataset", "handbook", "--source", "/", "--use-search"), "there is no search result at"),
        (("benchmark", "imbalance", "--rows-max", "0"), "rows_max=0: must be 1 or more"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_refused(platform: Platform, arguments: tuple[str, ...], error: str) -> None:
    status, said = _run(platform, *arguments)
    assert status != 0
    assert error in said


def test_the_command_prints_both_tables_and_the_verdict(platform: Platform) -> None:
    status, said = _run(platform, "benchmark", "blend", "--rows-max", "500", "--folds", "1")
    assert status == 0, said
    for told in ("on the validation folds", "on the test folds", "xgboost", "blend 0.5", "p99 ms a row"):
        assert told in said
    assert "LightGBM alone stays" in said or "worth serving" in said
