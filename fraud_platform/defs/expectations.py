"""Great Expectations at the trust boundaries: a blocking check for each file in expectations/."""

import dagster as dg

from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import EXPECTATIONS, Platform

BOUNDARIES = {
    "raw_transactions": ("ingest", "transactions"),
    "raw_labels": ("ingest", "labels"),
    "training_set": ("training", "training_set"),
    "scored_log": ("monitor", "decisions"),
}
"""An expectations file and the asset whose table it judges."""


def build_checks() -> list[dg.AssetChecksDefinition]:
    return [_check(name, asset) for name, asset in BOUNDARIES.items()]


def _check(name: str, asset: tuple[str, str]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=list(asset),
        name=name,
        blocking=True,
        description=f"expectations/{name}.yaml holds for {'.'.join(asset)}",
        pool=POOL,
    )
    def check(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        from fraud_platform.adapters.great_expectations import validate

        frame = platform.warehouse.frame(f'select * from "{asset[0]}"."{asset[1]}"')
        report = validate(EXPECTATIONS / f"{name}.yaml", frame)
        return dg.AssetCheckResult(
            passed=report.success,
            metadata={"rows": report.rows, "failures": [str(failure) for failure in report.failures]},
        )

    return check
