"""The calibrator: monotone, honest, and the same bits for one score and for many."""

import numpy as np
import pytest

from fraud_platform.calibration import Calibrator
from fraud_platform.errors import TrainingError


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    score = rng.random(20_000)
    return score, rng.random(20_000) < 0.3 * score**3


def test_levels_are_the_fraud_rates_of_the_scores(sample):
    score, fraud = sample
    probability = Calibrator.fit(score, fraud)(score)
    assert probability.mean() == pytest.approx(fraud.mean(), rel=0.02)
    top = score > 0.9
    assert probability[top].mean() == pytest.approx(0.3 * 0.95**3, rel=0.1)


def test_curve_is_monotone_and_never_certain(sample):
    calibrator = Calibrator.fit(*sample)
    assert np.all(np.diff(calibrator.x) > 0)
    assert np.all(np.diff(calibrator.y) >= 0)
    assert 0 < calibrator.y[0] <= calibrator.y[-1] < 1


def test_a_perfect_model_is_not_believed_to_be_certain():
    calibrator = Calibrator.fit(np.array([0.1] * 900 + [0.9] * 100), np.array([0] * 900 + [1] * 100))
    assert calibrator.x == (pytest.approx(0.1), pytest.approx(0.9))
    assert calibrator.y == (pytest.approx(0.2 / 902), pytest.approx(100.2 / 102))


def test_violators_are_pooled():
    score = np.repeat([0.1, 0.2, 0.3], 50)
    fraud = np.concatenate(([1] * 10 + [0] * 40, [0] * 50, [1] * 50))
    calibrator = Calibrator.fit(score, fraud)
    assert calibrator.x == (pytest.approx(0.15), pytest.approx(0.3))
    assert calibrator.y[0] == pytest.approx((10 + 2 * 0.4) / 102)


def test_one_score_has_the_bits_it_has_in_an_array(sample):
    calibrator = Calibrator.fit(*sample)
    scores = np.concatenate((sample[0][:2_000], calibrator.x, [-1.0, 0.0, 1.0, 2.0]))
    together = calibrator(scores)
    alone = np.array([float(calibrator(float(score))) for score in scores])
    pairs = np.concatenate([calibrator(scores[i : i + 2]) for i in range(0, len(scores) - 1, 2)])
    assert together.tobytes() == alone.tobytes()
    assert together[: len(pairs)].tobytes() == pairs.tobytes()


def test_json_keeps_the_bits(sample):
    calibrator = Calibrator.fit(*sample)
    assert Calibrator.from_json(calibrator.to_json()) == calibrator


@pytest.mark.parametrize(
    ("score", "fraud", "message"),
    [
        ([0.1, 0.2], [0, 0], "0 frauds in 2 rows"),
        ([0.1, 0.2], [1, 1], "2 frauds in 2 rows"),
        ([0.1, float("nan")], [0, 1], "not finite"),
        ([0.1, 0.2, 0.3], [0, 1], "one for each"),
    ],
)
def test_what_cannot_teach_is_refused(score, fraud, message):
    with pytest.raises(TrainingError, match=message):
        Calibrator.fit(np.array(score), np.array(fraud))


def test_a_curve_that_falls_is_refused():
    with pytest.raises(TrainingError, match="must not fall"):
        Calibrator((0.0, 1.0), (0.5, 0.4))
    with pytest.raises(TrainingError, match="rise strictly"):
        Calibrator((0.0, 0.0), (0.4, 0.5))
