"""`go-live`: the service's store made anew and put in its place; what was counted, as lines."""

from __future__ import annotations

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
