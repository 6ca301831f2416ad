"""Payments as columns of codes, before anything has a name.

Belongs here: the columnar value that the parts of the world hand to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from fraud_platform.simulate.draws import Bools, Ints

NOBODY = -1
"""No device, no address, no campaign."""


@dataclass(frozen=True)
class Rows:
    """Columns (n,) of integer codes; time_ms counts from the world's start; campaign is -1 when honest."""

    time_ms: Ints
    customer: Ints
    card: Ints
    device: Ints
    ip: Ints
    merchant: Ints
    amount_minor: Ints
    campaign: Ints

    def __len__(self) -> int:
        return self.time_ms.size

    def take(self, index: Ints | Bools) -> Rows:
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def of_campaign(self, campaign: int) -> Rows:
        return replace(self, campaign=np.full(len(self), campaign, dtype=np.int64))


def joined(parts: Sequence[Rows]) -> Rows:
    """One after the other, in the order given."""
    return Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)))
