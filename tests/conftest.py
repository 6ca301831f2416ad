"""What several kinds of tests share: a small bundle with a real model, requests, runs of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fraud_platform.calibration import Calibrator
from fraud_platform.features import plan
from fraud_platform.features.contract import load_contract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.package import BundleParts, Reference, load_reasons_text
from fraud_platform.policy import load_policy_text
from fraud_platform.rules import load_lists_text, load_rules_text
from fraud_platform.settings import PROJECT_ROOT
from fraud_platform.simulate import WorldSpec, simulate
from fraud_platform.train.booster import Booster, load_lightgbm
from tests.by_file import PLAYED, pytest_xdist_make_scheduler
from tests.compiled_sql import CompiledSql, compile_sql
from tests.stores import Stores
from tests.worlds import CONTRACT, EXTRAS

__all__ = ["pytest_xdist_make_scheduler"]

ROWS = 3000
NOW_MS = 1_790_000_000_000
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # read once, when a library is loaded
"""Two processes test on two cores: threads that wait for each other are not to spin while they do."""
DEMO = ("--transactions", "100000", "--live", "600")
OWN_WORLD = WorldSpec(
    seed=11, days=160, customers=160, transactions_per_day=90, tactics_change=120, fraud_share=0.02
)
BAD_ROWS: dict[str, dict[str, str]] = {
    "card_number": {"card": "4111111111111111"},
    "missing_id": {"shop": ""},
    "unreadable_time": {"ts": "yesterday"},
    "future_time": {"ts": "2120-01-01T00:00:00"},
    "negative_amount": {"amount": "-1.00"},
    "unreadable_amount": {"amount": "a lot"},
    "inexact_amount": {"amount": "1.005"},
}
"""Rule that quarantines a row -> what is wrong in it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: PLAYED.index(item.path.name) if item.path.name in PLAYED else len(PLAYED))


