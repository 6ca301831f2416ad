"""learning: every way teaches, all are judged alike, and what validation chose is all that test folds see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fraud_platform.errors import SettingsError, TrainingError
from fraud_platform.learning import extra
from fraud_platform.learning.boosting import Taught, with_odds_of
from fraud_platform.learning.contest import contest, judge
from fraud_platform.learning.extra import load_extra
from fraud_platform.learning.focal import focal_curvature, focal_gradient, focal_hessian, focal_loss
from fraud_platform.learning.imbalance import DEFAULT, WAYS, imbalance_bakeoff
from fraud_platform.learning.known import KnownLabels
from fraud_platform.learning.lessons import Lesson, lessons
from fraud_platform.learning.ways import Learned, Way, class_weighted, corrected, cost_ratio, imbalance
from fraud_platform.policy import load_policy
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import sample_rows
from tests.lessons import CONTRACT, PARAMS, folds, labels_of, made, world

POLICY = load_policy()


@pytest.fixture(scope="module")
def taught() -> list[Lesson]:
    return made()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_derivatives_of_the_focal_loss_are_exact(gamma: float) -> None:
    """Against differences of the loss itself; a wrong sign or factor is off by more than the tolerance."""
    margin = np.repeat(np.linspace(-8.0, 8.0, 81), 2)
    is_fraud = np.tile([True, False], 81)
    step = 1e-4
    at = [focal_loss(margin + shift, is_fraud, gamma) for shift in (-step, 0.0, step)]
    first, second = (at[2] - at[0]) / (2 * step), (at[2] - 2 * at[1] + at[0]) / step**2
    assert focal_gradient(margin, is_fraud, gamma) == pytest.approx(first, rel=1e-6, abs=1e-8)
    assert focal_hessian(margin, is_fraud, gamma) == pytest.approx(second, rel=1e-4, abs=1e-6)
    assert np.all(focal_curvature(margin, is_fraud, gamma) > 0)


def test_the_focal_loss_without_its_power_is_the_logistic_loss_and_is_not_convex_with_it() -> None:
    margin = np.array([-6.0, -1.0, 0.0, 3.0])
    is_fraud = np.ones(4, dtype=bool)
    assert focal_loss(margin, is_fraud, 0.0) == pytest.approx(np.log1p(np.exp(-margin)))
    assert focal_hessian(margin, is_fraud, 2.0)[0] < 0 < focal_curvature(margin, is_fraud, 2.0)[0]


def test_the_prior_is_corrected_for_what_was_left_out() -> None:
    """Of 1,000 legitimate rows a tenth was kept beside 10 frauds: 10 of 110 there is 10 of 1,010 in truth."""
    assert corrected(np.array([10 / 110]), 0.1)[0] == pytest.approx(10 / 1010)
    assert corrected(np.array([0.0, 0.3, 1.0]), 1.0) == pytest.approx([0.0, 0.3, 1.0])


def test_weights_follow_the_imbalance_and_the_costs(taught: list[Lesson]) -> None:
    rows = taught[0].learn
    frauds = int(rows.is_fraud.sum())
    assert imbalance(taught[0]) == pytest.approx((len(rows) - frauds) / frauds)
    frame = world()
    thinned = next(lessons(frame, labels_of(frame), CONTRACT, folds(), rows_max=400))
    assert imbalance(thinned) == pytest.approx(imbalance(taught[0]), rel=0.2), "those not drawn count too"
    ratio = cost_ratio(np.array([0.0, POLICY.blocked_customer]), POLICY)
    assert ratio[1] - ratio[0] == pytest.approx(1.0)


def test_what_stops_has_the_odds_of_what_teaches() -> None:
    learn = Taught(np.zeros((6, 1)), np.array([1, 1, 0, 0, 0, 0], bool), np.array([3.0, 3, 1, 1, 1, 1]))
    other = Taught(np.zeros((10, 1)), np.arange(10) < 1, np.ones(10))
    weighed = with_odds_of(other, learn)
    frauds, others = (weighed.weight[which].sum() for which in (weighed.is_fraud, ~weighed.is_fraud))
    assert frauds / others == pytest.approx(6 / 4)
    assert len(set(weighed.weight[1:])) == 1


def test_rows_are_capped_by_their_id_and_never_where_they_are_assessed(taught: list[Lesson]) -> None:
    frame = world().sample(frac=1.0, random_state=1)
    capped = list(lessons(frame, labels_of(frame), CONTRACT, folds(), rows_max=400))
    for full, less in zip(taught, capped, strict=True):
        legit = int((~less.learn.is_fraud).sum())
        assert legit == pytest.approx(400, abs=60)
        assert less.share == pytest.approx(400 / int((~full.learn.is_fraud).sum()))
        assert less.learn.is_fraud.sum() == full.learn.is_fraud.sum()
        assert set(less.learn.transaction_id) <= set(full.learn.transaction_id)
        assert (less.assessed.transaction_id == full.assessed.transaction_id).all(), (
            "in any order of the frame"
        )
        assert len(less.held_out) == len(full.held_out)
        drawn, share = less.drawn(less.share / 2, PARAMS.seed)
        assert share == less.share / 2
        kept = sample_rows(full.learn.transaction_id, full.learn.is_fraud, share, PARAMS.seed)
        assert (drawn.transaction_id == full.learn.transaction_id[kept]).all(), "as train would draw them"
        assert less.drawn(1.0, PARAMS.seed)[1] == less.share, "no more than there are"


def test_nothing_that_teaches_or_calibrates_is_within_the_gap(taught: list[Lesson]) -> None:
    for lesson in taught:
        known = lesson.fold.as_of_ms - lesson.fold.split.gap_ms
        assert max(lesson.learn.event_time.max(), lesson.held_out.event_time.max()) < known
        assert lesson.learn.event_time.max() < lesson.held_out.event_time.min()


def test_folds_that_cannot_teach_are_refused() -> None:
    frame = world().assign(is_fraud=False)
    with pytest.raises(TrainingError, match=r"the train part .* 0 frauds; at least 10"):
        next(lessons(frame, labels_of(frame), CONTRACT, folds(), 100))
    with pytest.raises(TrainingError, match="rows_max=0: must be 1 or more"):
        next(lessons(frame, labels_of(frame), CONTRACT, folds(), 0))


def test_a_report_that_comes_after_the_assessed_rows_began_teaches_nothing() -> None:
    """Half of the reports take 30 days: what teaches has those that were there, what is assessed has all."""
    frame = world()
    late = frame["is_fraud"].to_numpy() & (np.arange(len(frame)) % 2 == 0)
    quick, slow = (
        labels_of(frame.assign(is_fraud=frauds), delay)
        for frauds, delay in (
            (frame["is_fraud"].to_numpy() & ~late, 0),
            (late, 30 * DAY),
        )
    )
    labels = KnownLabels(
        len(frame),
        np.concatenate([quick.row, slow.row]),
        np.concatenate([quick.known_at, slow.known_at]),
        np.concatenate([quick.is_fraud, slow.is_fraud]),
    )
    fold = folds()[0]
    lesson = next(lessons(frame, labels, CONTRACT, [fold], rows_max=10**9))
    moments, fraud = frame["event_time"].to_numpy(), frame["is_fraud"].to_numpy()
    was_known = fraud & (~late | (moments + 30 * DAY < fold.as_of_ms))
    for rows, part, told in (
        (lesson.learn, fold.split.train, was_known),
        (lesson.held_out, fold.split.validation, was_known),
        (lesson.assessed, fold.split.test, fraud),
    ):
        assert rows.is_fraud.sum() == told[part.mask(moments)].sum()
    held = fold.split.validation.mask(moments)
    assert was_known[held].sum() < fraud[held].sum()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_way_learns_is_calibrated_and_does_it_again(way: Way, taught: list[Lesson]) -> None:
    """A way that ignored its rows would rank by chance; one that drew anew would differ the second time."""
    lesson = taught[0]
    one = judge(way.name, lesson, lambda: way.learn(lesson, PARAMS, POLICY), POLICY)
    truth = lesson.assessed.is_fraud
    assert roc_auc_score(truth, one.score) > 0.75
    assert np.all((one.score >= 0) & (one.score <= 1))
    assert one.probability.mean() == pytest.approx(truth.mean(), rel=0.5)
    assert 0 < one.share <= 1
    again = way.learn(lesson, PARAMS, POLICY)
    assert again.score(lesson.assessed.matrix).tobytes() == one.score.tobytes()


def test_class_weights_raise_the_score_and_calibration_takes_it_back(taught: list[Lesson]) -> None:
    lesson = taught[0]
    weighted = judge("w", lesson, lambda: class_weighted(lesson, PARAMS, POLICY), POLICY)
    truth = lesson.assessed.is_fraud.mean()
    assert weighted.score.mean() > 2 * truth
    assert weighted.probability.mean() < 2 * truth


def _told(lesson: Lesson, roles: tuple[str, ...]) -> Learned:
    """Knows the truth on folds of these roles, by the rows' amounts, and nothing elsewhere."""
    frauds = lesson.assessed.take(lesson.assessed.is_fraud).matrix[:, 0]

    def score(matrix: np.ndarray) -> np.ndarray:
        if matrix is lesson.held_out.matrix:
            return np.where(lesson.held_out.is_fraud, 0.9, 0.1)
        return (
            np.where(np.isin(matrix[:, 0], frauds), 0.9, 0.1)
            if lesson.fold.role in roles
            else np.full(len(matrix), 0.1)
        )

    return Learned(score, len(lesson.learn), int(lesson.learn.is_fraud.sum()), 1.0)


