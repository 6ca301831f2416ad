"""The composition root: one dataset's settings become everything that Dagster serves.

`build_defs(settings)` is called by the code location (workspace.yaml), by the CLI and by the tests alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import dagster as dg
from dagster_dbt import DbtCliResource

from fraud_platform.adapters.dbt import DBT_PROJECT, dbt_executable, ensure_manifest
from fraud_platform.defs import (
    automation,
    blend,
    declines,
    delay_bakeoff,
    evaluate,
    expectations,
    features,
    imbalance,
    label_delay,
    leakage,
    monitor,
    package,
    parity,
    register,
    rules,
    rungs,
    search,
    selective,
    serve,
    simulate,
    train,
)
from fraud_platform.defs.ingest import build_ingest
from fraud_platform.defs.platform import Platform
from fraud_platform.settings import Settings


def build_defs(settings: Settings) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors of one dataset."""
    platform = Platform(settings)
    manifest = ensure_manifest(settings, platform.mapping)
    played = [
        simulate.world,
        delay_bakeoff.delay_bakeoff,
        selective.selective_labels,
        selective.selective_retraining,
    ]
    return dg.Definitions(
        assets=automation.gated(
            [
                *(played if platform.is_simulated else []),
                build_ingest(platform),
                *_owned(features.build_dbt(manifest)),
                features.online_store,
                parity.parity,
                train.candidate,
                evaluate.evaluation,
                leakage.leakage,
                parity.tails,
                rules.rules_backtest,
                rungs.rungs,
                imbalance.imbalance_bakeoff_table,
                blend.blend,
                search.searched_params,
                label_delay.label_delay,
                register.model_version,
                package.bundle,
                package.bento,
                serve.live_store,
                monitor.decisions,
                monitor.feature_drift,
                monitor.performance,
                monitor.signal,
                declines.declines,
            ]
        ),
        asset_checks=[
            *expectations.build_checks(),
            serve.counts_every_event_once,
            monitor.chains_are_whole,
        ],
        jobs=automation.JOBS,
        schedules=[automation.nightly, automation.hourly_monitoring],
        sensors=[automation.approval, automation.drift, automation.following],
        executor=dg.in_process_executor,
        resources={
            "platform": dg.ResourceDefinition.hardcoded_resource(platform),
            "dbt": DbtCliResource(
                project_dir=str(DBT_PROJECT), profiles_dir=str(DBT_PROJECT), dbt_executable=dbt_executable()
            ),
        },
    )


def _owned(tables: Iterable[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """dbt's models name no owner; the same team answers for them."""
    return dg.map_asset_specs(lambda spec: spec.replace_attributes(owners=monitor.OWNERS), tables)


@dg.definitions
def defs() -> dg.Definitions:
    """The code location's: the dataset that the environment names."""
    return build_defs(Settings.from_env(os.environ))
