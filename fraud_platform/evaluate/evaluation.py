"""The frozen result of an evaluation, which explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fraud_platform.evaluate.explorer import Band
from fraud_platform.evaluate.metrics import CalibrationBin, Quality
from fraud_platform.evaluate.money import Cost, Interval
from fraud_platform.evaluate.rates import Rates
from fraud_platform.schema import ACTIONS
from fraud_platform.train import Part

NAMED_MAX = 5
"""Features that a sentence names."""


@dataclass(frozen=True)
class Alone:
    """The candidate without the rules: what its policy's actions cost.

    rules_save: what the live rules save beside it (major units), below 0 where they cost more than they save.
    """

    cost: Cost
    rules_save: Interval

    def __str__(self) -> str:
        return (
            f"the candidate alone, without the rules, would cost {self.cost.total:,.0f}: beside it they save "
            f"{self.rules_save}"
        )


@dataclass(frozen=True)
class Segment:
    """A slice of the rows; `saved` is against approving all, in major units.

    against: the contender that `difference` is paired with: the champion, or the rules where there is none;
    difference: what the candidate saves against it in this slice (major units). An evaluation of before
    these were measured has none.
    """

    dimension: str
    value: str
    rows: int
    frauds: int
    mean_probability: float
    cost: float
    saved: float
    against: str = ""
    difference: Interval | None = None


@dataclass(frozen=True)
class Curves:
    """Points for plots: by contender precision and recall, and cost by decline threshold.

    Precision and recall are the model's own ranking; costs are joined with the live rules. bands: the
    candidate's rows by probability, for any pair of thresholds (see `explorer`).
    """

    precision_recall: dict[str, tuple[tuple[float, float], ...]]
    threshold_cost: tuple[tuple[float, float], ...]
    calibration: tuple[CalibrationBin, ...]
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True)
class Uncompared:
    """A champion that could not be scored on these rows. features: those that it reads and that the
    candidate's contract has no longer, or has of another meaning."""

    fingerprint: str
    features: tuple[str, ...]

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.features[:NAMED_MAX]))
        more = len(self.features) - NAMED_MAX
        others = f" and {more} more" if more > 0 else ""
        return (
            f"champion {self.fingerprint[:12]} reads {named}{others}, which the contract no longer has, or "
            "has of another meaning: it cannot be compared"
        )


