"""ingest on DuckDB: what is taken, what is refused and why, and that the counts always add up."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.errors import MappingError, SettingsError, SourceError
from fraud_platform.ingest import IngestReport, Mapping
from fraud_platform.ingest.sql import is_card_number, without_card_numbers
from fraud_platform.schema import AMOUNT_MINOR_MAX, looks_like_card_number

NOW_MS = 1_760_000_000_000  # 2025-10-09
MAPPING = """
name: shop
transactions:
  files: tx*
  columns: {transaction_id: id, event_time: at, card_id: card, merchant_id: shop, amount: amount,
            currency: currency, device_id: device, category: upper(kind), latitude: lat, longitude: lon}
extras:
  age: {expression: CAST(age AS INTEGER) + 1, type: numeric}
  size: {expression: size, type: numeric}
labels:
  files: lab*
  columns: {transaction_id: id, source: source, outcome: outcome, known_at: at}
maturity_days: 30
label_precedence: [chargeback]
split: {test_days: 1, validation_days: 1}
"""
GOOD = {"id": "t1", "at": "2024-01-01T00:00:00Z", "card": "c1", "shop": "s1", "amount": "12.34"}
GOOD |= {"currency": "EUR", "device": "", "kind": "", "lat": "", "lon": "", "age": "", "size": ""}
LABEL = {"id": "t1", "source": "chargeback", "outcome": "fraud", "at": "2024-02-01"}
VISA = "4111 1111 1111 1111"

Row = dict[str, str]


class Shop:
    """A source folder, its mapping and its warehouse."""

    def __init__(self, folder: Path, mapping: str = MAPPING) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        self.warehouse = Warehouse(folder / "var" / "warehouse.duckdb")
        self.mapping = Mapping.from_yaml(mapping, "shop.yaml")
        self.write("lab1.csv", [LABEL])

    def write(self, name: str, rows: list[Row]) -> Path:
        path = self.source / name
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    def ingest(self, *rows: Row, now_ms: int = NOW_MS, **arguments: Any) -> IngestReport:
        """Ingest; with rows, they become tx1.csv first."""
        if rows:
            self.write("tx1.csv", list(rows))
        return self.warehouse.ingest(self.mapping, self.source, now_ms, **arguments)

    def rows(self, table: str, columns: str = "*") -> list[dict[str, Any]]:
        with self.warehouse.connect(read_only=True) as connection:
            cursor = connection.execute(f"SELECT {columns} FROM ingest.{table}")
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything stored, but for the moment it was seen."""
        tables = {"transactions": "*", "labels": "*", "quarantine": "* EXCLUDE (seen_at)"}
        with self.warehouse.connect(read_only=True) as connection:
            return {
                table: connection.execute(f"SELECT {columns} FROM ingest.{table} ORDER BY ALL").fetchall()
                for table, columns in tables.items()
            }


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def good(**changes: str) -> Row:
    return {**GOOD, **changes}


def test_a_good_row_becomes_canonical(shop: Shop) -> None:
    report = shop.ingest(good(kind=" Food ", lat="1.5", lon="-2", age="20", size="nan"))
    assert (report.transactions.rows_in, report.transactions.canonical) == (1, 1)
    assert shop.rows("transactions") == [
        {
            "transaction_id": "t1",
            "event_time": 1_704_067_200_000,
            "card_id": "c1",
            "customer_id": None,
            "device_id": None,
            "ip_id": None,
            "merchant_id": "s1",
            "amount_minor": 1234,
            "currency": "EUR",
            "channel": None,
            "category": "FOOD",
            "card_country": None,
            "merchant_country": None,
            "latitude": 1.5,
            "longitude": -2.0,
            "home_latitude": None,
            "home_longitude": None,
            "extra_age": 21.0,
            "extra_size": None,
        }
    ]
    assert shop.rows("labels") == [
        {"transaction_id": "t1", "source": "chargeback", "outcome": "fraud", "known_at": 1_706_745_600_000}
    ]


