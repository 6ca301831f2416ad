"""The handbook's folds: who teaches, who is assessed, who is left out."""

import numpy as np
import pandas as pd
import pytest

from fraud_platform.errors import SourceError
from fraud_platform.evaluate.handbook import (
    CHECK_COUNTS,
    CHECK_START,
    HEADER,
    TEST_STARTS,
    VALIDATION_STARTS,
    check_counts,
    make_fold,
    run_handbook,
)
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.settings import PROJECT_ROOT
from fraud_platform.train import TrainParams

DATA = PROJECT_ROOT.parent / "shared" / "data" / "handbook" / "transactions.parquet"
START = int(pd.Timestamp("2018-07-25", tz="UTC").timestamp() * 1000)
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount_minor", kind="field", description="Amount"),
        Feature(name="channel", kind="category", description="Channel"),
    ),
)


def make_rows(rows: list[tuple[str, float, bool]]) -> pd.DataFrame:
    """(card, day after the fold's start, is_fraud), in time."""
    ordered = sorted(rows, key=lambda row: row[1])
    return pd.DataFrame(
        {
            "transaction_id": [str(i) for i in range(len(rows))],
            "event_time": [START + int(day * DAY) for _, day, _ in ordered],
            "card_id": [card for card, _, _ in ordered],
            "is_fraud": [is_fraud for _, _, is_fraud in ordered],
        }
    )


def assessed(rows: pd.DataFrame) -> list[tuple[str, float]]:
    fold = make_fold(rows, "test", CHECK_START)
    found = rows.loc[fold.assessed]
    return [
        (card, (when - START) / DAY) for card, when in zip(found["card_id"], found["event_time"], strict=True)
    ]


def test_one_week_teaches_one_is_waited_and_one_is_assessed():
    rows = make_rows([("a", day, False) for day in (-30, 0, 6.99, 7, 13.99, 14, 20.99, 21)])
    fold = make_fold(rows, "test", CHECK_START)
    assert fold.teach.tolist() == [0, 1, 2]
    assert fold.first_week.tolist() == [1, 2]
    assert assessed(rows) == [("a", 14), ("a", pytest.approx(20.99))]


def test_cards_known_to_be_compromised_are_left_out():
    """The label of day d is known on day d + 8, the day after seven full days; earlier frauds than the
    fold's start are none of its business."""
    rows = make_rows(
        [
            ("long ago", -1, True),
            ("first week", 6.9, True),
            ("delay", 7.5, True),
            *(
                (card, day + 0.2, False)
                for card in ("long ago", "first week", "delay")
                for day in (14, 15, 16)
            ),
        ]
    )
    assert [(card, int(day)) for card, day in assessed(rows)] == [
        ("long ago", 14),
        ("delay", 14),
        ("long ago", 15),
        ("long ago", 16),
    ]


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 12_000
    first, last = (pd.Timestamp(day, tz="UTC").timestamp() * 1000 for day in ("2018-05-01", "2018-09-06"))
    fraud = rng.random(n) < 0.03
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in range(n)],
            "event_time": rng.integers(int(first), int(last), n),
            "card_id": [f"c{i}" for i in rng.integers(0, 3_000, n)],
            "is_fraud": fraud,
            "amount_minor": rng.normal(np.where(fraud, 3.0, 0.0), 1.0),
            "channel": pd.Series([None] * n, dtype="str"),
        }
    )


def counts_of(frame: pd.DataFrame) -> tuple[int, ...]:
    ordered = frame.sort_values("event_time", ignore_index=True)
    fold = make_fold(ordered, "test", CHECK_START)
    return tuple(
        int(n)
        for part in (fold.first_week, fold.assessed)
        for n in (len(part), ordered["is_fraud"].to_numpy()[part].sum())
    )


def test_the_table_stands_beside_the_published_rows(small):
    said: list[str] = []
    params = TrainParams(rounds_max=10, early_stopping_rounds=0, min_data_in_leaf=20, legit_share=0.5)
    table = run_handbook(small, CONTRACT, said.append, params, counts_of(small))
    assert [fold.start for fold in table.folds] == [*VALIDATION_STARTS, *TEST_STARTS]
    assert len(said) == 8
    rows = table.rows()
    assert all(len(row) == len(HEADER) for row in rows)
    assert rows[0] == ("logistic regression", "0.868", "0.623", "0.2970", "book, chapter 5")
    ours = [row for row in rows if row[0] == "this platform"]
    assert [row[4] for row in ours] == ["measured, 4 validation folds", "measured, 4 test folds"]
    folds = [fold.average_precision for fold in table.folds if fold.role == "test"]
    assert table.mean("test").average_precision == pytest.approx(np.mean(folds))
    assert table.mean("test").average_precision > 0.5
    shuffled = small.sample(frac=1.0, random_state=3)
    assert run_handbook(shuffled, CONTRACT, params=params, expected_counts=counts_of(small)) == table


def test_other_data_is_refused(small):
    with pytest.raises(SourceError, match=r"handbook's data has \(67240, 598, 58264, 385\)"):
        run_handbook(small, CONTRACT)


@pytest.mark.skipif(not DATA.is_file(), reason=f"the handbook's data is not at {DATA}")
def test_the_check_counts_are_those_of_the_book():
    columns = ["transaction_id", "tx_datetime", "customer_id", "tx_fraud"]
    data = pd.read_parquet(DATA, columns=columns).query("'2018-07-25' <= tx_datetime < '2018-08-16'")
    rows = pd.DataFrame(
        {
            "transaction_id": data["transaction_id"].astype(str),
            "event_time": data["tx_datetime"].astype("datetime64[ms]").astype("int64"),
            "card_id": data["customer_id"],
            "is_fraud": data["tx_fraud"] == 1,
        }
    ).sort_values("event_time", ignore_index=True)
    check_counts(rows, CHECK_COUNTS)
