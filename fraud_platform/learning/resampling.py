"""Ways that make, drop or bundle rows, by imbalanced-learn and scikit-learn.

Their distances and bags take time that grows faster than the rows do: each way reads no more legitimate rows
than its limit says, and the table states the share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fraud_platform.learning.boosting import Taught, boost
from fraud_platform.learning.extra import load_extra
from fraud_platform.learning.filled import Filled
from fraud_platform.learning.lessons import Lesson, Rows, thinned
from fraud_platform.learning.ways import Learned, Way
from fraud_platform.policy import Policy
from fraud_platform.train import TrainParams, sample_rows
from fraud_platform.train.booster import load_lightgbm

SMOTE_LEGIT_MAX = 10_000
BAGGED_LEGIT_MAX = 60_000
BAGS = 10
BAG_ROUNDS = 100
BOOSTED_STUMPS = 30
BAG_CLASS_MAX = 1_000
"""Rows of each class in a bag of EasyEnsemble."""
FOREST_ROWS_MAX = 20_000
FOREST_TREES = 100
SMOTE_NEIGHBOURS = 5


def smote_tomek(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """Frauds made up between neighbouring frauds until there are as many as legitimate rows; then rows that
    are each other's neighbours and differ are cleared.

    Batista, Prati and Monard, "A Study of the Behavior of Several Methods for Balancing Machine Learning
    Training Data", 2004. A made-up row's categories are those of most of its neighbours.
    """
    rows, share = _at_most(lesson, SMOTE_LEGIT_MAX, params.seed)
    fill = Filled.fit(rows.matrix, lesson.contract)
    filled, frauds = fill(rows.matrix), int(rows.is_fraud.sum())
    made, is_fraud = filled, rows.is_fraud
    if frauds * 2 < len(rows):
        made, is_fraud = _made_up(filled, rows.is_fraud, fill.categories, params.seed)
    kept = _without_links(made, is_fraud, fill.categories)
    made, is_fraud = made[kept], is_fraud[kept]

    def read(matrix: np.ndarray) -> np.ndarray:
        return fill.with_unknown(fill(matrix))

    held_out = Taught(read(lesson.held_out.matrix), lesson.held_out.is_fraud, np.ones(len(lesson.held_out)))
    taught = Taught(fill.with_unknown(made), is_fraud, np.ones(len(made)))
    score = boost(taught, held_out, lesson.contract, params)
    return Learned(lambda matrix: score(read(matrix)), len(made), int(is_fraud.sum()), share)


def balanced_bagging(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """LightGBM on bags of as many legitimate rows as frauds; the mean of what they say."""
    rows, share = _at_most(lesson, BAGGED_LEGIT_MAX, params.seed)
    member = load_lightgbm().LGBMClassifier(
        **_member(params), n_estimators=min(BAG_ROUNDS, params.rounds_max), verbosity=-1
    )
    bags = load_extra("imblearn.ensemble").BalancedBaggingClassifier(
        estimator=member, n_estimators=BAGS, random_state=params.seed
    )
    bags.fit(rows.matrix, rows.is_fraud)
    return _learned(bags, rows, share)


def easy_ensemble(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """AdaBoost on balanced draws, bundled.

    Liu, Wu and Zhou, "Exploratory Undersampling for Class-Imbalance Learning", 2009.
    """
    from sklearn.ensemble import AdaBoostClassifier

    rows, share = _at_most(lesson, BAGGED_LEGIT_MAX, params.seed)
    fill = Filled.fit(rows.matrix, lesson.contract)
    frauds = int(rows.is_fraud.sum())
    each = min(BAG_CLASS_MAX, frauds, len(rows) - frauds)
    bags = load_extra("imblearn.ensemble").EasyEnsembleClassifier(
        n_estimators=BAGS,
        estimator=AdaBoostClassifier(n_estimators=BOOSTED_STUMPS),
        sampling_strategy={False: each, True: each},
        random_state=params.seed,
    )
    bags.fit(fill(rows.matrix), rows.is_fraud)
    return _learned(bags, rows, share, fill)


def with_anomaly(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """As shipped, with one more input: how easily a forest of random cuts isolates the row.

    Liu, Ting and Zhou, "Isolation Forest", 2008. The forest reads no label: it
    learns from frauds and legitimate rows in the proportion that they have.
    """
    from sklearn.ensemble import IsolationForest

    settings = thinned(params, lesson)
    rows, share = lesson.drawn(settings.legit_share, settings.seed)
    seen = _as_mixed(lesson, FOREST_ROWS_MAX, settings.seed).matrix
    fill = Filled.fit(seen, lesson.contract)
    forest = IsolationForest(n_estimators=FOREST_TREES, random_state=settings.seed).fit(fill(seen))

    def wider(matrix: np.ndarray) -> np.ndarray:
        return np.column_stack([matrix, -forest.score_samples(fill(matrix))])

    score = boost(
        Taught(wider(rows.matrix), rows.is_fraud, np.ones(len(rows))),
        Taught(wider(lesson.held_out.matrix), lesson.held_out.is_fraud, np.ones(len(lesson.held_out))),
        lesson.contract,
        settings,
        further=("anomaly_score",),
    )
    return Learned(lambda matrix: score(wider(matrix)), len(rows), int(rows.is_fraud.sum()), share)


RESAMPLED_WAYS = (
    Way("smote_tomek", "frauds made up between frauds, then Tomek links cleared", smote_tomek, "imblearn"),
    Way("balanced_bagging", "LightGBM on balanced bags", balanced_bagging, "imblearn"),
    Way("easy_ensemble", "AdaBoost on balanced draws", easy_ensemble, "imblearn"),
    Way("anomaly_input", "as shipped, with an isolation forest's score as an input", with_anomaly),
)


def _made_up(
    filled: np.ndarray, is_fraud: np.ndarray, categories: tuple[int, ...], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows (n, k) and as many more frauds as it takes to have as many as legitimate rows."""
    over = load_extra("imblearn.over_sampling")
    options = {"random_state": seed, "k_neighbors": min(SMOTE_NEIGHBOURS, int(is_fraud.sum()) - 1)}
    sampler = over.SMOTENC(list(categories), **options) if categories else over.SMOTE(**options)
    made, outcome = sampler.fit_resample(filled, is_fraud)
    return np.asarray(made, dtype=np.float64), np.asarray(outcome, dtype=bool)


