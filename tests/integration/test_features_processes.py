"""features: several processes at once on one store, each kind: every id counts once, nothing is lost."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from fraud_platform.schema import LabelEvent, Transaction
from tests.attackers import START, Answer, Event, answer, digest, event_at, probes, processes, write_these
from tests.oracle import DAY, HOUR, Oracle
from tests.stores import StoreAddress, Stores, every_store
from tests.worlds import CONTRACT, report

PROCESSES, EVENTS, LABEL_EACH = 3, 600, 7
STEP = HOUR // 20
"""The timeline is less than LATENESS_MS long: whichever process is ahead, nothing is too late to be exact."""


def write_at_once(address: StoreAddress, shares: list[list[Event]]) -> list[tuple[Event, Answer]]:
    """A process for each share, all at the same time; every event with its answer."""
    context = processes()
    together = context.Barrier(len(shares))
    pipes = [context.Pipe(duplex=False) for _ in shares]
    workers = [
        context.Process(
            target=write_these, args=(address, CONTRACT.to_json().decode(), share, together, sending)
        )
        for share, (_, sending) in zip(shares, pipes, strict=True)
    ]
    for worker, (_, sending) in zip(workers, pipes, strict=True):
        worker.start()
        sending.close()
    # A writer that dies closes its pipe: EOFError here, and no waiting.
    answers = [receiving.recv() for receiving, _ in pipes]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    return [
        pair for share, told in zip(shares, answers, strict=True) for pair in zip(share, told, strict=True)
    ]


def sent_twice() -> list[list[Event]]:
    """Each transaction goes to two processes at about the same time; some are reported by both. What would
    lie before the timeline stands at its beginning."""
    events = [event_at(number, STEP) for number in range(EVENTS)]
    transactions = {
        event.transaction_id: msgspec.structs.replace(event, event_time=max(event.event_time, START))
        for event in events
        if isinstance(event, Transaction)
    }
    shares: list[list[Event]] = [[] for _ in range(PROCESSES)]
    for number, event in enumerate(transactions.values()):
        for process in (number % PROCESSES, (number + 1) % PROCESSES):
            shares[process].append(event)
            if number % LABEL_EACH == 0:
                shares[process].append(report(event.transaction_id, event.event_time + HOUR))
    return shares


@every_store
def test_processes_that_send_the_same_events_count_each_once(kind: str, stores: Stores) -> None:
    shares = sent_twice()
    events = {e.transaction_id: e for share in shares for e in share if isinstance(e, Transaction)}.values()
    labels = {e.transaction_id: e for share in shares for e in share if isinstance(e, LabelEvent)}.values()
    with stores.empty(kind) as address:
        answers: dict[tuple[type[Event], str], list[Answer]] = defaultdict(list)
        for event, told in write_at_once(address, shares):
            answers[type(event), event.transaction_id].append(told)
        for event in events:
            assert sorted(is_repeat for _, is_repeat in answers[type(event), event.transaction_id]) == [
                False,
                True,
            ], event
            assert len({vector for vector, _ in answers[type(event), event.transaction_id]}) == 1, event
        for label in labels:
            assert sorted(is_counted for _, is_counted in answers[type(label), label.transaction_id]) == [
                False,
                True,
            ], label
        oracle = Oracle(CONTRACT)
        for event in events:
            oracle.arrive(event)
        for label in labels:
            oracle.learn(label)
        store = address.open(CONTRACT)
        for probe in probes(START + EVENTS * STEP + DAY):
            assert answer(store, probe) == (digest(oracle.vector(probe)), False)
        for event in events:
            assert answer(store, event) == (answers[type(event), event.transaction_id][0][0], True)
        store.close()
