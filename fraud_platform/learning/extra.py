"""The libraries of the extra `learning`, loaded when an experiment first needs them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from fraud_platform.errors import SettingsError

PACKAGES = {"imblearn": "imbalanced-learn", "optuna": "optuna", "xgboost": "xgboost-cpu"}
"""Module to the package that brings it."""


def load_extra(module: str) -> Any:
    """The module, such as "imblearn.combine". SettingsError names the extra where its package is missing."""
    root = module.split(".")[0]
    # Threads of OpenMP that sleep instead of spinning; each library reads it when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != root:
            raise
        raise SettingsError(
            f"package {PACKAGES[root]!r} is not installed, and this experiment needs it: install the extra "
            "with pip install 'fraud-platform[learning]'"
        ) from error
