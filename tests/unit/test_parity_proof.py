"""A proof of parity: what it says, and who is refused without one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from fraud_platform.adapters import parity_replay
from fraud_platform.adapters.parity_replay import read_proof, store_code, write_proof
from fraud_platform.errors import GateError
from fraud_platform.features.parity import Mismatch, ParityReport
from fraud_platform.features.proof import ParityProof, require_proof
from fraud_platform.settings import Settings

CONTRACT, CODE, DATA = "c" * 64, "0" * 64, "d" * 64


def proof(report: ParityReport = ParityReport(10, 3, 1_200)) -> ParityProof:
    return ParityProof.of(report, contract=CONTRACT, code=CODE, data=DATA, at_ms=1_790_000_000_000)


def wrong() -> ParityProof:
    examples = (Mismatch("t1", "card_txn_count_1h", 1.0, 2.0),)
    return proof(ParityReport(10, 3, 1_200, Counter(card_txn_count_1h=5, channel=2), examples))


def refused(
    found: ParityProof | None, contract: str = CONTRACT, code: str = CODE, declared: str = CONTRACT
) -> str:
    with pytest.raises(GateError) as caught:
        require_proof(found, contract, code, declared)
    return str(caught.value)


def test_an_exact_proof_of_contract_and_code_is_enough() -> None:
    """Whatever rows have come since: they are proven by the next learning run."""
    assert require_proof(proof(), CONTRACT, CODE, CONTRACT) == proof()
    grown = msgspec.structs.replace(proof(), data="e" * 64)
    assert require_proof(grown, CONTRACT, CODE, CONTRACT) == grown


def test_without_a_proof_it_is_refused_with_the_fix() -> None:
    said = refused(None)
    assert "cccccccccccc has no parity proof" in said
    assert "fraud-platform parity" in said
    assert "has no parity proof" in refused(proof(), contract="f" * 64, declared="f" * 64)


def test_mismatches_are_named_with_their_numbers() -> None:
    said = refused(wrong())
    assert "7 mismatches in 1,200 values (card_txn_count_1h: 5, channel: 2)" in said
    assert "fraud-platform parity" in said


def test_a_proof_of_nothing_is_none() -> None:
    assert "0 values were compared" in refused(proof(ParityReport()))


def test_a_proof_of_other_code_is_none_for_this_one() -> None:
    said = refused(proof(), code="9" * 64)
    assert "000000000000" in said
    assert "999999999999 would serve it" in said


def test_a_contract_that_is_declared_no_more_cannot_be_proven_again() -> None:
    said = refused(None, declared="f" * 64)
    assert "the contract declared now is ffffffffffff" in said
    assert "approve a version" in said


def test_the_last_proof_of_a_contract_is_kept(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    assert read_proof(settings, CONTRACT) is None
    for one in (proof(), wrong()):
        write_proof(settings, one)
        assert read_proof(settings, CONTRACT) == one
    assert [path.name for path in (settings.reports / "parity").iterdir()] == [f"{CONTRACT}.json"]
    assert wrong().examples == ("card_txn_count_1h of t1: served 1.0, built 2.0",)
    assert str(wrong()) == "compared 1,200 values of 10 transactions: 7 mismatches"


def test_a_damaged_proof_is_refused(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    write_proof(settings, proof()).write_text("{}")
    with pytest.raises(GateError, match=r"parity proof: .*fraud-platform parity"):
        read_proof(settings, CONTRACT)


def test_the_code_that_serves_is_part_of_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed engine or store makes another digest; what does not serve makes none."""
    (tmp_path / "features").mkdir()
    (tmp_path / "adapters").mkdir()
    monkeypatch.setattr(parity_replay, "PACKAGE", tmp_path)
    seen = [store_code()]
    lmdb, redis = ("lmdb.py", "lmdb_session.py"), ("redis.py", "redis_session.py", "redis_script.lua")
    for name in ("features/engine.py", *(f"adapters/{each}" for each in lmdb + redis), "schema.py"):
        (tmp_path / name).write_text("value = 1")
        seen.append(store_code())
    assert len(set(seen)) == len(seen)
    (tmp_path / "adapters/plots.py").write_text("value = 1")
    assert store_code() == seen[-1]
