"""The HTTP interface, as a bare ASGI application: what is asked for, whether it may be, and what it gets.

A request goes through route, key, rate, headers, length and body, in this order, and each can end it: nothing
is read of a body that will not be used, and nothing is decided before all have passed.

Belongs here: the order of these steps. Does not belong here: the answers (`http_answers`), what is decided
(`serve`), how the server is started (`bento/service.py`). Every error is `application/problem+json`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from fraud_platform.adapters import http_answers as answers
from fraud_platform.adapters.http_answers import Call, Decides, Served
from fraud_platform.adapters.http_limits import (
    BATCH_BYTES_MAX,
    BODY_BYTES_MAX,
    DisconnectedError,
    Receive,
    read_body,
    refused_length,
)
from fraud_platform.adapters.http_problems import CLOSE, JSON, Answer, Headers, answered, problem, problem_of
from fraud_platform.adapters.http_problems import wrong_field as wrong
from fraud_platform.adapters.http_settings import HttpSettings
from fraud_platform.adapters.keys import KeyScope
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.errors import DecisionLogError, RequestError, StoreError, in_short

DECISIONS = "/v1/decisions"
LABELS = "/v1/labels"
BUNDLE = "/v1/bundle"
METRICS = "/metrics"
BATCH = "/batch"

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[Call], Awaitable[Answer]]

RETRY: Headers = ((b"retry-after", b"1"),)

logger = logging.getLogger("bentoml.fraud_platform")


class Route(NamedTuple):
    """scope: what a key must allow, None where no key is asked for; body_max: bytes."""

    method: str
    scope: KeyScope | None
    handler: Handler
    body_max: int = 0

    @property
    def allowed(self) -> bytes:
        return b"GET, HEAD, OPTIONS" if self.method == "GET" else b"POST, OPTIONS"


ROUTES: dict[str, Route] = {
    DECISIONS: Route("POST", "decide", answers.decide, BODY_BYTES_MAX),
    DECISIONS + BATCH: Route("POST", "decide", answers.decide_batch, BATCH_BYTES_MAX),
    LABELS: Route("POST", "label", answers.learn, BODY_BYTES_MAX),
    LABELS + BATCH: Route("POST", "label", answers.learn_batch, BATCH_BYTES_MAX),
    BUNDLE: Route("POST", "admin", answers.switch, BODY_BYTES_MAX),
    METRICS: Route("GET", "read", answers.metrics),
    "/livez": Route("GET", None, answers.alive),
    "/readyz": Route("GET", None, answers.ready),
    "/openapi.json": Route("GET", None, answers.document),
    "/docs": Route("GET", None, answers.page),
}
FIND = Route("GET", "read", answers.find)


class Api:
    """The application. Until `start` gives it a decider it is alive, but not ready."""

    def __init__(self) -> None:
        self._served: Served | None = None

    def start(self, decider: Decides, metrics: Metrics, settings: HttpSettings | None = None) -> None:
        """settings: None asks for no key and answers this machine itself only. SettingsError where a file of
        the settings cannot be used."""
        self._served = Served.of(decider, metrics, settings or HttpSettings(), frozenset(ROUTES))

    def stop(self) -> None:
        self._served = None

    @property
    def is_ready(self) -> bool:
        return self._served is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"{scope['type']} is not served; only http is")
        try:
            answer = await self._answer(scope, receive)
        except DisconnectedError:
            return
        if answer.status >= 400 and self._served is not None:
            self._served.metrics.refused(answer.status)
        headers = [*answer.headers]
        if answer.status != 204:
            headers += ((b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body)))
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        route = ROUTES.get(path) or (FIND if path.startswith(DECISIONS + "/") else None)
        if route is None:
            return problem(404, "no such path; /docs tells what there is")
        if method != route.method and not (method == "HEAD" and route.method == "GET"):
            allow = ((b"allow", route.allowed),)
            said = f"use {route.method}"
            return Answer(204, b"", headers=allow) if method == "OPTIONS" else problem(405, said, allow)
        if self._served is None:
            starting = problem(503, "starting: no bundle is loaded yet", RETRY)
            return starting if path != "/livez" else await answers.alive(None)
        try:
            return await _handled(self._served, route, scope, receive)
        except (RequestError, StoreError, DecisionLogError) as error:
            found = problem_of(error)
            return answered(found, RETRY if found.status == 503 else ())
        except DisconnectedError:
            raise
        except Exception as error:  # noqa: BLE001 (the last resort)
            logger.error(in_short(error))
            return problem(500, "an error of the service itself; its log tells where")


async def _handled(served: Served, route: Route, scope: Scope, receive: Receive) -> Answer:
    """Through key, rate, headers, length and body to the handler."""
    if route.scope is None or (scope["path"] == METRICS and served.settings.is_metrics_open):
        return await route.handler(Call(served, scope["path"]))
    headers = _headers(scope)
    caller = served.guard.admit(scope, headers.authorization, route.scope)
    if isinstance(caller, Answer):
        return caller
    if scope.get("query_string") and route.handler is not answers.metrics:
        return wrong(400, "query", None, "must be empty: nothing here takes parameters", CLOSE)
    if route.method == "GET":
        return await route.handler(Call(served, scope["path"], caller))
    refusal = headers.refused() or refused_length(headers.content_length, route.body_max)
    if refusal is not None:
        return refusal
    if not served.enter():
        return problem(
            503, f"{served.settings.concurrent_max} requests are at work; ask again", RETRY + CLOSE
        )
    try:
        body = await read_body(receive, route.body_max, served.settings.body_seconds)
        if isinstance(body, Answer):
            return body
        return await route.handler(Call(served, scope["path"], caller, body))
    finally:
        served.leave()


class _Headers(NamedTuple):
    authorization: bytes | None
    content_type: bytes | None
    content_length: bytes | None
    content_encoding: bytes | None

    def refused(self) -> Answer | None:
        """What the headers say of the body must be what is read: JSON in UTF-8, not compressed."""
        if self.content_type != JSON:
            kind, _, parameters = (self.content_type or b"").lower().partition(b";")
            charset = parameters.replace(b" ", b"").replace(b'"', b"")
            if kind.strip() != JSON or charset not in (b"", b"charset=utf-8"):
                return wrong(415, "content-type", None, "must be application/json, in UTF-8", CLOSE)
        if self.content_encoding not in (None, b"identity"):
            return wrong(415, "content-encoding", None, "must be absent: send the body as it is", CLOSE)
        return None


def _headers(scope: Scope) -> _Headers:
    authorization = content_type = content_length = content_encoding = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            content_length = value
        elif name == b"authorization":
            authorization = value
        elif name == b"content-encoding":
            content_encoding = value
    return _Headers(authorization, content_type, content_length, content_encoding)
