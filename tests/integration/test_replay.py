"""What was decided comes out again to the byte: several workers, labels, late events, kills and go-lives."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fraud_platform.adapters.audit import check_state
from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.go_live import bases_of, go_live
from fraud_platform.adapters.journal import Journal, read_decisions, read_labels
from fraud_platform.adapters.landing import write_world
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.replay import NO_HISTORY, OTHER_CONTRACT, Wanted, replay_log
from fraud_platform.adapters.sealed_records import customer
from fraud_platform.adapters.service import Service
from fraud_platform.adapters.vault import Vault
from fraud_platform.cli.demo import _live
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import BundleError, StoreError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import Observation
from fraud_platform.package import Bundle
from fraud_platform.schema import MILLISECONDS_PER_DAY, Transaction
from fraud_platform.serve.judge import Judge
from fraud_platform.serve.replay import ERASED, NEAR_ERASED, ReplayReport, replay
from fraud_platform.settings import Settings
from fraud_platform.simulate import WorldSpec, simulate
from tests.faults import patient
from tests.integration.test_go_live import (
    CONTRACT,
    NOW,
    OTHER,
    bundles,
    go_live_under_traffic,
    payment,
    starting,
    warehouse,
    workers,
)

__all__ = ["bundles", "warehouse"]

BundleOf = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def bundle_of(bundles: dict[str, Path]) -> BundleOf:
    found = {bundle.id: bundle for bundle in map(load_bundle, bundles.values())}

    def find(bundle_id: str) -> Bundle:
        if bundle_id not in found:
            raise BundleError(f"no bundle {bundle_id}")
        return found[bundle_id]

    return find


@pytest.fixture
def served(warehouse: Warehouse, bundles: dict[str, Path], tmp_path: Path) -> Path:
    """The state of a service that decided 40 payments, with a label and a late one among them."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    decide(state, bundles[CONTRACT.hash], range(40))
    return state


def decide(state: Path, bundle: Path, numbers: range, **fields: Any) -> None:
    service = Service(patient(bundle, state), lambda: NOW + 10**9)
    for number in numbers:
        late = {"event_time": NOW + (number - 7) * 1000} if number % 10 == 9 else {}
        service.decide(payment(number) | {"customer_id": f"u{number % 5}"} | late | fields)
        if number % 10 == 5:
            service.learn(chargeback(number - 2, number))
    service.close()


def chargeback(number: int, now: int) -> dict[str, Any]:
    known = {"source": "chargeback", "outcome": "fraud", "known_at": NOW + now * 1000}
    return {"transaction_id": f"live{number}", **known}


