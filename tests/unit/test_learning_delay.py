"""The label delay against distributions that are known, seen only where it fits into the past."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fraud_platform.errors import LabelError
from fraud_platform.learning.delay import AT_RISK_MIN, DelayCurve, estimate_delay
from fraud_platform.learning.label_delay import ALL, WINDOWS_DAYS, LabelDelay, measure_label_delay
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY

PAST_DAYS = 120
DELAYS = {
    "gamma": stats.gamma(2.0, scale=12.0),
    "exponential": stats.expon(scale=20.0),
    "lognormal": stats.lognorm(1.0, scale=15.0),
}


def seen(delay_days: np.ndarray, elapsed_days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Delay and elapsed time (ms) of the frauds that are known by now."""
    known = delay_days <= elapsed_days
    return (delay_days[known] * DAY).astype(np.int64), np.ceil(elapsed_days[known] * DAY).astype(np.int64)


def sample(name: str, frauds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frauds committed evenly over the past, with delays of a distribution."""
    rng = np.random.default_rng(seed)
    return seen(DELAYS[name].rvs(frauds, random_state=rng), rng.uniform(0, PAST_DAYS, frauds))


def true_share(name: str, days: np.ndarray, curve: DelayCurve) -> np.ndarray:
    return DELAYS[name].cdf(days) / DELAYS[name].cdf(curve.horizon_days)


@pytest.mark.parametrize("name", sorted(DELAYS))
def test_the_estimate_is_right_where_the_histogram_is_not(name: str) -> None:
    """Over 20 samples the mean error is small beside the histogram's, which is above the truth throughout.

    Fails where truncation is forgotten: both would then be the same.
    """
    days = np.array([5.0, 10.0, 20.0, 40.0, 60.0])
    ours, naive = [], []
    for seed in range(20):
        curve = estimate_delay(*sample(name, 3_000, seed), resamples=1)
        truth = true_share(name, days, curve)
        ours.append(curve.known((days * DAY).astype(np.int64)) - truth)
        naive.append(curve.known_naive((days * DAY).astype(np.int64)) - truth)
    bias, naive_bias = np.mean(ours, axis=0), np.mean(naive, axis=0)
    assert np.all(naive_bias > 0.01), "the histogram takes the short delays of the young for all"
    assert np.all(np.abs(bias) < 0.01)
    assert np.all(np.abs(bias) < naive_bias / 3)


def test_without_truncation_it_is_the_histogram() -> None:
    delay = np.random.default_rng(1).gamma(2.0, 5.0, 500) * DAY
    curve = estimate_delay(delay, np.full(500, 10_000 * DAY), resamples=1)
    inside = np.sort(delay.astype(np.int64))[: curve.frauds]
    expected = np.searchsorted(inside, curve.delay_ms, side="right") / len(inside)
    assert curve.share == pytest.approx(expected)
    assert curve.naive == pytest.approx(expected)
    assert curve.frauds + curve.beyond == 500


def test_the_product_is_that_of_a_sum_over_all_pairs() -> None:
    """Against the definition, delay by delay, with ties."""
    rng = np.random.default_rng(2)
    delay = rng.integers(1, 40, 400)
    elapsed = delay + rng.integers(0, 60, 400)
    curve = estimate_delay(delay, elapsed, resamples=1)
    known = delay <= curve.horizon_ms
    delay, elapsed = delay[known], elapsed[known]
    for point, share in zip(curve.delay_ms, curve.share, strict=True):
        product = 1.0
        for later in np.unique(delay[delay > point]):
            at_risk = ((delay <= later) & (later <= elapsed)).sum()
            product *= 1.0 - (delay == later).sum() / at_risk
        assert share == pytest.approx(product)


def test_the_band_holds_the_truth_about_as_often_as_it_says() -> None:
    days = np.array([10.0, 30.0])
    held = []
    for seed in range(60):
        curve = estimate_delay(*sample("gamma", 1_200, 100 + seed), seed=seed, resamples=120)
        low, high = curve.band((days * DAY).astype(np.int64))
        truth = true_share("gamma", days, curve)
        held.append((low <= truth) & (truth <= high))
    assert 0.86 <= float(np.mean(held)) <= 1.0


def test_frauds_that_are_reported_together_widen_the_band() -> None:
    """Each card's ten frauds have one delay: ten times as many rows know no more."""
    rng = np.random.default_rng(4)
    delay, elapsed = rng.gamma(2.0, 10.0, 300), rng.uniform(60, 120, 300)
    card = np.repeat(np.arange(300), 10)
    inside = delay <= elapsed
    many = seen(np.repeat(delay, 10), np.repeat(elapsed, 10))
    by_card = estimate_delay(*many, block=card[np.repeat(inside, 10)])
    alone = estimate_delay(*many)
    low, high = by_card.band(20 * DAY)
    narrow_low, narrow_high = alone.band(20 * DAY)
    assert high - low > 2 * (narrow_high - narrow_low)


def test_nothing_is_said_beyond_the_horizon() -> None:
    """Half of the frauds take longer than anybody has waited: the estimate is of those that do not."""
    rng = np.random.default_rng(5)
    is_slow = rng.random(4_000) < 0.5
    delay = np.where(is_slow, 500.0, rng.gamma(2.0, 5.0, 4_000))
    curve = estimate_delay(*seen(delay, rng.uniform(0, 90, 4_000)), resamples=1)
    assert curve.horizon_days < 90
    assert curve.known(10**9 * DAY) == 1.0
    fast = stats.gamma(2.0, scale=5.0)
    assert float(curve.known(10 * DAY)) == pytest.approx(
        fast.cdf(10) / fast.cdf(curve.horizon_days), abs=0.03
    )


def test_the_horizon_is_what_could_be_seen_not_what_was() -> None:
    """Fails where frauds that are soon known look like a short history."""
    rng = np.random.default_rng(3)
    curve = estimate_delay(*seen(rng.uniform(0, 5, 2_000), rng.uniform(0, PAST_DAYS, 2_000)), resamples=1)
    assert curve.delay_ms[-1] <= 5 * DAY
    assert PAST_DAYS - 5 < curve.horizon_days <= PAST_DAYS
    told = curve.told(30 * DAY)
    assert told is not None
    assert told[0] == 1.0
    assert curve.told(curve.horizon_ms) is not None
    assert curve.told(curve.horizon_ms + 1) is None


def test_shares_rise_from_nothing_to_all_and_quantiles_turn_them_round() -> None:
    curve = estimate_delay(*sample("lognormal", 2_000, 6))
    assert np.all(np.diff(curve.share) >= 0)
    assert np.all((curve.low <= curve.share) & (curve.share <= curve.high))
    assert curve.share[-1] == 1.0
    assert curve.known(0) == 0.0
    for share in (0.1, 0.5, 0.9, 1.0):
        days = curve.quantile_days(share)
        assert float(curve.known(round(days * DAY))) >= share
        assert float(curve.known(round(days * DAY) - 1)) < share
    with pytest.raises(LabelError, match="above 0 and at most 1"):
        curve.quantile_days(0.0)


def test_impossible_or_too_few_frauds_are_refused() -> None:
    with pytest.raises(LabelError, match="a delay of 20 ms where 10 ms have passed"):
        estimate_delay(np.array([5, 20]), np.array([10, 10]))
    with pytest.raises(LabelError, match="one for each"):
        estimate_delay(np.arange(3), np.arange(4))
    few = AT_RISK_MIN - 1
    with pytest.raises(LabelError, match=f"{few} known frauds, of which at most {few} are old enough"):
        estimate_delay(np.arange(few), np.full(few, 1_000))
    with pytest.raises(LabelError, match="0 known frauds"):
        estimate_delay(np.array([], dtype=np.int64), np.array([], dtype=np.int64))


AS_OF = 20_000 * DAY


def reports(frauds: int = 3_000, seed: int = 8) -> pd.DataFrame:
    """Known reports: the web's come by chargeback, slowly; the shop's by the cardholder, soon, and again."""
    rng = np.random.default_rng(seed)
    event_time = AS_OF - rng.integers(1, PAST_DAYS * DAY, frauds)
    is_web = rng.random(frauds) < 0.7
    delay = np.where(is_web, rng.gamma(2.0, 15.0, frauds), rng.gamma(1.0, 2.0, frauds)) * DAY
    frame = pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in range(frauds)],
            "event_time": event_time,
            "known_at": event_time + delay.astype(np.int64),
            "source": np.where(is_web, "chargeback", "cardholder_report"),
            "card_id": rng.integers(0, 900, frauds).astype(str),
            "amount_minor": rng.integers(100, 100_000, frauds),
            "currency": "EUR",
            "channel": pd.Series(np.where(is_web, "web", "pos"), dtype="str"),
            "category": pd.Series([None] * frauds, dtype="str"),
        }
    )
    again = frame.loc[~is_web].assign(source="chargeback")
    again["known_at"] += 20 * DAY
    both = pd.concat([frame, again], ignore_index=True)
    return both.loc[both["known_at"] < AS_OF]


