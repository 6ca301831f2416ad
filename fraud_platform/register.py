"""register: from an evaluation to a verdict on promotion, with its reasons.

Belongs here: the rules of promotion, the verdict, the record of an approval.
Does not belong here: metrics (`evaluate`), the registry itself (`adapters.mlflow`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from fraud_platform.errors import GateError
from fraud_platform.evaluate import Evaluation

TEXT_MAX = 500
"""Longest name or reason of an approval."""


@dataclass(frozen=True)
class PromotionRules:
    """What evidence a promotion takes.

    `saved_low_min`: the interval's low end of what is saved against each contender must be above this
    (major units). `calibration_error_max`: expected error of the probability as a share of the rate of fraud;
    a model that never expects a fraud has 1. `segment_frauds_min`: a slice with at least this many frauds may
    not cost more than with the champion for certain.
    """

    frauds_min: int = 30
    segment_frauds_min: int = 30
    saved_low_min: float = 0.0
    calibration_error_max: float = 0.75


@dataclass(frozen=True)
class Check:
    """One rule of promotion and what came of it."""

    name: str
    is_passed: bool
    reason: str


COMPARABLE = "comparable_with_champion"
"""The check that fails where the champion could not be scored any more."""


@dataclass(frozen=True)
class Promotion:
    """The verdict on a candidate; it is allowed when every check passed."""

    fingerprint: str
    champion_fingerprint: str | None
    checks: tuple[Check, ...]

    @property
    def is_allowed(self) -> bool:
        return all(check.is_passed for check in self.checks)

    @property
    def is_uncompared(self) -> bool:
        """Nothing but the comparison with the champion is missing, which nobody can make: a person may let
        the candidate ship without it, and has to say why."""
        return [check.name for check in self.checks if not check.is_passed] == [COMPARABLE]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not, or, when it is allowed, why."""
        failed = tuple(check.reason for check in self.checks if not check.is_passed)
        return failed or tuple(check.reason for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "is_allowed": self.is_allowed}


@dataclass(frozen=True)
class Approval:
    """Who let which version decide, why and when (ms UTC). `replaced`: the champion before, if any;
    `uncompared`: why it may replace a champion that it could not be compared with, empty where it was."""

    version: str
    fingerprint: str
    by: str
    reason: str
    at_ms: int
    replaced: str | None
    uncompared: str = ""

    def to_json_line(self) -> str:
        return json.dumps(asdict(self), sort_keys=True) + "\n"


def gate(
    evaluation: Evaluation,
    champion_fingerprint: str | None = None,
    rules: PromotionRules | None = None,
) -> Promotion:
    """May this candidate replace the champion (None: there is none yet)?

    A first model must cost less than approving all, than the rules and than logistic regression; a later one
    also less than the champion, on the same rows, each model as it would ship: joined with the live rules.
    "Less" holds for the low end of the interval. And no segment with enough frauds may cost more than with
    the champion, where the whole interval says so. A champion that could not be scored, since the contract
    lost features that it reads, is never passed over: see `Promotion.is_uncompared`.
    """
    checks = tuple(_checks(evaluation, champion_fingerprint, rules or PromotionRules()))
    return Promotion(evaluation.fingerprint, champion_fingerprint, checks)


def checked_approval(
    version: str,
    fingerprint: str,
    by: str,
    reason: str,
    at_ms: int,
    replaced: str | None,
    uncompared: str = "",
) -> Approval:
    """An approval that names a person and a reason; GateError otherwise."""
    texts = {"by": by, "reason": reason} | ({"uncompared": uncompared} if uncompared else {})
    for field, value in texts.items():
        if not value.strip() or len(value) > TEXT_MAX or not value.isprintable():
            raise GateError(
                f"approval of version {version}: {field} {value!r} must be 1 to {TEXT_MAX} printable "
                "characters"
            )
    return Approval(version, fingerprint, by.strip(), reason.strip(), at_ms, replaced, uncompared.strip())


def evidence_of(evaluation: Evaluation, promotion: Promotion) -> tuple[bytes, str]:
    """What a version is registered with, as JSON, and its SHA-256."""
    content = {"evaluation": evaluation.to_dict(), "promotion": promotion.to_dict()}
    encoded = json.dumps(content, indent=2, sort_keys=True).encode()
    return encoded, hashlib.sha256(encoded).hexdigest()


def _checks(evaluation: Evaluation, champion: str | None, rules: PromotionRules) -> Iterator[Check]:
    frauds = evaluation.frauds
    yield Check(
        "enough_frauds",
        frauds >= rules.frauds_min,
        f"judged on {frauds} frauds in {evaluation.rows} mature rows; at least {rules.frauds_min} are needed",
    )
    error, rate = evaluation.quality.calibration_error, frauds / evaluation.rows
    yield Check(
        "calibrated",
        error <= rules.calibration_error_max * rate,
        f"expected calibration error {error:.5f} where {rate:.5f} of the rows are frauds; at most "
        f"{rules.calibration_error_max:g} of that is allowed",
    )
    yield _saves(evaluation, "approve_all", rules)
    yield _saves(evaluation, "rules", rules)
    yield _saves(evaluation, "logistic", rules)
    gone = evaluation.uncompared
    if champion is not None and gone is not None and gone.fingerprint == champion:
        yield Check(
            COMPARABLE,
            False,
            f"{gone}; `approve --without-comparison WHY` may ship the candidate all the same",
        )
    elif champion is not None:
        yield _beats_champion(evaluation, champion, rules)
        if evaluation.champion_fingerprint == champion:
            yield _no_worse_segment(evaluation, rules)


def _saves(evaluation: Evaluation, other: str, rules: PromotionRules) -> Check:
    saving = evaluation.savings[other]
    return Check(
        f"saves_against_{other}",
        saving.low > rules.saved_low_min,
        f"saves {saving} against {other}; the low end must be above {rules.saved_low_min:g}",
    )


def _beats_champion(evaluation: Evaluation, champion: str, rules: PromotionRules) -> Check:
    name = "saves_against_champion"
    if evaluation.fingerprint == champion:
        return Check(name, False, f"candidate {champion[:12]} is the champion already")
    if evaluation.champion_fingerprint != champion:
        judged = (evaluation.champion_fingerprint or "no champion")[:12]
        return Check(name, False, f"judged against {judged}; the champion is {champion[:12]}: evaluate again")
    return _saves(evaluation, "champion", rules)


def _no_worse_segment(evaluation: Evaluation, rules: PromotionRules) -> Check:
    """Only slices that were compared with the champion, and hold enough frauds, have a say."""
    name, least = "no_worse_segment", rules.segment_frauds_min
    compared = [(one, one.difference) for one in evaluation.segments if one.against == "champion"]
    if not compared:
        return Check(name, False, "no segment was compared with the champion: evaluate again")
    told = [(one, saved) for one, saved in compared if saved is not None and one.frauds >= least]
    worse = [(one, saved) for one, saved in told if saved.high < 0.0]
    if worse:
        listed = "; ".join(f"{one.dimension} {one.value} saves {saved}" for one, saved in worse)
        return Check(name, False, f"worse than the champion for certain: {listed}")
    return Check(
        name,
        True,
        f"none of {len(told)} segments with {least} frauds or more is worse than the champion for certain",
    )
