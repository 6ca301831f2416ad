"""features: dbt on DuckDB against the online store, on a small world of nasty edges.

dbt builds the whole project once for the session, with its unit tests and data tests: unit tests never become
asset checks, so this is where they run.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from fraud_platform.adapters import parity_replay
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_timeline import read_timeline
from fraud_platform.adapters.future_rows import probe_future
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.lmdb_load import load_store
from fraud_platform.adapters.parity_replay import prove, read_proof, replay_parity
from fraud_platform.adapters.redis_load import redis_client
from fraud_platform.adapters.redis_replay import redis_replay
from fraud_platform.adapters.tails import report_tails
from fraud_platform.cli import app
from fraud_platform.cli.parity import show_parity
from fraud_platform.defs import package
from fraud_platform.defs.parity import parity
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import GateError, SettingsError, StoreError, TooLateError
from fraud_platform.features.compiler import compile_plans
from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.features.engine import LATENESS_MS, Engine
from fraud_platform.features.parity import compare
from fraud_platform.features.tails import tailed_names
from fraud_platform.ingest import Mapping
from fraud_platform.labels import LabelRule
from fraud_platform.schema import (
    AMOUNT_MINOR_MAX,
    LABEL_COLUMNS,
    MILLISECONDS_PER_DAY,
    TRANSACTION_COLUMNS,
    LabelEvent,
    Transaction,
)
from fraud_platform.settings import PROJECT_ROOT, Settings
from tests import worlds
from tests.oracle import Oracle, require_equal
from tests.stores import Stores
from tests.worlds import report, transaction

HOUR, DAY = 3_600_000, MILLISECONDS_PER_DAY
TABLE = "features.transaction_features"
START = 1_772_000_000_000
SPAN = 75 * DAY
TRANSACTIONS = 600
Loading = Callable[..., LmdbStore]
PRECEDENCE = ("chargeback", "manual_review", "cardholder_report")
RULE = LabelRule(maturity_days=20, precedence=PRECEDENCE)
DBT_PROJECT = PROJECT_ROOT / "dbt_project"

MAPPING = f"""
name: edges
transactions:
  files: transactions.parquet
  columns: {{{", ".join(f"{c.name}: {c.name}" for c in TRANSACTION_COLUMNS)}}}
labels:
  files: labels.parquet
  columns: {{{", ".join(f"{c.name}: {c.name}" for c in LABEL_COLUMNS)}}}
extras:
  risk: {{expression: risk, type: numeric, description: A number from outside}}
  segment: {{expression: segment, type: category, description: A text from outside}}
