"""The service as the event loop sees it: every question is awaited, and answered in time.

Belongs here: which question goes through the lane, and how long it may take. Does not belong here: HTTP
(`http`), the lane's thread (`lane`), what is answered (`service`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from threading import Event, Thread

from fraud_platform.adapters.lane import Answer, Lane
from fraud_platform.adapters.service import Service
from fraud_platform.errors import DecisionLogError, RequestError
from fraud_platform.package import Bundle
from fraud_platform.serve.case import Case
from fraud_platform.serve.decider import Learned
from fraud_platform.serve.record import Decision
from fraud_platform.serve.requests import Request

PATIENCE_S = 2.0
"""For what nobody pays for by waiting: labels, and decisions that are looked up."""
BATCH_NS = 10_000_000
"""What each transaction of a batch adds to the time that the batch has: nobody stands at a counter for it."""
LOOK_S = 1.0
"""Between two looks at whether another bundle is wanted."""


class OnlineService:
    """A service and its lane, until `close`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lane = Lane(service)
        self._lane.start()
        self._is_closing = Event()
        Thread(target=self._look_for_bundles, name="bundles", daemon=True).start()

    @property
    def bundle(self) -> Bundle:
        return self._service.bundle

    @property
    def waiting(self) -> dict[str, int]:
        """What the service has yet to do, by its name in the metrics."""
        unobserved, unlogged = self._service.decider.behind.waiting
        return {"requests": self._lane.waiting, "unobserved": unobserved, "unlogged": unlogged}

    async def decide(self, request: Request) -> Decision:
        """Raises RequestError and TooLateError; anything else is an answer."""
        return await self._lane.decide(self._service.open_case(request))

    async def decide_all(self, requests: Sequence[Request]) -> list[Answer]:
        """A decision or a refusal for each request, in their order."""
        opened: list[Case | RequestError] = [self._opened(request) for request in requests]
        cases = [case for case in opened if isinstance(case, Case)]
        for case in cases:
            case.deadline_ns += len(cases) * BATCH_NS
        answers = iter(await self._lane.decide_all(cases)) if cases else iter(())
        return [next(answers) if isinstance(case, Case) else case for case in opened]

    async def decision(self, transaction_id: str) -> Decision | None:
        """DecisionLogError where the log does not answer."""
        try:
            return await self._lane.call(lambda: self._service.decision(transaction_id), PATIENCE_S)
        except TimeoutError:
            raise DecisionLogError("the log does not answer; ask again") from None

    async def learn(self, request: Request) -> Learned:
        """DecisionLogError where store or log do not answer: ask again, an event counts once."""
        try:
            return await self._lane.call(lambda: self._service.learn(request), PATIENCE_S)
        except TimeoutError:
            raise DecisionLogError("the event could not be recorded in time; send it again") from None

    async def want(self, bundle_id: str) -> str:
        """The whole id of a bundle that every worker takes soon. BundleError where it does not hold."""
        return await asyncio.to_thread(self._service.want, bundle_id)

    async def close(self) -> None:
        """Ends what is under way, then store and log."""
        self._is_closing.set()
        if await asyncio.to_thread(self._lane.stop):
            self._service.close()

    def _look_for_bundles(self) -> None:
        """A bundle that is wanted is loaded beside the one that decides, and taken between two decisions."""
        while not self._is_closing.wait(LOOK_S):
            judge = self._service.wished_judge()
            if judge is not None:
                self._lane.soon(partial(self._service.adopt, judge))

    def _opened(self, request: Request) -> Case | RequestError:
        try:
            return self._service.open_case(request)
        except RequestError as refusal:
            return refusal
