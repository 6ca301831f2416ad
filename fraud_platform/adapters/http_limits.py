"""Limits of a request: bytes and seconds of its body, and what one key may ask for in a second.

Belongs here: counting and refusing. Does not belong here: who asks (`http_guard`), what is asked (`http`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fraud_platform.adapters.http_problems import CLOSE, Answer, problem, wrong_field

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

BODY_BYTES_MAX = 65_536
BATCH_BYTES_MAX = 1_048_576
BURST_SECONDS = 1.0
"""What was not asked for in this time is allowed at once."""


class DisconnectedError(Exception):
    """The client went away before its request was whole: nobody is there to be answered."""


class Bucket:
    """A token bucket: `rate` things a second, and those of BURST_SECONDS, one at the least, at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._left, self._moment, self._clock = self._burst, clock(), clock

    def take(self) -> int:
        """0 where one more is allowed now, else in how many whole seconds it will be."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._moment) * self.rate)
        self._moment = now
        if self._left < 1:
            return math.ceil((1 - self._left) / self.rate)
        self._left -= 1
        return 0

    def charge(self, more: int) -> None:
        """Counts what a request turned out to hold beyond the one; the next requests wait for it."""
        self._left -= more


def refused_length(sent: bytes | None, most: int) -> Answer | None:
    """What a Content-Length alone decides, before a byte of the body is read."""
    if sent is None:
        return None
    if not sent.isdigit():
        return wrong_field(400, "content-length", None, "must be a whole number of bytes", CLOSE)
    return too_large(most) if len(sent) > 15 or int(sent) > most else None


def too_large(most: int) -> Answer:
    return problem(413, f"the body may have {most} bytes", CLOSE)


async def read_body(receive: Receive, most: int, seconds: float) -> bytes | Answer:
    """The whole body, or a refusal as soon as it is too large or too slow; the rest is not read then."""
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
            body = _part(message)
            if message.get("more_body", False):
                body = await _rest(receive, body, most)
    except TimeoutError:
        return problem(408, f"the body must arrive within {seconds:g} s", CLOSE)
    return body if len(body) <= most else too_large(most)


async def _rest(receive: Receive, first: bytes, most: int) -> bytes:
    parts, size, more = [first], len(first), True
    while more and size <= most:
        message = await receive()
        parts.append(_part(message))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)


def _part(message: Mapping[str, Any]) -> bytes:
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return bytes(message.get("body", b""))
