"""The layers of ARCHITECTURE.md are kept by import-linter, from the contracts in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from fraud_platform.settings import PROJECT_ROOT


def test_no_module_imports_what_its_layer_may_not(tmp_path: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--cache-dir", str(tmp_path)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_stage_is_held_by_a_contract() -> None:
    """A new module without a layer would escape the rules."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    held = {name.strip("() ").rsplit(".", 1)[1] for layer in layers for name in layer.split("|")}
    package = PROJECT_ROOT / "fraud_platform"
    modules = {path.stem for path in package.glob("*.py") if path.stem != "__init__"}
    modules |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert modules <= held
    stages = {m for m in held if m not in ("definitions", "cli", "defs", "adapters")}
    tools = next(contract for contract in contracts if contract["name"].startswith("Stages"))
    assert {name.rsplit(".", 1)[1] for name in tools["source_modules"]} == stages
