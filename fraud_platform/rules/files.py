"""What the rules file and the lists file have in common: a YAML mapping with a version and one body."""

from __future__ import annotations

from typing import Any

import yaml

from fraud_platform.errors import SettingsError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""LibYAML where it is there: a list of 100,000 tokens takes it half a second."""


class _Loader(_LOADER):  # type: ignore[misc, valid-type]
    """A key that stands twice would silently hide the first; here it is an error."""


def read_yaml(text: str, body: str, version: int) -> dict[str, Any]:
    """The mapping {version, `body`}. SettingsError where it is not one, or of another version."""
    try:
        loaded = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SettingsError(f"the {body} file is not YAML: {str(error).replace(chr(10), ' ')}") from error
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


def _unique_keys(loader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    doubled = sorted({str(key) for key in keys if keys.count(key) > 1})
    if doubled:
        line = node.start_mark.line + 1
        raise SettingsError(f"{doubled[0]!r} stands twice in the mapping at line {line}: keep one")
    return {
        key: loader.construct_object(value, deep=True)
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)
