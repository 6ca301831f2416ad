"""How long a fraud takes to become known: the distribution of the delay, from what is known at a moment.

Belongs here: the estimate for one group of frauds. Does not belong here: groups and tables (`label_delay`),
what teaching makes of it (`delayed`).

A fraud is seen only where its delay fits into the time that has passed since: the sample is truncated on the
right, and young frauds show only their short delays. The share of delays up to u is therefore the product,
over all longer delays v, of 1 - (frauds whose delay is v) / (frauds whose delay is at most v and that are at
least as old as v): Lynden-Bell, "A method of allowing for known observational selection in small samples
applied to 3CR quasars", 1971; Woodroofe, "Estimating a distribution function with truncated data", 1985.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_platform.errors import LabelError, TooFewReportsError
from fraud_platform.schema import MILLISECONDS_PER_DAY

AT_RISK_MIN = 30
"""The horizon is the longest delay that still so many frauds could have shown, seen or not."""
RESAMPLES = 200
LEVEL = 0.95
POINTS_MAX = 400
"""Delays at which the curve is kept."""


@dataclass(frozen=True)
class DelayCurve:
    """The share of frauds that are known after a delay, of all that are known by the horizon.

    delay_ms: (m,), rising; share, low, high, naive: (m,) at these delays. low and high: the band at LEVEL,
    point by point. naive: the histogram of the delays seen, which takes the young frauds' short delays for
    all there will be. horizon_ms: how far can be seen (AT_RISK_MIN), at least the longest of these delays.
    frauds: known ones that the estimate rests on; beyond: known ones of a longer delay than the horizon.
    Nothing is said of what becomes known after the horizon, or never.
    """

    delay_ms: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    naive: np.ndarray
    horizon_ms: int
    frauds: int
    beyond: int

    @property
    def horizon_days(self) -> float:
        return self.horizon_ms / MILLISECONDS_PER_DAY

    def known(self, age_ms: np.ndarray | int) -> np.ndarray:
        """Share known at these ages, of the ages' shape: 0 before the shortest delay, 1 from the horizon
        on."""
        return _step(self.delay_ms, self.share, age_ms)

    def band(self, age_ms: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the band at these ages."""
        return _step(self.delay_ms, self.low, age_ms), _step(self.delay_ms, self.high, age_ms)

    def known_naive(self, age_ms: np.ndarray | int) -> np.ndarray:
        return _step(self.delay_ms, self.naive, age_ms)

    def told(self, age_ms: int) -> tuple[float, float, float, float] | None:
        """Share known at this age, the band's ends, and what the histogram says; None beyond the horizon."""
        if age_ms > self.horizon_ms:
            return None
        low, high = self.band(age_ms)
        return float(self.known(age_ms)), float(low), float(high), float(self.known_naive(age_ms))

    def quantile_days(self, share: float) -> float:
        """After how many days this share is known. LabelError where it is no share."""
        if not 0.0 < share <= 1.0:
            raise LabelError(f"share {share}: must be above 0 and at most 1")
        place = np.searchsorted(self.share, min(share, float(self.share[-1])))
        return float(self.delay_ms[place]) / MILLISECONDS_PER_DAY


def estimate_delay(
    delay_ms: np.ndarray,
    elapsed_ms: np.ndarray,
    block: np.ndarray | None = None,
    seed: int = 7,
    resamples: int = RESAMPLES,
) -> DelayCurve:
    """The curve of known frauds, from each one's delay and the time since its transaction, both (n,).

    block: what is drawn as a whole for the band, (n,); a card's frauds are reported together. Each resample
    weighs every block by a Poisson(1) number. LabelError when a delay is longer than the time elapsed, or
    when too few frauds could have shown any delay.
    """
    delay, elapsed = np.asarray(delay_ms, dtype=np.int64), np.asarray(elapsed_ms, dtype=np.int64)
    _refuse_impossible(delay, elapsed)
    horizon = _horizon(delay, elapsed)
    inside = delay <= horizon
    delay = delay[inside]
    steps = _Steps.of(delay, elapsed[inside])
    points = _points(steps.delay)
    share = steps.shares(np.ones(len(delay)))
    members = np.arange(len(delay)) if block is None else _members(np.asarray(block)[inside])
    low, high = _band(steps, members, points, seed, resamples)
    return DelayCurve(
        delay_ms=steps.delay[points],
        share=share[points],
        low=np.minimum(low, share[points]),
        high=np.maximum(high, share[points]),
        naive=np.searchsorted(np.sort(delay), steps.delay[points], side="right") / len(delay),
        horizon_ms=horizon,
        frauds=len(delay),
        beyond=int((~inside).sum()),
    )


