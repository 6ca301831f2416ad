"""Builds features with tails into a scratch warehouse and sets them beside the exact ones.

Belongs here: which rows are copied, the dbt run over the copy, reading both sides. Does not belong here: what
counts as wrong (features/tails.py), what it costs in ranking (evaluate/ranking.py). The exact tables are only
read; the scratch warehouse is gone at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from fraud_platform.adapters.candidates import read_candidate
from fraud_platform.adapters.dbt import DBT_PROJECT, dbt_executable, dbt_vars
from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.errors import SourceError
from fraud_platform.evaluate.ranking import RankingDifference, average_precision_difference
from fraud_platform.evaluate.run import SEED
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.tails import TAILS, TailErrors, tail_errors, tailed_names
from fraud_platform.ingest import Mapping
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.settings import Settings
from fraud_platform.train import Candidate, Part, columns_of
from fraud_platform.train.candidate import LOG_FILE

RECENT_MS = 30 * MILLISECONDS_PER_DAY
"""How much of the timeline is looked at where no candidate names its test rows."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TailFinding:
    """`ranking` is None where there is no candidate of this contract to score with."""

    errors: TailErrors
    ranking: RankingDifference | None

    def explain(self) -> tuple[str, ...]:
        worst = ", ".join(f"{name} {share:.1%}" for name, share in self.errors.worst)
        lines = [str(self.errors)]
        if worst:
            lines.append(f"  most often: {worst}")
        if self.ranking is not None:
            found, lost = self.ranking, self.ranking.difference
            lines.append(
                f"  AP {found.second:.4f} instead of {found.first:.4f}: {lost.estimate:+.4f} "
                f"({lost.level:.0%} interval {lost.low:+.4f} to {lost.high:+.4f}), "
                f"{found.frauds:,} frauds in {found.rows:,} rows"
            )
        return tuple(lines)


@dataclass(frozen=True)
class TailReport:
    """`rows`: which rows were looked at, in words."""

    rows: str
    findings: tuple[TailFinding, ...]

    def explain(self) -> tuple[str, ...]:
        return (f"tails, on {self.rows}:", *(line for one in self.findings for line in one.explain()))


def report_tails(
    settings: Settings,
    mapping: Mapping,
    contract: FeatureContract,
    candidate: Candidate | None,
    progress: Progress = lambda message: None,
    tails: dict[str, int] | None = None,
) -> TailReport:
    """What each tail (name to ms; default: those of other systems) gets wrong on the candidate's test rows.

    Without a candidate of this contract: on the last days of the timeline, and nothing is said of ranking.
    """
    wanted = TAILS if tails is None else tails
    warehouse = Warehouse(settings.warehouse)
    is_usable = candidate is not None and candidate.contract_hash == contract.hash
    scored = candidate if is_usable else None
    part = scored.split.test if scored else _recent(warehouse)
    exact = _exact(warehouse, contract, part, is_judged=scored is not None)
    findings = []
    with _copied(warehouse, contract, part, max(wanted.values(), default=0), progress) as copy:
        for name, tail_ms in wanted.items():
            progress(f"building features with a {name} tail")
            build_copy(settings, mapping, copy, tail_ms)
            tailed = _tailed(copy, contract, exact)
            findings.append(_finding(contract, name, exact, tailed, scored))
    return TailReport(_rows(part, len(exact), candidate, is_usable), tuple(findings))


def latest_candidate(folder: Path) -> Candidate | None:
    """The candidate that was trained last; None where there is none."""
    logs = sorted(folder.glob(f"[0-9a-f]*/{LOG_FILE}"), key=lambda path: path.stat().st_mtime_ns)
    return read_candidate(logs[-1].parent) if logs else None


def _rows(part: Part, count: int, candidate: Candidate | None, is_usable: bool) -> str:
    if candidate is None:
        return f"{count:,} transactions, {part} (no candidate yet, so nothing to score with)"
    said = candidate.fingerprint[:12]
    if not is_usable:
        return f"{count:,} transactions, {part} (the latest candidate {said} is of another contract)"
    return f"the {count:,} test rows of candidate {said}, {part}"


