"""The rules that a source row must hold, each a named SQL predicate that is true where it is broken.

The first broken rule names the reason in quarantine, so their order is part of the meaning: card numbers come
first, so that no other rule ever stores one.
"""

from __future__ import annotations

from dataclasses import dataclass

from fraud_platform.ingest.mapping import Mapping
from fraud_platform.ingest.sql import is_card_number, is_given, literal, text
from fraud_platform.schema import AMOUNT_MINOR_MAX, CURRENCY_EXPONENTS, ID_COLUMNS

EARLIEST_TIME_MS = 315_532_800_000
"""1980-01-01 UTC: an earlier time is most likely seconds that were taken for milliseconds."""

_COORDINATES = {"latitude": 90, "longitude": 180, "home_latitude": 90, "home_longitude": 180}
_ABSURD_AMOUNT = 10 * AMOUNT_MINOR_MAX


@dataclass(frozen=True)
class Rule:
    """`predicate` is true for a row that breaks the rule in `column`; `message` says what must hold."""

    name: str
    column: str
    predicate: str
    message: str


CARD_NUMBER = "card_number"
UNKNOWN_TRANSACTION = "unknown_transaction"
CONFLICT = Rule(
    "duplicate_id",
    "transaction_id",
    "",
    "this transaction_id is canonical already with other content; the first copy stays: correct the source",
)
MALFORMED = Rule(
    "malformed_line", "", "", "the line does not fit the file's header or is not UTF-8: correct the source"
)


def currency_list(exponent: int | None = None) -> str:
    """ISO 4217 codes as a SQL list: all, or those of one exponent."""
    codes = [code for code, digits in CURRENCY_EXPONENTS.items() if exponent in (None, digits)]
    return "(" + ", ".join(map(literal, codes)) + ")"


def raw(column: str) -> str:
    """The column that holds what the mapping's expression gave, before it is made canonical."""
    return f'"raw_{column}"'


def _card_numbers(columns: tuple[str, ...]) -> list[Rule]:
    message = "looks like a raw card number, which is never taken in: give an opaque token instead"
    return [Rule(CARD_NUMBER, column, is_card_number(column), message) for column in columns]


def _missing_ids(columns: tuple[str, ...]) -> list[Rule]:
    return [Rule("missing_id", column, f"{column} IS NULL", f"{column} is required") for column in columns]


def _times(column: str, now_ms: int) -> list[Rule]:
    readable = "a timestamp, ISO 8601 text or ms since 1970 UTC"
    return [
        Rule("unreadable_time", column, f"{column} IS NULL", f"{column} is required, as {readable}"),
        Rule("future_time", column, f"{column} > {now_ms}", f"{column} lies after the moment of ingestion"),
        Rule(
            "absurd_time",
            column,
            f"{column} < {EARLIEST_TIME_MS}",
            f"{column} lies before 1980; whole numbers are ms, not seconds, since 1970 UTC",
        ),
    ]


def _amounts(column: str) -> list[Rule]:
    as_double = f"TRY_CAST({text(raw(column))} AS DOUBLE)"
    # Only a value that is no decimal is read again, as one that may be too large for a decimal.
    too_large = (
        f"CASE WHEN __amount IS NULL THEN isfinite({as_double}) AND abs({as_double}) > {_ABSURD_AMOUNT} "
        f"ELSE abs(__amount) > {_ABSURD_AMOUNT} END"
    )
    maximum = f"{column} is more than {AMOUNT_MINOR_MAX} minor units"
    return [
        Rule("absurd_amount", column, too_large, maximum),
        Rule("unreadable_amount", column, "__amount IS NULL", f"{column} is required, as a number"),
        Rule("negative_amount", column, "__amount < 0", f"{column} must be 0 or more"),
        Rule(
            "inexact_amount",
            column,
            "amount_minor IS NULL",
            f"{column} is no whole number of the currency's minor unit: round it in the mapping",
        ),
        Rule("absurd_amount", column, f"amount_minor > {AMOUNT_MINOR_MAX}", maximum),
    ]


def _numbers(columns: list[str]) -> list[Rule]:
    return [
        Rule(
            "unreadable_number",
            column,
            f"CASE WHEN {column} IS NULL THEN {is_given(raw(column))} ELSE false END",
            f"{column} must be a finite number, or empty",
        )
        for column in columns
    ]


def _coordinates(columns: list[str]) -> list[Rule]:
    return [
        Rule(
            "coordinate_out_of_range",
            column,
            f"abs({column}) > {_COORDINATES[column]}",
            f"{column} must lie within {_COORDINATES[column]} degrees",
        )
        for column in columns
    ]


def failed_expressions(columns: list[str]) -> list[Rule]:
    """Optional values whose expression raised: without this they would pass as missing."""
    return [
        Rule("failed_expression", c, f'"failed_{c}"', f"the mapping's expression for {c} fails on this row")
        for c in columns
    ]


def transaction_rules(mapping: Mapping, now_ms: int, can_fail: list[str]) -> tuple[Rule, ...]:
    """Rules of one transaction row, in order. can_fail: optional columns that have a `failed_` flag."""
    given = mapping.transactions.columns
    amount = "amount" if "amount" in given else "amount_minor"
    coordinates = [column for column in _COORDINATES if column in given]
    numeric_extras = [extra.column.name for extra in mapping.extras if extra.type == "numeric"]
    return (
        *_card_numbers(tuple(column for column in ID_COLUMNS if column in given)),
        *_missing_ids(("transaction_id", "card_id", "merchant_id")),
        *_times("event_time", now_ms),
        Rule(
            "unknown_currency",
            "currency",
            f"currency IS NULL OR currency NOT IN {currency_list()}",
            "currency is required, as an ISO 4217 code",
        ),
        *_amounts(amount),
        *_numbers(coordinates + numeric_extras),
        *_coordinates(coordinates),
        *failed_expressions(can_fail),
    )


def label_rules(now_ms: int, can_fail: list[str]) -> tuple[Rule, ...]:
    """Rules of one label row, in order; `__event_time` is its transaction's, NULL where there is none."""
    return (
        *_card_numbers(("transaction_id",)),
        *failed_expressions(can_fail),
        *_missing_ids(("transaction_id",)),
        Rule("missing_source", "source", "source IS NULL", "source is required: who says so"),
        Rule(
            "unknown_outcome",
            "outcome",
            "outcome IS NULL OR outcome NOT IN ('fraud', 'legitimate')",
            "outcome must be fraud or legitimate",
        ),
        *_times("known_at", now_ms),
        Rule(
            UNKNOWN_TRANSACTION,
            "transaction_id",
            "__event_time IS NULL",
            "no such transaction is canonical; the label waits here until it arrives",
        ),
        Rule(
            "known_before_transaction",
            "known_at",
            "known_at < __event_time",
            "known_at lies before the transaction's event_time",
        ),
    )
