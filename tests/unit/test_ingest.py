"""ingest: mappings are read or refused, plans are pure, reports must add up."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fraud_platform.ingest.sql
from fraud_platform.errors import FraudPlatformError, MappingError
from fraud_platform.ingest import (
    IngestReport,
    Mapping,
    Split,
    StreamReport,
    load_mapping,
    plan_stream,
    source_expressions,
)
from fraud_platform.ingest.mapping import DATASETS
from fraud_platform.schema import LABEL_COLUMNS, TRANSACTION_COLUMNS

SHOP = """
name: shop
transactions:
  files: tx/*.csv
  columns: {transaction_id: id, event_time: at, card_id: card, merchant_id: shop, amount: amount,
            currency: "'EUR'"}
extras:
  age_days: {expression: age, type: numeric, description: Age of the account}
  kind: {expression: lower(kind), type: category}
labels:
  files: labels.csv
  where: fraud = '1'
  columns: {transaction_id: id, source: "'chargeback'", outcome: "'fraud'", known_at: at}
maturity_days: 30
label_precedence: [Chargeback, manual_review]
split: {test_days: 7, validation_days: 3}
excluded: {gender: fair lending}
"""


def shop(**changes: object) -> str:
    """The mapping above with dotted entries replaced; None removes one."""
    content = yaml.safe_load(SHOP)
    for path, value in changes.items():
        *parents, key = path.split(".")
        table = content
        for parent in parents:
            table = table[parent]
        if value is None:
            del table[key]
        else:
            table[key] = value
    return yaml.safe_dump(content)


def test_a_mapping_is_read_as_a_frozen_value() -> None:
    mapping = Mapping.from_yaml(SHOP, "shop.yaml")
    assert mapping.transactions.files == ("tx/*.csv",)
    assert mapping.labels.where == "fraud = '1'"
    assert mapping.label_precedence == ("chargeback", "manual_review")
    assert mapping.split == Split(test_days=7, validation_days=3)
    names = [column.name for column in mapping.transaction_columns]
    assert names == [column.name for column in TRANSACTION_COLUMNS] + ["extra_age_days", "extra_kind"]
    assert [column.type for column in mapping.transaction_columns[-2:]] == ["DOUBLE", "VARCHAR"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transactions.columns.card_idd": "x"}, "unknown entry 'card_idd'; known: amount, "),
        ({"transactions.columns.card_id": None}, "'card_id' is missing"),
        ({"transactions.columns.amount": None}, "give exactly one of 'amount'"),
        ({"transactions.columns.amount_minor": "x"}, "give exactly one of 'amount'"),
        ({"transactions.columns.card_id": ["x"]}, "must be a SQL expression"),
        ({"transactions.columns.card_id": " "}, "must be a SQL expression"),
        ({"transactions.columns.card_id": "card || gender"}, "uses 'gender', which is excluded"),
        ({"extras.kind.expression": "GENDER"}, "uses 'gender', which is excluded"),
        ({"extras.kind.type": "text"}, "must be numeric or category"),
        ({"extras": ["kind"]}, "extras: is"),
        ({"extras": {"Kind": {"expression": "x", "type": "numeric"}}}, "lower-case letters"),
        ({"transactions.files": []}, "give a glob below the source"),
        ({"transactions.files": "../other/*.csv"}, "leaves the source"),
        ({"transactions.where": "true"}, "unknown entry 'where'"),
        ({"labels": None}, "'labels' is missing"),
        ({"labels": "none"}, "labels: is 'none'; it must be a table"),
        ({"maturity_days": "30"}, "maturity_days: is '30'; it must be a whole number of days"),
        ({"maturity_days": True}, "maturity_days: is True"),
        ({"young_rows": "kept"}, "young_rows: is 'kept'; it must be corrected or left_out"),
        ({"young_rows": ["corrected"]}, "young_rows: is ['corrected']; it must be"),
        ({"label_precedence": ["a", "a"]}, "list each source once"),
        ({"label_precedence": "chargeback"}, "list each source once"),
        ({"split": {"test_days": 7}}, "'validation_days' is missing"),
        ({"split.test_days": 0}, "split.test_days: is 0"),
        ({"name": "My Shop"}, "name: is 'My Shop'"),
    ],
)
def test_a_wrong_mapping_is_refused_by_place(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MappingError) as caught:
        Mapping.from_yaml(shop(**changes), "shop.yaml")
    assert str(caught.value).startswith("shop.yaml: ")
    assert message in str(caught.value)


def test_an_excluded_name_inside_a_text_constant_is_no_use_of_it() -> None:
    mapping = Mapping.from_yaml(shop(**{"extras.kind.expression": "coalesce(kind, 'gender')"}), "shop.yaml")
    assert mapping.extras[1].expression == "coalesce(kind, 'gender')"


def test_text_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(MappingError, match="not YAML"):
        Mapping.from_yaml("name: [", "shop.yaml")


def test_a_mapping_is_loaded_by_name_or_by_path(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    assert load_mapping(str(path)).name == "shop"
    other = path.rename(tmp_path / "other.yaml")
    with pytest.raises(MappingError, match="must be the file's stem, 'other'"):
        load_mapping(str(other))
    with pytest.raises(MappingError, match="no dataset mapping 'nowhere': give one of handbook, "):
        load_mapping("nowhere")


@pytest.mark.parametrize("name", sorted(path.stem for path in DATASETS.glob("*.yaml")))
def test_every_shipped_mapping_loads(name: str) -> None:
    mapping = load_mapping(name)
    assert mapping.description
    assert all(extra.description for extra in mapping.extras)


@pytest.mark.parametrize("name", ["gender", "profile", "age", "dob", "is_fraud"])
def test_sparkov_names_what_must_never_be_an_input(name: str) -> None:
    assert name in load_mapping("sparkov").excluded


def test_a_bare_name_is_a_column_even_if_it_is_a_keyword() -> None:
    expressions = source_expressions(Mapping.from_yaml(SHOP, "shop.yaml"), "transactions")
    assert expressions["event_time"] == '"at"'
    assert expressions["currency"] == "'EUR'"
    assert expressions["extra_kind"] == "lower(kind)"


def test_a_plan_is_the_same_text_for_the_same_mapping() -> None:
    mapping = Mapping.from_yaml(SHOP, "shop.yaml")
    for stream, columns in (("transactions", mapping.transaction_columns), ("labels", LABEL_COLUMNS)):
        plans = [plan_stream(mapping, stream, {}, "source", now_ms=1) for _ in range(2)]  # type: ignore[arg-type]
        assert plans[0] == plans[1]
        assert plans[0].columns == columns


def test_card_numbers_are_the_first_rules() -> None:
    """Any later place would let another rule store the number with the row."""
    plan = plan_stream(Mapping.from_yaml(SHOP, "shop.yaml"), "transactions", {}, "source", now_ms=1)
    names = [rule.name for rule in plan.rules]
    assert names[:3] == ["card_number"] * 3
    assert "card_number" not in names[3:]


def test_the_stage_imports_no_duckdb() -> None:
    code = "import sys, fraud_platform.ingest; assert not {'duckdb', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def stream(**changes: int) -> StreamReport:
    counts = {"rows_in": 10, "canonical": 5, "duplicates": 3, "quarantined": 2, "already_quarantined": 0}
    counts |= {"released": 0, "readmitted": 0} | changes
    return StreamReport(stream="transactions", quarantined_by_rule={}, **counts)


def test_a_report_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(FraudPlatformError, match="11 rows in, but 5 canonical"):
        stream(rows_in=11)


def test_a_report_says_that_nothing_changed() -> None:
    unchanged = stream(canonical=0, duplicates=8, already_quarantined=2)
    assert IngestReport(unchanged, unchanged).is_unchanged
    for changed in (
        stream(),
        stream(canonical=0, duplicates=8),
        stream(canonical=0, duplicates=8, already_quarantined=2, released=1),
    ):
        assert not IngestReport(unchanged, changed).is_unchanged
    assert IngestReport(unchanged, unchanged).as_dict()["transactions"]["duplicates"] == 8


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(fraud_platform.ingest.sql).failed == 0
