"""The README's blocks run: every command line of the platform, the make targets, the mapping, the request."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
import urllib.request

import psutil
import pytest
from typer.main import get_command

from fraud_platform.adapters.bento_server import free_port
from fraud_platform.cli import TERMINATED, app
from fraud_platform.ingest import Mapping
from fraud_platform.serve.requests import parse_transaction
from fraud_platform.settings import PROJECT_ROOT

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
PROGRAM = ".venv/bin/fraud-platform"
NOW_MS = 1_790_000_000_000
READY_SECONDS, END_SECONDS = 180, 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[tuple[str, ...]]:
    """The arguments of every line of a shell block that calls the platform."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(PROGRAM + " ")]
    return [tuple(shlex.split(line, comments=True)[1:]) for line in lines]


def request_body() -> str:
    found = re.search(r"curl .*?-d '(\{.*?\})'", "\n".join(blocks("sh")), re.DOTALL)
    assert found
    return found[1]


def test_every_mention_of_a_command_names_one_that_exists() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(rf"{re.escape(PROGRAM)} ([a-z-]+)", README))
    assert named
    assert named <= set(known)


def test_every_make_target_exists() -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "ui", "bench", "lint"} <= named
    assert named <= targets


def test_the_mapping_is_one() -> None:
    (text,) = blocks("yaml")
    mapping = Mapping.from_yaml(text, "README.md")
    assert mapping.name == "mine"
    assert mapping.maturity_days == 45


def test_the_request_is_one() -> None:
    transaction = parse_transaction(request_body().encode(), NOW_MS)
    assert transaction.transaction_id == json.loads(request_body())["transaction_id"]


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"`((?:fraud_platform|dbt_project|expectations)/[\w/.]*)`|\]\((\w+\.md)\)", README)
    assert named
    for pair in named:
        assert (PROJECT_ROOT / (pair[0] or pair[1])).exists(), pair


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_runs(arguments: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    if arguments[0] == "serve":
        _serve(request)
        return
    if arguments[0] in ("benchmark", "search"):
        # Minutes of training: their own tests run them on small sets (test_evaluate_handbook.py,
        # test_evaluate_sparkov.py, test_learning_*.py, tests/integration/test_experiments.py).
        request.getfixturevalue("demo_run").cli(*arguments, "--help")
        return
    if arguments == ("parity",):
        # All events of a smaller world; tests/e2e/test_loop.py shows the tails.
        arguments = ("parity", "--dataset", "mine.yaml", "--no-tails")
    played = request.getfixturevalue("own_run" if "mine.yaml" in arguments else "demo_run")
    printed = played.cli(*_quicker(arguments), status=1 if arguments[0] == "approve" else 0)
    if arguments[0] == "approve":
        # So small a world has no model that saves money for certain: the command runs, and its gate refuses.
        assert printed.startswith("error: version 1 failed its gate")


def _quicker(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Fewer events to replay: the check of the same name has replayed them all in the demo."""
    return tuple("2000" if value == "100000" else value for value in arguments)


def _serve(request: pytest.FixtureRequest) -> None:
    """Serves on a port that is free, decides the README's request, and ends with all its processes."""
    cli, port = request.getfixturevalue("demo_run").cli, free_port()
    process = subprocess.Popen(
        cli.command("serve", "--port", str(port)), cwd=cli.cwd, env=cli.env, stdout=subprocess.DEVNULL
    )
    try:
        _until_ready(port, process)
        family = psutil.Process(process.pid).children(recursive=True)
        body = request_body().encode()
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/decisions", body, headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert json.loads(answer.read())["action"] in ("approve", "step_up", "decline")
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode == TERMINATED
    assert _ends(family), family
    assert "monitor/decisions: " in cli("monitor")


def _ends(family: list[psutil.Process]) -> bool:
    """Python's own resource tracker sees only after its parent has ended that it is needed no more."""
    deadline = time.monotonic() + END_SECONDS
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "serve ended before it was ready"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"serve was not ready in {READY_SECONDS} s")
