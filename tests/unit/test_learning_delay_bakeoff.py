"""The delay bake-off on a small world with planted delays: fair, chosen before it is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fraud_platform.errors import TrainingError
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.learning.delay_bakeoff import delay_folds, run_delay_bakeoff
from fraud_platform.learning.delay_contenders import (
    CORRECTED,
    NAIVE,
    ORACLE,
    SHIPPED,
    DelayPlan,
    Learner,
    wait,
)
from fraud_platform.learning.delay_result import DelayBakeoff
from fraud_platform.learning.delay_rows import DelayRows, Past
from fraud_platform.policy import load_policy
from fraud_platform.rules import rules_from_yaml
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import TrainParams

START = 20_000 * DAY
DAYS, ROWS, CHANGE = 100, 30_000, 60
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount_minor", kind="field", description="Amount"),
        Feature(name="old_sign", kind="field", description="High in the frauds of the first days"),
        Feature(name="new_sign", kind="field", description="High in the frauds after the change"),
        Feature(name="channel", kind="category", description="Channel"),
    ),
)
PARAMS = TrainParams(
    rounds_max=25, early_stopping_rounds=10, learning_rate=0.2, num_leaves=7, legit_share=0.5, threads=1
)
RULES = rules_from_yaml(
    """
version: 2
rules:
  - {name: large, mode: live, priority: 1, action: decline, code: T1, owner: me, when: amount_minor >= 3e4}
""",
    CONTRACT.dtypes,
)


def world(seed: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with their truth, and the label events: frauds of the web take weeks, others days."""
    rng = np.random.default_rng(seed)
    event_time = np.sort(START + rng.integers(0, DAYS * DAY, ROWS))
    is_new = event_time >= START + CHANGE * DAY
    is_fraud = rng.random(ROWS) < 0.04
    channel = np.where(rng.random(ROWS) < 0.6, "web", "pos")
    ids = np.array([f"t{i:06d}" for i in range(ROWS)], dtype=object)
    frame = pd.DataFrame(
        {
            "transaction_id": ids,
            "event_time": event_time,
            "card_id": rng.integers(0, 2_000, ROWS).astype(str),
            "amount_minor": rng.gamma(2.0, 6_000.0, ROWS).round(),
            "currency": "EUR",
            "channel": pd.Series(channel, dtype="str"),
            "old_sign": rng.normal(size=ROWS) + 2.5 * (is_fraud & ~is_new),
            "new_sign": rng.normal(size=ROWS) + 2.5 * (is_fraud & is_new),
            "is_fraud": is_fraud,
            "is_friendly": is_fraud & (rng.random(ROWS) < 0.05),
        }
    )
    delay = np.where(channel == "web", rng.gamma(2.0, 6.0, ROWS), rng.gamma(1.0, 2.0, ROWS)) * DAY
    events = pd.DataFrame(
        {
            "transaction_id": ids[is_fraud],
            "source": "chargeback",
            "outcome": "fraud",
            "known_at": event_time[is_fraud] + delay[is_fraud].astype(np.int64),
        }
    )
    return frame, events


def made(frame: pd.DataFrame, events: pd.DataFrame) -> DelayRows:
    return DelayRows.of(frame, events, ("chargeback",), CONTRACT, PARAMS.legit_share, PARAMS.seed)


@pytest.fixture(scope="module")
def plan() -> DelayPlan:
    return DelayPlan(14, (3, 14, 20), PARAMS, as_ofs=3, assessed_days=9, held_out_days=4)


@pytest.fixture(scope="module")
def rows() -> DelayRows:
    return made(*world())


@pytest.fixture(scope="module")
def found(rows: DelayRows, plan: DelayPlan) -> DelayBakeoff:
    return run_delay_bakeoff(rows, CONTRACT, load_policy(), RULES, plan)


NAMES = (NAIVE, wait(3), wait(14), wait(20), *CORRECTED, ORACLE)


def test_every_contender_is_judged_on_the_same_rows_by_the_truth(
    found: DelayBakeoff, rows: DelayRows
) -> None:
    for role, contenders in found.contenders.items():
        assert tuple(one.name for one in contenders) == NAMES
        parts = [fold.split.test for fold in found.folds if fold.role == role]
        inside = (rows.event_time >= parts[0].start_ms) & (rows.event_time < parts[-1].end_ms)
        assert found.rows[role] == inside.sum()
        assert found.frauds[role] == rows.is_fraud[inside].sum()
    reference = next(one for one in found.contenders["test"] if one.name == found.reference)
    assert reference.saved.estimate == reference.average_precision_gain.estimate == 0.0


def test_the_truth_teaches_most_and_taking_silence_for_good_costs(found: DelayBakeoff) -> None:
    """Fails where labels of the assessed days reach a contender: it would then do as well as the oracle."""
    later = {one.name: one for one in found.contenders["test"]}
    assert later[ORACLE].cost.estimate < later[NAIVE].cost.estimate
    assert later[ORACLE].teaching_frauds > later[wait(3)].teaching_frauds > later[wait(20)].teaching_frauds
    assert later[NAIVE].expected_frauds < 0.8 * found.frauds["test"], "unreported frauds count as legitimate"
    assert later[CORRECTED[0]].expected_frauds > later[wait(14)].expected_frauds


