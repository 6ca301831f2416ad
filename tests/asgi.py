"""Asks the HTTP interface in process, as a server would: whole messages in, status, headers and body out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
from fraud_platform.adapters.online import OnlineService
from fraud_platform.adapters.service import Service
from fraud_platform.package import BundleParts
from tests.faults import patient

Headers = Mapping[str, str]
JSON: Headers = {"content-type": "application/json"}
LOCAL = ("127.0.0.1", 50_000)


@contextmanager
def online_service(parts: BundleParts, state: Path, now_ms: int) -> Iterator[OnlineService]:
    """A whole service over a state folder, as `bento/service.py` makes it, at a moment that stands still."""
    bundles = state / "bundles"
    path = bundle_path(bundles, build_bundle(parts, bundles).id)
    service = OnlineService(Service(patient(path, state, spill=state / "spill"), lambda: now_ms))
    try:
        yield service
    finally:
        asyncio.run(service.close())


@dataclass(frozen=True)
class Answered:
    """status is 0 where the application sent nothing."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def ask(
    app: Callable[..., Any],
    method: str,
    path: str,
    content: object = b"",
    headers: Headers = JSON,
    *,
    query: bytes = b"",
    client: tuple[str, int] | None = LOCAL,
    messages: Sequence[dict[str, Any]] | None = None,
) -> Answered:
    """content: bytes as they are, anything else as JSON. messages: what the server hands over instead of the
    content; after the last it waits for ever, as for a client that sends nothing more."""
    raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
    waiting = list(messages if messages is not None else [{"type": "http.request", "body": raw}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "client": client,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    if not sent:
        return Answered(0, {}, b"")
    start, *bodies = sent
    said = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answered(start["status"], said, b"".join(message.get("body", b"") for message in bodies))
