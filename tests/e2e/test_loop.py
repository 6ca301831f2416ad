"""The whole loop as a user walks it: real processes over two small worlds, each run once for the session.

`demo_run` plays the demo on a world whose model passes its gate; `own_run` takes the README's mapping and
somebody's CSV files, of which so few are mature that the gate refuses the model.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import psutil
import pytest

from fraud_platform.adapters.decision_log import verify
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.great_expectations import load_suite
from fraud_platform.adapters.landing import WrittenWorld, written_world
from fraud_platform.definitions import build_defs
from fraud_platform.defs.platform import EXPECTATIONS, Platform
from fraud_platform.labels import LabelRule
from fraud_platform.schema import MILLISECONDS_PER_DAY, LabelEvent
from fraud_platform.settings import Settings
from fraud_platform.simulate import WorldSpec

pytestmark = pytest.mark.e2e

RUN = ("run", "--dataset", "mine.yaml", "--source", "path/to/files")
KILL_SECONDS = 300


def table(printed: str, title: str) -> dict[str, list[str]]:
    """The rows of the printed table whose first column has this title, by their first cell."""
    lines = printed.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("┃") and title in line.split("┃")[1])
    rows = {}
    for line in lines[start + 2 :]:
        if line.startswith("└"):
            break
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        rows[cells[0]] = cells[1:]
    return rows


def numbers(cells: list[str]) -> list[int]:
    return [int(cell.replace(",", "")) for cell in cells if cell and cell != "yes"]


def packaged(printed: str) -> tuple[str, str]:
    """The printed bundle id and Bento tag."""
    found = re.search(r"bundle ([0-9a-f]{16}), Bento (fraud_platform:\S+)", printed)
    assert found
    return found[1], found[2]


def warehouse(var: Path, dataset: str) -> Warehouse:
    return Warehouse(var / dataset / "warehouse.duckdb")


def counts(found: Warehouse) -> dict[str, int]:
    """Rows of every table of a warehouse."""
    names = found.frame(
        "select table_schema || '.' || table_name as name from information_schema.tables order by 1"
    )
    return {name: found.count(name) for name in names["name"]}


def processes_of(var: Path) -> list[psutil.Process]:
    """Every process that was started with, or in, a path below this var."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(str(var) in text for text in told):
            found.append(process)
    return found


# The demo


@pytest.fixture(scope="module")
def demo_again(demo_run) -> str:
    return demo_run.cli("demo", "--transactions", "100000", "--live", "600")


def test_the_demo_ends_in_a_decision_of_the_running_bento(demo_run) -> None:
    printed = demo_run.printed
    assert "600 live transactions decided: " in printed
    decision = printed.split("one decision, as answered:")[1]
    assert re.search(r'"action": "(approve|step_up|decline)"', decision)
    assert re.search(r'"bundle_id": "[0-9a-f]{64}"', decision)
    assert "Go on with:" in printed


def test_the_demo_stops_everything_that_it_started(demo_run) -> None:
    assert processes_of(demo_run.var) == []


def test_every_decision_is_in_an_intact_log_and_in_the_warehouse(demo_run) -> None:
    log = demo_run.var / "simulated" / "service" / "decisions"
    assert sum(verify(log).values()) >= 600
    assert warehouse(demo_run.var, "simulated").count("monitor.decisions") >= 600


def test_every_decision_comes_out_again_to_the_byte(demo_run) -> None:
    verified = demo_run.cli("audit", "verify", "--dataset", "simulated").strip().splitlines()
    assert verified[-1].endswith("anchors: whole")
    replayed = demo_run.cli("replay", "--all", "--dataset", "simulated").strip().splitlines()
    assert " equal to the byte, 0 differ" in replayed[-1]


