"""The answers of the HTTP interface: one function a path, from a call that was admitted to its answer.

Belongs here: the form of what is answered, what is counted, tokens for raw ids. Does not belong here: who may
ask (`http_guard`), limits (`http_limits`), what is decided (`serve`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from fraud_platform.adapters.http_guard import ANYONE, Caller, Guard
from fraud_platform.adapters.http_messages import (
    Alive,
    BatchAnswer,
    BatchItem,
    BundleTaken,
    LabelBatchAnswer,
    LabelItem,
    LabelTaken,
    Ready,
)
from fraud_platform.adapters.http_problems import Answer, Problem, problem, problem_of
from fraud_platform.adapters.http_settings import HttpSettings
from fraud_platform.adapters.keys import Keyring
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.openapi import openapi_document
from fraud_platform.adapters.openapi_page import openapi_page
from fraud_platform.adapters.tokens import RAW, Tokeniser, has_raw
from fraud_platform.errors import BundleError, DecisionLogError, FraudPlatformError, RequestError, StoreError
from fraud_platform.package import Bundle
from fraud_platform.serve.card_numbers import holds_card_number
from fraud_platform.serve.decider import Learned
from fraud_platform.serve.record import Decision
from fraud_platform.serve.requests import Request, parse_batch, parse_bundle_id, parse_label_batch

NO_STORE = ((b"cache-control", b"no-store"),)
PAGE_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
)
Result = TypeVar("Result")

logger = logging.getLogger("bentoml.fraud_platform")


class Decides(Protocol):
    """What the interface asks: `online.OnlineService`. waiting: what it has yet to do, by its name."""

    @property
    def bundle(self) -> Bundle: ...

    @property
    def waiting(self) -> Mapping[str, int]: ...

    async def decide(self, request: Request) -> Decision: ...

    async def decide_all(self, requests: Sequence[Request]) -> Sequence[Decision | FraudPlatformError]: ...

    async def decision(self, transaction_id: str) -> Decision | None: ...

    async def learn(self, request: Request) -> Learned: ...

    async def want(self, bundle_id: str) -> str:
        """The whole id of a bundle that is taken soon. BundleError where it does not hold."""


@dataclass
class Served:
    """What a started interface works with."""

    decider: Decides
    metrics: Metrics
    settings: HttpSettings
    guard: Guard
    tokeniser: Tokeniser | None
    paths: frozenset[str]
    in_flight: int = 0
    documents: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, decider: Decides, metrics: Metrics, settings: HttpSettings, paths: frozenset[str]) -> Served:
        keyring = Keyring(settings.keys) if settings.keys else None
        tokeniser = Tokeniser.from_file(settings.token_key) if settings.token_key else None
        has = (
            f"{len(keyring)} keys of {settings.keys}" if keyring else "no keys: only this machine is answered"
        )
        logger.info("%s; token key %s", has, tokeniser.fingerprint if tokeniser else "none")
        return cls(decider, metrics, settings, Guard(keyring, metrics), tokeniser, paths)

    def enter(self) -> bool:
        """Counts a request in, False where there are as many as may be."""
        if self.in_flight >= self.settings.concurrent_max:
            return False
        self.in_flight += 1
        self.metrics.in_flight(1)
        return True

    def leave(self) -> None:
        self.in_flight -= 1
        self.metrics.in_flight(-1)

    def opaque(self, request: bytes) -> bytes:
        """The request with tokens for its raw ids. RequestError where it has some and there is no key."""
        if not has_raw(request):
            return request
        if self.tokeniser is None:
            return _without_raw(request)
        made = self.tokeniser.tokenised(request)
        if made is not request:
            self.metrics.tokenised()
        return made


class Call(NamedTuple):
    """A request that was admitted."""

    served: Served
    path: str
    caller: Caller = ANYONE
    body: bytes = b""


async def decide(call: Call) -> Answer:
    started = perf_counter()
    served = call.served
    decision = await served.decider.decide(served.opaque(call.body))
    answer = Answer(200, msgspec.json.encode(decision), headers=NO_STORE)
    served.metrics.decided(decision, perf_counter() - started)
    return answer


async def decide_batch(call: Call) -> Answer:
    """Each transaction is answered on its own, in its place; a problem of one leaves the others alone."""
    started = perf_counter()
    served, sent = call.served, parse_batch(call.body)
    _counted(call, "decisions", len(sent))
    opaque = [_or_error(partial(served.opaque, item)) for item in sent]
    decided = iter(await served.decider.decide_all([one for one in opaque if isinstance(one, bytes)]))
    found = [next(decided) if isinstance(one, bytes) else one for one in opaque]
    seconds = (perf_counter() - started) / len(sent)
    items = []
    for one in found:
        if isinstance(one, Decision):
            served.metrics.decided(one, seconds)
            items.append(BatchItem(decision=one))
        else:
            items.append(BatchItem(problem=_refused(call, one)))
    return Answer(200, msgspec.json.encode(BatchAnswer(items)), headers=NO_STORE)


async def learn(call: Call) -> Answer:
    return Answer(202, msgspec.json.encode(await _learned(call, call.body)), headers=NO_STORE)


async def learn_batch(call: Call) -> Answer:
    """As `decide_batch`: each event is taken in, or not, on its own."""
    sent = parse_label_batch(call.body)
    _counted(call, "labels", len(sent))
    items = []
    for event in sent:
        try:
            items.append(LabelItem(label=await _learned(call, event)))
        except (RequestError, StoreError, DecisionLogError) as error:
            items.append(LabelItem(problem=_refused(call, error)))
    return Answer(202, msgspec.json.encode(LabelBatchAnswer(items)), headers=NO_STORE)


async def find(call: Call) -> Answer:
    transaction_id = call.path.split("/", 3)[3]
    decision = await call.served.decider.decision(transaction_id) if _may_be_id(transaction_id) else None
    if decision is None:
        return problem(404, "no decision on this transaction_id")
    return Answer(200, msgspec.json.encode(decision), headers=NO_STORE)


async def switch(call: Call) -> Answer:
    """A bundle is checked before it is wanted: one that does not hold is refused, and the old one stays."""
    decider, wanted = call.served.decider, parse_bundle_id(call.body)
    try:
        taken = await decider.want(wanted)
    except BundleError as error:
        raise RequestError("id", wanted, f"is no bundle to go on with: {error}") from None
    return Answer(202, msgspec.json.encode(BundleTaken(taken, decider.bundle.id)), headers=NO_STORE)


async def alive(_: Call | None) -> Answer:
    return Answer(200, msgspec.json.encode(Alive()))


async def ready(call: Call) -> Answer:
    return Answer(200, msgspec.json.encode(Ready(call.served.decider.bundle.id)))


async def metrics(call: Call) -> Answer:
    counted = call.served.metrics
    counted.waiting(call.served.decider.waiting)
    return Answer(200, counted.exposition(), counted.content_type.encode())


async def document(call: Call) -> Answer:
    return Answer(200, _documents(call.served)["json"])


async def page(call: Call) -> Answer:
    return Answer(200, _documents(call.served)["html"], b"text/html; charset=utf-8", PAGE_HEADERS)


def _documents(served: Served) -> dict[str, bytes]:
    """Made once for a bundle, since its extra inputs are part of them."""
    bundle = served.decider.bundle
    if served.documents.get("bundle") != bundle.id.encode():
        names = [feature.name for feature in bundle.contract.features if feature.name.startswith("extra_")]
        extras = sorted(name.removeprefix("extra_") for name in names)
        made = openapi_document(extras, served.settings, has_raw=served.tokeniser is not None)
        html = openapi_page(made).encode()
        served.documents = {"bundle": bundle.id.encode(), "json": msgspec.json.encode(made), "html": html}
    return served.documents


async def _learned(call: Call, body: bytes) -> LabelTaken:
    event, is_known = await call.served.decider.learn(body)
    call.served.metrics.learned(event, is_known)
    return LabelTaken(event.transaction_id, event.source, event.outcome, event.known_at, is_known)


def _or_error(ask: Callable[[], Result]) -> Result | FraudPlatformError:
    try:
        return ask()
    except (RequestError, StoreError, DecisionLogError) as error:
        return error


def _counted(call: Call, kind: str, items: int) -> None:
    """A batch counts as many times as it has items, in metrics and against the rate of its key."""
    call.served.metrics.batch(kind, items)
    if call.caller.bucket is not None:
        call.caller.bucket.charge(items - 1)


def _refused(call: Call, error: FraudPlatformError) -> Problem:
    found = problem_of(error)
    call.served.metrics.refused(found.status)
    return found


def _without_raw(request: bytes) -> bytes:
    try:
        loaded = msgspec.json.decode(request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return request
    if isinstance(loaded, dict) and RAW in loaded:
        rule = "is not taken: the service has no token key (FRAUD_PLATFORM_TOKEN_KEY_FILE)"
        raise RequestError(RAW, None, rule)
    return request


def _may_be_id(text: str) -> bool:
    """Whether a path can name a transaction: no id is a card number, or no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not holds_card_number(text)
