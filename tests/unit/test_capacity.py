from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_platform.policy import Capacity
from fraud_platform.serve.capacity import HOUR_MS, REVIEW_UNITS, HourCounts, Wish, ask

HOURS = 48


@dataclass(frozen=True)
class Asked:
    time_ms: int
    saving: float
    reviews: float


def stream(seed: int, per_hour: float) -> list[Asked]:
    """Poisson arrivals, most by day, whose savings differ as much as amounts do."""
    rng = np.random.default_rng(seed)
    found = []
    for hour in range(HOURS):
        count = rng.poisson(per_hour * (1.0 + 0.5 * np.sin(2 * np.pi * hour / 24)))
        for place in np.sort(rng.random(count)):
            time_ms = (hour * HOUR_MS) + int(place * HOUR_MS)
            found.append(Asked(time_ms, float(rng.lognormal(2.5, 1.5)), float(rng.beta(2, 8))))
    return found


def granted(asked: list[Asked], limits: Capacity, is_due: bool = False) -> list[bool]:
    counts: dict[int, HourCounts] = {}
    answers = []
    for one in asked:
        hour = one.time_ms // HOUR_MS
        wish = Wish(one.saving, one.reviews, limits, is_due)
        counts[hour], answer = ask(
            wish, one.time_ms, counts.get(hour, HourCounts()), counts.get(hour - 1) if hour else None
        )
        answers.append(answer)
    return answers


def first_come(asked: list[Asked], limit: int) -> list[bool]:
    used = dict.fromkeys(range(HOURS), 0)
    answers = []
    for one in asked:
        hour = one.time_ms // HOUR_MS
        answers.append(used[hour] < limit)
        used[hour] += 1
    return answers


def saved(asked: list[Asked], answers: list[bool]) -> float:
    return sum(one.saving for one, answer in zip(asked, answers, strict=True) if answer)


def in_hours(asked: list[Asked], weights: list[float]) -> np.ndarray:
    hours = [one.time_ms // HOUR_MS for one in asked]
    return np.bincount(hours, weights=weights, minlength=HOURS)


def test_scarce_step_ups_go_to_where_they_save_most() -> None:
    """Twice as many wishes as capacity: much more is saved than by first come, first served."""
    asked, limit = stream(1, 60.0), 30
    answers = granted(asked, Capacity(limit))
    best = sum(
        sum(sorted(one.saving for one in asked if one.time_ms // HOUR_MS == hour)[-limit:])
        for hour in range(HOURS)
    )
    assert saved(asked, answers) > 1.4 * saved(asked, first_come(asked, limit))
    assert saved(asked, answers) > 0.9 * best


@pytest.mark.parametrize("limits", [Capacity(30), Capacity(None, 5), Capacity(30, 5), Capacity(0)])
def test_no_limit_is_passed(limits: Capacity) -> None:
    asked = stream(2, 60.0)
    answers = granted(asked, limits)
    step_ups = in_hours(asked, [float(answer) for answer in answers])
    units = [round(one.reviews * REVIEW_UNITS) * answer for one, answer in zip(asked, answers, strict=True)]
    if limits.step_ups_per_hour is not None:
        assert step_ups.max() <= limits.step_ups_per_hour
    if limits.reviews_per_hour is not None:
        assert in_hours(asked, units).max() <= limits.reviews_per_hour * REVIEW_UNITS
    used_up = limits.step_ups_per_hour == 0 or sum(answers) > 0.5 * HOURS * 25
    assert used_up, "what there is must be used"


def test_where_there_is_enough_nearly_nobody_is_refused() -> None:
    asked = stream(3, 40.0)
    answers = granted(asked, Capacity(90))
    assert sum(answers) >= 0.995 * sum(first_come(asked, 90))


def test_a_rule_s_step_up_is_counted_and_never_refused() -> None:
    asked = stream(4, 20.0)
    assert all(granted(asked, Capacity(1, 0), is_due=True))
    counts, _ = ask(Wish(5.0, 0.25, Capacity(1), is_due=True), 0, HourCounts(step_ups=7), None)
    assert (counts.step_ups, counts.reviews, sum(counts.wishes)) == (8, 250, 1)


def test_what_is_refused_counts_as_a_wish_only() -> None:
    counts, is_granted = ask(Wish(5.0, 0.25, Capacity(7)), 0, HourCounts(step_ups=7), None)
    assert (is_granted, counts.step_ups, sum(counts.wishes), sum(counts.wished_reviews)) == (False, 7, 1, 250)


@settings(max_examples=50)
@given(st.floats(0, allow_nan=False), st.floats(0, 1), st.integers(0, 10 * HOUR_MS), st.integers(0, 10))
def test_any_wish_is_answered_and_counts_survive_their_bytes(
    saving: float, reviews: float, now_ms: int, limit: int
) -> None:
    counts, is_granted = ask(Wish(saving, reviews, Capacity(limit, limit)), now_ms, HourCounts(), None)
    assert counts.step_ups == is_granted
    assert HourCounts.from_bytes(counts.to_bytes()) == counts
