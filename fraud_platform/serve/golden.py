"""Whether a bundle answers here as it answered where it was packaged: bit for bit, reasons and all.

Belongs here: asking, comparing. Does not belong here: which requests are golden (adapters/golden_samples.py),
how they are kept (package/golden.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from fraud_platform.errors import BundleError
from fraud_platform.package import BundleParts, GoldenRequest, build
from fraud_platform.schema import Transaction
from fraud_platform.serve.judge import Judge, Vector


def with_golden(parts: BundleParts, samples: Iterable[tuple[Transaction, Vector]]) -> BundleParts:
    """The parts with what they answer. BundleError where they do not make a bundle."""
    judge = Judge(build(replace(parts, golden=())))
    try:
        golden = [
            GoldenRequest(transaction=transaction, vector=vector, judgement=_said(judge, transaction, vector))
            for transaction, vector in samples
        ]
    finally:
        judge.close()
    return replace(parts, golden=tuple(golden))


def check_golden(judge: Judge) -> int:
    """How many golden requests got the answer they got before. BundleError names the first that did not.

    Each is asked in full, so that the judge is warm afterwards.
    """
    for golden in judge.bundle.golden:
        said = _said(judge, golden.transaction, golden.vector)
        if bytes(said) != bytes(golden.judgement):
            raise BundleError(
                f"bundle {judge.bundle.id[:12]}: golden request {golden.transaction.transaction_id!r} got "
                f"{bytes(golden.judgement).decode()} where it was packaged, here {bytes(said).decode()}: "
                "install the versions that the bundle was packaged with, or package it anew"
            )
    return len(judge.bundle.golden)


def _said(judge: Judge, transaction: Transaction, vector: Vector) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(judge.judge(transaction, vector)))