def _recent(warehouse: Warehouse) -> Part:
    found = warehouse.frame("select max(event_time) + 1 as upper from ingest.transactions")["upper"].iloc[0]
    if pd.isna(found):
        raise SourceError("tails: there are no transactions in the warehouse; run ingest first")
    return Part(int(found) - RECENT_MS, int(found))


def _exact(warehouse: Warehouse, contract: FeatureContract, part: Part, is_judged: bool) -> pd.DataFrame:
    """Mature rows with their truth where they are judged, otherwise every transaction's features."""
    table = "training.training_set" if is_judged else "features.transaction_features"
    truth = ", card_id, is_fraud" if is_judged else ""
    columns = ", ".join(f'"{name}"' for name in contract.names)
    return warehouse.frame(
        f"select transaction_id{truth}, {columns} from {table} "
        "where event_time >= ? and event_time < ? order by transaction_id",
        [part.start_ms, part.end_ms],
    )


def _tailed(copy: Warehouse, contract: FeatureContract, exact: pd.DataFrame) -> pd.DataFrame:
    """The values that a tail touches, of the same rows in the same order."""
    columns = ", ".join(f'"{name}"' for name in tailed_names(contract))
    rows = copy.frame(f"select transaction_id, {columns} from features.transaction_features")
    return rows.set_index("transaction_id").loc[exact["transaction_id"]]


def _finding(
    contract: FeatureContract,
    name: str,
    exact: pd.DataFrame,
    tailed: pd.DataFrame,
    candidate: Candidate | None,
) -> TailFinding:
    right = columns_of(exact, contract)
    wrong = right | {column: tailed[column].to_numpy() for column in tailed.columns}
    errors = tail_errors(contract, name, right, wrong)
    if candidate is None:
        return TailFinding(errors, None)
    scores = candidate.score(right), candidate.score(wrong)
    is_fraud, cards = exact["is_fraud"].to_numpy(), exact["card_id"].to_numpy()
    return TailFinding(errors, average_precision_difference(*scores, is_fraud, cards, SEED))


@contextmanager
def _copied(
    warehouse: Warehouse, contract: FeatureContract, part: Part, tail_ms: int, progress: Progress
) -> Iterator[Warehouse]:
    """A scratch warehouse with all that the windows of `part`'s rows can hold.

    Those are the transactions of the longest window and the tail before the part, and whatever older ones
    were reported as fraud since then.
    """
    longest = max((feature.reach_ms for feature in contract.features), default=0)
    lower = part.start_ms - longest - tail_ms
    progress(f"copying what the windows of {part} hold")
    with TemporaryDirectory(prefix="tails-") as folder:
        copy = Warehouse(Path(folder) / "tails.duckdb", warehouse.memory_limit, warehouse.threads)
        with warehouse.connect(read_only=True) as connection:
            connection.execute(f"attach '{copy.path}' as copy (read_write)")
            connection.execute("create schema copy.ingest")
            connection.execute("create table copy.ingest.labels as select * from ingest.labels")
            connection.execute(
                "create table copy.ingest.transactions as select * from ingest.transactions "
                "where event_time < $upper and (event_time >= $lower or transaction_id in "
                "(select transaction_id from ingest.labels where outcome = 'fraud' and known_at >= $lower))",
                {"lower": lower, "upper": part.end_ms},
            )
        yield copy


def build_copy(settings: Settings, mapping: Mapping, copy: Warehouse, tail_ms: int) -> None:
    """Build the features of a scratch warehouse. Raises SourceError with dbt's own words where it fails."""
    folder = copy.path.parent
    told = dbt_vars(settings, mapping) | {
        "warehouse": str(copy.path),
        "spill": str(folder / "spill"),
        "tail_ms": tail_ms,
    }
    command = [dbt_executable(), "--quiet", "run", "--select", "staging", "features", "--full-refresh"]
    command += ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)]
    command += ["--target-path", str(folder / "dbt"), "--log-path", str(folder / "dbt")]
    done = subprocess.run(
        [*command, "--vars", json.dumps(told)],
        capture_output=True,
        text=True,
        env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        check=False,
    )
    if done.returncode != 0:
        raise SourceError(
            f"{copy.path.stem}: dbt failed: {done.stdout.strip()[-2000:]} {done.stderr.strip()}"
        )
