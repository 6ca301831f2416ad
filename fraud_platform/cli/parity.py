"""`parity`: served values beside built ones, and what windows that are only about right would get wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from fraud_platform.cli.instance import console
from fraud_platform.errors import SettingsError
from fraud_platform.settings import Settings

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform
    from fraud_platform.features.parity import ParityReport
    from fraud_platform.features.proof import ParityProof


def show_parity(settings: Settings, events: int | None, has_tails: bool, store: str = "") -> None:
    """Replays everything and keeps the proof, or the last `events` transactions; a mismatch exits with 1.

    store: the address of a Redis, where the replay then takes place, in a namespace that is removed.
    """
    from fraud_platform.defs.platform import Platform

    if events is not None and events < 1:
        raise SettingsError(f"--events {events}: give how many transactions to replay, 1 or more")
    platform = Platform(settings)
    found = _compared_on_redis(platform, events, store) if store else _compared(platform, events)
    for name, count in sorted(found.mismatches.items(), key=lambda item: -item[1]):
        console.print(f"{name}: {count:,} mismatches")
    for example in found.examples:
        console.print(f"  {example}", soft_wrap=True)
    if has_tails:
        _show_tails(platform)
    console.print(str(found), soft_wrap=True)
    raise typer.Exit(0 if found.is_exact else 1)


def _compared(platform: Platform, events: int | None) -> ParityProof | ParityReport:
    from fraud_platform.adapters.parity_replay import prove, replay_parity, write_proof

    warehouse, contract = platform.warehouse, platform.contract
    with console.status("replaying") as status:
        if events is not None:
            return replay_parity(warehouse, contract, events, status.update)
        proof = prove(warehouse, contract, platform.now_ms(), status.update)
    path = write_proof(platform.settings, proof)
    console.print(f"proof kept in {path}", soft_wrap=True)
    return proof


def _compared_on_redis(platform: Platform, events: int | None, url: str) -> ParityReport:
    from fraud_platform.adapters.parity_replay import replay_parity
    from fraud_platform.adapters.redis_replay import redis_replay

    with console.status("replaying") as status, redis_replay(url) as (open_store, load):
        return replay_parity(platform.warehouse, platform.contract, events, status.update, open_store, load)


def _show_tails(platform: Platform) -> None:
    from fraud_platform.adapters.tails import latest_candidate, report_tails

    candidate = latest_candidate(platform.settings.candidates)
    with console.status("tails") as status:
        report = report_tails(
            platform.settings, platform.mapping, platform.contract, candidate, status.update
        )
    for line in report.explain():
        console.print(line, soft_wrap=True)
