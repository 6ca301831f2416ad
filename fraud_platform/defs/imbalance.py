"""The imbalance bake-off over the warehouse."""

import dagster as dg

from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.defs.experiments import GROUP, Experiment, FoldConfig, lines, standings_table
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.learning.contest import Contest, Report
from fraud_platform.learning.imbalance import WAYS, imbalance_bakeoff


class ImbalanceConfig(FoldConfig):
    """See FoldConfig."""


@dg.asset(
    key=["learning", "imbalance_bakeoff"],
    deps=[TRAINING_SET.split(".")],
    group_name=GROUP,
    kinds={"lightgbm", "scikitlearn"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def imbalance_bakeoff_table(
    context: dg.AssetExecutionContext, config: ImbalanceConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """Ways to treat rare frauds on the same folds, against the default: ranking, money, calibration and time.

    Left out of the learning job: it informs who chooses the default.
    """
    found = imbalance_contest(platform, config, context.log.info)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found.validation),
            "winner": found.winner,
            "is_better": found.is_better,
            "summary": lines(found.explain()),
            "validation_folds": standings_table(found.validation),
            "test_folds": standings_table(found.test),
            "ways": lines([f"{way.name}: {way.description}" for way in WAYS]),
        }
    )


def imbalance_contest(platform: Platform, config: FoldConfig, report: Report) -> Contest:
    """The bake-off of a dataset. See `Experiment` for what it raises."""
    experiment = Experiment(platform, config)
    return imbalance_bakeoff(experiment.lessons(), platform.policy, report=report)
