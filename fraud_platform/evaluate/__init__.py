"""evaluate: candidate, champion and baselines on the same later, mature rows, priced as they would ship.

Belongs here: metrics, money with intervals, segments, the leakage alarm, the model card, what rules and the
service's rungs are worth, the handbook benchmark.
Does not belong here: fitting (`train`), the verdict (`register`), drawing (`adapters.plots`).
"""

from fraud_platform.evaluate.backtest import Backtest, ModelOverlap, RuleResult, backtest
from fraud_platform.evaluate.card import model_card
from fraud_platform.evaluate.evaluation import Alone, Curves, Evaluation, Segment, Uncompared
from fraud_platform.evaluate.explorer import Band, Choice, bands, choices
from fraud_platform.evaluate.folds import Fold, prequential
from fraud_platform.evaluate.joined import decision_hash
from fraud_platform.evaluate.metrics import (
    CalibrationBin,
    Quality,
    calibration_bins,
    calibration_error,
    card_precision_at_k,
    measure,
    recall_at_precision,
)
from fraud_platform.evaluate.money import Cost, Interval, amount_major, interval_cells, paired_bootstrap
from fraud_platform.evaluate.rates import Rates, rates
from fraud_platform.evaluate.run import evaluate
from fraud_platform.evaluate.rungs import Rung, Rungs, rungs

__all__ = [
    "Alone",
    "Backtest",
    "Band",
    "CalibrationBin",
    "Choice",
    "Cost",
    "Curves",
    "Evaluation",
    "Fold",
    "Interval",
    "ModelOverlap",
    "Quality",
    "Rates",
    "RuleResult",
    "Rung",
    "Rungs",
    "Segment",
    "Uncompared",
    "amount_major",
    "backtest",
    "bands",
    "calibration_bins",
    "calibration_error",
    "card_precision_at_k",
    "choices",
    "decision_hash",
    "evaluate",
    "interval_cells",
    "measure",
    "model_card",
    "paired_bootstrap",
    "prequential",
    "rates",
    "recall_at_precision",
    "rungs",
]
