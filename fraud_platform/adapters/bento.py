"""BentoML: build a Bento from a bundle, and run it as a process of its own.

Belongs here: the build context, the version, the server's process. Does not belong here: what the service
does (`bento/service.py`). A Bento holds the service, the modules that it imports, and the bundle; its version
is made of the bundle's id and the code's hash, so the same bundle and code are built once.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.errors import BundleError
from fraud_platform.settings import PROJECT_ROOT

PACKAGE = "fraud_platform"
NAME = "fraud_platform"
SERVICE_FILE = PROJECT_ROOT / "bento" / "service.py"
START_FILE = PROJECT_ROOT / PACKAGE / "adapters" / "image_start.py"
"""What a container runs first; the service does not import it."""
EXTRA = "serve"
DATA = ("*.lua", "*.yaml")
QUIET = {"BENTOML_DO_NOT_TRACK": "True"}
"""BentoML reports usage to its makers unless it is told not to."""


@dataclass(frozen=True)
class BuiltBento:
    """`path` is the Bento's folder; `is_new` is False when it had been built before."""

    tag: str
    path: Path
    is_new: bool


def build_bento(bundle_dir: Path, bento_home: Path, service_file: Path = SERVICE_FILE) -> BuiltBento:
    """Build the Bento of a bundle below `bento_home`, or find it there.

    BundleError when the bundle is damaged or BentoML refuses; its output is in the message.
    """
    bundle = load_bundle(bundle_dir)
    sources = source_files(service_file)
    version = f"{bundle.id[:16]}-{_digest(sources)[:12]}"
    tag = f"{NAME}:{version}"
    path = bento_home / "bentos" / NAME / version
    if (path / "bento.yaml").is_file():
        return BuiltBento(tag, path, is_new=False)
    shutil.rmtree(path, ignore_errors=True)
    bento_home.mkdir(parents=True, exist_ok=True)
    # BentoML refuses a context below a hidden folder, so it is not made below bento_home.
    with tempfile.TemporaryDirectory(prefix="bento-") as context:
        _write_context(Path(context), sources, bundle.files)
        _run_build(Path(context), bento_home, version)
    if not (path / "bento.yaml").is_file():
        raise BundleError(f"BentoML built {tag}, but {path} is not there; is BENTOML_HOME overridden?")
    return BuiltBento(tag, path, is_new=True)


def source_files(service_file: Path = SERVICE_FILE) -> dict[str, bytes]:
    """The service, what a container starts with, and every module of this package that they import: path ->
    content.

    The data files of each package that is in go with it.
    """
    start = str(START_FILE.relative_to(PROJECT_ROOT))
    files = {"service.py": service_file.read_bytes(), start: START_FILE.read_bytes()}
    waiting = [service_file, START_FILE]
    while waiting:
        for path in _imported_files(waiting.pop()):
            name = str(path.relative_to(PROJECT_ROOT))
            if name not in files:
                files[name] = path.read_bytes()
                waiting.append(path)
    folders = {(PROJECT_ROOT / name).parent for name in files if name.startswith(PACKAGE)}
    for data in sorted(file for folder in folders for kind in DATA for file in folder.glob(kind)):
        files[str(data.relative_to(PROJECT_ROOT))] = data.read_bytes()
    return files


def requirements(extra: str = EXTRA) -> list[str]:
    """What the extra asks for and what that needs in turn, pinned to the versions that are installed.

    Two builds of one Bento are then the same. BentoML adds itself; what it needs is here.
    """
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = _closure(Requirement(text).name for text in project["optional-dependencies"][extra])
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name != "bentoml"]


def _closure(names: Iterable[str]) -> dict[str, str]:
    """Distributions and all that they require, by canonical name, with their installed versions."""
    versions: dict[str, str] = {}
    waiting = [(name, "") for name in names]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        versions[canonicalize_name(name)] = metadata.version(name)
        for needed in map(Requirement, metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, wanted) for wanted in ("", *needed.extras)]
    return versions


def _imported_files(source: Path) -> Iterable[Path]:
    """Files of this package that a file imports, the packages' own `__init__` among them."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE:
                yield from _module_files(name)


def _module_files(name: str) -> Iterable[Path]:
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = PROJECT_ROOT.joinpath(*parts[:depth])
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                yield path


def _digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of names, contents and pinned requirements."""
    digest = hashlib.sha256("\n".join(requirements()).encode())
    for name in sorted(files):
        digest.update(f"\n{name}\n{len(files[name])}\n".encode() + files[name])
    return digest.hexdigest()


def _write_context(context: Path, sources: Mapping[str, bytes], bundle: Mapping[str, bytes]) -> None:
    bundled = {f"bundle/{name}": raw for name, raw in bundle.items()}
    bentofile = {
        "service": "service:FraudPlatform",
        "description": "Decides card transactions: approve, step up or decline.",
        "include": ["*"],
        "python": {"packages": requirements(), "lock_packages": False},
    }
    written = {**sources, **bundled, "bentofile.yaml": yaml.safe_dump(bentofile).encode()}
    for name, raw in written.items():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_bytes(raw)


def _run_build(context: Path, bento_home: Path, version: str) -> None:
    command = [sys.executable, "-m", "bentoml", "build", "--version", version, str(context)]
    env = {**os.environ, **QUIET, "BENTOML_HOME": str(bento_home)}
    done = subprocess.run(command, cwd=context, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"BentoML could not build version {version}:\n{done.stdout}{done.stderr}")
