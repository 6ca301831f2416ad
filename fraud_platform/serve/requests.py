"""From bytes to a valid transaction or label event, or to one error that names field, value and rule.

Belongs here: decoding, the rules of every field, what may be echoed.
Does not belong here: HTTP, and what to do with a valid request (`decider`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from fraud_platform.errors import RequestError
from fraud_platform.schema import (
    AMOUNT_MINOR_MAX,
    CURRENCY_EXPONENTS,
    LABEL_COLUMNS,
    TRANSACTION_COLUMNS,
    LabelEvent,
    Transaction,
)
from fraud_platform.serve.card_numbers import (
    HIDDEN,
    holds_card_number,
    is_card_number,
    many_digits,
    may_be_shown,
)

TEXT_LENGTH_MAX = 256
ECHO_LENGTH_MAX = 64
FUTURE_TOLERANCE_MS = 300_000
"""A request may be this far ahead of the service's clock: clocks differ."""
EARLIEST_TIME_MS = 315_532_800_000
"""1980-01-01 UTC, as in ingest: an earlier time is most likely seconds that were taken for milliseconds."""
BATCH_MAX = 100
"""Transactions in one request."""
LABEL_BATCH_MAX = 1_000

TEXT_FIELDS = tuple(column.name for column in TRANSACTION_COLUMNS if column.type == "VARCHAR")
LABEL_TEXT_FIELDS = ("transaction_id", "source")
REQUIRED_TEXT = tuple(
    c.name for c in (*TRANSACTION_COLUMNS, *LABEL_COLUMNS) if c.type == "VARCHAR" and c.is_required
)
COORDINATES = {"latitude": 90.0, "longitude": 180.0, "home_latitude": 90.0, "home_longitude": 180.0}

BUNDLE_ID_MIN = 16

Request = bytes | Mapping[str, Any]
Event = TypeVar("Event", Transaction, LabelEvent)
Kind = TypeVar("Kind", bound=msgspec.Struct)

WHITE_SPACE = " \t\n\r\f\v"

NO_CARD_NUMBER = (
    "must be an opaque token or plain text, never a card number: tokenise it; a number of your own that only "
    "looks like one needs a letter among its digits, so that fewer than 13 stand together"
)

