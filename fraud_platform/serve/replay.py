"""A recorded decision, made again: the same bytes, or which part differs.

Belongs here: judging a record again and comparing, as pure functions; what a replay counts. Does not belong
here: reading logs, stores and bundles (`adapters.replay`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from fraud_platform.features.engine import Observation
from fraud_platform.serve.exploration import taken_again
from fraud_platform.serve.judge import Judge, Judgement
from fraud_platform.serve.record import DecisionRecord, Timings

PARTS: dict[str, tuple[str, ...]] = {
    "features": ("vector", "is_late"),
    "score": ("raw_score", "probability"),
    "action": (
        "action",
        "decided_by",
        "tier",
        "expected_costs",
        "closed_actions",
        "price",
        "propensity",
        "explored",
    ),
    "reasons": ("reasons", "rules", "shadow_rules"),
}
"""Part -> the fields of a record that belong to it."""
ERASED = "its person was erased"
NEAR_ERASED = "its features count events of a person who was erased"
REMOVED = "its features count events that retention has removed"
EXPECTED = (ERASED, NEAR_ERASED, REMOVED)
"""Why a part cannot be replayed although nothing is wrong."""
EXAMPLES_MAX = 10

_AT_NO_TIME = Timings(0, 0, 0)
_JUDGED = tuple(
    name
    for name in Judgement.__dataclass_fields__
    if name in DecisionRecord.__struct_fields__ and name != "faults"
)
"""What a judgement decides of a record. Faults are what was wrong then, and are not wrong now."""


class Replayed(NamedTuple):
    """differing: the parts whose bytes differ; again: the record as it comes out now."""

    again: DecisionRecord
    differing: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        return not self.differing


def replay(judge: Judge, record: DecisionRecord, observation: Observation | None) -> Replayed:
    """Judges a record again. observation: what a store of that moment answers, None where there is none; the
    recorded vector is judged then."""
    again = record
    if observation is not None:
        again = msgspec.structs.replace(record, vector=observation.vector, is_late=observation.is_late)
    judgement = judged_again(judge, again)
    again = msgspec.structs.replace(again, **{name: getattr(judgement, name) for name in _JUDGED})
    done = taken_again(judge.bundle.policy.exploration, record, judgement)
    again = msgspec.structs.replace(again, **done._asdict())
    return Replayed(again, differing_parts(record, again))


def judged_again(judge: Judge, record: DecisionRecord) -> Judgement:
    """By the rung of the ladder that answered then, under the capacity that there was."""
    if record.tier == "fixed":
        return judge.fixed_answer()
    can_score = record.raw_score is not None
    return judge.judge(record.request, record.vector, closed=record.closed_actions, can_score=can_score)


def differing_parts(record: DecisionRecord, again: DecisionRecord) -> tuple[str, ...]:
    """Compared as bytes; "rest" is what belongs to no part."""
    if canonical_record(record) == canonical_record(again):
        return ()
    parts = [part for part, names in PARTS.items() if _bytes(record, names) != _bytes(again, names)]
    return tuple(parts) or ("rest",)


def canonical_record(record: DecisionRecord) -> bytes:
    """The one JSON of a record, without what it took."""
    return msgspec.json.encode(msgspec.structs.replace(record, timings=_AT_NO_TIME), order="sorted")


@dataclass
class ReplayReport:
    """decisions: how many were asked for; compared: how many were judged again; differing: how many of them
    differ, and of which parts; equal_features: how many vectors were computed again and are equal.

    unreplayed, unobserved: decisions that were not judged again, or whose features were not computed again,
    by reason.
    """

    decisions: int = 0
    compared: int = 0
    differing: int = 0
    equal_features: int = 0
    by_part: Counter[str] = field(default_factory=Counter)
    unreplayed: Counter[str] = field(default_factory=Counter)
    unobserved: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Every decision came out as it was, but for what was erased or removed on purpose."""
        reasons = {*self.unreplayed, *self.unobserved}
        return self.decisions > 0 and not self.differing and reasons <= set(EXPECTED)

    def count(self, name: str, replayed: Replayed) -> None:
        self.compared += 1
        if not replayed.is_equal:
            self.differing += 1
            self.by_part.update(replayed.differing)
            self.example(f"{name}: {', '.join(replayed.differing)} differ")

    def example(self, said: str) -> None:
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(said)

    def lines(self) -> list[str]:
        """What to say, the sum last."""
        said = [f"{part}: {count:,} differ" for part, count in sorted(self.by_part.items())]
        said += [f"not replayed: {count:,}, {why}" for why, count in sorted(self.unreplayed.items())]
        said += [
            f"features not computed again: {count:,}, {why}" for why, count in sorted(self.unobserved.items())
        ]
        equal = self.compared - self.differing
        return [
            *said,
            f"{self.decisions:,} decisions: {self.compared:,} compared, {equal:,} equal to the byte, "
            f"{self.differing:,} differ; {self.equal_features:,} with their features computed again",
        ]


def _bytes(record: DecisionRecord, names: tuple[str, ...]) -> bytes:
    known = record.__struct_fields__
    values = {name: getattr(record, name) for name in names if name in known}
    return msgspec.json.encode({name: value for name, value in values.items() if value is not msgspec.UNSET})
