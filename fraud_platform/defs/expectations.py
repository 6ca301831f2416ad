"""Great Expectations at the trust boundaries: a blocking check for each file in expectations/."""

from typing import Any

import dagster as dg
import pandas as pd

from fraud_platform.adapters.great_expectations import Suite, load_suite, validate_suite
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
    def check(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        report = validate_suite(suite, _frame(platform, suite), _parameters(platform, suite))
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


def _parameters(platform: Platform, suite: Suite) -> dict[str, Any]:
    values: dict[str, Any] = {
        "now_ms": platform.now_ms(),
        "label_precedence": list(platform.mapping.label_precedence),
    }
    if "mature_before" in suite.parameters:
        values["mature_before"] = _mature_before(platform)
    return values


def _mature_before(platform: Platform) -> int:
    """By the as_of that training.labels was built for: it holds every transaction before that moment."""
    frame = platform.warehouse.frame("select max(event_time) + 1 as as_of from training.labels")
    return platform.label_rule.mature_before(int(frame["as_of"].iloc[0]))
