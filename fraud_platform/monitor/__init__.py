"""monitor: has the world moved, is the model still worth its money, and is it time to train again.

Belongs here: drift, delayed performance, what declines were worth, the signal to retrain; arrays in, frozen
reports out.
Does not belong here: the decision log and the warehouse (`adapters.duckdb_monitor`), starting a run (`defs`).
"""

from fraud_platform.monitor.declines import LoggedDecisions, declines
from fraud_platform.monitor.drift import ColumnDrift, DriftReport, DriftThresholds, drift, psi
from fraud_platform.monitor.performance import Decisions, Performance, delayed_performance
from fraud_platform.monitor.signal import Signal, retrain_signal

__all__ = [
    "ColumnDrift",
    "Decisions",
    "DriftReport",
    "DriftThresholds",
    "LoggedDecisions",
    "Performance",
    "Signal",
    "declines",
    "delayed_performance",
    "drift",
    "psi",
    "retrain_signal",
]
