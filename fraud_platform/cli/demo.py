"""`demo`: the loop on the simulated world, then live transactions against the running Bento."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from rich.progress import track
from rich.table import Table

from fraud_platform.adapters.bento_server import RunningService, free_port, start_service
from fraud_platform.adapters.http_settings import NO_KEYS
from fraud_platform.cli.go_live import go_live
from fraud_platform.cli.instance import console, prepare_environment, run_job
from fraud_platform.cli.loop import approve, learn, package, show_learning, show_packaging
from fraud_platform.settings import Settings

APPROVER, REASON = "demo", "approved by the demo's own flag, by nobody in particular"
LIVE_TRANSACTIONS = 2_000


def demo(settings: Settings, transactions: int = 0, live: int = LIVE_TRANSACTIONS) -> None:
    """The whole loop once; ends in printed decisions of the running Bento, which it then stops."""
    started = time.perf_counter()
    console.rule("1. Learn: play a world, ingest, features, labels, train, evaluate, register")
    learning = learn(settings, world_transactions=transactions)
    show_learning(learning)
    console.rule("2. Approve")
    version = str(learning.assets["register/model_version"]["version"])
    console.print(approve(settings, version, APPROVER, REASON))
    console.rule("3. Package: bundle and Bento")
    packaging = package(settings)
    show_packaging(packaging)
    console.rule("4. Serve: live transactions")
    go_live(settings)
    with console.status("starting the service"):
        path = Path(packaging.assets["package/bento"]["path"])
        service = start_service(path, free_port(), settings.service_state, keys=NO_KEYS)
    with service:
        decisions = _decide(service, _live(settings, live))
    _show_decisions(decisions)
    console.rule("5. Monitor: the decision log")
    show_monitoring(settings)
    console.rule(f"done in {time.perf_counter() - started:.0f} s")
    console.print(_next_steps(settings), soft_wrap=True)


def show_monitoring(settings: Settings) -> None:
    from fraud_platform.definitions import build_defs

    prepare_environment(settings)
    report = run_job(build_defs(settings), "monitoring")
    for name, found in report.assets.items():
        shown = {key.removeprefix("dagster/"): value for key, value in found.items() if not _is_long(value)}
        console.print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))


def _is_long(value: object) -> bool:
    return not isinstance(value, bool | int | float | str) or (isinstance(value, str) and len(value) > 200)


def _live(settings: Settings, count: int) -> list[dict[str, Any]]:
    """The world's live day, as a client would post it."""
    from fraud_platform.adapters.duckdb import Warehouse
    from fraud_platform.schema import TRANSACTION_COLUMNS

    columns = [column.name for column in TRANSACTION_COLUMNS]
    selected = ", ".join("epoch_ms(event_time) as event_time" if c == "event_time" else c for c in columns)
    path = settings.home / "live" / "transactions.parquet"
    with Warehouse(settings.warehouse).connect(read_only=True) as connection:
        rows = connection.execute(
            f"select {selected} from read_parquet(?) order by event_time, transaction_id limit ?",
            [str(path), count],
        ).fetchall()
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None} for row in rows
    ]


@contextmanager
def _client(service: RunningService) -> Any:
    with httpx.Client(base_url=service.url, timeout=10.0) as client:
        yield client


def _decide(
    service: RunningService, live: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any], float]]:
    """(transaction, decision, milliseconds on the client's clock) of each live transaction."""
    decided = []
    with _client(service) as client:
        for transaction in track(live, "deciding", console=console, transient=True):
            begun = time.perf_counter()
            answer = client.post(
                "/v1/decisions",
                content=msgspec.json.encode(transaction),
                headers={"content-type": "application/json"},
            )
            answer.raise_for_status()
            decided.append((transaction, answer.json(), (time.perf_counter() - begun) * 1000))
    return decided


def _show_decisions(decided: list[tuple[dict[str, Any], dict[str, Any], float]]) -> None:
    actions = Counter(decision["action"] for _, decision, _ in decided)
    took = sorted(ms for _, _, ms in decided)
    table = Table("transaction", "amount", "channel", "action", "probability", "reasons")
    adverse = [d for d in decided if d[1]["action"] != "approve"]
    for transaction, decision, _ in [*adverse[:4], *[d for d in decided if d[1]["action"] == "approve"][:2]]:
        table.add_row(
            transaction["transaction_id"],
            f"{transaction['amount_minor'] / 100:,.2f} {transaction['currency']}",
            str(transaction.get("channel")),
            decision["action"],
            "" if decision.get("probability") is None else f"{decision['probability']:.4f}",
            "; ".join(reason["text"] for reason in decision.get("reasons", ())),
        )
    console.print(table)
    counted = ", ".join(f"{number} {action}" for action, number in sorted(actions.items()))
    console.print(
        f"{len(decided)} live transactions decided: {counted}; "
        f"median {took[len(took) // 2]:.2f} ms, p99 {took[int(len(took) * 0.99)]:.2f} ms over HTTP"
    )
    repeats = sum(bool(decision.get("is_repeat")) for _, decision, _ in decided)
    if repeats:
        console.print(f"{repeats} of them had been decided before: they got the recorded answer again")
    console.print("one decision, as answered:")
    console.print_json(msgspec.json.encode((adverse or decided)[0][1]).decode())


def _next_steps(settings: Settings) -> str:
    return "\n".join(
        (
            "Go on with:",
            "  make ui                                     Dagster and MLflow over the same var/",
            "  .venv/bin/fraud-platform serve              the approved Bento on port 3000",
            "  .venv/bin/fraud-platform versions           models, gates and approvals",
            "  .venv/bin/fraud-platform parity             replay the whole timeline, compare every bit",
            "  .venv/bin/fraud-platform run --dataset my.yaml --source my/files",
        )
    )
