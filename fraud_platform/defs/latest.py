"""What the last materialization of an asset said of itself."""

import dagster as dg

from fraud_platform.errors import SettingsError


def latest_text(instance: dg.DagsterInstance, key: list[str], name: str) -> str:
    """A metadata entry of the asset's last materialization. Raises SettingsError where there is none."""
    event = instance.get_latest_materialization_event(dg.AssetKey(key))
    found = event.asset_materialization.metadata.get(name) if event and event.asset_materialization else None
    if found is None:
        raise SettingsError(f"asset {'/'.join(key)} has no {name} yet; materialize it first")
    return str(found.value)
