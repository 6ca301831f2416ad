"""Features offline by dbt, and online in the store."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets

from fraud_platform.adapters.dbt import dbt_vars, project_digest, target_path
from fraud_platform.adapters.duckdb_timeline import end_of_timeline
from fraud_platform.adapters.lmdb import FORMAT as STORE_FORMAT
from fraud_platform.adapters.lmdb_load import load_store
from fraud_platform.defs.as_of import AsOf
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.parity import PARITY
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SettingsError
from fraud_platform.schema import MILLISECONDS_PER_DAY

GROUPS = {"staging": "features", "features": "features", "training": "labels"}
FEATURES_STEP, STORE_STEP = "features_dbt", "online_store"
SOURCES = ("ingest.transactions", "ingest.labels")


class Translator(DagsterDbtTranslator):
    """A model belongs to the stage that its folder serves."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        if dbt_resource_props["name"] == "training_set":
            return "train"
        return GROUPS.get(dbt_resource_props["fqn"][1])

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """A training set is made only of features that were proven exact: it waits for that."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        is_taught = spec.key == dg.AssetKey(["training", "training_set"])
        return spec.merge_attributes(deps=[PARITY]) if is_taught else spec


def build_dbt(manifest: Path) -> list[dg.AssetsDefinition]:
    """One project in two steps: features, which no as_of changes, and labels with the training set."""

    @dbt_assets(
        manifest=manifest,
        select="staging features",
        name=FEATURES_STEP,
        dagster_dbt_translator=Translator(),
        pool=POOL,
    )
    def features(
        context: dg.AssetExecutionContext, dbt: DbtCliResource, platform: dg.ResourceParam[Platform]
    ) -> Iterator[Any]:
        yield from _build(context, dbt, platform, None)

    @dbt_assets(
        manifest=manifest,
        select="training",
        name="training_dbt",
        dagster_dbt_translator=Translator(),
        pool=POOL,
    )
    def training(
        context: dg.AssetExecutionContext,
        dbt: DbtCliResource,
        platform: dg.ResourceParam[Platform],
        config: AsOf,
    ) -> Iterator[Any]:
        _require_known(platform, config)
        yield from _build(context, dbt, platform, config.ms)

    return [features, training]


def _build(
    context: dg.AssetExecutionContext, dbt: DbtCliResource, platform: Platform, as_of_ms: int | None
) -> Iterator[Any]:
    """Runs dbt on the selected models, or says that nothing they read has changed since they were built."""
    warehouse, step = platform.warehouse, context.op.name
    variables = dbt_vars(platform.settings, platform.mapping, as_of_ms)
    selected = sorted(key.to_user_string() for key in context.selected_asset_keys)
    inputs = project_digest(
        json.dumps([variables, selected], sort_keys=True), warehouse.fingerprint(*_read_by(step))
    )
    if warehouse.built_from(step) == inputs:
        yield from _unchanged(context, platform)
        return
    warehouse.note_build(step, None)
    (platform.settings.home / "spill").mkdir(parents=True, exist_ok=True)
    command = ["build", "--exclude-resource-type", "unit_test", "--vars", json.dumps(variables)]
    invocation = dbt.cli(command, context=context, target_path=target_path(platform.settings))
    for event in list(invocation.stream()):
        yield _counted(event, platform)
    warehouse.note_build(step, inputs)


def _require_known(platform: Platform, config: AsOf) -> None:
    """After the data's last day nobody could have reported on transactions, and none would be immature."""
    with platform.warehouse.connect(read_only=True) as connection:
        end = -(-end_of_timeline(connection) // MILLISECONDS_PER_DAY) * MILLISECONDS_PER_DAY
    if config.ms is not None and config.ms > end:
        known = datetime.fromtimestamp(end / 1000, UTC).isoformat(timespec="seconds")
        raise SettingsError(
            f"as_of {config.as_of} lies after the last day of the data, which ends {known}: what comes "
            "later is not known; take that moment or an earlier one, or leave as_of out"
        )


def _read_by(step: str) -> tuple[str, ...]:
    return SOURCES if step == FEATURES_STEP else (*SOURCES, "features.transaction_features")


def _unchanged(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Any]:
    """The tables stand as the last complete build left them; it completes only where every test passed."""
    selected = context.selected_asset_keys
    deps = {key: context.assets_def.asset_deps[key] & selected for key in sorted(selected)}
    for key in TopologicalSorter(deps).static_order():
        rows = platform.warehouse.count(".".join(key.path))
        yield dg.MaterializeResult(asset_key=key, metadata={"dagster/row_count": rows, "unchanged": True})
    for check in context.selected_asset_check_keys:
        yield dg.AssetCheckResult(
            asset_key=check.asset_key, check_name=check.name, passed=True, metadata={"unchanged": True}
        )


def _counted(event: Any, platform: Platform) -> Any:
    """A built table's event with its rows; dbt holds the warehouse until it has ended, so they come after."""
    if not isinstance(event, dg.Output):
        return event
    table = str(event.metadata["unique_id"].value).rsplit(".", 1)[-1]
    schema = next(schema for schema in GROUPS if platform.warehouse.exists(f"{schema}.{table}"))
    rows = platform.warehouse.count(f"{schema}.{table}")
    return dg.Output(
        event.value,
        output_name=event.output_name,
        metadata={**event.metadata, "dagster/row_count": rows},
        data_version=event.data_version,
    )


@dg.asset(
    key=["features", "online_store"],
    deps=[["features", "transaction_features"]],
    group_name="features",
    kinds={"lmdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def online_store(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """The embedded store that has seen the whole timeline: what a new service starts from."""
    warehouse, path = platform.warehouse, platform.settings.store
    inputs = project_digest(platform.contract.hash, STORE_FORMAT.decode(), warehouse.fingerprint(*SOURCES))
    is_unchanged = path.is_dir() and warehouse.built_from(STORE_STEP) == inputs
    metadata: dict[str, Any] = {"contract": platform.contract.hash, "unchanged": is_unchanged}
    if is_unchanged:
        return dg.MaterializeResult(
            metadata=metadata | {"dagster/row_count": warehouse.count("ingest.transactions")}
        )
    report = load_store(warehouse, platform.contract, path, progress=context.log.info)
    warehouse.note_build(STORE_STEP, inputs)
    return dg.MaterializeResult(
        metadata=metadata
        | {
            "dagster/row_count": report.transactions,
            "log_entries": report.log_entries,
            "keys": report.keys,
            "watermark": dg.MetadataValue.timestamp(report.watermark / 1000),
        }
    )
