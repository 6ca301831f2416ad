"""The test runner itself: a shared world is played once only where one process runs what shares it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fraud_platform.settings import PROJECT_ROOT

CONFTEST = "from tests.by_file import pytest_xdist_make_scheduler\n"
TOY = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(8))
def test_toy(number):
    with open(pathlib.Path(__file__).with_suffix(".pids"), "a") as file:
        file.write(f"{os.getpid()}\\n")
"""
FILES = ("test_a", "test_b", "test_c", "test_loop", "test_readme")


def test_a_file_s_tests_run_in_one_process_and_so_do_those_that_share_worlds(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name in FILES:
        (tmp_path / f"{name}.py").write_text(TOY)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = {name: (tmp_path / f"{name}.pids").read_text().split() for name in FILES}
    assert [len(pids) for pids in ran.values()] == [8] * len(FILES)
    assert all(len(set(pids)) == 1 for pids in ran.values()), ran
    assert set(ran["test_loop"]) == set(ran["test_readme"])
    assert len({pid for pids in ran.values() for pid in pids}) == 2, "nothing ran beside anything"