BAD_ROWS = [
    ("missing_id", "transaction_id", {"id": " "}, " "),
    ("missing_id", "card_id", {"card": ""}, None),
    ("missing_id", "merchant_id", {"shop": ""}, None),
    ("unreadable_time", "event_time", {"at": ""}, None),
    ("unreadable_time", "event_time", {"at": "2024-02-30"}, "2024-02-30"),
    ("future_time", "event_time", {"at": "2999-01-01"}, "2999-01-01"),
    ("future_time", "event_time", {"at": str(NOW_MS + 1)}, str(NOW_MS + 1)),
    ("absurd_time", "event_time", {"at": "1704067200"}, "1704067200"),
    ("unknown_currency", "currency", {"currency": ""}, None),
    ("unknown_currency", "currency", {"currency": "EUX"}, "EUX"),
    ("unreadable_amount", "amount", {"amount": ""}, None),
    ("unreadable_amount", "amount", {"amount": "1,234"}, "1,234"),
    ("unreadable_amount", "amount", {"amount": "inf"}, "inf"),
    ("negative_amount", "amount", {"amount": "-0.01"}, "-0.01"),
    ("inexact_amount", "amount", {"amount": "0.001"}, "0.001"),
    ("inexact_amount", "amount", {"amount": "1.5", "currency": "JPY"}, "1.5"),
    ("absurd_amount", "amount", {"amount": "10000000000.01"}, "10000000000.01"),
    ("absurd_amount", "amount", {"amount": "1e300"}, "1e300"),
    ("coordinate_out_of_range", "latitude", {"lat": "90.1"}, "90.1"),
    ("coordinate_out_of_range", "longitude", {"lon": "-180.1"}, "-180.1"),
    ("unreadable_number", "latitude", {"lat": "north"}, "north"),
    ("unreadable_number", "extra_size", {"size": "XL"}, "XL"),
    ("unreadable_number", "extra_size", {"size": "inf"}, "inf"),
    ("failed_expression", "extra_age", {"age": "old"}, None),
    ("card_number", "transaction_id", {"id": VISA}, "************1111"),
    ("card_number", "card_id", {"card": VISA}, "************1111"),
    ("card_number", "card_id", {"card": "4111-1111-1111-1111", "at": "nonsense"}, "************1111"),
    ("card_number", "merchant_id", {"shop": "378282246310005"}, "***********0005"),
    ("card_number", "device_id", {"device": "6304000000000000"}, "************0000"),
]