@pytest.fixture(scope="module")
def found() -> LabelDelay:
    return measure_label_delay(reports(), AS_OF, 30)


def test_groups_are_told_apart(found: LabelDelay) -> None:
    groups = {(one.dimension, one.value): one.curve for one in found.groups}
    assert (found.groups[0].dimension, found.groups[0].value) == (ALL, ALL)
    assert groups["channel", "pos"].quantile_days(0.5) < 3 < groups["channel", "web"].quantile_days(0.5)
    assert groups["source", "cardholder_report"].quantile_days(0.9) < 10
    assert not any(dimension == "category" for dimension, _ in groups), "nothing is known of it"
    first = reports().drop_duplicates("transaction_id")
    assert found.all.frauds + found.all.beyond == len(first), "a fraud that two sources report is one"


def test_what_is_still_to_come_is_about_what_comes(found: LabelDelay) -> None:
    everything = reports()
    young = everything.loc[everything["event_time"] >= AS_OF - 30 * DAY].drop_duplicates("transaction_id")
    assert found.young_known == len(young)
    assert found.young_expected is not None
    assert found.young_expected == pytest.approx(3_000 * 30 / PAST_DAYS, rel=0.15)


def test_the_table_tells_only_what_can_be_seen(found: LabelDelay) -> None:
    records = found.table()
    assert len({tuple(record) for record in records}) == 1, "one set of columns"
    for record in records:
        for days in WINDOWS_DAYS:
            is_seen = days <= record["horizon_days"]
            assert (record[f"known_{days}d"] is not None) is is_seen
            if is_seen:
                assert (
                    record[f"known_{days}d_low"] <= record[f"known_{days}d"] <= record[f"known_{days}d_high"]
                )
    said = "\n".join(found.explain())
    assert "after the maturity window of 30 days" in said
    assert f"beyond {found.all.horizon_days:.0f} days nothing can be seen" in said


