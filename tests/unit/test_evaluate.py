"""evaluate: metrics against values worked by hand, money, intervals, and who may be judged on what."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fraud_platform.errors import ContractError, TrainingError
from fraud_platform.evaluate import (
    Cost,
    Evaluation,
    Interval,
    amount_major,
    bands,
    calibration_bins,
    calibration_error,
    card_precision_at_k,
    choices,
    evaluate,
    measure,
    paired_bootstrap,
    rates,
    recall_at_precision,
    rungs,
)
from fraud_platform.evaluate.joined import live_answers
from fraud_platform.evaluate.money import threshold_costs
from fraud_platform.evaluate.rungs import APPROVE_ALL
from fraud_platform.evaluate.segments import slices
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.policy import Fallback, Policy, load_policy
from fraud_platform.rules import RuleSet, rules_from_yaml
from fraud_platform.schema import ACTIONS
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import Candidate, Part, Split, TrainParams, columns_of, train

START = 1_700_006_400_000
CONTRACT = FeatureContract(
    {},
    (
        Feature(name="amount_minor", kind="field", description="Amount"),
        Feature(name="card_reports", kind="field", description="Reports"),
        Feature(name="channel", kind="category", description="Channel"),
    ),
)
RULES = rules_from_yaml(
    """
version: 2
rules:
  - name: reported
    mode: live
    priority: 1
    action: decline
    code: R01
    owner: tests
    when: card_reports >= 3
