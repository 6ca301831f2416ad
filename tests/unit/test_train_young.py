"""Rows too young to be mature teach by what was known when the test part began, and by nothing later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fraud_platform.errors import LabelError, TooFewReportsError, TrainingError
from fraud_platform.evaluate import evaluate
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.learning.delayed import young_labels
from fraud_platform.learning.known import KnownLabels
from fraud_platform.policy import load_policy
from fraud_platform.rules import RuleSet
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import Candidate, Part, Split, TrainParams, YoungLabels, columns_of, train

START = 1_700_006_400_000  # a midnight
GAP = 20 * DAY
END = START + 100 * DAY
PRECEDENCE = ("chargeback",)
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount", kind="field", description="Amount"),
        Feature(name="is_new_scheme", kind="field", description="Marks a kind of fraud that begins late"),
        Feature(name="channel", kind="category", description="Channel"),
    ),
)
PARAMS = TrainParams(rounds_max=40, early_stopping_rounds=10, min_data_in_leaf=20, legit_share=0.5, threads=1)
SPLIT = Split.by_time(START, END, GAP, validation_days=10, test_days=15)
AS_OF = SPLIT.test.start_ms


def make_world(rows: int = 24_000, seed: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and their label events. From the gap on, a mark that told nothing before tells of fraud."""
    rng = np.random.default_rng(seed)
    amount, mark = rng.gamma(2.0, 40.0, rows), rng.random(rows) < 0.1
    moment = np.sort(START + rng.integers(0, END - START, rows))
    is_late = moment >= SPLIT.validation.end_ms
    margin = -4.5 + amount / 60 + np.where(is_late & mark, 4.0, 0.0)
    is_fraud = rng.random(rows) < 1 / (1 + np.exp(-margin))
    channel = rng.choice(["pos", "web"], rows)
    delay = np.where(channel == "web", 4.0, 8.0) * rng.gamma(2.0, 0.5, rows)
    frame = pd.DataFrame(
        {
            "transaction_id": [f"t{i:06d}" for i in range(rows)],
            "event_time": moment,
            "is_fraud": is_fraud,
            "amount": amount,
            "is_new_scheme": mark.astype(float),
            "channel": pd.Series(channel, dtype="str"),
        }
    )
    known_at = moment + np.maximum(1, delay * DAY).astype(np.int64)
    events = pd.DataFrame(
        {
            "transaction_id": frame["transaction_id"],
            "source": "chargeback",
            "outcome": "fraud",
            "known_at": known_at,
        }
    )
    return frame, events[is_fraud].reset_index(drop=True)


WORLD, EVENTS = make_world()


def labels(frame: pd.DataFrame = WORLD, events: pd.DataFrame = EVENTS) -> YoungLabels:
    return young_labels(frame, known(frame, events), AS_OF)


def known(frame: pd.DataFrame, events: pd.DataFrame) -> KnownLabels:
    return KnownLabels.of(events, frame["transaction_id"].to_numpy(dtype=object), PRECEDENCE)


@pytest.fixture(scope="module")
def mature() -> Candidate:
    return train(WORLD, CONTRACT, SPLIT, PARAMS)


@pytest.fixture(scope="module")
def corrected() -> Candidate:
    return train(WORLD, CONTRACT, SPLIT, PARAMS, young=labels())


def test_what_began_in_the_gap_is_learned(mature, corrected):
    test = WORLD[SPLIT.test.mask(WORLD["event_time"].to_numpy())]
    without, with_young = (
        roc_auc_score(test["is_fraud"], model.score(columns_of(test, CONTRACT)))
        for model in (mature, corrected)
    )
    assert with_young > without + 0.05


def test_the_log_says_how_many_taught_and_for_how_many_they_count(corrected):
    young = corrected.log.young
    gap = (WORLD["event_time"] >= SPLIT.validation.end_ms) & (WORLD["event_time"] < AS_OF)
    assert young is not None
    assert SPLIT.validation.end_ms <= young.first_ms <= young.last_ms < AS_OF == young.as_of_ms
    assert 0.2 <= young.known_share_min < 0.5 < 0.95 < young.known_share_max <= 1.0
    true = int(WORLD.loc[gap & (WORLD["event_time"] <= young.last_ms), "is_fraud"].sum())
    assert young.frauds < 0.85 * true
    assert young.frauds_expected == pytest.approx(true, rel=0.15)
    assert f"{young.frauds:,} frauds reported before" in young.explain()