BAD_LABELS = [
    ("missing_id", "transaction_id", {"id": ""}, None),
    ("missing_source", "source", {"source": ""}, None),
    ("unknown_outcome", "outcome", {"outcome": "maybe"}, "maybe"),
    ("unreadable_time", "known_at", {"at": ""}, None),
    ("future_time", "known_at", {"at": "2999-01-01"}, "2999-01-01"),
    ("unknown_transaction", "transaction_id", {"id": "t9"}, "t9"),
    ("known_before_transaction", "known_at", {"at": "2023-12-31"}, "2023-12-31"),
    ("card_number", "transaction_id", {"id": VISA}, "************1111"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    """One ingest of all bad rows and labels after a good one: quarantine rows by stream and source row."""
    shop = Shop(tmp_path_factory.mktemp("refused"))
    shop.write("lab1.csv", [LABEL, *(LABEL | changes for _, _, changes, _ in BAD_LABELS)])
    report = shop.ingest(good(), *(good(id=f"b{n}") | bad[2] for n, bad in enumerate(BAD_ROWS)))
    assert (report.transactions.canonical, report.transactions.duplicates) == (1, 0)
    assert (report.labels.canonical, report.labels.duplicates) == (1, 0)
    assert report.transactions.quarantined_by_rule == dict(
        sorted(Counter(bad[0] for bad in BAD_ROWS).items())
    )
    return {(row["stream"], row["source_row"]): row for row in shop.rows("quarantine")}


@pytest.mark.parametrize("place", range(len(BAD_ROWS)), ids=[f"{b[0]}-{b[1]}-{b[3]}" for b in BAD_ROWS])
def test_a_bad_row_goes_to_quarantine(refused: dict[tuple[str, int], dict[str, Any]], place: int) -> None:
    rule, column, changes, value = BAD_ROWS[place]
    row = refused["transactions", place + 2]
    assert (row["rule"], row["column_name"], row["value"]) == (rule, column, value)
    assert row["source_file"] == "tx1.csv"
    assert row["message"]
    assert row["seen_at"] == NOW_MS
    if rule == "card_number":
        assert row["raw"] is None
    else:
        assert json.loads(row["raw"])["shop"] == (changes.get("shop", "s1") or None)


@pytest.mark.parametrize("place", range(len(BAD_LABELS)), ids=[bad[0] for bad in BAD_LABELS])
def test_a_bad_label_goes_to_quarantine(refused: dict[tuple[str, int], dict[str, Any]], place: int) -> None:
    rule, column, _, value = BAD_LABELS[place]
    row = refused["labels", place + 2]
    assert (row["source_file"], row["rule"], row["column_name"], row["value"]) == (
        "lab1.csv",
        rule,
        column,
        value,
    )


def test_every_row_is_counted_once_and_a_second_read_changes_nothing(shop: Shop) -> None:
    rows = [good(id=f"t{place}") | changes for place, (_, _, changes, _) in enumerate(BAD_ROWS, start=2)]
    labels = [LABEL, LABEL, *(LABEL | changes for _, _, changes, _ in BAD_LABELS)]
    shop.write("lab1.csv", labels)
    first = shop.ingest(good(), good(), good(amount="12.35"), *rows)
    assert first.transactions.rows_in == len(rows) + 3
    assert (first.transactions.canonical, first.transactions.duplicates) == (1, 1)
    assert first.transactions.quarantined == len(rows) + 1
    assert first.labels.rows_in == len(labels)
    assert (first.labels.canonical, first.labels.duplicates) == (1, 1)
    assert not first.is_unchanged
    state = shop.state()
    assert len(state["quarantine"]) == first.transactions.quarantined + first.labels.quarantined
    second = shop.ingest()
    assert second.is_unchanged
    assert second.transactions.duplicates == 2
    assert second.transactions.quarantined == second.transactions.already_quarantined == len(rows) + 1
    assert shop.state() == state


def test_no_file_of_the_warehouse_holds_a_card_number(shop: Shop) -> None:
    digits = VISA.replace(" ", "")
    broken = f"t8,2024-01-01,c1,s1,{digits}\n"
    shop.write(
        "tx1.csv", [good(card=VISA), good(id=digits), good(id="t3", at="x", kind=f"paid {VISA} 12/25")]
    )
    with (shop.source / "tx1.csv").open("a") as file:
        file.write(broken)
    report = shop.ingest()
    assert report.transactions.quarantined_by_rule == {
        "card_number": 2,
        "malformed_line": 1,
        "unreadable_time": 1,
    }
    for path in shop.warehouse.path.parent.iterdir():
        content = path.read_bytes()
        assert digits.encode() not in content
        assert VISA.encode() not in content
    raws = [row["raw"] for row in shop.rows("quarantine") if row["raw"]]
    assert any("************1111 12/25" in raw for raw in raws)


CARD_LIKE = [
    VISA,
    "4111111111111112",
    "4111-1111-1111-1111",
    "  4111111111111111--",
    "4222222222222",
    "422222222222",
    "6304000000000000000",
    "63040000000000000000",
    "0000000000000000",
    "4111x11111111111",
    "".join(chr(0xFF10 + int(digit)) for digit in "4111111111111111"),
    "4111.1111.1111.1111",
    "",
    "-------------",
    "1704067200007",
    *(str(10**15 + step * 7919) for step in range(40)),
]


@pytest.mark.parametrize("text", CARD_LIKE)
def test_sql_and_schema_agree_on_what_a_card_number_is(text: str) -> None:
    with duckdb.connect() as connection:
        row = connection.execute(f"SELECT {is_card_number('t')} FROM (SELECT ? AS t)", [text]).fetchone()
    assert row == (looks_like_card_number(text),)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nothing here", "nothing here"),
        ("4111111111111112", "4111111111111112"),
        (f"a {VISA} b 378282246310005", "a ************1111 b ***********0005"),
        ("at 1704067200006", "at 1704067200006"),
        ("4111111111111111 12", "************1111 12"),
    ],
)
def test_card_numbers_in_running_text_are_masked(text: str, masked: str) -> None:
    with duckdb.connect() as connection:
        query = f"SELECT {without_card_numbers('t')} FROM (SELECT ? AS t)"
        assert connection.execute(query, [text]).fetchone() == (masked,)


