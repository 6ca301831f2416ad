"""Ways to learn from rare frauds by LightGBM alone: shares of rows, weights, and the focal loss.

Belongs here: what a way is, and those that need no further library. Does not belong here: resampling and
ensembles (`resampling`), judging (`contest`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fraud_platform.learning.boosting import Scorer, Taught, boost
from fraud_platform.learning.lessons import Lesson, Rows, thinned
from fraud_platform.policy import Policy
from fraud_platform.train import TrainParams, fit_booster


@dataclass(frozen=True)
class Learned:
    """`score`: from an encoded matrix (n, k) to raw scores from 0 to 1, (n,).

    rows, frauds: what taught, made-up rows included; share: of the legitimate rows, those that were read.
    """

    score: Scorer
    rows: int
    frauds: int
    share: float


@dataclass(frozen=True)
class Way:
    """One way to learn from a lesson. `needs`: the module of the extra `learning` that it takes, or empty."""

    name: str
    description: str
    learn: Callable[[Lesson, TrainParams, Policy], Learned]
    needs: str = ""


def as_shipped(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """What `train` does: a share of the legitimate rows; the calibrator alone restores the prior."""
    settings = thinned(params, lesson)
    rows, share = lesson.drawn(settings.legit_share, settings.seed)
    return _learned(_fit(rows, lesson, settings), rows, share)


def prior_corrected(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """As shipped, the score's odds multiplied by the share that was kept before it is calibrated.

    Dal Pozzolo, Caelen, Johnson and Bontempi, "Calibrating Probability with Undersampling for Unbalanced
    Classification", 2015.
    """
    learned = as_shipped(lesson, params, policy)
    return replace(learned, score=lambda matrix: corrected(learned.score(matrix), learned.share))


def prior_kept(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """The same share of legitimate rows, each with the weight of those that were left out."""
    return as_shipped(lesson, replace(params, is_prior_kept=True), policy)


def unchanged(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """Every row as it is."""
    return _weighted(lesson, params, lambda rows: np.ones(len(rows)))


def class_weighted(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """A fraud weighs as many legitimate rows as there are for each fraud."""
    weight = imbalance(lesson)
    return _weighted(lesson, params, lambda rows: np.where(rows.is_fraud, weight, 1.0))


def cost_weighted(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """As class weights, times what missing this fraud costs for each blocked customer."""
    weight = imbalance(lesson)
    return _weighted(
        lesson,
        params,
        lambda rows: np.where(rows.is_fraud, weight * cost_ratio(rows.amount, policy), 1.0),
    )


def focal(lesson: Lesson, params: TrainParams, policy: Policy) -> Learned:
    """Every row, by the focal loss."""
    return _weighted(lesson, params, lambda rows: np.ones(len(rows)), is_focal=True)


def imbalance(lesson: Lesson) -> float:
    """Legitimate rows of the train part for each fraud, those that were not drawn included."""
    frauds = int(lesson.learn.is_fraud.sum())
    return (len(lesson.learn) - frauds) / lesson.share / frauds


def cost_ratio(amount: np.ndarray, policy: Policy) -> np.ndarray:
    """What a missed fraud of the amount (n,) costs, in blocked customers: float64 (n,)."""
    return (np.asarray(amount, dtype=np.float64) + policy.missed_fraud_fixed) / policy.blocked_customer


def corrected(score: np.ndarray, share: float) -> np.ndarray:
    """Scores (n,) of a model that saw all frauds and a share of the others, at the odds of all rows."""
    return share * score / (share * score + (1.0 - score))


LIGHTGBM_WAYS = (
    Way(
        "default", "as shipped: a share of the legitimate rows; the calibrator restores the prior", as_shipped
    ),
    Way("nothing", "every row as it is", unchanged),
    Way("class_weight", "a fraud weighs what there are of legitimate rows for each fraud", class_weighted),
    Way("class_weight_cost", "class weights times the cost of the missed fraud", cost_weighted),
    Way("focal", "every row, focal loss", focal),
    Way("prior_corrected", "as shipped, and odds times the share kept before calibration", prior_corrected),
    Way("prior_kept", "as shipped, legitimate rows with the weight of those left out", prior_kept),
)


def _fit(rows: Rows, lesson: Lesson, params: TrainParams) -> Scorer:
    held_out = (lesson.held_out.matrix, lesson.held_out.is_fraud)
    booster = fit_booster(rows.matrix, rows.is_fraud, lesson.contract, params, held_out)
    return lambda matrix: np.asarray(booster.predict(matrix, num_threads=params.threads), dtype=np.float64)


def _weighted(
    lesson: Lesson, params: TrainParams, weight: Callable[[Rows], np.ndarray], is_focal: bool = False
) -> Learned:
    """All of the lesson's rows; legitimate ones also weigh those of which they were drawn."""
    rows, held_out = lesson.learn, lesson.held_out
    drawn_for = np.where(rows.is_fraud, 1.0, 1.0 / lesson.share)
    score = boost(
        Taught(rows.matrix, rows.is_fraud, weight(rows) * drawn_for),
        Taught(held_out.matrix, held_out.is_fraud, weight(held_out)),
        lesson.contract,
        params,
        is_focal=is_focal,
    )
    return _learned(score, rows, lesson.share)


def _learned(score: Scorer, rows: Rows, share: float) -> Learned:
    return Learned(score, len(rows), int(rows.is_fraud.sum()), share)
