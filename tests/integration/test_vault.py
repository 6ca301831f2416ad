"""Keys of persons: kept, shared, destroyed; and what of a record is left without one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fraud_platform.adapters.journal import Journal, read_decisions, read_labels
from fraud_platform.adapters.sealed_records import Sealer, customer
from fraud_platform.adapters.vault import KEY_FILE_VARIABLE, Vault
from fraud_platform.errors import DecisionLogError, SettingsError
from fraud_platform.serve.record import ERASED
from tests.records import decision, label

MAKER = """
import sys
from pathlib import Path
from fraud_platform.adapters.vault import Vault
with Vault(Path(sys.argv[1])) as vault:
    for number in range(200):
        key = vault.key_for(f"p{number}")
        print(key.slot, key.person)
"""


def test_a_person_has_one_key_whoever_asks_first(tmp_path: Path) -> None:
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [maker.communicate(timeout=180)[0] for maker in makers]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 200


def test_keys_are_found_again_also_without_the_index(tmp_path: Path) -> None:
    with Vault(tmp_path) as vault:
        first, second = vault.key_for("a"), vault.key_for("b")
        sealed = first.cipher.encrypt(b"0" * 12, b"secret", None)
    shutil.rmtree(tmp_path / "index")
    with Vault(tmp_path) as vault:
        again = vault.key_for("a")
        assert (again.slot, again.person) == (first.slot, first.person)
        assert again.cipher.decrypt(b"0" * 12, sealed, None) == b"secret"
        assert vault.key_for("c").slot not in (first.slot, second.slot)
    with Vault(tmp_path, is_reader=True) as reader:
        assert reader.key_at(second.slot).person == second.person  # type: ignore[union-attr]
        with pytest.raises(DecisionLogError, match="makes no keys"):
            reader.key_for("d")


def test_no_bytes_of_a_destroyed_key_are_left_and_its_person_gets_another(tmp_path: Path) -> None:
    with Vault(tmp_path) as vault, Vault(tmp_path, is_reader=True) as reader:
        key = vault.key_for("a")
        before = (tmp_path / "keys").read_bytes()
        wrapped = before[96 + 17 : 96 + 17 + 60]
        assert reader.key_at(key.slot) is not None
        vault.destroy([key.slot], at=7)
        assert wrapped not in (tmp_path / "keys").read_bytes()
        assert (vault.key_at(key.slot), reader.key_at(key.slot)) == (None, None)
        assert [(one.slot, one.person, one.at) for one in vault.erased()] == [(key.slot, key.person, 7)]
        other = vault.key_for("a")
        assert (other.person, other.slot) == (key.person, 1)
        assert vault.slots_of(key.person) == [1]


def test_keys_are_of_no_use_without_the_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.write_text("ab" * 32)
    other.write_bytes(b"x" * 32)
    with Vault(tmp_path / "vault", mine) as vault:
        person = vault.key_for("a").person
    assert not (tmp_path / "vault" / "master.key").exists()
    with pytest.raises(SettingsError, match="another one"):
        Vault(tmp_path / "vault", other)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(mine))
    with Vault(tmp_path / "vault") as vault:
        assert vault.key_for("a").person == person
    mine.write_text("short")
    with pytest.raises(SettingsError, match="64 hex digits"):
        Vault(tmp_path / "vault")


def test_the_log_holds_nothing_of_a_person_in_the_clear(tmp_path: Path) -> None:
    personal = {"card_id": "card-of-anna", "customer_id": "anna", "device_id": "phone", "ip_id": "there"}
    with Journal(tmp_path) as journal:
        journal.append(decision(1, **personal, latitude=12.625, extras={"note": "hers"}))
        assert journal.append_label(label(1))
    raw = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for word in (*personal.values(), "12.625", "hers", "t1\\b", '"t1"'):
        assert word.encode() not in raw


def test_what_was_sealed_comes_back_to_the_byte(tmp_path: Path) -> None:
    records = [decision(number, customer_id=None if number % 2 else "u") for number in range(6)]
    with Journal(tmp_path) as journal:
        for record in records:
            journal.append(record)
        assert [journal.find(record.transaction_id) for record in records] == records
        assert journal.tail(2) == records[-2:]
        assert journal.append_label(label(3))
        assert not journal.append_label(label(3))
        assert journal.append_label(label(99))
    assert [one.record for one in read_decisions(tmp_path)] == records
    assert [one.record for one in read_labels(tmp_path)] == [label(3), label(99)]


def test_without_the_key_the_decision_stays_and_the_person_is_gone(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for number in range(6):
            journal.append(decision(number))
        journal.append_label(label(1))
        journal.append_label(label(2))
        vault = journal._vault
        vault.destroy(vault.slots_of(vault.key_for(customer("anna1")).person), at=1)
        found = journal.find("t1")
        assert found is not None
        assert found.is_erased
        assert (found.transaction_id, found.vector) == ("t1", None)
        kept, was = msgspec.to_builtins(found), msgspec.to_builtins(decision(1))
        assert {n for n in kept if kept[n] != was[n]} == {"request", "vector"}
        assert journal.append_label(label(4))  # of the same person: nothing of it is written in the clear
    assert [one.record.transaction_id for one in read_decisions(tmp_path)] == ["t0", "t2", "t3", "t5"]
    erased = [one for one in read_decisions(tmp_path, with_erased=True) if one.record.is_erased]
    assert [one.record.transaction_id for one in erased] == [ERASED, ERASED]
    events = [one.record.event for one in read_labels(tmp_path, with_erased=True)]
    assert [event.transaction_id for event in events] == [ERASED, "t2", ERASED]
    assert events[0].source == "chargeback"


def test_a_vault_of_another_log_is_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with Journal(tmp_path / name) as journal:
            journal.append(decision(1))
    shutil.rmtree(tmp_path / "one" / "vault")
    with pytest.raises(DecisionLogError, match=r"vault .* is missing: restore"):
        list(read_decisions(tmp_path / "one"))
    shutil.copytree(tmp_path / "two" / "vault", tmp_path / "one" / "vault")
    with pytest.raises(DecisionLogError, match="not sealed with key 0 of this vault"):
        list(read_decisions(tmp_path / "one"))
    with Vault(tmp_path / "one" / "vault", is_reader=True) as vault, pytest.raises(DecisionLogError):
        Sealer(vault).vault.key_at(99)
