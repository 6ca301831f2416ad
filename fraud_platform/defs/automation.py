"""What starts by itself: the nightly retraining, the retraining on drift, packaging after an approval, and
features, labels, evaluation and registration after what they are made from.

A stage that is downstream of a blocking check runs only where the check passed: within a run by the check
itself, across runs by the automation condition.
"""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from fraud_platform.defs.ingest import STREAMS
from fraud_platform.defs.monitor import DRIFT_TAG
from fraud_platform.defs.parity import TAILS
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.rules import BACKTEST
from fraud_platform.defs.rungs import RUNGS

NIGHTLY = "0 2 * * *"
DRIFT_SECONDS, APPROVAL_SECONDS = 300, 30

PARTITIONED = dg.AssetSelection.assets(*(dg.AssetKey(["ingest", stream]) for stream in STREAMS))
# Not Dagster's eager(): that waits until no partition of a dependency is missing; a day may have no payments.
GATED = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing().ignore(PARTITIONED)
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("follows what it is made from, past its blocking checks")

FOLLOWING_GROUPS = ("features", "labels", "evaluate", "register")
FOLLOWING_TABLES = (dg.AssetKey(["training", "training_set"]),)


def gated(assets: Iterable[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """The same assets: those that follow their data carry the condition, and wait for its blocking checks.

    A model is not trained at every change of its data: when, is for the schedule and for the drift sensor
    with its cool-down. Nothing is packaged without an approval. Both go through a job, whose checks block.
    """

    def follow(spec: dg.AssetSpec) -> dg.AssetSpec:
        is_following = spec.group_name in FOLLOWING_GROUPS or spec.key in FOLLOWING_TABLES
        return spec.replace_attributes(automation_condition=GATED) if is_following else spec

    return dg.map_asset_specs(follow, assets)


following = dg.AutomationConditionSensorDefinition(
    "following",
    target=dg.AssetSelection.groups(*FOLLOWING_GROUPS) | dg.AssetSelection.assets(*FOLLOWING_TABLES),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="New data goes on to features and labels, a candidate to its evaluation, past the checks",
)

LEARNING_GROUPS = ("simulate", "ingest", "features", "labels", "train", "evaluate", "register")
learning = dg.define_asset_job(
    "learning",
    selection=dg.AssetSelection.groups(*LEARNING_GROUPS) - dg.AssetSelection.assets(TAILS, BACKTEST, RUNGS),
    description="From files to a judged and registered candidate",
)
building = dg.define_asset_job(
    "building",
    selection=dg.AssetSelection.assets(["features", "transaction_features"])
    .upstream()
    .required_multi_asset_neighbors()
    .without_checks(),
    description="From files to the features alone",
)
teaching = dg.define_asset_job(
    "teaching",
    selection=dg.AssetSelection.assets(["training", "training_set"])
    .upstream()
    .required_multi_asset_neighbors(),
    description="From files to the training set, which experiments read",
)
packaging = dg.define_asset_job(
    "packaging",
    selection=dg.AssetSelection.groups("package"),
    description="The approved version as a bundle and a Bento",
)
monitoring = dg.define_asset_job(
    "monitoring",
    selection=dg.AssetSelection.groups("monitor"),
    description="The decision log into the warehouse; drift and delayed performance",
)

going_live = dg.define_asset_job(
    "going_live",
    selection=dg.AssetSelection.groups("serve"),
    description="The service's store made anew beside the running one, and put in its place",
)

JOBS = (building, teaching, learning, packaging, going_live, monitoring)

nightly = dg.ScheduleDefinition(
    name="nightly_retraining",
    job=learning,
    cron_schedule=NIGHTLY,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Retrains on what is mature at 02:00 UTC",
)

hourly_monitoring = dg.ScheduleDefinition(
    name="hourly_monitoring",
    job=monitoring,
    cron_schedule="15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Takes in the decision log and measures drift",
)


@dg.sensor(
    name="approval",
    job=packaging,
    minimum_interval_seconds=APPROVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Packages a version once a named person has approved it",
)
def approval(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.RunRequest | dg.SkipReason:
    champion = platform.registry.champion() if platform.settings.mlflow_home.exists() else None
    if champion is None or champion.approval is None:
        return dg.SkipReason("no version is approved yet: fraud-platform approve VERSION --by NAME")
    return dg.RunRequest(
        run_key=f"{champion.version}-{champion.approval.at_ms}", tags={"model_version": champion.version}
    )


@dg.sensor(
    name="drift",
    job=learning,
    minimum_interval_seconds=DRIFT_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Retrains early when decisions drifted from the bundle's reference; has a cool-down",
)
def drift(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    event = context.instance.get_latest_materialization_event(dg.AssetKey(["monitor", "retrain_signal"]))
    found = event.asset_materialization.metadata if event and event.asset_materialization else {}
    if not found:
        yield dg.SkipReason("monitor/retrain_signal was never materialized")
    elif not found["retrain"].value:
        yield dg.SkipReason(str(found["reasons"].value))
    else:
        yield dg.RunRequest(run_key=str(found["signal_id"].value), tags=DRIFT_TAG)
