"""A person is erased and the chains hold: logs, warehouse and replay know of a decision and of nobody."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from fraud_platform.adapters.audit import check_state
from fraud_platform.adapters.audit_trail import Erasure, read_events
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_monitor import anchors, forget, load_decisions, load_labels
from fraud_platform.adapters.erasure import ErasureReport, drop_bases, erase_card, erase_customer
from fraud_platform.adapters.journal import Journal, read_decisions, read_labels
from fraud_platform.errors import DecisionLogError
from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.serve.record import ERASED, DecisionRecord
from tests.records import decision, label

NUMBERS = [feature for feature in load_contract().features if feature.dtype != "category"]
TEXTS = [feature for feature in load_contract().features if feature.dtype == "category"]
CONTRACT = FeatureContract(load_contract().entities, (*NUMBERS[:2], TEXTS[0], NUMBERS[2]))


def fill(state: Path, records: Iterable[DecisionRecord], labels: Iterable[int] = ()) -> None:
    with Journal(state) as journal:
        for record in records:
            journal.append(record)
        for number in labels:
            journal.append_label(label(number))


def erased_customer(state: Path, name: str) -> ErasureReport:
    return erase_customer(state, name, by="Ada", reason="asked for it", at=9)


def left(state: Path) -> list[str]:
    return [one.record.transaction_id for one in read_decisions(state)]


def load(warehouse: Warehouse, state: Path) -> tuple[int, int]:
    """Rows that are there now."""
    decisions = load_decisions(warehouse, state, lambda _: CONTRACT, 5)
    return decisions.total_count, load_labels(warehouse, state, 5).total_count


def test_a_customer_goes_and_every_other_byte_stays(tmp_path: Path) -> None:
    fill(tmp_path, map(decision, range(9)), labels=[1, 2])
    before = {path: path.read_bytes() for path in tmp_path.glob("*/worker-1/*.jsonl")}
    report = erased_customer(tmp_path, "anna1")
    assert (report.keys, report.decisions, report.labels, report.shared_cards) == (1, 3, 1, 0)
    assert left(tmp_path) == ["t0", "t2", "t3", "t5", "t6", "t8"]
    assert [one.record.event.transaction_id for one in read_labels(tmp_path)] == ["t2"]
    assert all(path.read_bytes() == data for path, data in before.items())
    found = check_state(tmp_path)
    assert found.is_whole, found.findings
    events = [event for event in read_events(tmp_path) if isinstance(event, Erasure)]
    assert [(e.decisions, e.labels, e.by, e.reason, e.at) for e in events] == [
        (3, 1, "Ada", "asked for it", 9)
    ]
    trail = b"".join(path.read_bytes() for path in (tmp_path / "audit").rglob("*") if path.is_file())
    assert b"anna1" not in trail


def test_what_was_sent_without_the_customer_goes_with_a_card_that_is_only_theirs(tmp_path: Path) -> None:
    fill(
        tmp_path,
        [
            decision(1, customer_id="anna", card_id="hers"),
            decision(2, customer_id=None, card_id="hers"),
            decision(3, customer_id="anna", card_id="shared"),
            decision(4, customer_id="bob", card_id="shared"),
            decision(5, customer_id=None, card_id="shared"),
            decision(6, customer_id=None, card_id="nobody's"),
        ],
    )
    report = erased_customer(tmp_path, "anna")
    assert (report.keys, report.decisions, report.shared_cards) == (2, 3, 1)
    assert left(tmp_path) == ["t4", "t5", "t6"]
    report = erased_customer(tmp_path, "bob")
    assert (report.decisions, report.shared_cards) == (2, 0)
    assert left(tmp_path) == ["t6"]


def test_a_card_alone_goes_only_where_no_customer_is_behind_it(tmp_path: Path) -> None:
    fill(
        tmp_path,
        [decision(1, customer_id="anna", card_id="hers"), decision(2, customer_id=None, card_id="x")],
    )
    with pytest.raises(DecisionLogError, match="seen with 1 customers: erase them with --customer"):
        erase_card(tmp_path, "hers", by="Ada", reason="r", at=9)
    assert erase_card(tmp_path, "x", by="Ada", reason="r", at=9).decisions == 1
    assert left(tmp_path) == ["t1"]


def test_nobody_is_not_erased_and_doing_it_twice_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, map(decision, range(3)))
    with pytest.raises(DecisionLogError, match="nothing is known"):
        erased_customer(tmp_path, "nobody")
    assert not (tmp_path / "audit").exists()
    assert erased_customer(tmp_path, "anna0").keys == 1
    assert erased_customer(tmp_path, "anna0").keys == 0
    assert left(tmp_path) == ["t1", "t2"]
    with pytest.raises(DecisionLogError, match="no vault"):
        erased_customer(tmp_path / "elsewhere", "anna0")


def test_a_person_who_comes_again_is_kept_and_the_past_stays_erased(tmp_path: Path) -> None:
    fill(tmp_path, [decision(1, customer_id="anna")])
    erased_customer(tmp_path, "anna")
    fill(tmp_path, [decision(2, customer_id="anna")])
    assert left(tmp_path) == ["t2"]
    with Journal(tmp_path) as journal:
        found = journal.find("t1")
        assert found is not None
        assert (found.is_erased, found.action, found.reasons) == (True, "step_up", decision(1).reasons)
    warehouse = Warehouse(tmp_path / "w.duckdb", threads=1)
    assert load(warehouse, tmp_path) == (1, 0)
    assert erased_customer(tmp_path, "anna").decisions == 1
    assert forget(warehouse, tmp_path) == 1


def test_the_warehouse_forgets_and_takes_nothing_in_again(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "w.duckdb", threads=1)
    fill(tmp_path, map(decision, range(6)), labels=[1, 2])
    assert load(warehouse, tmp_path) == (6, 2)
    erased_customer(tmp_path, "anna1")
    assert forget(warehouse, tmp_path) == 3
    assert load(warehouse, tmp_path) == (4, 1)
    columns = "decided_by, faults, price, tier, is_late, transaction_id"
    rows = warehouse.frame(f"select {columns} from monitor.decisions order by sequence")
    assert rows["transaction_id"].tolist() == ["t0", "t2", "t3", "t5"]
    assert rows["decided_by"].unique().tolist() == ["policy"]
    fill(tmp_path, map(decision, range(6, 9)))
    erased_customer(tmp_path, "anna2")  # whose rows the next load removes by itself
    assert load(warehouse, tmp_path) == (4, 0)
    assert warehouse.frame("select max(sequence) as n from monitor.log_heads where log = 'decisions'")[
        "n"
    ].tolist() == [9]
    assert load(warehouse, tmp_path) == (4, 0)


def test_every_load_is_an_anchor(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "w.duckdb", threads=1)
    for numbers in (range(3), range(3, 6)):
        fill(tmp_path, map(decision, numbers))
        load(warehouse, tmp_path)
    load(warehouse, tmp_path)
    found = anchors(warehouse)
    assert sorted(one.sequence for one in found) == [3, 6]
    assert check_state(tmp_path, found).anchors == 2
    shutil.rmtree(tmp_path / "decisions")
    fill(tmp_path, map(decision, range(6)))  # another log in its place, whole in itself
    assert check_state(tmp_path).is_whole
    assert len(check_state(tmp_path, found).findings) == 2


def test_erased_is_nobodys_name(tmp_path: Path) -> None:
    fill(tmp_path, [decision(1)])
    erased_customer(tmp_path, "anna1")
    record = next(read_decisions(tmp_path, with_erased=True)).record
    assert (record.request.card_id, record.transaction_id) == (ERASED, ERASED)
    (tmp_path / "bases" / "1").mkdir(parents=True)
    assert drop_bases(tmp_path) == 1
