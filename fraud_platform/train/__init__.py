"""train: rows up to a moment become a candidate (booster, calibrator, encoder, log).

Belongs here: the split in time, sampling, fitting, the baseline that is learned, the candidate's identity.
Does not belong here: metrics and money (`evaluate`), whether a candidate may ship (`register`), files
(`adapters.candidates`).
"""

from fraud_platform.train.baseline import LogisticBaseline
from fraud_platform.train.booster import Booster, TrainParams, fit_booster, sample_rows
from fraud_platform.train.candidate import DEFAULT_PARAMS, Candidate, PartLog, TrainLog, YoungLog, columns_of
from fraud_platform.train.run import train
from fraud_platform.train.split import Part, Split
from fraud_platform.train.young import YoungLabels

__all__ = [
    "DEFAULT_PARAMS",
    "Booster",
    "Candidate",
    "LogisticBaseline",
    "Part",
    "PartLog",
    "Split",
    "TrainLog",
    "TrainParams",
    "YoungLabels",
    "YoungLog",
    "columns_of",
    "fit_booster",
    "sample_rows",
    "train",
]
