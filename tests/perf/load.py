"""A load generator over HTTP/1.1: `python -m tests.perf.load`, one process with as many connections as told.

At a constant arrival rate a request is due at its own moment, whether or not an earlier one was answered, and
its latency counts from that moment: waiting for a free connection is part of it. Without a rate each
connection asks again as soon as it was answered, which finds the most that a service can do.

Bodies come from a file: a line each, in order. Stays on loopback, and ends by itself.
Does not belong here: starting a service, what the bodies mean (serving.py).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.perf.measured import quantile

HOST = "127.0.0.1"
SPIN_S = 0.002
"""A sleeping loop wakes up to a millisecond late, which would count as the service's: so it stays awake."""
GRACE_S = 10.0
"""Without any answer, at the end."""


@dataclass(frozen=True)
class Loaded:
    """What a run of the generator found. latencies in ms: of all answers; unanswered: requests without one;
    behind_ms: how late the generator itself sent at the most; parts: (second, p50, p99) in equal parts."""

    answered: int
    unanswered: int
    seconds: float
    statuses: dict[str, int]
    words: dict[str, int]
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    over: int
    behind_ms: float
    parts: list[tuple[float, float, float]]

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


class Connection(asyncio.Protocol):
    """One request at a time; the next one follows its answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self._buffer[:head].lower()
        start = lower.index(b"content-length:") + 15
        end = lower.find(b"\r\n", start)
        length = int(lower[start : end if end >= 0 else head])
        if len(self._buffer) < head + 4 + length:
            return
        body = self._buffer[head + 4 :]
        status = self._buffer[9:12]
        self._buffer = b""
        self._load.answered(self, status, body, self._due)


class Load:
    """The requests, in order, over the connections that are free."""

    def __init__(
        self,
        requests: Iterator[bytes],
        rate: float,
        seconds: float,
        words: Sequence[bytes],
        grace_s: float = GRACE_S,
    ) -> None:
        self._requests = requests
        self._rate = rate
        self._seconds = seconds
        self._words = words
        self._grace_s = grace_s
        self._free: deque[Connection] = deque()
        self._due: deque[tuple[bytes, float]] = deque()
        self._sent = 0
        self._took: list[tuple[float, float]] = []
        self._statuses: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._behind = 0.0
        self._started = 0.0
        self._end = 0.0

    async def run(self, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(lambda: Connection(self), HOST, port) for _ in range(connections)
        ]
        self._free.extend(protocol for _, protocol in opened)
        self._started = time.monotonic()
        self._end = self._started + self._seconds
        if self._rate:
            await self._arrive(loop)
        else:
            for connection in list(self._free):
                self._next(connection)
            await asyncio.sleep(self._seconds)
        await self._drained()
        self._end = time.monotonic() if not self._rate else self._end
        for _, protocol in opened:
            protocol.close()

    async def _drained(self) -> None:
        """Until everything is answered, or nothing was for the time of grace."""
        answered, patience = -1, 0.0
        while len(self._took) < self._sent:
            if len(self._took) > answered:
                answered, patience = len(self._took), time.monotonic() + self._grace_s
            elif time.monotonic() >= patience:
                return
            await asyncio.sleep(0.01)

    async def _arrive(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in range(int(self._rate * self._seconds)):
            request = next(self._requests, None)
            if request is None:
                raise SystemExit(
                    f"{number} bodies are too few for {self._seconds:g} s of {self._rate:g} a second"
                )
            due = self._started + number / self._rate
            while (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait - SPIN_S if wait > 2 * SPIN_S else 0)
            self._behind = max(self._behind, time.monotonic() - due)
            self._sent += 1
            if self._free:
                self._free.popleft().send(request, due)
            else:
                self._due.append((request, due))

    def answered(self, connection: Connection, status: bytes, body: bytes, due: float) -> None:
        now = time.monotonic()
        self._took.append((due - self._started, (now - due) * 1000))
        self._statuses[status.decode()] += 1
        for word in self._words:
            if word in body:
                self._found[word.decode()] += body.count(word)
        if self._due:
            connection.send(*self._due.popleft())
        elif self._rate:
            self._free.append(connection)
        else:
            self._next(connection)

    def lost(self, connection: Connection) -> None:
        if connection in self._free:
            self._free.remove(connection)

    def _next(self, connection: Connection) -> None:
        now = time.monotonic()
        request = next(self._requests, None) if now < self._end else None
        if request is not None:
            self._sent += 1
            connection.send(request, now)

    def found(self, limit_ms: float, parts: int) -> Loaded:
        took = [ms for _, ms in self._took]
        p50, p99, p999 = (quantile(took, share) if took else 0.0 for share in (0.5, 0.99, 0.999))
        last = max((at + ms / 1000 for at, ms in self._took), default=0.0)
        return Loaded(
            answered=len(took),
            unanswered=self._sent - len(took),
            seconds=last if not self._rate else max(last, self._seconds),
            statuses=dict(self._statuses),
            words=dict(self._found),
            p50_ms=p50,
            p99_ms=p99,
            p999_ms=p999,
            max_ms=max(took, default=0.0),
            over=sum(ms > limit_ms for ms in took),
            behind_ms=self._behind * 1000,
            parts=self._parts(parts),
        )

    def _parts(self, count: int) -> list[tuple[float, float, float]]:
        found = []
        for part in range(count):
            start, end = self._seconds * part / count, self._seconds * (part + 1) / count
            chosen = [ms for at, ms in self._took if start <= at < end]
            if chosen:
                found.append(((start + end) / 2, quantile(chosen, 0.5), quantile(chosen, 0.99)))
        return found


def framed(bodies: Iterable[bytes], path: str, port: int, key: str) -> Iterator[bytes]:
    """Each body as a whole HTTP request, made when it is asked for."""
    head = f"POST {path} HTTP/1.1\r\nhost: {HOST}:{port}\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {key}\r\n" if key else ""
    start = f"{head}content-length: ".encode()
    return (b"%s%d\r\n\r\n%s" % (start, len(body), body) for body in bodies)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.perf.load", description=__doc__)
    parser.add_argument("bodies", type=Path, help="a JSON body a line")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/decisions")
    parser.add_argument("--key", default="", help="a bearer key")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests a second; 0 asks as fast as answered"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--limit-ms", type=float, default=50.0, help="answers that took longer are counted")
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--words", nargs="*", default=[], help="byte strings to count in the answers")
    options = parser.parse_args()
    with options.bodies.open("rb") as file:
        bodies = (line.rstrip(b"\n") for line in file)
        requests = framed(bodies, options.path, options.port, options.key)
        load = Load(requests, options.rate, options.seconds, [word.encode() for word in options.words])
        gc.collect()
        gc.freeze()
        gc.disable()
        asyncio.run(load.run(options.port, options.connections))
    json.dump(asdict(load.found(options.limit_ms, options.parts)), sys.stdout)


if __name__ == "__main__":
    main()
