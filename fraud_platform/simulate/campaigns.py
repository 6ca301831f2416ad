"""Which campaigns there are, when each starts, and the rows that they add or taint.

Belongs here: the plan. Does not belong here: the deeds (crimes.py), or what becomes known of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.simulate import crimes, tactics
from fraud_platform.simulate.crimes import Scene
from fraud_platform.simulate.draws import Ints, stream
from fraud_platform.simulate.rows import Rows, joined
from fraud_platform.simulate.tactics import AFTER, BEFORE, KINDS, TACTICS, Tactic

Crime = Callable[[Scene, np.random.Generator, int, int, Tactic], Rows]
CRIMES: dict[str, Crime] = {
    tactics.CARD_TESTING: crimes.card_testing,
    tactics.STOLEN_CARD: crimes.stolen_cards,
    tactics.ACCOUNT_TAKEOVER: crimes.stolen_cards,
    tactics.COMPROMISED_MERCHANT: crimes.compromised_merchant,
    tactics.RING: crimes.ring,
}
_FIRST_DAY = 2
_ATTEMPTS_PER_ROW = 20


@dataclass(frozen=True)
class Plan:
    """One kind in one era: how many rows, and between which moments campaigns start."""

    kind: str
    era: int
    rows: float
    from_ms: int
    until_ms: int

    @property
    def tactic(self) -> Tactic:
        return TACTICS[self.kind][self.era]


def commit_fraud(scene: Scene) -> tuple[Rows, Ints]:
    """All rows, honest and fraudulent, and the kind (index into KINDS) of each campaign code."""
    parts: list[Rows] = []
    kinds: list[int] = []
    tainted = scene.honest.campaign.copy()
    for plan in _plans(scene):
        rng = stream(scene.spec.seed, f"{plan.kind}/{plan.era}")
        if plan.kind == tactics.FRIENDLY:
            _taint(scene, rng, plan, tainted, kinds)
        else:
            parts += _campaigns(scene, rng, plan, kinds)
    honest = replace(scene.honest, campaign=tainted)
    return joined([honest, *parts]), np.array(kinds, dtype=np.int64)


def _plans(scene: Scene) -> Iterator[Plan]:
    spec = scene.spec
    first = _FIRST_DAY * MILLISECONDS_PER_DAY
    for era, from_ms, until_ms in ((BEFORE, first, spec.change_ms), (AFTER, spec.change_ms, spec.span_ms)):
        budget = spec.transactions * spec.fraud_share * (until_ms - from_ms) / spec.span_ms
        for kind in KINDS:
            yield Plan(kind, era, budget * TACTICS[kind][era].share, min(from_ms, until_ms - 1), until_ms)


def _campaigns(scene: Scene, rng: np.random.Generator, plan: Plan, kinds: list[int]) -> Iterator[Rows]:
    """Campaigns until the plan's rows are reached; `kinds` grows by one for each."""
    done = 0
    for _ in range(round(plan.rows * _ATTEMPTS_PER_ROW) + 100):
        if done >= plan.rows:
            return
        start_ms = int(rng.integers(plan.from_ms, plan.until_ms))
        rows = CRIMES[plan.kind](scene, rng, start_ms, plan.era, plan.tactic)
        rows = rows.take(rows.time_ms < scene.spec.span_ms)
        if len(rows):
            yield rows.of_campaign(len(kinds))
            kinds.append(KINDS.index(plan.kind))
            done += len(rows)


def _taint(scene: Scene, rng: np.random.Generator, plan: Plan, campaign: Ints, kinds: list[int]) -> None:
    """Write campaign codes over honest rows that their buyer will deny."""
    done = 0
    for _ in range(round(plan.rows * _ATTEMPTS_PER_ROW) + 100):
        if done >= plan.rows:
            return
        start_ms = int(rng.integers(plan.from_ms, plan.until_ms))
        rows = crimes.friendly_rows(scene, rng, start_ms, plan.tactic)
        rows = rows[campaign[rows] < 0]
        if rows.size:
            campaign[rows] = len(kinds)
            kinds.append(KINDS.index(plan.kind))
            done += rows.size
