"""Folds through time: whole, apart by the gap, and in two roles that never meet."""

from __future__ import annotations

import pytest

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate.folds import prequential
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY


def test_folds_follow_each_other_and_keep_the_gap() -> None:
    folds = prequential(0, 100 * DAY, 30 * DAY, validation_folds=2, test_folds=2)
    assert [fold.role for fold in folds] == ["validation"] * 2 + ["test"] * 2
    assert [(f.split.test.start_ms // DAY, f.split.test.end_ms // DAY) for f in folds] == [
        (72, 79),
        (79, 86),
        (86, 93),
        (93, 100),
    ]
    for fold in folds:
        assert fold.as_of_ms - fold.split.validation.end_ms == 30 * DAY
        assert fold.split.train.end_ms == fold.split.validation.start_ms
        assert fold.split.train.start_ms == 0


def test_a_started_day_at_the_end_is_not_assessed() -> None:
    (fold,) = prequential(0, 50 * DAY + 5, 7 * DAY, validation_folds=0, test_folds=1)
    assert fold.split.test.end_ms == 50 * DAY


def test_too_short_a_history_is_refused_with_what_it_takes() -> None:
    with pytest.raises(TrainingError, match=r"more than 79 days of mature history; there are 60\.0"):
        prequential(0, 60 * DAY, 30 * DAY)
