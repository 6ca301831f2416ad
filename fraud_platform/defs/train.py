"""A candidate from the training set."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pandas as pd

from fraud_platform.adapters.candidates import write_candidate
from fraud_platform.adapters.duckdb_delay import label_events
from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.adapters.optuna import read_best
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import TooFewReportsError
from fraud_platform.learning.delayed import young_labels
from fraud_platform.learning.known import KnownLabels
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train import DEFAULT_PARAMS, Split, TrainParams, YoungLabels, train


class TrainConfig(dg.Config):
    """Overrides of the model's defaults; 0 keeps a default.

    use_search: begin with the best parameters of the last `learning/search` instead of the defaults.
    """

    use_search: bool = False
    rounds_max: int = 0
    num_leaves: int = 0
    learning_rate: float = 0.0
    legit_share: float = 0.0

    def params(self, searched: Path) -> tuple[TrainParams, str]:
        """The parameters and their source. SettingsError where a search is to be used and there was none."""
        base, source = TrainParams(), DEFAULT_PARAMS
        if self.use_search:
            base, source = read_best(searched, base)
        own = {name: value for name, value in self.model_dump(exclude={"use_search"}).items() if value}
        if own:
            source += f"; given for this run: {', '.join(f'{name}={value}' for name, value in own.items())}"
        return replace(base, **own), source


@dg.asset(
    key=["train", "candidate"],
    deps=[["training", "training_set"], ["ingest", "labels"]],
    group_name="train",
    kinds={"lightgbm"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def candidate(
    context: dg.AssetExecutionContext, config: TrainConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """LightGBM on mature rows, stopped and calibrated on later ones; the test part is not looked at.

    What teaches, stops and calibrates has the outcomes that were known when the test part began. Unless the
    dataset's mapping leaves them out, the rows of the gap, which are later still, teach as well, corrected
    for what was not known of them then.
    """
    frame = platform.warehouse.frame(f"select * from {TRAINING_SET}")
    split = candidate_split(platform, frame)
    is_known = {path.name for path in platform.settings.candidates.glob("*")}
    params, source = config.params(platform.settings.search)
    labels = known_labels(platform, frame)
    frame = labels.taught(frame, split.test.start_ms)
    young, why_none = young_rows(platform, frame, labels, split)
    trained = train(frame, platform.contract, split, params, context.log.info, source, young)
    said = trained.log.young.explain() if trained.log.young else f"none: {why_none}"
    context.log.info(f"young rows: {said}")
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
            "young_rows": said,
            "params_source": trained.log.params_source,
            "rounds": trained.log.rounds,
            "validation_average_precision": trained.log.validation_average_precision,
            "unchanged": trained.fingerprint in is_known,
        }
    )


def candidate_split(platform: Platform, frame: pd.DataFrame) -> Split:
    """Of a dataset's mature rows, as its mapping divides them; frame: event_time (ms)."""
    rule = platform.mapping
    return Split.by_time(
        first_ms=int(frame["event_time"].min()),
        end_ms=int(frame["event_time"].max()) + 1,
        gap_ms=rule.maturity_days * MILLISECONDS_PER_DAY,
        validation_days=rule.split.validation_days,
        test_days=rule.split.test_days,
    )


def known_labels(platform: Platform, frame: pd.DataFrame) -> KnownLabels:
    """What was known when of the rows of a training set, in their order; frame: transaction_id."""
    ids = frame["transaction_id"].to_numpy(dtype=object)
    return KnownLabels.of(label_events(platform.warehouse), ids, platform.mapping.label_precedence)


def young_rows(
    platform: Platform, frame: pd.DataFrame, labels: KnownLabels, split: Split
) -> tuple[YoungLabels | None, str]:
    """What was known when the test part began, None where young rows do not teach; and why none may."""
    if platform.mapping.young_rows == "left_out":
        return None, "the dataset's mapping leaves them out"
    try:
        young = young_labels(frame, labels, split.test.start_ms)
    except TooFewReportsError as error:
        return None, str(error)
    return young, "too little is known of rows as young"
