"""How long frauds take to become known in the dataset."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from fraud_platform.adapters.delay_plots import delay_plots
from fraud_platform.adapters.duckdb_delay import end_of_data, fraud_reports
from fraud_platform.defs.as_of import AsOf
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.platform import Platform
from fraud_platform.learning.label_delay import LabelDelay, measure_label_delay

LABEL_DELAY = dg.AssetKey(["learning", "label_delay"])
AT_MATURITY = tuple(f"known_at_maturity{end}" for end in ("", "_low", "_high", "_by_histogram"))
"""Left out of the metadata where the history is too short to tell."""


@dg.asset(
    key=LABEL_DELAY,
    deps=[["ingest", "transactions"], ["ingest", "labels"]],
    group_name="learning",
    kinds={"duckdb", "numpy"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def label_delay(
    context: dg.AssetExecutionContext, config: AsOf, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """From a transaction to its first fraud report, by source and segment, and what is not to be seen yet.

    Left out of the learning job: it informs who sets the maturity window, and nothing waits for it.
    """
    found = measured_delay(platform, config.ms)
    for line in found.explain():
        context.log.info(line)
    told = found.known_at_maturity()
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.all.frauds + found.all.beyond,
            "summary": dg.MetadataValue.md("\n".join(f"- {line}" for line in found.explain())),
            **({} if told is None else dict(zip(AT_MATURITY, told, strict=True))),
            "horizon_days": found.all.horizon_days,
            "by_group": delay_table(found.table()),
            **{f"plot_{name}": _image(png) for name, png in delay_plots(found).items()},
        }
    )


def measured_delay(platform: Platform, as_of_ms: int | None = None) -> LabelDelay:
    """As known before `as_of_ms`, None is the end of the data. LabelError where too few are known."""
    moment = end_of_data(platform.warehouse) if as_of_ms is None else as_of_ms
    return measure_label_delay(
        fraud_reports(platform.warehouse, moment), moment, platform.mapping.maturity_days
    )


def delay_table(records: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Records of the same fields; a column's type is that of its first value."""
    kinds = {str: "string", int: "int"}
    columns = [dg.TableColumn(name, kinds.get(type(value), "float")) for name, value in records[0].items()]
    return dg.MetadataValue.table([dg.TableRecord(dict(r)) for r in records], dg.TableSchema(columns))


def _image(png: bytes) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
