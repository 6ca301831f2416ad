"""Environments and processes of what is no dependency of this project.

Belongs here: installing into a folder of its own, ending what was started. Does not belong here: what runs
there (feast_reader.py, plain_stack.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STOP_SECONDS = 20.0


class Missing(Exception):
    """Something that this machine lacks; says how to get it."""


def python_with(folder: Path, requirements: Sequence[str]) -> Path:
    """The Python of an environment that holds the requirements, made where it is not there yet.

    Missing where they cannot be installed.
    """
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text().splitlines() == list(requirements):
        return python
    shutil.rmtree(folder, ignore_errors=True)
    wanted = ", ".join(requirements)
    print(f"installing {wanted} into {folder}", file=sys.stderr)
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    )
    for step in steps:
        done = subprocess.run(step, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise Missing(f"{wanted} could not be installed from the package index: {last[0]}")
    ready.write_text("\n".join(requirements))
    return python


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Whatever happens, the process does not stay behind."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
