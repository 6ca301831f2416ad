"""evaluate: the leakage alarm is silent on honest rows and fires on each planted leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fraud_platform.defs.leakage import CHECKS, _keep, _kept
from fraud_platform.errors import TrainingError
from fraud_platform.evaluate.leakage import feature_alarm, future_alarm, score_alarm, shuffled_alarm
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import Candidate, Part, Split, TrainParams, YoungLabels, train

START = 1_700_006_400_000
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount_minor", kind="field", description="Amount"),
        Feature(name="merchant_reports", kind="field", description="Reports known in time"),
    ),
)
SPLIT = Split.by_time(START, START + 60 * DAY, 7 * DAY)
PARAMS = TrainParams(min_data_in_leaf=20, legit_share=0.5)


@pytest.fixture(scope="module")
def world() -> pd.DataFrame:
    """Shops of which a few are dangerous; a fraud is reported ten days after it."""
    rng = np.random.default_rng(5)
    rows = 12_000
    moments = np.sort(START + rng.integers(0, 60 * DAY, rows))
    shop = rng.integers(0, 300, rows)
    is_fraud = rng.random(rows) < np.where(shop < 15, 0.25, 0.005)
    frame = pd.DataFrame(
        {
            "transaction_id": [f"t{i:06d}" for i in range(rows)],
            "event_time": moments,
            "amount_minor": rng.integers(100, 20_000, rows),
            "channel": rng.choice(["pos", "web"], rows),
            "shop": [f"s{number}" for number in shop],
            "is_fraud": is_fraud,
        }
    )
    return frame.assign(merchant_reports=reports(frame, delay_ms=10 * DAY))


def reports(frame: pd.DataFrame, delay_ms: int) -> list[int]:
    """By row, frauds of its shop whose report came before it."""
    moments = frame["event_time"].to_numpy()
    known = frame[frame["is_fraud"]].groupby("shop")["event_time"].apply(lambda times: times.to_numpy())
    return [
        int((known.get(shop, np.array([])) + delay_ms < moment).sum())
        for shop, moment in zip(frame["shop"], moments, strict=True)
    ]


def columns(frame: pd.DataFrame, *names: str) -> dict[str, np.ndarray]:
    return {name: frame[name].to_numpy() for name in names}


def test_features_that_were_known_in_time_are_believed(world):
    named = columns(world, "amount_minor", "merchant_reports", "channel", "shop")
    found = feature_alarm(named, world["is_fraud"].to_numpy())
    assert found.is_clean, found.reason
    assert "best of 4 single features" in found.reason


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_counts_labels_regardless_of_known_at_is_named(world, sign):
    """The row's own report, and those still to come on the transaction, are counted."""
    own = world["is_fraud"].astype(float) * 3 + np.random.default_rng(1).random(len(world))
    leaked = columns(world, "amount_minor") | {"reports_ever": sign * own.to_numpy()}
    found = feature_alarm(leaked, world["is_fraud"].to_numpy())
    assert not found.is_clean
    assert found.suspects == ("reports_ever",)
    assert "reports_ever (AUC 1.0000" in found.reason


def test_a_leak_among_texts_and_unknown_values_is_named(world):
    fraud = world["is_fraud"].to_numpy()
    text = np.where(fraud, "chargeback", "none").astype(object)
    known = np.where(fraud, 1.0, np.nan)
    found = feature_alarm({"state": text, "disputed_at": known}, fraud)
    assert set(found.suspects) == {"state", "disputed_at"}


def test_ids_that_occur_once_are_no_leak(world):
    """A share of fraud by level, taken from the row itself, would be the label."""
    found = feature_alarm(columns(world, "transaction_id"), world["is_fraud"].to_numpy())
    assert found.is_clean, found.reason


def test_few_frauds_prove_no_leak_and_one_class_is_refused(world):
    fraud = np.zeros(100, dtype=bool)
    fraud[:3] = True
    assert feature_alarm({"x": fraud.astype(float)}, fraud).reason.startswith("3 frauds are too few")
    assert score_alarm(1.0, 3).is_clean
    with pytest.raises(TrainingError, match="0 frauds in 5 rows"):
        feature_alarm({"x": np.zeros(5)}, np.zeros(5, dtype=bool))


