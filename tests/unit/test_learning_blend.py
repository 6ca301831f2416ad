"""learning.blend: both learners, their mix, the time of one row, and a verdict that money and time decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fraud_platform.learning.blend import (
    LIGHTGBM,
    WEIGHTS,
    XGBOOST,
    Blending,
    Latency,
    blend_bakeoff,
    mixed,
)
from fraud_platform.learning.contest import Contest
from fraud_platform.learning.xgboost_learner import fit_xgboost
from fraud_platform.policy import load_policy
from fraud_platform.serve.booster import Booster
from tests.lessons import CONTRACT, PARAMS, made

POLICY = load_policy()


@pytest.fixture(scope="module")
def found() -> Blending:
    def load(text: str):  # type: ignore[no-untyped-def]
        return Booster(text).score

    return blend_bakeoff(iter(made()), POLICY, load, PARAMS, resamples=100)


def test_all_compete_on_validation_and_the_chosen_on_test(found: Blending) -> None:
    ways = [one.way for one in found.contest.validation]
    assert ways == [LIGHTGBM, XGBOOST, *(f"blend {weight:g}" for weight in WEIGHTS)]
    assert {one.way for one in found.contest.test} == {LIGHTGBM, XGBOOST, found.second}
    others = [one for one in found.contest.validation if one.way != LIGHTGBM]
    assert found.second == min(others, key=lambda one: one.cost.estimate).way
    assert {one.way for one in found.latencies} == {one.way for one in found.contest.test}
    assert all(0 < one.p50_ms <= one.p99_ms for one in found.latencies)
    assert all(one.auc > 0.75 for one in found.contest.validation)


def test_a_mix_lies_between_and_its_ends_are_the_learners() -> None:
    first, second = np.array([0.0, 0.2, 0.9, 1.0]), np.array([0.1, 0.6, 0.9, 1.0])
    assert mixed(first, second, 0.0)[1:3] == pytest.approx(first[1:3])
    assert mixed(first, second, 1.0) == pytest.approx(second)
    half = mixed(first, second, 0.5)
    assert np.all((half >= np.minimum(first, second) - 1e-9) & (half <= np.maximum(first, second) + 1e-9))


def test_one_row_of_xgboost_scores_as_within_its_matrix_and_every_time_alike() -> None:
    """Unknown numbers and unknown categories among them."""
    lesson = made(1, 0)[0]
    model, again = (fit_xgboost(lesson.learn, lesson.held_out, 1.0, CONTRACT, PARAMS) for _ in range(2))
    matrix = lesson.assessed.matrix[:200]
    assert np.isnan(matrix[:, 1]).any()
    assert np.isnan(matrix[:, 3]).any()
    score, one_row = model.score(matrix), model.one_row()
    assert [one_row(row) for row in matrix] == score.tolist()
    assert again.score(matrix).tobytes() == score.tobytes()
    assert roc_auc_score(lesson.assessed.is_fraud, model.score(lesson.assessed.matrix)) > 0.75


def _with(found: Blending, saved: tuple[float, float, float], p99_ms: float) -> Blending:
    estimate, low, high = saved
    contest = found.contest
    test = tuple(
        replace(one, saved=replace(one.saved, estimate=estimate, low=low, high=high))
        if one.way == found.second
        else one
        for one in contest.test
    )
    latencies = tuple(Latency(one.way, 0.01, p99_ms) for one in found.latencies)
    return Blending(Contest(contest.reference, contest.winner, contest.validation, test), latencies, 1.0)


@pytest.mark.parametrize(
    ("saved", "p99_ms", "is_kept", "why"),
    [
        ((5.0, 1.0, 9.0), 0.4, True, "worth serving"),
        ((5.0, -1.0, 11.0), 0.4, False, "not for certain"),
        ((5.0, 1.0, 9.0), 1.4, False, "above the budget of 1 ms"),
    ],
    ids=["money and time", "no money", "no time"],
)
def test_it_takes_money_and_time(
    found: Blending, saved: tuple[float, float, float], p99_ms: float, is_kept: bool, why: str
) -> None:
    judged = _with(found, saved, p99_ms)
    assert judged.is_kept is is_kept
    assert why in " ".join(judged.reasons())
    assert ("LightGBM alone stays" in judged.reasons()[-1]) is not is_kept
