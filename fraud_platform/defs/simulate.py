"""The simulated world, for the dataset that the platform plays itself."""

import dagster as dg

from fraud_platform.adapters.landing import spec_that_lies_there, write_world, written_world
from fraud_platform.defs.platform import Platform
from fraud_platform.simulate import WorldSpec, simulate


class WorldConfig(dg.Config):
    """transactions: about how many to play; 0 goes on with the world that lies there, or plays the demo's."""

    transactions: int = 0
    seed: int = 7


@dg.asset(
    key=["simulate", "world"], group_name="simulate", kinds={"python", "parquet"}, owners=["team:fraud-ml"]
)
def world(config: WorldConfig, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """A seeded payments world, delivered as the daily files of a source; the truth lies apart."""
    settings = platform.settings
    if config.transactions:
        spec = WorldSpec.sized(config.transactions, config.seed)
    else:
        spec = spec_that_lies_there(settings.landing) or WorldSpec.demo()
    folders = settings.landing, settings.var / "truth" / settings.dataset_name, settings.home / "live"
    written = written_world(spec, *folders) or write_world(simulate(spec), *folders)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": written.transactions,
            "labels": written.labels,
            "labels_not_known_yet": written.labels_pending,
            "live_transactions": written.live_transactions,
            "days": f"{written.first_day} to {written.last_day}",
            "unchanged": written.is_unchanged,
        }
    )