def test_a_score_beyond_the_limit_of_its_dataset_is_not_believed():
    assert score_alarm(0.77, 50, 0.78).is_clean
    assert not score_alarm(0.79, 50, 0.78).is_clean
    assert score_alarm(0.79, 50).is_clean
    assert "AP 0.9800; more than 0.97" in score_alarm(0.98, 50).reason


def test_shuffled_labels_teach_nothing(world):
    found = shuffled_alarm(world, CONTRACT, SPLIT, PARAMS)
    assert found.is_clean, found.reason


def test_a_learner_that_sees_the_test_part_is_found_out(world):
    """Its train part is the rows that judge; its validation is what is left of them."""

    def peeking(
        rows: pd.DataFrame,
        contract: FeatureContract,
        split: Split,
        params: TrainParams,
        *,
        young: YoungLabels | None = None,
    ) -> Candidate:
        seen = Split(
            Part(split.test.start_ms, split.test.end_ms - 4 * DAY),
            Part(split.test.end_ms - 4 * DAY, split.test.end_ms),
            Part(split.test.end_ms, split.test.end_ms + DAY),
            gap_ms=0,
        )
        return train(rows, contract, seen, replace(params, legit_share=1.0, min_data_in_leaf=1))

    found = shuffled_alarm(world, CONTRACT, SPLIT, PARAMS, learn=peeking)
    assert not found.is_clean
    assert found.reason.startswith("AUC 0.")


def test_young_rows_that_know_their_outcome_are_found_out(world):
    """The rows of the gap are those that judge, with the labels that were dealt to them."""
    young = YoungLabels(
        SPLIT.test.start_ms,
        world["is_fraud"].to_numpy() & (world["event_time"].to_numpy() < SPLIT.test.start_ms),
        np.where(world["event_time"].to_numpy() < SPLIT.test.start_ms, 0.9, 0.0),
    )
    found = shuffled_alarm(world, CONTRACT, SPLIT, PARAMS, young)
    assert found.is_clean, found.reason

    def peeking(
        rows: pd.DataFrame,
        contract: FeatureContract,
        split: Split,
        params: TrainParams,
        *,
        young: YoungLabels | None = None,
    ) -> Candidate:
        assert young is not None
        judges = rows.loc[split.test.mask(rows["event_time"].to_numpy())]
        times = [
            judges.assign(
                event_time=split.test.start_ms - 1, transaction_id=f"g{time}" + judges["transaction_id"]
            )
            for time in range(8)
        ]
        seen = pd.concat([rows, *times], ignore_index=True)
        known = np.append(young.is_known_fraud, np.tile(judges["is_fraud"].to_numpy(), len(times)))
        share = np.append(young.known_share, np.ones(len(times) * len(judges)))
        exact = replace(params, legit_share=1.0, min_data_in_leaf=1)
        return train(seen, contract, split, exact, young=YoungLabels(young.as_of_ms, known, share))

    found = shuffled_alarm(world, CONTRACT, SPLIT, PARAMS, young, learn=peeking)
    assert not found.is_clean, found.reason


def test_changed_values_are_named_by_how_many_there_are():
    assert future_alarm("2025-01-01", 10, {"a": 0, "b": 0}).is_clean
    found = future_alarm("2025-01-01", 10, {"a": 1, "b": 0, "c": 3})
    assert not found.is_clean
    assert found.suspects == ("c", "a")
    assert not future_alarm("2025-01-01", 0, {"a": 0}).is_clean


def test_findings_are_kept_for_the_inputs_they_were_made_of(tmp_path: Path):
    folder = tmp_path / "leakage" / "f"
    assert _kept(folder, "a") is None
    found = (score_alarm(0.98, 50), future_alarm("2025-01-01", 10, {"a": 1}))
    _keep(folder, "a", found)
    assert _kept(folder, "a") == found
    assert _kept(folder, "b") is None
    _keep(folder, "b", found[:1])
    assert (_kept(folder, "a"), _kept(folder, "b")) == (None, found[:1])


def test_every_finding_has_a_check(world):
    named = columns(world, "amount_minor")
    found = [
        feature_alarm(named, world["is_fraud"].to_numpy()),
        score_alarm(0.5, 50),
        shuffled_alarm(world, CONTRACT, SPLIT, PARAMS),
        future_alarm("2025-01-01", 10, {}),
    ]
    assert [one.name for one in found] == list(CHECKS)
