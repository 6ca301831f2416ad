"""The Sparkov benchmark: what chooses and teaches ends before the gap, and nobody's person is an input."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fraud_platform.errors import MappingError, SourceError, TrainingError
from fraud_platform.evaluate.sparkov import (
    CHECK_COUNTS,
    PROTECTED,
    SparkovResult,
    final_split,
    refuse_protected,
    run_sparkov,
    validation_folds,
)
from fraud_platform.features.contract import Feature, FeatureContract, load_contract
from fraud_platform.ingest import load_mapping
from fraud_platform.policy import load_policy
from fraud_platform.rules import rules_from_yaml
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import TrainParams

FIRST, KNOWN_UNTIL, TEST_FIRST, TEST_END = (
    int(pd.Timestamp(day, tz="UTC").timestamp() * 1000)
    for day in ("2019-01-01", "2020-03-25", "2020-04-01", "2020-07-01")
)
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount_minor", kind="field", of=("amount_minor",), description="Amount"),
        Feature(name="channel", kind="category", of=("channel",), description="Channel"),
    ),
)
MAPPING = load_mapping("sparkov")
RULES = rules_from_yaml(
    """
version: 2
rules:
  - name: large
    mode: live
    priority: 1
    action: decline
    code: R01
    owner: tests
    when: amount_minor >= 3000.0
""",
    CONTRACT.dtypes,
)
SMALL = TrainParams(rounds_max=15, early_stopping_rounds=5, min_data_in_leaf=20, legit_share=0.5, threads=1)
CHOICES = {"one round": replace(SMALL, rounds_max=1, num_leaves=2), "fifteen": SMALL}
PEOPLE = pd.DataFrame(
    {"card_id": [f"c{i}" for i in range(299)], "gender": ["F", "M", "F"] * 99 + ["M"] * 2, "age": 40}
).assign(age=lambda people: 20 + people.index % 60)


@pytest.fixture(scope="module")
def world() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 8_000
    fraud = rng.random(n) < 0.03
    web = rng.random(n) < np.where(fraud, 0.8, 0.3)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i:05d}" for i in range(n)],
            "event_time": np.sort(rng.integers(FIRST, TEST_END, n)),
            "card_id": [f"c{i}" for i in rng.integers(0, 300, n)],
            "currency": "USD",
            "amount_minor": np.round(rng.gamma(2.0, np.where(fraud, 15_000.0, 3_000.0))),
            "channel": np.where(web, "ecommerce", "pos"),
            "is_fraud": fraud,
        }
    )


def run(world: pd.DataFrame) -> SparkovResult:
    counts = (len(world), int(world["is_fraud"].sum()))
    return run_sparkov(
        world, CONTRACT, MAPPING, load_policy(), RULES, PEOPLE, choices=CHOICES, expected_counts=counts
    )


@pytest.fixture(scope="module")
def found(world) -> SparkovResult:
    return run(world)


def test_the_quarter_is_judged_after_the_gap_and_chooses_nothing():
    split, folds = final_split(MAPPING.maturity_days), validation_folds(MAPPING.maturity_days)
    assert (split.train.start_ms, split.validation.end_ms) == (FIRST, KNOWN_UNTIL)
    assert (split.test.start_ms, split.test.end_ms) == (TEST_FIRST, TEST_END)
    assert split.test.start_ms - split.validation.end_ms == 7 * DAY
    assert [fold.role for fold in folds] == ["validation"] * len(folds)
    assert folds[-1].split.test.end_ms == KNOWN_UNTIL
    for fold in folds:
        assert fold.split.test.start_ms - fold.split.validation.end_ms >= 7 * DAY


def test_labels_that_take_longer_than_the_gap_are_refused():
    with pytest.raises(TrainingError, match="labels take 30 days to mature"):
        final_split(30)


def test_nothing_from_the_gap_on_changes_the_choice_or_the_model(world, found):
    """Fails where a later outcome reaches the choice, the encoder, the trees or the calibration."""
    later = world["event_time"].to_numpy() >= KNOWN_UNTIL
    changed = world.assign(
        is_fraud=world["is_fraud"].to_numpy() ^ (later & (np.arange(len(world)) % 2 == 0)),
        amount_minor=np.where(later, 1.0, world["amount_minor"]),
    )
    again = run(changed)
    assert again.choices == found.choices
    assert again.candidate == found.candidate
    assert again.evaluation.quality != found.evaluation.quality


def test_the_better_parameters_are_chosen_and_counts_reconcile(world, found):
    assert found.chosen.name == "fifteen"
    assert found.chosen.mean > found.choices[0].mean
    assert found.candidate.params == SMALL
    inside = final_split(7).test.mask(world["event_time"].to_numpy())
    told = found.evaluation
    assert (told.rows, told.frauds) == (inside.sum(), world["is_fraud"].to_numpy()[inside].sum())
    for dimension in ("gender", "age"):
        groups = [group for group in found.groups if group.dimension == dimension]
        assert sum(group.rows for group in groups) == told.rows
        assert sum(group.frauds for group in groups) == told.frauds
        approved = sum(group.approved_frauds * group.frauds for group in groups if group.frauds)
        assert approved == pytest.approx(told.costs["candidate"].frauds_approved), (
            "the rules joined, as judged"
        )
    assert told.costs["candidate"].frauds_approved != told.alone.cost.frauds_approved
    # One card of 300 is nobody's.
    assert "unknown" in {group.value for group in found.groups}


def test_the_shipped_mapping_hands_over_no_person():
    contract = load_contract(extra.column for extra in MAPPING.extras)
    refuse_protected(MAPPING, contract)
    for column in contract.names:
        assert not set(column.split("_")) & set(PROTECTED) - {"first", "last", "age"}


@pytest.mark.parametrize("name", PROTECTED)
def test_a_mapping_that_no_longer_excludes_an_attribute_is_refused(name):
    excluded = {column: reason for column, reason in MAPPING.excluded.items() if column != name}
    with pytest.raises(MappingError, match=rf"\['{name}'\] must be among its excluded columns"):
        refuse_protected(replace(MAPPING, excluded=excluded), CONTRACT)


def test_an_expression_that_reads_an_attribute_is_refused():
    extra = replace(MAPPING.extras[0], expression="CASE Gender WHEN 'F' THEN 1 END")
    with pytest.raises(MappingError, match=r"extra_city_pop reads \['gender'\]"):
        refuse_protected(replace(MAPPING, extras=(extra,)), CONTRACT)


@pytest.mark.parametrize("column", ["customer_id", "card_id", "home_latitude"])
def test_a_feature_that_hands_over_an_identity_is_refused(column):
    feature = Feature(name="who", kind="category", of=(column,), description="Who")
    with pytest.raises(MappingError, match=rf"feature who hands \['{column}'\] to the model"):
        refuse_protected(MAPPING, FeatureContract({}, (feature,)))


def test_another_set_is_refused(world):
    with pytest.raises(SourceError, match=f"sparkov's has \\({CHECK_COUNTS[0]}, {CHECK_COUNTS[1]}\\)"):
        run_sparkov(world, CONTRACT, MAPPING, load_policy(), RULES)
