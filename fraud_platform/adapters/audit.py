"""Checks all logs of a state folder at once, and hands out their heads as anchors.

Belongs here: which logs there are, and the sum. Does not belong here: how one is checked
(`decision_log_audit`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fraud_platform.adapters.audit_trail import AUDIT, Removal, read_events
from fraud_platform.adapters.decision_log_audit import Anchor, LogReport, check_log, heads_of
from fraud_platform.adapters.journal import DECISIONS, LOGS
from fraud_platform.adapters.sealed_records import key_of
from fraud_platform.errors import DecisionLogError, SettingsError

ALL_LOGS = (*LOGS, AUDIT)


@dataclass(frozen=True)
class StateReport:
    """Of every log of a state folder, by name."""

    logs: dict[str, LogReport]
    untold: tuple[str, ...] = ()

    @property
    def findings(self) -> list[str]:
        return [*self.untold, *(finding for report in self.logs.values() for finding in report.findings)]

    @property
    def is_whole(self) -> bool:
        return not self.findings

    @property
    def records(self) -> int:
        return sum(count for report in self.logs.values() for count in report.counts.values())

    @property
    def anchors(self) -> int:
        return sum(report.anchors for report in self.logs.values())

    def lines(self) -> list[str]:
        """What to say, the sum last."""
        said = list(self.findings)
        for log, report in self.logs.items():
            for worker, one in report.removed.items():
                said.append(f"{log}/{worker}: up to sequence {one.sequence} removed by {one.by}, at {one.at}")
            if report.behind:
                said.append(f"{log}: {report.behind} anchors lie in what was removed")
        chains = sum(len(report.counts) for report in self.logs.values())
        megabytes = sum(report.bytes for report in self.logs.values()) / 1e6
        verdict = "whole" if self.is_whole else f"{len(self.findings)} findings"
        return [
            *said,
            f"{chains} chains, {self.records:,} records up to their ends, {megabytes:,.1f} MB, "
            f"{self.anchors} anchors: {verdict}",
        ]


def check_state(state: Path, anchors: Iterable[Anchor] = ()) -> StateReport:
    """Every log, byte by byte. DecisionLogError where the folder is no service's."""
    if not (state / DECISIONS).is_dir():
        raise DecisionLogError(f"no decisions in {state}: give the state folder of a service")
    wanted = list(anchors)
    logs = {
        name: check_log(state / name, [one for one in wanted if one.log == name], key_of)
        for name in ALL_LOGS
        if (state / name).is_dir()
    }
    lost = sorted({one.log for one in wanted} - set(logs))
    untold = [f"log {state / name} is missing, an anchor knows it" for name in lost]
    if logs.get(AUDIT, LogReport()).is_whole:
        untold += _untold_removals(state, logs)
    return StateReport(logs, tuple(untold))


def heads(state: Path, at: int) -> list[Anchor]:
    """The present heads of all chains. at: when that is (ms UTC)."""
    return [anchor for name in ALL_LOGS for anchor in heads_of(state / name, name, at)]


def read_anchors(path: Path) -> list[Anchor]:
    """What `audit anchor` wrote. SettingsError where the file is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Anchor])
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(f"anchor {path}: {error}; give a file that `audit anchor --out` wrote") from error


def write_anchors(path: Path, anchors: list[Anchor]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(anchors), indent=1) + b"\n")


def _untold_removals(state: Path, logs: dict[str, LogReport]) -> list[str]:
    """Chains that say they were shortened where the audit trail does not."""
    told = {(e.log, e.worker, e.removed) for e in read_events(state) if isinstance(e, Removal)}
    return [
        f"{log}/{worker}: lines up to {one.sequence} are missing, and the audit trail tells of no removal"
        for log, report in logs.items()
        for worker, one in report.removed.items()
        if (log, worker, one) not in told
    ]
