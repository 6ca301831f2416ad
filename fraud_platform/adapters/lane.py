"""The service's one working thread, and the deadlines of those who wait for it.

A decision is worked out in the lane, one after another. The event loop waits for it until shortly before its
deadline and then answers without it: a store, a model or a log that hangs holds up the lane, and no answer.
Belongs here: threads, futures, timers. Does not belong here: what is answered (`serve.decider`).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol, TypeVar

from fraud_platform.errors import FraudPlatformError, RequestError, in_short
from fraud_platform.serve.case import Case
from fraud_platform.serve.record import Decision

RESERVE_NS = 10_000_000
"""So long before its deadline a case is answered without the lane: the answer has to be made and sent."""
CHUNK = 5
"""Cases of a batch that are concluded at one go, so that nobody waits long behind a batch."""
IDLE_S = 0.2
SWITCH_S = 0.0005
"""A decision lets go of the interpreter some ten times and gets it back after so long at the latest, whatever
another thread computes (a new bundle, say). Python's own 5 ms would cost a deadline."""
TIDY_EVERY = 64
"""Jobs between two looks at what is to be made up for, where the lane is never idle."""

Result = TypeVar("Result")
Answer = Decision | FraudPlatformError
logger = logging.getLogger("fraud_platform.lane")


class Works(Protocol):
    """What the lane does in its thread. `fall_back` and `stage` are the event loop's to ask."""

    @property
    def stage(self) -> str: ...

    def conclude_all(self, cases: Sequence[Case]) -> list[Answer]: ...

    def fall_back(self, case: Case, fault: str) -> Decision: ...

    def tidy(self) -> bool: ...


class Job(NamedTuple):
    """What the thread runs, and who is told of the result or the error, in the thread."""

    run: Callable[[], Any]
    tell: Callable[[Any, BaseException | None], object]


class Lane:
    """Runs `works` in a thread of its own, from `start` to `stop`."""

    def __init__(self, works: Works) -> None:
        self._works = works
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._busy_since_ns = 0
        self._thread = Thread(target=self._run, name="lane", daemon=True)

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Ends after the jobs that wait; False where the thread hangs."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs that wait for the thread."""
        return self._jobs.qsize()

    async def decide(self, case: Case) -> Decision:
        """The decision, in time. Raises what refuses the request."""
        (answer,) = await self._in_time([case])
        if isinstance(answer, FraudPlatformError):
            raise answer
        return answer

    async def decide_all(self, cases: Sequence[Case]) -> list[Answer]:
        """A decision or a refusal for each case."""
        parts = [cases[start : start + CHUNK] for start in range(0, len(cases), CHUNK)]
        answers = await asyncio.gather(*map(self._in_time, parts))
        return [answer for part in answers for answer in part]

    async def call(self, run: Callable[[], Result], timeout_s: float) -> Result:
        """A job's result. TimeoutError where the lane does not end it in time; it is done all the same."""
        future = self._put(run)
        return await asyncio.wait_for(asyncio.shield(future), timeout_s)

    def soon(self, run: Callable[[], object]) -> None:
        """Runs a job between two others, for any thread; what goes wrong in it is logged."""
        self._jobs.put(Job(run, _log_failure))

    async def _in_time(self, cases: Sequence[Case]) -> list[Answer]:
        future = self._put(partial(self._works.conclude_all, cases))
        deadline_ns = min(case.deadline_ns for case in cases) - RESERVE_NS
        if self._hangs(deadline_ns):
            self._answer_without(cases, future, self._fault())
            return await future
        timer = asyncio.get_running_loop().call_at(deadline_ns / 1e9, self._time_out, cases, future)
        try:
            return await future
        except Exception as error:  # noqa: BLE001  whatever it was, there is an answer
            logger.error("a decision is answered without the lane: %s", in_short(error))
            return [self._fallen(case, "internal") for case in cases]
        finally:
            timer.cancel()

    def _time_out(self, cases: Sequence[Case], future: asyncio.Future[Any]) -> None:
        if not future.done():
            self._answer_without(cases, future, self._fault())

    def _answer_without(self, cases: Sequence[Case], future: asyncio.Future[Any], fault: str) -> None:
        future.set_result([self._fallen(case, fault) for case in cases])

    def _fallen(self, case: Case, fault: str) -> Answer:
        try:
            return self._works.fall_back(case, fault)
        except RequestError as refusal:
            return refusal

    def _hangs(self, deadline_ns: int) -> bool:
        """Whether the job at work has been there for longer than a new one may take."""
        since = self._busy_since_ns
        now = perf_counter_ns()
        return bool(since) and now - since > deadline_ns - now

    def _fault(self) -> str:
        """What holds up the lane; `busy` where it is only the queue."""
        stage = self._works.stage
        since = self._busy_since_ns
        return f"{stage}_slow" if stage and since and perf_counter_ns() - since > RESERVE_NS else "busy"

    def _put(self, run: Callable[[], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def tell(result: Any, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(_deliver, future, result, error)

        self._jobs.put(Job(run, tell))
        return future

    def _run(self) -> None:
        done = 0
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except Empty:
                self._tidy()
                continue
            if job is None:
                return
            self._busy_since_ns = perf_counter_ns()
            self._do(job)
            self._busy_since_ns = 0
            done += 1
            if done % TIDY_EVERY == 0:
                self._tidy()

    def _tidy(self) -> None:
        try:
            while self._works.tidy() and self._jobs.empty():
                pass
        except Exception as error:  # noqa: BLE001  it is tried again
            logger.error("what is to be made up for waits: %s", in_short(error))

    @staticmethod
    def _do(job: Job) -> None:
        try:
            result, error = job.run(), None
        except BaseException as raised:  # noqa: BLE001  the waiting coroutine raises it
            result, error = None, raised
        try:
            job.tell(result, error)
        except RuntimeError:
            logger.warning("a result came after the end of the service")


def _log_failure(_: Any, error: BaseException | None) -> None:
    if error is not None:
        logger.error("a job of the lane failed: %s", in_short(error))


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Nobody waits any more for what was answered without the lane."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
