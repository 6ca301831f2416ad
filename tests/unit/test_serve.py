from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest
import yaml

from fraud_platform import package
from fraud_platform.adapters.spill import Spill
from fraud_platform.errors import BundleError, RequestError
from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.package import Bundle, BundleParts
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.serve import ConflictError, Decider, DecisionRecord, Judge, LabelRecord
from fraud_platform.serve.booster import Booster
from fraud_platform.serve.judge import REASONS_MAX, amount_of

NOW_MS = 1_790_000_000_000
CONTRACT = load_contract()
Build = Callable[..., dict[str, Any]]
Columns = dict[str, np.ndarray]
TESTING = {"card_txn_count_1h": 25.0, "card_merchant_distinct_24h": 25.0, "is_new_device": 1.0}
RISKY = {"amount_minor": 90_000.0, "card_txn_count_1h": 1.0}


def vector(**values: float | str | None) -> tuple[float | str | None, ...]:
    return tuple(values.get(name) for name in CONTRACT.names)


@dataclass(frozen=True)
class Observed:
    vector: tuple[float | str | None, ...]
    is_late: bool = False


@dataclass
class FakeStore:
    answer: tuple[float | str | None, ...]
    observed: list[Transaction] = field(default_factory=list)
    learned: list[LabelEvent] = field(default_factory=list)
    sequence: int | None = None

    def observe(self, transaction: Transaction) -> Observed:
        self.observed.append(transaction)
        return Observed(self.answer)

    def seen(self, transaction_id: str) -> bool:
        return transaction_id in [one.transaction_id for one in self.observed]

    def learn(self, event: LabelEvent) -> bool:
        self.learned.append(event)
        return True


class FakeJournal(dict[str, DecisionRecord]):
    def __init__(self) -> None:
        self.labels: list[LabelRecord] = []
        self.observed: list[DecisionRecord] = []

    def append(self, record: DecisionRecord) -> None:
        self[record.transaction_id] = record

    def find(self, transaction_id: str) -> DecisionRecord | None:
        return self.get(transaction_id)

    def append_observed(self, record: DecisionRecord) -> None:
        self.observed.append(record)

    def append_label(self, record: LabelRecord, *, is_counted: bool = False) -> bool:
        is_new = record.event not in [one.event for one in self.labels]
        self.labels += [record] * is_new
        return is_new


@pytest.fixture(scope="module")
def bundle(tiny_parts: BundleParts) -> Bundle:
    return package.build(tiny_parts)


@pytest.fixture(scope="module")
def judge(bundle: Bundle) -> Iterator[Judge]:
    judge = Judge(bundle)
    yield judge
    judge.close()


@pytest.fixture
def decider(bundle: Bundle, tmp_path: Path) -> Iterator[Decider]:
    spill = Spill(tmp_path / "spill")
    store, journal = FakeStore(vector(**RISKY)), FakeJournal()
    decider = Decider(Judge(bundle), store, journal, spill, lambda: NOW_MS)
    yield decider
    decider.close()


def transaction(build: Build, **fields: Any) -> Transaction:
    return msgspec.convert(build(**fields), type=Transaction)


def rows_of(columns: Columns) -> list[tuple[float | str | None, ...]]:
    listed = [columns[name].tolist() for name in CONTRACT.names]
    return [tuple(None if v != v else v for v in row) for row in zip(*listed, strict=True)]


def test_one_row_has_the_bits_of_lightgbm(
    tiny_booster: lightgbm.Booster, bundle: Bundle, tiny_columns: Columns
) -> None:
    matrix = bundle.encoder.matrix(tiny_columns, CONTRACT)
    booster = Booster(bundle.model_text)
    scores = np.array([booster.score(row) for row in matrix])
    assert scores.tobytes() == np.asarray(tiny_booster.predict(matrix)).tobytes()
    contributions = np.array([booster.contributions(row) for row in matrix[:100]])
    expected = np.asarray(tiny_booster.predict(matrix[:100], pred_contrib=True))[:, :-1]
    assert np.ascontiguousarray(expected).tobytes() == contributions.tobytes()
    booster.close()


