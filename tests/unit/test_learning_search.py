"""learning.search on a real journal: the same trials again, also after a kill, and what train makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from fraud_platform.adapters.candidates import read_candidate, write_candidate
from fraud_platform.adapters.optuna import JOURNAL, OptunaStudy, read_best, write_best
from fraud_platform.defs.train import TrainConfig
from fraud_platform.errors import SettingsError
from fraud_platform.learning.lessons import Lesson
from fraud_platform.learning.search import (
    SPACE,
    Metric,
    Trial,
    applied,
    best_of,
    judged_best,
    search,
)
from fraud_platform.policy import load_policy
from fraud_platform.train import DEFAULT_PARAMS, TrainParams, train
from tests.lessons import CONTRACT, PARAMS, folds, made, world

POLICY = load_policy()
TRIALS = 14
"""More than are drawn at random, so that the sampler's model takes part."""


@pytest.fixture(scope="module")
def taught() -> list[Lesson]:
    return made(2, 1)


def _search(
    folder: Path,
    lessons: Sequence[Lesson],
    trials: int,
    metric: Metric = "cost",
    seed: int = 7,
    seconds: float = 1e9,
) -> tuple[Trial, ...]:
    """As a process of its own would: nothing but the folder goes on."""
    validation = [lesson for lesson in lessons if lesson.fold.role == "validation"]
    study = OptunaStudy(folder, "s", metric, seed)
    return search(validation, study, metric, POLICY, trials, seconds, PARAMS)


def _made(trials: Sequence[Trial]) -> list[tuple[object, ...]]:
    return [(one.number, one.params, one.values, one.value) for one in trials]


@pytest.fixture(scope="module")
def whole(taught: list[Lesson], tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, ...]:
    return _search(tmp_path_factory.mktemp("whole"), taught, TRIALS)


def test_it_begins_with_the_defaults_and_stays_in_its_space(whole: tuple[Trial, ...]) -> None:
    assert [one.number for one in whole] == list(range(TRIALS))
    assert applied(PARAMS, whole[0].params) == PARAMS
    assert whole[0].value is not None
    for trial in whole:
        for one in SPACE:
            assert one.low <= trial.params[one.name] <= one.high
            assert not one.is_whole or trial.params[one.name] == int(trial.params[one.name])
    assert len({tuple(one.params.values()) for one in whole}) == TRIALS


def test_what_is_hopeless_is_pruned_and_never_the_best(whole: tuple[Trial, ...]) -> None:
    assert any(one.is_pruned for one in whole)
    assert all(len(one.values) == (1 if one.is_pruned else 2) for one in whole)
    best = best_of(whole, "cost")
    assert best.value == min(one.value for one in whole if one.value is not None)


def test_a_search_that_was_broken_off_goes_on_as_if_it_had_not_been(
    taught: list[Lesson], whole: tuple[Trial, ...], tmp_path: Path
) -> None:
    """Killed within a trial: that one is made again with the same parameters, and the count goes on."""
    first = _search(tmp_path, taught, 4)
    OptunaStudy(tmp_path, "s", "cost").ask(SPACE, {})
    assert _made(first) == _made(whole[:4])
    assert _made(_search(tmp_path, taught, TRIALS)) == _made(whole)
    size = (tmp_path / JOURNAL).stat().st_size
    assert _made(_search(tmp_path, taught, TRIALS)) == _made(whole)
    assert _made(_search(tmp_path, taught, 3)) == _made(whole), "nothing is forgotten"
    assert (tmp_path / JOURNAL).stat().st_size - size < 2_000, "no trial was added"


def test_another_seed_makes_other_trials(
    taught: list[Lesson], whole: tuple[Trial, ...], tmp_path: Path
) -> None:
    other = _search(tmp_path, taught, 2, seed=8)
    assert other[0].params == whole[0].params
    assert other[1].params != whole[1].params


def test_time_ends_it_after_a_first_trial(taught: list[Lesson], tmp_path: Path) -> None:
    assert len(_search(tmp_path, taught, TRIALS, seconds=0.0)) == 1
    assert len(_search(tmp_path, taught, TRIALS, seconds=0.0)) == 1


def test_average_precision_is_raised(taught: list[Lesson], tmp_path: Path) -> None:
    trials = _search(tmp_path, taught, 6, metric="average_precision")
    best = best_of(trials, "average_precision")
    assert best.value == max(one.value for one in trials if one.value is not None)
    assert 0 < (best.value or 0) <= 1


