"""A new model without a gap: no request fails, no decision mixes two bundles, a bad bundle is refused."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest

from fraud_platform.adapters.bundle_files import build_bundle, bundle_path, load_bundle
from fraud_platform.adapters.bundle_switch import Wish, make_wish, read_serving
from fraud_platform.adapters.http import Api
from fraud_platform.adapters.journal import read_decisions
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.errors import BundleError
from fraud_platform.package import BundleParts
from fraud_platform.schema import Transaction
from fraud_platform.serve import Judge
from fraud_platform.serve.golden import check_golden, with_golden
from tests.asgi import ask
from tests.faults import Running, patient

NOW_MS = 1_790_000_000_000
Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def parts(
    tiny_parts: BundleParts, tiny_columns: dict[str, np.ndarray], transaction_request: Build
) -> BundleParts:
    names = tiny_parts.contract.names
    samples = []
    for row in range(12):
        values = (tiny_columns[name].tolist()[row] for name in names)
        vector = tuple(None if value != value else value for value in values)
        request = transaction_request(transaction_id=f"golden-{row}", amount_minor=1000 * row)
        samples.append((msgspec.convert(request, type=Transaction), vector))
    return with_golden(tiny_parts, samples)


@pytest.fixture(scope="module")
def bundles(parts: BundleParts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two good bundles of one contract, and one whose golden answers are another model's."""
    folder = tmp_path_factory.mktemp("bundles")
    booster = lightgbm.Booster(model_str=parts.model_text)
    shorter = booster.model_to_string(num_iteration=20)
    golden = [(one.transaction, one.vector) for one in parts.golden]
    made = {
        "old": parts,
        "new": with_golden(replace(parts, model_text=shorter), golden),
        "other answers": replace(parts, model_text=shorter),
    }
    return {name: bundle_path(folder, build_bundle(part, folder).id) for name, part in made.items()}


@pytest.fixture
def running(bundles: dict[str, Path], tmp_path: Path) -> Iterator[Running]:
    settings = patient(bundles["old"], tmp_path / "state", spill=tmp_path / "spill")
    with Running(settings, lambda: NOW_MS) as running:
        yield running


def ask_until(running: Running, build: Build, is_enough: Callable[[], bool], numbers: Iterator[int]) -> None:
    deadline = time.monotonic() + 120
    while not is_enough():
        assert time.monotonic() < deadline
        number = next(numbers)
        request = build(transaction_id=f"t{number}", event_time=NOW_MS - 10**6 + number)
        assert running.ask(request).tier == "model"


def test_golden_requests_hold_where_they_were_made_and_not_for_another_model(
    bundles: dict[str, Path],
) -> None:
    judge = Judge(load_bundle(bundles["old"]))
    assert check_golden(judge) == 12
    judge.close()
    other = Judge(load_bundle(bundles["other answers"]))
    with pytest.raises(BundleError, match="golden request 'golden-0'"):
        check_golden(other)
    other.close()


def test_a_bundle_is_taken_under_traffic_and_every_decision_is_of_one(
    running: Running, bundles: dict[str, Path], transaction_request: Build
) -> None:
    state, numbers = running.settings.state, count()
    old, new = (load_bundle(bundles[name]) for name in ("old", "new"))
    ask_until(running, transaction_request, lambda: next(numbers) > 20, numbers)
    make_wish(state, bundles["new"], old.id, old.contract.hash)
    ask_until(running, transaction_request, lambda: running.online.bundle.id == new.id, numbers)
    start = next(numbers)
    ask_until(running, transaction_request, lambda: next(numbers) > start + 20, numbers)
    judges = {bundle.id: Judge(bundle) for bundle in (old, new)}
    seen = []
    for one in read_decisions(state):
        record = one.record
        again = judges[record.bundle_id].judge(record.request, record.vector)
        assert (again.raw_score, again.action) == (record.raw_score, record.action)
        seen.append(record.bundle_id)
    assert seen == sorted(seen, key=[old.id, new.id].index)
    assert set(seen) == {old.id, new.id}
    assert [(one.bundle, one.started_with) for one in read_serving(state)] == [(new.id, old.id)]
    for judge in judges.values():
        judge.close()


def test_a_bundle_is_taken_over_http_and_a_bad_one_is_a_problem(
    running: Running, bundles: dict[str, Path], transaction_request: Build
) -> None:
    api, new = Api(), load_bundle(bundles["new"])
    api.start(running.online, Metrics())
    refused = ask(api, "POST", "/v1/bundle", {"id": bundles["other answers"].name})
    assert (refused.status, refused.json["field"]) == (422, "id")
    assert "golden request" in refused.json["rule"]
    assert ask(api, "POST", "/v1/bundle", {"id": "../" * 8}).status == 422
    taken = ask(api, "POST", "/v1/bundle", {"id": new.id})
    assert (taken.status, taken.json["bundle_id"]) == (202, new.id)
    ask_until(running, transaction_request, lambda: running.online.bundle.id == new.id, count())


@pytest.mark.parametrize("damage", ["model.txt", "golden.json", "other answers", "missing"])
def test_a_bad_bundle_is_refused_and_the_old_one_stays(
    running: Running, bundles: dict[str, Path], transaction_request: Build, tmp_path: Path, damage: str
) -> None:
    state, old = running.settings.state, load_bundle(bundles["old"])
    bad = tmp_path / "bad"
    shutil.copytree(bundles["other answers" if damage == "other answers" else "new"], bad)
    if damage == "missing":
        shutil.rmtree(bad)
    elif damage != "other answers":
        raw = (bad / damage).read_bytes()
        (bad / damage).write_bytes(raw.replace(b"1", b"2", 1))
    with pytest.raises(BundleError):
        make_wish(state, bad, old.id, old.contract.hash)
    assert not (state / "bundle.json").exists()
    wish = Wish(str(bad), "f" * 64, old.id)
    (state / "bundle.json").write_bytes(msgspec.json.encode(wish))
    numbers = count()
    ask_until(running, transaction_request, lambda: read_serving(state)[0].refused == wish.id, numbers)
    assert running.online.bundle.id == old.id
    assert read_serving(state)[0].why


def test_a_service_starts_with_the_wanted_bundle_unless_it_comes_with_another(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    old, new = (load_bundle(bundles[name]) for name in ("old", "new"))
    settings = patient(bundles["old"], state, spill=tmp_path / "spill")
    state.mkdir()
    make_wish(state, bundles["new"], old.id, old.contract.hash)
    with Running(settings, lambda: NOW_MS) as running:
        assert running.online.bundle.id == new.id
    assert read_serving(state) == []
    with Running(replace(settings, bundle=bundles["new"]), lambda: NOW_MS) as running:
        assert running.online.bundle.id == new.id
    (state / "bundle.json").write_bytes(msgspec.json.encode(Wish(str(tmp_path / "gone"), "f" * 64, old.id)))
    with Running(settings, lambda: NOW_MS) as running:
        assert running.online.bundle.id == old.id