_BUNDLE_ID = re.compile(f"[0-9a-f]{{{BUNDLE_ID_MIN},64}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH = re.compile(r" - at `\$\.?(.+)`$")
_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`", re.DOTALL)
_MISSING_FIELD = re.compile(r"missing required field `(.*)`")
_transaction_texts = attrgetter(*TEXT_FIELDS)
_label_texts = attrgetter(*LABEL_TEXT_FIELDS)


class TransactionBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    transactions: list[msgspec.Raw]


class LabelBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: list[msgspec.Raw]


class BundleWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle that the service is to go on with, by its id or the first digits of it."""

    id: str


def parse_transaction(request: Request, now_ms: int, extras: frozenset[str] = frozenset()) -> Transaction:
    """A valid transaction, empty text turned into None. RequestError names the first field that is wrong.

    now_ms: the service's clock, which event_time may not pass; extras: names of extra inputs that are known.
    """
    transaction = _trimmed(_decode(request, Transaction))
    _check_texts(TEXT_FIELDS, _transaction_texts(transaction))
    _check_money(transaction)
    _check_time("event_time", transaction.event_time, now_ms)
    for field, limit in COORDINATES.items():
        value = getattr(transaction, field)
        _require(value is None or -limit <= value <= limit, field, value, f"must be from -{limit} to {limit}")
    for name, extra in transaction.extras.items():
        _check_extra(name, extra, extras)
    return transaction


def parse_label(request: Request, now_ms: int) -> LabelEvent:
    """A valid label event. RequestError names the first field that is wrong."""
    event = _trimmed(_decode(request, LabelEvent))
    _check_texts(LABEL_TEXT_FIELDS, _label_texts(event))
    _check_time("known_at", event.known_at, now_ms)
    return event


def parse_batch(body: bytes) -> list[bytes]:
    """The transactions of a batch, each as it was sent: each is valid or not on its own."""
    return _items("transactions", _decode(body, TransactionBatch).transactions, BATCH_MAX)


def parse_label_batch(body: bytes) -> list[bytes]:
    """As `parse_batch`, of label events."""
    return _items("labels", _decode(body, LabelBatch).labels, LABEL_BATCH_MAX)


def parse_bundle_id(body: bytes) -> str:
    """The id of the bundle that is wanted."""
    wanted = _decode(body, BundleWanted).id
    rule = f"must be the id of a bundle: {BUNDLE_ID_MIN} to 64 hexadecimal digits in lower case"
    _require(bool(_BUNDLE_ID.fullmatch(wanted)), "id", wanted, rule)
    return wanted


def check_known_after(event: LabelEvent, event_time: int) -> None:
    """Nothing is known of a transaction before it happened; ingest quarantines such a row too."""
    rule = f"lies before the transaction's event_time, {event_time}: a date alone needs the end of its day"
    _require(event.known_at >= event_time, "known_at", event.known_at, rule)


def canonical(event: Transaction | LabelEvent) -> bytes:
    """The one JSON of an event: what two requests are compared by, and what the log keeps."""
    return msgspec.json.encode(event, order="sorted")


def _items(field: str, items: list[msgspec.Raw], most: int) -> list[bytes]:
    _require(1 <= len(items) <= most, field, None, f"must have from 1 to {most} items, and has {len(items)}")
    return [bytes(item) for item in items]


def _decode(request: Request, kind: type[Kind]) -> Kind:
    try:
        if isinstance(request, bytes):
            return msgspec.json.decode(request, type=kind)
        return msgspec.convert(request, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), request) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("body", None, "must be one JSON object in UTF-8") from None


def _refusal(message: str, request: Request) -> RequestError:
    """Turn a decoder's message into field, value and rule, and echo nothing that looks like a card."""
    at = _PATH.search(message)
    rule = message[: at.start()] if at else message
    for pattern, said in ((_UNKNOWN_FIELD, "is not a field"), (_MISSING_FIELD, "is required")):
        named = pattern.search(rule)
        if named:
            return RequestError(_shown(named.group(1)), None, said)
    field = at.group(1) if at else "body"
    if rule.startswith("Invalid enum value"):  # which the decoder would repeat
        rule = "must be one of the values that the schema names"
    return RequestError(_shown(field), _shown(_value_at(field, request)), rule[:1].lower() + rule[1:])


def _value_at(field: str, request: Request) -> object:
    """The value of a top-level field, None for anything deeper."""
    try:
        loaded = msgspec.json.decode(request) if isinstance(request, bytes) else request
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # what stands behind the field is not JSON either
    value = loaded.get(field) if isinstance(loaded, Mapping) else None
    return value if isinstance(value, str | int | float) else None


def _shown(value: Any) -> Any:
    """A value as an error may echo it: short, and never a card number."""
    if value is None or isinstance(value, bool):
        return value
    if not may_be_shown(value):
        return HIDDEN
    text = str(value)
    return value if len(text) <= ECHO_LENGTH_MAX else text[:ECHO_LENGTH_MAX] + "..."


def _trimmed(event: Event) -> Event:
    """Text without the white space around it; empty text is a missing value, as in ingest."""
    changed: dict[str, Any] = {}
    for field in event.__struct_fields__:
        value = getattr(event, field)
        if isinstance(value, str):
            text = value.strip(WHITE_SPACE)
            if text != value or not text:
                _check_length(field, value)
                changed[field] = text if text or field in REQUIRED_TEXT else None
    extras = getattr(event, "extras", {})
    if extras:
        trimmed = {k: v.strip(WHITE_SPACE) or None if isinstance(v, str) else v for k, v in extras.items()}
        changed["extras"] = trimmed
    return msgspec.structs.replace(event, **changed) if changed else event


def _check_texts(fields: Sequence[str], values: Sequence[str | None]) -> None:
    """Asks all texts at once, since nearly always nothing is wrong; one by one where something may be."""
    texts = [value for value in values if value is not None]
    joined = "x".join(texts)
    is_suspect = many_digits(joined) or _CONTROL.search(joined) or not joined.isascii()
    if is_suspect or "" in texts or len(max(texts, key=len)) > TEXT_LENGTH_MAX:
        for field, value in zip(fields, values, strict=True):
            if value is not None:
                _check_text(field, value)


def _check_text(field: str, value: str) -> None:
    _require(bool(value), field, "", "must not be empty")
    if holds_card_number(value):
        raise RequestError(field, HIDDEN, NO_CARD_NUMBER)
    _check_length(field, value)
    _require(not _CONTROL.search(value), field, None, "must have no control characters")


def _check_length(field: str, value: str) -> None:
    _require(len(value) <= TEXT_LENGTH_MAX, field, value, f"must have at most {TEXT_LENGTH_MAX} characters")


def _check_money(transaction: Transaction) -> None:
    amount, currency = transaction.amount_minor, transaction.currency
    _require(0 <= amount <= AMOUNT_MINOR_MAX, "amount_minor", amount, f"must be from 0 to {AMOUNT_MINOR_MAX}")
    _require(currency in CURRENCY_EXPONENTS, "currency", currency, "must be an ISO 4217 code, in capitals")


def _check_time(field: str, value: int, now_ms: int) -> None:
    rule = "must be ms (not seconds) since 1970-01-01 UTC, after 1980 and not in the future"
    _require(EARLIEST_TIME_MS <= value <= now_ms + FUTURE_TOLERANCE_MS, field, value, rule)


def _check_extra(name: str, value: float | str | None, known: frozenset[str]) -> None:
    field = f"extras.{_shown(name)}"
    _require(name in known, field, None, f"is not an extra input; known: {sorted(known)}")
    if isinstance(value, str):
        _check_text(field, value)
    elif value is not None and is_card_number(value):
        raise RequestError(field, HIDDEN, NO_CARD_NUMBER)


def _require(is_kept: bool, field: str, value: object, rule: str) -> None:
    if not is_kept:
        raise RequestError(field, _shown(value), rule)
