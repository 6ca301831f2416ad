"""The written proof that what is served equals what was built, and who is refused without one.

Belongs here: what a proof says and what it is good for. Does not belong here: replaying (adapters), files.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from fraud_platform.errors import GateError
from fraud_platform.features.parity import ParityReport, in_words

EXAMPLES = 10
FIX = "fraud-platform parity replays the whole timeline and records a new proof"


class ParityProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replay of the whole timeline.

    contract, code, data: SHA-256 (hex) of the contract, of the online store's source and of the rows that
    were compared; mismatches: by feature, none where it is exact; at_ms: when it was begun (ms UTC).
    """

    contract: str
    code: str
    data: str
    transactions: int
    labels: int
    values: int
    mismatches: dict[str, int]
    examples: tuple[str, ...]
    at_ms: int

    @classmethod
    def of(cls, report: ParityReport, *, contract: str, code: str, data: str, at_ms: int) -> ParityProof:
        return cls(
            contract=contract,
            code=code,
            data=data,
            transactions=report.transactions,
            labels=report.labels,
            values=report.values,
            mismatches=dict(report.mismatches.most_common()),
            examples=tuple(str(example) for example in report.examples[:EXAMPLES]),
            at_ms=at_ms,
        )

    @property
    def wrong_values(self) -> int:
        return sum(self.mismatches.values())

    @property
    def is_exact(self) -> bool:
        return self.values > 0 and not self.mismatches

    def __str__(self) -> str:
        return in_words(self.values, self.transactions, self.wrong_values)

    def is_of(self, contract: str, code: str, data: str) -> bool:
        """Whether the same contract, code and rows were compared."""
        return (self.contract, self.code, self.data) == (contract, code, data)

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)

    @classmethod
    def from_json(cls, data: bytes) -> ParityProof:
        """Raises GateError where `data` is no proof."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise GateError(f"parity proof: {error}; {FIX}") from error


def require_proof(proof: ParityProof | None, contract: str, code: str, declared: str) -> ParityProof:
    """The proof, if it is exact and of this contract and code. Raises GateError otherwise.

    contract: of the version to be released; code: of the store that would serve it; declared: the contract
    that is declared now. The rows may have grown since: a proof says that this code computes this contract
    exactly on all that was known then, and each learning run proves it again on what has come. Were the rows
    of today demanded, an approved version could not be released between an ingest and the replay after it.
    """
    fix = FIX
    if contract != declared:
        fix = (
            f"the contract declared now is {declared[:12]}, which the present features are of: "
            "approve a version that learned from them"
        )
    if proof is None or proof.contract != contract:
        raise GateError(f"contract {contract[:12]} has no parity proof, and 0 mismatches are needed; {fix}")
    if proof.mismatches:
        raise GateError(
            f"parity of contract {contract[:12]}: {proof.wrong_values:,} mismatches in {proof.values:,} "
            f"values ({_listed(proof)}), 0 are needed; mend the feature or its twin, then {fix}"
        )
    if not proof.is_exact:
        raise GateError(
            f"parity of contract {contract[:12]}: 0 values were compared, which proves nothing; {fix}"
        )
    if proof.code != code:
        raise GateError(
            f"contract {contract[:12]} was proven exact in {proof.values:,} values with store code "
            f"{proof.code[:12]}, but {code[:12]} would serve it; {fix}"
        )
    return proof


def digest(*parts: bytes) -> str:
    """SHA-256 (hex) of the parts in order, each with its length."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()


def _listed(proof: ParityProof) -> str:
    worst: list[tuple[str, Any]] = sorted(proof.mismatches.items(), key=lambda item: -item[1])[:5]
    return ", ".join(f"{name}: {count:,}" for name, count in worst)
