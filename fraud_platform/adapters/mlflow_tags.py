"""What a registered version's tags say, and back: the only memory of gates and approvals within MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fraud_platform.register import Approval, Promotion

UNCOMPARED = "uncompared"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as its tags tell it; `champion_fingerprint`: what its gate compared it with;
    `is_uncompared`: or would have, and nothing else was missing."""

    version: str
    run_id: str
    fingerprint: str
    is_gate_passed: bool
    is_uncompared: bool
    gate_reasons: str
    evidence_sha256: str
    champion_fingerprint: str | None
    aliases: tuple[str, ...]
    approval: Approval | None


def gate_tags(promotion: Promotion, digest: str) -> dict[str, str]:
    """The verdict; `digest`: SHA-256 of the evidence."""
    return {
        "gate": "passed" if promotion.is_allowed else UNCOMPARED if promotion.is_uncompared else "failed",
        "gate_reasons": "; ".join(promotion.reasons),
        "gate_champion": promotion.champion_fingerprint or "",
        "evidence_sha256": digest,
    }


def approval_tags(approval: Approval) -> dict[str, str]:
    """In the order in which they are written: the last one tells that all are there."""
    return {
        "approved_by": approval.by,
        "approved_reason": approval.reason,
        "approved_uncompared": approval.uncompared,
        "approved_at_ms": str(approval.at_ms),
        "approved_replaced": approval.replaced or "",
    }


def version_of(found: Any, aliases: Mapping[str, str]) -> RegisteredVersion:
    """From MLflow's ModelVersion, and the model's aliases (alias to version)."""
    tags, version = found.tags, str(found.version)
    return RegisteredVersion(
        version=version,
        run_id=found.run_id,
        fingerprint=tags["fingerprint"],
        is_gate_passed=tags["gate"] == "passed",
        is_uncompared=tags["gate"] == UNCOMPARED,
        gate_reasons=tags["gate_reasons"],
        evidence_sha256=tags["evidence_sha256"],
        champion_fingerprint=tags["gate_champion"] or None,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == version)),
        approval=_approval(version, tags),
    )


def _approval(version: str, tags: Mapping[str, str]) -> Approval | None:
    if "approved_replaced" not in tags:
        return None
    return Approval(
        version=version,
        fingerprint=tags["fingerprint"],
        by=tags["approved_by"],
        reason=tags["approved_reason"],
        at_ms=int(tags["approved_at_ms"]),
        replaced=tags["approved_replaced"] or None,
        uncompared=tags.get("approved_uncompared", ""),
    )
