from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fraud_platform.adapters.http import Api
from fraud_platform.adapters.http_limits import BATCH_BYTES_MAX, BODY_BYTES_MAX
from fraud_platform.adapters.http_settings import HttpSettings
from fraud_platform.adapters.journal import Journal, read_decisions, read_labels
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.errors import DecisionLogError
from fraud_platform.package import BundleParts
from fraud_platform.serve import DecisionRecord
from tests.asgi import JSON as JSON_TYPE
from tests.asgi import Answered, ask, online_service

NOW_MS = 1_790_000_000_000
LABEL = {"transaction_id": "t1", "source": "chargeback", "outcome": "fraud", "known_at": NOW_MS}
Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def api(tiny_parts: BundleParts, state: Path) -> Iterator[Api]:
    with online_service(tiny_parts, state, NOW_MS) as service:
        api = Api()
        api.start(service, Metrics())
        yield api


def post(api: Api, path: str, content: object) -> Answered:
    return ask(api, "POST", path, content)


def get(api: Api, path: str) -> Answered:
    return ask(api, "GET", path)


def count(state: Path) -> tuple[int, int]:
    return sum(1 for _ in read_decisions(state)), sum(1 for _ in read_labels(state))


def test_a_decision_is_answered_repeated_and_found(api: Api, transaction_request: Build) -> None:
    first = post(api, "/v1/decisions", transaction_request())
    again = post(api, "/v1/decisions", transaction_request())
    found = get(api, "/v1/decisions/t1")
    assert (first.status, again.status, found.status) == (200, 200, 200)
    assert again.json == {**first.json, "is_repeat": True}
    assert found.json == again.json
    assert first.json.keys() >= {"action", "probability", "reasons", "tier", "bundle_id", "decided_at"}


def test_other_content_under_a_known_id_is_a_conflict(api: Api, transaction_request: Build) -> None:
    post(api, "/v1/decisions", transaction_request(transaction_id="t-conflict"))
    answer = post(api, "/v1/decisions", transaction_request(transaction_id="t-conflict", amount_minor=5))
    assert (answer.status, answer.json["field"]) == (409, "transaction_id")


def test_an_event_that_is_too_old_to_be_exact_is_refused(api: Api, transaction_request: Build) -> None:
    """Once answered as if the service were out of order: a client would have asked again for ever."""
    day = 86_400_000
    keys = {"card_id": "old-card", "merchant_id": "old-shop"}
    for number, age in enumerate((90, 60, 20, 0)):
        request = transaction_request(transaction_id=f"t-age{number}", event_time=NOW_MS - age * day, **keys)
        assert post(api, "/v1/decisions", request).status == 200
    late = transaction_request(transaction_id="t-too-late", event_time=NOW_MS - 80 * day, **keys)
    answer = post(api, "/v1/decisions", late)
    assert (answer.status, answer.json["field"]) == (422, "event_time")
    assert get(api, "/v1/decisions/t-too-late").status == 404


def test_a_problem_names_field_value_and_rule(api: Api, transaction_request: Build) -> None:
    answer = post(api, "/v1/decisions", transaction_request(currency="EURO"))
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    said = answer.json
    assert (said["field"], said["value"], said["status"]) == ("currency", "EURO", 422)
    assert "ISO 4217" in said["rule"]


def test_a_label_is_taken_in_and_logged(api: Api, state: Path, transaction_request: Build) -> None:
    post(api, "/v1/decisions", transaction_request())
    assert [post(api, "/v1/labels", LABEL).status for _ in range(2)] == [202, 202]
    assert [msgspec.to_builtins(one.record.event) for one in read_labels(state)] == [LABEL]
    assert post(api, "/v1/labels", LABEL).json == {**LABEL, "is_transaction_known": True}
    assert post(api, "/v1/labels", {**LABEL, "outcome": "x"}).status == 422


def test_a_label_on_an_unknown_transaction_is_kept_and_said_to_be(api: Api, state: Path) -> None:
    before = count(state)[1]
    answer = post(api, "/v1/labels", {**LABEL, "transaction_id": "decided elsewhere"})
    assert (answer.status, answer.json["is_transaction_known"]) == (202, False)
    assert count(state)[1] == before + 1
    assert b"fraud_labels_unknown_total 1.0" in get(api, "/metrics").body


def test_a_label_from_before_its_transaction_is_refused(
    api: Api, state: Path, transaction_request: Build
) -> None:
    request = transaction_request(transaction_id="t-early-label")
    post(api, "/v1/decisions", request)
    label = {**LABEL, "transaction_id": "t-early-label", "known_at": request["event_time"]}
    before = count(state)
    answer = post(api, "/v1/labels", {**label, "known_at": request["event_time"] - 1})
    assert (answer.status, answer.json["field"]) == (422, "known_at")
    assert "before the transaction's event_time" in answer.json["rule"]
    assert count(state) == before
    assert post(api, "/v1/labels", label).status == 202


