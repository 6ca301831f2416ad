"""train: the gap is honoured, the same data gives the same bytes, and noise teaches nothing."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fraud_platform.adapters.candidates import read_candidate, write_candidate
from fraud_platform.defs.train import TrainConfig
from fraud_platform.errors import BundleError, ContractError, TrainingError
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import Candidate, Part, Split, TrainParams, columns_of, sample_rows, train
from fraud_platform.train.rows import in_order

START = 1_700_006_400_000  # 2023-11-15, a midnight
GAP = 7 * DAY
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount", kind="field", description="Amount"),
        Feature(name="card_reports", kind="field", description="Reports, unknown now and then"),
        Feature(name="always_unknown", kind="field", description="NULL in every row"),
        Feature(name="channel", kind="category", description="Channel"),
    ),
)
PARAMS = TrainParams(rounds_max=40, early_stopping_rounds=10, min_data_in_leaf=20, legit_share=0.5)


def make_world(rows: int = 6_000, days: int = 60, seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    amount, reports = rng.gamma(2.0, 40.0, rows), rng.poisson(0.3, rows).astype(float)
    channel = rng.choice(["pos", "web", "atm"], rows)
    margin = -5.5 + amount / 60 + 1.5 * reports + 1.0 * (channel == "web")
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i:06d}" for i in range(rows)],
            "event_time": np.sort(START + rng.integers(0, days * DAY, rows)),
            "is_fraud": rng.random(rows) < 1 / (1 + np.exp(-margin)),
            "amount": amount,
            "card_reports": np.where(rng.random(rows) < 0.1, np.nan, reports),
            "always_unknown": np.full(rows, np.nan),
            "channel": pd.Series(np.where(rng.random(rows) < 0.05, None, channel), dtype="str"),
        }
    )


@pytest.fixture(scope="module")
def world() -> pd.DataFrame:
    return make_world()


@pytest.fixture(scope="module")
def split() -> Split:
    return Split.by_time(START, START + 60 * DAY, GAP)


@pytest.fixture(scope="module")
def candidate(world, split) -> Candidate:
    return train(world, CONTRACT, split, PARAMS)


def test_what_judges_comes_after_a_gap_as_long_as_labels_take(split):
    assert split.validation.start_ms == split.train.end_ms
    assert split.test.start_ms - split.validation.end_ms == GAP
    assert split.train.start_ms == START
    assert split.test.end_ms == START + 60 * DAY
    assert [(p.end_ms - p.start_ms) / DAY for p in (split.train, split.validation, split.test)] == [36, 7, 10]


def test_a_day_that_is_not_over_is_left_out():
    assert Split.by_time(START, START + 60 * DAY + 12345, GAP).test.end_ms == START + 60 * DAY


def test_a_split_without_the_gap_is_refused():
    parts = (Part(0, 10 * DAY), Part(10 * DAY, 20 * DAY), Part(26 * DAY, 30 * DAY))
    with pytest.raises(TrainingError, match="validation ends 6 days before test; labels take 7 days"):
        Split(*parts, gap_ms=GAP)


def test_a_validation_inside_train_is_refused():
    parts = (Part(0, 10 * DAY), Part(9 * DAY, 20 * DAY), Part(27 * DAY, 30 * DAY))
    with pytest.raises(TrainingError, match=r"validation \(.*\) begins before train"):
        Split(*parts, gap_ms=GAP)


def test_a_history_that_is_too_short_is_refused():
    with pytest.raises(TrainingError, match="9 days of mature history less a gap of 7 days leave 2 days"):
        Split.by_time(START, START + 9 * DAY, GAP)


def test_rows_in_gaps_and_in_the_test_part_do_not_matter(world, split, candidate):
    """A row may teach only when its label window closed before the next part begins."""
    when = world["event_time"].to_numpy()
    outside = ~(split.train.mask(when) | split.validation.mask(when))
    changed = world.copy()
    changed.loc[outside, "is_fraud"] = ~changed.loc[outside, "is_fraud"]
    changed.loc[outside, "amount"] = 1e9
    again = train(changed, CONTRACT, split, PARAMS)
    assert again.fingerprint == candidate.fingerprint
    assert again.model_text == candidate.model_text


def test_the_same_data_gives_the_same_candidate_in_any_order(world, split, candidate):
    again = train(world.sample(frac=1.0, random_state=1), CONTRACT, split, PARAMS)
    assert again == candidate
    files, files_again = candidate.to_files(), again.to_files()
    assert {n: files[n] for n in files if n != "candidate.json"} == {
        n: files_again[n] for n in files if n != "candidate.json"
    }


def test_rows_of_one_moment_are_put_in_order_by_their_ids(world, split):
    """Fails where ids are compared only now and then: hours hold many rows each."""
    hourly = world.assign(event_time=world["event_time"] // 3_600_000 * 3_600_000)
    inside = split.train.mask(hourly["event_time"].to_numpy())
    shuffled = hourly.sample(frac=1.0, random_state=4)
    chosen = split.train.mask(shuffled["event_time"].to_numpy())
    placed = shuffled.iloc[in_order(shuffled, chosen)]["transaction_id"].tolist()
    expected = hourly[inside].sort_values(["event_time", "transaction_id"])["transaction_id"].tolist()
    assert placed == expected
    assert train(hourly, CONTRACT, split, PARAMS) == train(shuffled, CONTRACT, split, PARAMS)


def test_the_line_is_the_same_in_pieces(world, split, candidate, monkeypatch):
    """Rows are standardised some at a time; how many must not matter."""
    matrix = candidate.matrix(columns_of(world, CONTRACT))
    whole = candidate.baseline.score(matrix)
    monkeypatch.setattr("fraud_platform.train.baseline.ROWS_AT_ONCE", 97)
    assert candidate.baseline.score(matrix).tolist() == whole.tolist()
    again = train(world, CONTRACT, split, PARAMS)
    np.testing.assert_allclose(again.baseline.weights, candidate.baseline.weights, rtol=1e-6)


@pytest.mark.parametrize("is_prior_kept", [False, True])
def test_the_line_learns_as_much_from_some_of_many_legitimate_rows(world, split, monkeypatch, is_prior_kept):
    params = TrainParams(rounds_max=5, legit_share=0.5, is_prior_kept=is_prior_kept)
    whole = train(world, CONTRACT, split, params)
    monkeypatch.setattr("fraud_platform.train.baseline.LEGIT_ROWS_MAX", 700)
    some = train(world, CONTRACT, split, params)
    test = world[split.test.mask(world["event_time"].to_numpy())]
    matrix = some.matrix(columns_of(test, CONTRACT))
    assert some.baseline.weights != whole.baseline.weights
    of_whole, of_some = (roc_auc_score(test["is_fraud"], one.baseline.score(matrix)) for one in (whole, some))
    assert of_some > of_whole - 0.02
    if is_prior_kept:
        expected = [one.baseline.score(matrix).mean() for one in (whole, some)]
        assert expected[1] == pytest.approx(expected[0], rel=0.2)


def test_other_data_or_parameters_give_another_fingerprint(world, split, candidate):
    changed = world.copy()
    changed.loc[10, "amount"] += 0.01
    changed.loc[10, "is_fraud"] = True
    assert train(changed, CONTRACT, split, PARAMS).fingerprint != candidate.fingerprint
    other = replace(PARAMS, seed=8)
    assert train(world, CONTRACT, split, other).fingerprint != candidate.fingerprint


def test_it_learns_what_there_is_and_says_what_it_did(world, split, candidate):
    test = world[split.test.mask(world["event_time"].to_numpy())]
    columns = columns_of(test, CONTRACT)
    score = candidate.score(columns)
    assert roc_auc_score(test["is_fraud"], score) > 0.84
    assert roc_auc_score(test["is_fraud"], candidate.baseline.score(candidate.matrix(columns))) > 0.85
    assert candidate.probability(columns).mean() == pytest.approx(test["is_fraud"].mean(), rel=0.5)
    part = world[split.train.mask(world["event_time"].to_numpy())]
    assert (candidate.log.train.rows, candidate.log.train.frauds) == (len(part), part["is_fraud"].sum())
    assert candidate.log.train.frauds < candidate.log.teaching_rows < candidate.log.train.rows
    assert 1 <= candidate.log.rounds <= PARAMS.rounds_max
    assert candidate.booster.num_trees() == candidate.log.rounds


def test_shuffled_labels_teach_nothing(world, split):
    """Were anything of the outcome in the features, a model of shuffled outcomes would still rank."""
    shuffled = world.copy()
    shuffled["is_fraud"] = np.random.default_rng(0).permutation(world["is_fraud"].to_numpy())
    candidate = train(shuffled, CONTRACT, split, PARAMS)
    test = shuffled[split.test.mask(shuffled["event_time"].to_numpy())]
    auc = roc_auc_score(test["is_fraud"], candidate.score(columns_of(test, CONTRACT)))
    assert auc == pytest.approx(0.5, abs=0.08)


def test_sampling_hangs_on_the_id_alone():
    ids = np.array([f"t{i}" for i in range(20_000)], dtype=object)
    fraud = np.zeros(len(ids), dtype=bool)
    fraud[:100] = True
    kept = sample_rows(ids, fraud, 0.1, seed=7)
    assert kept[:100].all()
    assert kept[100:].mean() == pytest.approx(0.1, abs=0.01)
    assert (sample_rows(ids[5_000:], fraud[5_000:], 0.1, seed=7) == kept[5_000:]).all()
    assert sample_rows(ids, fraud, 1.0, seed=7).all()
    assert (sample_rows(ids, fraud, 0.1, seed=8) != kept).any()


def test_weights_keep_the_prior(world, split):
    kept = train(world, CONTRACT, split, replace(PARAMS, is_prior_kept=True, early_stopping_rounds=0))
    plain = train(world, CONTRACT, split, replace(PARAMS, early_stopping_rounds=0))
    columns = columns_of(world, CONTRACT)
    assert kept.score(columns).mean() < plain.score(columns).mean()


def test_a_candidate_survives_its_folder_to_the_bit(tmp_path, world, candidate):
    folder = write_candidate(candidate, tmp_path / "candidates")
    assert folder.name == candidate.fingerprint
    back = read_candidate(folder)
    columns = columns_of(world, CONTRACT)
    assert back == candidate
    assert back.score(columns).tobytes() == candidate.score(columns).tobytes()
    matrix = candidate.matrix(columns)
    assert back.baseline.probability(matrix).tobytes() == candidate.baseline.probability(matrix).tobytes()


def test_writing_twice_keeps_the_first_folder(tmp_path, candidate):
    first = write_candidate(candidate, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert write_candidate(candidate, tmp_path) == first
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [candidate.fingerprint]


def test_a_half_written_folder_is_replaced(tmp_path, candidate):
    half = tmp_path / candidate.fingerprint
    half.mkdir()
    (half / "model.txt").write_text("tree")
    assert read_candidate(write_candidate(candidate, tmp_path)) == candidate


@pytest.mark.parametrize("name", ["model.txt", "contract.json"])
def test_a_changed_file_is_refused(tmp_path, candidate, name):
    folder = write_candidate(candidate, tmp_path)
    content = (folder / name).read_text()
    (folder / name).write_text(content.replace("amount", "amounts"))
    with pytest.raises(BundleError, match=f"{name} was changed"):
        read_candidate(folder)


def test_a_missing_file_is_named(tmp_path, candidate):
    folder = write_candidate(candidate, tmp_path)
    (folder / "encoder.json").unlink()
    with pytest.raises(BundleError, match=r"encoder\.json"):
        read_candidate(folder)


def test_what_cannot_teach_is_refused(world, split):
    harmless = world.assign(is_fraud=False)
    with pytest.raises(TrainingError, match=r"the train part .* 0 frauds"):
        train(harmless, CONTRACT, split, PARAMS)
    with pytest.raises(ContractError, match="'card_reports'"):
        train(world.drop(columns="card_reports"), CONTRACT, split, PARAMS)
    with pytest.raises(TrainingError, match="legit_share=0"):
        TrainParams(legit_share=0)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("num_leaves", 1, "must be from 2 to 131,072; the default is 31"),
        ("num_leaves", 131_073, "must be from 2 to 131,072"),
        ("learning_rate", -1.0, "must be finite and above 0; the default is 0.05"),
        ("learning_rate", float("nan"), "must be finite and above 0"),
        ("learning_rate", float("inf"), "must be finite and above 0"),
        ("feature_fraction", 0.0, "must be above 0 and at most 1"),
        ("bagging_fraction", 1.1, "must be above 0 and at most 1"),
        ("legit_share", -0.1, "must be above 0 and at most 1"),
        ("lambda_l2", -1.0, "must be finite and 0 or more"),
        ("min_data_in_leaf", -1, "must be 0 or more"),
        ("early_stopping_rounds", -1, "must be 0 or more"),
        ("max_bin", 1, "must be 2 or more"),
        ("rounds_max", -1, "must be 1 or more"),
    ],
)
def test_a_parameter_that_nothing_learns_with_is_named_with_its_rule(tmp_path, name, value, rule):
    with pytest.raises(TrainingError, match=re.escape(f"{name}={value}: {rule}")):
        TrainParams(**{name: value})
    if name in TrainConfig.model_fields:
        with pytest.raises(TrainingError, match=f"{name}={value}"):
            TrainConfig(**{name: value}).params(tmp_path)


def test_parameters_at_their_limits_learn(world, split):
    least = {"num_leaves": 2, "min_data_in_leaf": 0, "lambda_l2": 0.0, "max_bin": 2, "rounds_max": 1}
    trained = train(world, CONTRACT, split, replace(PARAMS, early_stopping_rounds=0, **least))
    assert trained.log.rounds == 1