def test_which_copy_of_an_id_wins_is_settled(shop: Shop) -> None:
    """The canonical copy wins; among new ones the first by file and row, in whatever order they are read."""
    shop.write("tx2.csv", [good(id="t2", amount="2"), good(id="t1", amount="9")])
    shop.write("tx1.csv", [good(id="t3"), good(id="t2", amount="1"), good(id="t2", amount="1"), good()])
    report = shop.ingest()
    amounts = {row["transaction_id"]: row["amount_minor"] for row in shop.rows("transactions")}
    assert amounts == {"t1": 1234, "t2": 100, "t3": 1234}
    assert (report.transactions.duplicates, report.transactions.quarantined_by_rule) == (
        1,
        {"duplicate_id": 2},
    )
    shop.write("tx0.csv", [good(id="t2", amount="7")])
    report = shop.ingest()
    assert report.transactions.quarantined_by_rule == {"duplicate_id": 3}
    assert {row["transaction_id"]: row["amount_minor"] for row in shop.rows("transactions")} == amounts


def test_the_same_file_under_another_name_adds_nothing(shop: Shop) -> None:
    shop.ingest(good(), good(id="t2", amount="x"), good(id="", shop="s2"), good(id="", shop="s2"))
    state = shop.state()
    assert len(state["quarantine"]) == 3, "two equal bad rows of one file are two"
    (shop.source / "tx2.csv").write_bytes((shop.source / "tx1.csv").read_bytes())
    report = shop.ingest()
    assert report.is_unchanged
    assert (report.transactions.rows_in, report.transactions.duplicates) == (8, 5)
    assert shop.state() == state


def test_a_file_overwritten_by_another_day_keeps_the_earlier_bad_rows(shop: Shop) -> None:
    shop.ingest(good(), good(id="", shop="monday"))
    shop.ingest(good(), good(id="t5", shop="tuesday"))
    assert [json.loads(row["raw"])["shop"] for row in shop.rows("quarantine")] == ["monday"]


def test_a_corrected_row_leaves_quarantine(shop: Shop) -> None:
    shop.ingest(good(), good(id="t2", amount="x"))
    report = shop.ingest(good(), good(id="t2", amount="1"))
    assert (report.transactions.canonical, report.transactions.released) == (1, 1)
    assert shop.rows("quarantine") == []


def test_a_future_row_is_released_when_its_time_has_come(shop: Shop) -> None:
    first = shop.ingest(good(), now_ms=1_704_067_199_999)
    assert first.transactions.quarantined_by_rule == {"future_time": 1}
    later = shop.ingest(now_ms=NOW_MS)
    assert (later.transactions.canonical, later.transactions.released) == (1, 1)
    assert (later.labels.canonical, later.labels.released) == (1, 1)
    assert shop.rows("quarantine") == []


def test_a_label_is_released_when_its_transaction_arrives(shop: Shop) -> None:
    assert shop.ingest(good(id="t5")).labels.quarantined_by_rule == {"unknown_transaction": 1}
    shop.write("tx2.csv", [good()])
    report = shop.ingest()
    assert (report.labels.canonical, report.labels.released, report.labels.readmitted) == (1, 1, 0)
    assert shop.rows("quarantine") == []


def test_a_waiting_label_is_readmitted_without_its_file(shop: Shop) -> None:
    """Backfills read days in any order, and a label's file may be gone when its transaction arrives."""
    shop.ingest(good(id="t5"))
    shop.write("tx2.csv", [good()])
    shop.write("lab1.csv", [LABEL | {"id": "t5"}])
    report = shop.ingest()
    assert (report.labels.canonical, report.labels.released, report.labels.readmitted) == (1, 1, 1)
    assert sorted(row["transaction_id"] for row in shop.rows("labels")) == ["t1", "t5"]
    assert shop.rows("quarantine") == []
    assert shop.ingest().is_unchanged


def test_a_quarantined_row_takes_its_present_reason(shop: Shop) -> None:
    shop.ingest(good(id="t5"))
    shop.write("tx2.csv", [good(at="2024-03-01")])
    report = shop.ingest()
    assert report.labels.already_quarantined == 1
    assert [row["rule"] for row in shop.rows("quarantine")] == ["known_before_transaction"]


