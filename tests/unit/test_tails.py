"""What windows with tails get wrong, counted by hand, and what it costs in ranking."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fraud_platform.errors import TrainingError
from fraud_platform.evaluate.ranking import average_precision_difference
from fraud_platform.features.contract import Feature, FeatureContract, load_contract
from fraud_platform.features.tails import tail_errors, tailed_names

HOUR = 3_600_000


def feature(name: str, window_ms: int | None = None, inputs: tuple[str, ...] = ()) -> Feature:
    entity = None if inputs else "card"
    return Feature(name=name, kind="count", entity=entity, window_ms=window_ms, inputs=inputs, description="")


SMALL = FeatureContract(
    {"card": ("card_id",)},
    (
        feature("n_1h", HOUR),
        feature("n_24h", 24 * HOUR),
        feature("age"),
        feature("share", inputs=("n_1h", "n_24h")),
        feature("other", inputs=("age", "age")),
        feature("share_of_share", inputs=("share", "age")),
    ),
)


def test_a_tail_touches_windows_and_whatever_reads_them() -> None:
    assert tailed_names(SMALL) == ("n_1h", "n_24h", "share", "share_of_share")
    names = tailed_names(load_contract())
    assert {"card_txn_count_1h", "merchant_fraud_share_7d", "card_amount_zscore_30d"} <= set(names)
    assert {"card_age_seconds", "amount_minor", "channel", "is_new_device"}.isdisjoint(names)


def test_wrong_values_are_counted_by_hand() -> None:
    nan = np.nan
    exact = {
        "n_1h": np.array([1.0, 0.0, nan, 2.0]),
        "n_24h": np.array([1.0, 4.0, nan, 4.0]),
        "share": np.array([1.0, 0.0, nan, 0.5]),
        "share_of_share": np.array([nan, nan, nan, nan]),
    }
    tailed = {
        "n_1h": np.array([1.0, 1.0, nan, 3.0]),
        "n_24h": np.array([1.0, 4.0, nan, 4.0]),
        "share": np.array([1.0, 0.25, nan, nan]),
        "share_of_share": np.array([nan, nan, nan, nan]),
    }
    found = tail_errors(SMALL, "five-minute", exact, tailed)
    assert (found.values, found.wrong_values) == (9, 4)
    assert (found.transactions, found.wrong_transactions) == (4, 2)
    assert found.worst == (("n_1h", 2 / 3), ("share", 2 / 3))
    assert str(found) == (
        "a five-minute tail: 4 of 9 windowed values wrong (44.44%), in 2 of 4 transactions (50.00%)"
    )


def test_what_is_equal_is_not_wrong() -> None:
    columns = {name: np.array([1.0, np.nan]) for name in tailed_names(SMALL)}
    found = tail_errors(SMALL, "one-day", columns, {name: column.copy() for name, column in columns.items()})
    assert (found.wrong_values, found.wrong_transactions, found.worst) == (0, 0, ())


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two scores with many ties, truth and cards; the second score is the first with noise."""
    generator = np.random.default_rng(4)
    fraud = generator.random(4_000) < 0.03
    first = np.round(generator.random(4_000) + 0.4 * fraud, 2)
    second = np.round(first + generator.normal(0.0, 0.4, 4_000), 2)
    return first, second, fraud, generator.integers(0, 300, 4_000)


def test_average_precision_is_the_known_one(scored) -> None:
    first, second, fraud, cards = scored
    found = average_precision_difference(first, second, fraud, cards, seed=1, resamples=200)
    assert found.first == pytest.approx(average_precision_score(fraud, first), abs=1e-12)
    assert found.second == pytest.approx(average_precision_score(fraud, second), abs=1e-12)
    assert found.difference.estimate == pytest.approx(found.second - found.first)
    assert (found.rows, found.frauds) == (4_000, int(fraud.sum()))


def test_the_resamples_weigh_whole_cards(scored) -> None:
    """One resample by hand: the same draw of weights, given to scikit-learn."""
    first, second, fraud, cards = scored
    found = average_precision_difference(first, second, fraud, cards, seed=9, resamples=1)
    blocks, member = np.unique(cards, return_inverse=True)
    weight = np.random.default_rng(9).poisson(1.0, len(blocks))[member]
    one, other = (average_precision_score(fraud, score, sample_weight=weight) for score in (first, second))
    assert found.difference.low == pytest.approx(other - one, abs=1e-12)


def test_equal_scores_differ_by_nothing_and_noise_costs_for_certain(scored) -> None:
    first, second, fraud, cards = scored
    same = average_precision_difference(first, first.copy(), fraud, cards, seed=1, resamples=50).difference
    assert (same.estimate, same.low, same.high) == (0.0, 0.0, 0.0)
    lost = average_precision_difference(first, second, fraud, cards, seed=1, resamples=200).difference
    assert lost.low < lost.estimate < lost.high < 0.0


def test_without_a_fraud_there_is_no_ranking(scored) -> None:
    first, second, fraud, cards = scored
    with pytest.raises(TrainingError, match="no fraud in 4000 rows"):
        average_precision_difference(first, second, np.zeros_like(fraud), cards, seed=1)
