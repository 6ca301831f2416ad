"""What the decider works with, as it uses it: the adapters fit.

Belongs here: protocols. Does not belong here: what is done with them (`decider`, `catch_up`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fraud_platform.exploration import Venture
from fraud_platform.schema import Action, LabelEvent, Transaction
from fraud_platform.serve.capacity import Wish
from fraud_platform.serve.judge import Vector
from fraud_platform.serve.record import DecisionRecord, LabelRecord


class Observation(Protocol):
    @property
    def vector(self) -> Vector: ...

    @property
    def is_late(self) -> bool: ...


class Store(Protocol):
    """The feature store as the decider uses it; `features.engine.FeatureStore` fits."""

    @property
    def sequence(self) -> int | None:
        """The number of the store's last change by this process; None where the store numbers none."""

    def observe(self, transaction: Transaction) -> Observation: ...

    def seen(self, transaction_id: str) -> bool: ...

    def learn(self, event: LabelEvent) -> bool:
        """Whether it changed a feature."""


class Journal(Protocol):
    """Records of decisions and label events. What appends returns when the record survives the process."""

    def append(self, record: DecisionRecord) -> None: ...

    def append_observed(self, record: DecisionRecord) -> None:
        """Notes the `store_sequence` of a transaction that was observed after it had been decided."""

    def find(self, transaction_id: str) -> DecisionRecord | None: ...

    def append_label(self, record: LabelRecord, *, is_counted: bool = False) -> bool: ...


class Spill(Protocol):
    """Records that the journal could not take yet. Safe for several threads."""

    def put(self, record: DecisionRecord) -> bool:
        """False where the record could not be kept."""

    def find(self, transaction_id: str) -> DecisionRecord | None: ...

    def discard(self, transaction_id: str) -> None: ...

    def waiting(self) -> Sequence[DecisionRecord]: ...


class Capacities(Protocol):
    """What the hours have used of scarce actions; safe for several threads."""

    def closed(self, now_ms: int, wish: Wish) -> tuple[Action, ...]: ...


class Ventures(Protocol):
    """What the days have explored."""

    def chance(self, now_ms: int, asked: Venture) -> float: ...
