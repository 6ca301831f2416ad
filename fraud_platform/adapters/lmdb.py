"""The embedded online store: LMDB, shared by the processes of one machine, one write transaction an event.

Belongs here: opening, sharing and closing the store. Does not belong here: keys and bytes (lmdb_session.py),
what an event means (features/engine.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import cast

import lmdb

from fraud_platform.adapters.lmdb_session import TABLES, LmdbSession
from fraud_platform.adapters.store_bytes import EntryCodec, token
from fraud_platform.errors import StoreError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import Engine, Observation
from fraud_platform.schema import LabelEvent, Transaction

FORMAT = b"3"
MAP_BYTES = 1 << 38
"""Address space, not disk: the file grows with what is written."""


class LmdbStore:
    """A FeatureStore in a folder. Raises StoreError where the folder holds another contract or format.

    is_synced=True forces every event to the disk. False leaves that to the operating system: a killed process
    loses nothing, a power loss may; the store is then rebuilt from the warehouse and the decision log.
    """

    def __init__(self, path: Path, contract: FeatureContract, *, is_synced: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.contract = contract
        self.engine = Engine(contract)
        self.codecs = {plan.number: EntryCodec(plan) for plan in self.engine.plans}
        self._env = lmdb.open(
            str(path),
            map_size=MAP_BYTES,
            max_dbs=len(TABLES),
            sync=is_synced,
            metasync=is_synced,
            readahead=False,
            writemap=True,
        )
        self.tables = {name: self._env.open_db(name.encode()) for name in TABLES}
        self._claim()

    @classmethod
    def open(cls, path: Path, contract: FeatureContract, *, is_synced: bool = False) -> LmdbStore:
        """An existing or a new store at `path`."""
        return cls(path, contract, is_synced=is_synced)

    def observe(self, transaction: Transaction) -> Observation:
        with self._env.begin(write=True) as txn:
            return self.engine.observe(self._session(txn), transaction)

    def observe_all(self, events: Iterable[Transaction | LabelEvent]) -> Iterator[Observation | None]:
        """Events in the order of the timeline, in one transaction: for replays. None for label events."""
        with self._env.begin(write=True) as txn:
            session = self._session(txn)
            for event in events:
                if isinstance(event, Transaction):
                    yield self.engine.observe(session, event)
                else:
                    self.engine.learn(session, event)
                    yield None

    def learn(self, event: LabelEvent) -> bool:
        with self._env.begin(write=True) as txn:
            return self.engine.learn(self._session(txn), event)

    def seen(self, transaction_id: str) -> bool:
        """Whether the transaction has been observed or loaded."""
        with self._env.begin() as txn:
            return txn.get(token(transaction_id), db=self.tables["seen"]) is not None

    def meta(self, name: str) -> str | None:
        with self._env.begin() as txn:
            data = txn.get(name.encode(), db=self.tables["meta"])
        return None if data is None else bytes(data).decode()

    def begin(self) -> lmdb.Transaction:
        """A write transaction over the tables, for bulk loads."""
        return cast(lmdb.Transaction, self._env.begin(write=True))

    def flush(self) -> None:
        """Force what was written to the disk."""
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()

    def __enter__(self) -> LmdbStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _session(self, transaction: lmdb.Transaction) -> LmdbSession:
        return LmdbSession(transaction, self.tables, self.codecs, self.engine)

    def _claim(self) -> None:
        wanted = {"format": FORMAT, "contract": self.contract.hash.encode()}
        with self._env.begin(write=True) as txn:
            for name, value in wanted.items():
                found = txn.get(name.encode(), db=self.tables["meta"])
                if found is None:
                    txn.put(name.encode(), value, db=self.tables["meta"])
                elif bytes(found) != value:
                    raise StoreError(
                        f"online store {self.path}: its {name} is {bytes(found).decode()[:12]}, wanted is "
                        f"{value.decode()[:12]}; rebuild it from the warehouse (asset features/online_store)"
                    )
