"""features offline: added days against a whole build, bit for bit, and what a window with a tail gets wrong.

The world's moments crowd around midnight and around a window's length before it, where new rows and old ones,
stretches of condensed history and the beginnings of windows meet.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster_dbt import DbtCliResource

from fraud_platform.adapters.dbt import DBT_PROJECT, dbt_executable, dbt_vars, ensure_manifest
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_days import Inputs, read_inputs
from fraud_platform.defs.features import FEATURES_STEP, build_dbt
from fraud_platform.defs.platform import Platform
from fraud_platform.features.contract import load_contract
from fraud_platform.schema import LABEL_COLUMNS, MILLISECONDS_PER_DAY, TRANSACTION_COLUMNS
from fraud_platform.settings import Settings

# dagster-dbt reads it when it calls dbt.
pytestmark = pytest.mark.filterwarnings("ignore:AssetExecutionContext.op is deprecated:DeprecationWarning")

DAY, HOUR = MILLISECONDS_PER_DAY, 3_600_000
START = 20_500 * DAY
DAYS, TRANSACTIONS = 46, 900
LAST_OF_DAYS = [
    START + day * DAY - before for day in range(36, DAYS + 1) for before in (1, 7 * DAY + 2, 30 * DAY + 1)
]
"""The last moment of a day, and what is the last that its windows hold, or their end leaves out."""
TABLES = (*(f"{entity}_features" for entity in load_contract().entities), "transaction_features")

MAPPING = f"""
name: days
transactions:
  files: transactions.parquet
  columns: {{{", ".join(f"{c.name}: {c.name}" for c in TRANSACTION_COLUMNS)}}}
labels:
  files: labels.parquet
  columns: {{{", ".join(f"{c.name}: {c.name}" for c in LABEL_COLUMNS)}}}
