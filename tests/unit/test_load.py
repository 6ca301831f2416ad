"""The load generator of tests/perf: what waits counts, what is not answered is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.perf.bodies import write_bodies
from tests.perf.load import Load, Loaded, framed
from tests.perf.service_load import WORDS, other_tiers

WORK_S = 0.01
ANSWER = b'{"tier":"model","faults":["busy"]}'
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        await asyncio.sleep(WORK_S)
        told = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
        writer.write(told[:30])
        await writer.drain()
        writer.write(told[30:])


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


def load(
    handler: Handler, number: int, connections: int, rate: float, seconds: float, grace_s: float = 5.0
) -> Loaded:
    async def run() -> Loaded:
        served: list[asyncio.Task[None]] = []

        async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(asyncio.current_task())  # type: ignore[arg-type]
            try:
                with contextlib.suppress(asyncio.IncompleteReadError):
                    await handler(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

        server = await asyncio.start_server(quiet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        requests = framed([b"{}"] * number, "/", port, "")
        made = Load(requests, rate, seconds, [word.encode() for word in WORDS], grace_s=grace_s)
        async with server:
            await made.run(port, connections)
            await asyncio.gather(*served)
        return made.found(limit_ms=1.0, parts=2)

    return asyncio.run(run())


def test_waiting_for_a_free_connection_is_part_of_a_latency() -> None:
    """One connection answers 100 a second at the most; 400 a second are due."""
    found = load(answers, 80, connections=1, rate=400.0, seconds=0.1)
    assert (found.answered, found.unanswered, found.statuses) == (40, 0, {"200": 40})
    assert found.max_ms >= (40 * WORK_S - 0.1) * 1000
    assert found.over == 40
    assert [one[0] for one in found.parts] == pytest.approx([0.025, 0.075])


def test_as_fast_as_answered_until_the_bodies_or_the_time_end() -> None:
    assert load(answers, 12, connections=4, rate=0.0, seconds=0.3).answered == 12
    found = load(answers, 10_000, connections=2, rate=0.0, seconds=0.1)
    assert 0 < found.answered <= 2 * 0.1 / WORK_S + 2


def test_words_of_the_answers_are_counted() -> None:
    found = load(answers, 5, connections=1, rate=0.0, seconds=0.3)
    assert {word: count for word, count in found.words.items() if count} == {
        '"tier":"model"': 5,
        '"faults":': 5,
    }
    assert other_tiers([found]) == 0.0


def test_what_a_server_leaves_without_an_answer_is_told() -> None:
    found = load(hangs_up, 3, connections=1, rate=100.0, seconds=0.03, grace_s=0.1)
    assert (found.answered, found.unanswered) == (0, 3)


def test_bodies_are_a_line_each_or_batches(tmp_path) -> None:
    bodies = iter([b'{"a":%d}' % number for number in range(9)])
    single = write_bodies(bodies, tmp_path / "single", 2).read_bytes().splitlines()
    assert single == [b'{"a":0}', b'{"a":1}']
    (batch,) = write_bodies(bodies, tmp_path / "batch", 1, batch=3).read_bytes().splitlines()
    assert json.loads(batch) == {"transactions": [{"a": 2}, {"a": 3}, {"a": 4}]}
