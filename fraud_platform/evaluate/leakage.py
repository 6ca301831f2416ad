"""The leakage alarm: what is too good to be true, and what rows of the past know of the future.

Belongs here: the limits, the four findings from arrays and frames.
Does not belong here: building features again (`adapters.future_rows`), the checks (`defs.leakage`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from fraud_platform.errors import TrainingError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.train import Candidate, Part, Split, TrainParams, YoungLabels, columns_of, train

FEATURE_AUC_MAX = 0.95
FEATURE_AP_MAX = 0.5
"""The best single input that was known in time has AUC .89 (sparkov) and AP .30 (handbook)."""
SCORE_AP_MAX = 0.97
"""Where the dataset's mapping states no limit of its own."""
FRAUDS_MIN = 30
"""With fewer, chance alone ranks too well; the gate takes no such evidence either."""
SHUFFLED_ROUNDS = 30
SHUFFLED_ERRORS = 4.0
"""How many standard errors an AUC of shuffled labels may lie from one half: chance does so once in 16,000."""
SEED = 20_181


class Learner(Protocol):
    def __call__(
        self,
        training_set: pd.DataFrame,
        contract: FeatureContract,
        split: Split,
        params: TrainParams,
        *,
        young: YoungLabels | None = None,
    ) -> Candidate: ...


@dataclass(frozen=True)
class Finding:
    """One probe and what came of it. `suspects`: features or tables that it names, worst first."""

    name: str
    is_clean: bool
    reason: str
    suspects: tuple[str, ...] = ()


def feature_alarm(
    columns: Mapping[str, np.ndarray],
    is_fraud: np.ndarray,
    auc_max: float = FEATURE_AUC_MAX,
    ap_max: float = FEATURE_AP_MAX,
) -> Finding:
    """Does a single feature, in either direction, rank better than one that was known in time can?

    columns: each (n,); is_fraud: (n,), with both classes, or TrainingError. A value that is not known ranks
    lowest. A category ranks by its share of fraud among the other half of the rows, so that rare levels do
    not look good by themselves.
    """
    fraud = _both_classes(is_fraud)
    if fraud.sum() < FRAUDS_MIN:
        return _too_few("feature", int(fraud.sum()))
    ranked = {name: _ranking(column, fraud) for name, column in columns.items()}
    quality = {name: _best(column, fraud) for name, column in ranked.items()}
    suspects = [name for name, (auc, ap) in quality.items() if auc > auc_max or ap > ap_max]
    suspects.sort(key=lambda name: quality[name], reverse=True)
    limits = f"alone at most AUC {auc_max:g} and AP {ap_max:g} are believed"
    if suspects:
        told = ", ".join(
            f"{name} (AUC {quality[name][0]:.4f}, AP {quality[name][1]:.4f})" for name in suspects
        )
        return Finding(
            "feature", False, f"{told}: {limits}; find out how it knows the outcome", tuple(suspects)
        )
    auc, ap = (max((q[place] for q in quality.values()), default=0.0) for place in (0, 1))
    return Finding(
        "feature",
        True,
        f"best of {len(quality)} single features: AUC {auc:.4f}, AP {ap:.4f}; {limits}",
    )


def score_alarm(average_precision: float, frauds: int, ap_max: float | None = None) -> Finding:
    """Is the candidate's average precision on its test rows beyond what the dataset can give?"""
    if frauds < FRAUDS_MIN:
        return _too_few("score", frauds)
    limit = SCORE_AP_MAX if ap_max is None else ap_max
    return Finding(
        "score",
        average_precision <= limit,
        f"AP {average_precision:.4f}; more than {limit:g} is not believed on this dataset",
    )


def shuffled_alarm(
    training_set: pd.DataFrame,
    contract: FeatureContract,
    split: Split,
    params: TrainParams | None = None,
    young: YoungLabels | None = None,
    learn: Learner = train,
) -> Finding:
    """Learn from labels dealt out at random; whatever still ranks the test part has seen its labels.

    training_set, young: as for `train`, so that the rows of the gap teach as they do there. Labels are dealt
    anew within each part, the gap's reports too, so that shares stay as they are. The standard error of a
    chance AUC is the Wilcoxon statistic's, sqrt((a + b + 1) / (12 a b)).
    """
    dealt = _dealt(training_set, split)
    small = replace(
        params or TrainParams(), rounds_max=SHUFFLED_ROUNDS, early_stopping_rounds=0, num_leaves=15
    )
    model = learn(dealt, contract, split, small, young=_dealt_young(training_set, split, young))
    test = dealt.loc[split.test.mask(dealt["event_time"].to_numpy())]
    fraud = _both_classes(test["is_fraud"].to_numpy(dtype=bool))
    auc = float(roc_auc_score(fraud, model.score(columns_of(test, contract))))
    bad, good = int(fraud.sum()), int((~fraud).sum())
    tolerance = SHUFFLED_ERRORS * float(np.sqrt((bad + good + 1) / (12.0 * bad * good)))
    return Finding(
        "shuffled_labels",
        abs(auc - 0.5) <= tolerance,
        f"AUC {auc:.4f} of shuffled labels on {len(test):,} rows with {bad:,} of them; "
        f"chance is 0.5 within {tolerance:.4f}",
    )


