"""A Bento, built and served as its own process: the same code path as in production."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from fraud_platform.adapters.bento import BuiltBento, build_bento, requirements
from fraud_platform.adapters.bento_server import RunningService, ServiceError, free_port, start_service
from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
from fraud_platform.adapters.decision_log import verify
from fraud_platform.adapters.journal import read_decisions
from fraud_platform.adapters.keys_file import add_key, revoke_key
from fraud_platform.adapters.service import DEADLINE_VARIABLE
from fraud_platform.errors import BundleError
from fraud_platform.package import BundleParts
from tests.faults import PATIENT_MS

Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """Services get their environment from this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DEADLINE_VARIABLE, str(PATIENT_MS))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bento")


@pytest.fixture(scope="module")
def bundle_dir(home: Path, tiny_parts: BundleParts) -> Path:
    bundle = build_bundle(tiny_parts, home / "bundles")
    return bundle_path(home / "bundles", bundle.id)


@pytest.fixture(scope="module")
def bento(home: Path, bundle_dir: Path) -> BuiltBento:
    return build_bento(bundle_dir, home / "bentoml")


@pytest.fixture(scope="module")
def service(home: Path, bento: BuiltBento) -> Iterator[RunningService]:
    with start_service(bento.path, free_port(), home / "state") as service:
        yield service


