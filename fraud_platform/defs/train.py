"""A candidate from the training set."""

import dagster as dg

from fraud_platform.adapters.candidates import write_candidate
from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train import Split, TrainParams, train


class TrainConfig(dg.Config):
    """Overrides of the model's defaults; 0 keeps a default."""

    rounds_max: int = 0
    num_leaves: int = 0
    learning_rate: float = 0.0
    legit_share: float = 0.0

    def params(self) -> TrainParams:
        return TrainParams(**{name: value for name, value in self.model_dump().items() if value})


@dg.asset(
    key=["train", "candidate"],
    deps=[["training", "training_set"]],
    group_name="train",
    kinds={"lightgbm"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def candidate(
    context: dg.AssetExecutionContext, config: TrainConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """LightGBM on mature rows, stopped and calibrated on later ones; the test part is not looked at."""
    frame = platform.warehouse.frame(f"select * from {TRAINING_SET}")
    rule = platform.mapping
    split = Split.by_time(
        first_ms=int(frame["event_time"].min()),
        end_ms=int(frame["event_time"].max()) + 1,
        gap_ms=rule.maturity_days * MILLISECONDS_PER_DAY,
        validation_days=rule.split.validation_days,
        test_days=rule.split.test_days,
    )
    is_known = {path.name for path in platform.settings.candidates.glob("*")}
    trained = train(frame, platform.contract, split, config.params(), report=context.log.info)
    folder = write_candidate(trained, platform.settings.candidates)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": trained.log.train.rows,
            "fingerprint": trained.fingerprint,
            "folder": str(folder),
            "train": f"{split.train}: {trained.log.train.rows:,} rows, {trained.log.train.frauds:,} frauds",
            "validation": f"{split.validation}: {trained.log.validation.rows:,} rows, "
            f"{trained.log.validation.frauds:,} frauds",
            "test": str(split.test),
            "rounds": trained.log.rounds,
            "validation_average_precision": trained.log.validation_average_precision,
            "unchanged": trained.fingerprint in is_known,
        }
    )
