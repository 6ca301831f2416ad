"""A search's trials in MLflow: one parent run for a study, one child run for each trial.

Belongs here: runs of searches. Does not belong here: models and their versions (`adapters.mlflow`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fraud_platform.adapters.mlflow import ModelRegistry, load_mlflow
from fraud_platform.learning.search import Found, Trial

PARENT = "mlflow.parentRunId"
STUDY, NUMBER = "study", "trial"
RUNS_AT_ONCE = 1_000


def log_search(tracker: ModelRegistry, found: Found, trials: Sequence[Trial]) -> str:
    """The parent run's id. Trials that were logged before are not logged again.

    tracker: its experiment takes the runs; one of its own, as trials are no candidates.
    """
    client, experiment = tracker.experiment()
    runs = _runs(client, experiment, found.study)
    parent = next((run.info.run_id for run in runs if NUMBER not in run.data.tags), None)
    if parent is None:
        parent = client.create_run(experiment, run_name=found.study, tags={STUDY: found.study}).info.run_id
        client.log_param(parent, "metric", found.metric)
    known = {run.data.tags.get(NUMBER) for run in runs if run.info.status == "FINISHED"}
    for trial in trials:
        if str(trial.number) not in known:
            _log_trial(client, experiment, parent, found, trial)
    for name, value in _summary(found).items():
        client.log_metric(parent, name, value)
    client.set_terminated(parent)
    return str(parent)


def _runs(client: Any, experiment: str, study: str) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.{STUDY} = '{study}'", max_results=RUNS_AT_ONCE, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def _log_trial(client: Any, experiment: str, parent: str, found: Found, trial: Trial) -> None:
    entities = load_mlflow().entities
    tags = {PARENT: parent, STUDY: found.study, NUMBER: str(trial.number), "pruned": str(trial.is_pruned)}
    run = client.create_run(experiment, run_name=f"trial {trial.number}", tags=tags).info
    now = int(run.start_time)
    metrics = [entities.Metric("seconds", trial.seconds, now, 0)]
    metrics += [
        entities.Metric(f"{found.metric}_by_fold", value, now, fold)
        for fold, value in enumerate(trial.values)
    ]
    if trial.value is not None:
        metrics.append(entities.Metric(found.metric, trial.value, now, 0))
    params = [entities.Param(name, str(value)) for name, value in trial.params.items()]
    client.log_batch(run.run_id, metrics=metrics, params=params)
    client.set_terminated(run.run_id)


def _summary(found: Found) -> dict[str, float]:
    return {
        "trials": float(found.trials),
        "pruned": float(found.pruned),
        f"best_{found.metric}": found.value,
        f"defaults_{found.metric}": found.default_value,
        **{f"best_{name}": value for name, value in found.params.items()},
    }
