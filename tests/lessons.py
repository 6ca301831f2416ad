"""A small world for experiments: frauds that can be told from their rows, in folds through time.

Belongs here: builders. Does not belong here: what is expected.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fraud_platform.evaluate import Fold, prequential
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.learning.known import KnownLabels
from fraud_platform.learning.lessons import Lesson, lessons
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import TrainParams

START = 20_000 * DAY
DAYS, GAP_DAYS = 64, 7
ROWS = 6_000
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount_minor", kind="field", description="Amount"),
        Feature(name="reports", kind="field", description="Reports, unknown now and then"),
        Feature(name="never_known", kind="field", description="NULL in every row"),
        Feature(name="channel", kind="category", description="Channel"),
    ),
)
PARAMS = TrainParams(rounds_max=30, early_stopping_rounds=10, min_data_in_leaf=10, legit_share=0.5, threads=1)


def world(rows: int = ROWS, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    amount, reports = rng.gamma(2.0, 40.0, rows), rng.poisson(0.3, rows).astype(float)
    channel = rng.choice(["pos", "web", "atm"], rows)
    margin = -6.2 + amount / 50 + 1.8 * reports + 1.0 * (channel == "web")
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i:06d}" for i in range(rows)],
            "event_time": np.sort(START + rng.integers(0, DAYS * DAY, rows)),
            "card_id": [f"c{i}" for i in rng.integers(0, 300, rows)],
            "currency": "EUR",
            "is_fraud": rng.random(rows) < 1 / (1 + np.exp(-margin)),
            "amount_minor": np.round(amount * 100),
            "reports": np.where(rng.random(rows) < 0.1, np.nan, reports),
            "never_known": np.full(rows, np.nan),
            "channel": pd.Series(np.where(rng.random(rows) < 0.05, None, channel), dtype="str"),
        }
    )


def folds(validation: int = 2, test: int = 1) -> tuple[Fold, ...]:
    return prequential(
        START,
        START + DAYS * DAY,
        GAP_DAYS * DAY,
        validation_folds=validation,
        test_folds=test,
        held_out_days=14,
    )


def labels_of(frame: pd.DataFrame, delay_ms: int = 0) -> KnownLabels:
    """Every fraud is reported so long after it."""
    frauds = frame.loc[frame["is_fraud"]]
    events = frauds[["transaction_id"]].assign(
        source="chargeback", outcome="fraud", known_at=frauds["event_time"] + delay_ms
    )
    return KnownLabels.of(events, frame["transaction_id"].to_numpy(dtype=object), ["chargeback"])


def made(validation: int = 2, test: int = 1, rows_max: int = 10**9) -> list[Lesson]:
    frame = world()
    return list(lessons(frame, labels_of(frame), CONTRACT, folds(validation, test), rows_max))
