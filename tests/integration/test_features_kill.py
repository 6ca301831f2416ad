"""features: writers and loads that are killed (SIGKILL) at any moment leave all of an event, or nothing.

Ten kills of a writer here; `KILLS=200 python -m pytest tests/integration/test_features_kill.py` for more.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.adapters.lmdb import LmdbStore
from fraud_platform.adapters.lmdb_load import load_store
from fraud_platform.schema import LabelEvent, Transaction
from tests.attackers import (
    START,
    Answer,
    answer,
    event_at,
    load_until_killed,
    probes,
    processes,
    write_until_killed,
)
from tests.compiled_sql import CompiledSql
from tests.oracle import DAY, HOUR
from tests.stores import StoreAddress, Stores, every_store
from tests.worlds import CONTRACT

KILLS = int(os.environ.get("KILLS", "10"))
LIFE_SECONDS = 0.1
"""A writer lives so long at the most after its first event: dozens to hundreds of events."""
STEPS_MAX = 200
CONTRACT_TEXT = CONTRACT.to_json().decode()

Heard = list[tuple[int, Answer]]


def killed_writer(address: StoreAddress, start: int, life_seconds: float) -> Heard:
    """What a writer acknowledged before it was killed: numbers of events, and their answers."""
    context = processes()
    receiving, sending = context.Pipe(duplex=False)
    writer = context.Process(target=write_until_killed, args=(address, CONTRACT_TEXT, start, sending))
    writer.start()
    sending.close()
    messages = [receiving.recv()]
    time.sleep(life_seconds)
    writer.kill()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    while receiving.poll():
        try:
            messages.append(receiving.recv())
        except EOFError:
            break
    receiving.close()
    return [(number, (told, is_again)) for number, told, is_again in messages]


@every_store
def test_a_killed_writer_loses_nothing_and_leaves_nothing_half_written(kind: str, stores: Stores) -> None:
    """The reference is a store that nobody killed: it sees the same events in the same order."""
    random = Random(0)
    reached = 0
    with stores.empty(kind) as address, stores.empty("lmdb") as other:
        reference = other.open(CONTRACT)
        for _ in range(KILLS):
            heard = killed_writer(address, reached, random.random() * LIFE_SECONDS)
            assert [number for number, _ in heard] == list(range(reached, reached + len(heard)))
            for number, told in heard:
                assert told == answer(reference, event_at(number)), number
            store = address.open(CONTRACT)
            for number, (vector, _) in heard:
                event = event_at(number)
                wanted = (vector, True) if isinstance(event, Transaction) else (vector, False)
                assert answer(store, event) == wanted, number
            reached += len(heard)
            # Not acknowledged: all of it is there, which makes it a repeat now, or nothing is.
            event = event_at(reached)
            (found, is_again), (wanted_vector, was_again) = answer(store, event), answer(reference, event)
            assert found == wanted_vector, reached
            is_there = is_again if isinstance(event, Transaction) else not is_again
            was_there = was_again if isinstance(event, Transaction) else not was_again
            assert is_there >= was_there, reached
            reached += 1
            store.close()
        assert reached > 3 * KILLS
        store = address.open(CONTRACT)
        for probe in probes(START + reached * 2 * HOUR + DAY):
            assert answer(store, probe) == answer(reference, probe)
        store.close()
        reference.close()


@pytest.fixture
def warehouse(compiled: CompiledSql, tmp_path: Path) -> Warehouse:
    """The endless timeline's beginning, as ingest and dbt leave it."""
    events = [event_at(number) for number in range(400)]
    transactions = {event.transaction_id: event for event in events if isinstance(event, Transaction)}
    filled = compiled.in_file(tmp_path / "warehouse.duckdb")
    filled.fill(
        transactions.values(),
        [e for e in events if isinstance(e, LabelEvent) and e.transaction_id in transactions],
    )
    filled.connection.close()
    return Warehouse(tmp_path / "warehouse.duckdb", threads=1)


def state_of(path: Path) -> list[Answer]:
    """What the store answers on every key; it has seen the probes then."""
    with LmdbStore.open(path, CONTRACT) as store:
        return [answer(store, probe) for probe in probes(START + 60 * DAY)]


def test_a_killed_load_leaves_the_old_store_or_the_new_one(warehouse: Warehouse, tmp_path: Path) -> None:
    """Killed before each change of a file and at each message of progress, one after the other; the load
    after a killed one must be whole as well, as the next round sees."""
    path, watermark = tmp_path / "store", START + 10 * DAY
    load_store(warehouse, CONTRACT, path, watermark)
    old = state_of(path)
    load_store(warehouse, CONTRACT, path)
    new = state_of(path)
    assert old != new
    ends = []
    for step in range(1, STEPS_MAX):
        load_store(warehouse, CONTRACT, path, watermark)
        loader = processes().Process(
            target=load_until_killed, args=(str(warehouse.path), CONTRACT_TEXT, str(path), step)
        )
        loader.start()
        loader.join(120)
        ends.append(state_of(path))  # a store that is gone would open as an empty one
        assert ends[-1] in (old, new), f"killed at step {step}: half a store is left"
        if loader.exitcode == 0:
            break
        assert loader.exitcode == -signal.SIGKILL
    assert ends[0] == old
    assert ends[-1] == new
    assert len(ends) > 8
