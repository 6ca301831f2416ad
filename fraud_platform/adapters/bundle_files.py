"""Bundles as folders: `<bundles>/<first 16 digits of the id>/`, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fraud_platform.errors import BundleError
from fraud_platform.package import Bundle, BundleParts, build, parse

ID_DIGITS = 16


def bundle_path(bundles: Path, bundle_id: str) -> Path:
    return bundles / bundle_id[:ID_DIGITS]


def build_bundle(parts: BundleParts, out: Path) -> Bundle:
    """Build a bundle and write it below `out`; where it is there already, only check it.

    BundleError when a part cannot be read back, or the folder that is there is damaged.
    """
    bundle = build(parts)
    target = bundle_path(out, bundle.id)
    if target.exists():
        return load_bundle(target)
    building = _written_beside(target, bundle)
    try:
        building.rename(target)
    except OSError:
        shutil.rmtree(building)
        if not target.exists():
            raise
    return load_bundle(target)


def keep_bundle(bundle: Bundle, path: Path) -> None:
    """Write a bundle to `path`, in the place of what was there."""
    building = _written_beside(path, bundle)
    shutil.rmtree(path, ignore_errors=True)
    building.rename(path)


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle's folder. BundleError names what is missing or damaged."""
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: package an approved version first")
    return parse({file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()})


def _written_beside(target: Path, bundle: Bundle) -> Path:
    building = target.with_name(f".building-{os.getpid()}-{target.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for name, raw in bundle.files.items():
        _write(building / name, raw)
    return building


def _write(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
