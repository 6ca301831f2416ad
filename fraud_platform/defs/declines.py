"""What the declines were worth, by those that were explored."""

from typing import Any

import dagster as dg

from fraud_platform.adapters.duckdb_monitor import label_events, logged_columns
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.monitor import OWNERS, end_of_knowledge
from fraud_platform.defs.platform import Platform
from fraud_platform.learning.selective import MEASURES, SelectiveLabels
from fraud_platform.monitor import declines as judge_declines


@dg.asset(
    key=["monitor", "declines"],
    deps=[["monitor", "decisions"], ["ingest", "labels"]],
    group_name="monitor",
    kinds={"python"},
    owners=OWNERS,
    pool=POOL,
)
def declines(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """Precision, recall and money of the mature declines of model and policy, with intervals.

    Declines have no outcome of their own. Where the policy explores a share of them, read `doubly_robust`.
    """
    found = judge_declines(
        logged_columns(platform.warehouse),
        label_events(platform.warehouse),
        platform.label_rule,
        end_of_knowledge(platform),
        platform.policy,
    )
    if found is None:
        return dg.MaterializeResult(metadata={"declined": 0, "said": "no decline is mature yet"})
    said = f"{found.explored:,} of {found.declined:,} mature declines were explored"
    if not found.explored:
        said += ": only the model's own opinion is known; see exploration in policy.yaml"
    return dg.MaterializeResult(
        metadata={
            "declined": found.declined,
            "explored": found.explored,
            "supported": found.supported,
            "said": said,
            "by_estimator": _table(found),
        }
    )


def _table(found: SelectiveLabels) -> dg.TableMetadataValue:
    records = []
    for name, measures in found.estimates.items():
        said: dict[str, Any] = {"estimator": name}
        for measure in MEASURES:
            one = measures[measure]
            said |= {measure: one.value, f"{measure}_low": one.low, f"{measure}_high": one.high}
        records.append(said)
    columns = [dg.TableColumn(name, "string" if name == "estimator" else "float") for name in records[0]]
    return dg.MetadataValue.table(list(map(dg.TableRecord, records)), dg.TableSchema(columns))
