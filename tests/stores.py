"""Every kind of online store that the tests attack, found by its module: who adds a store adds a line here.

Belongs here: where a kind is opened and what it needs. Does not belong here: what is demanded of it
(tests/property, tests/integration/test_features_*.py). tests/contract/test_stores.py demands that no class
that satisfies FeatureStore is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fraud_platform.adapters.redis_link import Limits
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import FeatureStore
from tests.servers import missing_redis, redis_cluster, redis_says, redis_server


@dataclass(frozen=True)
class StoreKind:
    """module, class_name: the store; missing: why its server cannot run here, None where it can."""

    name: str
    module: str
    class_name: str
    missing: Callable[[], str | None] = lambda: None

    @property
    def is_written(self) -> bool:
        return find_spec(self.module) is not None

    @property
    def store_class(self) -> Any:
        return getattr(import_module(self.module), self.class_name)


KINDS = (
    StoreKind("lmdb", "fraud_platform.adapters.lmdb", "LmdbStore"),
    StoreKind("redis", "fraud_platform.adapters.redis", "RedisStore", missing_redis),
    StoreKind("redis_cluster", "fraud_platform.adapters.redis", "RedisStore", missing_redis),
)
WRITTEN = tuple(kind.name for kind in KINDS if kind.is_written)
PATIENT = Limits(connect_s=30.0, command_s=30.0, wait_s=30.0)
"""A busy machine is no failure of the store."""
every_store = pytest.mark.parametrize("kind", WRITTEN)


class StoreAddress(NamedTuple):
    """Where one store lies; goes to other processes. place: a folder or a URL."""

    kind: str
    place: str

    def open(self, contract: FeatureContract) -> FeatureStore:
        store_class = _kind(self.kind).store_class
        place = Path(self.place) if self.kind == "lmdb" else self.place
        options = {} if self.kind == "lmdb" else {"limits": PATIENT}
        opened: FeatureStore = store_class.open(place, contract, **options)
        return opened


class Stores:
    """Empty stores of any kind. A server starts when it is first asked for and runs until the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = iter(range(1 << 62))
        self._running = ExitStack()
        self._ports: dict[str, list[int]] = {}

    @contextmanager
    def empty(self, kind: str) -> Iterator[StoreAddress]:
        """The place of a store that nothing was written to. A server holds one store at a time."""
        self._require(kind)
        if kind == "lmdb":
            place = self._folder / f"store{next(self._numbers)}"
            try:
                yield StoreAddress(kind, str(place))
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return
        ports = self._servers(kind)
        for port in ports:
            if redis_says(port, "FLUSHALL") != "OK":
                raise RuntimeError(f"the {kind} server on port {port} does not empty itself")
        scheme = "redis+cluster" if kind == "redis_cluster" else "redis"
        yield StoreAddress(kind, f"{scheme}://127.0.0.1:{ports[0]}")

    def close(self) -> None:
        self._running.close()

    def _servers(self, kind: str) -> list[int]:
        if kind not in self._ports:
            start = self._running.enter_context
            folder = self._folder / kind
            if kind == "redis":
                self._ports[kind] = [start(redis_server(folder))]
            else:
                self._ports[kind] = start(redis_cluster(folder))
        return self._ports[kind]

    @staticmethod
    def _require(kind: str) -> None:
        """Skips where the kind's server is missing, and fails where the environment is CI: no hidden gap."""
        reason = _kind(kind).missing()
        if reason is not None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"store {kind}: {reason}")


def _kind(name: str) -> StoreKind:
    return next(kind for kind in KINDS if kind.name == name)
