"""The OpenAPI 3.1 document of the HTTP interface, made of the types that decode and the limits that validate.

Belongs here: schemas with their limits, operations, statuses, scopes. Does not belong here: the page that
shows it (`openapi_page`). A schema-driven fuzz test compares it with what is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fraud_platform.adapters.http_limits import BATCH_BYTES_MAX, BODY_BYTES_MAX
from fraud_platform.adapters.http_messages import (
    Alive,
    BatchAnswer,
    BundleTaken,
    LabelBatchAnswer,
    LabelTaken,
    Ready,
)
from fraud_platform.adapters.http_problems import TITLES, Problem
from fraud_platform.adapters.http_settings import HttpSettings
from fraud_platform.adapters.keys import SCOPES, KeyScope
from fraud_platform.adapters.openapi_fields import (
    EXAMPLE_LABEL,
    EXAMPLE_TRANSACTION,
    label_fields,
    transaction_fields,
)
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve.record import Decision
from fraud_platform.serve.requests import (
    BATCH_MAX,
    BUNDLE_ID_MIN,
    LABEL_BATCH_MAX,
    BundleWanted,
    LabelBatch,
    TransactionBatch,
)

Json = dict[str, Any]

VERSION = "1"
SECURITY = "key"
_REF = "#/components/schemas/{name}"
_ABOUT = """Decides card payments: approve, step up or decline, with reasons.

