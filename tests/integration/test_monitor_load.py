from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraud_platform import package
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_monitor import (
    decision_columns,
    label_events,
    load_decisions,
    load_labels,
    recent_columns,
)
from fraud_platform.adapters.journal import Journal, read_decisions
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.spill import Spill
from fraud_platform.features.contract import FeatureContract
from fraud_platform.monitor import drift
from fraud_platform.package import Bundle, BundleParts
from fraud_platform.serve import Decider, Judge

NOW_MS = 1_790_000_000_000
Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def bundle(tiny_parts: BundleParts) -> Bundle:
    return package.build(tiny_parts)


def decide(folder: Path, bundle: Bundle, build: Build, numbers: range) -> None:
    with (
        LmdbStore.open(folder / "store", bundle.contract) as store,
        Journal(folder) as journal,
    ):
        spill = Spill(folder / "spill")
        decider = Decider(Judge(bundle), store, journal, spill, lambda: NOW_MS)
        for n in numbers:
            request = build(transaction_id=f"t{n}", event_time=NOW_MS - 10**6 + n, amount_minor=100 + n)
            decider.decide(request)
            if n % 3 == 0:
                label = {"transaction_id": f"t{n}", "source": "chargeback", "outcome": "fraud"}
                decider.learn({**label, "known_at": NOW_MS})
        decider.close()
        spill.close()


def test_the_log_is_loaded_once_and_goes_on(
    tmp_path: Path, bundle: Bundle, transaction_request: Build
) -> None:
    warehouse = Warehouse(tmp_path / "w.duckdb")
    loads = []
    for numbers in (range(10), range(0), range(10, 25)):
        decide(tmp_path, bundle, transaction_request, numbers)
        decisions = load_decisions(warehouse, tmp_path, lambda _: bundle.contract)
        labels = load_labels(warehouse, tmp_path)
        loads.append((decisions.new_count, decisions.total_count, labels.new_count, labels.total_count))
    assert loads == [(10, 10, 4, 4), (0, 10, 0, 4), (15, 25, 5, 9)]


def test_what_was_decided_comes_back_to_the_bit(
    tmp_path: Path, bundle: Bundle, transaction_request: Build
) -> None:
    decide(tmp_path, bundle, transaction_request, range(12))
    warehouse = Warehouse(tmp_path / "w.duckdb")
    load_decisions(warehouse, tmp_path, lambda _: bundle.contract)
    columns, probability = recent_columns(warehouse, bundle.contract, bundle.id, 5)
    assert len(probability) == 5
    last = [one.record for one in read_decisions(tmp_path)][-1]
    first = [columns[name][0] for name in bundle.contract.names]
    assert [None if value != value else value for value in first] == list(last.vector)
    assert probability[0] == last.probability
    report = drift(bundle.reference, columns, probability)
    assert report.row_count == 5


def test_labels_of_decided_transactions_reach_the_monitor(
    tmp_path: Path, bundle: Bundle, transaction_request: Build
) -> None:
    decide(tmp_path, bundle, transaction_request, range(4))
    warehouse = Warehouse(tmp_path / "w.duckdb")
    assert label_events(warehouse) == []
    load_decisions(warehouse, tmp_path, lambda _: bundle.contract)
    load_labels(warehouse, tmp_path)
    assert {event.transaction_id for event in label_events(warehouse)} == {"t0", "t3"}
    columns = decision_columns(warehouse)
    assert columns.amount_minor.tolist() == [100, 101, 102, 103]
    assert columns.probability.dtype == np.float64


def test_a_bundle_of_another_contract_adds_columns(
    tmp_path: Path, bundle: Bundle, transaction_request: Build
) -> None:
    decide(tmp_path, bundle, transaction_request, range(2))
    warehouse = Warehouse(tmp_path / "w.duckdb")
    fewer = FeatureContract(bundle.contract.entities, bundle.contract.features[:3])
    load_decisions(warehouse, tmp_path, lambda _: fewer)
    decide(tmp_path, bundle, transaction_request, range(2, 4))
    assert load_decisions(warehouse, tmp_path, lambda _: bundle.contract).total_count == 4
    frame = warehouse.frame("SELECT hour_of_day FROM monitor.decisions ORDER BY sequence")
    assert frame["hour_of_day"].isna().tolist() == [True, True, False, False]


def test_an_empty_log_makes_an_empty_table(tmp_path: Path, bundle: Bundle) -> None:
    warehouse = Warehouse(tmp_path / "w.duckdb")
    report = load_decisions(warehouse, tmp_path / "none", lambda _: bundle.contract)
    assert (report.new_count, report.total_count) == (0, 0)
