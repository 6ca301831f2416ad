from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_platform import package
from fraud_platform.adapters.http import BODY_BYTES_MAX, Answer, Api
from fraud_platform.adapters.journal import Journal, read_decisions, read_labels
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.errors import DecisionLogError
from fraud_platform.package import BundleParts
from fraud_platform.serve import Decider, DecisionRecord

NOW_MS = 1_790_000_000_000
LABEL = {"transaction_id": "t1", "source": "chargeback", "outcome": "fraud", "known_at": NOW_MS}
Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def api(tiny_parts: BundleParts, state: Path) -> Iterator[Api]:
    bundle = package.build(tiny_parts)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(LmdbStore.open(state / "store", bundle.contract))
        journal = stack.enter_context(Journal(state))
        decider = Decider(bundle, store, journal, lambda: NOW_MS)
        stack.callback(decider.close)
        api = Api()
        api.start(decider, Metrics())
        yield api


def post(api: Api, path: str, content: object) -> Answer:
    raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return api.answer("POST", path, raw)


def read(answer: Answer) -> dict[str, Any]:
    return msgspec.json.decode(answer.body)


def test_a_decision_is_answered_repeated_and_found(api: Api, transaction_request: Build) -> None:
    first = post(api, "/v1/decisions", transaction_request())
    again = post(api, "/v1/decisions", transaction_request())
    found = api.answer("GET", "/v1/decisions/t1", b"")
    assert (first.status, again.status, found.status) == (200, 200, 200)
    assert read(again) == {**read(first), "is_repeat": True}
    assert read(found) == read(again)
    assert read(first).keys() >= {"action", "probability", "reasons", "tier", "bundle_id", "decided_at"}


def test_other_content_under_a_known_id_is_a_conflict(api: Api, transaction_request: Build) -> None:
    post(api, "/v1/decisions", transaction_request(transaction_id="t-conflict"))
    answer = post(api, "/v1/decisions", transaction_request(transaction_id="t-conflict", amount_minor=5))
    assert (answer.status, read(answer)["field"]) == (409, "transaction_id")


def test_an_event_that_is_too_old_to_be_exact_is_refused(api: Api, transaction_request: Build) -> None:
    """Once answered as if the service were out of order: a client would have asked again for ever."""
    day = 86_400_000
    keys = {"card_id": "old-card", "merchant_id": "old-shop"}
    for number, age in enumerate((90, 60, 20, 0)):
        request = transaction_request(transaction_id=f"t-age{number}", event_time=NOW_MS - age * day, **keys)
        assert post(api, "/v1/decisions", request).status == 200
    late = transaction_request(transaction_id="t-too-late", event_time=NOW_MS - 80 * day, **keys)
    answer = post(api, "/v1/decisions", late)
    assert (answer.status, read(answer)["field"]) == (422, "event_time")
    assert api.answer("GET", "/v1/decisions/t-too-late", b"").status == 404


def test_a_problem_names_field_value_and_rule(api: Api, transaction_request: Build) -> None:
    answer = post(api, "/v1/decisions", transaction_request(currency="EURO"))
    assert (answer.status, answer.content_type) == (422, b"application/problem+json")
    said = read(answer)
    assert (said["field"], said["value"], said["status"]) == ("currency", "EURO", 422)
    assert "ISO 4217" in said["rule"]


def test_a_label_is_taken_in_and_logged(api: Api, state: Path) -> None:
    assert [post(api, "/v1/labels", LABEL).status for _ in range(2)] == [202, 202]
    assert [msgspec.to_builtins(one.record.event) for one in read_labels(state)] == [LABEL]
    assert post(api, "/v1/labels", {**LABEL, "outcome": "x"}).status == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/decisions", 405),
        ("POST", "/v1/decisions/t1", 405),
        ("DELETE", "/v1/labels", 405),
        ("GET", "/v1/decisions/unknown", 404),
        ("GET", "/v1/decisions/4111111111111111", 404),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
    ],
)
def test_paths_and_methods(api: Api, method: str, path: str, status: int) -> None:
    answer = api.answer(method, path, b"")
    assert answer.status == status
    assert b"4111" not in answer.body


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        size = len(chunks.pop())
        return {"type": "http.request", "body": b"x" * size, "more_body": bool(chunks)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    chunks = [b"x" * BODY_BYTES_MAX, b"x"]
    asyncio.run(api({"type": "http", "method": "POST", "path": "/v1/decisions"}, receive, send))
    assert sent[0]["status"] == 413


def test_without_a_bundle_it_is_alive_but_not_ready() -> None:
    api = Api()
    statuses = [api.answer("GET", path, b"").status for path in ("/livez", "/readyz", "/metrics")]
    assert statuses == [200, 503, 503]


def test_a_decision_that_cannot_be_recorded_is_not_answered(
    api: Api, transaction_request: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, record: DecisionRecord) -> None:
        raise DecisionLogError("disk full")

    monkeypatch.setattr(Journal, "append", full)
    answer = post(api, "/v1/decisions", transaction_request(transaction_id="t-unrecorded"))
    assert (answer.status, read(answer)["title"]) == (503, "Service Unavailable")
    monkeypatch.undo()
    answer = post(api, "/v1/decisions", transaction_request(transaction_id="t-unrecorded"))
    assert (answer.status, read(answer).get("is_repeat")) == (200, None)


def test_metrics_count_decisions_and_refusals(api: Api, transaction_request: Build) -> None:
    post(api, "/v1/decisions", transaction_request(transaction_id="t-metrics"))
    post(api, "/v1/decisions", b"{")
    said = api.answer("GET", "/metrics", b"").body.decode()
    assert 'fraud_decisions_total{action="' in said
    assert 'fraud_requests_refused_total{status="422"}' in said
    assert "fraud_decision_seconds_bucket" in said


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
FIELDS = ["transaction_id", "event_time", "card_id", "amount_minor", "currency", "latitude", "extras", "x"]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_a_refused_request_leaves_nothing_behind(
    api: Api, state: Path, transaction_request: Build, change: dict[str, Any]
) -> None:
    before = sum(1 for _ in read_decisions(state))
    answer = post(api, "/v1/decisions", transaction_request(**change))
    assert answer.status in (200, 409, 422)
    if answer.status != 200:
        assert sum(1 for _ in read_decisions(state)) == before


def test_what_was_answered_is_a_whole_chain(api: Api, state: Path) -> None:
    records = [record.sequence for record in read_decisions(state)]
    assert records == list(range(1, len(records) + 1))
