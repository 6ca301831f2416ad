"""Candidate, champion and baselines on the same later, mature rows."""

import base64
import dataclasses
import json
import shutil
from pathlib import Path

import dagster as dg
import pandas as pd

from fraud_platform.adapters.candidates import read_candidate, read_folder, write_folder
from fraud_platform.adapters.duckdb_history import mature_frame
from fraud_platform.adapters.html_report import REPORT_FILE, html_report
from fraud_platform.adapters.plots import evaluation_plots
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.latest import latest_text
from fraud_platform.defs.platform import Platform
from fraud_platform.evaluate import Evaluation, Uncompared, evaluate
from fraud_platform.package import Reference
from fraud_platform.register import Promotion, gate
from fraud_platform.train import Candidate, columns_of


@dg.asset(
    key=["evaluate", "evaluation"],
    deps=[["train", "candidate"]],
    group_name="evaluate",
    kinds={"lightgbm", "scikitlearn"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def evaluation(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """Ranking, calibration and money with intervals, on rows that no contender has learned from.

    Money is that of what the service would answer with each model, joined with the live rules of today.
    """
    fingerprint = latest_text(context.instance, ["train", "candidate"], "fingerprint")
    challenger = read_candidate(platform.settings.candidates / fingerprint)
    champion, uncompared = comparable_champion(platform, challenger)
    part = challenger.split.test
    frame = mature_frame(platform.warehouse, part)
    judged = evaluate(
        challenger, frame, platform.policy, platform.rules_in_force, champion, report=context.log.info
    )
    judged = dataclasses.replace(judged, uncompared=uncompared, decision_hash=platform.decision_hash)
    folder = evaluation_folder(platform, fingerprint)
    plots = evaluation_plots(judged)
    files = {
        "evaluation.json": _json(judged),
        "reference.json": _reference(challenger, frame).to_json(),
        REPORT_FILE: html_report(judged, plots, promotion_of(platform, judged)),
        **plots,
    }
    is_unchanged = folder.is_dir() and read_folder(folder) == files
    if not is_unchanged:
        _replace(folder, files)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": judged.rows,
            "fingerprint": fingerprint,
            "unchanged": is_unchanged,
            "report": dg.MetadataValue.path(folder / REPORT_FILE),
            "segments": _segments(judged),
            "summary": dg.MetadataValue.md("\n".join(f"- {line}" for line in judged.explain())),
            **{name: dg.MetadataValue.float(value) for name, value in judged.metrics().items()},
            **{name.removesuffix(".png"): _image(image) for name, image in plots.items()},
        }
    )


def comparable_champion(
    platform: Platform, challenger: Candidate
) -> tuple[Candidate | None, Uncompared | None]:
    """The champion, unless it is the challenger itself, has learned from the rows that judge, or reads
    features that the challenger's contract lacks; and what is to be said of it in the last case.

    The gate refuses a challenger that was not compared with the champion, so nothing slips through here.
    """
    version = platform.registry.champion()
    if version is None or version.fingerprint == challenger.fingerprint:
        return None, None
    champion = platform.registry.candidate(version.version)
    gone = champion.contract.without(challenger.contract)
    if gone:
        return None, Uncompared(version.fingerprint, gone)
    return (champion if champion.learned_until_ms <= challenger.split.test.start_ms else None), None


def promotion_of(platform: Platform, judged: Evaluation) -> Promotion:
    """The gate's verdict against today's champion, who is no rival of himself."""
    champion = platform.registry.champion()
    rival = champion.fingerprint if champion and champion.fingerprint != judged.fingerprint else None
    return gate(judged, rival)


def evaluation_folder(platform: Platform, fingerprint: str) -> Path:
    return platform.settings.reports / "evaluate" / fingerprint


def read_evaluation(platform: Platform, fingerprint: str) -> Evaluation:
    path = evaluation_folder(platform, fingerprint) / "evaluation.json"
    return Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _json(judged: Evaluation) -> bytes:
    return json.dumps(judged.to_dict(), indent=2, sort_keys=True).encode()


def read_reference(platform: Platform, fingerprint: str) -> Reference:
    """What the rows that judged the model looked like: drift is measured against it."""
    return Reference.from_json((evaluation_folder(platform, fingerprint) / "reference.json").read_bytes())


def _reference(model: Candidate, frame: pd.DataFrame) -> Reference:
    columns = columns_of(frame, model.contract)
    return Reference.of(columns, model.probability(columns))


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(files, folder)


def report_files(platform: Platform, fingerprint: str) -> dict[str, bytes]:
    """The page and the plots of an evaluation, by file name."""
    return {
        path.name: path.read_bytes()
        for path in sorted(evaluation_folder(platform, fingerprint).iterdir())
        if path.suffix in (".html", ".png")
    }


def _segments(judged: Evaluation) -> dg.TableMetadataValue:
    """What the candidate saves by slice, with intervals."""
    records = [
        dg.TableRecord(
            {
                "dimension": one.dimension,
                "value": one.value,
                "rows": one.rows,
                "frauds": one.frauds,
                "cost": one.cost,
                "against": one.against,
                "saves": one.difference.estimate if one.difference else None,
                "low": one.difference.low if one.difference else None,
                "high": one.difference.high if one.difference else None,
            }
        )
        for one in judged.segments
    ]
    texts, counts = ("dimension", "value", "against"), ("rows", "frauds")
    columns = [
        dg.TableColumn(name, "string" if name in texts else "int" if name in counts else "float")
        for name in ("dimension", "value", "rows", "frauds", "cost", "against", "saves", "low", "high")
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def _image(png: bytes) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
