"""The search for training parameters over the warehouse."""

import hashlib

import dagster as dg

from fraud_platform.adapters.duckdb_history import TRAINING_SET
from fraud_platform.adapters.mlflow import ModelRegistry
from fraud_platform.adapters.mlflow_search import log_search
from fraud_platform.adapters.optuna import OptunaStudy, write_best
from fraud_platform.defs.experiments import GROUP, Experiment, FoldConfig, lines, standings_table, table
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SettingsError
from fraud_platform.learning.contest import Report
from fraud_platform.learning.search import METRICS, Found, Metric, Trial, judged_best, search
from fraud_platform.train import TrainParams
from fraud_platform.train.run import code_version

MINUTES, TRIALS = 10.0, 50


class SearchConfig(FoldConfig):
    """trials: those that the study is to have, earlier runs' included; minutes: what this run may take."""

    trials: int = TRIALS
    minutes: float = MINUTES
    metric: str = METRICS[0]
    seed: int = TrainParams.seed


@dg.asset(
    key=["learning", "search"],
    deps=[TRAINING_SET.split(".")],
    group_name=GROUP,
    kinds={"lightgbm", "mlflow"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def searched_params(
    context: dg.AssetExecutionContext, config: SearchConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """The best training parameters on validation folds, and what they save on test folds; all of these lie
    before the rows that judge a candidate.

    Left out of the learning job: `train/candidate` uses them where its config says `use_search: true`.
    """
    found, trials = searched(platform, config, context.log.info)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.trials,
            "study": found.study,
            "summary": lines(found.explain()),
            "best": table([found.params]),
            "test_folds": standings_table(found.test),
            "trials": table([trial_record(one) for one in trials]),
            "folder": str(platform.settings.search),
        }
    )


def searched(platform: Platform, config: SearchConfig, report: Report) -> tuple[Found, tuple[Trial, ...]]:
    """Searches, judges the best on the test folds, and writes it down; trials go to MLflow.

    SettingsError for a wrong option; see `Experiment` for what else it raises.
    """
    metric = _metric(config)
    experiment = Experiment(platform, config, spares_test=True)
    name = study_name(platform, config, metric)
    study = OptunaStudy(platform.settings.search, name, metric, config.seed)
    lessons = list(experiment.lessons("validation"))
    trials = search(
        lessons, study, metric, platform.policy, config.trials, config.minutes * 60.0, report=report
    )
    del lessons
    found = judged_best(trials, experiment.lessons("test"), name, metric, platform.policy)
    write_best(platform.settings.search, found)
    log_search(_tracker(platform), found, trials)
    return found, trials


def study_name(platform: Platform, config: SearchConfig, metric: Metric) -> str:
    """One for each question: the metric, the rows and their features, the prices, the code that trains, the
    folds and the seed."""
    own = {"trials", "minutes", "metric"}
    asked = [
        platform.warehouse.fingerprint(TRAINING_SET),
        platform.contract.hash,
        platform.policy_text,
        code_version(),
        repr(sorted(config.model_dump(exclude=own).items())),
        repr(TrainParams()),
    ]
    return f"{metric}-{hashlib.sha256(chr(10).join(asked).encode()).hexdigest()[:12]}"


def trial_record(trial: Trial) -> dict[str, float | str]:
    """A row of the trials' table; what was pruned has no value."""
    value = "pruned" if trial.value is None else f"{trial.value:.6g}"
    return {"trial": trial.number, "value": value, **trial.params, "seconds": trial.seconds}


def _metric(config: SearchConfig) -> Metric:
    if config.metric not in METRICS:
        raise SettingsError(f"metric {config.metric!r} must be one of {', '.join(METRICS)}")
    for name, value in (("trials", config.trials), ("minutes", config.minutes)):
        if value <= 0:
            raise SettingsError(f"{name}={value!r}: must be above 0")
    return next(one for one in METRICS if one == config.metric)


def _tracker(platform: Platform) -> ModelRegistry:
    settings = platform.settings
    name = f"{settings.registered_model}-search"
    return ModelRegistry(settings.mlflow_uri, name, settings.mlflow_artifacts)