""",
    CONTRACT.dtypes,
)
PARAMS = TrainParams(rounds_max=40, early_stopping_rounds=10, min_data_in_leaf=20, legit_share=0.5)


def make_world(rows: int = 8_000, days: int = 60, seed: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    amount, reports = rng.gamma(2.0, 40.0, rows), rng.poisson(0.3, rows).astype(float)
    channel = rng.choice(["pos", "web"], rows)
    margin = -5.5 + amount / 60 + 1.5 * reports + 1.0 * (channel == "web")
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i:06d}" for i in range(rows)],
            "event_time": np.sort(START + rng.integers(0, days * DAY, rows)),
            "card_id": [f"c{i:03d}" for i in rng.integers(0, 400, rows)],
            "amount_minor": np.round(amount * 100).astype(np.int64),
            "currency": "EUR",
            "category": None,
            "card_country": rng.choice(["FR", "DE", ""], rows),
            "channel": channel,
            "is_fraud": rng.random(rows) < 1 / (1 + np.exp(-margin)),
            "card_reports": reports,
        }
    )


def heard(n: int) -> np.ndarray:
    """What is answered to n rows where no rule has a say: what the policy says."""
    return RuleSet().answers(np.zeros((n, 0), dtype=bool))


@pytest.fixture(scope="module")
def world() -> pd.DataFrame:
    return make_world()


@pytest.fixture(scope="module")
def candidate(world) -> Candidate:
    return train(world, CONTRACT, Split.by_time(START, START + 60 * DAY, 7 * DAY), PARAMS)


@pytest.fixture(scope="module")
def weak(world) -> Candidate:
    """A champion that learned from the same moments, a tree or two only."""
    split = Split.by_time(START, START + 60 * DAY, 7 * DAY)
    return train(world, CONTRACT, split, replace(PARAMS, rounds_max=2, num_leaves=2))


@pytest.fixture(scope="module")
def evaluation(world, candidate, weak) -> Evaluation:
    return evaluate(candidate, world, load_policy(), RULES, champion=weak, resamples=200)


def test_card_precision_by_hand():
    """Two days, k = 2. Day 1: a (.9, fraud) and b (.8) lead, so 1/2, and a is detected. Day 2: a is left
    out although it scores highest; c (best of .3 and .7, fraud by its lesser row) and b lead: 1/2."""
    rows = [
        ("a", 0, 0.9, 1),
        ("b", 0, 0.8, 0),
        ("c", 0, 0.1, 1),
        ("a", 1, 0.99, 1),
        ("b", 1, 0.6, 0),
        ("c", 1, 0.3, 1),
        ("c", 1, 0.7, 0),
        ("d", 1, 0.2, 1),
    ]
    card, day, score, fraud = (np.array(column) for column in zip(*rows, strict=True))
    moments = START + day * DAY + 1
    assert card_precision_at_k(score, fraud, moments, card, k=2) == pytest.approx(0.5)
    assert card_precision_at_k(score, fraud, moments, card, k=1) == pytest.approx((1 + 1) / 2)
    assert card_precision_at_k(score, fraud, moments, card, k=4) == pytest.approx((2 / 4 + 1 / 4) / 2)


def test_recall_at_precision_by_hand():
    fraud = np.array([1, 1, 0, 1, 0, 1])
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert recall_at_precision(score, fraud, 0.95) == pytest.approx(0.5)
    assert recall_at_precision(score, fraud, 0.75) == pytest.approx(0.75)
    assert recall_at_precision(score, fraud, 0.6) == pytest.approx(1.0)
    assert recall_at_precision(-score, fraud, 0.99) == pytest.approx(0.25)
    assert recall_at_precision(score, 1 - fraud, 0.5) == 0.0


def test_quality_by_hand():
    fraud = np.array([1, 0, 1, 0])
    score = np.array([0.9, 0.8, 0.7, 0.1])
    probability = np.array([0.8, 0.4, 0.4, 0.0])
    quality = measure(score, probability, fraud, np.full(4, START), np.array(["a", "b", "c", "d"]))
    assert quality.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert quality.auc == pytest.approx(3 / 4)
    assert quality.brier == pytest.approx((0.04 + 0.16 + 0.36 + 0.0) / 4)
    assert quality.card_precision == pytest.approx(2 / 100)


def test_calibration_bins_and_error_by_hand():
    probability = np.array([0.1] * 10 + [0.5] * 2)
    fraud = np.array([1] + [0] * 9 + [1, 1])
    bins = calibration_bins(probability, fraud, bins=2)
    assert [(b.rows, b.mean_probability, b.fraud_rate) for b in bins] == [
        (10, pytest.approx(0.1), pytest.approx(0.1)),
        (2, pytest.approx(0.5), pytest.approx(1.0)),
    ]
    assert calibration_error(calibration_bins(probability, fraud, bins=4)) == pytest.approx(2 * 0.5 / 12)


def test_judging_one_class_is_refused():
    four = np.zeros(4)
    with pytest.raises(TrainingError, match="0 frauds in 4 rows to judge on"):
        measure(four, four, four, four, four.astype(str))


def test_amounts_follow_the_currency():
    amounts = amount_major(np.array([1234, 1234, 1234]), np.array(["EUR", "JPY", "KWD"], dtype=object))
    assert amounts.tolist() == [12.34, 1234.0, 1.234]
    with pytest.raises(TrainingError, match="XXX"):
        amount_major(np.array([1]), np.array(["XXX"]))


def test_threshold_costs_by_hand():
    policy = Policy(50.0, 100.0, 1.0, 0.1, 0.1, 12.0, Fallback(0.02, "step_up"))
    probability, fraud, amount = np.array([0.0, 0.2, 0.9]), np.array([0, 1, 1]), np.array([10.0, 20.0, 30.0])
    thresholds, costs = threshold_costs(policy, probability, heard(3), fraud, amount)
    at = dict(zip(thresholds.tolist(), costs.tolist(), strict=True))
    assert at[thresholds[0]] == 0.0  # good approved, both frauds declined
    assert at[1.0] == pytest.approx((20 + 50) + (30 + 50))
    middle = thresholds[np.searchsorted(thresholds, 0.5)]
    assert at[middle] == pytest.approx(20 + 50)


def test_threshold_costs_beside_rules_by_hand():
    """The first row is declined by a rule whatever the threshold, the second approved by a final one."""
    policy = Policy(50.0, 100.0, 1.0, 0.1, 0.1, 12.0, Fallback(0.02, "step_up"))
    probability, fraud, amount = np.array([0.0, 0.2, 0.9]), np.array([0, 1, 1]), np.array([10.0, 20.0, 30.0])
    answers = np.array([[2, 0, 0], [2, 0, 1], [2, 0, 2]], dtype=np.int8)
    thresholds, costs = threshold_costs(policy, probability, answers, fraud, amount)
    at = dict(zip(thresholds.tolist(), costs.tolist(), strict=True))
    assert at[thresholds[0]] == pytest.approx(100 + (20 + 50))
    assert at[1.0] == pytest.approx(100 + (20 + 50) + (30 + 50))


def test_bootstrap_covers_a_known_difference():
    """200 cards of 10 rows with a true mean difference of 2: the interval covers it 95 times in 100."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        card = np.repeat(np.arange(200), 10)
        difference = 2.0 + rng.normal(0, 3, 200)[card] + rng.normal(0, 5, 2_000)
        interval = paired_bootstrap({"saved": difference}, card, seed, resamples=300)["saved"]
        assert interval.estimate == pytest.approx(difference.sum())
        covered += interval.low <= 4_000 <= interval.high
    assert 88 <= covered <= 99


