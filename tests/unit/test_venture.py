"""The chance of a decline: no day loses more than it may, and no time of it is left without a chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.exploration import DAY_MS, LOSS_UNITS, DayCounts, Venture, exact, venture

NOON = 20_000 * DAY_MS + DAY_MS // 2


def day_of(losses: np.ndarray, limit: float, share: float, seed: int, days: int = 1) -> list[list[float]]:
    """The chances of days on which the same losses are asked for, evenly spread, and lots are drawn."""
    rng = np.random.default_rng(seed)
    counts: dict[int, DayCounts] = {}
    chances = []
    for day in range(days):
        chances.append([])
        for place, loss in enumerate(losses.tolist()):
            now_ms = day * DAY_MS + place * DAY_MS // len(losses)
            asked = Venture(loss, limit, share, float(rng.random()))
            counts[day], chance = venture(asked, now_ms, counts.get(day, DayCounts()), counts.get(day - 1))
            chances[-1].append(chance)
        assert counts[day].loss <= limit
    return chances


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 0.99), st.integers(0, DAY_MS - 1)), max_size=60),
    st.floats(0.01, 200),
    st.floats(0.01, 0.99),
)
def test_no_day_loses_more_than_it_may(
    rows: list[tuple[float, float, int]], limit: float, share: float
) -> None:
    day = DayCounts()
    for loss, lot, now_ms in rows:
        before = day
        day, chance = venture(Venture(loss, limit, share, lot), now_ms, day, None)
        assert 0.0 <= chance <= exact(share)
        assert (day.explored - before.explored, day.lost > before.lost) in ((0, False), (1, loss > 0))
        assert (day.explored > before.explored) == (lot < chance)
        assert 1.0 - (1.0 - chance) == chance, "its complement tells it to the bit"
    assert day.loss <= limit
    assert DayCounts.from_bytes(day.to_bytes()) == day


def test_where_there_is_room_enough_the_chance_is_the_share() -> None:
    assert {chance for day in day_of(np.full(200, 10.0), 1e6, 0.05, 1, 2) for chance in day} == {exact(0.05)}


def test_a_limit_that_would_be_spent_lowers_the_chance_instead_of_leaving_evenings_without_one() -> None:
    """Twenty times as much is asked for as may be lost: to spend it as it comes would end in the morning."""
    chances = day_of(np.full(1_000, 2.0), 100.0, 0.9, seed=2, days=3)[-1]
    assert min(chances) > 0.0
    assert 0.02 < np.mean(chances[:500]) < 0.04, "it would all be lost at 0.05"
    assert 0.02 < np.mean(chances[500:]) < 0.20, "what was kept is used in the evening"


def test_what_may_be_lost_is_used_and_not_before_noon() -> None:
    rng = np.random.default_rng(4)
    counts, by_noon, by_night = None, [], []
    for _ in range(20):
        before, counts = counts, DayCounts()
        for place in range(500):
            asked = Venture(2.0, 100.0, 0.9, float(rng.random()))
            counts, _chance = venture(asked, place * DAY_MS // 500, counts, before)
            by_noon += [counts.loss] * (place == 250)
        by_night.append(counts.loss)
    assert 20.0 < np.mean(by_noon) < 45.0
    assert 75.0 < np.mean(by_night) <= 100.0


def test_what_would_lose_more_than_is_left_has_no_chance_and_leaves_room_for_less() -> None:
    day = DayCounts(1, 90 * LOSS_UNITS, 90 * LOSS_UNITS)
    counted, chance = venture(Venture(20.0, 100.0, 0.5, 0.0), NOON, day, None)
    assert (chance, counted) == (0.0, DayCounts(1, 110 * LOSS_UNITS, 90 * LOSS_UNITS))
    counted, chance = venture(Venture(10.0, 100.0, 0.5, 0.0), NOON, day, None)
    assert chance > 0.0
    assert (counted.explored, counted.loss) == (2, 100.0)


def test_the_first_decline_of_a_first_day_is_no_forecast_of_a_quiet_one() -> None:
    """Nothing is known of the day: others like it are expected every hour."""
    _, chance = venture(Venture(100.0, 500.0, 0.9, 0.99), 20_000 * DAY_MS, DayCounts(), None)
    assert chance == pytest.approx(0.5 * 500.0 / (100.0 * 25))
