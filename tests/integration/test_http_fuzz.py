"""What is served is what the OpenAPI document says, whatever is sent, and a refused request leaves nothing.

FUZZ=10000 sends so many schema-driven requests instead of a few hundred.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from fraud_platform.adapters.http import BUNDLE, DECISIONS, LABELS, ROUTES, Api
from fraud_platform.adapters.http_settings import HttpSettings
from fraud_platform.adapters.journal import read_decisions, read_labels
from fraud_platform.adapters.keys_file import add_key
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.online import OnlineService
from fraud_platform.adapters.tokens import RAW_FIELDS
from fraud_platform.package import BundleParts
from tests.asgi import ask, online_service

NOW_MS = 1_790_000_000_000
TODAY = date(2026, 1, 1)
FUZZ = int(os.environ.get("FUZZ", "400"))
QUICKLY = {
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "allow_header_conformance",
)


@dataclass
class World:
    """A service with a bundle, a store, a journal and keys, and what it answered."""

    api: Api
    state: Path
    service: OnlineService
    key: str
    statuses: Counter[int] = field(default_factory=Counter)
    decided: int = 0
    learned: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": "application/json", "authorization": f"Bearer {self.key}"}

    @property
    def kept(self) -> tuple[int, int]:
        """What a request may change: the store's committed transactions and the bytes of the logs."""
        store = self.service._service.store
        assert isinstance(store, LmdbStore)
        with store.snapshot() as committed:
            sequence = committed.id()
        files = [*(self.state / "decisions").rglob("*"), *(self.state / "labels").rglob("*")]
        return sequence, sum(file.stat().st_size for file in files if file.is_file())

    def answered(self, path: str, status: int, body: bytes, before: tuple[int, int]) -> None:
        """Counts what was acknowledged; whatever was refused must have changed nothing."""
        self.statuses[status] += 1
        decided, learned = _acknowledged(path, status, body)
        self.decided += decided
        self.learned += learned
        if not decided and not learned:
            assert self.kept == before, (path, status, body)


def _acknowledged(path: str, status: int, body: bytes) -> tuple[int, int]:
    """New decisions, and label events new or not, that an answer acknowledges."""
    if status not in (200, 202) or not path.startswith((DECISIONS, LABELS)):
        return 0, 0
    said = msgspec.json.decode(body)
    if path.startswith(LABELS):
        return 0, sum("label" in one for one in said["results"]) if "results" in said else 1
    decisions = [
        one.get("decision", {"is_repeat": True}) for one in said.get("results", [{"decision": said}])
    ]
    return sum(not decision.get("is_repeat", False) for decision in decisions), 0


