"""The commands: what they say last, and how they exit."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_monitor import load_decisions, load_labels
from fraud_platform.adapters.go_live import go_live
from fraud_platform.cli import app
from fraud_platform.settings import VAR_VARIABLE, Settings
from tests.integration.test_go_live import CONTRACT, bundles, warehouse
from tests.integration.test_replay import decide

__all__ = ["bundles", "warehouse"]


@pytest.fixture
def settings(
    warehouse: Warehouse,
    bundles: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """A dataset's folder with a service that has decided, and what it decided in the warehouse."""
    monkeypatch.setenv(VAR_VARIABLE, str(tmp_path))
    settings = Settings(tmp_path)
    go_live(warehouse, CONTRACT, settings.service_state)
    decide(settings.service_state, bundles[CONTRACT.hash], range(30))
    own = Warehouse(settings.warehouse, threads=1)
    contract = load_bundle(bundles[CONTRACT.hash]).contract
    load_decisions(own, settings.service_state, lambda _: contract, 1)
    load_labels(own, settings.service_state, 1)
    return settings


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output or done.exception
    return " ".join(done.output.split())


def test_the_log_is_verified_and_anchored(settings: Settings, tmp_path: Path) -> None:
    assert run("audit", "verify").endswith("2 anchors: whole")
    heads = tmp_path / "heads.json"
    assert "2 heads written" in run("audit", "anchor", "--out", str(heads))
    state = settings.service_state
    assert run("audit", "verify", str(state), "--anchor", str(heads)).endswith("2 anchors: whole")
    path = next((state / "decisions" / "worker-1").glob("*.jsonl"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"propensity":1.0', b'"propensity":0.1', 1))
    said = run("audit", "verify", code=1)
    assert "sequence 1: this line was changed" in said
    assert said.endswith("1 findings")
    assert run("audit", "verify", str(tmp_path / "nothing"), code=1) == ""


def test_decisions_are_replayed_and_one_is_explained(
    settings: Settings,
    bundles: dict[str, Path],
) -> None:
    folder = str(bundles[CONTRACT.hash].parent)
    assert "30 decisions: 30 compared, 30 equal to the byte, 0 differ" in run(
        "replay", "--all", "--bundles", folder
    )
    said = run("replay", "live7", "--bundles", str(bundles[CONTRACT.hash]))
    for word in (
        '"transaction_id":"live7"',
        "moves the score by",
        "expected costs approve",
        "equal to the byte",
    ):
        assert word in said
    assert "not replayed: 1" in run("replay", "live7", code=1)
    assert "give it as" in str(CliRunner().invoke(app, ["replay", "--day", "today"]).exception)
    assert "or --all" in str(CliRunner().invoke(app, ["replay"]).exception)


def test_a_person_is_erased_by_name_and_reason(settings: Settings, bundles: dict[str, Path]) -> None:
    arguments = ("audit", "erase", "--customer", "u3", "--by", "Ada", "--reason", "asked")
    said = run(*arguments)
    assert "1 keys destroyed, 6 decisions and 3 labels are noise, 9 rows removed" in said
    assert "purge them" in said
    assert run("audit", "verify").endswith("2 anchors: whole")
    folder = str(bundles[CONTRACT.hash].parent)
    assert "not replayed: 6, its person was erased" in run("replay", "--all", "--bundles", folder)
    assert "1 stores removed" in run(*arguments, "--with-bases")


def test_nothing_young_is_removed(settings: Settings) -> None:
    said = run("audit", "retain", "--days", "30", "--by", "Ada")
    assert said.startswith("0 chains shortened")
