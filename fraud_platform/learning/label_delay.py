"""The label delay of a dataset as known at a moment: by source, by segment, and what it leaves unseen.

Belongs here: groups of frauds and their curves, as a table and as sentences. Does not belong here: the
estimate (`delay`), reading reports (`adapters`), drawing (`adapters.plots`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from fraud_platform.errors import LabelError
from fraud_platform.evaluate import amount_major
from fraud_platform.learning.delay import DelayCurve, estimate_delay
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train.split import date_of

WINDOWS_DAYS = (1, 3, 7, 14, 21, 30, 45, 60, 90)
QUANTILES = (0.5, 0.9, 0.95)
SUFFIXES = ("", "_low", "_high", "_naive")
"""A column for each number of DelayCurve.told."""
DIMENSIONS = ("channel", "category", "card_country")
AMOUNT_BANDS = (0.0, 50.0, 200.0, np.inf)
ALL = "all"
GROUP_FRAUDS_MIN = 100
GROUPS_PER_DIMENSION = 8
KNOWN_SHARE_MIN = 0.05
"""Younger frauds than those of which this share is known say too little of how many there are."""


@dataclass(frozen=True)
class DelayGroup:
    """The frauds of one value: from the transaction to its first fraud report (of that source)."""

    dimension: str
    value: str
    curve: DelayCurve


@dataclass(frozen=True)
class LabelDelay:
    """groups: all frauds first, then by source and by segment. left_out: dimension, value and known frauds of
    groups too small to tell. elapsed_days: the age of the oldest known fraud. young_known, young_expected:
    frauds younger than the maturity window, known and estimated (None where too little is known of them).
    impossible: reports dated before their transaction, which are left out."""

    as_of_ms: int
    maturity_days: int
    groups: tuple[DelayGroup, ...]
    left_out: tuple[tuple[str, str, int], ...]
    elapsed_days: float
    young_known: int
    young_expected: float | None
    impossible: int

    @property
    def all(self) -> DelayCurve:
        return self.groups[0].curve

    def known_at_maturity(self) -> tuple[float, float, float, float] | None:
        """Share known after the maturity window, the band's ends, and what the histogram says. None where the
        window is longer than the horizon."""
        return self.all.told(self.maturity_days * MILLISECONDS_PER_DAY)

    def explain(self) -> tuple[str, ...]:
        """Sentences for people."""
        curve = self.all
        waits = ", ".join(f"{share:.0%} after {curve.quantile_days(share):.1f}" for share in QUANTILES)
        lines = [
            f"{curve.frauds + curve.beyond:,} frauds are known as of {date_of(self.as_of_ms)}",
            f"of those known within {curve.horizon_days:.0f} days, days until known: {waits}",
            self._explain_maturity(),
            f"beyond {curve.horizon_days:.0f} days nothing can be seen: too few frauds are that old "
            f"(the oldest {self.elapsed_days:.0f} days); what is reported later, or never, is in no figure",
        ]
        if self.young_expected is not None:
            lines.append(
                f"of the frauds younger than the window {self.young_known:,} are known and about "
                f"{self.young_expected:,.0f} will be, by the horizon"
            )
        if self.impossible:
            lines.append(f"{self.impossible:,} reports are dated before their transaction: left out")
        if self.left_out:
            small = ", ".join(f"{d} {v} ({n})" for d, v, n in self.left_out)
            lines.append(f"too few known frauds for a curve of their own: {small}")
        return tuple(lines)

    def _explain_maturity(self) -> str:
        window, told = f"after the maturity window of {self.maturity_days} days", self.known_at_maturity()
        if told is None:
            return f"how many are known {window} cannot be told: the history is too short"
        share, low, high, naive = told
        return (
            f"{window} {share:.1%} ({low:.1%} to {high:.1%}) are known; the histogram of the delays seen so "
            f"far would say {naive:.1%}"
        )

    def table(self) -> list[dict[str, Any]]:
        """One record a group: how many, quantiles in days, and the share known after each window, with its
        band's ends and the histogram's word. None where a window is longer than the group's horizon."""
        return [_record(group) for group in self.groups]