def test_each_transaction_of_a_batch_is_answered_on_its_own(
    api: Api, state: Path, transaction_request: Build
) -> None:
    good, late = (transaction_request(transaction_id=f"t-batch{n}") for n in (1, 2))
    bad = transaction_request(transaction_id="t-batch-bad", currency="euro")
    other = {**good, "amount_minor": 1}
    before = count(state)[0]
    answer = post(api, "/v1/decisions/batch", {"transactions": [good, bad, late, good, other, 7, None]})
    assert answer.status == 200
    results = answer.json["results"]
    assert [list(one) for one in results] == [["decision"], ["problem"]] + [["decision"]] * 2 + [
        ["problem"]
    ] * 3
    assert [one["problem"]["status"] for one in results if "problem" in one] == [422, 409, 422, 422]
    assert results[1]["problem"]["field"] == "currency"
    assert results[3]["decision"] == {**results[0]["decision"], "is_repeat": True}
    assert get(api, "/v1/decisions/t-batch2").json["is_repeat"]
    assert count(state)[0] == before + 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "transactions"),
        ([], "body"),
        ({"transactions": []}, "transactions"),
        ({"transactions": [{}] * 101}, "transactions"),
        ({"transactions": [{}], "more": 1}, "more"),
        (b'{"transactions": [{]}', "body"),
    ],
)
def test_a_batch_that_is_none_is_refused_as_a_whole(api: Api, body: object, field: str) -> None:
    answer = post(api, "/v1/decisions/batch", body)
    assert (answer.status, answer.json["field"]) == (422, field)


def test_labels_come_in_batches_too(api: Api, state: Path) -> None:
    labels = [{**LABEL, "transaction_id": f"t-many{n}"} for n in range(3)]
    before = count(state)[1]
    answer = post(api, "/v1/labels/batch", {"labels": [*labels, {**LABEL, "outcome": "perhaps"}, labels[0]]})
    assert answer.status == 202
    assert [list(one) for one in answer.json["results"]] == [["label"]] * 3 + [["problem"], ["label"]]
    assert count(state)[1] == before + 3
    assert post(api, "/v1/labels/batch", {"labels": [LABEL] * 1001}).status == 422


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
        ("HEAD", "/readyz", 200),
        ("HEAD", "/v1/labels", 405),
        ("OPTIONS", "/v1/decisions", 204),
        ("OPTIONS", "/nowhere", 404),
        ("GET", "/v1/decisions/tx-4111-1111-1111-1111", 404),
        ("GET", "/v1/decisions/\udcff", 404),
        ("GET", "/v1/decisions/", 404),
        ("GET", "/4111111111111111", 404),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
    ],
)
def test_paths_and_methods(api: Api, method: str, path: str, status: int) -> None:
    answer = ask(api, method, path)
    assert answer.status == status
    assert b"4111" not in answer.body


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/v1/decisions", BODY_BYTES_MAX),
        ("/v1/labels", BODY_BYTES_MAX),
        ("/v1/decisions/batch", BATCH_BYTES_MAX),
        ("/v1/labels/batch", BATCH_BYTES_MAX),
    ],
)
def test_a_body_that_is_too_large_is_refused_before_it_is_read(api: Api, path: str, most: int) -> None:
    part = {"type": "http.request", "body": b" " * (most // 2 + 1), "more_body": True}
    messages = [dict(part) for _ in range(9)]
    streamed = ask(api, "POST", path, messages=messages)
    named = ask(api, "POST", path, headers={**JSON_TYPE, "content-length": str(most + 1)}, messages=[])
    whole = ask(api, "POST", path, b" " * (most + 1))
    at_most = ask(api, "POST", path, b" " * most)
    assert [one.status for one in (streamed, named, whole, at_most)] == [413, 413, 413, 422]
    assert streamed.headers["connection"] == named.headers["connection"] == "close"


def test_a_path_tells_what_it_allows(api: Api) -> None:
    asked = {path: ask(api, "OPTIONS", path) for path in ("/v1/labels", "/v1/decisions/t1")}
    allowed = {path: answer.headers["allow"] for path, answer in asked.items()}
    assert allowed == {"/v1/labels": "POST, OPTIONS", "/v1/decisions/t1": "GET, HEAD, OPTIONS"}
    assert ask(api, "PUT", "/v1/labels").headers["allow"] == "POST, OPTIONS"


def test_head_is_get_without_its_body(api: Api) -> None:
    head, whole = ask(api, "HEAD", "/readyz"), get(api, "/readyz")
    assert (head.status, head.headers, head.body) == (200, whole.headers, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/x-www-form-urlencoded"},
    ],
)
def test_a_body_that_is_not_said_to_be_json_is_not_read(api: Api, headers: dict[str, str]) -> None:
    assert ask(api, "POST", "/v1/decisions", headers=headers, messages=[]).status == 415


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"'])
def test_json_in_utf_8_may_be_said_in_several_ways(api: Api, kind: str) -> None:
    assert ask(api, "POST", "/v1/decisions", b"{}", {"content-type": kind}).status == 422


def test_a_query_is_refused_and_not_repeated(api: Api, transaction_request: Build, caplog: Any) -> None:
    query = b"card=4111111111111111"
    answers = [
        ask(api, "POST", "/v1/decisions", transaction_request(), query=query),
        ask(api, "GET", "/v1/decisions/t1", query=query),
    ]
    assert [answer.status for answer in answers] == [400, 400]
    assert b"4111" not in answers[0].body + answers[1].body
    assert "4111" not in caplog.text
    assert [ask(api, "GET", path, query=query).status for path in ("/livez", "/metrics")] == [200, 200]


def test_a_body_that_does_not_arrive_in_time_is_not_waited_for(api: Api, tmp_path: Path) -> None:
    slow = Api()
    slow.start(api._served.decider, Metrics(), HttpSettings(body_seconds=0.05))  # type: ignore[union-attr]
    part = {"type": "http.request", "body": b"{", "more_body": True}
    for messages in ([], [part]):
        answer = ask(slow, "POST", "/v1/decisions", messages=messages)
        assert (answer.status, answer.headers["connection"]) == (408, "close")


def test_a_client_that_went_away_is_not_answered_and_leaves_nothing(
    api: Api, state: Path, transaction_request: Build
) -> None:
    body = msgspec.json.encode(transaction_request(transaction_id="t-gone"))
    parts = [{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}]
    before = count(state)
    assert ask(api, "POST", "/v1/decisions", messages=parts).status == 0
    assert count(state) == before


def test_more_requests_than_may_be_at_work_are_told_to_wait(api: Api, transaction_request: Build) -> None:
    busy = Api()
    busy.start(api._served.decider, Metrics(), HttpSettings(concurrent_max=1))  # type: ignore[union-attr]

    async def both() -> list[int]:
        released = asyncio.Event()
        statuses = []

        async def slow() -> dict[str, Any]:
            await released.wait()
            return {"type": "http.request", "body": b"{}"}

        async def quick() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: dict[str, Any]) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/decisions",
            "headers": headers,
            "client": None,
        }
        first = asyncio.create_task(busy(scope, slow, send))
        await asyncio.sleep(0)
        await busy(scope, quick, send)
        assert b"fraud_requests_in_flight 1.0" in busy._served.metrics.exposition()  # type: ignore[union-attr]
        released.set()
        await first
        await busy(scope, quick, send)
        return statuses

    assert asyncio.run(both()) == [503, 422, 422]


