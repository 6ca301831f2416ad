from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest

from fraud_platform import package
from fraud_platform.package import BundleParts
from fraud_platform.serve import Judge
from fraud_platform.serve.contributions import TreeShap, _gauss_legendre
from fraud_platform.serve.model_text import Forest

WIDTH, ROWS = 9, 1500
CATEGORY = 8
QUIET = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": 1, "min_data_in_leaf": 5}


def rows(seed: int, unknown: float = 0.15) -> np.ndarray:
    """Numbers, whole numbers, zeros and a category with many levels, some of them unknown."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(ROWS, WIDTH))
    matrix[:, 3] = rng.poisson(1.0, ROWS)
    matrix[:, 4] = np.where(rng.random(ROWS) < 0.5, 0.0, matrix[:, 4])
    matrix[:, CATEGORY] = rng.integers(0, 70, ROWS)
    matrix[rng.random((ROWS, WIDTH)) < unknown] = np.nan
    return matrix


def trained(rounds: int = 40, unknown: float = 0.15, **parameters: Any) -> lightgbm.Booster:
    matrix = rows(1, unknown)
    known = np.nan_to_num(matrix)
    levels = known[:, CATEGORY].astype(int) % 7
    risk = known[:, 0] * known[:, 1] + known[:, 2] + 0.5 * known[:, 3] + (levels < 3) + (known[:, 4] == 0.0)
    is_fraud = (risk + np.random.default_rng(2).normal(size=ROWS) > 2.0).astype(np.float64)
    data = lightgbm.Dataset(matrix, is_fraud, categorical_feature=[CATEGORY], free_raw_data=False)
    return lightgbm.train({**QUIET, **parameters}, data, num_boost_round=rounds)


def asked() -> np.ndarray:
    """Rows that the model has not seen; with levels, infinities and zeros that it does not know."""
    matrix = rows(3)[:200]
    matrix[0], matrix[1] = 0.0, np.nan
    matrix[2, :3] = [np.inf, -np.inf, 1e-36]
    matrix[3:6, CATEGORY] = [-1.0, 69.0, 10_000.0]
    return matrix


def tree_shap(booster: lightgbm.Booster) -> TreeShap:
    forest = Forest.of(booster.model_to_string())
    assert forest is not None
    return TreeShap(forest, WIDTH)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"num_leaves": 2},
        {"num_leaves": 127, "min_data_in_leaf": 1, "max_depth": -1},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"unknown": 0.0},
        {"max_cat_to_onehot": 100},
        {"rounds": 1},
        {"boost_from_average": False, "feature_fraction": 0.5, "bagging_fraction": 0.7, "bagging_freq": 1},
    ],
    ids=str,
)
def test_contributions_are_those_of_lightgbm(parameters: dict[str, Any]) -> None:
    booster = trained(**parameters)
    shap = tree_shap(booster)
    expected = np.asarray(booster.predict(asked(), pred_contrib=True))
    found = np.array([shap.contributions(row) for row in asked()])
    largest = np.abs(expected[:, :-1]).max(axis=1, keepdims=True)
    assert np.all(np.abs(found - expected[:, :-1]) <= 1e-9 * largest)
    raw = np.asarray(booster.predict(asked(), raw_score=True))
    np.testing.assert_allclose(found.sum(axis=1) + expected[:, -1], raw, rtol=1e-9, atol=1e-12)


def test_a_row_has_the_same_bits_whatever_was_asked_before() -> None:
    booster = trained()
    one, other = tree_shap(booster), tree_shap(booster)
    forwards = [one.contributions(row) for row in asked()]
    backwards = [other.contributions(row) for row in asked()[::-1]][::-1]
    assert np.array(forwards).tobytes() == np.array(backwards).tobytes()


def test_trees_without_a_split_contribute_nothing() -> None:
    booster = trained(min_data_in_leaf=10 * ROWS)
    assert tree_shap(booster).contributions(np.zeros(WIDTH)).tolist() == [0.0] * WIDTH


@pytest.mark.parametrize("count", range(1, 17))
def test_points_and_weights_integrate_polynomials_exactly(count: int) -> None:
    points, weights = _gauss_legendre(count)
    for degree in range(2 * count):
        assert float((weights * points**degree).sum()) == pytest.approx(1.0 / (degree + 1), rel=1e-13)


@pytest.mark.parametrize(
    "parameters",
    [
        {"linear_tree": True, "unknown": 0.0},
        {"boosting": "rf", "bagging_fraction": 0.7, "bagging_freq": 1},
    ],
    ids=str,
)
def test_a_model_that_is_more_than_a_sum_of_trees_is_left_to_lightgbm(parameters: dict[str, Any]) -> None:
    assert Forest.of(trained(rounds=3, **parameters).model_to_string()) is None


@pytest.mark.parametrize("counts", ["", "0 0 0"], ids=["none", "zero"])
def test_a_model_whose_counts_are_lost_is_left_to_lightgbm(counts: str) -> None:
    """Cover is what TreeSHAP weighs with; LightGBM reads such a text as well."""
    lines = trained(rounds=2, num_leaves=3).model_to_string().splitlines()
    text = "\n".join(f"leaf_count={counts}" if one.startswith("leaf_count=") else one for one in lines)
    assert Forest.of(text) is None


def test_a_judge_explains_with_lightgbm_where_it_must(tiny_parts: BundleParts) -> None:
    judge = Judge(package.build(tiny_parts))
    assert isinstance(judge._explain.__self__, TreeShap)  # type: ignore[union-attr]
    assert judge._booster is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Forest, "of", lambda text: None)
        other_judge = Judge(package.build(tiny_parts))
    assert other_judge._explain == other_judge._booster.contributions  # type: ignore[union-attr]
    judge.close()
    other_judge.close()