def measure_label_delay(
    reports: pd.DataFrame,
    as_of_ms: int,
    maturity_days: int,
    report: Callable[[str], None] = lambda message: None,
) -> LabelDelay:
    """From the fraud reports known before `as_of_ms`.

    reports: one row for each transaction and source that called it fraud: transaction_id, source, known_at
    (the first such word, ms), event_time (ms), card_id, amount_minor, currency and, where known, DIMENSIONS.
    LabelError when there are too few.
    """
    is_possible = (reports["known_at"] >= reports["event_time"]).to_numpy(dtype=bool)
    by_source = reports.loc[is_possible]
    by_fraud = by_source.sort_values("known_at", kind="stable").drop_duplicates("transaction_id")
    if by_fraud.empty:
        raise LabelError(f"no fraud is known as of {date_of(as_of_ms)}: ingest labels first, or look later")
    report(f"{len(by_fraud):,} known frauds")
    groups = [DelayGroup(ALL, ALL, _curve(by_fraud, as_of_ms))]
    left_out = []
    for dimension, value, members in _groups(by_source, by_fraud):
        try:
            groups.append(DelayGroup(dimension, value, _curve(members, as_of_ms)))
        except LabelError:
            left_out.append((dimension, value, len(members)))
    age = as_of_ms - 1 - by_fraud["event_time"].to_numpy(dtype=np.int64)
    known, expected = _young(groups[0].curve, age, maturity_days)
    return LabelDelay(
        as_of_ms=as_of_ms,
        maturity_days=maturity_days,
        groups=tuple(groups),
        left_out=tuple(left_out),
        elapsed_days=float(age.max()) / MILLISECONDS_PER_DAY,
        young_known=known,
        young_expected=expected,
        impossible=int((~is_possible).sum()),
    )


def _curve(members: pd.DataFrame, as_of_ms: int) -> DelayCurve:
    if len(members) < GROUP_FRAUDS_MIN:
        raise LabelError(
            f"{len(members)} known frauds; at least {GROUP_FRAUDS_MIN} are needed to tell how long a "
            "fraud takes to become known: give more history"
        )
    event_time = members["event_time"].to_numpy(dtype=np.int64)
    delay = members["known_at"].to_numpy(dtype=np.int64) - event_time
    return estimate_delay(delay, as_of_ms - 1 - event_time, members["card_id"].to_numpy(dtype=object))


def _groups(by_source: pd.DataFrame, by_fraud: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Sources, then the largest values of each dimension."""
    yield from _largest("source", by_source["source"], by_source)
    for name in DIMENSIONS:
        if name in by_fraud and by_fraud[name].notna().any():
            yield from _largest(name, by_fraud[name].astype(object).fillna("unknown"), by_fraud)
    amount = amount_major(by_fraud["amount_minor"].to_numpy(), by_fraud["currency"].to_numpy())
    labels = np.array([f"{low:g} to {high:g}" for low, high in pairwise(AMOUNT_BANDS)])
    bands = labels[np.searchsorted(AMOUNT_BANDS, amount, side="right") - 1]
    yield from _largest("amount", pd.Series(bands, index=by_fraud.index), by_fraud)


def _largest(
    dimension: str, values: pd.Series, members: pd.DataFrame
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for value in values.value_counts().index[:GROUPS_PER_DIMENSION]:
        yield dimension, str(value), members.loc[(values == value).to_numpy(dtype=bool)]


def _young(curve: DelayCurve, age_ms: np.ndarray, maturity_days: int) -> tuple[int, float | None]:
    """Frauds younger than the window: known, and expected by the horizon.

    A known fraud stands for 1 / (share known at its age); those too young to stand for anything are replaced
    by the same rate over the whole window.
    """
    window = maturity_days * MILLISECONDS_PER_DAY
    young = age_ms[age_ms < window]
    share = curve.known(young)
    tells = share >= KNOWN_SHARE_MIN
    first = int(curve.delay_ms[np.searchsorted(curve.share, KNOWN_SHARE_MIN)])
    if not tells.any() or first >= window:
        return len(young), None
    expected = float((1.0 / share[tells]).sum()) * window / (window - first)
    return len(young), expected


def _record(group: DelayGroup) -> dict[str, Any]:
    curve = group.curve
    said: dict[str, Any] = {
        "dimension": group.dimension,
        "value": group.value,
        "frauds": curve.frauds,
        "horizon_days": curve.horizon_days,
    }
    said |= {f"days_{share:.0%}".replace("%", ""): curve.quantile_days(share) for share in QUANTILES}
    for days in WINDOWS_DAYS:
        values = curve.told(days * MILLISECONDS_PER_DAY) or (None,) * 4
        said |= {f"known_{days}d{suffix}": value for suffix, value in zip(SUFFIXES, values, strict=True)}
    return said