def test_days_take_only_their_rows_and_a_late_file_is_taken_in(shop: Shop) -> None:
    days = [good(id=f"d{day}", at=f"2024-01-0{day}T23:59:59.999Z") for day in (1, 2, 3)]
    shop.write("lab1.csv", [LABEL | {"id": "d1", "at": "2024-01-03"}])
    shop.write("tx1.csv", [*days, good(id="none", at="")])
    first = shop.ingest(days=(date(2024, 1, 2), date(2024, 1, 2)))
    assert (first.transactions.rows_in, first.transactions.canonical) == (2, 1)
    assert first.labels.rows_in == 0
    second = shop.ingest(days=(date(2024, 1, 1), date(2024, 1, 3)))
    assert (second.transactions.rows_in, second.transactions.canonical) == (4, 2)
    assert second.transactions.already_quarantined == 1
    assert second.labels.canonical == 1
    shop.write("tx2.csv", [good(id="late", at="2024-01-01")])
    late = shop.ingest(days=(date(2024, 1, 1), date(2024, 1, 1)))
    assert (late.transactions.rows_in, late.transactions.canonical) == (3, 1)
    assert len(shop.rows("transactions")) == 4
    assert len(shop.rows("quarantine")) == 1
    with pytest.raises(SettingsError, match="the first day must not lie after the last"):
        shop.ingest(days=(date(2024, 1, 2), date(2024, 1, 1)))


def test_times_in_text(shop: Shop) -> None:
    times = {
        "2024-01-01": 1_704_067_200_000,
        "2024-01-01 02:00:00": 1_704_074_400_000,
        "2024-01-01T02:00:00+02:00": 1_704_067_200_000,
        "2024-01-01T00:00:00.1239Z": 1_704_067_200_123,
        "1704067200123": 1_704_067_200_123,
        " 1704067200123.0 ": 1_704_067_200_123,
    }
    shop.ingest(*(good(id=text, at=text) for text in times))
    taken = {row["transaction_id"]: row["event_time"] for row in shop.rows("transactions")}
    assert taken == {text.strip(): expected for text, expected in times.items()}


def test_amounts_are_exact(shop: Shop) -> None:
    amounts = {
        ("0", "EUR"): 0,
        ("0.30000000000000004", "EUR"): 30,
        ("1108.8500000000001", "eur"): 110_885,
        ("1500", "JPY"): 1500,
        ("1.234", "KWD"): 1234,
        ("10000000000", "EUR"): AMOUNT_MINOR_MAX,
    }
    shop.ingest(*(good(id=amount, amount=amount, currency=currency) for amount, currency in amounts))
    taken = {row["transaction_id"]: row["amount_minor"] for row in shop.rows("transactions")}
    assert taken == {amount: minor for (amount, _), minor in amounts.items()}


def parquet(path: Path, at: str, amount: str = "DOUBLE") -> None:
    """Two transactions, 7 and 8, with `at` as their time and amounts of the type `amount`."""
    with duckdb.connect() as connection:
        connection.execute(
            f"""
COPY (SELECT CAST(id AS BIGINT) AS id, {at} AS at, 5 AS card, 'sh' AS shop, price::{amount} AS amount,
    'EUR' AS currency, NULL AS device, 'k' AS kind, 'nan'::DOUBLE AS lat, 3.5::FLOAT AS lon, 20 AS age,
    NULL::INTEGER AS size FROM (VALUES (7, 57.16), (8, 0.07)) prices(id, price)) TO '{path}'"""
        )


