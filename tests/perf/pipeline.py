"""The stages of the loop over a simulated world, from its files to the bundle.

Belongs here: batch stages. Does not belong here: the service (serving.py), the online store (online.py).
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests.perf.measured import Measured, Sizes

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

TREES = 320
"""Of the model that is served: more than the candidate needs."""


def simulate(platform: Platform, sizes: Sizes) -> Measured:
    from fraud_platform.adapters.landing import write_world
    from fraud_platform.simulate import WorldSpec
    from fraud_platform.simulate import simulate as play

    settings, started = platform.settings, time.perf_counter()
    world = play(WorldSpec.sized(sizes.transactions))
    played = time.perf_counter() - started
    truth = settings.var / "truth"
    written = write_world(world, settings.landing, truth, settings.home / "live")
    note = f"played in {played:.1f} s, then written"
    return Measured(written.transactions, (time.perf_counter() - started,), note)


def ingest(platform: Platform, _: Sizes) -> Measured:
    started = time.perf_counter()
    report = platform.warehouse.ingest(platform.mapping, platform.source, platform.now_ms())
    rows = report.transactions.rows_in + report.labels.rows_in
    return Measured(rows, (time.perf_counter() - started,), "transactions and labels")


def features(platform: Platform, _: Sizes) -> Measured:
    seconds = build(platform, "staging features")
    names = len(platform.contract.features)
    return Measured(
        platform.warehouse.count("ingest.transactions"), (seconds,), f"{names} features, with tests"
    )


def labels(platform: Platform, _: Sizes) -> Measured:
    seconds = build(platform, "training")
    rows = platform.warehouse.count("training.training_set")
    return Measured(
        platform.warehouse.count("training.labels"), (seconds,), f"{rows:,} mature rows, with tests"
    )


def train(platform: Platform, _: Sizes) -> Measured:
    from fraud_platform.adapters.candidates import write_candidate
    from fraud_platform.schema import MILLISECONDS_PER_DAY
    from fraud_platform.train import Split
    from fraud_platform.train import train as fit

    started = time.perf_counter()
    frame = platform.warehouse.frame("select * from training.training_set")
    mapping = platform.mapping
    split = Split.by_time(
        int(frame["event_time"].min()),
        int(frame["event_time"].max()) + 1,
        mapping.maturity_days * MILLISECONDS_PER_DAY,
        mapping.split.validation_days,
        mapping.split.test_days,
    )
    fitted = fit(frame, platform.contract, split)
    write_candidate(fitted, platform.settings.candidates)
    note = f"{fitted.log.teaching_rows:,} rows teach, {fitted.log.rounds} rounds"
    return Measured(fitted.log.train.rows, (time.perf_counter() - started,), note)


def evaluate(platform: Platform, _: Sizes) -> Measured:
    from fraud_platform.evaluate import evaluate as judge
    from fraud_platform.package import Reference
    from fraud_platform.train import columns_of

    started, model = time.perf_counter(), _candidate(platform)
    part = model.split.test
    frame = platform.warehouse.frame(
        "select * from training.training_set where event_time >= ? and event_time < ?",
        [part.start_ms, part.end_ms],
    )
    judged = judge(model, frame, platform.policy, platform.rules)
    seconds = time.perf_counter() - started
    columns = columns_of(frame, model.contract)
    reference = Reference.of(columns, model.probability(columns))
    platform.settings.reports.mkdir(parents=True, exist_ok=True)
    (platform.settings.reports / "reference.json").write_bytes(reference.to_json())
    return Measured(
        judged.rows, (seconds,), f"AP {judged.quality.average_precision:.3f}, with 1,000 resamples"
    )


def package(platform: Platform, _: Sizes) -> Measured:
    from fraud_platform.adapters.bento import build_bento
    from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
    from fraud_platform.package import BundleParts, Reference, load_reasons_text

    settings, model = platform.settings, _grown(platform, _candidate(platform))
    started = time.perf_counter()
    parts = BundleParts(
        model_text=model.model_text,
        calibrator=model.calibrator,
        encoder=model.encoder,
        contract=model.contract,
        rules_text=platform.rules_text,
        lists_text=platform.lists_text,
        policy_text=platform.policy_text,
        reasons_text=load_reasons_text(),
        reference=Reference.from_json((settings.reports / "reference.json").read_bytes()),
        versions={"fingerprint": model.fingerprint},
        evaluation={},
    )
    bundle = build_bundle(parts, settings.bundles)
    built = build_bento(bundle_path(settings.bundles, bundle.id), settings.bento_home)
    (settings.home / "bento.txt").write_text(str(built.path))
    size = sum(path.stat().st_size for path in built.path.rglob("*") if path.is_file())
    note = f"one Bento of {size / 1e6:.1f} MB, its model of {model.booster.num_trees()} trees"
    return Measured(1, (time.perf_counter() - started,), note)


def monitor(platform: Platform, _: Sizes) -> Measured:
    from fraud_platform.adapters.bundle_files import bundle_path, load_bundle
    from fraud_platform.adapters.duckdb_monitor import load_decisions

    settings, started = platform.settings, time.perf_counter()
    loaded = load_decisions(
        platform.warehouse,
        settings.service_state,
        lambda digest: load_bundle(bundle_path(settings.bundles, digest)).contract,
    )
    return Measured(loaded.new_count, (time.perf_counter() - started,), "decision log into the warehouse")


def build(platform: Platform, selected: str) -> float:
    """Seconds of `dbt build` of the selected models, with their tests."""
    from fraud_platform.adapters.dbt import DBT_PROJECT, dbt_executable, dbt_vars, target_path

    settings = platform.settings
    (settings.home / "spill").mkdir(parents=True, exist_ok=True)
    variables = json.dumps(dbt_vars(settings, platform.mapping))
    command = [dbt_executable(), "--quiet", "build", "--exclude-resource-type", "unit_test"]
    command += ["--select", *selected.split(), "--vars", variables, "--log-path", str(target_path(settings))]
    places = ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    started = time.perf_counter()
    subprocess.run([*command, *places, "--target-path", str(target_path(settings))], check=True)
    return time.perf_counter() - started


def _grown(platform: Platform, candidate: Any) -> Any:
    """The candidate, grown to TREES trees: a service is measured with the model it may get one day."""
    from dataclasses import replace

    from fraud_platform.train import train as fit

    frame = platform.warehouse.frame("select * from training.training_set")
    params = replace(candidate.params, rounds_max=TREES, early_stopping_rounds=0)
    model = fit(frame, candidate.contract, candidate.split, params)
    if model.booster.num_trees() != TREES:
        raise SystemExit(f"the model has {model.booster.num_trees()} trees, not {TREES}")
    return model


def _candidate(platform: Platform) -> Any:
    from fraud_platform.adapters.candidates import read_candidate

    return read_candidate(next(path for path in platform.settings.candidates.iterdir() if path.is_dir()))