@pytest.fixture(scope="module", params=[2, plan.RECENT_MAX], ids=["log", "no_log"])
def carried(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is said of a store is said of keys whose State lets its log begin at once, and of those that need
    none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "RECENT_MAX", request.param)
        yield


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledSql:
    """The feature models over empty tables that a test fills, with the contract of tests/worlds.py."""
    return compile_sql(tmp_path_factory.mktemp("compiled"), CONTRACT, EXTRAS)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Empty online stores of every kind; their servers run until the end of the session."""
    opened = Stores(tmp_path_factory.mktemp("stores"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def tiny_columns() -> dict[str, np.ndarray]:
    """Random feature columns of the whole contract, with unknown values: the amount decides most."""
    generator = np.random.default_rng(5)
    columns: dict[str, np.ndarray] = {}
    for feature in load_contract().features:
        if feature.dtype == "category":
            levels = np.array(["a", "b", "web", None], dtype=object)
            columns[feature.name] = generator.choice(levels, ROWS)
        else:
            values = generator.lognormal(1.0, 1.0, ROWS)
            columns[feature.name] = np.where(generator.random(ROWS) < 0.2, np.nan, values)
    columns["amount_minor"] = generator.lognormal(8.0, 1.5, ROWS).round()
    return columns


@pytest.fixture(scope="session")
def tiny_booster(tiny_columns: dict[str, np.ndarray]) -> Booster:
    contract = load_contract()
    matrix = CategoryEncoder.fit(tiny_columns, contract).matrix(tiny_columns, contract)
    noise = np.random.default_rng(6).random(ROWS)
    is_fraud = (np.log(tiny_columns["amount_minor"]) > 9.0 + 2.0 * noise).astype(np.float64)
    places = [contract.index(name) for name in contract.category_names]
    lightgbm = load_lightgbm()
    data = lightgbm.Dataset(matrix, is_fraud, categorical_feature=places, free_raw_data=False)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": 1, "num_leaves": 15}
    return lightgbm.train(parameters, data, num_boost_round=30)


@pytest.fixture(scope="session")
def tiny_parts(tiny_columns: dict[str, np.ndarray], tiny_booster: Booster) -> BundleParts:
    contract = load_contract()
    encoder = CategoryEncoder.fit(tiny_columns, contract)
    score = np.asarray(tiny_booster.predict(encoder.matrix(tiny_columns, contract)))
    return BundleParts(
        model_text=tiny_booster.model_to_string(),
        calibrator=Calibrator((0.0, 0.5, 1.0), (0.001, 0.3, 0.95)),
        encoder=encoder,
        contract=contract,
        rules_text=load_rules_text(),
        lists_text=load_lists_text(),
        policy_text=load_policy_text(),
        reasons_text=load_reasons_text(),
        reference=Reference.of(tiny_columns, score),
        versions={"as_of": "2026-01-01"},
        evaluation={"average_precision": 0.7},
    )


@pytest.fixture(scope="session")
def transaction_request() -> Callable[..., dict[str, Any]]:
    """A valid request; keyword arguments replace or add fields."""

    def build(**fields: Any) -> dict[str, Any]:
        request = {
            "transaction_id": "t1",
            "event_time": NOW_MS - 1000,
            "card_id": "c1",
            "customer_id": "u1",
            "device_id": "d1",
            "ip_id": "i1",
            "merchant_id": "m1",
            "amount_minor": 1250,
            "currency": "EUR",
            "channel": "web",
        }
        return {**request, **fields}

    return build


@dataclass(frozen=True)
class Cli:
    """`fraud-platform` as a process of its own, over one `var`, started in one folder."""

    var: Path
    cwd: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "FRAUD_PLATFORM_VAR": str(self.var), "COLUMNS": "240", "NO_COLOR": "1"}

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("fraud-platform")), *arguments]

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """What it printed. Fails unless it ended with `status`."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.cwd, env=self.env, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@dataclass(frozen=True)
class Played:
    """A command that was run once for the session: where, and what it printed."""

    cli: Cli
    printed: str

    @property
    def var(self) -> Path:
        return self.cli.var


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The demo on the smallest world whose model passes its gate with room to spare."""
    cli = Cli(tmp_path_factory.mktemp("demo"), PROJECT_ROOT)
    return Played(cli, cli("demo", *DEMO))


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's example: mine.yaml as it stands there, and files that it reads in path/to/files.

    A played world, delivered as somebody's CSV, with bad rows whose rules stand in BAD_ROWS.
    """
    folder = tmp_path_factory.mktemp("own")
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(readme.split("```yaml\n")[1].split("```")[0])
    for stream, frame in own_frames().items():
        (folder / "path/to/files" / stream).mkdir(parents=True)
        frame.to_csv(folder / "path/to/files" / stream / f"{stream}.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def own_run(tmp_path_factory: pytest.TempPathFactory, own_folder: Path) -> Played:
    """The README's command on those files."""
    cli = Cli(tmp_path_factory.mktemp("own-var"), own_folder)
    return Played(cli, cli("run", "--dataset", "mine.yaml", "--source", "path/to/files"))


def own_frames() -> dict[str, pd.DataFrame]:
    """tx: id, ts, card, shop, amount; cb: id, received. Every reported fraud came as a chargeback."""
    world = simulate(OWN_WORLD)
    rows = world.transactions
    good = pd.DataFrame(
        {
            "id": rows["transaction_id"],
            "ts": rows["event_time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f").str[:-3],
            "card": rows["card_id"],
            "shop": rows["merchant_id"],
            "amount": rows["amount_minor"].map(lambda minor: f"{minor / 100:.2f}"),
        }
    )
    bad = pd.DataFrame(
        [{**good.iloc[0].to_dict(), "id": f"bad-{n}", **b} for n, b in enumerate(BAD_ROWS.values())]
    )
    labels = world.labels.loc[world.labels["outcome"] == "fraud"].drop_duplicates("transaction_id")
    known = labels["known_at"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    chargebacks = pd.DataFrame({"id": labels["transaction_id"], "received": known})
    stray = pd.DataFrame({"id": ["nobody"], "received": [known.iloc[0]]})
    return {"tx": pd.concat([good, bad]), "cb": pd.concat([chargebacks, stray])}


@pytest.fixture(scope="session")
def bad_csv_rows() -> dict[str, dict[str, str]]:
    return BAD_ROWS
