"""How much of the fraud is known at a row's age, and the ways to teach with rows that are too young.

Belongs here: the share known by segment, which rows a contender teaches. Does not belong here: the curve
itself (`delay`), the weights that `train` uses (`train.young`), whether it pays (`delay_bakeoff`).

By expectation a reported fraud counts once; an unreported row teaches as fraud with weight
p (1 - F) / (1 - p F) and as legitimate with the rest: the expectation step of Chapelle, "Modeling delayed
feedback in display advertising", 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fraud_platform.learning.delay import DelayCurve, estimate_delay
from fraud_platform.learning.known import KnownLabels
from fraud_platform.train import YoungLabels
from fraud_platform.train.young import (
    KNOWN_SHARE_MIN,
    checked,
    importance_weights,
    legitimate_probability,
)

SEGMENT = "channel"
"""The column whose values get a delay of their own."""
SEGMENT_FRAUDS_MIN = 200
"""A segment of fewer known frauds takes the curve of all."""
DOUBTFUL = 0.005
"""An unreported row less likely a fraud than this teaches as legitimate alone."""


@dataclass(frozen=True)
class Taught:
    """row: places of the rows that teach, (m,), a row may be there twice; is_fraud, weight: (m,)."""

    row: np.ndarray
    is_fraud: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class DelayModel:
    """The share of frauds known at an age: of all, and of the segments that are large enough."""

    overall: DelayCurve
    segments: Mapping[str, DelayCurve] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, delay_ms: np.ndarray, elapsed_ms: np.ndarray, segment: np.ndarray | None = None
    ) -> DelayModel:
        """From known frauds, each (n,); segment: texts. LabelError when there are too few of them."""
        delay, elapsed = np.asarray(delay_ms), np.asarray(elapsed_ms)
        overall = estimate_delay(delay, elapsed, resamples=1)
        curves = {}
        names, counts = np.unique(segment, return_counts=True) if segment is not None else ((), ())
        for name in [n for n, count in zip(names, counts, strict=True) if count >= SEGMENT_FRAUDS_MIN]:
            inside = segment == name
            curves[str(name)] = estimate_delay(delay[inside], elapsed[inside], resamples=1)
        return cls(overall, curves)

    @classmethod
    def of_reports(
        cls, event_time: np.ndarray, age_ms: np.ndarray, reported_ms: np.ndarray, segment: np.ndarray
    ) -> DelayModel:
        """From rows, each (n,), and when they were first called fraud (ms UTC, -1 where they were not).

        A report dated before its transaction tells nothing and is left out.
        """
        place = np.flatnonzero(reported_ms >= event_time)
        return cls.fit(reported_ms[place] - event_time[place], age_ms[place], segment[place])

    def known(self, age_ms: np.ndarray, segment: np.ndarray | None = None) -> np.ndarray:
        """Share of the frauds of each row's segment and age that are known: (n,) from 0 to 1.

        A segment's curve ends at its horizon, where it takes up the curve of all: what a short history cannot
        show is not taken for known.
        """
        share = self.overall.known(age_ms)
        if segment is not None:
            for name, curve in self.segments.items():
                inside = np.flatnonzero((segment == name) & (age_ms < curve.horizon_ms))
                share[inside] = curve.known(age_ms[inside]) * self.overall.known(curve.horizon_ms)
        return share

    def known_beside(
        self, is_known_fraud: np.ndarray, age_ms: np.ndarray, segment: np.ndarray | None = None
    ) -> np.ndarray:
        """As `known`, but above 0 for every row reported: one reported sooner than any of its segment before
        takes the share of the youngest age that tells."""
        share = self.known(age_ms, segment)
        smallest = float(share[share > 0.0].min(initial=1.0))
        return np.where(is_known_fraud, np.maximum(share, smallest), share)


def segments_of(frame: pd.DataFrame) -> np.ndarray:
    """Each row's segment, texts (n,); "unknown" where it has none."""
    return frame[SEGMENT].astype(object).fillna("unknown").to_numpy().astype(str)


def young_labels(training_set: pd.DataFrame, labels: KnownLabels, as_of_ms: int) -> YoungLabels:
    """What was known before `as_of_ms` (ms UTC) of the rows of a training set, by the delay of each segment.

    training_set: event_time (ms) and SEGMENT; labels: of its rows, in their order. TooFewReportsError
    when too few frauds are known to tell how long they take.
    """
    moments = training_set["event_time"].to_numpy(dtype=np.int64)
    past = np.flatnonzero(moments < as_of_ms)
    age, segment = as_of_ms - 1 - moments[past], segments_of(training_set)[past]
    is_known_fraud = labels.is_fraud_at(as_of_ms)
    model = DelayModel.of_reports(moments[past], age, labels.first_report(as_of_ms)[past], segment)
    share = np.zeros(len(moments))
    share[past] = model.known_beside(is_known_fraud[past], age, segment)
    return YoungLabels(as_of_ms, is_known_fraud & (moments < as_of_ms), share)


def by_importance(is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray) -> Taught:
    """Rows old enough (KNOWN_SHARE_MIN), each once, with its importance."""
    fraud, share, p = checked(is_known_fraud, known_share, probability)
    row = np.flatnonzero(share >= KNOWN_SHARE_MIN)
    return Taught(row, fraud[row], importance_weights(fraud[row], share[row], p[row]))


def by_expectation(is_known_fraud: np.ndarray, known_share: np.ndarray, probability: np.ndarray) -> Taught:
    """Rows of every age with both outcomes where in doubt: reported frauds, then the doubtful as fraud, then
    all unreported as legitimate."""
    fraud, share, p = checked(is_known_fraud, known_share, probability)
    hidden = 1.0 - legitimate_probability(share, p)
    reported, unreported = np.flatnonzero(fraud), np.flatnonzero(~fraud)
    doubtful = np.flatnonzero(~fraud & (hidden >= DOUBTFUL))
    is_fraud = np.zeros(len(reported) + len(doubtful) + len(unreported), dtype=bool)
    is_fraud[: len(reported) + len(doubtful)] = True
    return Taught(
        row=np.concatenate([reported, doubtful, unreported]),
        is_fraud=is_fraud,
        weight=np.concatenate([np.ones(len(reported)), hidden[doubtful], 1.0 - hidden[unreported]]),
    )
