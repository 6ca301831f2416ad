"""What runs in processes of their own: writers that share a store, and writers that are killed.

Belongs here: the endless timeline that such a writer and its judge both know, and the writers. Does not
belong here: what is demanded (tests/integration). Imports little, so that a process starts fast.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import FeatureStore
from fraud_platform.schema import LabelEvent, Transaction
from tests.oracle import DAY, HOUR, Vector, bits
from tests.stores import StoreAddress

START = 1_790_000_000_000
FILE_EVENTS = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}
"""What Python audits of a change of files, before it is made."""
Event = Transaction | LabelEvent
Answer = tuple[bytes, bool]
"""The digest of a vector and whether it was a repeat; of a label event its bytes and whether it counted."""


def event_at(number: int, step: int = 2 * HOUR) -> Event:
    """The numbered event of an endless timeline: ties, late ones, repeats, reports; one card is hot.

    step: ms from one to the next, so that windows fill and logs are trimmed as the numbers grow.
    """
    random = Random(number)
    moment = START + number // 2 * step
    if number and random.random() < 0.1:
        return LabelEvent(
            transaction_id=f"t{max(0, number - random.choice([1, 2, 10, 60]))}",
            source="chargeback",
            outcome="fraud",
            known_at=moment - random.choice([0, 1, HOUR]),
        )
    if random.random() < 0.05:
        number = max(0, number - random.choice([1, 2, 40]))
    return Transaction(
        transaction_id=f"t{number}",
        event_time=moment - random.choice([0] * 9 + [1, HOUR, DAY]),
        card_id=random.choice(["hot", "hot", "hot", "a", "b"]),
        merchant_id=random.choice("mno"),
        customer_id=random.choice(["u", "v", None]),
        device_id=random.choice(["d", "e", None]),
        ip_id=random.choice(["i", "j", None]),
        amount_minor=number,
        currency="EUR",
        merchant_country=random.choice(["DE", "FR", None]),
        latitude=random.choice([None, 10.0, 20.0]),
        longitude=5.0,
    )


def probes(moment: int) -> Iterator[Transaction]:
    """Transactions that between them ask every key of the timeline, all at one moment: none sees another."""
    for number, (card, merchant) in enumerate((c, m) for c in ("hot", "a", "b") for m in "mno"):
        yield Transaction(
            transaction_id=f"probe{number}",
            event_time=moment,
            card_id=card,
            merchant_id=merchant,
            customer_id="uv"[number % 2],
            device_id="de"[number // 2 % 2],
            ip_id="ij"[number % 2],
            amount_minor=1,
            currency="EUR",
            latitude=1.0,
            longitude=2.0,
        )


def digest(vector: Vector) -> bytes:
    return hashlib.sha256(repr(bits(vector)).encode()).digest()


def answer(store: FeatureStore, event: Event) -> Answer:
    if isinstance(event, LabelEvent):
        return b"label", store.learn(event)
    found = store.observe(event)
    return digest(found.vector), found.is_repeat


def write_until_killed(address: StoreAddress, contract: str, start: int, acknowledged: Connection) -> None:
    """Events from `start` on, for ever; each is acknowledged after the store has answered."""
    store = address.open(FeatureContract.from_json(contract.encode()))
    for number in count(start):
        acknowledged.send((number, *answer(store, event_at(number))))


def write_these(
    address: StoreAddress, contract: str, events: Sequence[Event], together: Any, told: Connection
) -> None:
    """The events in this order, once all the writers are there; then every answer."""
    store = address.open(FeatureContract.from_json(contract.encode()))
    together.wait(60)
    answers = [answer(store, event) for event in events]
    store.close()
    told.send(answers)


def load_until_killed(warehouse: str, contract: str, path: str, step: int) -> None:
    """Bulk loads a store at `path`, killed before the step-th change of files or message of progress."""
    from fraud_platform.adapters.duckdb import Warehouse
    from fraud_platform.adapters.lmdb_load import load_store

    steps = count(1)

    def maybe_die(*_: object) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda event, _: maybe_die() if event in FILE_EVENTS else None)
    load_store(
        Warehouse(Path(warehouse), threads=1),
        FeatureContract.from_json(contract.encode()),
        Path(path),
        progress=maybe_die,
    )


def processes() -> Any:
    """A context whose processes start fast: forked from one that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.attackers", "fraud_platform.adapters.lmdb_load"])
    return context
