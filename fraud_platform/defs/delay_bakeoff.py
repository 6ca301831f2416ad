"""What it costs to learn from late labels in one way or another, in the world whose truth is known."""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg

from fraud_platform.adapters.duckdb_delay import label_events, true_rows
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.label_delay import delay_table
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SettingsError
from fraud_platform.learning.delay_bakeoff import PARAMS, WINDOWS_DAYS, run_delay_bakeoff
from fraud_platform.learning.delay_contenders import DelayPlan
from fraud_platform.learning.delay_result import DelayBakeoff
from fraud_platform.learning.delay_rows import DelayRows

DELAY_BAKEOFF = dg.AssetKey(["learning", "delay_bakeoff"])


class DelayBakeoffConfig(dg.Config):
    """windows_days: what is waited for, beside the dataset's own window. as_ofs: how many choose, and as many
    that judge; assessed_days: what follows each. rounds_max: of every booster."""

    windows_days: list[int] = list(WINDOWS_DAYS)
    as_ofs: int = 3
    assessed_days: int = 9
    rounds_max: int = PARAMS.rounds_max

    def plan(self, maturity_days: int) -> DelayPlan:
        windows = tuple(sorted({*self.windows_days, maturity_days}))
        params = replace(PARAMS, rounds_max=self.rounds_max)
        return DelayPlan(maturity_days, windows, params, self.as_ofs, self.assessed_days)


@dg.asset(
    key=DELAY_BAKEOFF,
    deps=[["features", "transaction_features"], ["ingest", "labels"]],
    group_name="learning",
    kinds={"lightgbm", "duckdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def delay_bakeoff(
    context: dg.AssetExecutionContext, config: DelayBakeoffConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """Naive labels, waiting for maturity and corrected labels at several as-ofs, judged by the truth.

    Left out of the learning job: it informs who sets the maturity window, and nothing waits for it.
    """
    found = judged_delay(platform, config, context.log.info)
    for line in found.explain():
        context.log.info(line)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(found.rows.values()),
            "frauds": sum(found.frauds.values()),
            "best_window": found.best_window,
            "best_correction": found.best_correction,
            "best": found.best,
            "seconds": found.seconds,
            "summary": dg.MetadataValue.md("\n".join(f"- {line}" for line in found.explain())),
            "by_contender": delay_table(found.table()),
            "by_way": delay_table(found.ways_table()),
        }
    )


def judged_delay(
    platform: Platform, config: DelayBakeoffConfig, report: Callable[[str], None]
) -> DelayBakeoff:
    """The bake-off on the played world as it lies in the warehouse.

    SettingsError for any other dataset, SourceError before its features are built.
    """
    settings = platform.settings
    if not platform.is_simulated:
        raise SettingsError(
            f"dataset {settings.dataset_name!r}: the bake-off judges by the truth, which only the simulated "
            "world has; give --dataset simulated without a source"
        )
    plan = config.plan(platform.mapping.maturity_days)
    report("reading the world")
    rows = DelayRows.of(
        true_rows(platform.warehouse, settings.var / "truth" / settings.dataset_name),
        label_events(platform.warehouse),
        platform.mapping.label_precedence,
        platform.contract,
        plan.params.legit_share,
        plan.params.seed,
    )
    return run_delay_bakeoff(rows, platform.contract, platform.policy, platform.rules, plan, report)
