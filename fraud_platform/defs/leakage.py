"""The leakage alarm as checks: a candidate that knows too much is not registered."""

from collections.abc import Iterator

import dagster as dg

from fraud_platform.adapters.candidates import read_candidate
from fraud_platform.adapters.duckdb_history import TRAINING_SET, mature_frame
from fraud_platform.adapters.future_rows import probe_future
from fraud_platform.defs.evaluate import read_evaluation
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.latest import latest_text
from fraud_platform.defs.platform import Platform
from fraud_platform.evaluate.leakage import Finding, feature_alarm, score_alarm, shuffled_alarm
from fraud_platform.train import columns_of

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
    """Looks for what no honest candidate has: inputs, scores and rows that know the outcome beforehand."""
    fingerprint = latest_text(context.instance, ["evaluate", "evaluation"], "fingerprint")
    found = tuple(_findings(platform, fingerprint))
    for one in found:
        context.log.info(f"{one.name}: {one.reason}")
    yield dg.MaterializeResult(
        metadata={"fingerprint": fingerprint, "findings": _table(found)},
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
    yield shuffled_alarm(training_set, candidate.contract, candidate.split, candidate.params)
    yield probe_future(platform.settings, platform.mapping, platform.contract)


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
