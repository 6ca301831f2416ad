"""What the rules file and the lists file have in common: a YAML mapping with a version and one body."""

from __future__ import annotations

from typing import Any

from fraud_platform.errors import SettingsError
from fraud_platform.yaml_files import load_yaml


def read_yaml(text: str, body: str, version: int) -> dict[str, Any]:
    """The mapping {version, `body`}. SettingsError where it is not one, or of another version."""
    loaded = load_yaml(text, f"the {body} file", f"{body}.yaml")
    if not isinstance(loaded, dict) or loaded.get("version") != version:
        stated = loaded.get("version") if isinstance(loaded, dict) else None
        raise SettingsError(
            f"the {body} file must be a mapping with version: {version}, not {stated!r}; see the head of "
            f"the platform's own {body}.yaml"
        )
    if loaded.keys() != {"version", body}:
        raise SettingsError(f"the {body} file must have exactly version and {body}, not {sorted(loaded)}")
    return loaded


def require_text(what: str, field: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"{what}: {field} must be text and not empty")
