"""What several kinds of tests share: a small bundle with a real model, and requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pytest

from fraud_platform.calibration import Calibrator
from fraud_platform.features.contract import load_contract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.package import BundleParts, Reference, load_reasons_text
from fraud_platform.policy import load_policy_text
from fraud_platform.rules import load_rules_text

ROWS = 3000
NOW_MS = 1_790_000_000_000


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
def tiny_booster(tiny_columns: dict[str, np.ndarray]) -> lightgbm.Booster:
    contract = load_contract()
    matrix = CategoryEncoder.fit(tiny_columns, contract).matrix(tiny_columns, contract)
    noise = np.random.default_rng(6).random(ROWS)
    is_fraud = (np.log(tiny_columns["amount_minor"]) > 9.0 + 2.0 * noise).astype(np.float64)
    places = [contract.index(name) for name in contract.category_names]
    data = lightgbm.Dataset(matrix, is_fraud, categorical_feature=places, free_raw_data=False)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": 1, "num_leaves": 15}
    return lightgbm.train(parameters, data, num_boost_round=30)


@pytest.fixture(scope="session")
def tiny_parts(tiny_columns: dict[str, np.ndarray], tiny_booster: lightgbm.Booster) -> BundleParts:
    contract = load_contract()
    encoder = CategoryEncoder.fit(tiny_columns, contract)
    score = np.asarray(tiny_booster.predict(encoder.matrix(tiny_columns, contract)))
    return BundleParts(
        model_text=tiny_booster.model_to_string(),
        calibrator=Calibrator((0.0, 0.5, 1.0), (0.001, 0.3, 0.95)),
        encoder=encoder,
        contract=contract,
        rules_text=load_rules_text(),
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
