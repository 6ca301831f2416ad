"""`go-live`: the service's store made anew and put in its place; what was counted, as lines."""

from __future__ import annotations

import dagster as dg

from fraud_platform.cli.instance import console, prepare_environment, run_job
from fraud_platform.settings import Settings


def go_live(settings: Settings) -> None:
    """Raises JobFailedError where the store cannot be made or does not count every event once."""
    from fraud_platform.definitions import build_defs

    prepare_environment(settings)
    report = run_job(build_defs(settings), "going_live")
    found = report.assets["serve/live_store"]
    console.print(str(found["said"]))
    for name, (is_passed, details) in report.checks.items():
        console.print(f"{name}: {'passed' if is_passed else 'FAILED'}, {details['said']}")


def fill_redis(settings: Settings, url: str) -> None:
    """The packaged bundle's store on Redis: loaded where it is new, then up to date with the logs."""
    from fraud_platform.adapters.redis_live import go_live_on_redis
    from fraud_platform.defs.platform import Platform
    from fraud_platform.defs.serve import packaged_bundle

    prepare_environment(settings)
    platform = Platform(settings)
    with dg.DagsterInstance.get() as instance:
        _, bundle = packaged_bundle(instance, platform)
    with console.status("going live") as status:
        report = go_live_on_redis(
            platform.warehouse, bundle.contract, settings.service_state, url, status.update
        )
    console.print(str(report), soft_wrap=True)