maturity_days: 20
label_precedence: [{", ".join(PRECEDENCE)}]
split: {{test_days: 10, validation_days: 5}}
"""


def moments(generator: random.Random) -> list[int]:
    """Event times in which ties, exact windows and one millisecond beside them are common."""
    times = [START]
    while len(times) < TRANSACTIONS:
        steps = [HOUR, DAY, 7 * DAY, 30 * DAY]
        near = generator.choice(times) + generator.choice([0, *steps]) + generator.choice([-1, 0, 0, 1])
        times.append(near if START <= near < START + SPAN else START + generator.randrange(SPAN))
    return times


def transactions(generator: random.Random) -> pd.DataFrame:
    def either(*values: Any) -> Any:
        return generator.choice(values)

    rows = [
        {
            "transaction_id": f"t{number}",
            "event_time": moment,
            "card_id": either("a", "a", "b", "c", f"rare{number % 40}"),
            "customer_id": either("u", "v", "", None),
            "device_id": either("d", "e", "f", "", None),
            "ip_id": either("i", "j", None),
            "merchant_id": either("m", "m", "n", "o"),
            "amount_minor": either(0, 1, 1000, 999_999, AMOUNT_MINOR_MAX, generator.randrange(10**9)),
            "currency": either("EUR", "USD", "JPY", "KWD"),
            "channel": either("web", "pos", "", None),
            "category": either("food", "fuel", None),
            "card_country": either("DE", "FR", "", None),
            "merchant_country": either("DE", "FR", "US", "", None),
            "latitude": either(None, -0.0, 0.0, 48.1, -89.9, generator.uniform(-90, 90)),
            "longitude": either(None, 0.0, 180.0, -180.0, generator.uniform(-180, 180)),
            "home_latitude": either(None, 48.1, generator.uniform(-90, 90)),
            "home_longitude": either(None, 11.5),
            "risk": either(None, 0.1, -0.0, 1e300, 3.0),
            "segment": either(None, "", "gold", "Gold "),
        }
        for number, moment in enumerate(moments(generator))
    ]
    return pd.DataFrame(rows)


def labels(generator: random.Random, world: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "transaction_id": row.transaction_id,
            "source": generator.choice([*PRECEDENCE, "hearsay"]),
            "outcome": generator.choice(["fraud", "fraud", "legitimate"]),
            "known_at": row.event_time + generator.choice([0, 1, HOUR, DAY, 7 * DAY, 20 * DAY, 30 * DAY]),
        }
        for row in world.itertuples()
        for _ in range(generator.choice([0, 0, 1, 2]))
    ]
    return pd.DataFrame(rows).drop_duplicates(["transaction_id", "source", "known_at"])


def dbt(command: str, warehouse: Path, target: Path, **variables: Any) -> None:
    told = {
        "warehouse": str(warehouse),
        "spill": str(target / "spill"),
        "maturity_days": RULE.maturity_days,
        "label_precedence": list(PRECEDENCE),
        **variables,
    }
    words = [str(Path(sys.executable).with_name("dbt")), "--quiet", *command.split()]
    words += ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    words += ["--target-path", str(target), "--log-path", str(target), "--vars", json.dumps(told)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=target, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@dataclass(frozen=True)
class Built:
    """The warehouse after `dbt build`, and the contract with the extra inputs."""

    warehouse: Warehouse
    contract: FeatureContract
    extras: list[dict[str, str]]
    folder: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("parity")
    generator = random.Random(7)
    world = transactions(generator)
    world.to_parquet(folder / "transactions.parquet")
    labels(generator, world).to_parquet(folder / "labels.parquet")
    mapping = Mapping.from_yaml(MAPPING, "the test")
    warehouse = Warehouse(folder / "warehouse.duckdb", threads=1)
    warehouse.ingest(mapping, folder, now_ms=START + 2 * SPAN)
    assert warehouse.count("ingest.transactions") == TRANSACTIONS
    extras = [
        {
            "name": extra.column.name,
            "dtype": "category" if extra.type == "category" else "double",
            "description": extra.description,
        }
        for extra in mapping.extras
    ]
    dbt("build", warehouse.path, folder, extras=extras)
    return Built(warehouse, load_contract([extra.column for extra in mapping.extras]), extras, folder)


def test_the_world_is_as_nasty_as_meant(built: Built) -> None:
    """Otherwise parity would prove little."""
    table = built.warehouse.frame("select * from features.transaction_features")
    for feature in built.contract.features:
        values = table[feature.name].dropna()
        assert len(values) > 0, feature.name
        assert values.nunique() > 1, feature.name
    ties = built.warehouse.frame(
        "select count(*) as n from "
        "(select 1 from ingest.transactions group by card_id, event_time having count(*) > 1)"
    )
    assert ties["n"].iloc[0] > 5


def test_the_whole_timeline_is_equal_to_the_bit(built: Built) -> None:
    report = replay_parity(built.warehouse, built.contract, events=None)
    assert report.examples == ()
    assert report.is_exact
    assert report.transactions == TRANSACTIONS
    assert report.values == TRANSACTIONS * len(built.contract.features)
    assert report.labels == built.warehouse.count("ingest.labels")


@pytest.mark.parametrize("events", [1, 50, 300])
def test_a_store_loaded_in_the_middle_goes_on_to_the_bit(built: Built, events: int) -> None:
    report = replay_parity(built.warehouse, built.contract, events=events)
    assert report.examples == ()
    assert report.transactions >= events


@pytest.mark.parametrize("kind", ["redis", "redis_cluster"])
@pytest.mark.parametrize("events", [None, 100])
def test_the_timeline_on_redis_is_equal_to_the_bit(
    built: Built, stores: Stores, kind: str, events: int | None
) -> None:
    with stores.empty(kind) as address:
        with redis_replay(address.place) as (open_store, load):
            report = replay_parity(built.warehouse, built.contract, events, open_store=open_store, load=load)
        assert report.examples == ()
        assert report.is_exact
        assert report.transactions >= (events or TRANSACTIONS)
        client = redis_client(address.place)
        assert list(client.scan_iter()) == []
        client.close()


def test_parity_sees_a_single_wrong_value(built: Built, tmp_path: Path) -> None:
    """A comparison that cannot fail proves nothing."""
    rows = built.warehouse.frame(
        "select * from features.transaction_features order by event_time, transaction_id"
    )
    wrong = rows.assign(card_txn_count_1h=rows["card_txn_count_1h"].where(rows.index != 17, -0.0))
    copy = Warehouse(tmp_path / "copy.duckdb", threads=1)
    copy.path.write_bytes(built.warehouse.path.read_bytes())
    copy.write_table("features.transaction_features", wrong)
    report = replay_parity(copy, built.contract, events=None)
    assert report.mismatches == {"card_txn_count_1h": 1}
    assert report.examples[0].transaction_id == rows["transaction_id"][17]


@pytest.fixture
def replayed(built: Built, tmp_path: Path) -> Iterator[tuple[LmdbStore, LmdbStore, int]]:
    """Two stores that know the same: one replayed from the beginning, one loaded at the watermark."""
    watermark = START + SPAN * 2 // 3
    load_store(built.warehouse, built.contract, tmp_path / "loaded", watermark)
    with (
        LmdbStore.open(tmp_path / "replayed", built.contract) as whole,
        LmdbStore.open(tmp_path / "loaded", built.contract) as loaded,
    ):
        with built.warehouse.connect(read_only=True) as connection:
            for _ in whole.observe_all(read_timeline(connection, built.contract, 0, watermark)):
                pass
        yield whole, loaded, watermark


def test_events_behind_the_watermark_are_answered_alike(replayed: tuple[LmdbStore, LmdbStore, int]) -> None:
    """A loaded key has empty windows and facts of its future: late events once got times below zero."""
    whole, loaded, watermark = replayed
    generator = random.Random(3)
    for number in range(150):
        late = Transaction(
            transaction_id=f"late{number}",
            event_time=watermark - generator.choice([1, 2, HOUR, generator.randrange(LATENESS_MS)]),
            card_id=generator.choice(["a", "b", f"rare{number % 40}", "unknown"]),
            merchant_id=generator.choice("mno"),
            customer_id=generator.choice(["u", None]),
            device_id=generator.choice("def"),
            ip_id="i",
            amount_minor=number,
            currency="EUR",
            latitude=1.0,
            longitude=2.0,
        )
        wanted, found = whole.observe(late), loaded.observe(late)
        different = {
            name: (a, b)
            for name, a, b in zip(whole.contract.names, wanted.vector, found.vector, strict=True)
            if a != b
        }
        assert not different, late
        assert found.is_late == wanted.is_late


def test_a_transaction_from_before_the_load_is_a_repeat(
    built: Built, replayed: tuple[LmdbStore, LmdbStore, int]
) -> None:
    """Its vector was not loaded: it is answered from the log, as it was built."""
    whole, loaded, watermark = replayed
    with built.warehouse.connect(read_only=True) as connection:
        recent = read_timeline(connection, built.contract, watermark - LATENESS_MS, watermark)
        events = [event for event in recent if isinstance(event, Transaction)]
    assert events
    for event in events:
        wanted, found = whole.observe(event), loaded.observe(event)
        assert wanted.is_repeat
        assert found.is_repeat
        assert found.vector == wanted.vector


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    """Loads a store with events that the warehouse does not hold yet."""
    warehouse = Warehouse(tmp_path / "empty.duckdb", threads=1)
    with warehouse.connect() as connection:
        connection.execute("create schema ingest")
        for table, columns in (("transactions", TRANSACTION_COLUMNS), ("labels", LABEL_COLUMNS)):
            body = ", ".join(f"{column.name} {column.type}" for column in columns)
            connection.execute(f"create table ingest.{table} ({body})")

    def load(
        events: Sequence[Transaction | LabelEvent], contract: FeatureContract = worlds.CONTRACT
    ) -> LmdbStore:
        load_store(warehouse, contract, tmp_path / "loaded", live=events)
        return LmdbStore.open(tmp_path / "loaded", contract)

    return load


@pytest.mark.parametrize("width", [30 * DAY, 37 * DAY])
def test_what_is_exactly_a_day_behind_a_load_is_answered(loading: Loading, width: int) -> None:
    """Its longest window begins a moment after what the load left out."""
    oracle, moment = Oracle(worlds.CONTRACT), START - LATENESS_MS
    past = [transaction(f"t{at}", at) for at in (moment - width - 1, moment - width, START)]
    for event in past:
        oracle.arrive(event)
    with loading(past) as store:
        late = transaction("late", moment)
        require_equal(worlds.CONTRACT, store.observe(late).vector, oracle.observe(late))
        with pytest.raises(TooLateError):
            store.observe(transaction("later", moment - 1))


@pytest.mark.parametrize("behind", [0, HOUR])
def test_a_loaded_state_that_carries_all_it_can_forgets_nothing_too_early(
    loading: Loading, behind: int
) -> None:
    """It stands a moment after the newest event; one more, not newer than that, lets its log begin."""
    oracle, start = Oracle(worlds.CONTRACT), START - LATENESS_MS
    card = next(plan for plan in Engine(worlds.CONTRACT).plans if plan.name == "card")
    past = [transaction("edge", start - card.reach)]
    past += [transaction(f"t{number}", START - number) for number in range(card.recent_max - 1)]
    for event in past:
        oracle.arrive(event)
    with loading(past) as store:
        for event in (transaction("more", START - behind), transaction("late", start)):
            require_equal(worlds.CONTRACT, store.observe(event).vector, oracle.observe(event))


def about_cards(*names: str) -> FeatureContract:
    features = worlds.CONTRACT.features
    return FeatureContract({"card": ("card_id",)}, tuple(one for one in features if one.name in names))


@pytest.mark.parametrize("name", ["card_fraud_reports_7d", "card_seconds_since_report_30d"])
def test_reports_that_a_load_left_out_are_not_taken_for_none(loading: Loading, name: str) -> None:
    """Of a key that keeps no log of its transactions, too: what reaches back to them is refused."""
    contract = about_cards(name)
    [plan] = compile_plans(contract)
    assert not plan.has_log
    oracle, known_at = Oracle(contract), START - LATENESS_MS - plan.reach - 1
    past = [transaction("old", known_at - DAY), transaction("new", START, card_id="other")]
    for event in past:
        oracle.arrive(event)
    oracle.learn(report("old", known_at))
    with loading([*past, report("old", known_at)], contract) as store:
        exact = transaction("exact", START - LATENESS_MS)
        require_equal(contract, store.observe(exact).vector, oracle.observe(exact))
        with pytest.raises(TooLateError, match=f"trimmed up to {known_at};"):
            store.observe(transaction("late", START - LATENESS_MS - 1))


def test_reports_that_no_feature_reads_make_nothing_too_late_for_a_load(loading: Loading) -> None:
    """As in a store that counted every event itself: the key's own transactions are all in its log."""
    contract = about_cards("card_txn_count_24h")
    oracle, moment = Oracle(contract), START - 3 * LATENESS_MS
    past = [transaction("old", moment - 2 * DAY), transaction("new", START, card_id="other")]
    for event in past:
        oracle.arrive(event)
    with loading([*past, report("old", moment - DAY + 1)], contract) as store:
        late = transaction("late", moment)
        require_equal(contract, store.observe(late).vector, oracle.observe(late))