@pytest.mark.parametrize(
    ("at", "amount"),
    [
        ("TIMESTAMP '2024-01-01 00:00:00.5'", "DOUBLE"),
        ("TIMESTAMPTZ '2024-01-01 02:00:00.5+02'", "FLOAT"),
        ("TIMESTAMP_NS '2024-01-01 00:00:00.5'", "DECIMAL(10, 2)"),
        ("1704067200500::BIGINT", "VARCHAR"),
        ("1704067200500::DOUBLE", "DOUBLE"),
        ("'2024-01-01T00:00:00.5'", "DOUBLE"),
    ],
)
def test_parquet_types(shop: Shop, at: str, amount: str) -> None:
    parquet(shop.source / "tx1.parquet", at, amount)
    assert shop.ingest().transactions.canonical == 2
    rows = shop.rows("transactions", "transaction_id, event_time, card_id, amount_minor, latitude, longitude")
    assert [tuple(row.values()) for row in rows] == [
        ("7", 1_704_067_200_500, "5", 5716, None, 3.5),
        ("8", 1_704_067_200_500, "5", 7, None, 3.5),
    ]


def test_parquet_and_csv_files_are_read_together(shop: Shop) -> None:
    parquet(shop.source / "tx2.parquet", "1704067200500")
    report = shop.ingest(good(), good(id="7", amount="1"))
    assert report.transactions.canonical == 3
    (refused,) = shop.rows("quarantine")
    assert (refused["source_file"], refused["source_row"], refused["rule"]) == (
        "tx2.parquet",
        1,
        "duplicate_id",
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_dialects(shop: Shop, delimiter: str) -> None:
    frame = pd.DataFrame([good(kind='say "hi", twice'), good(id="t2", kind="two\nlines")])
    frame.to_csv(shop.source / "tx1.csv.gz", index=False, sep=delimiter, encoding="utf-8-sig")
    assert shop.ingest().transactions.canonical == 2
    kinds = {row["transaction_id"]: row["category"] for row in shop.rows("transactions")}
    assert kinds == {"t1": 'SAY "HI", TWICE', "t2": "TWO\nLINES"}


def test_csv_columns_may_come_in_another_order_or_number(shop: Shop) -> None:
    shop.write("tx2.csv", [{"note": "new", **dict(reversed(good(id="t2").items()))}])
    assert shop.ingest(good()).transactions.canonical == 2


def test_lines_that_fit_no_header_are_quarantined(shop: Shop) -> None:
    path = shop.write("tx1.csv", [good()])
    with path.open("ab") as file:
        file.write(b"t2,2024-01-01,c1\n" + b"t3," * 20 + b"\n" + b"t4,\xff\xfe,c1,s1,1,EUR,,,,,,\n")
    for _ in range(2):
        report = shop.ingest()
        assert (report.transactions.rows_in, report.transactions.duplicates) == (
            4,
            report.transactions.duplicates,
        )
        assert report.transactions.quarantined_by_rule == {"malformed_line": 3}
    assert report.is_unchanged
    assert [json.loads(row["raw"])["line"][:2] for row in shop.rows("quarantine")] == ["t2", "t3", "t4"]


def test_malformed_lines_count_as_rows(shop: Shop) -> None:
    """Not the header, nor a blank line; a row of several lines is one. A file without any is as it was."""
    path = shop.write("tx1.csv", [good(id="t1")])
    header, row = path.read_text().splitlines()

    def line(name: str, **changes: str) -> str:
        return ",".join((good(id=name) | changes).values())

    lines = [header, row, "m2", "m3", "", line("r4", amount="x"), "", line("r5", kind='"two\n\nlines"')]
    lines += ["m6", line("r7", amount="x"), line("r8"), '"m"9,', line("r10", amount="x"), "", '"m"11,', "m12"]
    path.write_text("\n".join(lines) + "\n")
    shop.write("tx2.csv", [good(id="u1"), good(id="u2", amount="x")])
    report = shop.ingest()
    assert (report.transactions.rows_in, report.transactions.canonical) == (14, 4)
    found = {(row["source_file"], row["source_row"], row["rule"]) for row in shop.rows("quarantine")}
    malformed, refused = (2, 3, 6, 9, 11, 12), (4, 7, 10)
    assert found == {
        *(("tx1.csv", n, "malformed_line") for n in malformed),
        *(("tx1.csv", n, "unreadable_amount") for n in refused),
        ("tx2.csv", 2, "unreadable_amount"),
    }
    raws = [json.loads(row["raw"]) for row in shop.rows("quarantine") if row["rule"] == "malformed_line"]
    assert [raw["line"] for raw in raws] == ["m2", "m3", "m6", '"m"9,', '"m"11,', "m12"]


def spoil_quote(path: Path) -> None:
    path.write_text(path.read_text() + '"t2,2024-01-01\nt3,2024-01-01\n')


def drop_column(path: Path) -> None:
    pd.read_csv(path).drop(columns="amount").to_csv(path, index=False)


def header_only(path: Path) -> None:
    path.write_text(path.read_text().splitlines()[0] + "\n")


SPOILERS: list[tuple[Callable[[Path], Any], str]] = [
    (Path.unlink, "no file of transactions matches tx\\*"),
    (lambda path: path.write_bytes(b""), "tx1.csv is empty \\(0 bytes\\)"),
    (header_only, "tx1.csv is empty \\(columns, but no"),
    (drop_column, "tx1.csv has no column 'amount', which mapping 'shop', transactions.amount"),
    (spoil_quote, "tx1.csv: line 3 opens a quote and never closes it"),
    (lambda path: path.write_text("id,id\n1,2\n"), "must name every column, each once"),
    (lambda path: path.write_text("id,,x\n1,2,3\n"), "must name every column, each once"),
    (lambda path: path.write_bytes(b"\xff\xfe\n"), "is not CSV in UTF-8"),
    (lambda path: path.rename(path.with_suffix(".parquet")), "tx1.parquet is not a readable parquet file"),
    (lambda path: path.rename(path.with_suffix(".json")), "tx1.json: neither parquet nor CSV"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILERS, ids=[message for _, message in SPOILERS])
def test_a_broken_source_stops_before_anything_is_written(
    shop: Shop, spoil: Callable[[Path], Any], message: str
) -> None:
    shop.write("tx0.csv", [good()])
    shop.ingest()
    state = shop.state()
    (shop.source / "tx0.csv").unlink()
    spoil(shop.write("tx1.csv", [good(id="new")]))
    with pytest.raises(SourceError, match=message):
        shop.ingest()
    assert shop.state() == state


def test_one_of_many_files_that_lacks_a_column_is_named(shop: Shop) -> None:
    drop_column(shop.write("tx2.csv", [good(id="t2")]))
    with pytest.raises(SourceError, match=r"tx2\.csv has no column 'amount'"):
        shop.ingest(good())
    assert not shop.warehouse.exists("ingest.transactions")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("lower(kind", "is not valid SQL"),
        ("no_such_function(kind)", "is not valid SQL"),
        ("kind), (kind", "does not fit|is not valid SQL|more than one"),
        ("kind)) ; DROP TABLE x; SELECT ((1", "more than one SQL expression|is not valid SQL"),
        ("(SELECT 1)", "does not fit|is not valid SQL"),
    ],
)
def test_an_expression_that_is_none_is_refused(tmp_path: Path, expression: str, message: str) -> None:
    shop = Shop(tmp_path, MAPPING.replace("upper(kind)", json.dumps(expression)))
    with pytest.raises(MappingError, match=message):
        shop.ingest(good())
    assert not shop.warehouse.path.exists()


