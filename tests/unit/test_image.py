"""The image's own parts: what the second build writes, what a container checks before it serves."""

from __future__ import annotations

import ast
import os
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from fraud_platform.adapters import image_start
from fraud_platform.adapters.bento import requirements, source_files
from fraud_platform.adapters.image import ENVIRONMENT, ImageError, ImageSettings, build_image, containerfile
from fraud_platform.adapters.image_start import check_secret, check_state, main, worker_options
from fraud_platform.errors import SettingsError

INFO: dict[str, object] = {"version": "0123abc-456", "creation_time": "2026-01-01T00:00:00"}


def test_the_second_build_ends_as_a_user_without_a_name_and_without_a_shell() -> None:
    lines = containerfile("inner:1", "debian:12", INFO).splitlines()
    assert lines[:2] == ["FROM inner:1 AS bento", "FROM debian:12"]
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1034:1034"]
    assert lines[-1] == 'ENTRYPOINT ["/app/.venv/bin/python", "-m", "fraud_platform.adapters.image_start"]'
    assert 'LABEL fraud_platform.bundle="0123abc"' in lines
    assert not [line for line in lines if line.startswith("VOLUME")]


def test_what_a_container_starts_with_is_in_the_bento() -> None:
    assert "fraud_platform/adapters/image_start.py" in source_files()


def test_whatever_the_bento_imports_is_among_its_requirements() -> None:
    """cel_expr_python was declared, and a Bento of an older installation lacked it."""
    pinned = {line.partition("==")[0] for line in requirements()} | {"bentoml"}
    distributions = packages_distributions()
    imported = {
        name.partition(".")[0]
        for path, content in source_files().items()
        if path.endswith(".py")
        for node in ast.walk(ast.parse(content))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    foreign = imported - set(sys.stdlib_module_names) - {"fraud_platform", "service"}
    assert {"cel_expr_python", "lmdb", "msgspec", "numpy"} <= foreign
    lacking = {name for name in foreign if not {*map(canonicalize_name, distributions[name])} & pinned}
    assert lacking == set()


def test_an_unknown_or_missing_builder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="backend 'kaniko': give one of docker, podman, buildah"):
        ImageSettings(backend="kaniko")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="docker is not installed"):
        build_image(tmp_path, ImageSettings())


def test_the_state_must_lie_on_a_volume(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    check_state(tmp_path / "state", lambda place: place == tmp_path)
    with pytest.raises(SettingsError, match=r"container.s own filesystem.*mount a volume at"):
        check_state(tmp_path / "state", lambda place: place == Path("/"))
    with pytest.raises(SettingsError, match="cannot be written by user"):
        check_state(tmp_path / "gone", lambda place: place == tmp_path)


def test_a_secret_must_be_readable_and_say_something(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    with pytest.raises(SettingsError, match=r"FRAUD_PLATFORM_X_FILE=.*cannot be read.*No such file"):
        check_secret("FRAUD_PLATFORM_X_FILE", str(secret))
    secret.touch()
    with pytest.raises(SettingsError, match="is empty"):
        check_secret("FRAUD_PLATFORM_X_FILE", str(secret))
    secret.write_bytes(b"0" * 32)
    check_secret("FRAUD_PLATFORM_X_FILE", str(secret))


@pytest.mark.parametrize("workers", ["0", "65", "-1", "2.0", "all", "²"])
def test_a_number_of_workers_that_is_none_is_refused(workers: str) -> None:
    with pytest.raises(SettingsError, match="FRAUD_PLATFORM_WORKERS"):
        worker_options({"FRAUD_PLATFORM_WORKERS": workers})


def test_workers_go_beside_the_options_that_were_given() -> None:
    assert worker_options({}) == {}
    given = {"FRAUD_PLATFORM_WORKERS": "2", "BENTOML_CONFIG_OPTIONS": "services.fraud_platform.x=1"}
    said = "services.fraud_platform.x=1 services.fraud_platform.workers=2"
    assert worker_options(given) == {"BENTOML_CONFIG_OPTIONS": said}


def test_a_failed_check_is_one_line_and_a_status_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    env = {"BENTO_PATH": "/nowhere", "FRAUD_PLATFORM_KEYS": "none"}
    assert main(["serve"], env) == os.EX_CONFIG
    said = capsys.readouterr().err
    assert said.startswith("error: FRAUD_PLATFORM_STATE is not set")
    assert said.count("\n") == 1


def test_other_words_are_run_as_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Became(Exception):
        pass

    def become(program: str, words: list[str], env: dict[str, str]) -> None:
        raise Became(program, words)

    monkeypatch.setattr(image_start.os, "execvpe", become)
    with pytest.raises(Became) as became:
        main(["python", "-V"], {})
    assert became.value.args == ("python", ["python", "-V"])


def test_nobody_is_healthy_where_nobody_listens() -> None:
    assert main(["health"], {"BENTOML_PORT": "1"}) == 1


def test_the_defaults_need_nothing_writable_but_tmp_and_the_state() -> None:
    assert ENVIRONMENT["BENTOML_HOME"].startswith("/tmp/")
    assert ENVIRONMENT["HOME"] == "/tmp"
    assert ENVIRONMENT["FRAUD_PLATFORM_STATE"] == "/var/lib/fraud_platform"
