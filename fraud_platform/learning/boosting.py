"""LightGBM with row weights, with further columns, or with the focal loss; else as `train` does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fraud_platform.features.contract import FeatureContract
from fraud_platform.learning.focal import focal_curvature, focal_gradient, focal_loss
from fraud_platform.train import TrainParams
from fraud_platform.train.booster import load_lightgbm

Scorer = Callable[[np.ndarray], np.ndarray]
"""From an encoded matrix (n, k) to raw scores from 0 to 1, float64 (n,)."""


@dataclass(frozen=True)
class Taught:
    """Rows with what they weigh: `matrix` (n, k), `is_fraud` and `weight` (n,)."""

    matrix: np.ndarray
    is_fraud: np.ndarray
    weight: np.ndarray


def boost(
    learn: Taught,
    held_out: Taught,
    contract: FeatureContract,
    params: TrainParams,
    further: Sequence[str] = (),
    is_focal: bool = False,
) -> Scorer:
    """Fit on `learn`, stop on `held_out`, whose legitimate rows are weighed to the odds of what teaches.

    further: names of columns that follow those of the contract. Rows keep their weights relative to each
    other; their mean becomes 1, so that regularisation means the same under any weighting.
    """
    lightgbm = load_lightgbm()
    options = {
        "feature_name": [*contract.names, *further],
        "categorical_feature": [i for i, f in enumerate(contract.features) if f.dtype == "category"],
        "params": {"verbosity": -1},
    }
    rows = lightgbm.Dataset(
        learn.matrix, learn.is_fraud.astype(float), weight=learn.weight / learn.weight.mean(), **options
    )
    stop = with_odds_of(held_out, learn)
    watched = rows.create_valid(stop.matrix, stop.is_fraud.astype(float), weight=stop.weight)
    settings, own_loss = params.for_lightgbm(), None
    if is_focal:
        settings |= {"objective": _focal_objective, "metric": "None"}
        own_loss = _focal_metric
    callbacks = []
    if params.early_stopping_rounds > 0:
        callbacks.append(lightgbm.early_stopping(params.early_stopping_rounds, verbose=False))
    booster = lightgbm.train(
        settings, rows, params.rounds_max, valid_sets=[watched], feval=own_loss, callbacks=callbacks
    )

    def score(matrix: np.ndarray) -> np.ndarray:
        said = np.asarray(booster.predict(matrix, num_threads=params.threads), dtype=np.float64)
        return 1.0 / (1.0 + np.exp(-said)) if is_focal else said

    return score


def with_odds_of(rows: Taught, other: Taught) -> Taught:
    """The rows, legitimate ones weighed so that weighted frauds stand to them as they do in `other`."""
    wanted = other.weight[~other.is_fraud].sum() / other.weight[other.is_fraud].sum()
    there = rows.weight[~rows.is_fraud].sum() / rows.weight[rows.is_fraud].sum()
    return replace(rows, weight=np.where(rows.is_fraud, rows.weight, rows.weight * (wanted / there)))


def _focal_objective(margin: np.ndarray, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    is_fraud, weight = rows.get_label() > 0.5, _weight(rows)
    return weight * focal_gradient(margin, is_fraud), weight * focal_curvature(margin, is_fraud)


def _focal_metric(margin: np.ndarray, rows: Any) -> tuple[str, float, bool]:
    loss = focal_loss(margin, rows.get_label() > 0.5)
    return "focal_loss", float(np.average(loss, weights=_weight(rows))), False


def _weight(rows: Any) -> np.ndarray:
    """(n,); LightGBM keeps no weights that are all 1."""
    weight = rows.get_weight()
    return np.ones(rows.num_data()) if weight is None else np.asarray(weight, dtype=np.float64)
