"""Answers, and the errors among them: problem+json as RFC 9457 describes it, with field, value and rule.

Belongs here: the form of answers and problems, and which error of the platform becomes which status.
Does not belong here: when an answer is given (`http`, `http_guard`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from fraud_platform.errors import FraudPlatformError, RequestError, TooLateError
from fraud_platform.serve import ConflictError

Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
PROBLEM = b"application/problem+json"
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
CLOSE: Headers = ((b"connection", b"close"),)
"""For answers that leave a body unread."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request got no other answer. field, value and rule are there where one field is wrong; value is
    null where there is none to show, or none that may be shown."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    value: str | int | float | bool | msgspec.UnsetType | None = msgspec.UNSET
    rule: str | msgspec.UnsetType = msgspec.UNSET


def problem(status: int, detail: str, headers: Headers = ()) -> Answer:
    return answered(Problem(title=TITLES[status], status=status, detail=detail), headers)


def answered(found: Problem, headers: Headers = ()) -> Answer:
    return Answer(found.status, msgspec.json.encode(found), PROBLEM, headers)


def problem_of(error: FraudPlatformError) -> Problem:
    """What a request hears of an error that one of the platform's parts raised."""
    if isinstance(error, TooLateError):
        return _wrong(422, str(error), "event_time", None, "is too old to be exact")
    if isinstance(error, RequestError):
        status = 409 if isinstance(error, ConflictError) else 422
        return _wrong(status, str(error), error.field, error.value, error.rule)
    detail = "the decision could not be recorded; ask again"
    return Problem(title=TITLES[503], status=503, detail=detail)


def wrong_field(status: int, field: str, value: str | None, rule: str, headers: Headers = ()) -> Answer:
    """A problem of the request around the body: a header, the path, the query."""
    said = f"{field}: {rule}" if value is None else f"{field}={value!r}: {rule}"
    return answered(_wrong(status, said, field, value, rule), headers)


def _wrong(status: int, detail: str, field: str, value: Any, rule: str) -> Problem:
    return Problem(title=TITLES[status], status=status, detail=detail, field=field, value=value, rule=rule)
