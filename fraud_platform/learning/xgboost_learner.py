"""XGBoost on the rows that teach LightGBM, with parameters that mean about the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fraud_platform.features.contract import FeatureContract
from fraud_platform.learning.extra import load_extra
from fraud_platform.learning.lessons import Rows
from fraud_platform.train import TrainParams

DEPTH = 6


class XgboostModel:
    """A fitted model, cut at its best round. `score`: float64 (n, k) to raw scores from 0 to 1, (n,)."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def score(self, matrix: np.ndarray) -> np.ndarray:
        said = self._booster.inplace_predict(matrix, validate_features=False)
        return np.asarray(said, dtype=np.float64)

    def one_row(self) -> Callable[[np.ndarray], float]:
        """The same for one row (k,), with one thread."""
        booster = self._booster.copy()
        booster.set_param({"nthread": 1})
        return lambda row: float(booster.inplace_predict(row[np.newaxis], validate_features=False)[0])


def fit_xgboost(
    learn: Rows, held_out: Rows, share: float, contract: FeatureContract, params: TrainParams
) -> XgboostModel:
    """Fit on `learn`, stop on `held_out`, whose legitimate rows weigh the `share` that `learn` has."""
    xgboost = load_extra("xgboost")
    kinds = ["c" if feature.dtype == "category" else "q" for feature in contract.features]

    def rows(part: Rows, weight: np.ndarray | None = None) -> Any:
        return xgboost.DMatrix(
            part.matrix,
            part.is_fraud.astype(np.float64),
            weight=weight,
            feature_types=kinds,
            enable_categorical=True,
            nthread=params.threads,
        )

    stops = params.early_stopping_rounds > 0
    booster = xgboost.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "eta": params.learning_rate,
            "max_depth": DEPTH,
            "subsample": params.bagging_fraction,
            "colsample_bytree": params.feature_fraction,
            "lambda": params.lambda_l2,
            "seed": params.seed,
            "nthread": params.threads,
            "verbosity": 0,
        },
        rows(learn),
        params.rounds_max,
        evals=[(rows(held_out, np.where(held_out.is_fraud, 1.0, share)), "held_out")] if stops else [],
        early_stopping_rounds=params.early_stopping_rounds if stops else None,
        verbose_eval=False,
    )
    return XgboostModel(booster[: booster.best_iteration + 1] if stops else booster)