def _without_links(filled: np.ndarray, is_fraud: np.ndarray, categories: tuple[int, ...]) -> np.ndarray:
    """Places of the rows that form no Tomek link; codes of categories count within 0 and 1."""
    near = filled.copy()
    for place in categories:
        near[:, place] /= max(1.0, float(near[:, place].max()))
    links = load_extra("imblearn.under_sampling").TomekLinks(sampling_strategy="all")
    links.fit_resample(near, is_fraud)
    return np.sort(links.sample_indices_)


def _at_most(lesson: Lesson, legit_max: int, seed: int) -> tuple[Rows, float]:
    """All frauds and about so many legitimate rows of the lesson, with their share of the train part's."""
    legit = int((~lesson.learn.is_fraud).sum()) / lesson.share
    return lesson.drawn(min(1.0, legit_max / legit), seed)


def _as_mixed(lesson: Lesson, rows_max: int, seed: int) -> Rows:
    """About so many rows of the lesson, frauds among them as often as in the train part."""
    frauds = int(lesson.learn.is_fraud.sum())
    there = (len(lesson.learn) - frauds) / lesson.share + frauds
    ids = lesson.learn.transaction_id
    nobody = np.zeros(len(ids), dtype=bool)
    return lesson.learn.take(sample_rows(ids, nobody, min(lesson.share, rows_max / there), seed))


def _member(params: TrainParams) -> dict[str, Any]:
    """A small member's own parameters: without those that the wrapper gives itself."""
    own = params.for_lightgbm()
    return {name: value for name, value in own.items() if name not in ("objective", "metric", "verbosity")}


def _learned(bags: Any, rows: Rows, share: float, fill: Filled | None = None) -> Learned:
    def score(matrix: np.ndarray) -> np.ndarray:
        read = fill(matrix) if fill else matrix
        return np.asarray(bags.predict_proba(read)[:, 1], dtype=np.float64)

    return Learned(score, len(rows), int(rows.is_fraud.sum()), share)