def test_what_the_world_delivered_is_what_ingest_took_in(demo_run) -> None:
    rows = table(demo_run.printed, "asset")
    rows_in, canonical, duplicates, quarantined, held = numbers(rows["ingest/transactions"])
    assert rows_in == canonical + duplicates + quarantined
    assert [duplicates, quarantined] == [0, 0]
    world = delivered(demo_run.var / "simulated")
    assert (canonical, held) == (world.transactions, world.transactions)
    labels = numbers(rows["ingest/labels"])
    assert labels == [world.labels, world.labels, 0, 0, world.labels]


def delivered(home: Path) -> WrittenWorld:
    spec = WorldSpec.sized(100_000)
    world = written_world(spec, home / "landing", home.parent / "truth" / home.name, home / "live")
    assert world is not None
    return world


def test_every_check_of_the_demo_passed(demo_run) -> None:
    rows = table(demo_run.printed, "check")
    assert {name.rsplit(":")[1] for name in rows} >= {
        "gate",
        "parity",
        *(load_suite(path).name for path in EXPECTATIONS.glob("*.yaml") if path.stem != "scored_log"),
    }
    assert {cells[0] for cells in rows.values()} == {"yes"}


def test_the_demo_a_second_time_changes_nothing_and_says_so(demo_run, demo_again: str) -> None:
    rows = table(demo_again, "asset")
    assert {name: cells[-1] for name, cells in rows.items()} == dict.fromkeys(rows, "yes")
    rows_in, canonical, duplicates, quarantined, held = numbers(rows["ingest/transactions"])
    assert (canonical, quarantined, duplicates, held) == (0, 0, rows_in, rows_in)
    assert "version 1 (kept)" in demo_again
    assert packaged(demo_again) == packaged(demo_run.printed)
    assert "(unchanged)" in demo_again
    assert re.search(r"monitor/decisions: .*unchanged True", demo_again)
    assert processes_of(demo_run.var) == []


def test_versions_shows_the_approved_champion(demo_run) -> None:
    version, aliases, gate, by, *_ = next(
        [number, *cells] for number, cells in table(demo_run.cli("versions"), "version").items()
    )
    assert (version, aliases, gate, by) == ("1", "champion", "passed", "demo")


def test_features_shows_the_contract(demo_run) -> None:
    printed = demo_run.cli("features")
    count = len(Platform(Settings(demo_run.var)).contract.features)
    assert f"{count} features, contract " in printed
    assert "card_txn_count_1h" in demo_run.cli("features", "card_txn_count_1h")


def test_parity_compares_served_with_built(demo_run) -> None:
    printed = demo_run.cli("parity", "--events", "2000")
    last = printed.strip().splitlines()[-1]
    assert re.fullmatch(r"compared [\d,]+ values of [\d,]+ transactions: 0 mismatches", last)
    for tail in ("five-minute", "one-day"):
        assert re.search(rf"a {tail} tail: [\d,]+ of [\d,]+ windowed values wrong", printed)
    assert len(re.findall(r"AP 0\.\d+ instead of 0\.\d+", printed)) == 2


def test_monitor_reads_the_log(demo_run) -> None:
    printed = demo_run.cli("monitor")
    for name in ("decisions", "drift", "performance", "retrain_signal"):
        assert f"monitor/{name}: " in printed


# One's own files


def test_own_files_reconcile(own_run, bad_csv_rows: dict[str, dict[str, str]]) -> None:
    rows = table(own_run.printed, "asset")
    rows_in, canonical, duplicates, quarantined, held = numbers(rows["ingest/transactions"])
    assert (rows_in, duplicates, quarantined) == (canonical + len(bad_csv_rows), 0, len(bad_csv_rows))
    assert held == canonical
    assert numbers(rows["ingest/labels"])[3] == 1


def test_quarantine_names_row_column_value_and_rule(own_run, bad_csv_rows: dict[str, dict[str, str]]) -> None:
    held = warehouse(own_run.var, "mine").frame("select * from ingest.quarantine")
    assert set(held["rule"]) == {*bad_csv_rows, "unknown_transaction"}
    by_rule = held.set_index("rule")
    assert by_rule.loc["negative_amount", "value"] == "-1.00"
    assert by_rule.loc["negative_amount", "column_name"] == "amount"
    assert by_rule.loc["unreadable_time", "value"] == "yesterday"
    assert not held.astype(str).apply(lambda column: column.str.contains("4111111111111111")).any().any()


