"""The model card: what a bundle's model is, what it was judged on, what it is for and what it is not for.

Belongs here: the text. Does not belong here: where it is kept (`package.bundle`), what measures (`run`).
Nothing in it tells when it was written: the same candidate and evaluation give the same bytes. It names the
candidate by its fingerprint; the bundle's own id is a hash over this text too, so it cannot stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fraud_platform.evaluate.evaluation import Evaluation
from fraud_platform.evaluate.money import interval_cells
from fraud_platform.ingest import Mapping as Dataset
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.train import Candidate

INTENDED = (
    "To price approve, step up and decline for one payment before it is authorised, together with the "
    "bundle's rules, policy and calibrator, on features of the bundle's contract.",
    "Not for decisions about a person beyond the payment at hand (credit, employment, insurance), and not "
    "for payments of another kind than those it was judged on.",
)
LIMITS = (
    "It was judged on rows whose labels were mature. Frauds that nobody reported count as legitimate.",
    "Payments that were declined have no outcome; where an earlier system declined, its choices are in the "
    "data.",
    "Money is that of the model with the policy and the live rules at the evaluation: with other prices or "
    "rules the figures and the best actions are others.",
    "Intervals say how far chance in which cards appear may carry; they do not foresee new kinds of fraud.",
)


def model_card(
    model: Candidate, evaluation: Evaluation, dataset: Dataset, versions: Mapping[str, str]
) -> str:
    """Markdown. versions: as in the bundle, such as model version and who approved it.

    ValueError when the evaluation is another model's.
    """
    if evaluation.fingerprint != model.fingerprint:
        raise ValueError(
            f"the evaluation is of {evaluation.fingerprint[:12]}, the model is {model.fingerprint[:12]}: "
            "give the model's own"
        )
    sections = (
        ("Intended use", _list(INTENDED)),
        ("Identity", _table(("what", "value"), _identity(model, versions))),
        ("Data", _data(model, evaluation, dataset)),
        ("Labels", _labels(model, dataset)),
        ("Excluded attributes", _excluded(dataset)),
        ("Metrics", _metrics(evaluation)),
        ("Money", _money(evaluation)),
        ("Segments", _segments(evaluation)),
        ("Limits", _list(LIMITS)),
    )
    body = "\n".join(f"## {title}\n\n{content}\n" for title, content in sections)
    return f"# Model card: {_plain(dataset.name)}, candidate {model.fingerprint[:12]}\n\n{body}"


def _identity(model: Candidate, versions: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    yield "candidate", model.fingerprint
    yield "feature contract", model.contract_hash
    yield "training data", model.data_digest
    yield "training code", model.code_version
    told = {"fingerprint", "data", "code"}
    yield from ((name, value) for name, value in sorted(versions.items()) if name not in told)


def _data(model: Candidate, evaluation: Evaluation, dataset: Dataset) -> str:
    log, split = model.log, model.split
    rows = (
        ("train", str(split.train), f"{log.train.rows:,}", f"{log.train.frauds:,}"),
        ("validation", str(split.validation), f"{log.validation.rows:,}", f"{log.validation.frauds:,}"),
        ("test", str(evaluation.test), f"{evaluation.rows:,}", f"{evaluation.frauds:,}"),
    )
    described = f"{_plain(dataset.description)}\n\n" if dataset.description else ""
    drawn = f"{log.teaching_rows:,} of the train rows taught, in {log.rounds} rounds."
    return (
        described
        + _table(("part", "window (UTC, end excluded)", "rows", "frauds"), rows)
        + f"\n\n{drawn} The model reads {len(model.contract.names)} features."
    )


def _labels(model: Candidate, dataset: Dataset) -> str:
    gap = model.split.gap_ms / MILLISECONDS_PER_DAY
    return _list(
        (
            f"A transaction is mature {dataset.maturity_days} days after it; only such stop, calibrate and "
            "judge.",
            f"Young rows that taught, corrected for what was not known of them: {_young(model)}.",
            f"Sources, strongest first: {', '.join(dataset.label_precedence)}; of one the latest word.",
            "Without a word by then a transaction counts as legitimate.",
            f"Between validation and test lie {gap:g} days: what taught was known before what judged.",
        )
    )


def _young(model: Candidate) -> str:
    young = model.log.young
    return "none" if young is None else young.explain()


def _excluded(dataset: Dataset) -> str:
    if not dataset.excluded:
        return "The dataset's mapping excludes no column; whatever it does not name is not read."
    return _table(("column of the source", "why it is no input"), sorted(dataset.excluded.items()))


def _metrics(evaluation: Evaluation) -> str:
    numbers = evaluation.metrics().items()
    kept = ((n, f"{v:.6g}") for n, v in numbers if not n.startswith(("cost_", "saved_against_", "test_")))
    return _table(("metric", "candidate"), kept)


def _money(evaluation: Evaluation) -> str:
    rows = (
        (name, f"{cost.total:,.0f}", *interval_cells(evaluation.savings.get(name)))
        for name, cost in evaluation.costs.items()
    )
    head = ("contender", "cost", "candidate saves", "low", "high")
    said = [str(one) for one in (evaluation.alone, evaluation.uncompared) if one]
    return "\n\n".join([_table(head, rows), *(f"{_plain(one)}." for one in (*said, evaluation.method))])


def _segments(evaluation: Evaluation) -> str:
    rows = (
        (s.dimension, s.value, f"{s.rows:,}", f"{s.frauds:,}", s.against, *interval_cells(s.difference))
        for s in evaluation.segments
    )
    return _table(("dimension", "value", "rows", "frauds", "against", "saves", "low", "high"), rows)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """One line that ends no cell and opens no tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
