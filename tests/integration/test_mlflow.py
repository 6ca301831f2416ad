"""The registry on a real MLflow over SQLite: evidence, aliases, approvals, and nothing twice."""

import json
import socket
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.adapters.candidates import write_candidate
from fraud_platform.adapters.html_report import REPORT_FILE
from fraud_platform.adapters.mlflow import ModelRegistry, load_mlflow
from fraud_platform.adapters.plots import evaluation_plots
from fraud_platform.defs.evaluate import evaluation, evaluation_folder
from fraud_platform.defs.package import bundle
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.register import model_version
from fraud_platform.errors import BundleError, GateError
from fraud_platform.evaluate import Evaluation, Interval, evaluate
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.ingest.mapping import Mapping, load_mapping
from fraud_platform.package import Bundle
from fraud_platform.policy import Policy, load_policy, load_policy_text
from fraud_platform.register import Promotion, PromotionRules, gate
from fraud_platform.rules import EMPTY_LISTS_TEXT, RuleSet
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.settings import Settings
from fraud_platform.train import Candidate, Split, TrainParams, train

START = 1_700_006_400_000
NOW = START + 100 * DAY
AMOUNT = Feature(name="amount_minor", kind="field", of=("amount_minor",), description="Amount")
CONTRACT = FeatureContract({}, (AMOUNT,))
SPLIT = Split.by_time(START, START + 60 * DAY, 7 * DAY)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """MLflow reports its use to its makers unless it is told not to."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a network connection was asked for: {args}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory):
    """A database of its own: making one is slow, so the tests share it under names of their own."""
    home = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{home / 'mlflow.db'}", home / "artifacts"


@pytest.fixture
def registry(tracking, request) -> ModelRegistry:
    uri, artifacts = tracking
    return ModelRegistry(uri, f"fraud-{request.node.name[:40]}", artifacts)


@pytest.fixture(scope="session")
def world() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = 3_000
    amount = rng.gamma(2.0, 40.0, rows)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i:05d}" for i in range(rows)],
            "event_time": np.sort(START + rng.integers(0, 60 * DAY, rows)),
            "card_id": [f"c{i}" for i in rng.integers(0, 200, rows)],
            "amount_minor": np.round(amount * 100).astype(np.int64),
            "currency": "EUR",
            "is_fraud": rng.random(rows) < np.where(amount > 150, 0.5, 0.01),
        }
    )


@pytest.fixture(scope="session")
def candidates(world) -> list[Candidate]:
    params = TrainParams(rounds_max=5, early_stopping_rounds=0, min_data_in_leaf=20, legit_share=1.0)
    return [train(world, CONTRACT, SPLIT, replace(params, seed=seed)) for seed in (1, 2)]


@pytest.fixture(scope="session")
def evaluations(world, candidates) -> list[Evaluation]:
    """The first alone; the second against the first, made to save for certain."""
    policy, rules = load_policy(), RuleSet([])
    first = evaluate(candidates[0], world, policy, rules, resamples=50)
    second = evaluate(candidates[1], world, policy, rules, champion=candidates[0], resamples=50)
    return [first, replace(second, savings=second.savings | {"champion": Interval(9.0, 5.0, 12.0)})]


def verdict(evaluation: Evaluation, champion: str | None = None) -> Promotion:
    return gate(evaluation, champion, PromotionRules(frauds_min=5, calibration_error_max=5.0))


def challenger(registry) -> str | None:
    """The version that the alias points to."""
    found = [one.version for one in registry.versions() if "challenger" in one.aliases]
    assert len(found) <= 1
    return found[0] if found else None


def register_first(registry, candidates, evaluations):
    return registry.register(candidates[0], evaluations[0], verdict(evaluations[0]))


def test_a_version_carries_its_evidence(registry, candidates, evaluations):
    promotion = verdict(evaluations[0])
    plots = evaluation_plots(evaluations[0])
    assert promotion.is_allowed
    registration = registry.register(candidates[0], evaluations[0], promotion, plots)
    assert (registration.version, registration.outcome) == ("1", "created")

    version = registry.version("1")
    assert version.fingerprint == candidates[0].fingerprint
    assert version.is_gate_passed
    assert version.aliases == ("challenger",)
    assert version.approval is None
    assert registry.candidate("1") == candidates[0]
    evidence = json.loads(registry.evidence("1"))
    assert Evaluation.from_dict(evidence["evaluation"]) == evaluations[0]
    assert evidence["promotion"]["is_allowed"] is True

    mlflow = load_mlflow()
    run = mlflow.get_run(registration.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["average_precision"] == evaluations[0].quality.average_precision
    assert run.data.params["seed"] == "1"
    names = {
        item.path for item in mlflow.artifacts.list_artifacts(run_id=run.info.run_id, artifact_path="plots")
    }
    assert names == {"plots/calibration.png", "plots/cost.png", "plots/precision_recall.png"}
    booster = mlflow.lightgbm.load_model(f"models:/{registry.name}@challenger")
    matrix = np.array([[500.0], [90_000.0]])
    assert booster.predict(matrix).tobytes() == candidates[0].score_matrix(matrix).tobytes()


def test_the_same_candidate_is_registered_once(registry, candidates, evaluations):
    first = register_first(registry, candidates, evaluations)
    again = register_first(registry, candidates, evaluations)
    assert (again.version, again.run_id, again.outcome) == (first.version, first.run_id, "kept")
    assert len(registry.versions()) == 1


def test_newer_evidence_replaces_older_until_somebody_approved(registry, candidates, evaluations, tmp_path):
    register_first(registry, candidates, evaluations)
    poor = replace(evaluations[0], frauds=1)
    again = registry.register(candidates[0], poor, verdict(poor))
    assert (again.version, again.outcome) == ("1", "judged_again")
    assert challenger(registry) is None
    assert "judged on 1 frauds" in registry.version("1").gate_reasons
    register_first(registry, candidates, evaluations)
    registry.approve("1", "Ada", "First", NOW)
    assert registry.register(candidates[0], poor, verdict(poor)).outcome == "kept"
    assert registry.version("1").is_gate_passed


def test_a_run_that_broke_off_is_taken_up_again(registry, candidates, evaluations, monkeypatch):
    def broken(*args):
        raise RuntimeError("killed")

    monkeypatch.setattr(registry, "_create_version", broken)
    with pytest.raises(RuntimeError, match="killed"):
        register_first(registry, candidates, evaluations)
    monkeypatch.undo()
    register_first(registry, candidates, evaluations)
    mlflow = load_mlflow()
    runs = mlflow.search_runs(experiment_names=[registry.name], output_format="list")
    assert len(runs) == len(registry.versions()) == 1


@pytest.mark.parametrize("is_judged_again", [False, True])
def test_a_run_that_was_killed_before_the_alias_points_it_when_it_is_repeated(
    registry, candidates, evaluations, monkeypatch, is_judged_again
):
    def broken(*args):
        raise RuntimeError("killed")

    if is_judged_again:
        poor = replace(evaluations[0], frauds=1)
        registry.register(candidates[0], poor, verdict(poor))
    with monkeypatch.context() as patched:
        patched.setattr(registry, "_point_challenger", broken)
        with pytest.raises(RuntimeError, match="killed"):
            register_first(registry, candidates, evaluations)
    assert challenger(registry) is None
    assert register_first(registry, candidates, evaluations).outcome == "kept"
    assert challenger(registry) == "1"


def test_the_champion_is_no_challenger_but_one_of_before_may_be(registry, candidates, evaluations):
    register_first(registry, candidates, evaluations)
    registry.approve("1", "Ada", "First", NOW)
    assert register_first(registry, candidates, evaluations).outcome == "kept"
    assert challenger(registry) is None
    registry.register(candidates[1], evaluations[1], verdict(evaluations[1], candidates[0].fingerprint))
    registry.approve("2", "Grace", "Saves more", NOW + 1)
    poor = replace(evaluations[0], frauds=1)
    assert registry.register(candidates[0], poor, verdict(poor)).outcome == "kept"
    assert challenger(registry) is None
    assert register_first(registry, candidates, evaluations).outcome == "kept"
    assert challenger(registry) == "1"
    assert registry.champion().version == "2"


def test_an_approval_is_recorded_and_moves_the_champion(registry, candidates, evaluations, tmp_path):
    log = tmp_path / "reports" / "approvals.jsonl"
    register_first(registry, candidates, evaluations)
    assert registry.champion() is None
    approval = registry.approve("1", "Ada Lovelace", "Saves money", NOW, log)
    assert (approval.by, approval.reason, approval.at_ms) == ("Ada Lovelace", "Saves money", NOW)
    assert registry.champion().version == "1"
    assert registry.champion().approval == approval
    assert challenger(registry) is None

    promotion = verdict(evaluations[1], candidates[0].fingerprint)
    registry.register(candidates[1], evaluations[1], promotion)
    second = registry.approve("2", "Grace Hopper", "Saves more", NOW + 1, log)
    assert second.replaced == "1"
    assert registry.champion().version == "2"
    back = registry.approve("1", "Ada Lovelace", "Version 2 declines too much", NOW + 2, log)
    assert back.replaced == "2"
    assert registry.champion().version == "1"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["version"], line["by"]) for line in lines] == [
        ("1", "Ada Lovelace"),
        ("2", "Grace Hopper"),
        ("1", "Ada Lovelace"),
    ]


def test_approving_the_champion_again_changes_nothing(registry, candidates, evaluations, tmp_path):
    log = tmp_path / "approvals.jsonl"
    register_first(registry, candidates, evaluations)
    first = registry.approve("1", "Ada", "First", NOW, log)
    assert registry.approve("1", "Eve", "Again", NOW + 5, log) == first
    assert len(log.read_text().splitlines()) == 1


def test_a_version_whose_gate_failed_is_refused(registry, candidates, evaluations, tmp_path):
    poor = replace(evaluations[0], frauds=1)
    registry.register(candidates[0], poor, verdict(poor))
    with pytest.raises(GateError, match=r"version 1 failed its gate \(judged on 1 frauds"):
        registry.approve("1", "Ada", "Please", NOW, tmp_path / "approvals.jsonl")
    assert registry.champion() is None
    assert not (tmp_path / "approvals.jsonl").exists()


def test_evidence_against_an_older_champion_is_refused(registry, candidates, evaluations):
    register_first(registry, candidates, evaluations)
    alone = replace(evaluations[0], fingerprint=candidates[1].fingerprint)
    registry.register(candidates[1], alone, verdict(alone))
    registry.approve("1", "Ada", "First", NOW)
    with pytest.raises(GateError, match="version 2 was judged against no champion, and the champion is"):
        registry.approve("2", "Ada", "Second", NOW)


@pytest.mark.parametrize("version", ["2", "", "one"])
def test_an_unknown_version_is_refused(registry, candidates, evaluations, version):
    register_first(registry, candidates, evaluations)
    with pytest.raises(GateError, match=r"it has \['1'\]"):
        registry.approve(version, "Ada", "Why not", NOW)


def test_an_empty_registry_answers(registry):
    assert registry.champion() is None
    assert registry.versions() == ()
    with pytest.raises(GateError, match="none yet"):
        registry.version("1")


def test_nameless_approvals_are_refused(registry, candidates, evaluations):
    register_first(registry, candidates, evaluations)
    with pytest.raises(GateError, match="by ''"):
        registry.approve("1", "", "Why", NOW)
    assert registry.champion() is None


def test_a_damaged_artifact_is_noticed(registry, candidates, evaluations):
    registration = register_first(registry, candidates, evaluations)
    mlflow = load_mlflow()
    mlflow.MlflowClient().log_text(registration.run_id, "tree\n", "candidate/model.txt")
    with pytest.raises(BundleError, match=r"model\.txt was changed"):
        registry.candidate("1")


@dataclass(frozen=True)
class Judging:
    """A platform as far as `evaluate` and `register` ask for it."""

    settings: Settings
    registry: ModelRegistry
    warehouse: None = None
    policy: Policy = field(default_factory=load_policy)
    rules: RuleSet = field(default_factory=lambda: RuleSet([]))
    policy_text: str = load_policy_text()
    rules_text: str = "version: 2\nrules: []\n"
    lists_text: str = EMPTY_LISTS_TEXT
    decision_hash = Platform.decision_hash
    rules_in_force = Platform.rules_in_force
    now_ms = Platform.now_ms


@dataclass(frozen=True)
class Packaging(Judging):
    """The same as far as `package` asks for it."""

    mapping: Mapping = field(default_factory=lambda: load_mapping("handbook"))


def judged_page(platform: Judging, candidate: Candidate) -> tuple[str, bool, list[str]]:
    """The page of the candidate's evaluation, whether it is unchanged, and what `register` says."""
    fingerprint = candidate.fingerprint
    with dg.DagsterInstance.ephemeral() as instance:
        trained = dg.AssetMaterialization(["train", "candidate"], metadata={"fingerprint": fingerprint})
        instance.report_runless_asset_event(trained)
        assets = [evaluation, model_version]
        result = dg.materialize(assets, resources={"platform": platform}, instance=instance)
    (event,) = result.asset_materializations_for_node("evaluate__evaluation")
    page = evaluation_folder(platform, fingerprint) / REPORT_FILE
    (version,) = (one.version for one in platform.registry.versions() if one.fingerprint == fingerprint)
    checks = json.loads(platform.registry.evidence(version))["promotion"]["checks"]
    is_unchanged = bool(event.metadata["unchanged"].value)
    return page.read_text(encoding="utf-8"), is_unchanged, [one["reason"] for one in checks]


