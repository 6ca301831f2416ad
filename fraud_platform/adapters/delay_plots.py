"""The label delay as PNG images, for the asset's page."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fraud_platform.adapters.plots import DOTS_PER_INCH, SIZE_INCHES
from fraud_platform.learning.delay import LEVEL, DelayCurve
from fraud_platform.learning.label_delay import DelayGroup, LabelDelay
from fraud_platform.schema import MILLISECONDS_PER_DAY

ALL_COLOR, NAIVE_COLOR, WINDOW_COLOR = "#0b6e4f", "#d1495b", "#8d99ae"
GROUP_COLORS = ("#30638e", "#edae49", "#7b4b94", "#d1495b", "#0b6e4f", "#555555", "#66a182", "#a44a3f")


def delay_plots(found: LabelDelay) -> dict[str, bytes]:
    """PNG bytes by dimension, all frauds first; the same delay gives the same bytes."""
    dimensions = dict.fromkeys(group.dimension for group in found.groups[1:])
    plots = {found.groups[0].dimension: _image(found, ())}
    for dimension in dimensions:
        plots[dimension] = _image(found, [g for g in found.groups if g.dimension == dimension])
    return plots


def _image(found: LabelDelay, groups: Sequence[DelayGroup]) -> bytes:
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    if groups:
        for color, group in zip(GROUP_COLORS, groups, strict=False):
            _draw(axes, group.curve, color, f"{group.value} ({group.curve.frauds:,})")
    else:
        _draw(axes, found.all, ALL_COLOR, f"all ({found.all.frauds:,} frauds)")
        _band(axes, found.all)
        days = _days(found.all)
        axes.step(
            days, _padded(found.all.naive), where="post", color=NAIVE_COLOR, linestyle="--", label="histogram"
        )
    axes.axvline(found.maturity_days, color=WINDOW_COLOR, linestyle=":", label="maturity window")
    axes.set(
        xlabel="days after the transaction",
        ylabel="share known, of those known by the horizon",
        ylim=(0, 1.02),
        title=f"First fraud report, by {groups[0].dimension}" if groups else "First fraud report",
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _draw(axes: Axes, curve: DelayCurve, color: str, label: str) -> None:
    axes.step(_days(curve), _padded(curve.share), where="post", color=color, label=label)


def _band(axes: Axes, curve: DelayCurve) -> None:
    axes.fill_between(
        _days(curve),
        _padded(curve.low),
        _padded(curve.high),
        step="post",
        color=ALL_COLOR,
        alpha=0.2,
        label=f"{LEVEL:.0%} band",
    )


def _days(curve: DelayCurve) -> np.ndarray:
    return np.concatenate(([0.0], curve.delay_ms / MILLISECONDS_PER_DAY))


def _padded(share: np.ndarray) -> np.ndarray:
    return np.concatenate(([0.0], share))
