"""What the live rules make of a frame's rows, and of the policy's actions on them, as the service would.

Belongs here: from a frame's columns to what rules read; which prices and rules these were. Does not belong
here: how rules and policy are joined (`rules`), money (`money`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256

import numpy as np
import pandas as pd

from fraud_platform.rules import FIELD_TYPES, REQUEST, RuleSet
from fraud_platform.yaml_files import load_yaml


def decision_hash(files: Iterable[str], in_force: RuleSet) -> str:
    """SHA-256 of everything beside a model that decides. files: YAML of prices, rules and lists, whose
    comments count for nothing; in_force: the rules that count on the day."""
    values = [load_yaml(text, "a file that decides") for text in files]
    said = json.dumps([values, sorted(rule.name for rule in in_force.rules)], sort_keys=True, default=str)
    return sha256(said.encode()).hexdigest()


def request_columns(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The request's fields among a frame's columns, as rules read them: "request.FIELD", each (n,)."""
    return {REQUEST + name: rows[name].to_numpy() for name in FIELD_TYPES if name in rows}


def live_answers(rules: RuleSet, columns: Mapping[str, np.ndarray], rows: pd.DataFrame) -> np.ndarray:
    """What is answered where the policy says ACTIONS[a], by row a: int8 (3, n); see `RuleSet.answers`.

    columns: the features, (n,) each; rows: n of them, with the request's fields where known.
    `np.choose(actions, answers)` joins the policy's actions, (n,), with the live rules.
    """
    return rules.answers(rules.fired({**columns, **request_columns(rows)}, len(rows)))
