"""A retrain beside the bare library: the same matrix and parameters, in one process, one after the other.

Belongs here: the data, the three fits and what they are compared on. Does not belong here: how the platform
trains (`fraud_platform.train`).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tests.perf.measured import Measured, Sizes

if TYPE_CHECKING:
    import pandas as pd

    from fraud_platform.defs.platform import Platform
    from fraud_platform.features.contract import FeatureContract
    from fraud_platform.train import Candidate, Split, TrainParams

FEATURES, ROUNDS = 80, 400
HELD_OUT_SHARE, TEST_SHARE = 0.05, 0.10
FRAUD_LOG_ODDS = -8.3
DAYS, GAP_DAYS = 200, 14
LEGIT_SHARE = 0.1
WARM_UP_ROWS = 20_000
RATIO, PEAK_GIB = 1.2, 8.0
START_MS = 1_700_006_400_000

Made = TypeVar("Made")


@dataclass(frozen=True)
class Clocked:
    """Seconds on the wall's clock and of the processor, and the process's peak memory by then (GiB)."""

    seconds: float
    processor_s: float
    peak_gib: float

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, processor {self.processor_s:.0f} s"


def retrain(_: Platform, sizes: Sizes) -> Measured:
    """The platform's whole `train` first, so that the peak is its own; then a sample; then the library alone.

    A small fit before them loads what is imported late: that is paid once a process, not once a retrain.
    """
    from fraud_platform.train import TrainParams

    _train(*make_training_set(WARM_UP_ROWS), TrainParams(rounds_max=5, legit_share=1.0))
    frame, contract, split = make_training_set(sizes.retrain)
    params = TrainParams(rounds_max=ROUNDS, early_stopping_rounds=0, legit_share=1.0)
    sampling = replace(params, legit_share=LEGIT_SHARE)
    whole, ours = _clocked(lambda: _train(frame, contract, split, params))
    sample, sampled = _clocked(lambda: _train(frame, contract, split, sampling))
    bare_text, bare = _bare(frame, whole, params)
    ratio, work = ours.seconds / bare.seconds, ours.processor_s / bare.processor_s
    test = frame.loc[split.test.mask(frame["event_time"].to_numpy())]
    is_same = _trees(bare_text) == _trees(whole.model_text)
    details = (
        f"{whole.log.train.rows:,} x {len(contract.features)}, {whole.log.train.frauds:,} frauds, "
        f"{ROUNDS} rounds; the two models' trees are {'the same' if is_same else 'NOT THE SAME'}",
        f"lightgbm.train alone: {bare}",
        f"the platform's train, with its log, digest, calibration and baseline: {ours}; "
        f"ratio {ratio:.2f} (target {RATIO}), of processor time {work:.2f}; "
        f"peak {ours.peak_gib:.1f} GiB (target {PEAK_GIB:g})",
        f"with {LEGIT_SHARE:.0%} of the legitimate rows ({sample.log.teaching_rows:,}): {sampled}; "
        f"{sampled.seconds / ours.seconds:.2f} of the whole",
        f"all rows, on {len(test):,} later ones: {_told(whole, test)}",
        f"sampled, its prior corrected by the calibrator: {_told(sample, test)}",
    )
    note = f"{ratio:.2f} of lightgbm.train alone (target {RATIO}), {ours.peak_gib:.1f} GiB; below"
    return Measured(whole.log.train.rows, (ours.seconds,), note, details)


def make_training_set(rows: int) -> tuple[pd.DataFrame, FeatureContract, Split]:
    """`rows` that teach, and those that stop and judge behind them: 80 numbers of mixed shapes, ids, labels.

    A dozen of the numbers tell fraud, some only together; one in ten values of a third of them is unknown.
    """
    import pandas as pd

    from fraud_platform.features.contract import Feature, FeatureContract
    from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
    from fraud_platform.train import Part, Split

    rng = np.random.default_rng(11)
    held_out, later = int(rows * HELD_OUT_SHARE), int(rows * TEST_SHARE)
    columns, margin = {}, np.full(rows + held_out + later, FRAUD_LOG_ODDS)
    for place in range(FEATURES):
        column = _drawn(rng, place, len(margin))
        if place < 12:
            margin += _told_by(place, column, columns)
        if place % 3 == 2:
            column[rng.random(len(column)) < 0.1] = np.nan
        columns[f"f{place:02d}"] = column
    names = ("train", "validation", "test")
    ends = np.array([0.75, 0.80, 1.0]) * DAYS
    parts = [
        Part(START_MS + int(first * DAY), START_MS + int(end * DAY))
        for first, end in zip((0, ends[0], ends[1] + GAP_DAYS), ends, strict=True)
    ]
    counts = (rows, held_out, later)
    moments = [np.sort(rng.integers(p.start_ms, p.end_ms, n)) for p, n in zip(parts, counts, strict=True)]
    frame = pd.DataFrame(
        {
            "transaction_id": pd.Series([f"t{i:08d}" for i in range(len(margin))], dtype="str"),
            "event_time": np.concatenate(moments),
            "is_fraud": rng.random(len(margin)) < 1.0 / (1.0 + np.exp(-margin)),
            **columns,
        },
        copy=False,
    )
    features = tuple(Feature(name=name, kind="field", description=name) for name in columns)
    split = Split(**dict(zip(names, parts, strict=True)), gap_ms=GAP_DAYS * DAY)
    return frame, FeatureContract({}, features), split


def _drawn(rng: np.random.Generator, place: int, n: int) -> np.ndarray:
    """Amounts, counts and spreads, as features are."""
    if place % 4 == 0:
        return rng.gamma(2.0, 40.0, n)
    if place % 4 == 1:
        return rng.poisson(3.0, n).astype(np.float64)
    return rng.normal(size=n)


def _told_by(place: int, column: np.ndarray, before: dict[str, np.ndarray]) -> np.ndarray:
    spread = (column - column.mean()) / column.std()
    if place % 3 == 1:
        last = before[f"f{place - 1:02d}"]
        return 1.2 * spread * (last > np.nanmean(last))
    return 0.9 * spread


def _train(frame: pd.DataFrame, contract: FeatureContract, split: Split, params: TrainParams) -> Candidate:
    from fraud_platform.train import train

    return train(frame, contract, split, params)


def _bare(frame: pd.DataFrame, model: Candidate, params: TrainParams) -> tuple[str, Clocked]:
    """The library on the matrix that taught the model; making the matrix is not timed."""
    from fraud_platform.train import columns_of
    from fraud_platform.train.booster import load_lightgbm

    part = frame.loc[model.split.train.mask(frame["event_time"].to_numpy())]
    part = part.sort_values(["event_time", "transaction_id"], kind="stable")
    matrix = model.matrix(columns_of(part, model.contract))
    labels = part["is_fraud"].to_numpy(dtype=np.float64)
    del part
    lightgbm = load_lightgbm()

    def fit() -> str:
        names = list(model.contract.names)
        rows = lightgbm.Dataset(matrix, labels, feature_name=names, params={"verbosity": -1})
        return str(lightgbm.train(params.for_lightgbm(), rows, params.rounds_max).model_to_string())

    return _clocked(fit)


def _clocked(work: Callable[[], Made]) -> tuple[Made, Clocked]:
    started, worked = time.perf_counter(), time.process_time()
    done = work()
    seconds, processor_s = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return done, Clocked(seconds, processor_s, peak)


def _trees(model_text: str) -> str:
    """The model without the parameters that it was made with."""
    return model_text.split("\nparameters:")[0]


def _told(model: Candidate, test: pd.DataFrame) -> str:
    from sklearn.metrics import average_precision_score

    from fraud_platform.evaluate import calibration_bins, calibration_error
    from fraud_platform.train import columns_of

    score = model.score(columns_of(test, model.contract))
    probability, is_fraud = model.calibrator(score), test["is_fraud"].to_numpy(dtype=bool)
    error = calibration_error(calibration_bins(probability, is_fraud))
    brier = float(np.mean((probability - is_fraud) ** 2))
    return (
        f"AP {average_precision_score(is_fraud, score):.4f}, calibration error {error:.5f}, "
        f"Brier {brier:.5f}, mean probability {probability.mean():.4%} for {is_fraud.mean():.4%} fraud"
    )
