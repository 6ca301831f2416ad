"""LightGBM, seeded and deterministic: the same rows and parameters give the same model, byte for byte."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from fraud_platform.errors import TrainingError

if TYPE_CHECKING:
    from fraud_platform.features.contract import FeatureContract

REPORT_EVERY_ROUNDS = 50
NUM_LEAVES_MAX = 131_072
"""LightGBM's own limit."""
_RULES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("legit_share", "feature_fraction", "bagging_fraction"), lambda v: 0 < v <= 1, "above 0 and at most 1"),
    (("learning_rate",), lambda v: 0 < v < math.inf, "finite and above 0"),
    (("lambda_l2",), lambda v: 0 <= v < math.inf, "finite and 0 or more"),
    (("num_leaves",), lambda v: 2 <= v <= NUM_LEAVES_MAX, f"from 2 to {NUM_LEAVES_MAX:,}"),
    (("max_bin",), lambda v: v >= 2, "2 or more"),
    (("rounds_max",), lambda v: v >= 1, "1 or more"),
    (("early_stopping_rounds", "min_data_in_leaf"), lambda v: v >= 0, "0 or more"),
)
"""Parameters, whether a value will do, and what to say where it will not."""


@dataclass(frozen=True)
class TrainParams:
    """How a booster learns; the defaults won on the validation folds of the handbook benchmark.

    `legit_share`: the share of legitimate rows that teach (all frauds do). `is_prior_kept` gives those
    rows the weight of the ones left out; without it only the calibrator restores the prior.
    `early_stopping_rounds` = 0 trains all of `rounds_max`.
    """

    rounds_max: int = 400
    early_stopping_rounds: int = 60
    learning_rate: float = 0.05
    num_leaves: int = 31
    min_data_in_leaf: int = 50
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.8
    lambda_l2: float = 5.0
    max_bin: int = 255
    legit_share: float = 0.1
    is_prior_kept: bool = False
    seed: int = 7
    threads: int = 2

    def __post_init__(self) -> None:
        """TrainingError where nothing could learn with a value."""
        for names, will_do, rule in _RULES:
            for name in names:
                value = getattr(self, name)
                if not will_do(value):
                    raise TrainingError(
                        f"{name}={value}: must be {rule}; the default is {getattr(TrainParams, name)}"
                    )

    def for_lightgbm(self) -> dict[str, Any]:
        return {
            "objective": "binary",
            "metric": "binary_logloss",
            # Under 1 % of fraud an estimated intercept starves the first trees.
            "boost_from_average": False,
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1 if self.bagging_fraction < 1 else 0,
            "lambda_l2": self.lambda_l2,
            "max_bin": self.max_bin,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
        }


class Booster(Protocol):
    """The part of lightgbm.Booster that is used here."""

    best_iteration: int

    def predict(self, data: np.ndarray, *, num_threads: int) -> np.ndarray: ...

    def model_to_string(self) -> str: ...

    def num_trees(self) -> int: ...


def load_lightgbm() -> Any:
    """The library, loaded when first needed, with OpenMP threads that sleep instead of spinning."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightgbm

    return lightgbm


def booster_from_text(model_text: str) -> Booster:
    return load_lightgbm().Booster(model_str=model_text)


def sample_rows(
    transaction_id: np.ndarray, is_fraud: np.ndarray, legit_share: float, seed: int
) -> np.ndarray:
    """Which rows teach: bool (n,). All frauds, and the given share of the others.

    A row's lot hangs on its id and the seed alone, not on the rows around it.
    """
    ids = np.asarray(transaction_id, dtype=object)
    lots = pd.util.hash_array(ids, hash_key=f"{seed % 10**16:016d}", categorize=False)
    return np.asarray(is_fraud, dtype=bool) | (lots < np.uint64(min(legit_share * 2.0**64, 2.0**64 - 2048)))


def row_weights(
    is_fraud: np.ndarray, params: TrainParams, weight: np.ndarray | None = None
) -> np.ndarray | None:
    """What `params` gives a row's class times its own weight, (n,); None: all alike."""
    if not params.is_prior_kept:
        return weight
    by_class = np.where(np.asarray(is_fraud, dtype=bool), 1.0, 1.0 / params.legit_share)
    return by_class if weight is None else by_class * weight


def fit_booster(
    matrix: np.ndarray,
    is_fraud: np.ndarray,
    contract: FeatureContract,
    params: TrainParams,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    report: Callable[[str], None] = lambda message: None,
    weight: np.ndarray | None = None,
) -> Booster:
    """Fit on float64 (n, k) in contract order; `validation` (matrix, is_fraud) decides when to stop.

    weight: (n,), how much each row counts, beside what `params` gives its class; None: all alike.
    """
    lightgbm = load_lightgbm()
    options = {
        "feature_name": list(contract.names),
        "categorical_feature": [i for i, f in enumerate(contract.features) if f.dtype == "category"],
        "params": {"verbosity": -1},
    }
    labels = np.asarray(is_fraud, dtype=np.float64)
    rows = lightgbm.Dataset(matrix, labels, weight=row_weights(is_fraud, params, weight), **options)
    callbacks = [_reporter(report, params.rounds_max)]
    held_out = []
    if validation is not None and params.early_stopping_rounds > 0:
        held_out = [_held_out(rows, *validation, params)]
        callbacks.append(lightgbm.early_stopping(params.early_stopping_rounds, verbose=False))
    return lightgbm.train(
        params.for_lightgbm(), rows, params.rounds_max, valid_sets=held_out, callbacks=callbacks
    )


def _held_out(rows: Any, matrix: np.ndarray, is_fraud: np.ndarray, params: TrainParams) -> Any:
    """All validation rows, weighted to the prior that the teaching rows have.

    The loss then stops at the right round; average precision on a few hundred frauds stops at random.
    """
    share = 1.0 if params.is_prior_kept else params.legit_share
    weight = np.where(np.asarray(is_fraud, dtype=bool), 1.0, share)
    return rows.create_valid(matrix, np.asarray(is_fraud, dtype=np.float64), weight=weight)


def _reporter(report: Callable[[str], None], rounds: int) -> Callable[[Any], None]:
    def after_round(environment: Any) -> None:
        done = environment.iteration + 1
        if done % REPORT_EVERY_ROUNDS == 0:
            report(f"round {done} of at most {rounds}")

    return after_round