def digest(state: Path) -> dict[str, str]:
    files = [path for path in sorted(state.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def said(report: ReplayReport) -> str:
    return "\n".join([*report.examples, *report.lines()])


@pytest.mark.parametrize("contract", [CONTRACT, OTHER], ids=["same_contract", "other_contract"])
def test_everything_comes_out_again_also_what_was_decided_during_go_lives(
    warehouse: Warehouse,
    bundles: dict[str, Path],
    bundle_of: BundleOf,
    tmp_path: Path,
    contract: Any,
) -> None:
    """Two workers in turn, labels among the payments, the store replaced twice under them."""
    state = tmp_path / "state"
    go_live(warehouse, CONTRACT, state)
    start = starting(warehouse, state, bundles[contract.hash])
    with workers(bundles[CONTRACT.hash], state) as running:
        number, _ = go_live_under_traffic(running, 0, start)
        number, _ = go_live_under_traffic(running, number, start)
    before = digest(state)
    report = replay_log(state, bundle_of)
    assert report.is_equal, said(report)
    assert (report.decisions, report.compared, report.equal_features) == (number,) * 3
    assert digest(state) == before
    assert len(bases_of(state)) == 3


def test_a_day_of_the_simulated_world_comes_out_again(
    bundles: dict[str, Path],
    bundle_of: BundleOf,
    tmp_path: Path,
) -> None:
    """Customers, devices, addresses and places; reports of frauds and late payments; a go-live at noon."""
    settings = Settings(tmp_path)
    world = simulate(WorldSpec(seed=3, days=40, customers=150, transactions_per_day=400, tactics_change=30))
    write_world(world, settings.landing, settings.var / "truth", settings.home / "live")
    platform = Platform(settings)
    platform.warehouse.ingest(platform.mapping, platform.source, NOW)
    go_live(platform.warehouse, CONTRACT, settings.service_state)
    day = _live(settings, 10**6)
    late = [day.pop(place) for place in (50, 20)]
    with workers(bundles[CONTRACT.hash], settings.service_state) as running:
        for number, asked in enumerate([*day, *late]):
            running[number % 2].ask(asked)
            if number % 40 == 39:
                known = {"source": "cardholder_report", "outcome": "fraud", "known_at": asked["event_time"]}
                running[0].ask({"transaction_id": day[number - 30]["transaction_id"], **known})
            if number == len(day) // 2:
                go_live(platform.warehouse, CONTRACT, settings.service_state)
    report = replay_log(settings.service_state, bundle_of)
    assert report.is_equal, said(report)
    assert report.decisions == report.equal_features == len(day) + 2 > 300
    assert check_state(settings.service_state).is_whole


def test_labels_and_late_events_are_counted_in_their_place(served: Path, bundle_of: BundleOf) -> None:
    records = [one.record for one in read_decisions(served)]
    assert sum(record.is_late for record in records) > 0
    report = replay_log(served, bundle_of)
    assert report.is_equal, said(report)
    assert report.equal_features == 40


def test_one_decision_or_a_day_is_replayed_alone(served: Path, bundle_of: BundleOf) -> None:
    shown: list[str] = []
    report = replay_log(
        served,
        bundle_of,
        Wanted("live25"),
        each=lambda record, replayed, judge: shown.append(record.transaction_id),
    )
    assert report.is_equal
    assert (report.decisions, shown) == (1, ["live25"])
    day = (NOW + 10**9) // MILLISECONDS_PER_DAY
    assert replay_log(served, bundle_of, Wanted(day=day)).decisions == 40
    assert replay_log(served, bundle_of, Wanted(day=day - 1)).decisions == 0
    assert not replay_log(served, bundle_of, Wanted("nobody")).is_equal


@pytest.mark.parametrize("moment", [NOW + 50_000, NOW + 30_000], ids=["in_order", "late"])
def test_a_decision_that_was_counted_before_a_kill_keeps_its_place(
    served: Path, bundles: dict[str, Path], bundle_of: BundleOf, moment: int
) -> None:
    """Killed between the store and the log; asked again when others had already seen it counted."""
    sent = {"customer_id": "u0", "event_time": moment}
    with LmdbStore.open(served / "store", CONTRACT, writer="worker-1") as store:
        found = store.observe(msgspec.convert(payment(50) | sent, Transaction))
    assert found.is_late == (moment < NOW + 50_000)
    bundle = bundles[CONTRACT.hash]
    decide(served, bundle, range(51, 58), card_id="card10", customer_id="u0")
    decide(served, bundle, range(50, 51), **sent)
    service = Service(patient(bundle, served), lambda: NOW + 10**9)
    service.decide(payment(58) | {"card_id": "card10"})
    service.close()
    report = replay_log(served, bundle_of)
    assert report.is_equal, said(report)
    assert report.equal_features == 49


@pytest.mark.parametrize("contract", [CONTRACT, OTHER], ids=["same_contract", "other_contract"])
def test_a_decision_that_was_counted_before_a_kill_and_a_go_live_keeps_its_place(
    warehouse: Warehouse,
    served: Path,
    bundles: dict[str, Path],
    bundle_of: BundleOf,
    contract: FeatureContract,
) -> None:
    """Killed between the store and the log; others saw it counted, and the store was replaced before it came
    back. What they decided comes out again only where it is counted in its place."""
    sent = {"customer_id": "u0", "event_time": NOW + 50_000}
    with LmdbStore.open(served / "store", CONTRACT, writer="worker-2") as store:
        store.observe(msgspec.convert(payment(50) | sent, Transaction))
        change = store.sequence
    decide(served, bundles[CONTRACT.hash], range(51, 58), card_id="card10", customer_id="u0")
    go_live(warehouse, contract, served)
    with workers(bundles[contract.hash], served):
        pass
    decide(served, bundles[contract.hash], range(61, 64), card_id="card10", customer_id="u0")
    [record] = [one.record for one in read_decisions(served) if one.worker == "worker-2"]
    assert (record.transaction_id, record.store_sequence) == ("live50", change)
    report = replay_log(served, bundle_of)
    assert (report.decisions, report.compared, report.differing) == (51, 51, 0), said(report)
    assert report.unobserved == ({} if contract is CONTRACT else {OTHER_CONTRACT: 1})


def test_what_was_counted_late_before_a_kill_keeps_its_place(
    served: Path, bundles: dict[str, Path], bundle_of: BundleOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided without the store, which counted it afterwards: killed before the log was told when."""

    def fail(self: LmdbStore, transaction: Transaction) -> Observation:
        raise StoreError("it hangs")

    bundle = bundles[CONTRACT.hash]
    with monkeypatch.context() as patch:
        patch.setattr(LmdbStore, "observe", fail)
        decide(served, bundle, range(50, 51), customer_id="u0")
    with LmdbStore.open(served / "store", CONTRACT, writer="worker-1") as store:
        store.observe(msgspec.convert(payment(50) | {"customer_id": "u0"}, Transaction))
    decide(served, bundle, range(51, 58), customer_id="u0")
    report = replay_log(served, bundle_of)
    assert report.is_equal, said(report)
    assert report.equal_features == 47


def test_a_label_that_came_before_its_transaction_counts_when_it_is_sent_again(
    served: Path, bundles: dict[str, Path], bundle_of: BundleOf
) -> None:
    service = Service(patient(bundles[CONTRACT.hash], served), lambda: NOW + 10**9)
    same = {"card_id": "card10", "customer_id": "u0"}
    for number in (50, 51):
        assert service.learn(chargeback(50, 51)).is_transaction_known == (number == 51)
        service.decide(payment(number) | same)
    assert service.learn(chargeback(50, 51)).is_transaction_known
    service.decide(payment(52) | same)
    service.close()
    assert [one.record.event.transaction_id for one in read_labels(served)].count("live50") == 2
    report = replay_log(served, bundle_of)
    assert report.is_equal, said(report)


def test_every_rung_of_the_ladder_is_replayed(
    served: Path,
    bundles: dict[str, Path],
    bundle_of: BundleOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers without features, of which the store hears later; without a model; and the fixed one."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no rules")

    service = Service(patient(bundles[CONTRACT.hash], served), lambda: NOW + 10**9)
    for number in (60, 61):
        service.fall_back(service.open_case(payment(number) | {"card_id": "card3"}), "store_slow")
    for number in (62, 63):
        case = service.open_case(payment(number) | {"card_id": "card3"})
        service.fall_back(case, "store_slow")
        service.conclude(case)
        service.tidy()
    judge = service.decider.judge
    with monkeypatch.context() as patch:
        patch.setattr(judge, "_scored", lambda values: Judge._scored(judge, values).__class__())
        service.decide(payment(64) | {"card_id": "card3"})
        patch.setattr(judge, "judge", broken)
        case = service.open_case(payment(65))
        service.fall_back(case, "store_slow")
        service.conclude(case)
    service.decide(payment(66) | {"card_id": "card3"})
    service.close()
    last = [one.record for one in read_decisions(served)][40:]
    tiers = {record.transaction_id: record.tier for record in last}
    assert set(tiers.values()) == {"request", "rules", "fixed", "model"}
    report = replay_log(served, bundle_of)
    assert (report.compared, report.differing) == (40 + len(last), 0), said(report)
    assert report.is_equal, said(report)


def test_what_differs_is_told_by_part(served: Path, bundles: dict[str, Path]) -> None:
    judge = Judge(load_bundle(bundles[CONTRACT.hash]))
    record = next(one.record for one in read_decisions(served))
    same = Observation(record.vector, is_late=record.is_late)
    assert replay(judge, record, same).differing == ()
    assert replay(judge, record, None).differing == ()
    amount = CONTRACT.index("amount_minor")
    other = (*record.vector[:amount], 10.0**9, *record.vector[amount + 1 :])  # type: ignore[index]
    differing = replay(judge, record, Observation(other)).differing
    assert differing[0] == "features"
    changes = {
        "score": {"raw_score": 0.5},
        "action": {"expected_costs": (1.0, 2.0, 3.0)},
        "reasons": {"rules": ("other",)},
    }
    for part, change in changes.items():
        assert replay(judge, msgspec.structs.replace(record, **change), same).differing == (part,)
    judge.close()


def test_a_decision_that_cannot_be_replayed_is_counted_with_its_reason(
    served: Path, bundle_of: BundleOf, tmp_path: Path
) -> None:
    def none(bundle_id: str) -> Bundle:
        raise BundleError("no such bundle")

    report = replay_log(served, none)
    assert not report.is_equal
    assert (report.decisions, report.compared, sum(report.unreplayed.values())) == (40, 0, 40)
    assert "bundle" in next(iter(report.unreplayed))
    kept = next(iter(bases_of(served).values()))
    kept.rename(tmp_path / "kept")
    report = replay_log(served, bundle_of)
    assert (report.compared, report.differing, report.unobserved[NO_HISTORY]) == (40, 0, 40)
    assert not report.is_equal
    assert replay_log(served, bundle_of, base=tmp_path / "kept").is_equal


def test_without_a_person_the_rest_is_replayed(served: Path, bundle_of: BundleOf) -> None:
    with Vault(served / "vault") as vault:
        vault.destroy(vault.slots_of(vault.key_for(customer("u3")).person), at=1)
    report = replay_log(served, bundle_of)
    assert report.is_equal, said(report)
    assert report.unreplayed == {ERASED: 8}
    assert (report.compared, report.differing) == (32, 0)
    assert set(report.unobserved) <= {NEAR_ERASED}
    assert report.equal_features + report.unobserved[NEAR_ERASED] == 32
    assert report.equal_features > 0


def test_a_store_that_no_go_live_made_is_given(
    served: Path,
    bundles: dict[str, Path],
    bundle_of: BundleOf,
    tmp_path: Path,
) -> None:
    """An empty store needs nothing."""
    state = tmp_path / "alone"
    decide(state, bundles[CONTRACT.hash], range(20))
    report = replay_log(state, bundle_of)
    assert report.is_equal, said(report)
    assert report.equal_features == 20


def test_a_killed_writer_replays(
    served: Path,
    bundles: dict[str, Path],
    bundle_of: BundleOf,
) -> None:
    """A worker that is killed while it decides: what it acknowledged and what it asked again."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from fraud_platform.adapters.service import Service, ServiceSettings\n"
        "from tests.integration.test_go_live import NOW, payment\n"
        "settings = ServiceSettings(Path(sys.argv[1]), Path(sys.argv[2]), deadline_ms=10_000)\n"
        "service = Service(settings, lambda: NOW + 10**9)\n"
        "for number in range(100, 10**6):\n"
        "    service.decide(payment(number))\n"
        "    print(number, flush=True)\n"
    )
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(bundles[CONTRACT.hash]), str(served)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 130:
                break
        process.kill()
        process.wait()
        process.stdout.close()
    with Journal(served) as journal:
        assert journal.find("live130") is not None
    service = Service(patient(bundles[CONTRACT.hash], served), lambda: NOW + 10**9)
    for number in range(120, 200):
        service.decide(payment(number))
    service.close()
    report = replay_log(served, bundle_of)
    assert report.is_equal, said(report)
    assert report.decisions >= 140