def test_bootstrap_by_card_is_wider_than_by_row():
    rng = np.random.default_rng(0)
    card = np.repeat(np.arange(100), 20)
    difference = rng.normal(0, 3, 100)[card]
    by_card = paired_bootstrap({"d": difference}, card, 1)["d"]
    by_row = paired_bootstrap({"d": difference}, np.arange(2_000), 1)["d"]
    assert by_card.high - by_card.low > 3 * (by_row.high - by_row.low)


def test_bootstrap_is_seeded_and_a_constant_has_no_spread():
    card = np.arange(50)
    one = paired_bootstrap({"d": np.full(50, 2.0)}, card, 1)["d"]
    assert (one.low, one.high) == (pytest.approx(100), pytest.approx(100))
    noise = np.random.default_rng(0).normal(size=50)
    assert paired_bootstrap({"d": noise}, card, 1) == paired_bootstrap({"d": noise}, card, 1)


def test_money_adds_up(evaluation, world, candidate):
    test = world[candidate.split.test.mask(world["event_time"].to_numpy())]
    fraud = test["is_fraud"].to_numpy()
    lost = (test["amount_minor"] / 100 + 50)[fraud].sum()
    assert evaluation.costs["approve_all"].total == pytest.approx(lost)
    declined = (test["card_reports"] >= 3).to_numpy()
    by_rules = (test["amount_minor"] / 100 + 50)[fraud & ~declined].sum() + 100 * (declined & ~fraud).sum()
    assert evaluation.costs["rules"].total == pytest.approx(by_rules)
    assert evaluation.costs["rules"].declined == declined.sum()
    for name, saving in evaluation.savings.items():
        difference = evaluation.costs[name].total - evaluation.costs["candidate"].total
        assert saving.estimate == pytest.approx(difference)
        assert saving.low <= saving.estimate <= saving.high


def test_every_contender_meets_every_row_once(evaluation):
    assert list(evaluation.costs) == ["candidate", "champion", "logistic", "rules", "approve_all"]
    for cost in evaluation.costs.values():
        assert cost.approved + cost.stepped_up + cost.declined == evaluation.rows
    assert list(evaluation.qualities) == ["candidate", "champion", "logistic"]


def test_segments_are_slices_of_the_whole(evaluation):
    by_dimension: dict[str, list] = {}
    for segment in evaluation.segments:
        by_dimension.setdefault(segment.dimension, []).append(segment)
    assert set(by_dimension) == {"channel", "card_country", "amount"}  # nothing else is known
    for segments in by_dimension.values():
        assert sum(s.rows for s in segments) == evaluation.rows
        assert sum(s.cost for s in segments) == pytest.approx(evaluation.costs["candidate"].total)
        assert sum(s.saved for s in segments) == pytest.approx(evaluation.savings["approve_all"].estimate)
        differences = [s.difference.estimate for s in segments if s.difference]
        assert sum(differences) == pytest.approx(evaluation.savings["champion"].estimate)
    assert {s.against for s in evaluation.segments} == {"champion"}
    assert {s.value for s in by_dimension["card_country"]} == {"FR", "DE", "unknown"}


