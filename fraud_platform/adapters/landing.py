"""The landing folder: a played world as the daily parquet files that a source would deliver.

Belongs here: writing a world, and knowing that it is written. Does not belong here: playing it, reading
it (ingest does, as it reads anybody's files). The truth and the live day lie outside the landing folder.

    landing/transactions/2025-01-01.parquet   by the day of event_time
    landing/labels/2025-01-03.parquet         by the day of known_at; no file for a day without news
    landing/world.json                        written last: which world this is, and what it holds
    truth/truth.parquet   live/transactions.parquet
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fraud_platform.errors import SettingsError, SourceError
from fraud_platform.schema import MILLISECONDS_PER_DAY
from fraud_platform.simulate import Progress, World, WorldSpec

LANDING_FORMAT = 1
STAMP = "world.json"
_PART = ".part"


@dataclass(frozen=True)
class WrittenWorld:
    """What lies in the folders. Labels that nobody knows before the live day are counted as pending."""

    transactions: int
    labels: int
    labels_pending: int
    live_transactions: int
    fraud: int
    first_day: str
    last_day: str
    live_day: str
    files: int
    is_unchanged: bool = False


@dataclass(frozen=True)
class _Places:
    landing: Path
    truth: Path
    live: Path

    @property
    def stamp(self) -> Path:
        return self.landing / STAMP

    @property
    def truth_file(self) -> Path:
        return self.truth / "truth.parquet"

    @property
    def live_file(self) -> Path:
        return self.live / "transactions.parquet"


def write_world(
    world: World, landing: Path, truth: Path, live: Path, progress: Progress | None = None
) -> WrittenWorld:
    """Deliver `world`; the same world a second time changes nothing and says so.

    Each file is written under another name and renamed, and the stamp comes last, so that a killed call
    leaves nothing half written and the next call completes it. Raises SettingsError when the folder holds
    another world or the truth would lie in it, SourceError when it holds files of somebody else.
    """
    done = written_world(world.spec, landing, truth, live)
    if done is not None:
        return done
    places = _Places(landing, truth, live)
    pieces = dict(_pieces(world, places))
    _refuse_strangers(landing, set(pieces))
    for number, (path, table) in enumerate(pieces.items()):
        if progress is not None:
            progress(path.name, number / len(pieces))
        _write(path, table)
    written = _counted(world, len(pieces))
    stamp = {
        "landing_format": LANDING_FORMAT,
        "spec": world.spec.to_dict(),
        "written": asdict(written),
        "delivered": sorted(
            path.relative_to(landing).as_posix() for path in pieces if path.is_relative_to(landing)
        ),
    }
    _replace(places.stamp, json.dumps(stamp, indent=1).encode())
    return written


def written_world(spec: WorldSpec, landing: Path, truth: Path, live: Path) -> WrittenWorld | None:
    """The world of `spec` as it lies there, complete; None when it has yet to be written.

    Asks only the stamp and the files' names, so that a caller need not play the world again.
    Raises SettingsError as write_world does.
    """
    for name, folder in (("truth", truth), ("live day", live)):
        if folder.resolve().is_relative_to(landing.resolve()):
            raise SettingsError(
                f"the {name}'s folder {folder} lies in the landing folder {landing}, which ingest reads: "
                "choose a folder outside it"
            )
    places = _Places(landing, truth, live)
    if not places.stamp.exists():
        return None
    stamp = json.loads(places.stamp.read_bytes())
    _refuse_other_world(stamp, spec, landing)
    expected = [places.truth_file, places.live_file, *(landing / name for name in stamp["delivered"])]
    if not all(path.exists() for path in expected):
        return None
    return replace(WrittenWorld(**stamp["written"]), is_unchanged=True)


def spec_that_lies_there(landing: Path) -> WorldSpec | None:
    """What was asked of the folder's world; None where there is none, or one that is played no more."""
    stamp = landing / STAMP
    return WorldSpec.from_dict(json.loads(stamp.read_bytes())["spec"]) if stamp.exists() else None


def read_truth(truth: Path) -> pd.DataFrame:
    """transaction_id and is_fraud of a written world. SourceError where none lies there."""
    path = _Places(truth, truth, truth).truth_file
    if not path.is_file():
        raise SourceError(
            f"{path} is not there: only a simulated world knows the truth; materialize simulate/world first"
        )
    return pq.read_table(path, columns=["transaction_id", "is_fraud"]).to_pandas()