def test_nothing_said_after_the_test_part_began_teaches(corrected):
    """Outcomes of the gap and the test part, and reports from then on, may be anything."""
    frame = WORLD.copy()
    outside = (frame["event_time"] >= SPLIT.validation.end_ms).to_numpy()
    frame.loc[outside, "is_fraud"] = ~frame.loc[outside, "is_fraud"]
    frame.loc[frame["event_time"] >= AS_OF, "amount"] = 1e9
    later = EVENTS["known_at"] >= AS_OF
    told = EVENTS.assign(outcome=np.where(later, "legitimate", EVENTS["outcome"]))
    assert later.any()
    for events in (told, EVENTS[~later]):
        assert train(frame, CONTRACT, SPLIT, PARAMS, young=labels(frame, events)) == corrected


def test_one_report_more_before_it_changes_the_candidate(corrected):
    gap = WORLD[(WORLD["event_time"] >= SPLIT.validation.end_ms) & (WORLD["event_time"] < AS_OF - 10 * DAY)]
    unknown = gap[~gap["transaction_id"].isin(EVENTS["transaction_id"])].iloc[0]
    report = {
        "transaction_id": unknown["transaction_id"],
        "source": "chargeback",
        "outcome": "fraud",
        "known_at": unknown["event_time"] + DAY,
    }
    events = pd.concat([EVENTS, pd.DataFrame([report])], ignore_index=True)
    again = train(WORLD, CONTRACT, SPLIT, PARAMS, young=labels(events=events))
    assert again.fingerprint != corrected.fingerprint
    assert again.log.young.frauds == corrected.log.young.frauds + 1


def test_the_order_of_rows_does_not_matter(corrected):
    shuffled = WORLD.sample(frac=1.0, random_state=3)
    assert train(shuffled, CONTRACT, SPLIT, PARAMS, young=labels(shuffled)) == corrected


def test_a_delay_that_is_always_as_long_as_the_gap_leaves_nothing_to_teach(mature):
    events = EVENTS.merge(WORLD[["transaction_id", "event_time"]])
    events["known_at"] = events.pop("event_time") + GAP
    again = train(WORLD, CONTRACT, SPLIT, PARAMS, young=labels(events=events))
    assert again.log.young is None
    assert again == mature


def test_it_learned_until_the_test_part_and_comes_back_from_its_files(mature, corrected):
    assert mature.learned_until_ms == SPLIT.validation.end_ms
    assert corrected.learned_until_ms == AS_OF
    for model in (mature, corrected):
        assert Candidate.from_files(model.to_files()) == model


def test_rows_that_taught_cannot_judge(mature, corrected):
    rows = WORLD.assign(card_id="c1", currency="EUR", amount_minor=100)
    gap = replace(SPLIT, test=Part(SPLIT.validation.end_ms, SPLIT.test.end_ms), gap_ms=0)
    policy, rules = load_policy(), RuleSet()
    with pytest.raises(TrainingError, match=f"model {corrected.fingerprint[:12]} learned from rows until"):
        evaluate(replace(mature, split=gap), rows, policy, rules, corrected, resamples=10)
    assert evaluate(mature, rows, policy, rules, corrected, resamples=10).rows > 1_000


def test_labels_of_another_moment_or_table_are_refused():
    earlier = young_labels(WORLD, known(WORLD, EVENTS), AS_OF - DAY)
    few = YoungLabels(AS_OF, np.zeros(100, dtype=bool), np.zeros(100))
    with pytest.raises(TrainingError, match=r"young labels of 24000 rows as of .*its test part begins"):
        train(WORLD, CONTRACT, SPLIT, PARAMS, young=earlier)
    with pytest.raises(TrainingError, match="young labels of 100 rows"):
        train(WORLD, CONTRACT, SPLIT, PARAMS, young=few)


def test_an_id_that_is_there_twice_is_no_lack_of_reports():
    """`train/candidate` goes on without the gap where reports are few, and must not where rows are wrong."""
    with pytest.raises(LabelError, match="1 transaction ids are there twice") as caught:
        labels(pd.concat([WORLD, WORLD.tail(1)]))
    assert not isinstance(caught.value, TooFewReportsError)


def test_impossible_shares_are_refused():
    with pytest.raises(LabelError, match=r"share known 1\.5: must be from 0 to 1"):
        YoungLabels(AS_OF, np.zeros(1, dtype=bool), np.array([1.5]))
    with pytest.raises(TooFewReportsError, match="0 known frauds"):
        labels(events=EVENTS.head(0))
