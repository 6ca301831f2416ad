"""Candidates on disk: one folder each, named after the fingerprint, complete or not there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fraud_platform.errors import BundleError
from fraud_platform.train import Candidate


def write_candidate(candidate: Candidate, parent: Path) -> Path:
    """Write the candidate's folder below `parent` and return it; an intact folder is kept as it is."""
    folder = parent / candidate.fingerprint
    if folder.exists():
        if _is_intact(folder, candidate):
            return folder
        shutil.rmtree(folder)
    write_folder(candidate.to_files(), folder)
    return folder


def read_candidate(folder: Path) -> Candidate:
    """Read a candidate's folder. BundleError when it is missing, incomplete or changed."""
    if not folder.is_dir():
        raise BundleError(f"no candidate at {folder}; train one first")
    return Candidate.from_files(read_folder(folder))


def write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a new folder that appears at once, by a rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        for name, content in files.items():
            (building / name).write_bytes(content)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files directly in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _is_intact(folder: Path, candidate: Candidate) -> bool:
    try:
        return read_candidate(folder) == candidate
    except BundleError:
        return False