def test_judging_one_by_one_has_the_bits_of_columns(
    judge: Judge,
    bundle: Bundle,
    tiny_booster: lightgbm.Booster,
    tiny_columns: Columns,
    transaction_request: Build,
) -> None:
    """The evaluation works on columns, the service on one row: both must price alike."""
    asked = transaction(transaction_request)
    judged = [judge.judge(asked, row) for row in rows_of(tiny_columns)[:300]]
    matrix = bundle.encoder.matrix({k: v[:300] for k, v in tiny_columns.items()}, CONTRACT)
    probability = bundle.calibrator(np.asarray(tiny_booster.predict(matrix)))
    assert np.array([j.probability for j in judged]).tobytes() == probability.tobytes()
    costs = bundle.policy.expected_costs(probability, np.full(300, amount_of(asked)))
    assert np.array([j.expected_costs for j in judged]).tobytes() == costs.tobytes()


def test_an_approval_has_no_reasons_and_an_adverse_action_up_to_four(
    judge: Judge, tiny_columns: Columns, transaction_request: Build
) -> None:
    asked = transaction(transaction_request, amount_minor=90_000)
    seen = set()
    for row in rows_of(tiny_columns)[:400]:
        judgement = judge.judge(asked, row)
        seen.add(judgement.action)
        count = len(judgement.reasons)
        assert count == 0 if judgement.action == "approve" else 1 <= count <= REASONS_MAX
        assert len({reason.code for reason in judgement.reasons}) == count
    assert len(seen) > 1


def test_the_stronger_of_rule_and_policy_wins(judge: Judge, transaction_request: Build) -> None:
    small = transaction(transaction_request, amount_minor=100)
    calm = judge.judge(small, vector(amount_minor=100.0))
    velocity = judge.judge(small, vector(amount_minor=100.0, **TESTING))
    assert (calm.action, calm.tier) == ("approve", "model")
    assert (velocity.action, velocity.decided_by, velocity.tier) == ("decline", "rule", "model")
    assert [reason.code for reason in velocity.reasons] == ["R01", "R02"]
    assert velocity.rules == ("card_testing", "card_velocity")


def test_a_shadow_rule_is_recorded_and_changes_nothing(judge: Judge, transaction_request: Build) -> None:
    small = transaction(transaction_request, amount_minor=100)
    judged = judge.judge(small, vector(amount_minor=100.0, ip_card_distinct_24h=50.0))
    assert (judged.action, judged.rules, judged.shadow_rules) == ("approve", (), ("ip_of_many_cards",))


def listed(parts: BundleParts, **tokens: str) -> Judge:
    """A judge whose lists hold these tokens."""
    lists = yaml.safe_load(parts.lists_text)
    for name, token in tokens.items():
        lists["lists"][name]["tokens"] = [token]
    return Judge(package.build(replace(parts, lists_text=yaml.safe_dump(lists))))


def test_lists_are_asked_of_the_request_and_an_allowed_one_is_not_asked_further(
    tiny_parts: BundleParts, transaction_request: Build
) -> None:
    judge = listed(tiny_parts, trusted_cards="friend", blocked_devices="foe")
    friend = transaction(transaction_request, card_id="friend", amount_minor=10**11)
    allowed = judge.judge(friend, vector(amount_minor=1e11, **TESTING))
    assert (allowed.action, allowed.decided_by, allowed.reasons) == ("approve", "rule", ())
    assert allowed.rules == ("card_testing", "card_velocity", "trusted_card")
    stranger = transaction(transaction_request, card_id="stranger", amount_minor=10**11)
    assert judge.judge(stranger, vector(amount_minor=1e11, **TESTING)).action == "decline"
    stolen = transaction(transaction_request, card_id="friend", device_id="foe", amount_minor=10**11)
    blocked = judge.judge(stolen, vector(amount_minor=1e11, **TESTING))
    assert (blocked.action, blocked.decided_by) == ("decline", "rule")
    assert [reason.code for reason in blocked.reasons] == ["R13"], (
        "what stands after the allow list is unheard"
    )
    judge.close()


def test_a_large_amount_alone_still_has_a_reason(tiny_parts: BundleParts, transaction_request: Build) -> None:
    flat = replace(tiny_parts, model_text=stump_text())
    judge = Judge(package.build(flat))
    judged = judge.judge(transaction(transaction_request, amount_minor=10**11), vector(amount_minor=1e11))
    judge.close()
    assert judged.action != "approve"
    assert [reason.code for reason in judged.reasons] == ["P01"]