Times are integer milliseconds since 1970 UTC, money is an integer in minor units. Text is trimmed, and empty
text is a missing value. Nothing that looks like a card number is taken, also not as a part of a longer text.
A name that stands twice in an object counts with its last value. Every error is problem+json."""
_SCOPES_SAID = {
    "decide": "ask for decisions",
    "label": "tell what was learned about transactions",
    "read": "read recorded decisions and metrics",
    "admin": "change the running service",
}
_TYPES = (
    Transaction,
    TransactionBatch,
    LabelEvent,
    LabelBatch,
    Decision,
    BatchAnswer,
    LabelTaken,
    LabelBatchAnswer,
    BundleWanted,
    BundleTaken,
    Ready,
    Alive,
    Problem,
)
_ALWAYS = (500,)
_UNREADY = (503,)
_KEYED = (401, 403, 429)
_KEYLESS = (403,)
_BODY = (400, 408, 413, 415, 422, 503)
_WHY = {
    400: "The query is not empty, or Content-Length is no number",
    401: "No key, or one that is not known, has expired or was revoked",
    403: "The key has no such scope; without keys: the request came from another machine",
    404: "No decision on this transaction_id",
    408: "The body did not arrive in time",
    409: "The transaction_id was decided with other content",
    413: "The body is too large",
    415: "The body is not JSON in UTF-8, or is compressed",
    422: "A field is wrong: field, value and rule say which and why",
    429: "More than the rate of the key",
    500: "An error of the service itself",
    503: "Not ready, or too busy, or the record could not be written: ask again",
}


def openapi_document(extras: Sequence[str], settings: HttpSettings, has_raw: bool) -> Json:
    """The document. extras: the extra inputs that the bundle knows; has_raw: whether raw ids are taken."""
    has_keys = settings.keys is not None
    components: Json = {"schemas": _schemas(extras, has_raw)}
    if has_keys:
        scopes = "; ".join(f"`{scope}`: {_SCOPES_SAID[scope]}" for scope in SCOPES)
        said = f"A key of the service, `fpk_...`. Each operation names the scope it needs. {scopes}."
        components["securitySchemes"] = {SECURITY: {"type": "http", "scheme": "bearer", "description": said}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fraud_platform", "version": VERSION, "description": _ABOUT},
        "paths": _paths(_Operations(has_keys), settings.is_metrics_open),
        "components": components,
    }


def _schemas(extras: Sequence[str], has_raw: bool) -> Json:
    _, found = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    schemas = {name: _tidy(schema) for name, schema in found.items()}
    _limit(schemas["Transaction"], transaction_fields(extras, has_raw))
    _limit(schemas["LabelEvent"], label_fields())
    if has_raw:
        schemas["Transaction"]["required"].remove("card_id")
        with_raw = {"required": ["raw"], "properties": {"raw": {"required": ["card_number"]}}}
        schemas["Transaction"]["anyOf"] = [{"required": ["card_id"]}, with_raw]
    schemas["Transaction"]["description"] = "One authorization attempt."
    schemas["Transaction"]["examples"] = [EXAMPLE_TRANSACTION]
    schemas["LabelEvent"]["examples"] = [EXAMPLE_LABEL]
    schemas["TransactionBatch"]["examples"] = [{"transactions": [EXAMPLE_TRANSACTION]}]
    schemas["LabelBatch"]["examples"] = [{"labels": [EXAMPLE_LABEL]}]
    schemas["TransactionBatch"]["properties"]["transactions"] = _array("Transaction", BATCH_MAX)
    schemas["LabelBatch"]["properties"]["labels"] = _array("LabelEvent", LABEL_BATCH_MAX)
    schemas["BundleWanted"]["examples"] = [{"id": "0123456789abcdef"}]
    schemas["BundleWanted"]["properties"]["id"]["pattern"] = f"^[0-9a-f]{{{BUNDLE_ID_MIN},64}}$"
    schemas["Problem"]["properties"]["status"]["enum"] = sorted(TITLES)
    return schemas


def _array(item: str, most: int) -> Json:
    said = "Each is answered on its own: a wrong one gets its problem in its place."
    items = {"$ref": _REF.format(name=item)}
    return {"type": "array", "minItems": 1, "maxItems": most, "description": said, "items": items}


def _limit(schema: Json, fields: Mapping[str, Json]) -> None:
    for name, limits in fields.items():
        schema["properties"][name] = limits


def _tidy(schema: Any) -> Any:
    """Descriptions without the indentation of docstrings."""
    if isinstance(schema, dict):
        return {
            name: " ".join(value.split())
            if name == "description" and isinstance(value, str)
            else _tidy(value)
            for name, value in schema.items()
        }
    return [_tidy(value) for value in schema] if isinstance(schema, list) else schema


class _Operations:
    def __init__(self, has_keys: bool) -> None:
        self._has_keys = has_keys

    def of(
        self,
        name: str,
        summary: str,
        answers: Mapping[int, Json],
        problems: Sequence[int] = (),
        scope: KeyScope | None = None,
        **more: Any,
    ) -> Json:
        who = () if scope is None else _KEYED if self._has_keys else _KEYLESS
        operation: Json = {"operationId": name, "summary": summary, **more}
        if scope is not None and self._has_keys:
            operation["security"] = [{SECURITY: [scope]}]
        statuses = sorted({*problems, *who, *_ALWAYS})
        said = {status: _problem(status) for status in statuses}
        operation["responses"] = {str(k): v for k, v in sorted({**answers, **said}.items())}
        return operation


def _paths(operations: _Operations, is_metrics_open: bool) -> Json:
    of = operations.of
    decided = {200: _answer("The decision, recorded before it was answered", "Decision")}
    results = {200: _answer("One result for each transaction, in its place", "BatchAnswer")}
    taken = {202: _answer("The event was recorded", "LabelTaken")}
    all_taken = {202: _answer("One result for each event, in its place", "LabelBatchAnswer")}
    each = f"Up to {BATCH_MAX} transactions"
    return {
        "/v1/decisions": {
            "post": of(
                "decide",
                "Decide a transaction; the same one again gets the recorded decision",
                decided,
                (*_BODY, 409),
                "decide",
                requestBody=_body("Transaction", BODY_BYTES_MAX),
            )
        },
        "/v1/decisions/batch": {
            "post": of(
                "decideBatch",
                f"{each}, each decided on its own and in order",
                results,
                _BODY,
                "decide",
                requestBody=_body("TransactionBatch", BATCH_BYTES_MAX),
            )
        },
        "/v1/decisions/{transaction_id}": {
            "get": of(
                "findDecision",
                "A recorded decision",
                {200: _answer("The decision", "Decision")},
                (400, 404, 503),
                "read",
                parameters=[_ID_PARAMETER],
            )
        },
        "/v1/labels": {
            "post": of(
                "learn",
                "A chargeback, a cardholder's report or the outcome of a review",
                taken,
                _BODY,
                "label",
                requestBody=_body("LabelEvent", BODY_BYTES_MAX),
            )
        },
        "/v1/labels/batch": {
            "post": of(
                "learnBatch",
                f"Up to {LABEL_BATCH_MAX} label events",
                all_taken,
                _BODY,
                "label",
                requestBody=_body("LabelBatch", BATCH_BYTES_MAX),
            )
        },
        "/v1/bundle": {
            "post": of(
                "switchBundle",
                "Go on with another bundle of the service's folder of bundles, once it has been checked",
                {202: _answer("The bundle holds and is taken within seconds", "BundleTaken")},
                _BODY,
                "admin",
                requestBody=_body("BundleWanted", BODY_BYTES_MAX),
            )
        },
        "/livez": {"get": of("livez", "Whether the process answers", {200: _answer("It does", "Alive")})},
        "/readyz": {
            "get": of("readyz", "Whether it decides", {200: _answer("It does", "Ready")}, _UNREADY),
        },
        "/metrics": {
            "get": of(
                "metrics",
                "Counters for Prometheus",
                {200: _media("The counters", "text/plain", {"type": "string"})},
                _UNREADY,
                None if is_metrics_open else "read",
            )
        },
        "/openapi.json": {
            "get": of(
                "openapi",
                "This document",
                {200: _media("The document", "application/json", {"type": "object"})},
                _UNREADY,
            )
        },
        "/docs": {
            "get": of(
                "docs",
                "This document as a page",
                {200: _media("The page", "text/html", {"type": "string"})},
                _UNREADY,
            )
        },
    }


_ID_PARAMETER: Json = {
    "name": "transaction_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}


def _body(schema: str, most: int) -> Json:
    content = {"application/json": {"schema": {"$ref": _REF.format(name=schema)}}}
    return {"required": True, "description": f"At most {most} bytes.", "content": content}


def _answer(said: str, schema: str) -> Json:
    return _media(said, "application/json", {"$ref": _REF.format(name=schema)})


def _media(said: str, kind: str, schema: Json) -> Json:
    return {"description": said, "content": {kind: {"schema": schema}}}


def _problem(status: int) -> Json:
    return _media(_WHY[status], "application/problem+json", {"$ref": _REF.format(name="Problem")})