@pytest.mark.parametrize("days", [0, 1, 5, 40])
def test_labels_known_after_the_newest_transaction_make_no_event_late(loading: Loading, days: int) -> None:
    """A chargeback is known long after its payment; payments go on from the newest one. What the labels'
    last moment left of the log was too short for them."""
    contract = worlds.CONTRACT
    oracle, known_at = Oracle(contract), START + days * DAY + 1
    past = [transaction(f"t{back}", START - back * DAY) for back in (39, 38, 29, 1, 0)]
    labels = [report("t29", START - DAY), report("t0", known_at)]
    for event in past:
        oracle.arrive(event)
    for label in labels:
        oracle.learn(label)
    moments = (START - LATENESS_MS, START + 1, START + DAY, known_at, known_at + 1, known_at + 30 * DAY)
    with loading([*past, *labels]) as store:
        for number, moment in enumerate(moments):
            event = transaction(f"next{number}", moment)
            found = store.observe(event)
            require_equal(contract, found.vector, oracle.observe(event))
            assert (found.is_repeat, found.is_late) == (False, moment < max(START, *moments[:number], 0))


def test_a_load_knows_what_a_report_may_still_be_about(loading: Loading) -> None:
    oracle, known_at = Oracle(worlds.CONTRACT), START - LATENESS_MS
    oldest = known_at - worlds.CONTRACT.report_horizon_ms
    past = [transaction(f"t{at}", at) for at in (oldest - 1, oldest, START)]
    for event in past:
        oracle.arrive(event)
    with loading(past) as store:
        assert not store.seen(f"t{oldest - 1}")
        assert store.learn(report(f"t{oldest}", known_at))
        oracle.learn(report(f"t{oldest}", known_at))
        event = transaction("next", START + 1)
        require_equal(worlds.CONTRACT, store.observe(event).vector, oracle.observe(event))