def test_an_error_of_the_service_is_answered_and_its_text_is_not_logged(
    api: Api, transaction_request: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Journal, record: DecisionRecord) -> None:
        raise ValueError("4111 1111 1111 1111")

    monkeypatch.setattr(Journal, "append", broken)
    answer = post(api, "/v1/decisions", transaction_request(transaction_id="t-broken"))
    assert (answer.status, answer.json["faults"]) == (200, ["internal"])
    monkeypatch.setattr(Journal, "find", broken)
    lost = get(api, "/v1/decisions/t-lost")
    assert (lost.status, lost.headers["content-type"]) == (500, "application/problem+json")
    assert "ValueError" in caplog.text
    assert "1111" not in caplog.text + answer.body.decode() + lost.body.decode()


def test_without_a_bundle_it_is_alive_but_not_ready() -> None:
    api = Api()
    statuses = [get(api, path).status for path in ("/livez", "/readyz", "/metrics")]
    assert statuses == [200, 503, 503]


def test_a_decision_that_the_log_cannot_take_is_answered_and_says_so(
    api: Api, transaction_request: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, record: DecisionRecord) -> None:
        raise DecisionLogError("disk full")

    monkeypatch.setattr(Journal, "append", full)
    answer = post(api, "/v1/decisions", transaction_request(transaction_id="t-unrecorded"))
    assert (answer.status, answer.json["faults"]) == (200, ["log_down"])
    assert b'fraud_faults_total{fault="log_down"} 1.0' in get(api, "/metrics").body
    monkeypatch.undo()
    answer = post(api, "/v1/decisions", transaction_request(transaction_id="t-unrecorded"))
    assert (answer.status, answer.json["is_repeat"]) == (200, True)


def test_metrics_count_decisions_and_refusals(api: Api, transaction_request: Build) -> None:
    post(api, "/v1/decisions", transaction_request(transaction_id="t-metrics"))
    post(api, "/v1/decisions", b"{")
    said = get(api, "/metrics").body.decode()
    assert 'fraud_decisions_total{action="' in said
    assert 'fraud_requests_refused_total{status="422"}' in said
    assert "fraud_decision_seconds_bucket" in said


def test_what_was_answered_is_a_whole_chain(api: Api, state: Path) -> None:
    records = [record.sequence for record in read_decisions(state)]
    assert records == list(range(1, len(records) + 1))
