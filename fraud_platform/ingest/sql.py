"""Small pieces of SQL text that the plan is made of.

Belongs here: quoting, cleaning, reading and masking of one value, as DuckDB SQL.
Does not belong here: knowledge of streams, columns or rules, and anything that executes SQL.
"""

from __future__ import annotations

CARD_NUMBER_DIGITS_MAX = 19
# Digits in one run, in groups of four, and with any spaces or hyphens between.
_CARD_NUMBER_SHAPES = ("[0-9]{13,19}", "[0-9]{4}(?:[ -][0-9]{4}){3}", "[0-9](?:[ -]*[0-9]){12,18}")
_WHITESPACE = r"e' \t\n\r\f\v'"
_TIMESTAMPS = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "DATE")
_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_INTEGERS = _SIGNED + tuple(f"U{name}" for name in _SIGNED)


def identifier(name: str) -> str:
    """A quoted identifier.

    >>> identifier('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted string.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def text(value: str) -> str:
    """`value` as trimmed text; empty text is NULL."""
    return f"nullif(trim(CAST({value} AS VARCHAR), {_WHITESPACE}), '')"


def moment_ms(value: str, type_name: str) -> str:
    """`value` of a DuckDB type as ms since 1970 UTC, NULL where it cannot be read.

    Naive timestamps and text without an offset are UTC; whole numbers, and text of digits only, are ms
    already. The session's time zone must be UTC.
    """
    if type_name in _TIMESTAMPS:
        return f"TRY(epoch_us({value}) // 1000)"
    if type_name in _INTEGERS:
        return f"TRY_CAST({value} AS BIGINT)"
    cleaned = text(value)
    return (
        f"CASE WHEN regexp_full_match({cleaned}, '-?[0-9]+(\\.0+)?') THEN TRY_CAST({cleaned} AS BIGINT) "
        f"ELSE TRY(epoch_us(TRY_CAST({cleaned} AS TIMESTAMPTZ)) // 1000) END"
    )


def exact_decimal(value: str) -> str:
    """`value` as DECIMAL(28, 6). A binary float passes through its shortest text, so 57.16 stays 57.16."""
    return f"TRY_CAST({text(value)} AS DECIMAL(28, 6))"


def finite_double(value: str, type_name: str) -> str:
    """`value` of a DuckDB type as DOUBLE; NaN is a missing value, infinity cannot be read."""
    is_number = type_name in ("DOUBLE", "FLOAT", *_INTEGERS)
    number = f"TRY_CAST({value if is_number else text(value)} AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


def is_given(value: str) -> str:
    """Something stands there: not NULL, not empty, not a NaN."""
    return f"({text(value)} IS NOT NULL AND lower({text(value)}) <> 'nan')"


def _luhn_sum(digits: str) -> str:
    """Luhn sum: from the right, every second digit is doubled, and a doubled digit above 9 loses 9."""
    digit = f"CAST(reverse({digits})[place + 1] AS INTEGER)"
    doubled = f"2 * {digit} - CASE WHEN {digit} > 4 THEN 9 ELSE 0 END"
    term = f"CASE WHEN place % 2 = 0 THEN {digit} ELSE {doubled} END"
    return f"list_sum(list_transform(range(length({digits})), lambda place: {term}))"


def is_card_number(value: str) -> str:
    """The same answer as `schema.looks_like_card_number`, for a VARCHAR `value`; NULL is no card number.

    The regular expression is cheap and turns nearly every id away; only what passes is summed.
    """
    digits = f"regexp_replace({value}, '[ -]', '', 'g')"
    summed = (
        f"CASE WHEN length({digits}) BETWEEN 13 AND 19 THEN ({_luhn_sum(digits)}) % 10 = 0 ELSE false END"
    )
    digits_only = f"CASE WHEN regexp_full_match({value}, '[0-9 -]+') THEN {summed} ELSE false END"
    return f"CASE WHEN length({value}) >= 13 THEN {digits_only} ELSE false END"


def last_four(value: str) -> str:
    """A card number with all but its last four digits hidden."""
    digits = f"regexp_replace({value}, '[ -]', '', 'g')"
    return f"repeat('*', length({digits}) - 4) || right({digits}, 4)"


def without_card_numbers(value: str) -> str:
    """Text in which everything that looks like a card number shows its last four digits only.

    Thirteen digits that begin with 1 stay: they are a moment in ms (2001 to 2033), and no card network
    issues such numbers.
    """
    found = ", ".join(f"regexp_extract_all({value}, '{shape}')" for shape in _CARD_NUMBER_SHAPES)
    hits = (
        f"list_filter(list_distinct(flatten([{found}])), "
        f"lambda hit: NOT regexp_full_match(hit, '1[0-9]{{12}}') AND {is_card_number('hit')})"
    )
    masked = f"list_reduce({hits}, lambda done, hit: replace(done, hit, {last_four('hit')}), {value})"
    return f"CASE WHEN regexp_matches({value}, '(?:[0-9][ -]*){{13}}') THEN {masked} ELSE {value} END"