def test_a_version_that_failed_its_gate_is_refused(own_run) -> None:
    assert table(own_run.printed, "check")["register/model_version:gate"][0] == "no"
    command = ("approve", "1", "--by", "Ada Lovelace", "--reason", "I like it", "--dataset", "mine.yaml")
    printed = own_run.cli(*command, status=1)
    assert printed.startswith("error: version 1 failed its gate (")
    assert not list((own_run.var / "mine" / "reports").glob("approvals*"))
    assert table(own_run.cli("versions", "--dataset", "mine.yaml"), "version")["1"][1] == "failed"


def test_a_missing_column_stops_with_one_clear_line_before_anything_is_written(
    own_run, tmp_path: Path
) -> None:
    source = tmp_path / "files"
    shutil.copytree(own_run.cli.cwd / "path/to/files", source)
    path = source / "tx" / "tx.csv"
    pd.read_csv(path, dtype=str, nrows=50).drop(columns="shop").to_csv(path, index=False)
    cli = type(own_run.cli)(tmp_path / "var", own_run.cli.cwd)
    printed = cli("run", "--dataset", "mine.yaml", "--source", str(source), status=1)
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "shop" in errors[0]
    assert "Traceback" not in printed
    assert not warehouse(cli.var, "mine").exists("ingest.transactions")


# Killed and started again

Progress = Callable[[Path, str, list[psutil.Process]], bool]


def _warehouse_is_open(home: Path, printed: str, family: list[psutil.Process]) -> bool:
    return (home / "warehouse.duckdb").exists()


def _dbt_is_building(home: Path, printed: str, family: list[psutil.Process]) -> bool:
    return "raw_transactions " in printed and any("build" in process.cmdline() for process in family[1:])


def _features_are_built(home: Path, printed: str, family: list[psutil.Process]) -> bool:
    return "features_dbt " in printed


def _store_is_built(home: Path, printed: str, family: list[psutil.Process]) -> bool:
    return "features__online_store " in printed


def _candidate_is_there(home: Path, printed: str, family: list[psutil.Process]) -> bool:
    return any((home / "candidates").glob("[0-9a-f]*"))


STAGES: dict[str, Progress] = {
    "ingest": _warehouse_is_open,
    "features": _dbt_is_building,
    "online store": _features_are_built,
    "parity": _store_is_built,
    "train": _candidate_is_there,
}


