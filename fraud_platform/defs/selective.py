"""What exploring declines would tell, cost and teach, in the world whose truth is known."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from fraud_platform.adapters.duckdb_history import history, mature_frame
from fraud_platform.adapters.landing import read_truth
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.rules import compared_model
from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import amount_major
from fraud_platform.evaluate.joined import request_columns
from fraud_platform.learning.selective import MEASURES
from fraud_platform.learning.selective_bakeoff import (
    DRAWS,
    SHARES,
    TIMES,
    Arm,
    SelectiveBakeoff,
    World,
    bakeoff,
)
from fraud_platform.learning.selective_retraining import Retrained, retraining
from fraud_platform.policy import Policy
from fraud_platform.rules import RuleSet
from fraud_platform.schema import ACTIONS
from fraud_platform.train import Candidate, columns_of


class SelectiveConfig(dg.Config):
    """shares: of the declines, to explore; draws: worlds that are drawn at each; times: how many times as
    many cards each has."""

    shares: list[float] = list(SHARES)
    draws: int = DRAWS
    times: int = TIMES


@dg.asset(
    key=["learning", "selective_labels"],
    deps=[["train", "candidate"]],
    group_name="learning",
    kinds={"lightgbm", "duckdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def selective_labels(
    context: dg.AssetExecutionContext, config: SelectiveConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """What each estimator says of the declines, how far from the truth and how often its interval holds it.

    Left out of the learning job: it informs who sets the policy's exploration, and nothing waits for it.
    """
    model = _candidate(platform)
    settings = platform.settings
    frame = mature_frame(platform.warehouse, model.split.test)
    truth = read_truth(settings.var / "truth" / settings.dataset_name)
    world = decided_world(model, frame, truth, platform.policy, platform.rules)
    found = bakeoff(
        world,
        platform.policy,
        platform.policy.exploration,
        config.shares,
        config.draws,
        config.times,
        report=context.log.info,
    )
    context.log.info(found.explain())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.transactions,
            "declined": found.declined,
            "model": model.fingerprint,
            "summary": found.explain(),
            "exploring": _table([_exploring(arm) for arm in found.arms]),
            **{f"by_{measure}": _table(_records(found, measure)) for measure in MEASURES},
        }
    )


@dg.asset(
    key=["learning", "selective_retraining"],
    deps=[["train", "candidate"]],
    group_name="learning",
    kinds={"lightgbm", "duckdb"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def selective_retraining(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """What a retraining makes of a time of declines: all outcomes known, left out, taken as good, explored.

    Each learns as the candidate did that was trained last.
    Left out of the learning job: it informs who sets the policy's exploration, and nothing waits for it.
    """
    part = history(platform.warehouse)
    if part is None:
        raise TrainingError("the training set has no mature row yet; give more history")
    params = _candidate(platform).params
    frame = mature_frame(platform.warehouse, part)
    found = retraining(frame, platform.contract, platform.policy, params, report=context.log.info)
    context.log.info(found.explain())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.rows,
            "declined": found.declined,
            "summary": found.explain(),
            "by_contender": _table([_contender(one) for one in found.contenders]),
        }
    )


def _candidate(platform: Platform) -> Candidate:
    model = compared_model(platform, "candidate")
    if model is None:
        raise TrainingError("there is no model whose declines could be explored; train one first")
    return model


def _contender(one: Retrained) -> dict[str, Any]:
    said: dict[str, Any] = {"contender": one.name, "declined": one.declined, "frauds": one.frauds}
    said |= {"average_precision": one.average_precision, "missed": one.missed}
    for name, value in (("cost", one.cost), ("lost", one.lost)):
        said |= value.columns(name)
    return said


def decided_world(
    model: Candidate, frame: pd.DataFrame, truth: pd.DataFrame, policy: Policy, rules: RuleSet
) -> World:
    """What model and policy decide about the rows, those left out that a live rule has a say in.

    frame: as of `mature_frame`; truth: as of `read_truth`. TrainingError where it misses a row.
    """
    columns = columns_of(frame, model.contract)
    kept = rules.actions({**columns, **request_columns(frame)}, len(frame)) < 0
    known = truth.set_index("transaction_id")["is_fraud"].reindex(frame["transaction_id"])
    if known.isna().any():
        missing = known.index[known.isna()][0]
        raise TrainingError(
            f"the truth does not know transaction {missing!r}: the warehouse holds another world; "
            "materialize simulate/world and ingest again"
        )
    probability = model.probability(columns)
    amount = amount_major(frame["amount_minor"].to_numpy(), frame["currency"].to_numpy())
    declined = policy.actions(probability, amount) == ACTIONS.index("decline")
    return World(
        event_time=frame["event_time"].to_numpy()[kept],
        is_declined=declined[kept],
        is_fraud=known.to_numpy(dtype=bool)[kept],
        probability=np.asarray(probability)[kept],
        amount=amount[kept],
        card_id=frame["card_id"].to_numpy(dtype=object).astype(str)[kept],
    )


def _exploring(arm: Arm) -> dict[str, Any]:
    return {
        "share": arm.share,
        "limits": "the policy's" if arm.is_limited else "none",
        "explored": arm.explored,
        "supported": arm.supported,
        "cost_per_1000": arm.cost,
    }


def _records(found: SelectiveBakeoff, measure: str) -> list[dict[str, Any]]:
    """A row an estimator and way to explore; those that told nothing in any draw are left out."""
    return [
        {
            "share": arm.share,
            "limits": "the policy's" if arm.is_limited else "none",
            "estimator": one.estimator,
            "truth": one.truth,
            "mean": one.mean,
            "bias": one.bias,
            "deviation": one.deviation,
            "coverage": one.coverage,
            "width": one.width,
            "untold": one.untold,
        }
        for arm in found.arms
        for one in arm.scored
        if one.measure == measure and one.mean is not None
    ]


def _table(records: Sequence[dict[str, Any]]) -> dg.TableMetadataValue:
    texts = ("limits", "estimator", "contender")
    columns = [dg.TableColumn(name, "string" if name in texts else "float") for name in records[0]]
    return dg.MetadataValue.table(list(map(dg.TableRecord, records)), dg.TableSchema(columns))
