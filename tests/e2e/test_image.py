"""The service's image, really built and run: locked down, killed, started again on the same volume.

Base image, build and containers are `tests/containers.py`'s; about two minutes where no base is cached.
"""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest

from fraud_platform.adapters.bento import build_bento
from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
from fraud_platform.adapters.decision_log import verify
from fraud_platform.adapters.image import BENTO_PLACE, STATE, USER, BuiltImage
from fraud_platform.adapters.journal import read_decisions
from fraud_platform.cli.instance import INSTANCE_YAML
from fraud_platform.features.contract import load_contract
from fraud_platform.package import BundleParts
from fraud_platform.settings import PROJECT_ROOT, Settings
from tests.conftest import Cli
from tests.containers import BASE, Container, Engine, missing_programs

pytestmark = pytest.mark.e2e

Build = Callable[..., dict[str, Any]]
SETTINGS = {
    "FRAUD_PLATFORM_KEYS": "none",
    "FRAUD_PLATFORM_DEADLINE_MS": "5000",  # the machine of the tests is busy
}
SENDERS = 4
START_MS = 10**12
COUNT = load_contract().index("card_txn_count_24h")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    reason = missing_programs()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"image: {reason}")
    engine = Engine(tmp_path_factory.mktemp("containers") / "engine")
    try:
        engine.load_base()
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory, tiny_parts: BundleParts) -> Path:
    home = tmp_path_factory.mktemp("bento")
    bundle = build_bundle(tiny_parts, home / "bundles")
    return build_bento(bundle_path(home / "bundles", bundle.id), home / "bentoml").path


