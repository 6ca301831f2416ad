"""What experiments on folds share: settings, the folds and lessons of a dataset, tables of standings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.train import candidate_split, known_labels
from fraud_platform.errors import TrainingError
from fraud_platform.evaluate import Fold, prequential
from fraud_platform.evaluate.folds import Role
from fraud_platform.learning.contest import Standing
from fraud_platform.learning.lessons import Lesson, lessons
from fraud_platform.schema import MILLISECONDS_PER_DAY

GROUP = "learning"
ROWS_MAX = 60_000
HELD_OUT_DAYS = 14


class FoldConfig(dg.Config):
    """The folds of an experiment.

    rows_max: legitimate rows that teach at the most, in each fold. held_out_days: what stops and calibrates;
    0 takes the mapping's validation days, or 14 where it names none.
    """

    rows_max: int = ROWS_MAX
    validation_folds: int = 3
    test_folds: int = 3
    assessed_days: int = 7
    held_out_days: int = 0


class Experiment:
    """The mature rows of a dataset, and the folds through them.

    spares_test: the folds end where the test part of a candidate begins, so that what is chosen on them was
    not chosen on rows that judge the candidate.
    """

    def __init__(self, platform: Platform, config: FoldConfig, *, spares_test: bool = False) -> None:
        """TrainingError where the history is too short, SourceError where there is no training set yet."""
        for name in ("validation_folds", "test_folds"):
            if getattr(config, name) < 1:
                raise TrainingError(
                    f"{name}={getattr(config, name)}: must be 1 or more; some choose, later ones judge"
                )
        self.platform, self.config = platform, config
        self.frame: pd.DataFrame = platform.warehouse.frame(f"select * from {TRAINING_SET}")
        if self.frame.empty:
            raise TrainingError("the training set has no mature row yet; give more history")
        rule = platform.mapping
        end_ms = int(self.frame["event_time"].max()) + 1
        self.folds = prequential(
            int(self.frame["event_time"].min()),
            candidate_split(platform, self.frame).test.start_ms if spares_test else end_ms,
            rule.maturity_days * MILLISECONDS_PER_DAY,
            validation_folds=config.validation_folds,
            test_folds=config.test_folds,
            assessed_days=config.assessed_days,
            held_out_days=config.held_out_days or rule.split.validation_days or HELD_OUT_DAYS,
        )

    def lessons(self, *roles: Role) -> Iterator[Lesson]:
        """One a fold, of these roles or of all."""
        wanted: Sequence[Fold] = [fold for fold in self.folds if not roles or fold.role in roles]
        labels = known_labels(self.platform, self.frame)
        return lessons(self.frame, labels, self.platform.contract, wanted, self.config.rows_max)


def standings_table(found: Sequence[Standing]) -> dg.TableMetadataValue:
    """One row a way; money is major units per 1,000 transactions."""
    return table([standing_record(one) for one in found])


def standing_record(one: Standing) -> dict[str, Any]:
    said: dict[str, Any] = {"way": one.way, "taught": round(one.rows), "share": one.share}
    said |= {"AP": one.average_precision, "AUC": one.auc, "CP@100": one.card_precision}
    for name, value in (("cost", one.cost), ("saved", one.saved)):
        said |= value.columns(name)
    said |= {"calibration_error": one.calibration_error, "raw_calibration_error": one.raw_calibration_error}
    return said | {"seconds": one.seconds}


def table(records: Sequence[dict[str, Any]]) -> dg.TableMetadataValue:
    """Records of the same fields; a column's type is that of its first value."""
    kinds = {str: "string", int: "int", bool: "bool"}
    names = records[0] if records else {}
    columns = [dg.TableColumn(name, kinds.get(type(value), "float")) for name, value in names.items()]
    return dg.MetadataValue.table(list(map(dg.TableRecord, records)), dg.TableSchema(columns))


def lines(sentences: Sequence[str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in sentences))
