"""Great Expectations at the trust boundaries: a blocking check for each file in expectations/."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd

from fraud_platform.adapters.great_expectations import Suite, load_suite, validate_suite
from fraud_platform.defs.as_of import TRAINING_STEP, parse_as_of
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import EXPECTATIONS, Platform


def build_checks() -> list[dg.AssetChecksDefinition]:
    """One check a file, on the asset that the file names."""
    return [_check(load_suite(path)) for path in sorted(EXPECTATIONS.glob("*.yaml"))]


def _check(suite: Suite) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=suite.asset.split("."),
        name=suite.name,
        blocking=True,
        description=suite.description,
        pool=POOL,
    )
    def check(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.AssetCheckResult:
        parameters = _parameters(context.instance, platform, suite)
        report = validate_suite(suite, _frame(platform, suite), parameters)
        return dg.AssetCheckResult(
            passed=report.success,
            metadata={
                "rows": report.rows,
                "expectations": report.checked,
                "failures": [str(failure) for failure in report.failures],
                "skipped": list(report.skipped),
            },
        )

    return check


def _frame(platform: Platform, suite: Suite) -> pd.DataFrame:
    schema, table = suite.asset.split(".")
    return platform.warehouse.frame(f'select {suite.select_list} from "{schema}"."{table}"')


def _parameters(instance: dg.DagsterInstance, platform: Platform, suite: Suite) -> dict[str, Any]:
    values: dict[str, Any] = {
        "now_ms": platform.now_ms(),
        "label_precedence": list(platform.mapping.label_precedence),
    }
    if "mature_before" in suite.parameters:
        as_of = _as_of(instance, dg.AssetKey(suite.asset.split("."))) or _end_of_data(platform)
        values["mature_before"] = platform.label_rule.mature_before(as_of)
    return values


def _as_of(instance: dg.DagsterInstance, built: dg.AssetKey) -> int | None:
    """The as_of (ms) that the table was last built for, None where its run took the end of the data."""
    event = instance.get_latest_materialization_event(built)
    run = instance.get_run_by_id(event.run_id) if event else None
    config: Mapping[str, Any] = run.run_config if run else {}
    return parse_as_of(config.get("ops", {}).get(TRAINING_STEP, {}).get("config", {}).get("as_of", ""))


def _end_of_data(platform: Platform) -> int:
    frame = platform.warehouse.frame("select max(event_time) + 1 as as_of from ingest.transactions")
    return int(frame["as_of"].iloc[0])