@dataclass(frozen=True)
class Evaluation:
    """Candidate, champion and baselines on the same rows.

    `qualities` and `costs` are by contender: candidate, champion (where there is one), logistic, rules,
    approve_all, and so are `rates`. Qualities are the model's own; costs, rates, savings and segments are of
    what the service answers with that model: its policy's actions joined with the live rules; `rules` are the
    live rules alone, all else approved. `savings` say what the candidate saves against each of the others
    (major units). `alone`: the candidate without the rules. `importance`: features of the candidate by the
    share of its gain, largest first. `uncompared`: the champion of the day where it could not be a contender.
    `decision_hash`: of the prices, rules and lists by which all were priced. A file of before these were
    known is read without them.
    """

    fingerprint: str
    champion_fingerprint: str | None
    test: Part
    rows: int
    frauds: int
    cards: int
    qualities: dict[str, Quality]
    costs: dict[str, Cost]
    savings: dict[str, Interval]
    segments: tuple[Segment, ...]
    curves: Curves
    method: str
    rates: dict[str, Rates] = field(default_factory=dict)
    importance: tuple[tuple[str, float], ...] = ()
    alone: Alone | None = None
    uncompared: Uncompared | None = None
    decision_hash: str = ""

    @property
    def quality(self) -> Quality:
        """The candidate's."""
        return self.qualities["candidate"]

    def metrics(self) -> dict[str, float]:
        """Flat numbers of the candidate, by names that carry their unit, for a tracker."""
        quality = self.quality
        numbers = {
            "average_precision": quality.average_precision,
            "auc": quality.auc,
            "card_precision_at_100": quality.card_precision,
            "brier": quality.brier,
            "calibration_error": quality.calibration_error,
            "test_rows": float(self.rows),
            "test_frauds": float(self.frauds),
        }
        numbers |= {f"recall_at_precision_{p:.2f}": recall for p, recall in quality.recall_at_precision}
        numbers |= {f"cost_{name}": cost.total for name, cost in self.costs.items()}
        numbers |= {f"saved_against_{name}": saving.estimate for name, saving in self.savings.items()}
        if self.alone is not None:
            numbers["cost_candidate_alone"] = self.alone.cost.total
        if "candidate" in self.rates:
            numbers |= self.rates["candidate"].metrics()
        return numbers

    def explain(self) -> tuple[str, ...]:
        """Sentences for people."""
        quality = self.quality
        recalls = ", ".join(f"{recall:.3f} at {p:.2f}" for p, recall in quality.recall_at_precision)
        return (
            f"{self.rows:,} mature rows of {self.cards:,} cards, {self.test}, {self.frauds:,} frauds",
            f"AP {quality.average_precision:.4f}, AUC {quality.auc:.4f}, "
            f"card precision at 100 {quality.card_precision:.4f}",
            f"recall at precision: {recalls}",
            f"calibration: Brier {quality.brier:.5f}, expected error {quality.calibration_error:.5f}",
            *(f"costs {cost.total:,.0f}: {name}" for name, cost in self.costs.items()),
            *((str(self.alone),) if self.alone else ()),
            *(f"{name}: {rates}" for name, rates in self.rates.items()),
            *(f"saves {saving} against {name}" for name, saving in self.savings.items()),
            *([str(self.uncompared)] if self.uncompared else []),
            self.method,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Back from `to_dict`, also by way of JSON."""
        curves = content["curves"]
        lists = {name: tuple(map(tuple, points)) for name, points in curves["precision_recall"].items()}
        changed = {
            "test": Part(**content["test"]),
            "qualities": {name: _quality(q) for name, q in content["qualities"].items()},
            "costs": {name: Cost(**c) for name, c in content["costs"].items()},
            "savings": {name: Interval(**s) for name, s in content["savings"].items()},
            "segments": tuple(map(_segment, content["segments"])),
            "rates": {name: Rates(**r) for name, r in content.get("rates", {}).items()},
            "uncompared": _uncompared(content.get("uncompared")),
            "decision_hash": content.get("decision_hash", ""),
            "importance": tuple((name, share) for name, share in content.get("importance", ())),
            "alone": _alone(content.get("alone")),
            "curves": Curves(
                precision_recall=lists,
                threshold_cost=tuple(map(tuple, curves["threshold_cost"])),
                calibration=tuple(CalibrationBin(**b) for b in curves["calibration"]),
                bands=_bands(curves.get("bands", ())),
            ),
        }
        return cls(**{**content, **changed})


def _quality(content: Mapping[str, Any]) -> Quality:
    pairs = tuple((p, recall) for p, recall in content["recall_at_precision"])
    return Quality(**{**content, "recall_at_precision": pairs})


def _alone(content: Mapping[str, Any] | None) -> Alone | None:
    return Alone(Cost(**content["cost"]), Interval(**content["rules_save"])) if content else None


def _uncompared(content: Mapping[str, Any] | None) -> Uncompared | None:
    return None if content is None else Uncompared(content["fingerprint"], tuple(content["features"]))


def _bands(content: Sequence[Mapping[str, Any]]) -> tuple[Band, ...]:
    """None where they are of before the rules were joined: they knew a cost only."""
    if any(not isinstance(band["approve"], Mapping) for band in content):
        return ()
    return tuple(Band(**dict(band) | {name: Cost(**band[name]) for name in ACTIONS}) for band in content)


def _segment(content: Mapping[str, Any]) -> Segment:
    difference = content.get("difference")
    return Segment(**{**content, "difference": None if difference is None else Interval(**difference)})
