"""What the service's ladder costs, rung by rung."""

from typing import Any

import dagster as dg

from fraud_platform.adapters.duckdb_history import mature_frame
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.rules import compared_model
from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import Rung, Rungs
from fraud_platform.evaluate import rungs as price
from fraud_platform.schema import ACTIONS

RUNGS = dg.AssetKey(["evaluate", "rungs"])


@dg.asset(
    key=RUNGS,
    deps=[["train", "candidate"]],
    group_name="evaluate",
    kinds={"lightgbm", "duckdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def rungs(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """What an outage costs: every test row answered by one rung of the service's ladder, one after another.

    Left out of the learning job: it informs who runs the service, and nothing waits for it.
    """
    found = priced_rungs(platform, "candidate")
    context.log.info(found.explain())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.rows,
            "frauds": found.frauds,
            "model": found.model,
            "summary": found.explain(),
            "by_rung": _table(found),
        }
    )


def priced_rungs(platform: Platform, which: str = "champion") -> Rungs:
    """The ladder's costs with the champion or the candidate (see `rules.compared_model`), on its test rows.

    TrainingError where there is no model yet.
    """
    model = compared_model(platform, which)
    if model is None:
        raise TrainingError("there is no model whose rungs could be priced; train one first")
    frame = mature_frame(platform.warehouse, model.split.test)
    return price(model, frame, platform.policy, platform.rules_in_force)


def _table(found: Rungs) -> dg.TableMetadataValue:
    records = [_record(one) for one in found.rungs]
    columns = [dg.TableColumn(name, "string" if name == "rung" else "float") for name in records[0]]
    return dg.MetadataValue.table(list(map(dg.TableRecord, records)), dg.TableSchema(columns))


def _record(one: Rung) -> dict[str, Any]:
    said: dict[str, Any] = {"rung": one.name, **one.cost.columns("cost"), **one.lost.columns("lost")}
    return said | dict(zip(ACTIONS, one.shares, strict=True)) | {"missed": one.missed}
