"""`serve`: the packaged Bento on this machine, until interrupted."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg

from fraud_platform.adapters.bento_server import start_service
from fraud_platform.cli.go_live import go_live
from fraud_platform.cli.instance import console, prepare_environment
from fraud_platform.errors import BundleError
from fraud_platform.settings import Settings


def serve_bento(settings: Settings, port: int) -> None:
    """Serves the last Bento that was built. Raises BundleError where there is none."""
    prepare_environment(settings)
    path = _last_bento()
    go_live(settings)
    with console.status("starting the service"):
        service = start_service(path, port, settings.service_state)
    with service:
        console.print(f"{service.url}/v1/decisions\nlog {service.log}\nCtrl-C stops it.", soft_wrap=True)
        try:
            while service.process.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("stopping")


def _last_bento() -> Path:
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["package", "bento"]))
    if event is None or event.asset_materialization is None:
        raise BundleError("no Bento was built yet: approve a version and package it, or run `make demo`")
    return Path(str(event.asset_materialization.metadata["path"].value))
