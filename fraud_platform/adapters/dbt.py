"""dbt: the project's place, its vars for a dataset, and the manifest that Dagster reads.

Belongs here: how dbt is called. Does not belong here: what it builds (dbt_project/).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fraud_platform.errors import SettingsError
from fraud_platform.ingest import Mapping
from fraud_platform.settings import PROJECT_ROOT, Settings

DBT_PROJECT = PROJECT_ROOT / "dbt_project"
MEMORY_LIMIT = "4GB"
_SOURCES = ("*.yml", "macros/**/*.sql", "models/**/*", "data-tests/**/*.sql")


def dbt_executable() -> str:
    """The dbt of the running interpreter's environment."""
    return str(Path(sys.executable).with_name("dbt"))


def dbt_vars(settings: Settings, mapping: Mapping, as_of_ms: int | None = None) -> dict[str, Any]:
    """What the project's models and profile need to know of a dataset."""
    return {
        "warehouse": str(settings.warehouse),
        "spill": str(settings.home / "spill"),
        "memory_limit": MEMORY_LIMIT,
        "as_of": as_of_ms,
        "maturity_days": mapping.maturity_days,
        "label_precedence": list(mapping.label_precedence),
        "extras": [
            {
                "name": extra.column.name,
                "dtype": "category" if extra.type == "category" else "double",
                "description": extra.description,
            }
            for extra in mapping.extras
        ],
    }


def target_path(settings: Settings) -> Path:
    return settings.home / "dbt"


def ensure_manifest(settings: Settings, mapping: Mapping) -> Path:
    """The manifest of the project for this dataset, parsed again only where project or vars changed.

    Raises SettingsError with dbt's own words where the project does not parse.
    """
    variables = json.dumps(dbt_vars(settings, mapping), sort_keys=True)
    target = target_path(settings)
    manifest, stamp = target / "manifest.json", target / "manifest.sha256"
    digest = project_digest(variables)
    if manifest.is_file() and stamp.is_file() and stamp.read_text() == digest:
        return manifest
    target.mkdir(parents=True, exist_ok=True)
    command = [dbt_executable(), "--quiet", "parse", "--project-dir", str(DBT_PROJECT)]
    command += ["--profiles-dir", str(DBT_PROJECT), "--target-path", str(target)]
    command += ["--log-path", str(target), "--vars", variables]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        check=False,
    )
    if done.returncode != 0:
        raise SettingsError(
            f"dbt cannot read {DBT_PROJECT.name}: {done.stdout.strip()} {done.stderr.strip()}"
        )
    stamp.write_text(digest)
    return manifest


def project_digest(*texts: str) -> str:
    """SHA-256 of the project's sources and the texts given."""
    digest = hashlib.sha256()
    files = {path for pattern in _SOURCES for path in DBT_PROJECT.glob(pattern) if path.is_file()}
    for path in sorted(files):
        if "target" not in path.relative_to(DBT_PROJECT).parts:
            digest.update(str(path.relative_to(DBT_PROJECT)).encode() + b"\0" + path.read_bytes())
    for text in texts:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()