def test_beyond_the_largest_values_a_dimension_has_one_slice_more(world):
    rows = world.assign(merchant_country=[f"M{i % 20:02d}" for i in range(len(world))])
    rows["card_age_seconds"] = np.resize([0.0, 86_399.0, 86_400.0, 90 * 86_400.0, np.nan], len(rows))
    found = dict(slices(rows, np.full(len(rows), 10.0)))
    assert len(found["merchant_country"]) == 13
    assert found["merchant_country"][-1][0] == "(all others)"
    for parts in found.values():
        assert np.array_equal(np.sum([inside for _, inside in parts], axis=0), np.ones(len(rows)))
    counts = {value: inside.sum() * 5 / len(rows) for value, inside in found["card_age"]}
    assert counts == {"0 to 1 days": 2, "1 to 7 days": 1, "90 days and more": 1, "unknown": 1}


def test_rates_by_hand():
    """Two good rows approved (10, 20), one stepped up (40), one declined (80); frauds of 100 approved, 200
    stepped up, 400 declined. A step-up loses 10 % of the good and lets 10 % of the frauds pass."""
    actions = np.array([0, 0, 1, 2, 0, 1, 2], dtype=np.int8)
    is_fraud = np.array([0, 0, 0, 0, 1, 1, 1], dtype=bool)
    amount = np.array([10.0, 20.0, 40.0, 80.0, 100.0, 200.0, 400.0])
    policy = load_policy()
    found = rates(actions, is_fraud, amount, policy)
    assert (found.false_positive_rate, found.false_decline_rate) == (0.5, 0.25)
    assert (found.recall, found.precision) == (2 / 3, 0.5)
    assert (found.sales, found.reinstated, found.fraud_loss) == pytest.approx((30.0, 36.0, 120.0))
    assert found.conversion == pytest.approx((30 + 36 - 120) / 7)
    assert found.conversion_count == pytest.approx((2 + 0.9 - 1.1) / 7)
    cost = policy.realized_costs(actions, is_fraud, amount).sum()
    assert found.cost_per_transaction == pytest.approx(cost / 7)


def test_rates_agree_with_costs_of_the_same_contenders(evaluation):
    assert list(evaluation.rates) == list(evaluation.costs)
    for name, found in evaluation.rates.items():
        assert found.cost_per_transaction * evaluation.rows == pytest.approx(evaluation.costs[name].total)
    assert evaluation.rates["approve_all"].false_positive_rate == 0.0
    assert evaluation.metrics()["false_positive_rate"] == evaluation.rates["candidate"].false_positive_rate


@pytest.mark.parametrize("rules", [RuleSet(), RULES], ids=["no_rules", "with_rules"])
def test_every_pair_of_thresholds_costs_what_its_actions_cost(world, rules):
    fraud = world["is_fraud"].to_numpy()
    amount = world["amount_minor"].to_numpy() / 100
    probability = np.random.default_rng(3).random(len(world)) ** 4
    policy = load_policy()
    answers = live_answers(rules, {"card_reports": world["card_reports"].to_numpy()}, world)
    summed = bands(policy, probability, answers, fraud, amount)
    assert sum(band.rows for band in summed) == len(world)
    grid = choices(summed)
    for low, high in [(0, 0), (0, 41), (41, 41), (10, 30), (30, 35)]:
        one = grid[low][high - low]
        assert (one.step_up, one.decline) == (summed[low].low, summed[high].low)
        said = np.where(probability >= one.decline, 2, np.where(probability >= one.step_up, 1, 0))
        actions = np.choose(said, answers)
        found = rates(actions.astype(np.int8), fraud, amount, policy)
        assert one.cost == pytest.approx(found.cost_per_transaction * len(world))
        assert one.recall == pytest.approx(found.recall)
        assert one.false_positive_rate == pytest.approx(found.false_positive_rate)
        assert one.precision is None or one.precision == pytest.approx(found.precision)
        assert one.declined == pytest.approx((actions == 2).mean())
        assert one.approved + one.stepped_up + one.declined == pytest.approx(1.0)


def test_an_evaluation_of_before_is_still_read(evaluation):
    content = json.loads(json.dumps(evaluation.to_dict()))
    del content["rates"], content["importance"], content["alone"], content["curves"]["bands"]
    del content["uncompared"], content["decision_hash"]
    for segment in content["segments"]:
        del segment["against"], segment["difference"]
    old = Evaluation.from_dict(content)
    assert (old.rates, old.importance, old.curves.bands) == ({}, (), ())
    assert old.savings == evaluation.savings
    assert old.alone is None
    assert "alone" not in "".join(old.explain()).replace(old.method, "")
    assert "false_positive_rate" not in old.metrics()


