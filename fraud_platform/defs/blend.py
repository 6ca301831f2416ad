"""A second learner beside LightGBM, over the warehouse."""

import dagster as dg

from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.defs.experiments import GROUP, Experiment, FoldConfig, lines, standings_table, table
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.learning.blend import LATENCY_BUDGET_MS, Blending, blend_bakeoff
from fraud_platform.learning.contest import Report
from fraud_platform.serve.booster import Booster


class BlendConfig(FoldConfig):
    """latency_budget_ms: what scoring one row may take at the 99th percentile."""

    latency_budget_ms: float = LATENCY_BUDGET_MS


@dg.asset(
    key=["learning", "blend"],
    deps=[TRAINING_SET.split(".")],
    group_name=GROUP,
    kinds={"lightgbm", "xgboost"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def blend(
    context: dg.AssetExecutionContext, config: BlendConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """LightGBM, XGBoost and their blends on the same folds, and whether a second learner is worth its time.

    Left out of the learning job: the service scores LightGBM alone.
    """
    found = blending(platform, config, context.log.info)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found.contest.validation),
            "second": found.second,
            "is_kept": found.is_kept,
            "reasons": lines(found.reasons()),
            "validation_folds": standings_table(found.contest.validation),
            "test_folds": standings_table(found.contest.test),
            "latency": table([vars(one) for one in found.latencies]),
        }
    )


def blending(platform: Platform, config: BlendConfig, report: Report) -> Blending:
    """The contest of a dataset. See `Experiment` for what it raises."""
    experiment = Experiment(platform, config)
    return blend_bakeoff(
        experiment.lessons(),
        platform.policy,
        lambda text: Booster(text).score,
        budget_ms=config.latency_budget_ms,
        report=report,
    )
