"""The price of the ladder over a warehouse: the asset and the command."""

from __future__ import annotations

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fraud_platform.adapters.candidates import write_candidate
from fraud_platform.cli import app
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.rungs import priced_rungs, rungs
from fraud_platform.errors import TrainingError
from fraud_platform.evaluate.rungs import APPROVE_ALL
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.schema import TRANSACTION_COLUMNS
from fraud_platform.settings import Settings
from fraud_platform.train import Part, Split, TrainParams, train

START = 20_000 * DAY
DAYS = 60
SPLIT = Split(
    Part(START, START + 30 * DAY),
    Part(START + 30 * DAY, START + 45 * DAY),
    Part(START + 45 * DAY, START + DAYS * DAY),
    gap_ms=0,
)
NAMES = ["model", "rules", "request", "fixed", APPROVE_ALL]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tiny_columns: dict[str, np.ndarray]) -> Platform:
    """Sixty days of payments whose amount tells the frauds, and a candidate that learned from 45 of them."""
    platform = Platform(Settings(tmp_path_factory.mktemp("var")))
    features = pd.DataFrame(tiny_columns)
    place = np.arange(len(features))
    told = {
        "transaction_id": [f"t{i:05d}" for i in place],
        "event_time": START + place * (DAYS * DAY // len(place)),
        "card_id": [f"c{i % 50}" for i in place],
        "customer_id": None,
        "merchant_id": "m",
        "currency": "EUR",
    }
    training_set = pd.concat([pd.DataFrame(told), features], axis=1)
    training_set["is_fraud"] = features["amount_minor"] > 20_000
    asked = pd.DataFrame({column.name: None for column in TRANSACTION_COLUMNS}, index=place)
    asked = asked.assign(**told, amount_minor=features["amount_minor"], channel=features["channel"])
    platform.warehouse.write_table("ingest.transactions", asked)
    platform.warehouse.write_table("training.training_set", training_set)
    with pytest.raises(TrainingError, match="no model whose rungs"):
        priced_rungs(platform)
    params = TrainParams(
        rounds_max=20, early_stopping_rounds=0, min_data_in_leaf=10, legit_share=1.0, threads=1
    )
    write_candidate(train(training_set, platform.contract, SPLIT, params), platform.settings.candidates)
    return platform


def test_the_asset_shows_every_rung(platform: Platform) -> None:
    result = dg.materialize([rungs], resources={"platform": platform})
    metadata = result.asset_materializations_for_node("evaluate__rungs")[0].metadata
    records = {record.data["rung"]: record.data for record in metadata["by_rung"].records}
    assert list(records) == NAMES
    model, approve_all = records["model"], records[APPROVE_ALL]
    assert model["cost"] < approve_all["cost"], "it knows what tells the frauds"
    assert model["missed"] < 0.5 < approve_all["missed"]
    assert approve_all["lost_low"] > 0 == model["lost"]


def test_the_command_tells_the_same(platform: Platform) -> None:
    done = CliRunner().invoke(app, ["--var", str(platform.settings.var), "rungs"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == NAMES
    assert "per 1,000 transactions" in done.output
