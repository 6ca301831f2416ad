"""Every expectation of every suite is walked: good data passes it, and data spoiled for it alone fails it.

A new expectation is tested the moment it is written. One of a type that is not in SPOILERS fails here until
somebody says how such data goes bad.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from fraud_platform.adapters.great_expectations import (
    Expectation,
    Suite,
    load_suite,
    validate,
    validate_suite,
)
from fraud_platform.errors import SettingsError
from fraud_platform.schema import LABEL_COLUMNS, TRANSACTION_COLUMNS
from fraud_platform.settings import PROJECT_ROOT

SUITES = sorted((PROJECT_ROOT / "expectations").glob("*.yaml"))
ROWS = 1200
START_MS = 1_735_689_600_000
NOW_MS = START_MS + 400 * 86_400_000
PARAMETERS = {
    "now_ms": NOW_MS,
    "mature_before": NOW_MS - 30 * 86_400_000,
    "label_precedence": ["chargeback", "manual_review", "cardholder_report"],
}


def transactions() -> pd.DataFrame:
    random = np.random.default_rng(1)
    time = START_MS + np.sort(random.integers(0, 300 * 86_400_000, ROWS))
    frame = pd.DataFrame(
        {
            "transaction_id": [f"t{row}" for row in range(ROWS)],
            "event_time": time,
            "card_id": [f"c{card}" for card in random.integers(0, 100, ROWS)],
            "customer_id": [f"u{customer}" for customer in random.integers(0, 80, ROWS)],
            "device_id": pd.Series([None] * ROWS, dtype="str"),
            "ip_id": [f"i{ip}" for ip in random.integers(0, 200, ROWS)],
            "merchant_id": [f"m{merchant}" for merchant in random.integers(0, 50, ROWS)],
            "amount_minor": random.integers(100, 50_000, ROWS),
            "currency": "EUR",
            "channel": random.choice(["pos", "ecommerce"], ROWS),
            "category": random.choice(["food", "travel"], ROWS),
            "card_country": "DE",
            "merchant_country": random.choice(["DE", "FR"], ROWS),
            "latitude": random.uniform(40, 60, ROWS),
            "longitude": random.uniform(0, 20, ROWS),
            "home_latitude": 50.0,
            "home_longitude": 10.0,
        }
    )
    frame.loc[::10, ["ip_id", "channel", "card_country", "latitude", "longitude"]] = None
    return frame


def labels() -> pd.DataFrame:
    rows = range(200)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{row}" for row in rows],
            "source": ["chargeback", "cardholder_report"] * 100,
            "outcome": ["fraud", "fraud", "fraud", "legitimate"] * 50,
            "known_at": [START_MS + row * 3_600_000 for row in rows],
        }
    )


def training_set() -> pd.DataFrame:
    random = np.random.default_rng(2)
    frame = transactions()
    columns = [
        "transaction_id",
        "event_time",
        "card_id",
        "customer_id",
        "merchant_id",
        "amount_minor",
        "currency",
    ]
    frame = frame[[*columns, "channel", "category", "card_country"]]
    counts = np.sort(random.integers(0, 30, (ROWS, 3)), axis=1).astype(float)
    features = {
        "is_fraud": random.random(ROWS) < 0.01,
        "card_txn_count_24h": counts[:, 0],
        "card_txn_count_7d": counts[:, 1],
        "card_txn_count_30d": counts[:, 2],
        "merchant_txn_count_24h": counts[:, 0],
        "merchant_txn_count_30d": counts[:, 2],
        "merchant_fraud_reports_30d": counts[:, 0] // 10,
        "merchant_fraud_share_30d": 0.01,
        "card_seconds_since_last": random.uniform(1, 1e6, ROWS),
        "hour_of_day": random.integers(0, 24, ROWS).astype(float),
        "day_of_week": random.integers(0, 7, ROWS).astype(float),
        "is_new_merchant": random.integers(0, 2, ROWS).astype(float),
        "card_amount_mean_30d": random.uniform(100, 1000, ROWS),
    }
    frame = frame.assign(**features)
    frame.loc[::20, ["card_seconds_since_last", "card_amount_mean_30d"]] = None
    return frame


def scored_log() -> pd.DataFrame:
    random = np.random.default_rng(3)
    given = transactions()
    frame = pd.DataFrame(
        {
            "transaction_id": given["transaction_id"],
            "decided_at": given["event_time"] + 250,
            "event_time": given["event_time"],
            "amount_minor": given["amount_minor"],
            "score": random.random(ROWS),
            "probability": random.random(ROWS) * 0.05,
            "action": random.choice(["approve", "step_up", "decline"], ROWS, p=[0.9, 0.06, 0.04]),
            "tier": random.choice(["rules", "model", "fixed"], ROWS),
            "bundle_id": "0123456789abcdef" * 4,
            "latency_us": random.integers(300, 3000, ROWS),
        }
    )
    frame.loc[::50, ["score", "probability"]] = None
    return frame


GOOD: dict[str, Callable[[], pd.DataFrame]] = {
    "raw_transactions": transactions,
    "raw_labels": labels,
    "training_set": training_set,
    "scored_log": scored_log,
}

Spoiler = Callable[[pd.DataFrame, dict[str, Any]], pd.DataFrame]


def with_first(frame: pd.DataFrame, column: str, value: object, rows: int = 1) -> pd.DataFrame:
    """The first rows of a column replaced, whatever its type was."""
    values = frame[column].astype(object).tolist()
    values[:rows] = [value] * rows
    return frame.assign(**{column: pd.Series(values, index=frame.index).infer_objects()})


def beyond(kwargs: dict[str, Any]) -> float:
    """A value outside the bounds, on a side that has one."""
    maximum = kwargs.get("max_value")
    return maximum + 1 if maximum is not None else kwargs["min_value"] - 1


def spoil_nothing_given(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    return with_first(frame, kwargs["column"], None)


def spoil_one_value(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    return with_first(frame, kwargs["column"], beyond(kwargs))


def spoil_all_values(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    return with_first(frame, kwargs["column"], beyond(kwargs), rows=len(frame))


def spoil_sharing(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    """All equal where values must differ, all different where they must return."""
    values = range(len(frame)) if "max_value" in kwargs else [0] * len(frame)
    is_number = pd.api.types.is_numeric_dtype(frame[kwargs["column"]])
    return frame.assign(
        **{kwargs["column"]: list(values) if is_number else [f"v{value}" for value in values]}
    )


def spoil_with_a_stranger(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    is_number = pd.api.types.is_numeric_dtype(frame[kwargs["column"]])
    return with_first(frame, kwargs["column"], 99 if is_number else "?!")


def spoil_with_the_forbidden(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    return with_first(frame, kwargs["column"], kwargs["value_set"][0], rows=len(frame) // 2)


def spoil_order(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    """A below B in a tenth of the rows, which is more than any `mostly` here allows."""
    smaller = frame[kwargs["column_A"]].copy()
    rows = frame.index[: len(frame) // 10]
    smaller.loc[rows] = frame.loc[rows, kwargs["column_B"]] - 1
    return frame.assign(**{kwargs["column_A"]: smaller})


def spoil_classes(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    return with_first(frame, kwargs["column"], kwargs["value_set"][0], rows=len(frame))


def spoil_completeness(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    return with_first(frame, kwargs["column"], None, rows=int(len(frame) * 0.99))


def spoil_rows_apart(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    first_twice = [0, *range(len(frame) - 1)]
    return frame.iloc[first_twice].reset_index(drop=True)


def spoil_columns(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    """A column too many where the set is closed, one too few where it is open."""
    if kwargs["exact_match"]:
        return frame.assign(stranger=1)
    return frame.drop(columns=kwargs["column_set"][-1])


def spoil_size(frame: pd.DataFrame, kwargs: dict[str, Any]) -> pd.DataFrame:
    return frame.head(kwargs["min_value"] - 1)


SPOILERS: dict[str, Spoiler] = {
    "expect_column_distinct_values_to_be_in_set": spoil_with_a_stranger,
    "expect_column_distinct_values_to_equal_set": spoil_classes,
    "expect_column_max_to_be_between": spoil_one_value,
    "expect_column_mean_to_be_between": spoil_all_values,
    "expect_column_median_to_be_between": spoil_all_values,
    "expect_column_min_to_be_between": spoil_one_value,
    "expect_column_most_common_value_to_be_in_set": lambda frame, kwargs: with_first(
        frame, kwargs["column"], "decline", rows=len(frame)
    ),
    "expect_column_pair_values_a_to_be_greater_than_b": spoil_order,
    "expect_column_proportion_of_non_null_values_to_be_between": spoil_completeness,
    "expect_column_proportion_of_unique_values_to_be_between": spoil_sharing,
    "expect_column_unique_value_count_to_be_between": spoil_sharing,
    "expect_column_value_lengths_to_equal": spoil_with_a_stranger,
    "expect_column_values_to_be_between": spoil_one_value,
    "expect_column_values_to_be_in_set": spoil_with_a_stranger,
    "expect_column_values_to_be_unique": spoil_rows_apart,
    "expect_column_values_to_match_regex": spoil_with_a_stranger,
    "expect_column_values_to_not_be_in_set": spoil_with_the_forbidden,
    "expect_column_values_to_not_be_null": spoil_nothing_given,
    "expect_compound_columns_to_be_unique": spoil_rows_apart,
    "expect_table_columns_to_match_set": spoil_columns,
    "expect_table_row_count_to_be_between": spoil_size,
}

WALK = [
    pytest.param(suite, each, id=f"{suite.name}-{each.type}-{'-'.join(each.columns[:2])}")
    for suite in map(load_suite, SUITES)
    for each in suite.expectations
]


@pytest.mark.parametrize(("suite", "expectation"), WALK)
def test_an_expectation_fails_on_data_spoiled_for_it(suite: Suite, expectation: Expectation) -> None:
    alone = replace(suite, expectations=(expectation,))
    good = GOOD[suite.name]()
    assert len(good) >= expectation.from_rows
    spoiled = SPOILERS[expectation.type](good, expectation.with_parameters(PARAMETERS))
    report = validate_suite(alone, spoiled, PARAMETERS)
    assert not report.success
    (failure,) = report.failures
    assert failure.expectation == expectation.type
    assert expectation.why in str(failure)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_passes_on_good_data(path: Path) -> None:
    report = validate(path, GOOD[path.stem](), PARAMETERS)
    assert report.failures == ()
    assert report.success
    assert (report.rows, report.checked) == (len(GOOD[path.stem]()), len(load_suite(path).expectations))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_says_why_and_repeats_nothing(path: Path) -> None:
    suite = load_suite(path)
    assert suite.description
    assert suite.asset.count(".") == 1
    assert all(expectation.why for expectation in suite.expectations)
    keys = [(each.type, each.columns) for each in suite.expectations]
    assert len(keys) == len(set(keys))


def test_the_boundaries_are_guarded() -> None:
    assert {path.stem for path in SUITES} == set(GOOD)


def test_suites_name_the_canonical_columns() -> None:
    for name, columns in (("raw_transactions", TRANSACTION_COLUMNS), ("raw_labels", LABEL_COLUMNS)):
        suite = load_suite(PROJECT_ROOT / "expectations" / f"{name}.yaml")
        assert set(suite.columns) == {column.name for column in columns}


def test_optional_columns_that_a_set_lacks_pass() -> None:
    """A set without devices, places or categories, such as the handbook's, has those columns empty."""
    bare = transactions()
    for column in ("customer_id", "channel", "category", "card_country", "merchant_country"):
        bare[column] = pd.Series([None] * ROWS, dtype=object)
    for column in ("latitude", "longitude", "home_latitude", "home_longitude"):
        bare[column] = np.nan
    report = validate(PROJECT_ROOT / "expectations" / "raw_transactions.yaml", bare, PARAMETERS)
    assert report.failures == ()


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_an_empty_batch_is_judged_by_the_suite(path: Path) -> None:
    report = validate(path, GOOD[path.stem]().head(0), PARAMETERS)
    assert report.success == load_suite(path).may_be_empty
    assert report.success == (report.failures == ())


