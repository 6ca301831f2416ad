"""A request under way, which its own work and its deadline may both want to decide."""

from __future__ import annotations

from threading import Lock

from fraud_platform.schema import Transaction
from fraud_platform.serve.judge import Judge, Vector
from fraud_platform.serve.record import DecisionRecord


class Case:
    """The first record that settles it is the decision, whoever made it.

    judge: of the bundle that decides it; now_ms: when it came, UTC; started_ns, deadline_ns: of the steady
    clock; vector: once the store has answered; is_recorded: the record survives the process; is_spilled: it
    was put where it waits for the log.
    """

    __slots__ = (
        "_lock",
        "deadline_ns",
        "faults",
        "is_late",
        "is_recorded",
        "is_spilled",
        "judge",
        "now_ms",
        "observed_us",
        "record",
        "started_ns",
        "store_sequence",
        "transaction",
        "vector",
    )

    def __init__(
        self,
        transaction: Transaction,
        judge: Judge,
        now_ms: int,
        started_ns: int,
        deadline_ns: int,
        faults: set[str],
    ) -> None:
        self.transaction = transaction
        self.judge = judge
        self.now_ms = now_ms
        self.started_ns = started_ns
        self.deadline_ns = deadline_ns
        self.faults = faults
        self.vector: Vector | None = None
        self.store_sequence: int | None = None
        self.is_late = False
        self.observed_us = 0
        self.record: DecisionRecord | None = None
        self.is_recorded = False
        self.is_spilled = False
        self._lock = Lock()

    def settle(self, record: DecisionRecord) -> DecisionRecord:
        """The decision: this record, or the one that was first."""
        with self._lock:
            if self.record is None:
                self.record = record
            return self.record
