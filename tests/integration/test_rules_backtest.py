"""Rules over a warehouse: the rows that are taken, the command and the asset."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fraud_platform.adapters.duckdb_history import history, mature_frame, mature_rows
from fraud_platform.cli import app
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.rules import compared_model, rules_backtest, window
from fraud_platform.errors import SettingsError, SourceError
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.schema import TRANSACTION_COLUMNS
from fraud_platform.settings import Settings
from fraud_platform.train import Part

START = 20_000 * DAY
COUNT = 400
IMMATURE = 40
"""Transactions that are not in the training set: nothing may count them."""


def asked() -> pd.DataFrame:
    place = np.arange(COUNT + IMMATURE)
    frame = pd.DataFrame({column.name: None for column in TRANSACTION_COLUMNS}, index=place)
    return frame.assign(
        transaction_id=[f"t{i:04d}" for i in place],
        event_time=START + place * (DAY // 40),
        card_id=[f"c{i % 20}" for i in place],
        merchant_id="m",
        device_id=[None if i % 10 == 0 else f"d{i % 7}" for i in place],
        amount_minor=1_000,
        currency="EUR",
        channel=["ecommerce" if i % 2 == 0 else "pos" for i in place],
    )


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Each tenth transaction is online and names no device; each twentieth is a fraud, on a busy device."""
    platform = Platform(Settings(tmp_path_factory.mktemp("var")))
    transactions = asked()
    mature = transactions[:COUNT]
    plain = mature[["transaction_id", "event_time", "card_id", "customer_id", "merchant_id", "currency"]]
    features = dict.fromkeys(platform.contract.names, 0.0) | dict.fromkeys(
        platform.contract.category_names, "x"
    )
    busy = np.where(np.arange(COUNT) % 20 == 0, 6.0, 0.0)
    made = pd.DataFrame(features, index=mature.index).assign(
        amount_minor=mature["amount_minor"], channel=mature["channel"], device_card_distinct_7d=busy
    )
    training_set = pd.concat([plain, made], axis=1).assign(is_fraud=busy > 0)
    platform.warehouse.write_table("ingest.transactions", transactions.sample(frac=1.0, random_state=1))
    platform.warehouse.write_table("training.training_set", training_set.sample(frac=1.0, random_state=2))
    return platform


def command(platform: Platform, *arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["--var", str(platform.settings.var), "rules", *arguments])
    assert done.exit_code == status, done.output
    return done.output


def test_only_mature_rows_come_in_order_with_the_requests_fields(platform: Platform) -> None:
    part = history(platform.warehouse)
    assert part == Part(START, START + (COUNT - 1) * (DAY // 40) + 1)
    pieces = list(mature_rows(platform.warehouse, part, at_once=100))
    assert [len(piece) for piece in pieces] == [80, 80, 80, 80, 80], "two whole days each"
    rows = pd.concat(pieces)
    assert rows["transaction_id"].tolist() == asked()["transaction_id"][:COUNT].tolist()
    assert rows["device_id"].isna().sum() == COUNT // 10
    pd.testing.assert_frame_equal(mature_frame(platform.warehouse, part), rows.reset_index(drop=True))
    assert mature_frame(platform.warehouse, Part(0, 1)).empty


def test_a_window_is_cut_to_what_is_there(platform: Platform) -> None:
    second_day = window(platform, "2024-10-05", "2024-10-06")
    assert second_day == Part(START + DAY, START + 2 * DAY)
    assert window(platform, "2000-01-01", "2100-01-01") == history(platform.warehouse)
    with pytest.raises(SettingsError, match="leaves no mature row"):
        window(platform, "2030-01-01")
    with pytest.raises(SourceError, match="there is no warehouse"):
        window(Platform(Settings(platform.settings.var, "handbook", platform.settings.var)))


def test_a_model_that_is_not_there_is_none(platform: Platform) -> None:
    assert compared_model(platform) is None
    assert not platform.settings.mlflow_home.exists(), "to ask makes nothing"
    with pytest.raises(SettingsError, match="must be one of champion, candidate, none"):
        compared_model(platform, "best")


def cells(output: str, rule: str) -> list[str]:
    line = next(line for line in output.splitlines() if f" {rule} " in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_command_tells_what_each_rule_would_have_done(platform: Platform) -> None:
    output = command(platform, "backtest")
    assert "400 mature rows with 20 frauds" in output
    assert cells(output, "device_of_many_cards")[1:6] == ["live", "decline", "20", "100.0%", "100.0%"]
    assert cells(output, "online_without_device")[1:6] == ["off", "step_up", "40", "50.0%", "100.0%"]
    day = command(platform, "backtest", "--from", "2024-10-05", "--until", "2024-10-06")
    assert cells(day, "device_of_many_cards")[3] == "2"


def test_another_file_with_its_own_lists(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "version: 2\nrules:\n  - {name: mine, mode: off, priority: 1, action: decline, code: M1,\n"
        "     text: Mine, owner: me, when: \"request.card_id in lists.bad && request.channel in ['pos']\"}\n"
    )
    (tmp_path / "lists.yaml").write_text(
        "version: 1\nlists:\n  bad: {of: card_id, text: Bad, owner: me, tokens: [c1, c2]}\n"
    )
    output = command(platform, "backtest", "--rules", str(tmp_path / "mine.yaml"))
    assert cells(output, "mine")[1:4] == ["off", "decline", "20"]
    checked = command(platform, "check", str(tmp_path / "mine.yaml"))
    assert "1 rules (0 live, 0 shadow, 1 off), 1 lists" in checked
    assert "in ['pos']" in checked, "square brackets are no markup"


def test_shipped_rules_are_listed_and_a_wrong_file_is_refused(platform: Platform, tmp_path: Path) -> None:
    listed = command(platform, "list")
    assert all(rule.name in listed for rule in platform.rules.declared)
    assert "blocked_cards" in listed
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(platform.rules_text.replace("card_speed_kmh >= 1500", "card_speed_kmh >= 'fast'"))
    done = CliRunner().invoke(app, ["--var", str(platform.settings.var), "rules", "check", str(wrong)])
    assert isinstance(done.exception, SettingsError)
    assert "rule 'impossible_travel'" in str(done.exception)
    missing = CliRunner().invoke(app, ["--var", str(platform.settings.var), "rules", "check", "none.yaml"])
    assert "none.yaml cannot be read" in str(missing.exception)


def test_the_asset_shows_a_table_by_rule(platform: Platform) -> None:
    result = dg.materialize([rules_backtest], resources={"platform": platform})
    metadata = result.asset_materializations_for_node("evaluate__rules_backtest")[0].metadata
    assert (metadata["dagster/row_count"].value, metadata["model"].value) == (COUNT, "none")
    records = {record.data["rule"]: record.data for record in metadata["by_rule"].records}
    assert set(records) == {rule.name for rule in platform.rules.declared}
    assert records["device_of_many_cards"]["hits"] == 20
    assert records["device_of_many_cards"]["saved"] > 0
    assert metadata["cost_approve_all"].value > metadata["cost_rules"].value