def stump_text() -> str:
    """A model that gives everybody the same score."""
    data = lightgbm.Dataset(np.zeros((100, len(CONTRACT.names))), np.arange(100) % 2)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 1000}
    return lightgbm.train(parameters, data, num_boost_round=1).model_to_string()


def test_a_score_that_is_no_number_is_priced_as_none(
    judge: Judge, transaction_request: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge._booster, "score", lambda row: float("nan"))
    small = transaction(transaction_request, amount_minor=100)
    judged = judge.judge(small, vector(amount_minor=100.0))
    assert (judged.action, judged.tier, judged.probability) == ("approve", "rules", None)
    large = judge.judge(transaction(transaction_request, amount_minor=300_000), vector())
    assert (large.action, large.decided_by) == ("step_up", "fallback")
    assert [reason.code for reason in large.reasons] == ["F01", "P01"]
    assert large.faults == ("model_invalid",)
    ruled = judge.judge(small, vector(**TESTING))
    assert (ruled.action, ruled.decided_by) == ("decline", "rule")


def test_a_decision_is_on_record_with_everything_it_came_from(
    decider: Decider, transaction_request: Build
) -> None:
    decision = decider.decide(msgspec.json.encode(transaction_request()))
    record = decider._journal.find("t1")
    assert record is not None
    assert record.vector == vector(**RISKY)
    assert record.request == transaction(transaction_request)
    assert (record.action, record.probability) == (decision.action, decision.probability)
    assert (record.bundle_id, record.propensity) == (decider.bundle.id, 1.0)
    again = Judge(decider.bundle).judge(record.request, record.vector)
    assert (again.raw_score, again.expected_costs) == (record.raw_score, record.expected_costs)
    assert again.reasons == record.reasons


def test_a_repeated_transaction_gets_the_recorded_decision(
    decider: Decider, transaction_request: Build
) -> None:
    first = decider.decide(transaction_request(category=""))
    second = decider.decide(dict(reversed(transaction_request().items())))
    assert second == msgspec.structs.replace(first, is_repeat=True)
    assert decider.decision("t1") == second
    assert decider.decision("t2") is None
    assert len(decider.store.observed) == 1  # type: ignore[attr-defined]


def test_the_same_id_with_other_content_is_a_conflict(decider: Decider, transaction_request: Build) -> None:
    decider.decide(transaction_request())
    with pytest.raises(ConflictError, match="transaction_id='t1'"):
        decider.decide(transaction_request(amount_minor=1251))


def test_a_refused_request_leaves_no_trace(decider: Decider, transaction_request: Build) -> None:
    with pytest.raises(RequestError):
        decider.decide(transaction_request(amount_minor=-1))
    assert decider.store.observed == []  # type: ignore[attr-defined]
    assert decider._journal == {}


def test_a_label_teaches_the_store_and_is_logged_once(decider: Decider) -> None:
    label = {"transaction_id": "t1", "source": "chargeback", "outcome": "fraud", "known_at": NOW_MS}
    assert decider.learn(label) == decider.learn(msgspec.json.encode(label))
    assert len(decider._journal.labels) == 1  # type: ignore[arg-type]


def test_a_model_of_another_width_is_refused(tiny_parts: BundleParts) -> None:
    fewer = FeatureContract(
        CONTRACT.entities,
        (*CONTRACT.features, msgspec.structs.replace(CONTRACT.features[0], name="card_extra")),
    )
    with pytest.raises(BundleError, match="package the model with the contract"):
        Judge(package.build(replace(tiny_parts, contract=fewer)))


def test_a_text_that_is_no_model_is_refused() -> None:
    with pytest.raises(BundleError, match=r"model\.txt"):
        Booster("nothing")


def test_the_request_path_imports_nothing_heavy() -> None:
    """pandas alone costs half a second of start-up, and its garbage costs stalls."""
    script = (
        "import sys, fraud_platform.serve, fraud_platform.adapters.lmdb, "
        "fraud_platform.adapters.decision_log, fraud_platform.adapters.bundle_files\n"
        "from fraud_platform.serve.booster import _library; _library()\n"
        "banned = {'pandas', 'sklearn', 'scipy', 'duckdb', 'mlflow', 'dagster', 'lightgbm', 'pyarrow'}\n"
        "print(sorted(banned & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