def test_importance_is_by_shares_of_gain(evaluation):
    names, shares = zip(*evaluation.importance, strict=True)
    assert set(names) <= set(CONTRACT.names)
    assert list(shares) == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)


def test_the_better_model_saves(evaluation):
    assert evaluation.savings["approve_all"].low > 0
    assert evaluation.quality.average_precision > evaluation.qualities["champion"].average_precision
    assert evaluation.savings["champion"].estimate > 0


def test_it_is_judged_on_the_test_part_alone(evaluation, world, candidate, weak):
    outside = ~candidate.split.test.mask(world["event_time"].to_numpy())
    changed = world.copy()
    changed.loc[outside, "is_fraud"] = True
    again = evaluate(candidate, changed, load_policy(), RULES, champion=weak, resamples=200)
    assert again == evaluation


def test_it_explains_itself_and_survives_json(evaluation):
    text = "\n".join(evaluation.explain())
    assert "against rules" in text
    assert "drawing whole cards" in text
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))) == evaluation
    assert evaluation.metrics()["cost_candidate"] == evaluation.costs["candidate"].total


def test_bands_of_before_the_rules_were_joined_are_left_out(evaluation):
    content = json.loads(json.dumps(evaluation.to_dict()))
    for band in content["curves"]["bands"]:
        band |= {action: band[action]["total"] for action in ACTIONS}
    old = Evaluation.from_dict(content)
    assert old.curves.bands == choices(old.curves.bands) == ()
    assert old == replace(evaluation, curves=replace(evaluation.curves, bands=()))


def test_a_champion_that_is_the_same_model_differs_in_nothing(world, candidate):
    same = evaluate(candidate, world, load_policy(), RULES, champion=candidate, resamples=50)
    assert same.costs["champion"] == same.costs["candidate"]
    assert (same.savings["champion"].low, same.savings["champion"].high) == (0.0, 0.0)


@pytest.fixture(scope="module")
def said(world, candidate) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows that judge, and what the candidate's policy says of them alone."""
    rows = world[candidate.split.test.mask(world["event_time"].to_numpy())]
    amount = amount_major(rows["amount_minor"].to_numpy(), rows["currency"].to_numpy())
    return rows, load_policy().actions(candidate.probability(columns_of(rows, CONTRACT)), amount)


def counts(cost: Cost) -> tuple[int, int, int]:
    return cost.approved, cost.stepped_up, cost.declined


def one_rule(action: str, when: str, priority: int = 1) -> str:
    return (
        f"  - {{name: r{priority}, mode: live, priority: {priority}, action: {action}, code: T{priority}, "
        f"owner: tests, when: {when}}}\n"
    )


def rules_of(*entries: str) -> RuleSet:
    return rules_from_yaml("version: 2\nrules:\n" + "".join(entries), CONTRACT.dtypes)


def test_a_rule_that_declines_costs_what_it_turns_away(world, candidate, said):
    """Every model is priced with the rule: good rows that its policy would approve are declined."""
    rows, alone = said
    policy, rules = load_policy(), rules_of(one_rule("decline", "card_reports >= 1"))
    judged = evaluate(candidate, world, policy, rules, resamples=50)
    plain = evaluate(candidate, world, policy, RuleSet(), resamples=50)
    hit, fraud = (rows["card_reports"] >= 1).to_numpy(), rows["is_fraud"].to_numpy()
    assert (hit & ~fraud & (alone == 0)).any()
    joined = np.where(hit, 2, alone)
    amount = rows["amount_minor"].to_numpy() / 100
    difference = policy.realized_costs(joined, fraud, amount) - policy.realized_costs(alone, fraud, amount)
    assert counts(judged.costs["candidate"]) == tuple(np.bincount(joined, minlength=3))
    assert judged.costs["candidate"].total == pytest.approx(plain.costs["candidate"].total + difference.sum())
    assert judged.alone.cost == plain.costs["candidate"]
    assert judged.alone.rules_save.estimate == pytest.approx(-difference.sum())
    assert plain.alone.rules_save.estimate == 0.0
    for name in ("candidate", "logistic", "rules"):
        assert judged.costs[name].declined >= hit.sum()
    assert judged.costs["logistic"].total != plain.costs["logistic"].total
    assert judged.qualities == plain.qualities, "ranking and calibration are the model's own"
    segments = [one for one in judged.segments if one.dimension == "channel"]
    assert sum(one.cost for one in segments) == pytest.approx(judged.costs["candidate"].total)
    assert judged.rates["candidate"].false_decline_rate == pytest.approx(
        ((joined == 2) & ~fraud).sum() / (~fraud).sum()
    )
    assert f"would cost {judged.alone.cost.total:,.0f}" in "\n".join(judged.explain())