maturity_days: 20
label_precedence: [chargeback]
split: {{test_days: 10, validation_days: 5}}
"""


def moment(generator: random.Random) -> int:
    near = generator.randrange(36, DAYS) * DAY - generator.choice([0, 0, HOUR, DAY, 7 * DAY, 30 * DAY])
    beside = near + generator.choice([-1, 0, 0, 1, HOUR, -HOUR])
    return START + generator.choice([beside, beside, generator.randrange(DAYS * DAY)])


def world() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Transactions and labels; keys are few, some are seen on one day only."""
    generator = random.Random(11)

    def one(moment: int, number: int) -> dict[str, Any]:
        either, day = generator.choice, moment // DAY
        return {
            "transaction_id": f"t{number}",
            "event_time": moment,
            "card_id": either(["a", "b", f"of{day}", f"rare{number % 30}"]),
            "customer_id": either(["u", "v", None]),
            "device_id": either(["d", "e", f"of{day}", None]),
            "ip_id": either(["i", "j", None]),
            "merchant_id": either(["m", "n", "o", f"of{day}"]),
            "amount_minor": either([0, 1, 1000, generator.randrange(10**12)]),
            "currency": "EUR",
            "merchant_country": either(["DE", "FR", "US", None]),
            "latitude": either([None, -0.0, generator.uniform(-90, 90)]),
            "longitude": generator.uniform(-180, 180),
        }

    moments = [moment(generator) for _ in range(TRANSACTIONS)]
    rows = pd.DataFrame([one(moment, number) for number, moment in enumerate([*moments, *LAST_OF_DAYS])])
    rows.loc[TRANSACTIONS:, ["card_id", "merchant_id"]] = ["a", "m"]
    known = [
        {
            "transaction_id": row.transaction_id,
            "source": "chargeback",
            "outcome": generator.choice(["fraud", "fraud", "legitimate"]),
            "known_at": generator.choice(
                [row.event_time + generator.choice([0, 1, DAY]), (row.event_time // DAY + 2) * DAY]
            ),
        }
        for row in rows.itertuples()
        if generator.random() < 0.4
    ]
    return rows, pd.DataFrame(known)


ROWS, LABELS = world()


def warehouse_until(path: Path, before: int) -> Warehouse:
    """A warehouse that has ingested everything known before this moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(path, threads=1)
    with warehouse.connect() as connection:
        connection.execute("create schema ingest")
        for table, columns in (("transactions", TRANSACTION_COLUMNS), ("labels", LABEL_COLUMNS)):
            body = ", ".join(f"{column.name} {column.type}" for column in columns)
            connection.execute(f"create table ingest.{table} ({body})")
    arrive(warehouse, 0, before)
    return warehouse


def arrive(warehouse: Warehouse, first: int, before: int) -> None:
    """Ingests what becomes known from `first` on and before the other moment."""
    rows = ROWS[ROWS["event_time"].between(first, before, inclusive="left")]
    labels = LABELS[LABELS["known_at"].between(first, before, inclusive="left")]
    assert len(rows) > 0
    with warehouse.connect() as connection:
        connection.register("rows", rows)
        connection.register("new_labels", labels)
        connection.execute("insert into ingest.transactions by name select * from rows")
        connection.execute("insert into ingest.labels by name select * from new_labels")


def dbt(warehouse: Warehouse, words: str, /, **variables: Any) -> None:
    folder = warehouse.path.parent / "by_hand"
    folder.mkdir(exist_ok=True)
    told = {"warehouse": str(warehouse.path), "spill": str(folder / "spill"), **variables}
    command = [dbt_executable(), "--quiet", *words.split(), "--vars", json.dumps(told)]
    command += ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    command += ["--target-path", str(folder), "--log-path", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    folder = tmp_path_factory.mktemp("offline")
    (folder / "days.yaml").write_text(MAPPING)
    return Platform(Settings(folder / "var", str(folder / "days.yaml"), folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Everything, built at once."""
    path = tmp_path_factory.mktemp("whole") / "warehouse.duckdb"
    warehouse = warehouse_until(path, START + DAYS * DAY)
    dbt(warehouse, "run --select staging features")
    return warehouse


def build(platform: Platform) -> list[bool]:
    """The features step as Dagster runs it, with dbt's tests: whether each table says it is unchanged."""
    manifest = ensure_manifest(platform.settings, platform.mapping)
    resources = {
        "platform": dg.ResourceDefinition.hardcoded_resource(platform),
        "dbt": DbtCliResource(
            project_dir=str(DBT_PROJECT), profiles_dir=str(DBT_PROJECT), dbt_executable=dbt_executable()
        ),
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([build_dbt(manifest)[0]], instance=instance, resources=resources)
    assert result.success
    events = result.get_asset_materialization_events()
    return ["unchanged" in event.materialization.metadata for event in events]


def set_count(warehouse: Warehouse, transaction_id: str, value: float) -> None:
    """Writes into a finished table what no build would."""
    with warehouse.connect() as connection:
        connection.execute(
            "update features.card_features set card_txn_count_1h = ? where transaction_id = ?",
            [value, transaction_id],
        )


def count_of(warehouse: Warehouse, transaction_id: str) -> float:
    frame = warehouse.frame(
        "select card_txn_count_1h as n from features.card_features where transaction_id = ?", [transaction_id]
    )
    return float(frame["n"].iloc[0])


def step(platform: Platform) -> tuple[Inputs, str]:
    """What the tables would be built from now, and what they say that they were."""
    noted = platform.warehouse.built_from(FEATURES_STEP)
    assert noted is not None
    return read_inputs(platform.warehouse, Inputs.from_text(noted).project), noted


def taken_out(warehouse: Warehouse, transaction_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A transaction and its labels, which the warehouse has not any more."""
    name = [transaction_id]
    with warehouse.connect() as connection:
        row = connection.execute("from ingest.transactions where transaction_id = ?", name).df()
        labels = connection.execute("from ingest.labels where transaction_id = ?", name).df()
        connection.execute("delete from ingest.transactions where transaction_id = ?", name)
        connection.execute("delete from ingest.labels where transaction_id = ?", name)
    return row, labels


def require_same_tables(warehouse: Warehouse, whole: Warehouse) -> None:
    for table in TABLES:
        name = f"features.{table}"
        assert warehouse.count(name) == whole.count(name) > 0
        assert warehouse.fingerprint(name) == whole.fingerprint(name), table


def test_added_days_come_to_the_same_bits(platform: Platform, whole: Warehouse, tmp_path: Path) -> None:
    """Days in parts, several at once, after a kill, and a late row: each builds what is new, no more."""
    marks = [START + day * DAY for day in (40, 41, 43, 44, DAYS)]
    middle = marks[0] + 5 * HOUR
    is_reported = ROWS["transaction_id"].isin(LABELS["transaction_id"])
    held_back = ROWS[is_reported & (ROWS["event_time"] // DAY == START // DAY + 20)].iloc[0]
    warehouse = warehouse_until(platform.settings.warehouse, middle)
    late, late_labels = taken_out(warehouse, held_back["transaction_id"])
    punctual = warehouse_until(tmp_path / "warehouse.duckdb", START + DAYS * DAY)
    taken_out(punctual, held_back["transaction_id"])
    dbt(punctual, "run --select staging features")
    assert not any(build(platform))
    assert all(build(platform))

    early, later = (
        ROWS[ROWS["event_time"] < START + 20 * DAY].iloc[0]["transaction_id"],
        ROWS[ROWS["event_time"].between(START + 30 * DAY, START + 31 * DAY)].iloc[0]["transaction_id"],
    )
    right = count_of(whole, early)
    set_count(warehouse, early, -1)
    set_count(warehouse, later, -1)

    for first, before in ((middle, marks[1]), (marks[1], marks[2])):
        arrive(warehouse, first, before)
        now, noted = step(platform)
        assert now.unchanged_through(noted) == first // DAY * DAY
        assert not any(build(platform))
    assert count_of(warehouse, later) == -1

    arrive(warehouse, marks[2], marks[3])
    now, noted = step(platform)
    through = now.unchanged_through(noted)
    assert through == marks[2]
    warehouse.note_build(FEATURES_STEP, str(now.before(through)))
    variables = {**dbt_vars(platform.settings, platform.mapping), "built_through": through}
    dbt(warehouse, "run --select staging card_features", **variables)
    arrive(warehouse, marks[3], marks[4])
    assert not any(build(platform))
    assert count_of(warehouse, early) == count_of(warehouse, later) == -1
    set_count(warehouse, later, count_of(punctual, later))
    set_count(warehouse, early, right)
    require_same_tables(warehouse, punctual)

    set_count(warehouse, early, -1)
    with warehouse.connect() as connection:
        connection.execute("insert into ingest.transactions by name from late")
        connection.execute("insert into ingest.labels by name from late_labels")
    assert len(late) == len(late_labels) == 1
    now, noted = step(platform)
    assert now.unchanged_through(noted) == START + 20 * DAY
    assert not any(build(platform))
    assert count_of(warehouse, early) == -1
    set_count(warehouse, early, right)
    require_same_tables(warehouse, whole)
    assert all(build(platform))


@pytest.fixture
def known(tmp_path: Path) -> tuple[Warehouse, str]:
    """A warehouse of 40 days, and what a build of it has noted."""
    warehouse = warehouse_until(tmp_path / "warehouse.duckdb", START + 40 * DAY)
    return warehouse, str(read_inputs(warehouse, "p"))


def changed(warehouse: Warehouse, sql: str) -> Inputs:
    with warehouse.connect() as connection:
        connection.execute(sql)
    return read_inputs(warehouse, "p")


def test_a_label_that_was_known_earlier_brings_its_day_back(known: tuple[Warehouse, str]) -> None:
    warehouse, noted = known
    label = LABELS[LABELS["known_at"].between(START + 30 * DAY, START + 31 * DAY)].iloc[0]
    now = changed(
        warehouse,
        f"update ingest.labels set known_at = known_at - {3 * DAY} "
        f"where transaction_id = '{label['transaction_id']}'",
    )
    assert now.unchanged_through(noted) == label["known_at"] // DAY * DAY - 3 * DAY


def test_a_label_of_today_leaves_yesterday(known: tuple[Warehouse, str]) -> None:
    warehouse, noted = known
    now = changed(
        warehouse,
        "insert into ingest.labels (transaction_id, source, outcome, known_at) "
        f"select transaction_id, 'chargeback', 'fraud', {START + 40 * DAY} from ingest.transactions limit 1",
    )
    assert now.unchanged_through(noted) == START + 40 * DAY


def test_rows_taken_away_are_a_change(known: tuple[Warehouse, str]) -> None:
    warehouse, noted = known
    now = changed(warehouse, f"delete from ingest.transactions where event_time >= {START + 39 * DAY}")
    assert now.unchanged_through(noted) == START + 39 * DAY


@pytest.mark.parametrize(
    "noted", [None, "0" * 64, str(Inputs("other", {1: "a", 2: "b"})), str(Inputs("p", {1: "c", 2: "b"}))]
)
def test_a_note_that_holds_for_no_day_builds_everything(noted: str | None) -> None:
    """Never built, noted by an earlier version, by another project, or with another first day."""
    assert Inputs("p", {1: "a", 2: "b", 3: "c"}).unchanged_through(noted) is None


def test_a_killed_build_is_never_taken_for_a_finished_one() -> None:
    """Also where the days that it was building have gone from the warehouse since."""
    days = Inputs("p", {1: "a", 2: "b", 3: "c"})
    noted = str(days.before(3 * DAY))
    assert days.unchanged_through(noted) == 3 * DAY
    shrunk = Inputs("p", {1: "a", 2: "b"})
    assert str(shrunk) != noted
    assert shrunk.unchanged_through(noted) == 2 * DAY


@pytest.mark.parametrize("tail_ms", [300_000, DAY])
def test_a_tail_spans_what_other_systems_do_and_leaves_the_exact_tables(
    whole: Warehouse, tail_ms: int
) -> None:
    """Windows begin at multiples of the tail: the reference is a join of everything with everything."""
    exact = whole.fingerprint("features.transaction_features")
    schema = f"features_tail_{tail_ms}"
    dbt(whole, "run --select features", tail_ms=tail_ms, features_schema=schema)
    assert whole.fingerprint("features.transaction_features") == exact
    start = f"(now.event_time - {7 * DAY}) // {tail_ms} * {tail_ms}"
    differing = whole.frame(
        f"""
        with reference as (
            select now.transaction_id, count(past.event_time)::double as n,
                coalesce(sum(past.amount_minor), 0)::double as total,
                count(distinct past.merchant_id)::double as merchants
            from ingest.transactions as now left join ingest.transactions as past
                on past.card_id = now.card_id and past.event_time < now.event_time
                and past.event_time >= {start}
            group by now.transaction_id
        )
        select
            count(*) filter (n is distinct from t.card_txn_count_7d
                or total is distinct from t.card_amount_sum_7d
                or merchants is distinct from t.card_merchant_distinct_7d) as wrong,
            count(*) filter (t.card_txn_count_7d is distinct from e.card_txn_count_7d) as shown,
            count(*) as compared
        from reference inner join {schema}.transaction_features as t using (transaction_id)
        inner join features.transaction_features as e using (transaction_id)"""
    )
    assert differing["compared"].iloc[0] == len(ROWS)
    assert differing["wrong"].iloc[0] == 0
    assert differing["shown"].iloc[0] > 0
