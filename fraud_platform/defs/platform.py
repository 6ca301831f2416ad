"""What the Dagster code of every stage is handed: plain objects for one dataset, made once at the edge.

Belongs here: composition. Does not belong here: Dagster, and anything a stage decides.
"""

import time
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.mlflow import ModelRegistry
from fraud_platform.errors import SettingsError
from fraud_platform.evaluate import decision_hash
from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.ingest import Mapping, load_mapping
from fraud_platform.labels import LabelRule
from fraud_platform.policy import Policy
from fraud_platform.rules import RuleSet, rules_from_yaml
from fraud_platform.settings import DEFAULT_DATASET, PROJECT_ROOT, Settings

EXPECTATIONS = PROJECT_ROOT / "expectations"


@dataclass(frozen=True)
class Platform:
    """One dataset's settings, mapping, contract, warehouse and registry, each opened at its first use."""

    settings: Settings

    @cached_property
    def mapping(self) -> Mapping:
        return load_mapping(self.settings.dataset)

    @cached_property
    def contract(self) -> FeatureContract:
        return load_contract(extra.column for extra in self.mapping.extras)

    @cached_property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.settings.warehouse)

    @cached_property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(
            self.settings.mlflow_uri, self.settings.registered_model, self.settings.mlflow_artifacts
        )

    @cached_property
    def label_rule(self) -> LabelRule:
        return LabelRule(self.mapping.maturity_days, self.mapping.label_precedence)

    @cached_property
    def policy_text(self) -> str:
        return _shipped("policy.yaml")

    @cached_property
    def rules_text(self) -> str:
        return _shipped("rules.yaml")

    @cached_property
    def lists_text(self) -> str:
        return _shipped("lists.yaml")

    @property
    def decision_hash(self) -> str:
        """Of what a bundle that is made now would decide by, beside its model."""
        return decision_hash((self.policy_text, self.rules_text, self.lists_text), self.rules_in_force)

    @property
    def rules_in_force(self) -> RuleSet:
        """The rules of today, on all days: rows of months ago are judged as they would be answered now."""
        return self.rules.in_force(self.now_ms())

    @property
    def policy(self) -> Policy:
        return Policy.from_yaml(self.policy_text)

    @property
    def rules(self) -> RuleSet:
        return rules_from_yaml(self.rules_text, self.contract.dtypes, self.lists_text)

    @property
    def is_simulated(self) -> bool:
        """The platform plays this dataset's world itself."""
        return self.settings.dataset == DEFAULT_DATASET and self.settings.source is None

    @property
    def source(self) -> Path:
        if self.settings.source is None and not self.is_simulated:
            raise SettingsError(
                f"dataset {self.settings.dataset_name!r} has no source: give --source PATH "
                "(or FRAUD_PLATFORM_SOURCE), the folder or file that its mapping reads"
            )
        return self.settings.source_root

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def _shipped(name: str) -> str:
    return resources.files("fraud_platform").joinpath(name).read_text(encoding="utf-8")
