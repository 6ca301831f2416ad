"""Where things lie, as one frozen value built once at the edge.

Belongs here: paths below `var/` and the environment variables that move them.
Does not belong here: anything that opens, creates or reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fraud_platform.errors import SettingsError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
VAR_VARIABLE = "FRAUD_PLATFORM_VAR"
DATASET_VARIABLE = "FRAUD_PLATFORM_DATASET"
SOURCE_VARIABLE = "FRAUD_PLATFORM_SOURCE"
DEFAULT_DATASET = "simulated"


@dataclass(frozen=True)
class Settings:
    """`var`: everything a run writes; `dataset`: a mapping's name or path; `source`: where its files lie.

    `source` is None for the simulated world, which the platform writes itself.
    """

    var: Path
    dataset: str = DEFAULT_DATASET
    source: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """FRAUD_PLATFORM_VAR, FRAUD_PLATFORM_DATASET and FRAUD_PLATFORM_SOURCE, each with a default."""
        source = env.get(SOURCE_VARIABLE)
        return cls(
            var=Path(env.get(VAR_VARIABLE) or PROJECT_ROOT / "var").resolve(),
            dataset=env.get(DATASET_VARIABLE) or DEFAULT_DATASET,
            source=Path(source).resolve() if source else None,
        )

    @property
    def dataset_name(self) -> str:
        """The mapping's name: the dataset setting itself, or the stem of the mapping file it points to."""
        name = Path(self.dataset).stem
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
            raise SettingsError(
                f"dataset {self.dataset!r}: a dataset's name is 1 to 40 lower-case letters, digits or _, "
                "beginning with a letter; rename the mapping file"
            )
        return name

    @property
    def home(self) -> Path:
        """Everything of this dataset."""
        return self.var / self.dataset_name

    @property
    def warehouse(self) -> Path:
        """The DuckDB file; one writing process at a time."""
        return self.home / "warehouse.duckdb"

    @property
    def landing(self) -> Path:
        """Where the simulated world delivers its files."""
        return self.home / "landing"

    @property
    def source_root(self) -> Path:
        return self.source or self.landing

    @property
    def store(self) -> Path:
        """The online feature store (LMDB)."""
        return self.home / "store"

    @property
    def candidates(self) -> Path:
        return self.home / "candidates"

    @property
    def search(self) -> Path:
        """Studies of the search for training parameters, and the best that it found."""
        return self.home / "search"

    @property
    def bundles(self) -> Path:
        return self.home / "bundles"

    @property
    def bento_home(self) -> Path:
        return self.home / "bentoml"

    @property
    def service_state(self) -> Path:
        """The running service's own store and decision log."""
        return self.home / "service"

    @property
    def reports(self) -> Path:
        """Plots, approvals and reports, by stage."""
        return self.home / "reports"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance: one for each dataset, since their asset keys are the same."""
        return self.home / "dagster"

    @property
    def mlflow_home(self) -> Path:
        return self.var / "mlflow"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.mlflow_home / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.mlflow_home / "artifacts"

    @property
    def registered_model(self) -> str:
        """The MLflow registered model's name."""
        return f"fraud-{self.dataset_name}"