def test_empty_text_of_what_the_warehouse_lacks_is_no_value(loading: Loading) -> None:
    oracle = Oracle(worlds.CONTRACT)
    past = [
        transaction("a", START, merchant_country="", customer_id="u", device_id=""),
        transaction("b", START + 1, merchant_country="DE", customer_id="", device_id="d"),
    ]
    for event in past:
        oracle.arrive(event)
    with loading(past) as store:
        event = transaction("c", START + 2, customer_id="u", device_id="d")
        require_equal(worlds.CONTRACT, store.observe(event).vector, oracle.observe(event))


def test_labels_and_training_set_as_of_an_earlier_day(built: Built) -> None:
    """What could have been known then: the reference is labels.py, transaction by transaction."""
    as_of = START + SPAN // 2
    copy = Warehouse(built.folder / "as_of.duckdb", threads=1)
    copy.path.write_bytes(built.warehouse.path.read_bytes())
    target = built.folder / "as_of"
    target.mkdir()
    dbt("run --select labels training_set", copy.path, target, as_of=as_of, extras=built.extras)
    events: dict[str, list[LabelEvent]] = {}
    for row in copy.frame("select * from ingest.labels").itertuples():
        event = LabelEvent(
            transaction_id=row.transaction_id, source=row.source, outcome=row.outcome, known_at=row.known_at
        )
        events.setdefault(row.transaction_id, []).append(event)
    moments = copy.frame("select transaction_id, event_time from ingest.transactions")
    wanted = {
        row.transaction_id: RULE.resolve(events.get(row.transaction_id, []), row.event_time, as_of)
        for row in moments.itertuples()
        if row.event_time < as_of
    }
    rows = copy.frame("select * from training.labels").astype(object)
    found = {
        row.transaction_id: (row.status, row.source, row.known_at)
        for row in rows.where(rows.notna(), None).itertuples()
    }
    assert found == {name: (w.status, w.source, w.known_at) for name, w in wanted.items()}
    assert {status for status, _, _ in found.values()} == {"fraud", "legitimate", "immature"}
    times = dict(zip(moments["transaction_id"], moments["event_time"], strict=True))
    taught = copy.frame("select * from training.training_set")
    mature = {name: w for name, w in wanted.items() if RULE.is_mature(times[name], as_of)}
    assert dict(zip(taught["transaction_id"], taught["is_fraud"], strict=True)) == {
        name: w.status == "fraud" for name, w in mature.items()
    }
    features = copy.frame(
        "select f.* from features.transaction_features as f "
        "semi join training.training_set using (transaction_id)"
    ).set_index("transaction_id")
    columns = list(built.contract.names)
    taught = taught.set_index("transaction_id").loc[features.index]
    assert compare(
        built.contract,
        list(taught.index),
        [[None if pd.isna(v) else v for v in row] for row in taught[columns].itertuples(index=False)],
        {name: features[name].to_numpy() for name in columns},
    ).is_exact


