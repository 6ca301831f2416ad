"""Replays the timeline through an online store and compares every answer with the dbt table.

Belongs here: reading both sides in step, and keeping the proof. Does not belong here: what equal means
(features/parity.py), what a proof is good for (features/proof.py), how a store is filled (lmdb_load.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.duckdb_timeline import BATCH_ROWS, read_timeline
from fraud_platform.adapters.lmdb import FORMAT, LmdbStore
from fraud_platform.adapters.lmdb_load import load_store
from fraud_platform.errors import StoreError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import FeatureStore, Observation
from fraud_platform.features.parity import ParityReport, compare
from fraud_platform.features.proof import ParityProof, digest
from fraud_platform.schema import LabelEvent, Transaction
from fraud_platform.settings import Settings

COMPARED = ("ingest.transactions", "ingest.labels", "features.transaction_features")
PACKAGE = Path(__file__).resolve().parent.parent
SERVED_BY = (
    "features/*.py",
    "adapters/lmdb*.py",
    "adapters/redis*.py",
    "adapters/redis_script.lua",
    "adapters/store_bytes.py",
    "adapters/duckdb_load*.py",
    "schema.py",
)
"""The sources that decide what is served, from either store; all of features/, since too often is better than
too seldom."""

Progress = Callable[[str], None]
Event = Transaction | LabelEvent


class ReplayStore(FeatureStore, Protocol):
    """A store that also takes many events at once: one answer each, None for a label event."""

    def observe_all(self, events: Iterable[Event]) -> Iterator[Observation | None]: ...


OpenStore = Callable[[Path, FeatureContract], AbstractContextManager[ReplayStore]]
"""Opens what `LoadStore` has filled, or a new store. A store that is no folder leaves the path alone."""
LoadStore = Callable[[Warehouse, FeatureContract, Path, int, Progress], object]
"""Fills a store with everything before a watermark (ms UTC)."""


def replay_parity(
    warehouse: Warehouse,
    contract: FeatureContract,
    events: int | None = None,
    progress: Progress = lambda message: None,
    open_store: OpenStore = LmdbStore.open,
    load: LoadStore = load_store,
) -> ParityReport:
    """Replays the whole timeline from an empty store, or its last `events` transactions over a loaded one.

    Every vector is compared with features.transaction_features. Raises StoreError where the table holds other
    transactions than were ingested.
    """
    with TemporaryDirectory(prefix="parity-") as folder:
        path, watermark = Path(folder) / "store", 0
        if events is not None:
            with warehouse.connect(read_only=True) as connection:
                watermark = _watermark_before(connection, events)
            load(warehouse, contract, path, watermark, progress)
        with warehouse.connect(read_only=True) as connection, open_store(path, contract) as store:
            return _replay(connection, store, contract, watermark, progress)


def prove(
    warehouse: Warehouse,
    contract: FeatureContract,
    at_ms: int,
    progress: Progress = lambda message: None,
    open_store: OpenStore = LmdbStore.open,
) -> ParityProof:
    """Replays the whole timeline; at_ms: when that is (ms UTC).

    The store is one on LMDB. Of Redis that proves the engine, which is the same: how Redis keeps and hands
    out what the engine asks for is compared by `fraud-platform parity --store`, which needs a server and
    keeps no proof. A change of either store makes the proof one of other code.

    Raises StoreError where the rows changed during the replay: nothing is proven then.
    """
    data = fingerprint(warehouse)
    report = replay_parity(warehouse, contract, None, progress, open_store)
    if fingerprint(warehouse) != data:
        raise StoreError("parity: another run wrote to the warehouse during the replay; start it again")
    return ParityProof.of(report, contract=contract.hash, code=store_code(), data=data, at_ms=at_ms)


def proves_present(proof: ParityProof | None, warehouse: Warehouse, contract: FeatureContract) -> bool:
    """Whether the same rows, contract and code were already proven exact."""
    if proof is None or not proof.is_exact or proof.code != store_code():
        return False
    return proof.is_of(contract.hash, store_code(), fingerprint(warehouse))


def fingerprint(warehouse: Warehouse) -> str:
    """What the compared rows hash to, bit for bit.

    DuckDB hashes equal numbers alike, -0.0 and 0.0 too, so that the signs are hashed beside them; of NaN it
    knows only one, but where there is one nothing is exact.
    """
    parts = [warehouse.fingerprint(*COMPARED)]
    for table in COMPARED:
        doubles = warehouse.frame(
            "select column_name from information_schema.columns where table_schema = ? and table_name = ? "
            "and data_type = 'DOUBLE' order by column_name",
            table.split("."),
        )["column_name"]
        signs = "".join(f', signbit("{column}")' for column in doubles)
        found = warehouse.frame(f"select bit_xor(hash(transaction_id{signs})) as x from {table}")
        parts.append(str(found["x"].iloc[0]))
    return digest(*(part.encode() for part in parts))


def store_code() -> str:
    """SHA-256 (hex) of the sources of the engine and of both stores, and of the format of the one on LMDB."""
    files = sorted({path for pattern in SERVED_BY for path in PACKAGE.glob(pattern)})
    named = [(str(path.relative_to(PACKAGE)).encode(), path.read_bytes()) for path in files]
    return digest(FORMAT, *(part for pair in named for part in pair))


def read_proof(settings: Settings, contract_hash: str) -> ParityProof | None:
    """The last proof of a contract; None where there is none."""
    path = _proof_path(settings, contract_hash)
    return ParityProof.from_json(path.read_bytes()) if path.is_file() else None


def write_proof(settings: Settings, proof: ParityProof) -> Path:
    """Keeps the proof in the place of the contract's last one; it appears at once, by a rename."""
    path = _proof_path(settings, proof.contract)
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_bytes(proof.to_json())
    building.rename(path)
    return path