def test_the_page_of_an_evaluation_shows_the_verdict_that_is_registered(
    registry, candidates, evaluations, world, monkeypatch, tmp_path
):
    """As the assets make it: against the champion of the day, and unchanged as long as that one is."""
    monkeypatch.setattr(
        "fraud_platform.defs.evaluate.mature_frame",
        lambda warehouse, part: world[part.mask(world["event_time"].to_numpy())],
    )
    platform = Judging(Settings(tmp_path), registry)
    for one in candidates:
        write_candidate(one, platform.settings.candidates)
    page, is_unchanged, reasons = judged_page(platform, candidates[1])
    assert "<h2>Verdict</h2>" in page
    assert "saves_against_champion" not in page
    assert reasons
    assert all(escape(reason) in page for reason in reasons)
    assert not is_unchanged
    assert judged_page(platform, candidates[1])[1]

    first = register_first(registry, candidates, evaluations)
    registry.approve(first.version, "Ada", "First", NOW)
    page, is_unchanged, reasons = judged_page(platform, candidates[1])
    assert "<td>saves_against_champion</td>" in page
    assert all(escape(reason) in page for reason in reasons)
    assert not is_unchanged
    assert judged_page(platform, candidates[1])[1]


def test_a_retrain_goes_on_without_a_feature_that_the_champion_reads(
    registry, candidates, evaluations, world, monkeypatch, tmp_path
):
    """The champion cannot be compared. That is said, nothing is promoted, and a person may, with a reason."""
    monkeypatch.setattr(
        "fraud_platform.defs.evaluate.mature_frame",
        lambda warehouse, part: renamed[part.mask(renamed["event_time"].to_numpy())],
    )
    monkeypatch.setattr(
        "fraud_platform.defs.evaluate.gate",
        lambda judged, rival: gate(judged, rival, PromotionRules(5, calibration_error_max=5.0)),
    )
    log = tmp_path / "approvals.jsonl"
    platform = Judging(Settings(tmp_path), registry)
    first = register_first(registry, candidates, evaluations)
    with pytest.raises(GateError, match="version 1 needs no reason to ship without a comparison"):
        registry.approve(first.version, "Ada", "First", NOW, log, uncompared="None is there")
    registry.approve(first.version, "Ada", "First", NOW, log)

    contract = FeatureContract({}, (Feature(name="paid", kind="field", description="Amount"),))
    renamed = world.assign(paid=world["amount_minor"])
    params = TrainParams(rounds_max=5, early_stopping_rounds=0, min_data_in_leaf=20, legit_share=1.0)
    later = train(renamed, contract, SPLIT, params)
    write_candidate(later, platform.settings.candidates)
    page, _, reasons = judged_page(platform, later)
    why = f"champion {candidates[0].fingerprint[:12]} reads 'amount_minor', which the contract no longer has"
    assert reasons[-1].startswith(why)
    assert escape(reasons[-1]) in page
    version = registry.version("2")
    assert (version.is_gate_passed, version.is_uncompared, version.aliases) == (False, True, ())
    with pytest.raises(GateError, match=r"version 2 was not compared: champion .* --without-comparison WHY"):
        registry.approve("2", "Ada", "Newer", NOW, log)
    assert registry.champion().version == "1"
    approval = registry.approve("2", "Ada", "Newer", NOW, log, uncompared="The feature is not allowed now")
    assert registry.champion().approval == approval
    assert approval.uncompared == "The feature is not allowed now"
    assert json.loads(log.read_text().splitlines()[-1])["uncompared"] == approval.uncompared

    registry.approve("1", "Ada", "Back", NOW, log)
    again = registry.approve("2", "Ada", "And forth", NOW, log)
    assert again.uncompared == registry.champion().approval.uncompared == approval.uncompared