# The release gate


@pytest.fixture
def platform(built: Built, tmp_path: Path) -> Platform:
    """The world as a dataset of its own, which a test may spoil."""
    (tmp_path / "edges.yaml").write_text(MAPPING)
    platform = Platform(Settings(tmp_path / "var", str(tmp_path / "edges.yaml")))
    platform.settings.home.mkdir(parents=True)
    platform.warehouse.path.write_bytes(built.warehouse.path.read_bytes())
    assert platform.contract == built.contract
    return platform


def materialized(platform: Platform) -> tuple[bool, dict[str, Any]]:
    """Whether the run and its check passed, and the asset's metadata."""
    result = dg.materialize([parity], resources={"platform": platform}, raise_on_error=False)
    (event,) = result.asset_materializations_for_node("features__parity")
    (check,) = result.get_asset_check_evaluations()
    assert check.passed == result.success
    return check.passed, {name: value.value for name, value in event.metadata.items()}


def spoil(platform: Platform, feature: str = "card_txn_count_1h", value: Any = -0.0) -> None:
    """Gives one row another value. Proof and fingerprint once took -0.0 for 0.0: they are equal numbers."""
    rows = platform.warehouse.frame(f"select * from {TABLE} order by event_time, transaction_id")
    rows.loc[17, feature] = value
    platform.warehouse.write_table(TABLE, rows)