def future_alarm(moment: str, rows: int, differing: Mapping[str, int]) -> Finding:
    """Do rows of before a moment have other features once all that came after it is gone?

    rows: how many were compared; differing: by feature, in how many of them the value is another.
    """
    wrong = {name: count for name, count in differing.items() if count}
    if not rows:
        return Finding("future_rows", False, f"no row before {moment} to compare; give more history")
    if wrong:
        suspects = tuple(sorted(wrong, key=lambda name: (-wrong[name], name)))
        told = ", ".join(f"{name} in {wrong[name]:,} rows" for name in suspects[:10])
        reason = f"values of before {moment} change where what came later is removed: {told}"
        return Finding("future_rows", False, reason, suspects)
    return Finding(
        "future_rows",
        True,
        f"{rows:,} rows of before {moment} keep all {len(differing)} values without what came later",
    )


def _too_few(name: str, frauds: int) -> Finding:
    return Finding(
        name, True, f"{frauds} frauds are too few to tell a leak from chance; {FRAUDS_MIN} are needed"
    )


def _both_classes(is_fraud: np.ndarray) -> np.ndarray:
    fraud = np.asarray(is_fraud, dtype=bool)
    if fraud.all() or not fraud.any():
        raise TrainingError(
            f"{int(fraud.sum())} frauds in {len(fraud)} rows; both classes are needed to look for leaks"
        )
    return fraud


def _ranking(column: np.ndarray, fraud: np.ndarray) -> np.ndarray:
    """The column as finite numbers to rank by: float64 (n,)."""
    values = pd.Series(column)
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        lowest = np.finfo(np.float64).min
        return np.nan_to_num(numbers, nan=lowest, neginf=lowest)
    levels = values.astype(object).where(values.notna(), "").astype(str).to_numpy()
    _, level = np.unique(levels, return_inverse=True)
    odd = np.arange(len(level)) % 2 == 1
    share = np.zeros((2, int(level.max()) + 1))
    for half, rows in enumerate((odd, ~odd)):  # even rows are ranked by odd ones, and odd by even
        count = np.bincount(level[rows], minlength=share.shape[1])
        found = np.bincount(level[rows], fraud[rows], minlength=share.shape[1])
        share[half] = found / np.maximum(count, 1)
    return share[odd.astype(np.int64), level]


def _best(numbers: np.ndarray, fraud: np.ndarray) -> tuple[float, float]:
    auc = float(roc_auc_score(fraud, numbers))
    ap = max(float(average_precision_score(fraud, side)) for side in (numbers, -numbers))
    return max(auc, 1.0 - auc), ap


def _dealt(training_set: pd.DataFrame, split: Split) -> pd.DataFrame:
    labels = training_set["is_fraud"].to_numpy(dtype=bool).copy()
    generator = np.random.default_rng(SEED)
    moments = training_set["event_time"].to_numpy()
    for rows in _parts(split, moments):
        labels[rows] = generator.permutation(labels[rows])
    return training_set.assign(is_fraud=labels)


def _dealt_young(training_set: pd.DataFrame, split: Split, young: YoungLabels | None) -> YoungLabels | None:
    if young is None:
        return None
    gap = Part(split.validation.end_ms, split.test.start_ms)
    rows = np.flatnonzero(gap.mask(training_set["event_time"].to_numpy()) & (young.known_share > 0.0))
    known = young.is_known_fraud.copy()
    known[rows] = np.random.default_rng(SEED).permutation(known[rows])
    return replace(young, is_known_fraud=known)


def _parts(split: Split, moments: np.ndarray) -> Iterator[np.ndarray]:
    for part in (split.train, split.validation, split.test):
        yield np.flatnonzero(part.mask(moments))