def test_a_rule_on_what_the_contract_has_not_is_refused(world, candidate):
    """Its bundle could not decide; unknown values would only have made the rule silent."""
    rules = rules_from_yaml(
        "version: 2\nrules:\n" + one_rule("decline", "other >= 1"), {**CONTRACT.dtypes, "other": "double"}
    )
    with pytest.raises(ContractError, match=r"the rules read \['other'\], which contract .* has not: train"):
        evaluate(candidate, world, load_policy(), rules, resamples=5)


def test_a_final_approving_rule_is_honoured(world, candidate, said):
    """Of the rows with a report the policy is not heard; a later rule that declines is not either."""
    rows, alone = said
    hit = (rows["card_reports"] >= 1).to_numpy()
    assert (hit & (alone > 0)).any()
    rules = rules_of(one_rule("approve", "card_reports >= 1", 1), one_rule("decline", "card_reports >= 2", 2))
    judged = evaluate(candidate, world, load_policy(), rules, champion=candidate, resamples=50)
    wanted = tuple(np.bincount(np.where(hit, 0, alone), minlength=3))
    assert counts(judged.costs["candidate"]) == counts(judged.costs["champion"]) == wanted
    assert judged.costs["rules"] == judged.costs["approve_all"]
    assert judged.alone.rules_save.estimate < 0


def test_what_is_judged_is_the_rung_that_ships(world, candidate):
    rules = rules_of(
        one_rule("approve", "channel == 'pos' && card_reports >= 2", 1),
        one_rule("decline", "card_reports >= 3", 2),
        one_rule("step_up", "request.amount >= 150", 3),
    )
    judged = evaluate(candidate, world, load_policy(), rules, resamples=50)
    priced = {one.name: one for one in rungs(candidate, world, load_policy(), rules, resamples=50).rungs}
    for name, other in (("candidate", "model"), ("approve_all", APPROVE_ALL)):
        cost = judged.costs[name]
        assert cost.total == pytest.approx(priced[other].cost.estimate * judged.rows / 1_000)
        assert tuple(n / judged.rows for n in counts(cost)) == pytest.approx(priced[other].shares)
        assert cost.frauds_approved == pytest.approx(priced[other].missed * judged.frauds)
    assert judged.costs["candidate"] != judged.alone.cost


def test_a_model_is_not_judged_on_what_it_learned_from(world, candidate, weak):
    later = Split(
        Part(START, START + 46 * DAY),
        Part(START + 47 * DAY, START + 53 * DAY),
        Part(START + 54 * DAY, START + 60 * DAY),
        gap_ms=DAY,
    )
    champion = replace(weak, split=later)
    with pytest.raises(
        TrainingError, match="learned from rows until 2024-01-07; rows from 2024-01-04 cannot"
    ):
        evaluate(candidate, world, load_policy(), RULES, champion=champion)


def test_a_missing_feature_is_named(world, candidate):
    with pytest.raises(ContractError, match="card_reports"):
        evaluate(candidate, world.drop(columns="card_reports"), load_policy(), RULES)


def test_an_interval_is_told_in_one_way() -> None:
    found = Interval(1234.56, -7.0, 8.04)
    assert found.short() == "1,234.6 (-7.0 to 8.0)"
    assert found.short(digits=0) == "1,235 (-7 to 8)"
    assert found.columns("saved") == {"saved": 1234.56, "saved_low": -7.0, "saved_high": 8.04}
