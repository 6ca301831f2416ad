"""What the HTTP interface says beyond decisions and problems: answers to batches, labels and probes.

Belongs here: the form of these answers, which the OpenAPI document is made of too.
Does not belong here: requests (`schema`, `serve.requests`), decisions (`serve.record`), problems
(`http_problems`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from fraud_platform.adapters.http_problems import Problem
from fraud_platform.schema import Outcome
from fraud_platform.serve.record import Decision


class BatchItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one transaction of a batch: its decision, or why there is none."""

    decision: Decision | msgspec.UnsetType = msgspec.UNSET
    problem: Problem | msgspec.UnsetType = msgspec.UNSET


class BatchAnswer(msgspec.Struct, frozen=True):
    """One item for each transaction that was sent, in its place."""

    results: list[BatchItem]


class LabelTaken(msgspec.Struct, frozen=True):
    """A label event as it was taken in. is_transaction_known: whether this service decided the transaction;
    an event on another one is kept as well, and counts where the warehouse knows its transaction."""

    transaction_id: str
    source: str
    outcome: Outcome
    known_at: int
    is_transaction_known: bool


class LabelItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one label event of a batch."""

    label: LabelTaken | msgspec.UnsetType = msgspec.UNSET
    problem: Problem | msgspec.UnsetType = msgspec.UNSET


class LabelBatchAnswer(msgspec.Struct, frozen=True):
    """One item for each label event that was sent, in its place."""

    results: list[LabelItem]


class BundleTaken(msgspec.Struct, frozen=True):
    """bundle_id: of the bundle that holds here, and that every worker takes within seconds; serving: of the
    one that decides at this moment."""

    bundle_id: str
    serving: str


class Alive(msgspec.Struct, frozen=True):
    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct, frozen=True):
    """bundle_id: of the bundle that decides."""

    bundle_id: str
    status: Literal["ready"] = "ready"
