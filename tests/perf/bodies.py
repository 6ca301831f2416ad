"""Requests of the simulated world's live day, as a client posts them, without an end.

Belongs here: making and handing out bodies. Does not belong here: sending them (load.py, serving.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform

PEOPLE = ("card_id", "customer_id", "device_id", "ip_id")
APART_MS = 3_607
"""Between populations: at one moment they would tie at every merchant, which no world does."""


def live_bodies(platform: Platform, populations: int = 1) -> Iterator[bytes]:
    """The live day, then the same day again a day later, and so on: each id once, in order of time.

    populations: so many people do each thing, some seconds apart; the first of them are the warehouse's.
    """
    from fraud_platform.schema import MILLISECONDS_PER_DAY

    rows = _rows(platform)
    timetable = sorted(
        (row["event_time"] + population * APART_MS, number, population)
        for number, row in enumerate(rows)
        for population in range(populations)
    )
    for day in count():
        for moment, number, population in timetable:
            row = rows[number]
            values = dict(row)
            values["transaction_id"] = f"day{day}-t{number}-{population}"
            values["event_time"] = moment + day * MILLISECONDS_PER_DAY
            if population:
                values |= {name: f"{row[name]}p{population}" for name in PEOPLE if name in row}
            yield json.dumps(values).encode()


def live_count(platform: Platform, populations: int = 1) -> int:
    """Bodies of one day."""
    return len(_rows(platform)) * populations


def known_ids(platform: Platform) -> dict[str, list[str]]:
    """The ids of the live day, by column."""
    rows, names = _rows(platform), (*PEOPLE, "merchant_id")
    return {name: sorted({row[name] for row in rows if name in row}) for name in names}


def write_bodies(bodies: Iterator[bytes], path: Path, number: int, batch: int = 1) -> Path:
    """The next `number` bodies, a line each; with batch > 1 so many in each line."""
    with path.open("wb") as file:
        for _ in range(number):
            file.write((next(bodies) if batch == 1 else _batch(list(islice(bodies, batch)))) + b"\n")
    return path


def _batch(bodies: Sequence[bytes]) -> bytes:
    return b'{"transactions":[' + b",".join(bodies) + b"]}"


def _rows(platform: Platform) -> list[dict[str, Any]]:
    from fraud_platform.schema import TRANSACTION_COLUMNS

    names = [column.name for column in TRANSACTION_COLUMNS]
    chosen = ", ".join("epoch_ms(event_time)" if name == "event_time" else name for name in names)
    path = str(platform.settings.home / "live" / "transactions.parquet")
    with platform.warehouse.connect(read_only=True) as connection:
        rows = connection.execute(
            f"select {chosen} from read_parquet(?) order by event_time", [path]
        ).fetchall()
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows
    ]
