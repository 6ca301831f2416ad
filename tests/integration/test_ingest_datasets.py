"""ingest on the third-party sets, given by path; skipped, visibly, where they are missing."""

from pathlib import Path

import pytest

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.ingest import load_mapping
from fraud_platform.settings import PROJECT_ROOT

DATA = PROJECT_ROOT.parent / "shared" / "data"
NOW_MS = 1_790_000_000_000
COUNTS = {"handbook": (1_504_628, 12_484), "sparkov": (1_290_056, 9_539)}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_real_set_is_taken_in_whole_and_once(name: str, tmp_path: Path) -> None:
    source = DATA / name
    if not source.is_dir():
        pytest.skip(f"the {name} set is not at {source}")
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    first = warehouse.ingest(load_mapping(name), source, NOW_MS)
    assert (first.transactions.canonical, first.labels.canonical) == COUNTS[name]
    assert (first.transactions.rows_in, first.labels.rows_in) == COUNTS[name]
    second = warehouse.ingest(load_mapping(name), source, NOW_MS)
    assert second.is_unchanged
    assert (second.transactions.duplicates, second.labels.duplicates) == COUNTS[name]
    assert warehouse.count("ingest.quarantine") == 0