@pytest.fixture(scope="module")
def image(engine: Engine, bento: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """What `make image` calls, where the asset package/bento says that this Bento was the last."""
    settings = Settings(tmp_path_factory.mktemp("var"))
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_text(INSTANCE_YAML)
    built = dg.AssetMaterialization(["package", "bento"], metadata={"path": str(bento)})
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        instance.report_runless_asset_event(built)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine.env.items():
            patch.setenv(name, value)
        printed = Cli(settings.var, bento)(
            *("image", "--backend", "buildah", "--base", BASE, "--tag", "localhost/fraud_platform"),
            *("--opt", "network=host", "--opt", "pull-never"),
        )
    found = re.fullmatch(r"(\S+)  (\d+ MB)  \d+ s\nid ([0-9a-f]{64})\n", printed)
    assert found, printed
    return BuiltImage(reference=found[1], size=found[2], id=found[3])


@pytest.fixture(scope="module")
def service(engine: Engine, image: BuiltImage) -> Container:
    """A running service on a volume that a container engine made: nobody prepared it."""
    started = engine.start(image.reference, "--volume", f"shared:{STATE}", env=SETTINGS)
    started.wait_until_ready()
    return started


def state_of(engine: Engine, volume: str) -> Path:
    return Path(engine.podman("volume", "inspect", "--format", "{{.Mountpoint}}", volume))


def ask(url: str, content: object = None) -> dict[str, Any]:
    body = None if content is None else msgspec.json.encode(content)
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return msgspec.json.decode(answer.read())


def test_the_image_says_what_it_is_and_how_to_run_it(engine: Engine, image: BuiltImage, bento: Path) -> None:
    said = msgspec.json.decode(engine.podman("image", "inspect", image.reference))[0]
    config = said["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["ExposedPorts"] == {"3000/tcp": {}}
    assert not config.get("Volumes"), "an anonymous volume would hide that none was mounted"
    assert f"FRAUD_PLATFORM_STATE={STATE}" in config["Env"]
    assert config["Labels"]["fraud_platform.bento"] == f"fraud_platform:{bento.name}"
    assert config["Labels"]["fraud_platform.bundle"] == bento.name.partition("-")[0]
    assert said["Healthcheck"]["Test"][-1] == "health"
    assert (image.reference, image.id) == (f"localhost/fraud_platform:{bento.name}", said["Id"])


def test_the_container_can_change_nothing_but_its_state(service: Container) -> None:
    assert service.run("id", "-u").stdout.strip() == str(USER)
    status = dict(line.split(":\t") for line in service.run("cat", "/proc/1/status").stdout.splitlines())
    assert set(status["Uid"].split()) == {str(USER)}
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    for place in ("/", BENTO_PLACE, f"{BENTO_PLACE}/src", "/app/.venv", "/etc"):
        assert "Read-only" in service.run("touch", f"{place}/new").stderr
    assert service.run("touch", f"{STATE}/new", "/tmp/new").returncode == 0
    assert service.run("rm", f"{STATE}/new").returncode == 0
    limit = service.run(
        "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    )
    assert limit.stdout.strip() == str(1 << 30)


def test_the_code_is_not_the_user_s_even_where_the_container_may_write(service: Container) -> None:
    places = f"/app {BENTO_PLACE} /usr /etc"
    looked = service.run(
        "sh", "-c", f"find {places} -not -type l '(' -not -uid 0 -o -perm /o+w ')' 2>/dev/null; echo done"
    )
    assert looked.stdout == "done\n"


def test_the_container_holds_all_it_needs_and_no_compiler(service: Container) -> None:
    assert f"code {BENTO_PLACE}/src/fraud_platform," in service.log()
    assert service.run("test", "-e", str(PROJECT_ROOT)).returncode == 1
    found = service.run("sh", "-c", "command -v gcc git make; echo none").stdout
    assert found == "none\n"
    listed = service.run("python", "-c", "import pandas").stderr
    assert "No module named 'pandas'" in listed


def test_the_health_check_follows_the_service(service: Container) -> None:
    check = ("python", "-m", "fraud_platform.adapters.image_start", "health")
    assert service.run(*check).returncode == 0
    assert service.run("env", "BENTOML_PORT=1", *check).returncode == 1


def test_a_killed_container_loses_nothing_that_was_answered(
    engine: Engine, image: BuiltImage, transaction_request: Build
) -> None:
    mount = ("--volume", f"killed:{STATE}")
    first = engine.start(image.reference, *mount, env=SETTINGS)
    first.wait_until_ready()
    answers: list[dict[str, Any]] = []
    numbers = count()

    def send() -> None:
        while True:
            number = next(numbers)
            request = transaction_request(transaction_id=f"t{number}", event_time=START_MS + number)
            try:
                answers.append(ask(f"{first.url}/v1/decisions", request))
            except (OSError, urllib.error.URLError):
                return

    with ThreadPoolExecutor(SENDERS) as senders:
        running = [senders.submit(send) for _ in range(SENDERS)]
        while len(answers) < 100 and not any(sender.done() for sender in running):
            time.sleep(0.02)
        assert first.kill("KILL") == 137
    assert len(answers) >= 100

    second = engine.start(image.reference, *mount, env=SETTINGS)
    second.wait_until_ready()
    for answer in answers:
        found = ask(f"{second.url}/v1/decisions/{answer['transaction_id']}")
        assert found == {**answer, "is_repeat": True}
    again = transaction_request(transaction_id=answers[0]["transaction_id"], event_time=START_MS)
    again["event_time"] += int(again["transaction_id"].removeprefix("t"))
    assert ask(f"{second.url}/v1/decisions", again) == {**answers[0], "is_repeat": True}
    last = transaction_request(transaction_id="last", event_time=START_MS + 10**6)
    assert ask(f"{second.url}/v1/decisions", last)["tier"] == "model"

    assert second.kill("TERM") == 0
    assert re.search("Completed (async )?cleanup hook: close", second.log())
    state = state_of(engine, "killed")
    records = {logged.record.transaction_id: logged.record for logged in read_decisions(state)}
    assert sum(verify(state / "decisions").values()) == len(records)
    assert {answer["transaction_id"] for answer in answers} <= records.keys()
    vector = records["last"].vector
    assert vector is not None
    unanswered = int(vector[COUNT]) - len(answers)  # type: ignore[arg-type]
    assert 0 <= unanswered <= SENDERS, "the store went on from what it had seen before the kill"


def test_several_workers_share_the_state(
    engine: Engine, image: BuiltImage, transaction_request: Build
) -> None:
    env = {**SETTINGS, "FRAUD_PLATFORM_WORKERS": "2", "FRAUD_PLATFORM_OPEN_METRICS": "1"}
    several = engine.start(image.reference, "--volume", f"several:{STATE}", env=env)
    several.wait_until_ready()
    requests = [transaction_request(transaction_id=f"w{n}", event_time=START_MS + n) for n in range(40)]
    for request in requests:
        ask(f"{several.url}/v1/decisions", request)
    for request in requests:
        assert ask(f"{several.url}/v1/decisions/{request['transaction_id']}")["is_repeat"]
    with urllib.request.urlopen(f"{several.url}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    counted = [line.rpartition(" ")[2] for line in lines if line.startswith("fraud_decisions_total{")]
    assert sum(map(float, counted)) == len(requests)
    assert several.kill("TERM") == 0
    chains = [path for path in (state_of(engine, "several") / "decisions").iterdir() if path.is_dir()]
    assert len(chains) >= 2


@pytest.mark.parametrize(
    ("options", "env", "said"),
    [
        ((), {}, f"mount a volume at {STATE}"),
        (("--volume", "{folder}:" + STATE), {}, f"{STATE} cannot be written by user {USER}"),
        (("--volume", f"refused:{STATE}"), {"FRAUD_PLATFORM_STATE": ""}, "FRAUD_PLATFORM_STATE is not set"),
        (
            ("--volume", f"refused:{STATE}"),
            {"FRAUD_PLATFORM_TOKEN_KEY_FILE": "/run/secrets/token"},
            "FRAUD_PLATFORM_TOKEN_KEY_FILE=/run/secrets/token cannot be read",
        ),
        (
            ("--volume", f"refused:{STATE}"),
            {"FRAUD_PLATFORM_WORKERS": "many"},
            "FRAUD_PLATFORM_WORKERS='many'",
        ),
    ],
    ids=["no volume", "somebody else's volume", "no state", "no secret", "workers"],
)
def test_what_is_wrong_is_said_once_and_the_container_ends(
    engine: Engine,
    image: BuiltImage,
    tmp_path: Path,
    options: tuple[str, ...],
    env: dict[str, str],
    said: str,
) -> None:
    given = [option.format(folder=tmp_path) for option in options]
    refused = engine.start(image.reference, *given, env={**SETTINGS, **env})
    assert refused.wait_until_ended() == os.EX_CONFIG
    line = refused.log()
    assert line.startswith("error: ")
    assert said in line
    assert line.count("\n") == 1
