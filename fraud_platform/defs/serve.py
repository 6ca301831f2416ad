"""Go-live: the service's own store, made beside the running one and put in its place."""

from typing import Any

import dagster as dg
import msgspec

from fraud_platform.adapters.bundle_files import bundle_path, load_bundle
from fraud_platform.adapters.go_live import go_live, is_live
from fraud_platform.adapters.store_audit import audit_store
from fraud_platform.defs.features import SOURCES
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.latest import latest_text
from fraud_platform.defs.platform import Platform
from fraud_platform.package import Bundle

LIVE_STORE = dg.AssetKey(["serve", "live_store"])


@dg.asset(
    key=LIVE_STORE,
    deps=[["package", "bundle"]],
    group_name="serve",
    kinds={"lmdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def live_store(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """The store that the service decides with: the warehouse, then what the service itself has seen since.

    A running service goes on with it by itself; no decision is lost and no event is counted twice.
    """
    digest, bundle = packaged_bundle(context.instance, platform)
    state, source = platform.settings.service_state, platform.warehouse.fingerprint(*SOURCES)
    metadata: dict[str, Any] = {"contract": bundle.contract.hash, "bundle": digest}
    if is_live(state, bundle.contract, source):
        return dg.MaterializeResult(
            metadata=metadata | {"unchanged": True, "said": "the store is up to date"}
        )
    report = go_live(
        platform.warehouse,
        bundle.contract,
        state,
        bundle=str(bundle_path(platform.settings.bundles, digest)),
        source=source,
        progress=context.log.info,
    )
    return dg.MaterializeResult(
        metadata=metadata
        | msgspec.to_builtins(report)
        | {"unchanged": False, "said": str(report), "dagster/row_count": report.loaded}
    )


@dg.asset_check(
    asset=LIVE_STORE,
    name="counts_every_event_once",
    blocking=True,
    description="Key by key, the store's logs hold what the warehouse and the service's logs hold",
    pool=POOL,
)
def counts_every_event_once(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """Holds while traffic goes on."""
    _, bundle = packaged_bundle(context.instance, platform)
    audit = audit_store(platform.warehouse, bundle.contract, platform.settings.service_state)
    return dg.AssetCheckResult(
        passed=audit.is_whole,
        description=str(audit),
        metadata={
            "keys": audit.keys,
            "transactions": audit.transactions,
            "reports": audit.reports,
            "differing": audit.differing,
            "differences": list(audit.differences),
            "said": str(audit),
        },
    )


def packaged_bundle(instance: dg.DagsterInstance, platform: Platform) -> tuple[str, Bundle]:
    """The last bundle that was packaged, and its id. SettingsError where there is none."""
    digest = latest_text(instance, ["package", "bundle"], "bundle")
    return digest, load_bundle(bundle_path(platform.settings.bundles, digest))
