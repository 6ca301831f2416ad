"""Features offline on a skewed world: `python -m tests.perf.offline [--transactions 10000000]`.

All features of 30 days by dbt in a process of its own, then one more day; and the counts, sums and means of
card and merchant beside Polars, whose values must be the same: Polars from columns to frames in memory, this
project's SQL from the warehouse's table to tables in memory. Nothing here is a test, and Polars is no
dependency: it goes into an environment of its own, --environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fraud_platform.adapters.dbt import DBT_PROJECT, dbt_executable
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_days import read_inputs
from fraud_platform.schema import MILLISECONDS_PER_DAY

TRANSACTIONS, COMPARED, DAYS, REPEATS = 1_000_000, 2_000_000, 30, 3
START = 20_500 * MILLISECONDS_PER_DAY
ENTITIES, KINDS = {"card": "card_id", "merchant": "merchant_id"}, ("count", "sum", "mean")
WINDOWS = ("1h", "24h", "7d", "30d")


@dataclass(frozen=True)
class Skew:
    """keys: different values, of frequencies ~ rank^-exponent; known: share of the rows that have one."""

    keys: int
    exponent: float
    known: float = 1.0

    def sql(self, prefix: str) -> str:
        power = 1 - self.exponent
        drawn = f"floor(pow(1 + random() * (pow({self.keys}, {power}) - 1), {1 / power}))::bigint"
        return f"case when random() < {self.known} then '{prefix}' || {drawn} end"


@dataclass(frozen=True)
class Measured:
    """seconds on the clock and of the processors, which tells more where others use them too."""

    seconds: float
    cpu_seconds: float
    peak_gib: float


def add_days(warehouse: Warehouse, transactions: int, first: int, last: int) -> None:
    """Days first to last (exclusive) of a world of `transactions` in DAYS; fraud is known 0 to 20 d later."""
    a_day = transactions // DAYS
    step = MILLISECONDS_PER_DAY / a_day
    with warehouse.connect() as connection:
        connection.execute("create schema if not exists ingest")
        connection.execute("select setseed(0.25)")
        new = f"""
            select
                't' || number as transaction_id, {START} + (number * {step})::bigint as event_time,
                {Skew(transactions // 20, 0.5).sql("card")} as card_id,
                {Skew(transactions // 25, 0.5, 0.95).sql("customer")} as customer_id,
                {Skew(transactions // 15, 0.6, 0.7).sql("device")} as device_id,
                {Skew(transactions // 30, 0.8, 0.7).sql("ip")} as ip_id,
                {Skew(transactions // 400, 1.05).sql("merchant")} as merchant_id,
                exp(6 + 3 * random() + 2 * random())::bigint as amount_minor,
                'EUR' as currency, {Skew(3, 0.5).sql("channel")} as channel,
                {Skew(20, 0.7).sql("category")} as category, {Skew(40, 1.5).sql("C")} as card_country,
                {Skew(40, 1.5, 0.97).sql("C")} as merchant_country,
                case when random() < 0.6 then random() * 90 end as latitude, random() * 180 as longitude,
                random() * 90 as home_latitude, random() * 180 as home_longitude
            from range({first * a_day}, {last * a_day}) as numbers (number)"""
        labels = f"""
            select transaction_id, 'chargeback' as source, 'fraud' as outcome,
                event_time + (random() * {20 * MILLISECONDS_PER_DAY})::bigint as known_at
            from ingest.transactions
            where event_time >= {START + first * MILLISECONDS_PER_DAY} and random() < 0.005"""
        for table, query in (("transactions", new), ("labels", labels)):
            connection.execute(f"create table if not exists ingest.{table} as {query} limit 0")
            connection.execute(f"insert into ingest.{table} {query}")


def dbt(warehouse: Warehouse, words: str, **variables: Any) -> Measured:
    """dbt in a process of its own: its seconds and its greatest memory."""
    folder = warehouse.path.parent
    told = {"warehouse": str(warehouse.path), "spill": str(folder / "spill")}
    told |= {"memory_limit": warehouse.memory_limit, **variables}
    command = [dbt_executable(), "--quiet", *words.split(), "--vars", json.dumps(told)]
    command += ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    command += ["--target-path", str(folder / "target"), "--log-path", str(folder / "target")]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"dbt {words} ended with {process.returncode}: see {folder / 'target' / 'dbt.log'}")
    return Measured(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def build_all(warehouse: Warehouse, transactions: int) -> None:
    """The features of DAYS days at once, then a day more."""
    build = "build --select staging features --exclude-resource-type unit_test"
    add_days(warehouse, transactions, 0, DAYS)
    rows = warehouse.count("ingest.transactions")
    whole = dbt(warehouse, build)
    print(f"all features of {rows:,} transactions of {DAYS} days, with dbt's tests: {whole.seconds:.0f} s")
    print(
        f"  {rows / whole.seconds:,.0f} rows/s, {whole.cpu_seconds:.0f} s CPU, peak {whole.peak_gib:.1f} GiB",
        flush=True,
    )
    noted = read_inputs(warehouse, "measured")
    add_days(warehouse, transactions, DAYS, DAYS + 1)
    started = time.perf_counter()
    through = read_inputs(warehouse, "measured").unchanged_through(str(noted))
    looked = time.perf_counter() - started
    day = dbt(warehouse, build, built_through=through)
    share, seconds = 1 / (DAYS + 1), looked + day.seconds
    print(
        f"a day more ({share:.1%} of the rows): {seconds:.0f} s, {seconds / whole.seconds:.1%} of the whole"
    )
    print(f"  {looked:.1f} s of it to find what is new; {day.cpu_seconds:.0f} s CPU,")
    print(f"  {day.cpu_seconds / whole.cpu_seconds:.1%} of the whole's", flush=True)


def compare_with_polars(warehouse: Warehouse, transactions: int, environment: Path) -> None:
    """The same values by this project's SQL and by Polars, in turns; medians of REPEATS.

    Both compute the counts, sums and means of ENTITIES over WINDOWS up to the row, and nothing else.
    """
    add_days(warehouse, transactions, 0, DAYS)
    folder = warehouse.path.parent
    declared = yaml.safe_load((DBT_PROJECT / "dbt_project.yml").read_text(encoding="utf-8"))["vars"]
    windows = {name: declared["windows"][name] for name in WINDOWS}
    features = [
        entry | {"windows": [name for name in entry["windows"] if name in windows]}
        for entry in declared["features"]
        if entry.get("entity") in ENTITIES
        and entry["kind"] in KINDS
        and not entry.keys() & {"stream", "offset"}
    ]
    models = " ".join(f"{entity}_features" for entity in ENTITIES)
    dbt(warehouse, "run --select staging")
    dbt(warehouse, f"compile --select {models}", features=features)
    compiled = folder / "target/compiled/fraud_platform/models/features"
    queries = {entity: (compiled / f"{entity}_features.sql").read_text() for entity in ENTITIES}
    with warehouse.connect(read_only=True) as connection:
        connection.execute(
            "copy (select card_id, merchant_id, event_time, amount_minor from ingest.transactions) "
            f"to '{folder}/rows.parquet'"
        )
    python = environment_with_polars(environment)
    script = [str(python), str(Path(__file__).with_name("polars_rolling.py")), str(folder / "rows.parquet")]
    script += [str(folder), json.dumps(windows), json.dumps(list(ENTITIES.values()))]
    ours, theirs = [], []
    for _ in range(REPEATS):
        answered = subprocess.run(
            script, check=True, capture_output=True, text=True, env={**os.environ, "POLARS_MAX_THREADS": "2"}
        )
        theirs.append([float(word) for word in answered.stdout.split()])
        with warehouse.connect(read_only=True) as connection:
            started, used = time.perf_counter(), time.process_time()
            for entity, query in queries.items():
                connection.execute(f"create temp table {entity} as {query}")
            ours.append([time.perf_counter() - started, time.process_time() - used])
            different = sum(
                _different(connection, entity, window, folder) for entity in ENTITIES for window in windows
            )
    count = sum(len(entry["windows"]) for entry in features)
    print(f"{count} counts, sums and means of {transactions:,} transactions; {different:,} rows differ")
    for place, unit in enumerate(("s", "s CPU")):
        mine, peer = (statistics.median(run[place] for run in runs) for runs in (ours, theirs))
        print(f"  ours {mine:.1f} {unit}, Polars {peer:.1f} {unit}, ratio {mine / peer:.2f}")


def _different(connection: Any, entity: str, window: str, folder: Path) -> int:
    """Rows whose count or sum differs at all, or whose mean by more than Polars' own rounding."""
    key = ENTITIES[entity]
    row = connection.execute(
        f"""
        select count(*) from {entity} as o
        inner join ingest.transactions as t on o.transaction_id = t.transaction_id
        left join (select distinct * from '{folder}/{key}_{window}.parquet') as p
            on t.{key} = p.{key} and t.event_time = p.event_time
        where o.{entity}_txn_count_{window} is distinct from p.count::double
            or o.{entity}_amount_sum_{window} is distinct from p.sum::double
            or (o.{entity}_amount_mean_{window} is null) <> (p.mean is null)
            or abs(o.{entity}_amount_mean_{window} - p.mean) > 1e-9 * abs(p.mean)"""
    ).fetchone()
    return int(row[0])


def environment_with_polars(folder: Path) -> Path:
    """The interpreter of an environment that has Polars, made where it is not there yet."""
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "polars"]
        subprocess.run(pip, check=True)
        (folder / "ready").touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS, help="of 30 days, for all features")
    parser.add_argument("--compared", type=int, default=COMPARED, help="transactions beside Polars; 0: none")
    parser.add_argument("--memory-limit", default="7GB", help="DuckDB's; what exceeds it spills")
    parser.add_argument("--environment", type=Path, default=Path("var/perf-env"), help="where Polars goes")
    parser.add_argument("--folder", type=Path, help="where the worlds go while it runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="offline-") as folder:
        for name in ("whole", "compared"):
            (Path(folder) / name).mkdir()
        if arguments.transactions:
            warehouse = Warehouse(Path(folder) / "whole/warehouse.duckdb", arguments.memory_limit)
            build_all(warehouse, arguments.transactions)
            shutil.rmtree(Path(folder) / "whole")
        if arguments.compared:
            warehouse = Warehouse(Path(folder) / "compared/warehouse.duckdb", arguments.memory_limit)
            compare_with_polars(warehouse, arguments.compared, arguments.environment.resolve())


if __name__ == "__main__":
    sys.exit(main())