def test_validation_chooses_and_test_judges(taught: list[Lesson]) -> None:
    """A way that is perfect on validation folds only is chosen, and found out on the test fold."""
    fooled = Way("fooled", "", lambda lesson, params, policy: _told(lesson, ("validation",)))
    honest = Way("honest", "", lambda lesson, params, policy: _told(lesson, ("validation", "test")))
    blind = Way("blind", "", lambda lesson, params, policy: _told(lesson, ()))
    found = contest(taught, (blind, fooled), PARAMS, POLICY, "blind", resamples=200)
    assert found.winner == "fooled"
    assert [one.way for one in found.validation] == ["blind", "fooled"]
    assert found.validation[1].saved.low > 0
    assert found.tested.saved.high == 0.0
    assert not found.is_better
    assert "blind stays" in found.explain()[-1]
    better = contest(taught, (blind, honest), PARAMS, POLICY, "blind", resamples=200)
    assert better.is_better
    assert better.tested.saved.low > 0
    assert "better choice" in better.explain()[-1]


def test_the_other_ways_never_see_a_test_fold(taught: list[Lesson]) -> None:
    seen: dict[str, list[str]] = {"blind": [], "honest": [], "worse": []}

    def way(name: str, roles: tuple[str, ...]) -> Way:
        def learn(lesson: Lesson, params: object, policy: object) -> Learned:
            seen[name].append(lesson.fold.role)
            return _told(lesson, roles)

        return Way(name, "", learn)

    ways = (way("blind", ()), way("honest", ("validation", "test")), way("worse", ()))
    contest(taught, ways, PARAMS, POLICY, "blind", resamples=20)
    assert seen == {
        "blind": ["validation", "validation", "test"],
        "honest": ["validation", "validation", "test"],
        "worse": ["validation", "validation"],
    }


