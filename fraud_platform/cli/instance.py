"""The Dagster instance below `var/`, and jobs run in this process with progress on the terminal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import dagster as dg
import psutil
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fraud_platform.errors import FraudPlatformError
from fraud_platform.settings import DATASET_VARIABLE, SOURCE_VARIABLE, VAR_VARIABLE, Settings

INSTANCE_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: run
"""

PROCESS_TAG = "fraud_platform/process"
"""Tag of a run in a process of its own: process id and start."""

# No markup: what people wrote (names, reasons, values) is printed as they wrote it.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)


def prepare_environment(settings: Settings) -> None:
    """Makes the Dagster home ready and names these settings to every process started from here.

    Ready: runs that were killed are closed, and the warehouse's pool has its one place from the first run on.
    """
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(INSTANCE_YAML)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ[VAR_VARIABLE] = str(settings.var)
    os.environ[DATASET_VARIABLE] = settings.dataset
    if settings.source:
        os.environ[SOURCE_VARIABLE] = str(settings.source)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["DBT_SEND_ANONYMOUS_USAGE_STATS"] = "false"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    from fraud_platform.defs.ingest import POOL

    with dg.DagsterInstance.get() as instance:
        close_dead_runs(instance)
        instance.event_log_storage.set_concurrency_slots(POOL, 1)


@dataclass(frozen=True)
class JobReport:
    """What a job did: seconds by step, metadata by asset, and the checks that did not pass."""

    seconds: Mapping[str, float]
    assets: Mapping[str, Mapping[str, Any]]
    checks: Mapping[str, tuple[bool, Mapping[str, Any]]]


class JobFailedError(FraudPlatformError):
    pass


class _StepProgress(logging.Handler):
    """Turns Dagster's step events into lines of a rich progress."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", None) or {}
        event, step = meta.get("dagster_event"), meta.get("step_key")
        if step is None:
            return
        kind = getattr(event, "event_type_value", None)
        if kind == "STEP_START":
            self._started[step] = time.perf_counter()
            self._tasks[step] = self._progress.add_task(step, total=None, detail="")
        elif step in self._tasks and kind in ("STEP_SUCCESS", "STEP_FAILURE"):
            self.seconds[step] = time.perf_counter() - self._started[step]
            is_good = kind == "STEP_SUCCESS"
            said = "" if is_good else "failed"
            self._progress.update(self._tasks[step], total=1, completed=1, detail=said)
            if not console.is_terminal:
                console.print(f"{step} {self.seconds[step]:.1f} s {said}")
        elif step in self._tasks and event is None:
            self._progress.update(self._tasks[step], detail=record.getMessage().split(" - ")[-1][:60])


@contextmanager
def _steps() -> Any:
    columns = (
        SpinnerColumn(finished_text="+"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    detail = TextColumn("{task.fields[detail]}", style="dim", markup=False)
    with Progress(*columns, detail, console=console, disable=not console.is_terminal) as progress:
        yield _StepProgress(progress)


@contextmanager
def _tools_silenced() -> Iterator[None]:
    """dbt's own lines stay off the terminal; they are in the run's logs and in var/<dataset>/dbt."""
    console.file = sys.stdout
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


@contextmanager
def _own_termination() -> Iterator[None]:
    """Dagster handles SIGTERM while it executes, and afterwards too; what was set before holds again."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_job(defs: dg.Definitions, name: str, run_config: Mapping[str, Any] | None = None) -> JobReport:
    """Executes a job in this process. Raises JobFailedError naming the step and its cause."""
    with _steps() as handler, _tools_silenced(), _own_termination():

        @dg.logger(config_schema={})
        def terminal(_: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("fraud_platform.steps", level=logging.DEBUG)
            logger.addHandler(handler)
            return logger

        job = defs.resolve_job_def(name).with_logger_defs({"terminal": terminal})
        config = {**(run_config or {}), "loggers": {"terminal": {}}}
        with dg.DagsterInstance.get() as instance:
            result = job.execute_in_process(
                run_config=config,
                instance=instance,
                raise_on_error=False,
                tags={PROCESS_TAG: _process_tag(psutil.Process())},
            )
    if not result.success:
        raise JobFailedError(_cause(name, result))
    return _report(result, handler.seconds)


def close_dead_runs(instance: dg.DagsterInstance) -> int:
    """Reports runs whose process was killed as failed: they would hold the warehouse's pool for ever."""
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    dead = [run for run in instance.get_runs(filters=unfinished) if not _is_alive(run.tags.get(PROCESS_TAG))]
    for run in dead:
        instance.report_run_failed(run, "the process of this run is gone; start it again")
    return len(dead)


def _process_tag(process: psutil.Process) -> str:
    return f"{process.pid}:{process.create_time():.2f}"


def _is_alive(tag: str | None) -> bool:
    """A run that was not started from here is its launcher's to watch."""
    if tag is None:
        return True
    try:
        return _process_tag(psutil.Process(int(tag.split(":")[0]))) == tag
    except psutil.NoSuchProcess:
        return False


def _cause(name: str, result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            message = _message(event.step_failure_data.error)
            return "\n".join([f"job {name}: step {event.step_key} failed: {message}", *_failures(result)])
    return f"job {name} failed; its events are in the Dagster instance, run {result.run_id}"


def _message(error: Any) -> str:
    """The platform's own words where it raised on purpose, else those of the cause at the root."""
    message = "unknown cause"
    while error is not None:
        message = error.message.strip()
        if error.cls_name in _own_errors():
            return str(message.split(": ", 1)[-1])
        error = error.cause
    return message


def _own_errors() -> set[str]:
    waiting, names = [FraudPlatformError], set()
    while waiting:
        kind = waiting.pop()
        names.add(kind.__name__)
        waiting += kind.__subclasses__()
    return names


def _failures(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """What the checks that failed say of themselves."""
    for check in result.get_asset_check_evaluations():
        found = check.metadata.get("failures")
        if not check.passed and found is not None:
            yield from (f"{check.check_name}: {failure}" for failure in found.value)  # type: ignore[union-attr]


def _report(result: dg.ExecuteInProcessResult, seconds: Mapping[str, float]) -> JobReport:
    assets: dict[str, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        found = event.materialization
        if found.partition is None:
            values = {key: value.value for key, value in found.metadata.items()}
            assets["/".join(found.asset_key.path)] = values
    checks = {
        f"{'/'.join(check.asset_key.path)}:{check.check_name}": (
            check.passed,
            {key: value.value for key, value in check.metadata.items()},
        )
        for check in result.get_asset_check_evaluations()
    }
    return JobReport(dict(seconds), assets, checks)
