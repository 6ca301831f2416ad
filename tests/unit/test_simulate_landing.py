"""The landing folder: daily files, nothing known too early, no second world, no half-written one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from fraud_platform.adapters import landing as landing_module
from fraud_platform.adapters.landing import WrittenWorld, spec_that_lies_there, write_world, written_world
from fraud_platform.defs.platform import Platform
from fraud_platform.defs.simulate import WorldConfig
from fraud_platform.defs.simulate import world as simulated_world
from fraud_platform.errors import SettingsError, SourceError
from fraud_platform.settings import Settings
from fraud_platform.simulate import World, WorldSpec, simulate

SPEC = WorldSpec(days=40, customers=150, transactions_per_day=120, tactics_change=25)


@pytest.fixture(scope="module")
def world() -> World:
    return simulate(SPEC)


def write(world: World, home: Path) -> WrittenWorld:
    return write_world(world, home / "landing", home / "truth", home / "live")


def content(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def read(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


def test_files_hold_the_world_by_day(world: World, tmp_path: Path) -> None:
    written = write(world, tmp_path)
    live_from = pd.Timestamp(SPEC.live_from_ms, unit="ms", tz="UTC")
    delivered = read(tmp_path / "landing" / "transactions")
    live = pd.read_parquet(tmp_path / "live" / "transactions.parquet")
    pd.testing.assert_frame_equal(pd.concat([delivered, live], ignore_index=True), world.transactions)
    assert (live["event_time"] >= live_from).all()
    labels = read(tmp_path / "landing" / "labels")
    pd.testing.assert_frame_equal(
        labels, world.labels[world.labels["known_at"] < live_from].reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "truth" / "truth.parquet"), world.truth)
    assert (written.transactions, written.live_transactions) == (len(delivered), len(live))
    assert (written.labels, written.labels + written.labels_pending) == (len(labels), len(world.labels))
    assert written.fraud == world.truth["is_fraud"].sum()
    assert (written.first_day, written.last_day, written.live_day) == (
        "2025-01-01",
        "2025-02-09",
        "2025-02-10",
    )
    assert not written.is_unchanged


@pytest.mark.parametrize(("stream", "column"), [("transactions", "event_time"), ("labels", "known_at")])
def test_a_file_holds_its_own_day(world: World, tmp_path: Path, stream: str, column: str) -> None:
    write(world, tmp_path)
    paths = sorted((tmp_path / "landing" / stream).glob("*.parquet"))
    assert paths
    for path in paths:
        days = pd.read_parquet(path)[column].dt.strftime("%Y-%m-%d")
        assert set(days) == {path.stem}
    assert str(pq.read_schema(paths[0]).field(column).type) == "timestamp[ms, tz=UTC]"


def test_the_truth_is_not_below_landing(world: World, tmp_path: Path) -> None:
    write(world, tmp_path)
    for path in (tmp_path / "landing").rglob("*.parquet"):
        assert not {"is_fraud", "campaign", "campaign_kind"} & set(pq.read_schema(path).names)
    for truth, live in (("landing/truth", "live"), ("landing", "live"), ("truth", "landing/live")):
        with pytest.raises(SettingsError, match="choose a folder outside"):
            write_world(world, tmp_path / "landing", tmp_path / truth, tmp_path / live)


def test_a_second_call_changes_nothing_and_says_so(world: World, tmp_path: Path) -> None:
    first = write(world, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = write(world, tmp_path)
    assert second == replace(first, is_unchanged=True)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert written_world(SPEC, tmp_path / "landing", tmp_path / "truth", tmp_path / "live") == second


def test_same_spec_same_bytes(world: World, tmp_path: Path) -> None:
    write(world, tmp_path / "one")
    write(simulate(SPEC), tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


class Killed(Exception):
    """Stands for a kill at some moment of the writing."""


@pytest.mark.parametrize("after", [0, 1, 20, 45, 60])
def test_a_killed_call_is_completed_by_the_next(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = write(world, tmp_path / "whole")
    done = 0

    def write_until_killed(path: Path, table: object) -> None:
        nonlocal done
        if done == after:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(path.name + ".part").write_bytes(b"half")
            raise Killed
        done += 1
        original(path, table)

    original = landing_module._write
    with monkeypatch.context() as patch:
        patch.setattr(landing_module, "_write", write_until_killed)
        with pytest.raises(Killed):
            write(world, tmp_path / "killed")
    assert not (tmp_path / "killed" / "landing" / "world.json").exists()
    places = [tmp_path / "killed" / name for name in ("landing", "truth", "live")]
    assert written_world(SPEC, *places) is None
    assert write(world, tmp_path / "killed") == whole
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["landing/transactions/2025-01-05.parquet", "truth/truth.parquet"])
def test_a_lost_file_is_written_again(world: World, tmp_path: Path, lost: str) -> None:
    first = write(world, tmp_path)
    (tmp_path / lost).unlink()
    assert write(world, tmp_path) == first
    assert (tmp_path / lost).exists()


def test_another_world_in_the_same_folder_is_refused(world: World, tmp_path: Path) -> None:
    write(world, tmp_path)
    before = content(tmp_path)
    other = replace(SPEC, seed=8)
    with pytest.raises(SettingsError, match=r"seed=7 \(asked: 8\).*remove it.*or choose another var"):
        written_world(other, tmp_path / "landing", tmp_path / "truth", tmp_path / "live")
    with pytest.raises(SettingsError, match="another world"):
        write(World(other, world.transactions, world.labels, world.truth), tmp_path)
    assert content(tmp_path) == before


def test_the_world_that_lies_there_says_what_it_is(world: World, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    assert spec_that_lies_there(landing) is None
    write(world, tmp_path)
    assert spec_that_lies_there(landing) == SPEC
    stamp = json.loads((landing / "world.json").read_bytes())
    stamp["spec"]["world_version"] = 0
    (landing / "world.json").write_text(json.dumps(stamp))
    assert spec_that_lies_there(landing) is None


def test_who_names_no_size_goes_on_with_the_world_that_lies_there(tmp_path: Path) -> None:
    platform = Platform(Settings.from_env({"FRAUD_PLATFORM_VAR": str(tmp_path)}))
    first = simulated_world(config=WorldConfig(transactions=4_000), platform=platform)
    again = simulated_world(config=WorldConfig(), platform=platform)
    assert (first.metadata["unchanged"], again.metadata["unchanged"]) == (False, True)
    assert again.metadata["dagster/row_count"] == first.metadata["dagster/row_count"] < 5_000
    with pytest.raises(SettingsError, match="another world"):
        simulated_world(config=WorldConfig(transactions=8_000), platform=platform)


def test_files_of_somebody_else_are_refused(world: World, tmp_path: Path) -> None:
    stranger = tmp_path / "landing" / "transactions" / "2031-01-01.parquet"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"mine")
    with pytest.raises(SourceError, match="2031-01-01"):
        write(world, tmp_path)
    assert stranger.read_bytes() == b"mine"
    assert not (tmp_path / "truth").exists()


def test_progress_is_told(world: World, tmp_path: Path) -> None:
    told: list[float] = []
    places = [tmp_path / name for name in ("landing", "truth", "live")]
    written = write_world(world, *places, progress=lambda text, share: told.append(share))
    assert len(told) == written.files
    assert told == sorted(told)