def test_a_suite_selects_the_columns_that_it_reads_as_far_as_they_are_there() -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS transaction_id, 2 AS is_fraud, 3 AS other")
        for name, columns in (("training_set", 2), ("raw_labels", 3)):
            suite = load_suite(PROJECT_ROOT / "expectations" / f"{name}.yaml")
            row = connection.execute(f"SELECT {suite.select_list} FROM t").fetchone()
            assert row is not None
            assert len(row) == columns


def suite_of(*expectations: Expectation) -> Suite:
    return Suite("test", "test.table", "A test.", expectations)


def test_a_small_batch_skips_statistics_and_a_missing_optional_column() -> None:
    statistic = Expectation(
        "expect_column_mean_to_be_between", {"column": "a", "max_value": 0}, "why", from_rows=10
    )
    optional = Expectation("expect_column_values_to_not_be_null", {"column": "b"}, "why", optional=True)
    report = validate_suite(suite_of(statistic, optional), pd.DataFrame({"a": [1]}))
    assert (report.success, report.checked) == (True, 0)
    assert report.skipped == (
        "expect_column_mean_to_be_between(a)",
        "expect_column_values_to_not_be_null(b)",
    )


def test_a_missing_column_is_a_failure_and_says_so() -> None:
    needed = Expectation("expect_column_values_to_not_be_null", {"column": "b"}, "b is needed")
    report = validate_suite(suite_of(needed), pd.DataFrame({"a": [1]}))
    assert [str(failure) for failure in report.failures] == [
        "expect_column_values_to_not_be_null(b): no such column; b is needed"
    ]