@pytest.fixture(scope="module")
def world(tiny_parts: BundleParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    state = tmp_path_factory.mktemp("fuzz")
    keys, token_key = state / "keys.yaml", state / "token.key"
    key = add_key(keys, "fuzz", ["decide", "label", "read"], TODAY, None, None)
    token_key.write_bytes(bytes(range(40)))
    with online_service(tiny_parts, state, NOW_MS) as service:
        api = Api()
        api.start(service, Metrics(), HttpSettings(keys=keys, token_key=token_key))
        yield World(api, state, service, key)


@pytest.fixture(scope="module")
def document(world: World) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", world.api)


def test_the_document_names_every_path_and_every_scope(world: World) -> None:
    said = ask(world.api, "GET", "/openapi.json").json
    assert said["openapi"] == "3.1.0"
    assert said["paths"].keys() == {*ROUTES, DECISIONS + "/{transaction_id}"}
    for path, route in ROUTES.items():
        operation = said["paths"][path][route.method.lower()]
        assert operation.get("security", []) == ([{"key": [route.scope]}] if route.scope else [])
        statuses = set(operation["responses"])
        assert ({"401", "403", "429"} <= statuses) == bool(route.scope)


def test_the_documents_examples_are_taken(world: World) -> None:
    for path, route in ROUTES.items():
        if route.method == "POST" and path != BUNDLE:  # no bundle has the example's id
            operation = ask(world.api, "GET", "/openapi.json").json["paths"][path]["post"]
            name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/")[-1]
            schema = ask(world.api, "GET", "/openapi.json").json["components"]["schemas"][name]
            before = world.kept
            answer = ask(world.api, "POST", path, schema["examples"][0], world.headers)
            world.answered(path, answer.status, answer.body, before)
            assert answer.status in (200, 202)
            assert not [one for one in answer.json.get("results", []) if "problem" in one]


def test_schema_driven_requests_get_what_the_document_says(world: World, document: Any) -> None:
    load_all_checks()
    checks = [CHECKS.get_one(name) for name in CHECKED]
    operations = [found.ok() for found in document.get_all_operations()]
    with_body = [operation for operation in operations if operation.body]
    share = FUZZ // (2 * len(with_body)) + 1
    for operation in operations:
        _fuzz(world, operation, GenerationMode.POSITIVE, share if operation.body else 10, checks)
    for operation in with_body:  # without a body nothing can be wrong
        _fuzz(world, operation, GenerationMode.NEGATIVE, share, checks)
    assert sum(world.statuses.values()) >= FUZZ
    assert not [status for status in world.statuses if status >= 500]
    assert {200, 202, 404, 422} <= world.statuses.keys()
    assert world.decided > 0
    assert world.learned > 0
    assert sum(1 for _ in read_decisions(world.state)) == world.decided
    assert 0 < sum(1 for _ in read_labels(world.state)) <= world.learned
    print(f"{sum(world.statuses.values())} requests: {sorted(world.statuses.items())}")
    print(f"{world.decided} decisions and {world.learned} label events acknowledged and kept")


def _fuzz(world: World, operation: Any, mode: GenerationMode, count: int, checks: list[Any]) -> None:
    is_batch = operation.path.endswith("/batch")
    chosen = [check for check in checks if not (is_batch and check.__name__ == "negative_data_rejection")]

    @settings(max_examples=count, **QUICKLY)
    @given(case=operation.as_strategy(generation_mode=mode), ages=st.lists(st.integers(0, 9), max_size=3))
    def send(case: Any, ages: list[int]) -> None:
        if mode == GenerationMode.POSITIVE:
            _plausible(case.body, ages)
        before = world.kept
        response = case.call(headers={"authorization": f"Bearer {world.key}"})
        case.validate_response(response, checks=chosen)
        world.answered(response.request.path_url, response.status_code, response.content, before)

    send()


def _plausible(body: Any, ages: list[int]) -> None:
    """Without some reasons of a refusal that the document cannot name: a clock that goes on, whole numbers
    that are written with a fraction, a field beside the raw id that it is made of."""
    if not isinstance(body, dict) or not ages:
        return
    for name in ("event_time", "known_at"):
        if name in body:
            body[name] = NOW_MS - 1000 * ages[0]
    if isinstance(body.get("amount_minor"), float):
        body["amount_minor"] = int(body["amount_minor"])
    if "raw" in body and ages[0] % 4:
        del body["raw"]
        body.setdefault("card_id", f"card-{ages[0]}")
    elif "raw" in body:
        body["raw"]["ip"] = f"192.0.2.{ages[0]}"
        for name in (RAW_FIELDS[kind] for kind in body["raw"]):
            body.pop(name, None)
    for items in ("transactions", "labels"):
        for item, age in zip(body.get(items, []), ages, strict=False):
            _plausible(item, [age])


CARD = b"4111111111111111"
ALONE = re.compile(rb"(?<!\d)" + CARD + rb"(?!\d)")
"""Between other digits it is a part of a longer number, which is nobody's card."""
FRAGMENTS = (
    *(sign.encode() for sign in "{}[]\",:-'"),
    *(b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-0.0", b"9" * 400, b"0.1e-400", b"/* */", b"\\x"),
    *(b"\\ud800", b"\\udc00\\ud800", b"\\u0000", b"\x00"),
    *(b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    *(b"[" * 3000, b'{"a":' * 3000, b'"card_id":"x"', CARD, b'"' + CARD + b'":1', b'"event_time":' + CARD),
    *(b'"%s":"%s"' % (name, CARD) for name in (b"card_id", b"currency", b"outcome", b"source", b"channel")),
    *(
        b'"raw":{"card_number":"' + CARD + b'"}',
        b'"extras":{"' + CARD + b'":1}',
        b'"latitude":' + CARD + b".0",
    ),
)
BODIES = ("/v1/decisions", "/v1/decisions/batch", "/v1/labels", "/v1/labels/batch")


@st.composite
def broken(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid body with pieces put in, cut out or doubled; or nothing but pieces."""
    body = draw(st.sampled_from([valid, b"", valid[:-1], b"[" + valid + b"]"]))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(body)))
        piece = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=6))
        body = body[:place] + piece + body[place + draw(st.sampled_from([0, 0, 1, 5])) :]
    return body


@pytest.mark.parametrize("path", BODIES)
def test_broken_bytes_are_refused_as_problems_and_no_card_number_is_kept_or_repeated(
    world: World, transaction_request: Any, path: str, capfd: Any, caplog: Any
) -> None:
    label = {"transaction_id": "t-bytes", "source": "chargeback", "outcome": "fraud", "known_at": NOW_MS}
    item = label if path.startswith(LABELS) else transaction_request(transaction_id="t-bytes")
    several = {"labels" if path.startswith(LABELS) else "transactions": [item]}
    valid = msgspec.json.encode(several if path.endswith("/batch") else item)

    @settings(max_examples=max(50, FUZZ // 8), **QUICKLY)
    @given(body=broken(valid))
    def send(body: bytes) -> None:
        before = world.kept
        answer = ask(world.api, "POST", path, body, world.headers)
        assert answer.status in (200, 202, 409, 413, 422), answer
        assert not ALONE.search(answer.body)
        kind = "application/json" if answer.status < 300 else "application/problem+json"
        assert answer.headers["content-type"] == kind
        assert msgspec.json.decode(answer.body)
        world.answered(path, answer.status, answer.body, before)

    send()
    printed = capfd.readouterr()
    assert CARD.decode() not in printed.out + printed.err + caplog.text
    assert not [file for file in world.state.rglob("*") if file.is_file() and ALONE.search(file.read_bytes())]


@pytest.mark.parametrize("path", [*ROUTES, DECISIONS + "/t1"])
def test_no_path_serves_who_has_no_key_that_fits(world: World, path: str) -> None:
    method = ROUTES[path].method if path in ROUTES else "GET"
    scope = ROUTES[path].scope if path in ROUTES else "read"
    if scope is None:
        assert ask(world.api, method, path, headers={}).status == 200
        return
    other = add_key(
        world.state / "other.yaml", f"admin{path.replace('/', '-')}", ["admin"], TODAY, None, None
    )
    unknown = [
        {},
        {"authorization": "Basic x"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {other}"},
    ]
    before = world.kept
    for headers in [
        *unknown,
        {"authorization": f"Bearer {world.key[:-1]}"},
        {"authorization": "Bearer \xff\x00"},
    ]:
        answer = ask(world.api, method, path, {}, headers)
        assert (answer.status, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
    assert world.kept == before