@dataclass(frozen=True)
class Approval:
    by: str = "Ada"


@dataclass(frozen=True)
class Version:
    """What is asked of an approved version before anything is packaged."""

    contract: FeatureContract
    version: str = "1"
    approval: Approval = Approval()

    @property
    def contract_hash(self) -> str:
        return self.contract.hash


@dataclass(frozen=True)
class Registry:
    approved: Version

    def champion(self) -> Version:
        return self.approved

    def candidate(self, version: str) -> Version:
        return self.approved


@dataclass(frozen=True)
class Approved:
    """A platform whose champion is of its present contract."""

    settings: Settings
    contract: FeatureContract
    registry: Registry

    @classmethod
    def of(cls, platform: Platform) -> Approved:
        return cls(platform.settings, platform.contract, Registry(Version(platform.contract)))

    def package(self) -> None:
        dg.materialize([package.bundle], resources={"platform": self})

    def is_proven(self) -> bool:
        return package.proof_of(self, self.registry.approved).is_exact  # type: ignore[arg-type]


def test_the_asset_proves_every_value_and_says_so_by_feature(platform: Platform) -> None:
    is_passed, found = materialized(platform)
    names = platform.contract.names
    assert is_passed
    assert found["transactions"] == TRANSACTIONS
    assert found["values"] == TRANSACTIONS * len(names)
    assert found["labels"] == platform.warehouse.count("ingest.labels")
    assert (found["mismatches"], found["examples"], found["unchanged"]) == (0, [], False)
    assert f"| card_txn_count_1h | {TRANSACTIONS:,} | 0 |" in found["by_feature"]
    assert found["by_feature"].count("\n") == len(names) + 1
    assert Approved.of(platform).is_proven()