def test_a_bundle_follows_the_evidence_that_was_approved(
    registry, candidates, evaluations, world, monkeypatch, tmp_path
):
    """Whatever is evaluated since: other rows are mature by then, and the version is the same. Where the
    rules are others by then, the bundle takes them and says that nobody has judged it so."""
    rows = [world]
    monkeypatch.setattr(
        "fraud_platform.defs.evaluate.mature_frame",
        lambda warehouse, part: rows[-1][part.mask(rows[-1]["event_time"].to_numpy())],
    )
    monkeypatch.setattr(
        "fraud_platform.defs.evaluate.gate",
        lambda judged, rival: gate(judged, rival, PromotionRules(5, calibration_error_max=5.0)),
    )
    monkeypatch.setattr("fraud_platform.defs.package.golden_samples", lambda warehouse, contract: [])
    monkeypatch.setattr("fraud_platform.defs.package.proof_of", lambda platform, model: "exact")
    platform = Packaging(Settings(tmp_path), registry)
    write_candidate(candidates[0], platform.settings.candidates)
    judged_page(platform, candidates[0])
    with pytest.raises(GateError, match="no version is approved"):
        dg.materialize([bundle], resources={"platform": platform})
    registry.approve("1", "Ada", "First", NOW)
    before, judged_as_shipped = packaged(platform)
    assert judged_as_shipped.passed

    rows.append(world.assign(is_fraud=world["is_fraud"] ^ (np.arange(len(world)) % 9 == 0)).iloc[::2])
    evaluated = evaluation_folder(platform, candidates[0].fingerprint)
    files = {path.name: path.read_bytes() for path in evaluated.iterdir()}
    assert not judged_page(platform, candidates[0])[1]
    for name in ("evaluation.json", "reference.json"):
        assert files[name] != (evaluated / name).read_bytes()
    after, _ = packaged(platform)
    assert after.id == before.id
    approved = json.loads(files["evaluation.json"])
    assert before.evaluation["test_rows"] == approved["rows"]
    assert before.reference.to_json() == files["reference.json"]

    commented, judged_as_shipped = packaged(replace(platform, rules_text=f"{platform.rules_text}# Since\n"))
    assert commented.id != before.id
    assert judged_as_shipped.passed

    dearer = replace(platform, policy_text=platform.policy_text.replace("review: 12", "review: 13"))
    _, judged_as_shipped = packaged(dearer)
    assert not judged_as_shipped.passed
    assert judged_as_shipped.severity == dg.AssetCheckSeverity.WARN
    assert approved["decision_hash"][:12] in str(judged_as_shipped.metadata["said"].value)
    judged_page(dearer, candidates[0])
    assert packaged(dearer)[1].passed


def packaged(platform: "Packaging") -> tuple[Bundle, dg.AssetCheckEvaluation]:
    """The bundle, and whether it decides by what its model was judged by."""
    result = dg.materialize([bundle], resources={"platform": platform})
    (event,) = result.asset_materializations_for_node("package__bundle")
    (check,) = result.get_asset_check_evaluations()
    return load_bundle(Path(event.metadata["path"].value)), check


def test_plots_are_images_and_the_same_twice(evaluations):
    plots = evaluation_plots(evaluations[0])
    assert set(plots) == {"precision_recall.png", "cost.png", "calibration.png"}
    assert all(image.startswith(PNG) for image in plots.values())
    assert evaluation_plots(evaluations[0]) == plots