def test_what_is_chosen_is_cheapest_on_the_earlier_as_ofs(found: DelayBakeoff) -> None:
    cost = {one.name: one.cost.estimate for one in found.contenders["validation"]}
    assert found.best_window == min((wait(3), wait(14), wait(20)), key=cost.__getitem__)
    assert found.best_correction == min(CORRECTED, key=cost.__getitem__)
    assert found.best == min((name for name in NAMES if name != ORACLE), key=cost.__getitem__)


def test_head_to_head_is_the_difference_of_the_costs(found: DelayBakeoff) -> None:
    cost = {one.name: one.cost.estimate for one in found.contenders["test"]}
    pairs = {(one.name, one.other) for one in found.versus}
    assert pairs >= {(ORACLE, found.best_correction), (SHIPPED, found.reference)}
    for one in found.versus:
        assert one.saved.estimate == pytest.approx(cost[one.other] - cost[one.name])
        assert one.saved.low <= one.saved.estimate <= one.saved.high


def test_ways_to_decide_are_priced_on_the_later_rows(found: DelayBakeoff) -> None:
    ways = {one.name: one for one in found.ways}
    model, waited = (ways[f"policy on {name}"] for name in (SHIPPED, found.reference))
    later = {one.name: one for one in found.contenders["test"]}
    assert model.cost.estimate == pytest.approx(later[SHIPPED].cost.estimate)
    assert waited.cost.estimate == pytest.approx(later[found.reference].cost.estimate)
    assert model.model_saves.estimate == 0.0
    assert ways["approve all"].missed == 1.0
    assert ways["approve all"].stopped_good == 0.0
    assert ways["approve all"].cost.estimate > model.cost.estimate
    assert ways["rules alone"].stopped_good > 0.0


def test_the_tables_and_sentences_tell_all_of_it(found: DelayBakeoff) -> None:
    assert len(found.table()) == 2 * len(NAMES)
    assert len({tuple(record) for record in found.table()}) == 1, "one set of columns"
    assert len(found.ways_table()) == len(found.ways)
    said = "\n".join(found.explain())
    assert found.best_window in said
    assert any(verdict in said for verdict in ("costs less", "costs more", "cannot be told apart"))


def test_a_learner_sees_nothing_of_the_time_after_its_as_of(rows: DelayRows, plan: DelayPlan) -> None:
    """The same models where every later label and truth is turned round; fails where one of them is read."""
    fold = delay_folds(int(rows.event_time[0]), int(rows.event_time[-1]) + 1, plan)[0]
    frame, events = world()
    is_later = (frame["event_time"] >= fold.as_of_ms).to_numpy()
    frame.loc[is_later, "is_fraud"] = ~frame.loc[is_later, "is_fraud"]
    frame.loc[is_later, ["old_sign", "new_sign"]] = 99.0
    later_known = (events["known_at"] >= fold.as_of_ms).to_numpy()
    events.loc[later_known, "known_at"] += 900 * DAY
    other = made(frame, events)
    for one, again in zip(
        Learner(rows, Past.at(rows, fold), plan, CONTRACT).contenders(),
        Learner(other, Past.at(other, fold), plan, CONTRACT).contenders(),
        strict=True,
    ):
        assert one.booster.model_to_string() == again.booster.model_to_string(), one.name
        assert one.calibrator == again.calibrator


def test_young_rows_teach_a_corrected_contender_only(rows: DelayRows, plan: DelayPlan) -> None:
    fold = delay_folds(int(rows.event_time[0]), int(rows.event_time[-1]) + 1, plan)[-1]
    found = {one.name: one for one in Learner(rows, Past.at(rows, fold), plan, CONTRACT).contenders()}
    calibrated, unweighted, importance = (found[name] for name in CORRECTED[:3])
    assert calibrated.booster is found[wait(14)].booster
    assert calibrated.calibrator != found[wait(14)].calibrator
    assert unweighted.teaching_rows > importance.teaching_rows > calibrated.teaching_rows
    assert importance.teaching_frauds > unweighted.teaching_frauds > calibrated.teaching_frauds


def test_a_world_too_short_or_too_small_is_refused(rows: DelayRows, plan: DelayPlan) -> None:
    with pytest.raises(TrainingError, match="give more history"):
        run_delay_bakeoff(rows, CONTRACT, load_policy(), RULES, replace(plan, windows_days=(14, 60)))
    frame, events = world()
    with pytest.raises(TrainingError, match=r"0 frauds teach; at least 10"):
        run_delay_bakeoff(made(frame, events.iloc[:0]), CONTRACT, load_policy(), RULES, plan)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"windows_days": (3, 20)}, "rising, with the dataset's 14"),
        ({"windows_days": (0, 14)}, "days from 1 on"),
        ({"windows_days": (20, 14)}, "rising"),
        ({"as_ofs": 0}, "as_ofs=0: must be 1 or more"),
        ({"assessed_days": -1}, "assessed_days=-1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan: DelayPlan, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        replace(plan, **changed)
