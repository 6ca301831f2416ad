"""The book's split: its features against a slow count, and what its table says of a miss."""

import numpy as np
import pandas as pd
import pytest

from fraud_platform.errors import SourceError
from fraud_platform.evaluate.handbook import CHECK_START, Published, make_fold
from fraud_platform.evaluate.handbook_book import (
    COLUMNS,
    FEATURES,
    HEADER,
    PUBLISHED,
    XGBOOST,
    BookTable,
    Reproduced,
    book_features,
    in_order,
    make_model,
    numbered,
    run_book,
)
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.settings import PROJECT_ROOT

DATA = PROJECT_ROOT.parent / "shared" / "data" / "handbook" / "transactions.parquet"
FIRST = int(pd.Timestamp("2018-06-20", tz="UTC").timestamp() * 1000)
LAST = int(pd.Timestamp("2018-08-16", tz="UTC").timestamp() * 1000)


def make_world(rows: int, cards: int, terminals: int, seed: int = 4) -> pd.DataFrame:
    """Moments on a coarse grid, so that rows meet the edges of windows and each other."""
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.integers(0, (LAST - FIRST) // 3_600_000, rows))
    fraud = rng.random(rows) < 0.05
    return pd.DataFrame(
        {
            "transaction_id": [str(i) for i in range(rows)],
            "event_time": FIRST + hours * 3_600_000,
            "card_id": [str(i) for i in rng.integers(0, cards, rows)],
            "merchant_id": [str(i) for i in rng.integers(0, terminals, rows)],
            "amount_minor": rng.integers(100, 9_000, rows) + 9_000 * fraud,
            "is_fraud": fraud,
        }
    )


def counted(rows: pd.DataFrame, place: int) -> list[float]:
    """The features of one row, by looking at every other row."""
    row = rows.iloc[place]
    now = pd.Timestamp(row["event_time"], unit="ms")
    found = [row["amount_minor"] / 100, float(now.weekday() in (5, 6)), float(0 <= now.hour <= 6)]
    for days in (1, 7, 30):
        own = rows[
            (rows["card_id"] == row["card_id"])
            & (rows["event_time"] > row["event_time"] - days * DAY)
            & (rows["event_time"] <= row["event_time"])
        ]
        found += [len(own), own["amount_minor"].mean() / 100]
    for days in (1, 7, 30):
        there = rows[
            (rows["merchant_id"] == row["merchant_id"])
            & (rows["event_time"] > row["event_time"] - (7 + days) * DAY)
            & (rows["event_time"] <= row["event_time"] - 7 * DAY)
        ]
        found += [len(there), there["is_fraud"].mean() if len(there) else 0.0]
    return found


def test_the_features_are_those_of_a_slow_count():
    """Fails where a window takes in its far edge, leaves out the row itself, or sees a label too early."""
    rows = make_world(1_500, cards=8, terminals=6)
    wanted = np.arange(3, 1_500, 7)
    found = book_features(rows, wanted)
    assert found.shape == (len(wanted), len(FEATURES)) == (len(wanted), 15)
    np.testing.assert_allclose(found, [counted(rows, place) for place in wanted], rtol=1e-12)
    assert (found[:, FEATURES.index("terminal_txn_count_30d")] == 0).any()
    assert (found[:, FEATURES.index("terminal_fraud_share_1d")] > 0).any()


def test_numbers_are_ordered_as_numbers():
    assert numbered(pd.Series(["10", "9", "100", "9"])).tolist() == [1, 0, 2, 0]
    rows = make_world(12, 3, 3).assign(event_time=FIRST).sample(frac=1.0, random_state=1)
    assert in_order(rows)["transaction_id"].tolist() == [str(i) for i in range(12)]


def test_the_models_learn_and_stand_beside_the_published_rows():
    rows, said = make_world(6_000, cards=900, terminals=300), []
    fold = make_fold(rows, "test", CHECK_START)
    fraud = rows["is_fraud"].to_numpy()
    counts = [int(n) for part in (fold.first_week, fold.assessed) for n in (len(part), fraud[part].sum())]
    table = run_book(rows.sample(frac=1.0, random_state=2), said.append, counts)
    assert [row.published for row in table.rows] == list(PUBLISHED)
    assert all(len(row.row()) == len(HEADER) for row in table.rows)
    is_there = make_model(XGBOOST) is not None
    assert len(said) == 4 + is_there
    measured = {row.published.model: row.measured for row in table.rows}
    # Frauds are told by their amount alone, which every model can learn.
    assert measured["logistic regression"].average_precision > 0.9
    assert measured["random forest, 100 trees"].average_precision > 0.9
    assert not table.is_reproduced
    assert table == run_book(rows, expected_counts=counts)


def test_a_miss_is_told():
    published = Published("a", 0.871, 0.606, 0.291, "book")
    near = Reproduced(published, Published("a", 0.8705, 0.6044, 0.2929, "measured"))
    off = Reproduced(published, Published("a", 0.871, 0.606, 0.2945, "measured"))
    unrun = Reproduced(published, None)
    assert (near.row()[-1], off.row()[-1]) == ("yes", "NO")
    assert unrun.row() == ("a", "", "", "", "0.871 / 0.606 / 0.291", "not run: install the extra learning")
    assert BookTable((near, unrun)).is_reproduced
    assert not BookTable((near, off)).is_reproduced


def test_other_data_is_refused():
    with pytest.raises(SourceError, match=r"handbook's data has \(67240, 598, 58264, 385\)"):
        run_book(make_world(500, 20, 20))


@pytest.mark.skipif(not DATA.is_file(), reason=f"the handbook's data is not at {DATA}")
def test_the_books_logistic_regression_is_reproduced(monkeypatch):
    monkeypatch.setattr("fraud_platform.evaluate.handbook_book.PUBLISHED", PUBLISHED[:2])
    names = ["transaction_id", "tx_datetime", "customer_id", "terminal_id", "tx_amount", "tx_fraud"]
    data = pd.read_parquet(DATA, columns=names).query("tx_datetime < '2018-08-16'")
    rows = pd.DataFrame(
        {
            "transaction_id": data["transaction_id"].astype(str),
            "event_time": data["tx_datetime"].astype("datetime64[ms]").astype("int64"),
            "card_id": data["customer_id"].astype(str),
            "merchant_id": data["terminal_id"].astype(str),
            "amount_minor": (data["tx_amount"] * 100).round().astype("int64"),
            "is_fraud": data["tx_fraud"] == 1,
        }
    )
    assert list(rows.columns) == list(COLUMNS)
    table = run_book(rows)
    assert table.is_reproduced, [row.row() for row in table.rows]
