"""The encoder: one vector and a column of a matrix carry the same bits."""

from types import SimpleNamespace

import numpy as np
import pytest

from fraud_platform.errors import ContractError
from fraud_platform.features.encoding import LEVELS_MAX, CategoryEncoder

CONTRACT = SimpleNamespace(
    names=("amount", "channel", "is_night"),
    features=(
        SimpleNamespace(name="amount", dtype="double"),
        SimpleNamespace(name="channel", dtype="category"),
        SimpleNamespace(name="is_night", dtype="double"),
    ),
)
ROWS = [(1.5, "pos", 0.0), (None, "web", 1.0), (0.1 + 0.2, "", None), (-0.0, None, 1.0), (7.0, "pos", 0.0)]


def columns_of(rows):
    return {name: np.array([row[i] for row in rows], dtype=object) for i, name in enumerate(CONTRACT.names)}


@pytest.fixture
def encoder() -> CategoryEncoder:
    return CategoryEncoder.fit(columns_of(ROWS), CONTRACT)


def test_most_frequent_level_comes_first_and_empty_text_is_no_level(encoder):
    assert encoder.levels == {"channel": ("pos", "web")}


def test_vector_and_matrix_agree_to_the_bit(encoder):
    rows = [*ROWS, (2.0, "never seen", 1.0), (3.0, float("nan"), 1.0)]
    matrix = encoder.matrix(columns_of(rows), CONTRACT)
    assert matrix.dtype == np.float64
    for row, expected in zip(rows, matrix, strict=True):
        assert encoder.vector(row, CONTRACT).tobytes() == expected.tobytes()
    assert np.isnan(matrix[2:4, 1]).all()
    assert np.isnan(matrix[5, 1])
    assert np.isnan(matrix[1, 0])


def test_a_matrix_is_the_same_in_blocks(encoder, monkeypatch):
    whole = encoder.matrix(columns_of(ROWS), CONTRACT)
    monkeypatch.setattr("fraud_platform.features.encoding.COLUMNS_AT_ONCE", 2)
    monkeypatch.setattr("fraud_platform.features.encoding.ROWS_AT_ONCE", 3)
    assert encoder.matrix(columns_of(ROWS), CONTRACT).tobytes() == whole.tobytes()


def test_masked_numbers_are_unknown(encoder):
    columns = columns_of(ROWS) | {"amount": np.ma.MaskedArray([1.0, 2, 3, 4, 5], [0, 1, 0, 0, 0])}
    assert np.isnan(encoder.matrix(columns, CONTRACT)[:, 0]).tolist() == [False, True, False, False, False]


def test_rare_levels_beyond_the_limit_are_unknown():
    levels = np.array([f"c{i:04d}" for i in range(LEVELS_MAX + 10)] * 2, dtype=object)
    columns = {"amount": np.zeros(len(levels)), "channel": levels, "is_night": np.zeros(len(levels))}
    assert len(CategoryEncoder.fit(columns, CONTRACT).levels["channel"]) == LEVELS_MAX


def test_json_round_trip(encoder):
    assert CategoryEncoder.from_json(encoder.to_json()) == encoder


def test_a_missing_column_and_an_unknown_category_are_named(encoder):
    with pytest.raises(ContractError, match="'is_night' has no column"):
        encoder.matrix({"amount": np.zeros(1), "channel": np.zeros(1)}, CONTRACT)
    with pytest.raises(ContractError, match="'is_night' has 4 rows and 'amount' 5"):
        encoder.matrix(columns_of(ROWS) | {"is_night": np.zeros(4)}, CONTRACT)
    with pytest.raises(ContractError, match="'channel'"):
        CategoryEncoder({}).vector(ROWS[0], CONTRACT)
