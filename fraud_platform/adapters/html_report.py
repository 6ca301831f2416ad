"""An evaluation as one HTML file that needs nothing else: no network, no other file, no server.

Belongs here: how an evaluation is shown. Does not belong here: numbers (`evaluate`), images (`plots`).
Every text goes through `escape`; what the explorer shows is computed here, its script only looks it up.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from fraud_platform.adapters.html_report_page import SCRIPT, STYLE
from fraud_platform.evaluate import Choice, Evaluation, choices, interval_cells
from fraud_platform.evaluate.evaluation import Segment
from fraud_platform.register import Promotion

REPORT_FILE = "report.html"
EXPLORED = (
    ("step up at", "step_up"),
    ("decline at", "decline"),
    ("recall", "recall"),
    ("precision", "precision"),
    ("false positives", "false_positive_rate"),
    ("approved", "approved"),
    ("stepped up", "stepped_up"),
    ("declined", "declined"),
    ("cost", "cost"),
)
"""What the explorer shows of a choice: its words, and the field of `Choice`."""
_THRESHOLDS = ("step_up", "decline")


def html_report(
    evaluation: Evaluation, plots: Mapping[str, bytes], promotion: Promotion | None = None
) -> bytes:
    """The page in UTF-8; the same evaluation, plots (PNG bytes by file name) and verdict give the same bytes.

    promotion: the gate's verdict, where it was asked.
    """
    parts = [
        _section("Summary", _list(evaluation.explain())),
        _section("Verdict", _verdict(promotion)) if promotion else "",
        _section("Contenders", _contenders(evaluation)),
        _section("Money", _money(evaluation)),
        _section("Thresholds", _explorer(evaluation)) if evaluation.curves.bands else "",
        *(_section(_words(name), _image(png, _words(name))) for name, png in plots.items()),
        _section("Segments", _segments(evaluation.segments)),
        _section("Calibration", _calibration(evaluation)),
        _section("Features", _importance(evaluation)) if evaluation.importance else "",
    ]
    title = f"Evaluation of candidate {evaluation.fingerprint[:12]}"
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "".join(parts)
        + "</body>\n</html>\n"
    )
    return page.encode()


def explorer_data(evaluation: Evaluation) -> dict[str, object]:
    """What the page's explorer looks up: `grid[i][j - i]` are the texts of EXPLORED for the i-th step-up and
    the j-th decline threshold; `start` is the cheapest pair."""
    grid = choices(evaluation.curves.bands)
    cheapest = min(
        ((one.cost, i, i + j) for i, row in enumerate(grid) for j, one in enumerate(row)), default=(0.0, 0, 0)
    )
    return {"grid": [[_texts(one) for one in row] for row in grid], "start": list(cheapest[1:])}


def _texts(one: Choice) -> list[str]:
    return [_text(name, getattr(one, name)) for _, name in EXPLORED]


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "none"
    if name in _THRESHOLDS:
        return "never" if value > 1.0 else f"{value:.4f}"
    return f"{value:,.0f}" if name == "cost" else f"{value:.3%}"


def _explorer(evaluation: Evaluation) -> str:
    last = len(evaluation.curves.bands) - 1
    sliders = "".join(
        f'<label>{escape(words)} <input type="range" id="{name}" min="0" max="{last}" step="1"></label>'
        for words, name in EXPLORED[:2]
    )
    cells = "".join(
        f'<tr><th>{escape(words)}</th><td id="explored-{place}"></td></tr>'
        for place, (words, _) in enumerate(EXPLORED)
    )
    # "<" never stands in the data, so that no text of it can end the script.
    data = json.dumps(explorer_data(evaluation), separators=(",", ":")).replace("<", "\\u003c")
    return (
        "<p>One pair of thresholds for all amounts, joined with the live rules, on the rows that judged the "
        "candidate. The policy itself weighs each amount, so it may cost less than any pair.</p>"
        f'{sliders}<table class="explored">{cells}</table>'
        f'<script type="application/json" id="explorer-data">{data}</script><script>{SCRIPT}</script>'
    )


def _contenders(evaluation: Evaluation) -> str:
    levels = [p for p, _ in evaluation.quality.recall_at_precision]
    head = (
        *("contender", "AP", "AUC", "card precision at 100", "Brier", "calibration error"),
        *(f"recall at precision {p:.2f}" for p in levels),
        *("false positives", "false declines", "conversion a session", "conversion of sessions"),
    )
    said = (
        "<p>AP to recall: the model's own. False positives to conversion: of what is answered with it and "
        "the live rules.</p>"
    )
    return said + _table(head, (_contender(evaluation, name, len(levels)) for name in evaluation.costs))


def _contender(evaluation: Evaluation, name: str, levels: int) -> tuple[str, ...]:
    quality, rates = evaluation.qualities.get(name), evaluation.rates.get(name)
    ranking: tuple[str, ...] = ("",) * (5 + levels)
    if quality is not None:
        ranking = (
            f"{quality.average_precision:.4f}",
            f"{quality.auc:.4f}",
            f"{quality.card_precision:.4f}",
            f"{quality.brier:.5f}",
            f"{quality.calibration_error:.5f}",
            *(f"{recall:.3f}" for _, recall in quality.recall_at_precision),
        )
    acting: tuple[str, ...] = ("",) * 4
    if rates is not None:
        acting = (
            f"{rates.false_positive_rate:.3%}",
            f"{rates.false_decline_rate:.3%}",
            f"{rates.conversion:.3f}",
            f"{rates.conversion_count:.3%}",
        )
    return (name, *ranking, *acting)


def _money(evaluation: Evaluation) -> str:
    head = (
        *("contender", "cost", "a transaction", "candidate saves", "low", "high"),
        *("approved", "stepped up", "declined", "frauds approved"),
    )
    rows = (
        (
            name,
            f"{cost.total:,.0f}",
            f"{cost.total / evaluation.rows:.4f}",
            *interval_cells(evaluation.savings.get(name)),
            *(f"{n:,}" for n in (cost.approved, cost.stepped_up, cost.declined, cost.frauds_approved)),
        )
        for name, cost in evaluation.costs.items()
    )
    alone = f"<p>{escape(str(evaluation.alone))}</p>" if evaluation.alone else ""
    return _table(head, rows) + alone + f"<p>{escape(evaluation.method)}</p>"


def _segments(segments: Sequence[Segment]) -> str:
    head = ("dimension", "value", "rows", "frauds", "mean probability", "cost", "saved", "against")
    rows = (
        (
            one.dimension,
            one.value,
            f"{one.rows:,}",
            f"{one.frauds:,}",
            f"{one.mean_probability:.5f}",
            f"{one.cost:,.0f}",
            f"{one.saved:,.0f}",
            one.against,
            *interval_cells(one.difference),
        )
        for one in segments
    )
    said = "<p>saved: against approving all; difference: against the contender named, with its interval.</p>"
    return said + _table((*head, "difference", "low", "high"), rows)


def _calibration(evaluation: Evaluation) -> str:
    rows = (
        (f"{one.rows:,}", f"{one.mean_probability:.5f}", f"{one.fraud_rate:.5f}")
        for one in evaluation.curves.calibration
    )
    return _table(("rows", "probability that was said", "frauds that came"), rows)


def _importance(evaluation: Evaluation) -> str:
    return _table(("feature", "share of gain"), ((n, f"{share:.2%}") for n, share in evaluation.importance))


def _verdict(promotion: Promotion) -> str:
    rows = ((one.name, "passed" if one.is_passed else "failed", one.reason) for one in promotion.checks)
    return _table(("check", "outcome", "reason"), rows)


def _words(file_name: str) -> str:
    return file_name.removesuffix(".png").replace("_", " ").capitalize() + " (plot)"


def _image(png: bytes, words: str) -> str:
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return f"<table><thead>{_row('th', head)}</thead><tbody>{''.join(_rows(rows))}</tbody></table>"


def _rows(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    return (_row("td", row) for row in rows)


def _row(cell: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in texts) + "</tr>"
