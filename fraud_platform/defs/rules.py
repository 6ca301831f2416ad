"""What the rules would have done in mature history, beside the model that decides."""

from typing import Any

import dagster as dg

from fraud_platform.adapters.duckdb_history import history, mature_rows
from fraud_platform.adapters.tails import latest_candidate
from fraud_platform.defs.as_of import parse_as_of
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SettingsError, TrainingError
from fraud_platform.evaluate import Backtest, RuleResult, backtest
from fraud_platform.train import Candidate, Part

BACKTEST = dg.AssetKey(["evaluate", "rules_backtest"])
MODELS = ("champion", "candidate", "none")


@dg.asset(
    key=BACKTEST,
    deps=[["train", "candidate"]],
    group_name="evaluate",
    kinds={"lightgbm", "duckdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def rules_backtest(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """Each rule over all mature history: hits, precision, recall, money, and what it adds to the model.

    Left out of the learning job: it informs the rules' owners, and nothing waits for it.
    """
    part = window(platform)
    model = compared_model(platform)
    context.log.info(f"backtesting {len(platform.rules.declared)} rules, {part}")
    found = backtest(mature_rows(platform.warehouse, part), part, platform.rules, platform.policy, model)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.rows,
            "frauds": found.frauds,
            "model": found.model or "none",
            "model_rows": found.model_rows,
            "summary": dg.MetadataValue.md("\n".join(f"- {line}" for line in found.explain())),
            "by_rule": _table(found),
            **{f"cost_{name}": dg.MetadataValue.float(cost) for name, cost in found.costs.items()},
        }
    )


def window(platform: Platform, since: str = "", until: str = "") -> Part:
    """The mature rows from `since` to before `until`, each a day or a moment (UTC), empty for no limit.

    SettingsError where they leave nothing, TrainingError where there is no mature row.
    """
    found = history(platform.warehouse)
    if found is None:
        raise TrainingError("the training set has no mature row yet; give more history")
    start_ms = max(parse_as_of(since) or found.start_ms, found.start_ms)
    end_ms = min(parse_as_of(until) or found.end_ms, found.end_ms)
    if start_ms >= end_ms:
        raise SettingsError(f"from {since!r} until {until!r} leaves no mature row; there are rows of {found}")
    return Part(start_ms, end_ms)


def compared_model(platform: Platform, which: str = "champion") -> Candidate | None:
    """The champion or, where there is none, the candidate that was trained last; None for "none"."""
    if which not in MODELS:
        raise SettingsError(f"model {which!r} must be one of {', '.join(MODELS)}")
    if which == "none":
        return None
    is_registered = which == "champion" and platform.settings.mlflow_home.exists()
    version = platform.registry.champion() if is_registered else None
    if version is not None:
        return platform.registry.candidate(version.version)
    return latest_candidate(platform.settings.candidates)


def _table(found: Backtest) -> dg.TableMetadataValue:
    records = [_record(one) for one in found.rules]
    kinds = {"hits": "int", "only": "int", "missed": "int", "missed_frauds": "int"}
    texts = dict.fromkeys(("rule", "mode", "action", "owner"), "string")
    names = records[0] if records else texts
    columns = [dg.TableColumn(name, (kinds | texts).get(name, "float")) for name in names]
    return dg.MetadataValue.table(list(map(dg.TableRecord, records)), dg.TableSchema(columns))


def _record(one: RuleResult) -> dict[str, Any]:
    """The same fields for each rule of a backtest; None where there is nothing to divide by."""
    said: dict[str, Any] = {"rule": one.name, "mode": one.mode, "action": one.action, "owner": one.owner}
    said |= {"hits": one.hits, "precision": one.precision, "recall": one.recall, "only": one.only}
    said |= one.saved.columns("saved")
    if one.model is not None:
        said |= {"overlap": one.model.overlap, "missed": one.model.missed}
        said |= {"missed_frauds": one.model.missed_frauds, **one.model.added.columns("added")}
    return said