def _pieces(world: World, places: _Places) -> Iterator[tuple[Path, pa.Table]]:
    """Every file with its rows: transactions, labels, the live day, the truth."""
    spec = world.spec
    for day, part in _by_day(world.transactions, "event_time", spec):
        path = places.landing / "transactions" / f"{_date(spec, day)}.parquet"
        yield (places.live_file if day == spec.days else path), part
    for day, part in _by_day(world.labels, "known_at", spec):
        if day < spec.days:
            yield places.landing / "labels" / f"{_date(spec, day)}.parquet", part
    yield places.truth_file, _table(world.truth)


def _by_day(frame: pd.DataFrame, column: str, spec: WorldSpec) -> Iterator[tuple[int, pa.Table]]:
    """(day index, rows) for the days up to the live one that have rows; `frame` is ordered by `column`."""
    table = _table(frame)
    bounds = np.searchsorted(_since_start(frame[column], spec), _day_starts(spec))
    for day in range(spec.total_days):
        if bounds[day + 1] > bounds[day]:
            yield day, table.slice(bounds[day], bounds[day + 1] - bounds[day])


def _since_start(moment: pd.Series, spec: WorldSpec) -> np.ndarray:
    return moment.dt.tz_convert(None).to_numpy().astype(np.int64) - spec.start_ms


def _day_starts(spec: WorldSpec) -> np.ndarray:
    return np.arange(spec.total_days + 1) * MILLISECONDS_PER_DAY


def _date(spec: WorldSpec, day: int) -> str:
    return (spec.start + timedelta(days=day)).isoformat()


def _counted(world: World, files: int) -> WrittenWorld:
    spec = world.spec
    is_live = _since_start(world.transactions["event_time"], spec) >= spec.days * MILLISECONDS_PER_DAY
    is_known = _since_start(world.labels["known_at"], spec) < spec.days * MILLISECONDS_PER_DAY
    return WrittenWorld(
        transactions=int((~is_live).sum()),
        labels=int(is_known.sum()),
        labels_pending=int((~is_known).sum()),
        live_transactions=int(is_live.sum()),
        fraud=int(world.truth["is_fraud"].sum()),
        first_day=_date(spec, 0),
        last_day=_date(spec, spec.days - 1),
        live_day=_date(spec, spec.days),
        files=files,
    )


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.table({str(name): _column(frame[name]) for name in frame.columns})


def _column(values: pd.Series) -> pa.Array:
    """Plain types only: text, numbers, timestamps in ms UTC; a missing number is NULL, not NaN."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        moments = pa.array(values.dt.tz_convert(None).to_numpy(), type=pa.timestamp("ms"))
        return moments.cast(pa.timestamp("ms", tz="UTC"))
    if pd.api.types.is_string_dtype(values.dtype):
        return pa.array(values.array, type=pa.string())
    return pa.array(values.to_numpy(), from_pandas=True)


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + _PART)
    pq.write_table(table, part)
    part.replace(path)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + _PART)
    part.write_bytes(content)
    part.replace(path)


def _refuse_other_world(stamp: dict[str, Any], spec: WorldSpec, landing: Path) -> None:
    found = {"landing_format": stamp["landing_format"], **stamp["spec"]}
    asked = {"landing_format": LANDING_FORMAT, **spec.to_dict()}
    unlike = [name for name in asked if found.get(name) != asked[name]]
    if unlike:
        differences = ", ".join(f"{name}={found.get(name)!r} (asked: {asked[name]!r})" for name in unlike)
        raise SettingsError(
            f"{landing} holds another world: {differences}. A landing folder holds one world, since all that "
            "was built from it would mix: remove it with everything built from it, or choose another var"
        )


def _refuse_strangers(landing: Path, expected: set[Path]) -> None:
    """Files left by a killed call have expected names (or end in .part) and are written over."""
    for stream in ("transactions", "labels"):
        for path in sorted((landing / stream).glob("*")):
            if path.name.endswith(_PART):
                path.unlink()
            elif path not in expected:
                raise SourceError(
                    f"{path} is not a file of this world, and {landing / STAMP} is missing: a landing folder "
                    "holds one world; remove the folder or choose another var"
                )