def _proof_path(settings: Settings, contract_hash: str) -> Path:
    return settings.reports / "parity" / f"{contract_hash}.json"


def _replay(
    connection: duckdb.DuckDBPyConnection,
    store: ReplayStore,
    contract: FeatureContract,
    watermark: int,
    progress: Progress,
) -> ParityReport:
    """Batches are cut where the table's are, so that each holds the same transactions on both sides."""
    report = ParityReport()
    expected = _expected(connection, watermark)
    timeline = read_timeline(connection, contract, watermark)
    for built in _offline(connection, contract, watermark):
        ids = built.column(0).to_pylist()
        batch = list(_until(timeline, len(ids)))
        answers = list(store.observe_all(batch))
        if [event.transaction_id for event in batch if isinstance(event, Transaction)] != ids:
            raise _other_transactions()
        online = [answer.vector for answer in answers if answer is not None]
        columns = {name: _column(built.column(n + 1)) for n, name in enumerate(contract.names)}
        report += compare(contract, ids, online, columns)
        report += ParityReport(labels=len(batch) - len(ids))
        progress(
            f"replayed {report.transactions:,} of {expected:,} transactions: "
            f"{report.wrong_values:,} mismatches in {report.values:,} values"
        )
    while rest := list(islice(timeline, BATCH_ROWS)):
        if any(isinstance(event, Transaction) for event in rest):
            raise _other_transactions()
        list(store.observe_all(rest))
        report += ParityReport(labels=len(rest))
    return report


def _offline(
    connection: duckdb.DuckDBPyConnection, contract: FeatureContract, watermark: int
) -> Iterator[pa.RecordBatch]:
    """Ids and features in contract order, as they came to be known."""
    columns = ", ".join(f'"{name}"' for name in contract.names)
    table = connection.cursor().sql(
        f"select transaction_id, {columns} from features.transaction_features "
        "where event_time >= ? order by event_time, transaction_id",
        params=[watermark],
    )
    return (batch for batch in table.to_arrow_reader(BATCH_ROWS) if batch.num_rows)


def _column(values: pa.Array) -> np.ndarray:
    """Masked where NULL: a NaN in the table stays one."""
    mask = values.is_null().to_numpy(zero_copy_only=False)
    return np.ma.MaskedArray(values.to_numpy(zero_copy_only=False), mask=mask)


def _until(timeline: Iterator[Event], transactions: int) -> Iterator[Event]:
    """Events up to and with so many transactions; fewer where the timeline ends."""
    while transactions > 0:
        event = next(timeline, None)
        if event is None:
            return
        transactions -= isinstance(event, Transaction)
        yield event


def _expected(connection: duckdb.DuckDBPyConnection, watermark: int) -> int:
    row = connection.execute(
        "select count(*) from ingest.transactions where event_time >= ?", [watermark]
    ).fetchone()
    return 0 if row is None else int(row[0])


def _watermark_before(connection: duckdb.DuckDBPyConnection, events: int) -> int:
    row = connection.execute(
        "select min(event_time) from "
        "(select event_time from ingest.transactions order by event_time desc limit ?)",
        [events],
    ).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def _other_transactions() -> StoreError:
    return StoreError(
        "parity: features.transaction_features holds other transactions than ingest.transactions; "
        "materialize the features again"
    )
