"""What looks like a card number, wherever it stands: the whole of a value, or a part of a longer text.

The whole of a value is refused by `schema.looks_like_card_number`, as in ingest: 13 to 19 digits that pass
the Luhn check. One random number in ten does, so within a longer text digits must also have a card network's
prefix and length, and begin and end where digits or groups of digits do. Text of 32 or more hexadecimal
digits with a letter among them, UUIDs, and 16 or more that stand alone with two letters are taken as opaque:
of SHA-256 hashes in hexadecimal one in some 2,500 would be refused by chance otherwise, and its card with it
for ever. Base32, base62 and base64 have too few digits for that.

Belongs here: the question, and what is shown instead. Does not belong here: which fields are asked
(`requests`).
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate

from fraud_platform.schema import looks_like_card_number

HIDDEN = "(hidden: may be a card number)"
DIGITS_MIN, DIGITS_MAX = 13, 19

many_digits = re.compile(r"\d(?:[\W_]*\d){12,}").search
"""The cheap question: 13 or more digits and no letter between them."""

_RUNS = re.compile(r"\d(?:[\W_]*\d){12,}")
_GROUPS = re.compile(r"\d+")
_OPAQUE = re.compile(
    r"(?<![0-9a-fA-F])(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9a-fA-F])"
    r"|(?=[0-9]*[a-fA-F])[0-9a-fA-F]{32,})"
    r"|(?<![0-9a-zA-Z])(?=(?:[0-9]*[a-fA-F]){2})[0-9a-fA-F]{16,}(?![0-9a-zA-Z])"
)
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11,16}|3095\d{10,15}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
    r"|(?:50|5[6-8]|6\d)\d{11,17}"  # Maestro, Discover, UnionPay, RuPay
    r"|8[12]\d{14,17}"  # UnionPay, RuPay
    r"|220[0-4]\d{12,15}"  # Mir
    r"|9792\d{12}"  # Troy
)


def holds_card_number(text: str) -> bool:
    """Whether a text is a card number, or has one within.

    >>> holds_card_number("card 4111.1111.1111.1111, exp 12/27"), holds_card_number("tx-4111111111111111")
    (True, True)
    >>> holds_card_number("2026-11-24 10:00:00.123"), holds_card_number("a1b2" * 16)
    (False, False)
    """
    if len(text) < DIGITS_MIN:
        return False
    plain = text if text.isascii() else _ascii_digits(text)
    if not many_digits(plain):
        return False
    return looks_like_card_number(plain) or any(map(_holds_issued, _RUNS.findall(_OPAQUE.sub("x", plain))))


def may_be_shown(value: str | float) -> bool:
    """Whether an error may repeat a value. Stricter than what is refused: among more digits than a card
    number has, one can stand anywhere, so that nothing of 13 digits is repeated but moments in ms."""
    if isinstance(value, str):
        return not many_digits(value if value.isascii() else _ascii_digits(value))
    return not abs(value) >= 10 ** (DIGITS_MIN - 1) or _is_moment(value)


def is_card_number(value: float) -> bool:
    """The same of a number. Thirteen digits that begin with 1 are a moment in ms: no network issues such."""
    if value != value or not 10 ** (DIGITS_MIN - 1) <= abs(value) < 10**DIGITS_MAX or value % 1:
        return False
    return not _is_moment(value) and looks_like_card_number(str(abs(int(value))))


def _is_moment(value: float) -> bool:
    return 10**12 <= value < 2 * 10**12


def _holds_issued(run: str) -> bool:
    groups = _GROUPS.findall(run)
    for start in range(len(groups)):
        for number in accumulate(groups[start : start + DIGITS_MAX]):
            if len(number) > DIGITS_MAX:
                break
            if _ISSUED.fullmatch(number) and looks_like_card_number(number):
                return True
    return False


def _ascii_digits(text: str) -> str:
    """Every digit of any script as one of ASCII; compatible forms (full width, circled) as plain ones."""
    normal = unicodedata.normalize("NFKC", text)
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in normal)
