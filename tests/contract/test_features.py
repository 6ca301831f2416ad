"""Every declared feature and every kind is discovered here: a new one is tested the moment it exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fraud_platform.features.aggregates import AGGREGATES
from fraud_platform.features.contract import STREAMS, Feature, load_contract
from fraud_platform.features.engine import Engine
from fraud_platform.features.rows import ROWS
from fraud_platform.settings import PROJECT_ROOT

DBT_PROJECT = PROJECT_ROOT / "dbt_project"
CONTRACT = load_contract()
FEATURES = pytest.mark.parametrize("feature", CONTRACT.features, ids=CONTRACT.names)


def macros(file: str, prefix: str) -> set[str]:
    text = (DBT_PROJECT / "macros" / file).read_text(encoding="utf-8")
    return set(re.findall(rf"macro {prefix}_(\w+)\(feature\)", text))


def unit_tests(folder: Path) -> list[dict[str, object]]:
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.yml"))]
    return [test for file in files for test in file.get("unit_tests", [])]


def expected_columns() -> set[str]:
    """Every column that a dbt unit test expects a value of."""
    rows = [row for test in unit_tests(DBT_PROJECT / "models") for row in test["expect"]["rows"]]  # type: ignore[index]
    return {column for row in rows for column in row}


def test_every_aggregate_has_its_macro_and_every_macro_its_class() -> None:
    assert macros("aggregates.sql", "aggregate") == set(AGGREGATES)


def test_every_row_expression_has_its_macro_and_every_macro_its_function() -> None:
    dispatcher = {"expression"}
    assert macros("rows.sql", "row") - dispatcher == set(ROWS)


def test_no_kind_means_two_things() -> None:
    assert set(AGGREGATES).isdisjoint(ROWS)


@FEATURES
def test_a_feature_names_a_known_kind_and_says_what_it_is(feature: Feature) -> None:
    assert feature.kind in (ROWS if feature.entity is None else AGGREGATES)
    assert len(feature.description) > 5
    assert re.fullmatch(r"[a-z][a-z0-9_]*", feature.name)


@pytest.mark.parametrize("kind", sorted({feature.kind for feature in CONTRACT.features}))
def test_a_kind_is_unit_tested_in_dbt(kind: str) -> None:
    assert expected_columns() & {f.name for f in CONTRACT.features if f.kind == kind} or kind in UNTESTED


UNTESTED = {
    "home_distance_km": "distance_km is unit-tested; home is in tests/integration/test_features_parity.py",
}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_is_unit_tested_in_dbt(stream: str) -> None:
    counts = {f.name for f in CONTRACT.features if f.kind == "count" and f.stream == stream}
    assert expected_columns() & counts


def test_the_contract_is_wide_and_the_engine_can_compute_it() -> None:
    assert len(CONTRACT.features) >= 60
    engine = Engine(CONTRACT)
    placed = [place for plan in engine.plans for place, _ in plan.readers]
    rows = [place for place, feature in enumerate(CONTRACT.features) if feature.entity is None]
    assert sorted(placed + rows) == list(range(len(CONTRACT.features)))


@pytest.mark.parametrize("entity", CONTRACT.entities)
def test_an_entity_has_a_model_and_a_reader(entity: str) -> None:
    model = DBT_PROJECT / "models" / "features" / f"{entity}_features.sql"
    assert model.read_text(encoding="utf-8").strip() == f"{{{{ entity_features('{entity}') }}}}"
    assert any(feature.entity == entity for feature in CONTRACT.features)


def test_only_one_macro_owns_the_window_frames() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in DBT_PROJECT.rglob("*.sql")}
    owners = [name for name, text in texts.items() if "range between" in text.lower()]
    assert owners == ["windows.sql"]
