"""The leakage alarm as checks: a candidate that knows too much is not registered."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import dagster as dg

from fraud_platform.adapters.candidates import read_candidate, read_folder, write_folder
from fraud_platform.adapters.dbt import project_digest
from fraud_platform.adapters.duckdb_history import TRAINING_SET, mature_frame
from fraud_platform.adapters.future_rows import probe_future
from fraud_platform.defs.evaluate import read_evaluation
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.latest import latest_text
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.train import known_labels, young_rows
from fraud_platform.evaluate.leakage import Finding, feature_alarm, score_alarm, shuffled_alarm
from fraud_platform.train import columns_of

CODE_FILES = ("evaluate/leakage.py", "adapters/future_rows.py")
FINDINGS_FILE = "findings.json"
READ = ("ingest.transactions", "ingest.labels", "features.transaction_features", TRAINING_SET)
LEAKAGE = dg.AssetKey(["evaluate", "leakage"])
CHECKS = {
    "feature": "No single feature ranks frauds better than one that was known in time can",
    "score": "The candidate's average precision is one that the dataset can give",
    "shuffled_labels": "A model of labels dealt out at random ranks no better than chance",
    "future_rows": "Features of before a moment are the same without what came after it",
}


@dg.asset(
    key=LEAKAGE,
    deps=[["evaluate", "evaluation"]],
    group_name="evaluate",
    kinds={"lightgbm", "dbt", "duckdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
    check_specs=[
        dg.AssetCheckSpec(name, asset=LEAKAGE, blocking=True, description=said)
        for name, said in CHECKS.items()
    ],
)
def leakage(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult]:
    """Looks for what no honest candidate has: inputs, scores and rows that know the outcome beforehand.

    Findings are kept, and looked for anew where the candidate, its evaluation, rows or code have changed.
    """
    fingerprint = latest_text(context.instance, ["evaluate", "evaluation"], "fingerprint")
    folder = platform.settings.reports / "leakage" / fingerprint
    inputs = _inputs(platform, fingerprint)
    found = _kept(folder, inputs)
    is_unchanged = found is not None
    if found is None:
        found = tuple(_findings(platform, fingerprint))
        _keep(folder, inputs, found)
    for one in found:
        context.log.info(f"{one.name}: {one.reason}")
    yield dg.MaterializeResult(
        metadata={"fingerprint": fingerprint, "unchanged": is_unchanged, "findings": _table(found)},
        check_results=[
            dg.AssetCheckResult(
                check_name=one.name,
                passed=one.is_clean,
                description=one.reason,
                metadata={"suspects": list(one.suspects)},
            )
            for one in found
        ],
    )


def _findings(platform: Platform, fingerprint: str) -> Iterator[Finding]:
    candidate = read_candidate(platform.settings.candidates / fingerprint)
    judged = read_evaluation(platform, fingerprint)
    test = mature_frame(platform.warehouse, candidate.split.test)
    yield feature_alarm(columns_of(test, candidate.contract), test["is_fraud"].to_numpy(dtype=bool))
    yield score_alarm(judged.quality.average_precision, judged.frauds, platform.mapping.average_precision_max)
    training_set = platform.warehouse.frame(f"select * from {TRAINING_SET}")
    split = candidate.split
    labels = known_labels(platform, training_set)
    taught = labels.taught(training_set, split.test.start_ms)
    young, _ = young_rows(platform, taught, labels, split)
    yield shuffled_alarm(taught, candidate.contract, split, candidate.params, young)
    yield probe_future(platform.settings, platform.mapping, platform.contract)


def _inputs(platform: Platform, fingerprint: str) -> str:
    """A digest of everything that decides what is found."""
    package = resources.files("fraud_platform")
    return project_digest(
        platform.contract.hash,
        json.dumps(read_evaluation(platform, fingerprint).to_dict(), sort_keys=True),
        str(platform.mapping.average_precision_max),
        platform.warehouse.fingerprint(*READ),
        *(package.joinpath(name).read_text(encoding="utf-8") for name in CODE_FILES),
    )


def _kept(folder: Path, inputs: str) -> tuple[Finding, ...] | None:
    """What was found for the same inputs; None where they are others, or nothing was looked for yet."""
    files = read_folder(folder) if folder.is_dir() else {}
    content = json.loads(files.get(FINDINGS_FILE, b"{}"))
    if content.get("inputs") != inputs:
        return None
    return tuple(Finding(**{**one, "suspects": tuple(one["suspects"])}) for one in content["findings"])


def _keep(folder: Path, inputs: str, found: tuple[Finding, ...]) -> None:
    content = {"inputs": inputs, "findings": [asdict(one) for one in found]}
    shutil.rmtree(folder, ignore_errors=True)
    write_folder({FINDINGS_FILE: json.dumps(content, indent=2, sort_keys=True).encode()}, folder)


def _table(found: tuple[Finding, ...]) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord({"probe": one.name, "clean": one.is_clean, "reason": one.reason}) for one in found
    ]
    columns = [
        dg.TableColumn("probe", "string"),
        dg.TableColumn("clean", "bool"),
        dg.TableColumn("reason", "string"),
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))
