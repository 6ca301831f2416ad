"""Reads features from Feast on Redis, one row a call, and tells the timings: a program of its own.

Runs in an environment that holds Feast and nothing of this project: beside_feast.py makes the one and starts
the other. On standard output, a JSON line once it is ready; then, for each number of reads on a line of
standard input, a JSON list of nanoseconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

ENTITIES = ("card", "customer", "device", "ip", "merchant")
FEATURES = 12
WARM_UP = 200


def store_at(folder: Path, port: int) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "redis", "connection_string": f"127.0.0.1:{port}"},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )


def views(folder: Path) -> list[Any]:
    """Five entities, and a view of twelve doubles for each."""
    declared: list[Any] = []
    for name in ENTITIES:
        entity = Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING)
        source = FileSource(
            name=f"{name}_source", path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp"
        )
        view = FeatureView(
            name=f"{name}_view",
            entities=[entity],
            ttl=timedelta(days=365),
            schema=[Field(name=f"{name}_{number}", dtype=Float64) for number in range(FEATURES)],
            online=True,
            source=source,
        )
        declared += [entity, view]
    return declared


def rows_of(name: str, ids: Sequence[str]) -> pd.DataFrame:
    values = np.random.default_rng(5).random((len(ids), FEATURES))
    frame = pd.DataFrame(values, columns=[f"{name}_{number}" for number in range(FEATURES)])
    frame[f"{name}_id"] = ids
    frame["event_timestamp"] = datetime.now(UTC)
    return frame


def prepare(folder: Path, port: int, ids: Mapping[str, Sequence[str]]) -> FeatureStore:
    """A store that knows these ids of each entity."""
    store = store_at(folder, port)
    for name in ENTITIES:
        rows_of(name, ids[name][:1]).to_parquet(folder / f"{name}.parquet")
    store.apply(views(folder))
    for name in ENTITIES:
        store.write_to_online_store(f"{name}_view", rows_of(name, ids[name]))
    return store


def wanted() -> list[str]:
    """Every feature of every view."""
    return [f"{name}_view:{name}_{number}" for name in ENTITIES for number in range(FEATURES)]


def read(store: FeatureStore, rows: int, reads: int, rng: np.random.Generator) -> list[int]:
    """Nanoseconds of each read of 60 features of one row; SystemExit where one comes back empty."""
    features = wanted()
    took = []
    for keys in rng.integers(0, rows, (reads, len(ENTITIES))).tolist():
        row = {f"{name}_id": f"{name}-{key}" for name, key in zip(ENTITIES, keys, strict=True)}
        started = time.perf_counter_ns()
        answer = store.get_online_features(features=features, entity_rows=[row]).to_dict()
        took.append(time.perf_counter_ns() - started)
        if sum(answer[f"{name}_{FEATURES - 1}"][0] is not None for name in ENTITIES) != len(ENTITIES):
            raise SystemExit(f"Feast did not find the features of {row}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    options = parser.parse_args()
    ids = {name: [f"{name}-{number}" for number in range(options.rows)] for name in ENTITIES}
    store = prepare(options.folder, options.port, ids)
    rng = np.random.default_rng(3)
    read(store, options.rows, WARM_UP, rng)
    gc.collect()
    gc.freeze()
    print(json.dumps({"feast": version("feast")}), flush=True)
    for line in sys.stdin:
        print(json.dumps(read(store, options.rows, int(line), rng)), flush=True)


if __name__ == "__main__":
    main()
