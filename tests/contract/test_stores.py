"""Every class that satisfies FeatureStore is attacked: the registry of tests/stores.py is complete."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest

import fraud_platform.adapters
from fraud_platform.features.engine import FeatureStore
from tests.stores import KINDS, WRITTEN, Stores

ASKED = {name for name, value in vars(FeatureStore).items() if callable(value) and not name.startswith("_")}


def feature_stores() -> set[type[Any]]:
    """The classes that the adapters define and that answer every call of a FeatureStore."""
    modules = walk_packages(fraud_platform.adapters.__path__, "fraud_platform.adapters.")
    return {
        value
        for module in [import_module(found.name) for found in modules]
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and set(dir(value)) >= ASKED
        if not getattr(value, "_is_protocol", False)
    }


def test_every_store_of_the_adapters_is_attacked() -> None:
    assert {"observe", "learn", "observe_all", "flush", "close"} <= ASKED
    found = feature_stores()
    assert found == {kind.store_class for kind in KINDS if kind.is_written}
    assert "LmdbStore" in {store.__name__ for store in found}


def test_a_missing_server_fails_where_skips_are_not_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("tests.servers.shutil.which", lambda name: None)
    stores = Stores(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="redis-server and redis-cli not found"):
        stores.empty("redis").__enter__()
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="redis-server and redis-cli not found"):
        stores.empty("redis").__enter__()


def test_the_embedded_store_is_always_there() -> None:
    assert WRITTEN[0] == "lmdb"
