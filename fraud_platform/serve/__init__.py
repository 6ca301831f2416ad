"""serve: from a request to a decision that is explained and on record.

Belongs here: validation, the judgement of rules, model and policy, the decision's record.
Does not belong here: HTTP, files, LMDB (adapters); nothing here imports pandas or scikit-learn.
"""

from fraud_platform.serve.decider import ConflictError, Decider
from fraud_platform.serve.judge import Judge, Judgement
from fraud_platform.serve.record import Decision, DecisionRecord, LabelRecord, Reason
from fraud_platform.serve.requests import parse_label, parse_transaction

__all__ = [
    "ConflictError",
    "Decider",
    "Decision",
    "DecisionRecord",
    "Judge",
    "Judgement",
    "LabelRecord",
    "Reason",
    "parse_label",
    "parse_transaction",
]