def ask(
    service: RunningService, path: str, content: object = None, key: str = ""
) -> tuple[int, dict[str, Any], str]:
    """Status, JSON body and content type; a POST when there is content."""
    body = None if content is None else msgspec.json.encode(content)
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(service.url + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, msgspec.json.decode(answer.read()), answer.headers["content-type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, msgspec.json.decode(error.read()), error.headers["content-type"]


def test_the_bento_is_built_once(home: Path, bundle_dir: Path, bento: BuiltBento) -> None:
    again = build_bento(bundle_dir, home / "bentoml")
    assert (bento.is_new, again.is_new) == (True, False)
    assert (again.tag, again.path) == (bento.tag, bento.path)


def test_the_bento_pins_what_it_needs_and_nothing_of_training(bento: BuiltBento) -> None:
    pinned = (bento.path / "env" / "python" / "requirements.txt").read_text().splitlines()
    assert set(requirements()) <= set(pinned)
    assert not [
        line for line in pinned if line.startswith(("pandas", "scikit", "duckdb", "dagster", "mlflow"))
    ]


def test_every_module_comes_from_the_bento(bento: BuiltBento) -> None:
    """The environment also holds the repository's copy: what the Bento lacks would come from there."""
    script = (
        "import sys, service\n"
        "files = {n: m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'fraud_platform'}\n"
        "print(*(f'{name} {file}' for name, file in files.items()), sep='\\n')"
    )
    source = bento.path / "src"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=source, capture_output=True, text=True, check=True
    )
    found = dict(line.split(" ") for line in done.stdout.splitlines())
    assert {"fraud_platform.serve.decider", "fraud_platform.adapters.lmdb"} <= found.keys()
    assert [name for name, file in found.items() if not file.startswith(str(source))] == []


def test_the_served_process_runs_the_bentos_code(service: RunningService, bento: BuiltBento) -> None:
    assert f"code {bento.path}/src/fraud_platform," in service.log.read_text()


def test_a_decision_over_http(service: RunningService, transaction_request: Build) -> None:
    status, decision, kind = ask(service, "/v1/decisions", transaction_request(event_time=10**12))
    assert (status, kind) == (200, "application/json")
    assert decision["action"] in ("approve", "step_up", "decline")
    assert ask(service, "/v1/decisions/t1") == (200, {**decision, "is_repeat": True}, "application/json")


def test_a_problem_over_http(service: RunningService, transaction_request: Build) -> None:
    request = transaction_request(event_time=10**12, card_id="4111 1111 1111 1111")
    status, said, kind = ask(service, "/v1/decisions", request)
    assert (status, kind, said["field"]) == (422, "application/problem+json", "card_id")
    assert "1111" not in str(said)
    assert "1111 1111" not in service.log.read_text()


def test_a_card_number_in_a_path_or_a_query_is_neither_answered_nor_logged(service: RunningService) -> None:
    for path in (
        "/v1/decisions/4111111111111111",
        "/4111111111111111",
        "/v1/decisions/t1?card=4111111111111111",
    ):
        status, said, kind = ask(service, path)
        assert (status, kind) == (400 if "?" in path else 404, "application/problem+json")
        assert "4111" not in str(said)
    assert "4111" not in service.log.read_text()


def test_a_batch_and_the_document_over_http(service: RunningService, transaction_request: Build) -> None:
    request = transaction_request(event_time=10**12, transaction_id="b1")
    status, said, _ = ask(service, "/v1/decisions/batch", {"transactions": [request, {}]})
    assert (status, [list(one) for one in said["results"]]) == (200, [["decision"], ["problem"]])
    assert "/v1/decisions/batch" in ask(service, "/openapi.json")[1]["paths"]
    with urllib.request.urlopen(service.url + "/docs", timeout=60) as answer:
        page = answer.read().decode()
    assert "/v1/decisions/batch" in page
    assert "<script" not in page
    assert "://" not in page


def test_probes_labels_and_metrics(service: RunningService) -> None:
    label = {"transaction_id": "t1", "source": "chargeback", "outcome": "fraud", "known_at": 10**12 + 5}
    assert ask(service, "/v1/labels", label)[0] == 202
    for path in ("/livez", "/readyz", "/metrics"):
        with urllib.request.urlopen(service.url + path, timeout=60) as answer:
            assert answer.status == 200
            said = answer.read().decode()
    assert "fraud_decisions_total" in said
    assert ask(service, "/livez")[1] == {"status": "alive"}
    assert ask(service, "/readyz")[1].keys() == {"bundle_id", "status"}


def test_nothing_is_served_beside_the_documented_interface(service: RunningService) -> None:
    """The server's own pages and probes once came first, and told of an interface that was not this one."""
    for path in ("/", "/docs.json", "/schema.json", "/healthz", "/static_content/index.css"):
        assert ask(service, path)[::2] == (404, "application/problem+json")


def test_a_killed_worker_is_replaced_and_nothing_answered_is_lost(
    service: RunningService, home: Path, transaction_request: Build
) -> None:
    requests = [transaction_request(event_time=10**12 + n, transaction_id=f"k{n}") for n in range(20)]
    answers = [ask(service, "/v1/decisions", request)[1] for request in requests]
    os.kill(service.worker_pids()[0], signal.SIGKILL)
    again = [_patiently(service, request) for request in requests]
    assert again == [{**answer, "is_repeat": True} for answer in answers]
    recorded = [one.record.transaction_id for one in read_decisions(home / "state")]
    assert len(set(recorded)) == len(recorded)
    assert (
        ask(service, "/v1/decisions", transaction_request(event_time=10**12, transaction_id="k99"))[0] == 200
    )


def _patiently(service: RunningService, request: dict[str, Any]) -> dict[str, Any]:
    """Ask until the server that is starting again answers."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return ask(service, "/v1/decisions", request)[1]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_it_stops_what_it_started_and_starts_again_with_its_state(
    home: Path, bento: BuiltBento, transaction_request: Build
) -> None:
    state = home / "restarted"
    request = transaction_request(event_time=10**12)
    with start_service(bento.path, free_port(), state) as first:
        decision = ask(first, "/v1/decisions", request)[1]
        pids = [first.process.pid, *first.worker_pids()]
    assert len(pids) > 1
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert verify(state / "decisions") == {"worker-1": 1}
    with start_service(bento.path, free_port(), state) as second:
        assert ask(second, "/v1/decisions", request)[1] == {**decision, "is_repeat": True}


def test_a_service_asks_for_the_keys_that_the_environment_names(
    home: Path, bento: BuiltBento, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = home / "keys.yaml"
    key = add_key(keys, "reader", ["read"], date(2026, 1, 1), None, None)
    monkeypatch.setenv("FRAUD_PLATFORM_KEYS", str(keys))
    with start_service(bento.path, free_port(), home / "keyed") as service:
        assert ask(service, "/v1/decisions/t1")[0] == 401
        assert ask(service, "/v1/decisions/t1", key=key)[0] == 404
        assert ask(service, "/v1/labels", {}, key=key)[0] == 403
        revoke_key(keys, "reader", date(2026, 1, 1))
        deadline = time.monotonic() + 120
        while ask(service, "/v1/decisions/t1", key=key)[0] == 404:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert ask(service, "/v1/decisions/t1", key=key)[0] == 401
        assert key not in service.log.read_text()


def test_a_service_without_a_word_on_keys_refuses_to_start(home: Path, bento: BuiltBento) -> None:
    """As in a container: nothing but what the image sets is in the environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", str(bento.path), "--port", str(port)]
    env = {**kept, "BENTOML_DO_NOT_TRACK": "True", "FRAUD_PLATFORM_STATE": str(home / "unkeyed")}
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode not in (0, None)
    assert "FRAUD_PLATFORM_KEYS is not set: give a keys file" in done.stdout + done.stderr
    assert not (home / "unkeyed").exists()


def test_a_service_that_cannot_start_says_why(home: Path) -> None:
    with pytest.raises(ServiceError, match="not ready"):
        start_service(home / "no-such-bento", free_port(), home / "nothing", timeout_s=20)


def test_a_taken_port_is_refused_and_the_log_of_its_service_stays(home: Path) -> None:
    state = home / "taken"
    state.mkdir()
    (state / "service.log").write_text("what the first wrote\n")
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port}: something listens.*give another port"):
            start_service(home / "no-such-bento", port, state)
    with pytest.raises(ServiceError, match="not ready: it ended") as ended:
        start_service(home / "no-such-bento", port, state)
    assert "what the first wrote" not in str(ended.value)
    assert (state / "service.log").read_text().startswith("what the first wrote\n")


def test_an_answer_of_another_server_is_not_the_services(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_platform.adapters.bento_server._is_ready", _slowly_ready)
    with pytest.raises(ServiceError, match="it ended"):
        start_service(home / "no-such-bento", free_port(), home / "other")


def _slowly_ready(url: str) -> bool:
    """Another server's answer, after the process that was started has ended."""
    started = [one for one in psutil.Process().children() if _is_of_no_bento(one)]
    psutil.wait_procs(started, timeout=30)
    return True


def _is_of_no_bento(process: psutil.Process) -> bool:
    """A process that has just begun shows no words yet; one that has ended is not waited for."""
    try:
        words, has_ended = process.cmdline(), process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return not has_ended and (not words or any("no-such-bento" in word for word in words))


def test_a_damaged_bundle_makes_no_bento(home: Path, tiny_parts: BundleParts) -> None:
    bundle = build_bundle(tiny_parts, home / "damaged")
    folder = bundle_path(home / "damaged", bundle.id)
    (folder / "model.txt").write_text("other")
    with pytest.raises(BundleError, match=r"model\.txt"):
        build_bento(folder, home / "bentoml")