def kill_at(cli: Any, stage: str, output: Path) -> None:
    """Starts the run, and ends it and its children by SIGKILL once it has come to the stage."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            cli.command(*RUN), cwd=cli.cwd, env=cli.env, stdout=file, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        assert process.poll() is None, f"{stage}: ended before it was killed: {output.read_text()}"
        assert time.monotonic() < deadline, f"{stage}: never came to it: {output.read_text()}"
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        try:
            if STAGES[stage](cli.var / "mine", output.read_text(), family):
                break
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.05)
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family, timeout=10)


@pytest.fixture(scope="module")
def killed_run(own_run, tmp_path_factory: pytest.TempPathFactory):
    """A run that was killed at every stage in turn, started again each time, and then let go to its end."""
    cli = type(own_run.cli)(tmp_path_factory.mktemp("killed"), own_run.cli.cwd)
    for stage in STAGES:
        kill_at(cli, stage, cli.var / "printed.txt")
    return type(own_run)(cli, cli(*RUN))


def test_a_killed_run_comes_to_the_same_end(own_run, killed_run) -> None:
    undisturbed, killed = (warehouse(run.var, "mine") for run in (own_run, killed_run))
    assert counts(killed) == counts(undisturbed)
    for name in (
        "ingest.transactions",
        "ingest.labels",
        "features.transaction_features",
        "training.training_set",
    ):
        assert killed.fingerprint(name) == undisturbed.fingerprint(name), name


def test_a_killed_run_trains_the_same_candidate(own_run, killed_run) -> None:
    candidates = [
        sorted(path.name for path in (run.var / "mine/candidates").iterdir()) for run in (own_run, killed_run)
    ]
    assert candidates[0] == candidates[1]
    assert len(candidates[0]) == 1
    versions = table(killed_run.cli("versions", "--dataset", "mine.yaml"), "version")
    assert list(versions) == ["1"]
    assert candidates[0][0].startswith(versions["1"][-1])


# An earlier moment

AS_OF = date(2025, 6, 1)


@pytest.fixture(scope="module")
def as_of_run(killed_run) -> Warehouse:
    """The same files as of an earlier day, in a folder that has seen later labels."""
    killed_run.cli(*RUN, "--as-of", AS_OF.isoformat())
    return warehouse(killed_run.var, "mine")


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def test_as_of_ends_the_training_set_a_maturity_before(own_run, as_of_run: Warehouse) -> None:
    mapping = Platform(Settings(own_run.var, str(own_run.cli.cwd / "mine.yaml"))).mapping
    limit = _ms(AS_OF) - mapping.maturity_days * MILLISECONDS_PER_DAY
    latest = "select max(event_time) as t from training.training_set"
    assert limit - MILLISECONDS_PER_DAY < as_of_run.frame(latest)["t"].iloc[0] <= limit
    assert warehouse(own_run.var, "mine").frame(latest)["t"].iloc[0] > limit


def test_as_of_knows_nothing_that_became_known_later(own_run, as_of_run: Warehouse) -> None:
    rule = LabelRule(45, ("chargeback",))
    events: dict[str, list[LabelEvent]] = {}
    said = as_of_run.frame("select transaction_id, source, outcome, known_at from ingest.labels")
    for row in said.itertuples():
        event = LabelEvent(
            transaction_id=row.transaction_id,
            source=row.source,
            outcome=row.outcome,
            known_at=int(row.known_at),
        )
        events.setdefault(event.transaction_id, []).append(event)
    assert said["known_at"].max() >= _ms(AS_OF)
    for row in as_of_run.frame("select * from training.training_set").itertuples():
        resolved = rule.resolve(events.get(row.transaction_id, []), row.event_time, _ms(AS_OF))
        assert resolved.status == ("fraud" if row.is_fraud else "legitimate"), row.transaction_id


# Daily partitions


def ingest_days(settings: Settings, first: date, last: date) -> None:
    """Materializes the ingest assets for these days through the definitions, as a backfill does."""
    ingest = build_defs(settings).resolve_assets_def(dg.AssetKey(["ingest", "transactions"]))
    days = {"partition_key": str(first)}
    if first != last:
        days = {
            "tags": {
                "dagster/asset_partition_range_start": str(first),
                "dagster/asset_partition_range_end": str(last),
            }
        }
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([ingest], instance=instance, **days)
        assert result.success
        key = dg.AssetKey(["ingest", "transactions"])
        assert len(instance.get_materialized_partitions(key)) == (last - first).days + 1


def test_day_by_day_comes_to_the_same_tables(own_run, tmp_path: Path) -> None:
    mapping, source = own_run.cli.cwd / "mine.yaml", own_run.cli.cwd / "path/to/files"
    settings = Settings(tmp_path, str(mapping), source)
    by_day, full = Warehouse(settings.warehouse), warehouse(own_run.var, "mine")
    first = date(2025, 1, 1)
    ingest_days(settings, first, first)
    day = full.frame(
        "select count(*) as n from ingest.transactions where event_time < ?", [_ms(date(2025, 1, 2))]
    )
    assert by_day.count("ingest.transactions") == day["n"].iloc[0]
    ingest_days(settings, first + timedelta(days=1), date(2025, 3, 31))
    ingest_days(settings, date(2025, 4, 1), date(2026, 6, 30))
    for name in ("ingest.transactions", "ingest.labels"):
        assert by_day.fingerprint(name) == full.fingerprint(name), name
