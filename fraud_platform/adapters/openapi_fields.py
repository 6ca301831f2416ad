"""The fields of a request as JSON Schema, with the limits by which `serve.requests` validates them.

Belongs here: fields and limits. Does not belong here: operations (`openapi`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fraud_platform.adapters.tokens import RAW, RAW_FIELDS
from fraud_platform.adapters.tokens import TEXT_LENGTH_MAX as RAW_LENGTH_MAX
from fraud_platform.schema import (
    AMOUNT_MINOR_MAX,
    CURRENCY_EXPONENTS,
    LABEL_COLUMNS,
    TRANSACTION_COLUMNS,
    Column,
)
from fraud_platform.serve.requests import (
    COORDINATES,
    EARLIEST_TIME_MS,
    FUTURE_TOLERANCE_MS,
    TEXT_LENGTH_MAX,
)

Json = dict[str, Any]

_SPACE = r"[ \t\n\r\f\v]*"
_INNER = r"[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?"
TEXT_PATTERN = f"^{_SPACE}{_INNER}{_SPACE}$"
"""Something beside white space, and no control characters but white space around it."""
OPTIONAL_PATTERN = f"^{_SPACE}(?:{_INNER}{_SPACE})?$"
CURRENCY_PATTERN = f"^{_SPACE}(?:{'|'.join(CURRENCY_EXPONENTS)}){_SPACE}$"

EXAMPLE_TRANSACTION: Json = {
    "transaction_id": "t-1",
    "event_time": 1_753_900_000_000,
    "card_id": "k-1",
    "merchant_id": "m-1",
    "amount_minor": 12_900,
    "currency": "EUR",
    "channel": "ecommerce",
    "device_id": "d-1",
}
EXAMPLE_LABEL: Json = {
    "transaction_id": "t-1",
    "source": "chargeback",
    "outcome": "fraud",
    "known_at": 1_756_600_000_000,
}


def transaction_fields(extras: Sequence[str], has_raw: bool) -> dict[str, Json]:
    """extras: names of the extra inputs; has_raw: whether raw ids are taken, and made tokens."""
    fields = {column.name: _field(column) for column in TRANSACTION_COLUMNS}
    said = "Extra inputs of the model" if extras else "Extra inputs of the model: it has none"
    known = {name: _or_null({"type": "number"}, _text(OPTIONAL_PATTERN)) for name in extras}
    fields["extras"] = {
        "type": "object",
        "properties": known,
        "additionalProperties": False,
        "description": said,
    }
    if has_raw:
        fields[RAW] = _raw()
    return fields


def label_fields() -> dict[str, Json]:
    fields = {column.name: _field(column) for column in LABEL_COLUMNS}
    fields["outcome"] = {"enum": ["fraud", "legitimate"], "description": "What it turned out to be"}
    return fields


def _field(column: Column) -> Json:
    schema = _number(column) if column.type != "VARCHAR" else _string(column)
    return {**schema, "description": column.description}


def _number(column: Column) -> Json:
    if column.type == "DOUBLE":
        limit = COORDINATES[column.name]
        return _or_null({"type": "number", "minimum": -limit, "maximum": limit})
    if column.name == "amount_minor":
        return {"type": "integer", "minimum": 0, "maximum": AMOUNT_MINOR_MAX}
    ahead = f"At most {FUTURE_TOLERANCE_MS // 60_000} minutes ahead of the service's clock"
    return {"type": "integer", "minimum": EARLIEST_TIME_MS, "x-maximum": ahead}


def _string(column: Column) -> Json:
    if column.name == "currency":
        return _text(CURRENCY_PATTERN)
    if column.is_required:
        return {**_text(TEXT_PATTERN), "minLength": 1}
    return _or_null(_text(OPTIONAL_PATTERN))


def _raw() -> Json:
    said = {
        "card_number": ("12 to 19 digits", r"^ *[0-9](?:[ .-]*[0-9]){11,18} *$"),
        "customer": ("Any text; capitals do not count", TEXT_PATTERN),
        "device": ("Any text; capitals do not count", TEXT_PATTERN),
        "ip": ("An IPv4 or IPv6 address", r"^[0-9A-Fa-f.:]+$"),
    }
    properties = {
        name: {
            "type": "string",
            "maxLength": RAW_LENGTH_MAX,
            "pattern": said[name][1],
            "description": f"{said[name][0]}; becomes {field}, which must not be given as well",
        }
        for name, field in RAW_FIELDS.items()
    }
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
        "description": "Raw ids: each becomes a keyed token, in place of its field, before anything sees it",
    }


def _text(pattern: str) -> Json:
    return {"type": "string", "maxLength": TEXT_LENGTH_MAX, "pattern": pattern}


def _or_null(*schemas: Json) -> Json:
    return {"anyOf": [*schemas, {"type": "null"}]}
