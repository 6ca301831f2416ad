"""ingest: somebody's files, through a dataset mapping, as canonical rows; bad rows as quarantine.

Belongs here: the mapping, the rules, the SQL that applies them, and the report that must add up.
Does not belong here: files, connections and execution, which adapters/duckdb.py has.
"""

from fraud_platform.ingest.mapping import Extra, Mapping, Split, StreamMapping, load_mapping
from fraud_platform.ingest.plan import FILE, ROW, StreamPlan, plan_stream, source_expressions, stream_mapping
from fraud_platform.ingest.report import IngestReport, StreamReport
from fraud_platform.ingest.rules import CARD_NUMBER, CONFLICT, MALFORMED, UNKNOWN_TRANSACTION, Rule

__all__ = [
    "CARD_NUMBER",
    "CONFLICT",
    "FILE",
    "MALFORMED",
    "ROW",
    "UNKNOWN_TRANSACTION",
    "Extra",
    "IngestReport",
    "Mapping",
    "Rule",
    "Split",
    "StreamMapping",
    "StreamPlan",
    "StreamReport",
    "load_mapping",
    "plan_stream",
    "source_expressions",
    "stream_mapping",
]