def test_no_more_rows_are_drawn_than_there_are(tmp_path: Path) -> None:
    capped = made(1, 0, rows_max=300)
    study = OptunaStudy(tmp_path, "s", "cost")
    trials = search(capped, study, "cost", POLICY, 3, 1e9, PARAMS)
    assert all(one.params["legit_share"] <= capped[0].share for one in trials)


def test_test_folds_do_not_search(taught: list[Lesson], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="validation folds, and of no others"):
        search(taught, OptunaStudy(tmp_path, "s", "cost"), "cost", POLICY, 1, 1.0)


def test_train_uses_the_best_only_when_told_to(
    taught: list[Lesson], whole: tuple[Trial, ...], tmp_path: Path
) -> None:
    test = [lesson for lesson in taught if lesson.fold.role == "test"]
    found = judged_best(whole, iter(test), "s", "cost", POLICY, PARAMS, resamples=50)
    assert found.default_value == whole[0].value
    assert found.value <= found.default_value
    assert found.pruned == sum(one.is_pruned for one in whole)
    with pytest.raises(SettingsError, match="run fraud-platform search first"):
        TrainConfig(use_search=True).params(tmp_path)
    write_best(tmp_path, found)
    assert TrainConfig().params(tmp_path) == (TrainParams(), DEFAULT_PARAMS)
    params, source = TrainConfig(use_search=True).params(tmp_path)
    assert params == applied(TrainParams(), found.params)
    assert source.startswith("search s, 14 trials, cost ")
    own, told = TrainConfig(use_search=True, num_leaves=9).params(tmp_path)
    assert own.num_leaves == 9
    assert own.learning_rate == params.learning_rate
    assert told == f"{source}; given for this run: num_leaves=9"


def test_searched_parameters_give_the_same_candidate_again_and_it_says_so(
    whole: tuple[Trial, ...], tmp_path: Path
) -> None:
    found = (
        judged_best(whole, iter(()), "s", "cost", POLICY, PARAMS)
        if whole[0] == best_of(whole, "cost")
        else None
    )
    params = applied(PARAMS, best_of(whole, "cost").params)
    split = folds()[0].split
    first = train(world(), CONTRACT, split, params, params_source="search s")
    again = train(world().sample(frac=1.0, random_state=2), CONTRACT, split, params, params_source="search s")
    assert first.fingerprint == again.fingerprint
    assert first.model_text == again.model_text
    assert first.fingerprint != train(world(), CONTRACT, split, PARAMS).fingerprint
    read = read_candidate(write_candidate(first, tmp_path))
    assert read.log.params_source == "search s"
    assert found is None or found.test == ()


def test_a_result_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text('{"file_version": 99}')
    with pytest.raises(SettingsError, match="version 99: this platform reads 1; search again"):
        read_best(tmp_path, TrainParams())


BEST = {"file_version": 1, "study": "s", "trials": 3, "metric": "cost", "value": 1.5, "params": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"file_version": 1, "par', "is not JSON"),
        (b"\xff\xfe\xff", "is not JSON"),
        (b"[]", "version None"),
        (b'{"file_version": 1}', r"without \['metric', 'params', 'study', 'trials', 'value'\]"),
        (json.dumps({**BEST, "value": None}).encode(), "value=None"),
        (json.dumps({**BEST, "params": None}).encode(), "params=None"),
        (json.dumps({**BEST, "params": {"num_leafs": 9}}).encode(), "'num_leafs': 9.*'num_leaves'"),
        (json.dumps({**BEST, "params": {"num_leaves": "9"}}).encode(), "must be finite numbers"),
        (json.dumps({**BEST, "params": {"num_leaves": float("nan")}}).encode(), "must be finite numbers"),
        (json.dumps({**BEST, "params": {"num_leaves": 1}}).encode(), "num_leaves=1: must be from 2 to"),
    ],
)
def test_a_broken_result_is_named_with_its_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "best.json"
    path.write_bytes(json.dumps(BEST).encode())
    assert read_best(tmp_path, TrainParams()) == (TrainParams(), "search s, 3 trials, cost 1.5")
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{re.escape(str(path))}: .*{message}.*search again"):
        read_best(tmp_path, TrainParams())