def test_a_bare_word_that_is_no_column_is_explained(tmp_path: Path) -> None:
    shop = Shop(tmp_path, MAPPING.replace("currency: currency", "currency: EUR"))
    with pytest.raises(SourceError, match=r"no column 'EUR'.*a constant is written in quotes"):
        shop.ingest(good())


def test_the_source_may_be_a_file_a_folder_or_a_glob(shop: Shop, tmp_path: Path) -> None:
    both = tmp_path / "both.csv"
    pd.DataFrame([{**GOOD, **LABEL, "at": "2024-02-01"}]).to_csv(both, index=False)
    report = shop.warehouse.ingest(shop.mapping, both, NOW_MS)
    assert (report.transactions.canonical, report.labels.canonical) == (1, 1)
    assert shop.warehouse.ingest(shop.mapping, tmp_path / "bo*.csv", NOW_MS).is_unchanged
    with pytest.raises(SourceError, match="does not exist: give a folder, a file or a glob"):
        shop.warehouse.ingest(shop.mapping, tmp_path / "nowhere", NOW_MS)


def test_a_killed_ingest_leaves_the_warehouse_as_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.ingest(good())
    state = shop.state()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fraud_platform.adapters.duckdb_ingest.readmit_waiting_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        shop.ingest(good(), good(id="t2"), good(id="t3", amount="x"))
    assert shop.state() == state
    monkeypatch.undo()
    report = shop.ingest()
    assert (report.transactions.canonical, report.transactions.quarantined) == (1, 1)