def test_a_failure_shows_values_that_break_it() -> None:
    positive = Expectation("expect_column_values_to_be_between", {"column": "a", "min_value": 0}, "a counts")
    report = validate_suite(suite_of(positive), pd.DataFrame({"a": [1, -2, -3, 4]}))
    assert str(report.failures[0]) == (
        "expect_column_values_to_be_between(a): 2 values break it (50 %), such as -2, -3; a counts"
    )


def test_a_crash_is_an_error_and_no_failed_check() -> None:
    broken = Expectation("expect_column_values_to_be_between", {"column": "a", "min_value": 0}, "why")
    with pytest.raises(SettingsError, match="could not be evaluated"):
        validate_suite(suite_of(broken), pd.DataFrame({"a": ["x", {}]}))


def test_a_parameter_without_a_value_is_an_error() -> None:
    with pytest.raises(SettingsError, match="raw_labels: parameters label_precedence, now_ms have no value"):
        validate(PROJECT_ROOT / "expectations" / "raw_labels.yaml", labels())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a table"),
        ("{asset: a.b, description: x}", "'expectations' is missing"),
        ("{asset: a.b, description: x, expectations: [], owner: me}", "unknown entry 'owner'"),
        (
            "{asset: a.b, description: x, expectations: [{type: x, kwargs: {}}]}",
            "expectation 1: 'why' is missing",
        ),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_suite(path)


def test_an_unknown_expectation_is_refused() -> None:
    unknown = Expectation("expect_the_unexpected", {}, "why")
    with pytest.raises(SettingsError, match="no expectation is called 'expect_the_unexpected'"):
        validate_suite(suite_of(unknown), pd.DataFrame({"a": [1]}))
