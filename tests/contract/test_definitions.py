"""The code location, walked: every asset, check, job, schedule and sensor that Dagster is served.

The list of keys is pinned: a module that lets its bare assets fall drops them without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from fraud_platform.definitions import build_defs
from fraud_platform.defs import automation
from fraud_platform.defs.platform import EXPECTATIONS
from fraud_platform.settings import Settings

STAGES = (
    "simulate",
    "ingest",
    "labels",
    "features",
    "train",
    "evaluate",
    "learning",
    "register",
    "package",
    "serve",
    "monitor",
    "learning",
)
MODELS = (
    "card",
    "card_merchant",
    "customer",
    "customer_device",
    "device",
    "ip",
    "merchant",
    "transaction",
)
ASSETS = {
    "simulate/world",
    "ingest/transactions",
    "ingest/labels",
    "ingest/quarantine",
    "staging/stg_transactions",
    "staging/stg_fraud_reports",
    *(f"features/{model}_features" for model in MODELS),
    "features/online_store",
    "features/parity",
    "training/labels",
    "training/training_set",
    "train/candidate",
    "evaluate/evaluation",
    "evaluate/leakage",
    "evaluate/tails",
    "evaluate/rules_backtest",
    "evaluate/rungs",
    "learning/selective_labels",
    "learning/selective_retraining",
    "learning/imbalance_bakeoff",
    "learning/blend",
    "learning/search",
    "learning/label_delay",
    "learning/delay_bakeoff",
    "register/model_version",
    "package/bundle",
    "package/bento",
    "serve/live_store",
    "monitor/decisions",
    "monitor/drift",
    "monitor/performance",
    "monitor/retrain_signal",
    "monitor/declines",
}
CHECKS = {
    "ingest/transactions:raw_transactions",
    "ingest/labels:raw_labels",
    "training/training_set:training_set",
    "monitor/decisions:scored_log",
    "monitor/decisions:chains_are_whole",
    "features/parity:parity",
    "serve/live_store:counts_every_event_once",
    *(f"evaluate/leakage:{n}" for n in ("feature", "score", "shuffled_labels", "future_rows")),
    "register/model_version:gate",
    "package/bundle:judged_as_shipped",
    "training/labels:accepted_values_labels_status__fraud__legitimate__immature",
    "training/labels:not_null_labels_transaction_id",
    "training/labels:unique_labels_transaction_id",
    "staging/stg_fraud_reports:not_null_stg_fraud_reports_known_at",
    "staging/stg_fraud_reports:not_null_stg_fraud_reports_transaction_id",
    "staging/stg_fraud_reports:unique_stg_fraud_reports_transaction_id",
    *(
        f"features/{model}_features:{test}_{model}_features_{column}"
        for model in MODELS
        for test, column in (
            ("not_null", "transaction_id"),
            ("unique", "transaction_id"),
            ("not_null", "event_time"),
        )
    ),
    *(
        f"training/training_set:not_null_training_set_{column}"
        for column in ("transaction_id", "event_time", "card_id", "merchant_id", "is_fraud")
    ),
    "training/training_set:unique_training_set_transaction_id",
}
ASIDE = {"evaluate/tails", "evaluate/rules_backtest", "evaluate/rungs"}
"""They inform, and nothing waits for them."""
EXPERIMENTS = {name for name in ASSETS if name.startswith("learning/")}
"""They inform as well, and take long: nothing starts them by itself."""
OF_THE_PLAYED_WORLD = {
    "simulate/world",
    "learning/delay_bakeoff",
    "learning/selective_labels",
    "learning/selective_retraining",
}
NOT_BLOCKING = {
    "register/model_version:gate": "a version that failed stays as evidence; approve refuses it",
    "package/bundle:judged_as_shipped": "a rule against today's attack ships today, judged or not",
}


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_defs(Settings(tmp_path_factory.mktemp("var")))


@pytest.fixture(scope="module")
def graph(defs: dg.Definitions):
    return defs.resolve_asset_graph()


def _name(key: dg.AssetKey | dg.AssetCheckKey) -> str:
    if isinstance(key, dg.AssetKey):
        return key.to_user_string()
    return f"{key.asset_key.to_user_string()}:{key.name}"


def test_the_assets_are_these(graph) -> None:
    assert {_name(node.key) for node in graph.asset_nodes} == ASSETS


def test_the_checks_are_these(graph) -> None:
    assert {_name(key) for key in graph.asset_check_keys} == CHECKS


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_introduces_itself(graph, name: str) -> None:
    node = graph.get(dg.AssetKey(name.split("/")))
    assert node.is_materializable
    assert node.group_name in STAGES
    assert node.description
    assert node.kinds
    assert node.owners


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_check_blocks(graph, name: str) -> None:
    asset, check = name.split(":")
    node = graph.get(dg.AssetCheckKey(dg.AssetKey(asset.split("/")), check))
    assert node.blocking is (name not in NOT_BLOCKING)


@pytest.mark.parametrize("path", sorted(EXPECTATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_expectations_file_is_a_check(path: Path) -> None:
    assert any(name.endswith(f":{path.stem}") for name in CHECKS)


def test_every_job_resolves(defs: dg.Definitions) -> None:
    """A selection that splits a multi-asset fails only here, or in the web server."""
    jobs = {job.name for job in defs.get_repository_def().get_all_jobs()}
    assert {job.name for job in automation.JOBS} <= jobs
    assert {"learning", "packaging", "monitoring"} <= jobs


def test_the_learning_job_goes_from_the_world_to_a_version(defs: dg.Definitions) -> None:
    layer = defs.resolve_job_def("learning").asset_layer
    names = {_name(key) for key in layer.selected_asset_keys}
    later = ("package/", "serve/", "monitor/", "learning/")
    assert names == {name for name in ASSETS if not name.startswith(later)} - ASIDE


def test_the_schedules_run_by_themselves(defs: dg.Definitions) -> None:
    schedules = {schedule.name: schedule for schedule in defs.get_repository_def().schedule_defs}
    nightly = schedules["nightly_retraining"]
    assert (nightly.cron_schedule, nightly.execution_timezone) == ("0 2 * * *", "UTC")
    assert nightly.job_name == "learning"
    assert set(schedules) == {"nightly_retraining", "hourly_monitoring"}
    assert all(one.default_status is dg.DefaultScheduleStatus.RUNNING for one in schedules.values())


def test_the_sensors_run_by_themselves(defs: dg.Definitions) -> None:
    sensors = {sensor.name: sensor for sensor in defs.get_repository_def().sensor_defs}
    assert set(sensors) == {"approval", "drift", "following"}
    assert [sensors[name].job_name for name in ("approval", "drift")] == ["packaging", "learning"]
    assert all(one.default_status is dg.DefaultSensorStatus.RUNNING for one in sensors.values())


def test_only_a_dataset_that_is_played_has_a_world(tmp_path: Path) -> None:
    graph = build_defs(Settings(tmp_path, "handbook", tmp_path)).resolve_asset_graph()
    assert {_name(node.key) for node in graph.asset_nodes} == ASSETS - OF_THE_PLAYED_WORLD


@pytest.mark.parametrize("day", ["2025-01-01", "2026-01-01"])
def test_ingest_has_daily_partitions(graph, day: str) -> None:
    for table in ("transactions", "labels", "quarantine"):
        assert graph.get(dg.AssetKey(["ingest", table])).partitions_def.has_partition_key(day)


class Events:
    """An instance that is told what happened, and asked what the conditions request next."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.defs, self.instance, self.cursor = defs, instance, None

    def materialized(self, *names: str, partition: str | None = None) -> None:
        for name in names:
            key = dg.AssetKey(name.split("/"))
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    def checked(self, name: str, is_passed: bool) -> None:
        asset, check = name.split(":")
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(asset.split("/")), check_name=check, passed=is_passed, metadata={}
            )
        )

    def requested(self) -> set[str]:
        answer = dg.evaluate_automation_conditions(
            self.defs, self.instance, asset_selection=dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = answer.cursor
        return {_name(result.key) for result in answer.results if result.true_subset.size}


@pytest.fixture
def events(defs: dg.Definitions) -> Iterator[Events]:
    """Everything was materialized once, and every check passed."""
    with dg.instance_for_test() as instance:
        events = Events(defs, instance)
        events.materialized("simulate/world")
        events.materialized(
            "ingest/transactions", "ingest/labels", "ingest/quarantine", partition="2025-03-01"
        )
        events.materialized(*sorted(ASSETS - {"simulate/world"} - {n for n in ASSETS if "ingest/" in n}))
        for check in CHECKS:
            events.checked(check, True)
        assert events.requested() == set()
        yield events


def test_new_data_goes_on_to_everything_that_is_made_from_it(events: Events) -> None:
    events.materialized("ingest/transactions", "ingest/labels", partition="2025-03-02")
    made_of_it = {name for name in ASSETS if name.startswith(("staging/", "features/", "training/"))}
    assert events.requested() == made_of_it
    assert events.requested() == set()


def test_a_candidate_goes_on_to_its_evaluation_and_version(events: Events) -> None:
    events.materialized("train/candidate")
    assert events.requested() == {"evaluate/evaluation", "evaluate/leakage", "register/model_version"} | ASIDE


def test_what_leaked_is_not_registered(events: Events) -> None:
    probes = ("feature", "score", "shuffled_labels", "future_rows")
    events.materialized("evaluate/evaluation", "evaluate/leakage")
    for probe in probes:
        events.checked(f"evaluate/leakage:{probe}", False)
    for probe in probes:
        assert "register/model_version" not in events.requested()
        events.checked(f"evaluate/leakage:{probe}", True)
    assert "register/model_version" in events.requested()


@pytest.mark.parametrize(
    ("check", "held"),
    [
        ("ingest/transactions:raw_transactions", {"staging/stg_transactions", "features/online_store"}),
        ("ingest/labels:raw_labels", {"staging/stg_fraud_reports", "training/labels"}),
    ],
    ids=["transactions", "labels"],
)
def test_what_failed_a_blocking_check_goes_no_further(events: Events, check: str, held: set[str]) -> None:
    events.materialized("ingest/transactions", "ingest/labels", partition="2025-03-02")
    events.checked(check, False)
    assert not events.requested() & held
    events.checked(check, True)
    assert held <= events.requested()


@pytest.mark.parametrize("name", ["training/training_set", "package/bundle"])
def test_what_teaches_and_what_is_released_waits_for_parity(graph, name: str) -> None:
    assert dg.AssetKey(["features", "parity"]) in graph.get(dg.AssetKey(name.split("/"))).parent_keys


@pytest.mark.parametrize("name", sorted(ASIDE | EXPERIMENTS))
def test_nothing_waits_for_what_only_informs(graph, name: str) -> None:
    assert not graph.get(dg.AssetKey(name.split("/"))).child_keys


def test_features_that_failed_parity_do_not_become_a_training_set(events: Events) -> None:
    events.materialized("features/parity")
    events.checked("features/parity:parity", False)
    assert "training/training_set" not in events.requested()
    events.checked("features/parity:parity", True)
    assert "training/training_set" in events.requested()