def test_a_mapping_with_other_extras_needs_another_warehouse(shop: Shop) -> None:
    shop.ingest(good())
    shop.mapping = Mapping.from_yaml(MAPPING.replace("size: {", "weight: {"), "shop.yaml")
    with pytest.raises(MappingError, match="differ in the columns of transactions: extra_size, extra_weight"):
        shop.ingest()


def test_an_expression_shared_by_two_columns_cannot_stop_the_batch(tmp_path: Path) -> None:
    """DuckDB's common-subexpression optimizer lifts the shared cast out of both TRYs."""
    mapping = MAPPING.replace("{expression: size", "{expression: CAST(age AS INTEGER) * 2")
    shop = Shop(tmp_path, mapping)
    report = shop.ingest(good(age="1"), good(id="t2", age="old"))
    assert report.transactions.quarantined_by_rule == {"failed_expression": 1}


def test_a_label_filter_that_fails_on_a_row_is_not_silent(tmp_path: Path) -> None:
    mapping = MAPPING.replace("files: lab*", "files: lab*\n  where: CAST(flag AS INTEGER) = 1")
    shop = Shop(tmp_path, mapping)
    shop.write("lab1.csv", [LABEL | {"flag": flag} for flag in ("1", "0", "", "x")])
    report = shop.ingest(good())
    assert (report.labels.rows_in, report.labels.canonical) == (2, 1)
    assert report.labels.quarantined_by_rule == {"failed_expression": 1}


def test_warehouse_helpers(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "w.duckdb")
    assert not warehouse.exists("monitor.decisions")
    assert warehouse.count("monitor.decisions") == 0
    with pytest.raises(SourceError, match="run ingest first"):
        warehouse.frame("SELECT 1")
    frame = pd.DataFrame({"name": ["a", None], "n": [1, 2]})
    for rows in (frame, frame.head(1)):
        assert warehouse.write_table("monitor.decisions", rows) == len(rows)
        assert warehouse.count("monitor.decisions") == len(rows)
    answer = warehouse.frame("SELECT name FROM monitor.decisions WHERE n = $n", {"n": 1})
    assert answer["name"].tolist() == ["a"]
    with pytest.raises(SettingsError, match="give it as schema"):
        warehouse.count("decisions; DROP TABLE x")
    with warehouse.connect() as connection:
        connection.begin()
        connection.execute("DELETE FROM monitor.decisions")
    assert warehouse.count("monitor.decisions") == 1, "what is not committed is rolled back"


HOLD = """
import sys, duckdb
with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("read_only", [True, False])
def test_a_warehouse_that_another_process_holds_is_named(shop: Shop, read_only: bool) -> None:
    shop.ingest(good())
    command = [sys.executable, "-c", HOLD, str(shop.warehouse.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(SourceError, match=r"another run is using the warehouse .*wait for it") as held,
            shop.warehouse.connect(read_only=read_only),
        ):
            pass
        holder.communicate()
    assert isinstance(held.value.__cause__, duckdb.IOException)
    assert shop.warehouse.count("ingest.transactions") == 1


def test_a_table_that_is_not_there_yet_is_named(shop: Shop) -> None:
    with pytest.raises(SourceError, match="no warehouse"):
        shop.warehouse.frame("SELECT 1")
    assert not shop.warehouse.path.parent.exists(), "reading creates nothing"
    shop.warehouse.write_table("other.table", pd.DataFrame({"n": [1]}))
    for table in ("training.training_set", '"training"."training_set"', "other.training_set"):
        name = table.replace('"', "")
        with pytest.raises(SourceError, match=rf"^table {name} is not there yet") as missing:
            shop.warehouse.frame(f"SELECT * FROM {table} WHERE true")
        assert isinstance(missing.value.__cause__, duckdb.CatalogException)
    with pytest.raises(duckdb.CatalogException, match="no_such_function"):
        shop.warehouse.frame("SELECT no_such_function(1)")