def test_what_was_proven_is_not_replayed_again(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = materialized(platform)
    with monkeypatch.context() as patched:
        patched.setattr("fraud_platform.defs.parity.prove", None)
        is_passed, again = materialized(platform)
    assert is_passed
    assert again == first | {"unchanged": True}
    monkeypatch.setattr(parity_replay, "FORMAT", b"another format of the store")
    assert not materialized(platform)[1]["unchanged"]


@pytest.mark.parametrize(
    ("feature", "value"),
    [("card_txn_count_1h", -0.0), ("card_amount_mean_7d", np.nextafter(1000.0, 2000.0)), ("channel", "")],
)
def test_one_wrong_value_fails_the_check_and_refuses_the_release(
    platform: Platform, feature: str, value: Any
) -> None:
    materialized(platform)
    spoil(platform, feature, value)
    is_passed, found = materialized(platform)
    assert not is_passed
    assert found["mismatches"] == 1
    assert f"| {feature} | {TRANSACTIONS:,} | 1 |" in found["by_feature"]
    assert found["examples"][0].startswith(f"{feature} of t")
    with pytest.raises(
        GateError, match=rf"1 mismatches in .* values \({feature}: 1\).*fraud-platform parity"
    ):
        Approved.of(platform).package()
    assert not materialized(platform)[0], "a proof with mismatches is never taken for unchanged"


def test_a_nan_in_the_table_is_no_null(platform: Platform) -> None:
    with platform.warehouse.connect() as connection:
        connection.execute(
            f"update {TABLE} set card_amount_mean_1h = 'nan'::double where transaction_id = "
            f"(select min(transaction_id) from {TABLE} where card_amount_mean_1h is null)"
        )
    report = replay_parity(platform.warehouse, platform.contract)
    assert report.mismatches == {"card_amount_mean_1h": 1}
    assert (report.examples[0].online, str(report.examples[0].offline)) == (None, "nan")


def test_nothing_is_packaged_without_a_proof(platform: Platform) -> None:
    with pytest.raises(GateError, match=r"has no parity proof.*fraud-platform parity"):
        Approved.of(platform).package()
    assert not platform.settings.bundles.exists()


def test_a_proof_of_older_code_is_none(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(parity_replay, "FORMAT", b"the format before")
        assert materialized(platform)[0]
    with pytest.raises(GateError, match="would serve it"):
        Approved.of(platform).package()
    assert not materialized(platform)[1]["unchanged"]
    assert Approved.of(platform).is_proven()


def test_more_data_is_proven_anew_but_holds_no_release_up(platform: Platform) -> None:
    """Between an ingest and the replay that follows it, an approved version can still be packaged."""
    materialized(platform)
    rows = platform.warehouse.frame("select * from ingest.labels order by known_at")
    later = rows.iloc[[-1]].assign(known_at=rows["known_at"].max() + DAY, source="manual_review")
    platform.warehouse.write_table("ingest.labels", pd.concat([rows, later]))
    assert Approved.of(platform).is_proven()
    is_passed, found = materialized(platform)
    assert is_passed
    assert not found["unchanged"]
    assert found["labels"] == len(rows) + 1


@pytest.mark.parametrize("is_more", [True, False], ids=["too many", "too few"])
def test_a_table_of_other_transactions_is_refused(platform: Platform, is_more: bool) -> None:
    rows = platform.warehouse.frame(f"select * from {TABLE} order by event_time, transaction_id")
    extra = rows.iloc[[-1]].assign(transaction_id="zz")
    platform.warehouse.write_table(TABLE, pd.concat([rows, extra]) if is_more else rows.iloc[:-1])
    with pytest.raises(StoreError, match="holds other transactions"):
        replay_parity(platform.warehouse, platform.contract)


def test_rows_that_change_during_the_replay_prove_nothing(platform: Platform) -> None:
    opened: list[Path] = []

    def open_store(path: Path, contract: FeatureContract) -> LmdbStore:
        opened.append(path)
        return LmdbStore.open(path, contract)

    class Changing(Warehouse):
        """Its rows are others once a store was opened."""

        def fingerprint(self, *tables: str) -> str:
            return super().fingerprint(*tables) + str(len(opened))

    with pytest.raises(StoreError, match="wrote to the warehouse during the replay"):
        prove(Changing(platform.warehouse.path), platform.contract, START, open_store=open_store)


def test_the_command_prints_the_sum_last_and_exits_by_it(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    values = TRANSACTIONS * len(platform.contract.names)
    for wrong in (0, 1):
        if wrong:
            spoil(platform)
        with pytest.raises(typer.Exit) as ended:
            show_parity(platform.settings, None, has_tails=False)
        assert ended.value.exit_code == wrong
        printed = capsys.readouterr().out
        assert printed.splitlines()[-1] == (
            f"compared {values:,} values of {TRANSACTIONS:,} transactions: {wrong} mismatches"
        )
        assert ("card_txn_count_1h: 1 mismatches" in printed) == bool(wrong)
        proof = read_proof(platform.settings, platform.contract.hash)
        assert proof is not None
        assert proof.is_exact == (not wrong)


def test_all_of_the_timeline_and_a_part_of_it_are_not_asked_for_together() -> None:
    error = CliRunner().invoke(app, ["parity", "--all", "--events", "50"]).exception
    assert isinstance(error, SettingsError)
    assert "--events 50" in str(error)


def test_a_part_of_the_timeline_is_no_proof(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        show_parity(platform.settings, 50, has_tails=False)
    assert ended.value.exit_code == 0
    assert re.search(r"of 5\d transactions: 0 mismatches$", capsys.readouterr().out.strip())
    assert read_proof(platform.settings, platform.contract.hash) is None


# Tails


def test_a_window_with_a_tail_begins_at_a_multiple_of_it(
    built: Built, platform: Platform, tmp_path: Path
) -> None:
    """Counted by hand, in the whole world."""
    models = "run --select staging features --full-refresh"
    dbt(models, platform.warehouse.path, tmp_path, tail_ms=DAY, extras=built.extras)
    rows = platform.warehouse.frame("select transaction_id, event_time, card_id from ingest.transactions")
    found = platform.warehouse.frame(
        f"select transaction_id, card_txn_count_1h, card_txn_count_7d from {TABLE}"
    ).set_index("transaction_id")
    for row in rows.itertuples():
        times = rows.loc[rows["card_id"] == row.card_id, "event_time"]
        for name, width in (("card_txn_count_1h", HOUR), ("card_txn_count_7d", 7 * DAY)):
            lower = (row.event_time - width) // DAY * DAY
            wanted = ((times >= lower) & (times < row.event_time)).sum()
            assert found.loc[row.transaction_id, name] == wanted, row


def test_what_reads_the_log_feels_a_tail_like_the_others(
    built: Built, platform: Platform, tmp_path: Path
) -> None:
    """Counted by hand: last amounts, last report, and a window that ends 7 d ago, at multiples too."""
    models = "run --select staging features --full-refresh"
    dbt(models, platform.warehouse.path, tmp_path, tail_ms=DAY, extras=built.extras)
    names = ["card_last_amount_max_30d", "card_seconds_since_report_30d", "merchant_last_fraud_share_30d"]
    rows = platform.warehouse.frame(
        "select t.transaction_id, event_time, card_id, merchant_id, amount_minor, min(known_at) as reported "
        "from ingest.transactions as t left join ingest.labels as l "
        "on t.transaction_id = l.transaction_id and outcome = 'fraud' group by all"
    ).astype({"amount_minor": float, "reported": float})
    found = platform.warehouse.frame(f"select transaction_id, {', '.join(names)} from {TABLE}")
    exact = built.warehouse.frame(f"select transaction_id, {', '.join(names)} from {TABLE}")
    found, exact = (frame.set_index("transaction_id").sort_index().astype(float) for frame in (found, exact))
    for name in names:
        assert not found[name].equals(exact[name]), name

    def last(same: pd.DataFrame, lower: int, upper: int) -> pd.DataFrame:
        inside = same[same["event_time"].between(lower, upper, inclusive="left")]
        return inside[inside["event_time"].isin(sorted(set(inside["event_time"]))[-20:])]

    for row in rows.itertuples():
        now = row.event_time
        lower, far, end = (moment // DAY * DAY for moment in (now - 30 * DAY, now - 37 * DAY, now - 7 * DAY))
        card, merchant = rows[rows["card_id"] == row.card_id], rows[rows["merchant_id"] == row.merchant_id]
        reports = card["reported"][card["reported"].between(lower, now, inclusive="left")]
        wanted = [
            last(card, lower, now)["amount_minor"].max(),
            (now - reports.max()) / 1000,
            (last(merchant, far, end)["reported"] < now).mean(),
        ]
        np.testing.assert_array_equal(found.loc[row.transaction_id].to_numpy(), wanted, err_msg=str(row))


def test_the_report_finds_nothing_wrong_without_a_tail_and_much_with_one(platform: Platform) -> None:
    """Without a tail the copy of the last days must give what all history gives: it holds all that counts."""
    before = platform.warehouse.fingerprint(TABLE)
    report = report_tails(
        platform.settings, platform.mapping, platform.contract, None, tails={"no": 0, "one-day": DAY}
    )
    none, day = (finding.errors for finding in report.findings)
    assert (none.wrong_values, none.wrong_transactions, none.worst) == (0, 0, ())
    assert none.values > 1_000
    assert day.wrong_values > 0.1 * day.values
    assert {name for name, _ in day.worst} <= set(tailed_names(platform.contract))
    assert [finding.ranking for finding in report.findings] == [None, None]
    assert "no candidate yet" in report.explain()[0]
    assert platform.warehouse.fingerprint(TABLE) == before


def test_built_features_know_nothing_of_the_future(platform: Platform) -> None:
    found = probe_future(platform.settings, platform.mapping, platform.contract)
    assert found.is_clean, found.reason
    assert f"keep all {len(platform.contract.names)} values" in found.reason


def test_a_feature_that_counts_labels_regardless_of_known_at_is_found(platform: Platform) -> None:
    """Reports on the merchant, those that are still to come as well; and a row that lacks its past."""
    ever = platform.warehouse.frame(
        "select merchant_id, count(*) as ever from ingest.labels "
        "inner join ingest.transactions using (transaction_id) where outcome = 'fraud' group by merchant_id"
    )
    rows = platform.warehouse.frame(
        f"select features.*, merchant_id from {TABLE} as features "
        "inner join ingest.transactions using (transaction_id)"
    )
    counts = rows["merchant_id"].map(ever.set_index("merchant_id")["ever"])
    leaked = rows.drop(columns="merchant_id").assign(merchant_fraud_reports_30d=counts.astype(float))
    platform.warehouse.write_table(TABLE, leaked)
    found = probe_future(platform.settings, platform.mapping, platform.contract, rows_max=200)
    assert not found.is_clean
    assert found.suspects == ("merchant_fraud_reports_30d",)
