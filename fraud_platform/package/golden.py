"""Golden requests: what a bundle answered where it was packaged, to see that it still does elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fraud_platform.schema import Transaction


class GoldenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """vector: in contract order; judgement: what the bundle made of both, as JSON (`serve.golden`)."""

    transaction: Transaction
    vector: tuple[float | str | None, ...]
    judgement: msgspec.Raw


def golden_to_json(golden: Sequence[GoldenRequest]) -> bytes:
    return msgspec.json.encode(golden)


def golden_from_json(data: bytes) -> tuple[GoldenRequest, ...]:
    """Raises msgspec.MsgspecError."""
    return msgspec.json.decode(data, type=tuple[GoldenRequest, ...])