def test_a_maturity_window_beyond_the_horizon_is_not_told() -> None:
    frame = reports()
    short = measure_label_delay(frame.loc[frame["event_time"] >= AS_OF - 20 * DAY], AS_OF, 30)
    assert short.all.horizon_days < 20 < 30
    assert short.known_at_maturity() is None
    said = "\n".join(short.explain())
    assert "after the maturity window of 30 days cannot be told: the history is too short" in said
    assert "100.0%" not in said


def test_a_window_longer_than_any_delay_is_told_where_the_history_is_long() -> None:
    frame = reports()
    soon = frame.loc[frame["known_at"] - frame["event_time"] < 5 * DAY]
    told = measure_label_delay(soon, AS_OF, 30).known_at_maturity()
    assert told is not None
    assert told[0] == 1.0


def test_reports_from_before_their_transaction_are_counted_and_left_out() -> None:
    frame = reports()
    frame.iloc[:7, frame.columns.get_loc("known_at")] = frame["event_time"].iloc[:7] - 1
    found = measure_label_delay(frame, AS_OF, 30)
    assert found.impossible == 7
    assert "7 reports are dated before" in "\n".join(found.explain())


def test_small_groups_are_named_and_no_frauds_are_refused(found: LabelDelay) -> None:
    frame = reports()
    frame.iloc[:40, frame.columns.get_loc("channel")] = "atm"
    left_out = measure_label_delay(frame, AS_OF, 30).left_out
    assert any(dimension == "channel" and value == "atm" for dimension, value, _ in left_out)
    with pytest.raises(LabelError, match="no fraud is known"):
        measure_label_delay(frame.iloc[:0], AS_OF, 30)
    with pytest.raises(LabelError, match="50 known frauds; at least 100"):
        measure_label_delay(reports().drop_duplicates("transaction_id").iloc[:50], AS_OF, 30)