def test_money_of_a_standing_is_that_of_its_rows(taught: list[Lesson]) -> None:
    blind = Way("blind", "", lambda lesson, params, policy: _told(lesson, ()))
    found = contest(taught, (blind,), PARAMS, POLICY, "blind", resamples=20)
    rows = [lesson.assessed for lesson in taught if lesson.fold.role == "validation"]
    costs = [
        one.cost
        for lesson in taught[:2]
        for one in [judge("b", lesson, lambda le=lesson: _told(le, ()), POLICY)]
    ]
    (standing,) = found.validation
    assert standing.assessed == sum(map(len, rows))
    assert standing.frauds == sum(int(part.is_fraud.sum()) for part in rows)
    assert standing.cost.estimate == pytest.approx(np.concatenate(costs).mean() * 1_000)
    assert standing.saved.estimate == standing.saved.low == standing.saved.high == 0.0
    assert found.winner == "blind"
    assert found.explain()[-1].startswith("so blind stays")


def test_a_role_without_folds_is_refused(taught: list[Lesson]) -> None:
    blind = Way("blind", "", lambda lesson, params, policy: _told(lesson, ()))
    with pytest.raises(TrainingError, match="give folds of both roles"):
        contest(taught[:2], (blind,), PARAMS, POLICY, "blind", resamples=20)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError("gone", name=module.split(".")[0])

    monkeypatch.setattr(extra, "import_module", absent)
    with pytest.raises(
        SettingsError, match=r"'imbalanced-learn' is not installed.*fraud-platform\[learning\]"
    ):
        imbalance_bakeoff(iter(()), POLICY)
    with pytest.raises(SettingsError, match="'xgboost-cpu'"):
        load_extra("xgboost")


def test_the_default_is_what_train_ships() -> None:
    """The bake-off would judge another model than the platform's were the two to differ."""
    from fraud_platform.train import train

    lesson = made(1, 0)[0]
    own = replace(PARAMS, legit_share=1.0)
    candidate = train(world(), CONTRACT, lesson.fold.split, own)
    learned = next(way for way in WAYS if way.name == DEFAULT).learn(lesson, own, POLICY)
    assert (
        learned.score(lesson.assessed.matrix).tobytes()
        == candidate.score_matrix(lesson.assessed.matrix).tobytes()
    )
    assert learned.rows == candidate.log.teaching_rows
