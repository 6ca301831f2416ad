"""Evaluations as PNG images, for the asset's page and the run's artifacts."""

from __future__ import annotations

import io
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fraud_platform.evaluate import Evaluation

SIZE_INCHES, DOTS_PER_INCH = (6.4, 4.4), 110
COLORS = {
    "candidate": "#0b6e4f",
    "champion": "#d1495b",
    "logistic": "#30638e",
    "rules": "#edae49",
    "approve_all": "#8d99ae",
}


def evaluation_plots(evaluation: Evaluation) -> dict[str, bytes]:
    """PNG bytes by file name; the same evaluation gives the same bytes."""
    return {
        "precision_recall.png": _image(_precision_recall, evaluation),
        "cost.png": _image(_cost, evaluation),
        "calibration.png": _image(_calibration, evaluation),
    }


def _image(draw: Callable[[Axes, Evaluation], None], evaluation: Evaluation) -> bytes:
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    draw(axes, evaluation)
    axes.legend(frameon=False, fontsize=8)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _precision_recall(axes: Axes, evaluation: Evaluation) -> None:
    for name, points in evaluation.curves.precision_recall.items():
        average = evaluation.qualities[name].average_precision
        axes.plot(*zip(*points, strict=True), color=COLORS[name], label=f"{name} (AP {average:.3f})")
    axes.set(
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1),
        ylim=(0, 1.02),
        title=f"{evaluation.frauds:,} frauds in {evaluation.rows:,} mature rows",
    )


def _cost(axes: Axes, evaluation: Evaluation) -> None:
    thresholds, costs = zip(*evaluation.curves.threshold_cost, strict=True)
    axes.plot(thresholds, costs, color="#555555", label="candidate, one threshold for all amounts")
    for name, cost in evaluation.costs.items():
        style = "-" if name == "candidate" else "--"
        axes.axhline(cost.total, color=COLORS[name], linestyle=style, label=f"{name} ({cost.total:,.0f})")
    axes.set(
        xscale="log",
        xlabel="decline at this probability and above",
        ylabel="cost (major units)",
        title="Cost of what is answered, live rules joined",
        ylim=(0, 1.3 * max(cost.total for cost in evaluation.costs.values()) or 1.0),
    )


def _calibration(axes: Axes, evaluation: Evaluation) -> None:
    bins = [b for b in evaluation.curves.calibration if b.mean_probability > 0]
    floor = min([b.mean_probability for b in bins] + [b.fraud_rate for b in bins if b.fraud_rate > 0]) / 2
    axes.plot([floor, 1], [floor, 1], color="#999999", linestyle=":", label="honest")
    axes.plot(
        [b.mean_probability for b in bins],
        [max(b.fraud_rate, floor) for b in bins],
        marker="o",
        color=COLORS["candidate"],
        label=f"candidate (expected error {evaluation.quality.calibration_error:.4f})",
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="probability that was said",
        ylabel="frauds that came",
        title="Calibration, bins of equally much expected fraud",
    )
