"""A version in MLflow with its evidence and the gate's verdict. Approval is a person's: see the CLI."""

import dagster as dg

from fraud_platform.adapters.candidates import read_candidate
from fraud_platform.defs.evaluate import promotion_of, read_evaluation, read_reference, report_files
from fraud_platform.defs.latest import latest_text
from fraud_platform.defs.leakage import LEAKAGE
from fraud_platform.defs.platform import Platform


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            ["register", "model_version"],
            deps=[["evaluate", "evaluation"], LEAKAGE],
            group_name="register",
            kinds={"mlflow"},
            owners=["team:fraud-ml"],
            description="An MLflow version: the native booster, metrics, plots and the evidence of its gate",
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "gate",
            asset=["register", "model_version"],
            description="The candidate saves money on mature labels, with an interval above zero",
        )
    ],
)
def model_version(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """Registers the judged candidate; the same candidate is never registered twice."""
    fingerprint = latest_text(context.instance, ["evaluate", "evaluation"], "fingerprint")
    judged = read_evaluation(platform, fingerprint)
    promotion = promotion_of(platform, judged)
    shown = report_files(platform, fingerprint)
    registration = platform.registry.register(
        read_candidate(platform.settings.candidates / fingerprint),
        judged,
        promotion,
        shown,
        read_reference(platform, fingerprint).to_json(),
    )
    return dg.MaterializeResult(
        metadata={
            "version": registration.version,
            "registration": registration.outcome,
            "unchanged": registration.outcome == "kept",
            "mlflow_run": registration.run_id,
            "fingerprint": fingerprint,
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in promotion.reasons)),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="gate",
                passed=promotion.is_allowed,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"reasons": list(promotion.reasons)},
            )
        ],
    )
