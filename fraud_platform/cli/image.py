"""`image`: the last Bento that was built, as a container image."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg

from fraud_platform.adapters.image import ImageSettings, build_image
from fraud_platform.cli.instance import console, prepare_environment
from fraud_platform.defs.latest import latest_text
from fraud_platform.settings import Settings

BENTO = ["package", "bento"]


def containerize(settings: Settings, image: ImageSettings) -> None:
    """Raises ImageError where the builder fails, SettingsError where no Bento was built."""
    prepare_environment(settings)
    with dg.DagsterInstance.get() as instance:
        bento = Path(latest_text(instance, BENTO, "path"))
    started = time.monotonic()
    with console.status(f"building with {image.backend}"):
        built = build_image(bento, image)
    seconds = time.monotonic() - started
    console.print(f"{built.reference}  {built.size}  {seconds:.0f} s\nid {built.id}", soft_wrap=True)
