"""The HTTP interface, as a bare ASGI application: routes, bodies, status codes, problems, metrics.

Belongs here: what goes over the wire. Does not belong here: what is decided (`serve`), how the server is
started (`bento/service.py`). Every error is `application/problem+json` and names field, value and rule.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import msgspec

from fraud_platform.adapters.metrics import Metrics
from fraud_platform.errors import DecisionLogError, RequestError, StoreError, TooLateError
from fraud_platform.package import Bundle
from fraud_platform.schema import LabelEvent, looks_like_card_number
from fraud_platform.serve import ConflictError
from fraud_platform.serve.record import Decision
from fraud_platform.serve.requests import Request

BODY_BYTES_MAX = 65_536
DECISIONS = "/v1/decisions"
LABELS = "/v1/labels"

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON = b"application/json"
_PROBLEM = b"application/problem+json"
_TITLES = {
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}
_METHODS = {DECISIONS: "POST", LABELS: "POST", "/metrics": "GET", "/livez": "GET", "/readyz": "GET"}


class Decides(Protocol):
    """What the interface asks: `online.OnlineService`."""

    @property
    def bundle(self) -> Bundle: ...

    async def decide(self, request: Request) -> Decision: ...

    async def decision(self, transaction_id: str) -> Decision | None: ...

    async def learn(self, request: Request) -> LabelEvent: ...


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


class Api:
    """The application. Until `start` gives it a decider it is alive, but not ready."""

    def __init__(self) -> None:
        self._decider: Decides | None = None
        self._metrics: Metrics | None = None

    def start(self, decider: Decides, metrics: Metrics) -> None:
        self._decider, self._metrics = decider, metrics

    def stop(self) -> None:
        self._decider = None

    @property
    def is_ready(self) -> bool:
        return self._decider is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"{scope['type']} is not served; only http is")
        body = await _body(receive)
        answer = await self.answer(scope["method"], scope["path"], body)
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def answer(self, method: str, path: str, body: bytes | None) -> Answer:
        """body: None when it is larger than BODY_BYTES_MAX."""
        allowed = "GET" if path.startswith(DECISIONS + "/") else _METHODS.get(path)
        if allowed is None:
            return problem(404, "no such path")
        if method != allowed:
            return problem(405, f"use {allowed}", headers=((b"allow", allowed.encode()),))
        if body is None:
            return problem(413, f"the body may have {BODY_BYTES_MAX} bytes")
        if path == "/livez":
            return Answer(200, b'{"status":"alive"}')
        if self._decider is None or self._metrics is None:
            return problem(503, "starting: no bundle is loaded yet")
        return await self._served(self._decider, self._metrics, path, body)

    async def _served(self, decider: Decides, metrics: Metrics, path: str, body: bytes) -> Answer:
        if path == "/readyz":
            return Answer(200, msgspec.json.encode({"status": "ready", "bundle_id": decider.bundle.id}))
        if path == "/metrics":
            return Answer(200, metrics.exposition(), metrics.content_type.encode())
        try:
            if path == DECISIONS:
                return await _decide(decider, metrics, body)
            if path == LABELS:
                return await _learn(decider, metrics, body)
            return await _find(decider, path.removeprefix(DECISIONS + "/"))
        except RequestError as error:
            status = 409 if isinstance(error, ConflictError) else 422
            metrics.refused(status)
            return problem(
                status, str(error), {"field": error.field, "value": error.value, "rule": error.rule}
            )
        except TooLateError as error:
            metrics.refused(422)
            return problem(422, str(error), {"field": "event_time", "rule": "is too old to be exact"})
        except (DecisionLogError, StoreError):
            metrics.refused(503)
            return problem(503, "the decision could not be recorded; ask again")


def problem(
    status: int,
    detail: str,
    more: Mapping[str, object] | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Answer:
    """An error as RFC 9457 describes it."""
    body = {
        "type": "about:blank",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        **(more or {}),
    }
    return Answer(status, msgspec.json.encode(body), _PROBLEM, headers)


async def _decide(decider: Decides, metrics: Metrics, body: bytes) -> Answer:
    started = perf_counter()
    decision = await decider.decide(body)
    answer = Answer(200, msgspec.json.encode(decision))
    metrics.decided(decision, perf_counter() - started)
    return answer


async def _learn(decider: Decides, metrics: Metrics, body: bytes) -> Answer:
    event = await decider.learn(body)
    metrics.learned(event)
    return Answer(202, msgspec.json.encode(event))


async def _find(decider: Decides, transaction_id: str) -> Answer:
    decision = None if looks_like_card_number(transaction_id) else await decider.decision(transaction_id)
    if decision is None:
        return problem(404, "no decision on this transaction_id")
    return Answer(200, msgspec.json.encode(decision))


async def _body(receive: Receive) -> bytes | None:
    """The whole body, None when it is too large; what is too large is read and thrown away."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= BODY_BYTES_MAX:
            parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts) if size <= BODY_BYTES_MAX else None
