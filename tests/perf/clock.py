"""Times a store event by event, on the wall's clock and on the processor's.

Belongs here: clocks, and what keeps noise out of them. Does not belong here: which events, and what their
timings mean.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from fraud_platform.schema import Transaction

if TYPE_CHECKING:
    from fraud_platform.features.engine import FeatureStore
    from tests.perf.events import Event

YARDSTICK_EVERY = 50


@dataclass(frozen=True)
class Took:
    """Nanoseconds of each call: of transactions on the wall's clock and on the processor's, which stands
    still while another process has the core; of labels; and of the yardstick in between."""

    transactions: array[int]
    processor: array[int]
    labels: array[int]
    yardsticks: array[int]

    @classmethod
    def empty(cls) -> Took:
        return cls(array("q"), array("q"), array("q"), array("q"))

    @property
    def events(self) -> int:
        return len(self.transactions) + len(self.labels)

    @property
    def seconds(self) -> float:
        return (sum(self.transactions) + sum(self.labels)) / 1e9

    @property
    def processor_us(self) -> float:
        """Of a transaction, on average."""
        return sum(self.processor) / len(self.processor) / 1000

    def __add__(self, other: Took) -> Took:
        return Took(
            self.transactions + other.transactions,
            self.processor + other.processor,
            self.labels + other.labels,
            self.yardsticks + other.yardsticks,
        )


def timed(online: FeatureStore, events: Sequence[Event]) -> Took:
    """Each event in a transaction of its own; the yardstick is laid beside every 50th."""
    wall, processor, took = time.perf_counter_ns, time.thread_time_ns, Took.empty()
    for number, event in enumerate(events):
        if isinstance(event, Transaction):
            worked = processor()
            started = wall()
            online.observe(event)
            took.transactions.append(wall() - started)
            took.processor.append(processor() - worked)
        else:
            started = wall()
            online.learn(event)
            took.labels.append(wall() - started)
        if number % YARDSTICK_EVERY == 0:
            took.yardsticks.append(yardstick())
    return took


@contextmanager
def frozen_heap() -> Iterator[None]:
    """The garbage collector leaves alone what is there already, as in the service once it has started."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def yardstick() -> int:
    """Nanoseconds of a piece of work that never changes: how fast the machine is just now."""
    started = time.perf_counter_ns()
    for number in range(40):
        blake2b(b"%d" % number, digest_size=16).digest()
    return time.perf_counter_ns() - started