@dataclass(frozen=True)
class _Steps:
    """delay: the different delays (m,), rising; place: of each fraud its delay's (n,); leaves: (n,) the
    number of delays that a fraud is old enough for."""

    delay: np.ndarray
    place: np.ndarray
    leaves: np.ndarray

    @classmethod
    def of(cls, delay: np.ndarray, elapsed: np.ndarray) -> _Steps:
        different, place = np.unique(delay, return_inverse=True)
        return cls(different, place, np.searchsorted(different, elapsed, side="right"))

    def shares(self, weight: np.ndarray) -> np.ndarray:
        """The product over longer delays, (m,), with the frauds weighed by `weight` (n,)."""
        m = len(self.delay)
        events = np.bincount(self.place, weights=weight, minlength=m)
        left = np.bincount(self.leaves, weights=weight, minlength=m + 1)
        entered = np.cumsum(events)
        at_risk = entered - np.cumsum(left)[:m]
        shorter = entered - events
        # Where all at risk have just this delay, the product would be 0 however many are known to be shorter.
        held = np.where(shorter > 0, at_risk / (at_risk + 1.0), 1.0)
        hazard = np.divide(events, at_risk, out=np.zeros(m), where=at_risk > 0)
        stays = 1.0 - np.minimum(hazard, held)
        longer = np.append(np.cumprod(stays[::-1])[::-1], 1.0)
        return longer[1:]


def _horizon(delay: np.ndarray, elapsed: np.ndarray) -> int:
    """The longest age (ms) that AT_RISK_MIN frauds with a delay up to it have reached."""
    ages = np.sort(elapsed)
    upto = np.searchsorted(np.sort(delay), ages, side="right")
    at_risk = upto - np.searchsorted(ages, ages, side="left")
    enough = np.flatnonzero(at_risk >= AT_RISK_MIN)
    if not len(enough):
        most = int(at_risk.max(initial=0))
        raise TooFewReportsError(
            f"{len(delay)} known frauds, of which at most {most} are old enough for the same delay; at least "
            f"{AT_RISK_MIN} are needed to tell how long a fraud takes to become known: give more history"
        )
    return int(ages[enough[-1]])


def _points(delay: np.ndarray) -> np.ndarray:
    """Places of at most POINTS_MAX delays, the last among them."""
    if len(delay) <= POINTS_MAX:
        return np.arange(len(delay))
    return np.unique(np.linspace(0, len(delay) - 1, POINTS_MAX).round().astype(np.int64))


def _members(block: np.ndarray) -> np.ndarray:
    return np.unique(block.astype(str), return_inverse=True)[1]


def _band(
    steps: _Steps, member: np.ndarray, points: np.ndarray, seed: int, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    blocks = int(member.max()) + 1
    drawn = np.stack(
        [
            steps.shares(generator.poisson(1.0, blocks).astype(np.float64)[member])[points]
            for _ in range(resamples)
        ]
    )
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    return low, high


def _step(delay_ms: np.ndarray, values: np.ndarray, age_ms: np.ndarray | int) -> np.ndarray:
    place = np.searchsorted(delay_ms, age_ms, side="right")
    return np.concatenate(([0.0], values))[place]


def _refuse_impossible(delay: np.ndarray, elapsed: np.ndarray) -> None:
    if delay.shape != elapsed.shape or delay.ndim != 1:
        raise LabelError(f"{delay.shape} delays for {elapsed.shape} elapsed times; give one for each")
    wrong = np.flatnonzero((delay < 0) | (delay > elapsed))
    if len(wrong):
        first = wrong[0]
        raise LabelError(
            f"a delay of {delay[first]} ms where {elapsed[first]} ms have passed: a delay is from 0 to "
            "the time elapsed; count only what was known at that moment"
        )
