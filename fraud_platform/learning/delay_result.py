"""The frozen result of the delay bake-off, which explains itself.

Belongs here: its values, sentences and table records. Does not belong here: how it came about
(`delay_bakeoff`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fraud_platform.evaluate import Fold, Interval
from fraud_platform.evaluate.folds import Role
from fraud_platform.train import Part

ROLES: tuple[Role, ...] = ("validation", "test")


@dataclass(frozen=True)
class Contender:
    """A way to learn over the as-ofs of a role. Costs are major units per 1,000 transactions.

    teaching_rows, teaching_frauds: means over the as-ofs, frauds by their weight. average_precision: mean
    over the as-ofs, its gain over the reference; theft_average_precision: friendly frauds left out.
    expected_frauds: how many the calibrated probabilities add up to. saved: what it saves against the
    reference.
    """

    name: str
    teaching_rows: int
    teaching_frauds: int
    average_precision: float
    average_precision_gain: Interval
    theft_average_precision: float
    expected_frauds: float
    cost: Interval
    saved: Interval


@dataclass(frozen=True)
class Versus:
    """What `name` saves against `other` on the later as-ofs, per 1,000 transactions."""

    name: str
    other: str
    saved: Interval

    @property
    def verdict(self) -> str:
        if self.saved.low > 0:
            return "costs less"
        return "costs more" if self.saved.high < 0 else "cannot be told apart"


@dataclass(frozen=True)
class Way:
    """A way to decide the later rows: what it costs per 1,000 transactions, how much less the model under the
    policy costs, the share of frauds approved and of good transactions that are stepped up or declined."""

    name: str
    cost: Interval
    model_saves: Interval
    missed: float
    stopped_good: float


@dataclass(frozen=True)
class DelayBakeoff:
    """reference: waiting for the dataset's own window. rows, frauds (true ones), contenders: by role.
    best_window, best_correction, best: chosen by cost on the earlier as-ofs. versus, ways: on the later
    ones."""

    reference: str
    folds: tuple[Fold, ...]
    rows: Mapping[Role, int]
    frauds: Mapping[Role, int]
    contenders: Mapping[Role, tuple[Contender, ...]]
    best_window: str
    best_correction: str
    best: str
    versus: tuple[Versus, ...]
    ways: tuple[Way, ...]
    seconds: float

    def explain(self) -> tuple[str, ...]:
        """Sentences for people."""
        spans = {role: [fold.split.test for fold in self.folds if fold.role == role] for role in ROLES}
        lines = [
            f"{role}: {len(parts)} as-ofs, {self.rows[role]:,} rows with {self.frauds[role]:,} true frauds, "
            f"{Part(parts[0].start_ms, parts[-1].end_ms)}"
            for role, parts in spans.items()
        ]
        lines.append(
            f"chosen by cost on the earlier as-ofs: window {self.best_window}, "
            f"correction {self.best_correction}, of all {self.best}"
        )
        lines += [
            f"later: {one.name} saves {one.saved.short()} per 1,000 transactions against {one.other}: "
            f"{one.verdict}"
            for one in self.versus
        ]
        return tuple(lines)

    def table(self) -> list[dict[str, Any]]:
        """One record a role and contender."""
        return [_record(role, one) for role in ROLES for one in self.contenders[role]]

    def ways_table(self) -> list[dict[str, Any]]:
        """One record a way to decide the later rows."""
        return [
            {
                "way": one.name,
                **one.cost.columns("cost"),
                **one.model_saves.columns("model_saves"),
                "frauds_approved": one.missed,
                "good_stopped": one.stopped_good,
            }
            for one in self.ways
        ]


def _record(role: Role, one: Contender) -> dict[str, Any]:
    return {
        "as_ofs": "earlier" if role == "validation" else "later",
        "contender": one.name,
        "teaching_rows": one.teaching_rows,
        "teaching_frauds": one.teaching_frauds,
        "average_precision": one.average_precision,
        **one.average_precision_gain.columns("average_precision_gain"),
        "theft_average_precision": one.theft_average_precision,
        "expected_frauds": one.expected_frauds,
        **one.cost.columns("cost"),
        **one.saved.columns("saved"),
    }
