"""rules: the language's limits, what is unknown, who wins, lists, days, and one answer for one and many."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_platform.errors import SettingsError
from fraud_platform.features.contract import load_contract
from fraud_platform.rules import (
    FIELD_TYPES,
    RuleHit,
    RuleSet,
    lists_from_yaml,
    load_lists_text,
    load_rules,
    load_rules_text,
    rules_from_yaml,
    verdict,
)
from fraud_platform.schema import ACTIONS, Transaction

DAY_MS = 86_400_000
FEATURES = {"count": "double", "speed": "double", "channel": "category"}
LISTS = """
version: 1
lists:
  blocked: {of: [card_id, device_id], text: Blocked, owner: team, tokens: [c1, d1]}
  countries:
    of: card_country
    text: Countries
    owner: team
    tokens: |
      XX
      YY
"""
TEXT = """
version: 2
rules:
  - {name: fast, mode: live, priority: 2, action: decline, code: T1, owner: team,
     when: speed > 100 && count >= 2}
  - {name: web, mode: live, priority: 1, action: step_up, code: T2, owner: team,
     when: "channel in ['web', 'app']"}
  - {name: seen, mode: shadow, priority: 0, action: decline, code: T3, owner: team,
     when: count != 0}
  - {name: dead, mode: off, priority: 0, action: decline, code: T4, owner: team,
     when: count >= 0}
"""
RULES = rules_from_yaml(TEXT, FEATURES)
DAY_MS = 86_400_000


def one(when: str, **fields: object) -> RuleSet:
    entry = {
        "name": "it", "mode": "live", "priority": 1, "action": "decline", "code": "T1",
        "owner": "team", "when": when,
    }  # fmt: skip
    return rules_from_yaml(yaml.safe_dump({"version": 2, "rules": [entry | fields]}), FEATURES, LISTS)


def asked(**fields: object) -> Transaction:
    plain = {"transaction_id": "t", "event_time": 0, "card_id": "c", "merchant_id": "m", "amount_minor": 100}
    return Transaction(**(plain | {"currency": "EUR"} | fields))


def fires(when: str, values: dict[str, float | str | None], transaction: Transaction | None = None) -> bool:
    return bool(one(when).evaluate(values, transaction))


def test_hits_come_strongest_first_and_shadow_hits_are_marked() -> None:
    hits = RULES.evaluate({"speed": 101.0, "count": 2.0, "channel": "web"})
    assert [(hit.name, hit.is_live) for hit in hits] == [("seen", False), ("fast", True), ("web", True)]


def test_only_live_rules_act_and_off_ones_only_in_a_trial() -> None:
    columns = {
        "speed": np.array([101.0, 0.0, 0.0]),
        "count": np.array([2.0, 5.0, 5.0]),
        "channel": np.array([None, "app", ""], dtype=object),
    }
    assert RULES.actions(columns, 3).tolist() == [ACTIONS.index("decline"), ACTIONS.index("step_up"), -1]
    assert list(RULES.hits(columns, 3)) == ["seen", "fast", "web"]
    assert RULES.trial().hits(columns, 3)["dead"].tolist() == [True, True, True]
    assert [rule.name for rule in RULES.declared] == ["fast", "web", "seen", "dead"]


UNKNOWN = pytest.mark.parametrize("value", [None, float("nan"), ""])


@UNKNOWN
@pytest.mark.parametrize(
    "when",
    [
        "count > 3", "count >= 3", "count < 3", "count <= 3", "count == 3", "count != 3", "!(count == 3)",
        "!(count in [1, 2])", "count in [1, 2]", "count * 0.0 == 0", "-count < 0", "count > 3 ? true : true",
        "(count > 3) == (count > 3)", "speed > 1 && count != 3", "!(speed > 1 && count == 3)",
    ],
)  # fmt: skip
def test_what_is_unknown_never_fires(when: str, value: float | str | None) -> None:
    rules = one(when)
    assert not rules.evaluate({"count": value, "speed": 2.0})
    assert not rules.evaluate({"speed": 2.0})
    column = np.array([value], dtype=object)
    assert not rules.fired({"count": column, "speed": np.array([2.0])}, 1).any()


@UNKNOWN
@pytest.mark.parametrize(
    "when",
    [
        "channel != 'web'", "!(channel in ['web'])", "!channel.startsWith('w')", "size(channel) == 0",
        "!channel.matches('^w')", "!(request.device_id in lists.blocked)", "request.device_id != 'd1'",
    ],
)  # fmt: skip
def test_text_that_is_unknown_never_fires(when: str, value: float | str | None) -> None:
    assert not fires(when, {"channel": value}, asked())
    assert not fires(when, {})


def test_an_unknown_part_leaves_what_the_rest_decides() -> None:
    """Kleene: whatever the unknown part would be, the answer is the same; in both orders."""
    for when in ("count > 3 || speed > 1", "speed > 1 || count > 3"):
        assert fires(when, {"speed": 2.0})
    for when in ("!(count > 3 && speed < 1)", "!(speed < 1 && count > 3)"):
        assert fires(when, {"speed": 2.0})
    assert not fires("count > 3 || speed > 1", {"speed": 0.0})


def test_a_value_of_another_kind_does_not_fire_and_does_not_raise() -> None:
    assert not fires("count != 3", {"count": "many"})
    assert not fires("channel != 'web'", {"channel": 3.0})
    assert not one("count != 3").fired({"count": np.array(["many"], dtype=object)}, 1).any()


def test_a_missing_field_can_be_asked_for() -> None:
    when = "request.channel == 'ecommerce' && !known.device_id"
    assert fires(when, {}, asked(channel="ecommerce"))
    assert not fires(when, {}, asked(channel="ecommerce", device_id="d9"))
    assert not fires("!known.device_id", {}), "without a request nothing is known of it, not even that"


def test_amounts_are_read_in_major_units() -> None:
    assert fires("request.amount >= 1000", {}, asked(amount_minor=1000, currency="JPY"))
    assert not fires("request.amount >= 1000", {}, asked(amount_minor=99_999, currency="EUR"))
    columns = {
        "request.amount_minor": np.array([1000, 99_999]),
        "request.currency": np.array(["JPY", "EUR"], dtype=object),
    }
    assert one("request.amount >= 1000").fired(columns, 2).tolist() == [[True], [False]]


def test_a_list_is_asked_by_the_names_it_is_of() -> None:
    when = "request.card_id in lists.blocked || request.device_id in lists.blocked"
    assert fires(when, {}, asked(card_id="c1"))
    assert fires(when, {}, asked(device_id="d1"))
    assert not fires(when, {}, asked(card_id="d2"))
    assert fires("request.card_country in lists.countries", {}, asked(card_country="YY"))


def test_a_long_list_is_not_read_through() -> None:
    """What reaches the expression of a list is at most the tokens that it is asked for."""
    tokens = "\n".join(f"      tok_{i}" for i in range(100_000))
    text = (
        f"version: 1\nlists:\n  long:\n    of: card_id\n    text: L\n    owner: o\n    tokens: |\n{tokens}\n"
    )
    when = {"name": "it", "mode": "live", "priority": 1, "action": "decline", "code": "T"}
    when |= {"owner": "o", "when": "request.card_id in lists.long"}
    rules = rules_from_yaml(yaml.safe_dump({"version": 2, "rules": [when]}), FEATURES, text)
    assert rules.evaluate({}, asked(card_id="tok_99999"))
    assert not rules.evaluate({}, asked(card_id="tok_100000"))
    data = rules._inputs.of_one({}, asked(card_id="tok_5"))
    assert data == {"request.card_id": "tok_5", "lists.long": {"tok_5": True}}


def hit(action: str, priority: int, mode: str = "live") -> RuleHit:
    return RuleHit(f"{action}{priority}", mode, priority, action, "T")


@pytest.mark.parametrize(
    ("hits", "action", "is_final", "heard"),
    [
        ([], None, False, []),
        ([hit("step_up", 9)], "step_up", False, ["step_up9"]),
        ([hit("decline", 9), hit("step_up", 1)], "decline", False, ["decline9", "step_up1"]),
        ([hit("decline", 9), hit("approve", 5)], "approve", True, []),
        ([hit("decline", 1), hit("approve", 5)], "decline", True, ["decline1"]),
        ([hit("decline", 9), hit("step_up", 2), hit("approve", 5)], "step_up", True, ["step_up2"]),
        ([hit("decline", 5), hit("approve", 5)], "decline", True, ["decline5"]),
        ([hit("step_up", 7), hit("approve", 5), hit("approve", 8)], "approve", True, []),
        ([hit("step_up", 7), hit("approve", 5, "shadow")], "step_up", False, ["step_up7"]),
    ],
)
def test_an_approving_rule_ends_the_matter_at_its_priority(
    hits: list[RuleHit], action: str | None, is_final: bool, heard: list[str]
) -> None:
    said = verdict(hits)
    assert (said.action, said.is_final, [one.name for one in said.heard]) == (action, is_final, heard)


def test_a_rule_counts_on_its_days_only() -> None:
    rules = one("count > 0", **{"from": datetime(2026, 3, 1).date(), "until": datetime(2026, 3, 2).date()})
    first = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
    moments = [first - 1, first, first + 2 * DAY_MS - 1, first + 2 * DAY_MS]
    expected = [False, True, True, False]
    assert [bool(rules.evaluate({"count": 1.0}, asked(event_time=m))) for m in moments] == expected
    columns = {"count": np.ones(4), "request.event_time": np.array(moments)}
    assert rules.fired(columns, 4)[:, 0].tolist() == expected
    assert not rules.evaluate({"count": 1.0}), "without a moment no day is known"
    assert rules.trial().fired(columns, 4).all()


VALUES = {
    "speed": st.one_of(st.none(), st.floats(allow_nan=True), st.sampled_from([100.0, 101.0])),
    "count": st.one_of(st.none(), st.integers(0, 4).map(float)),
    "channel": st.one_of(st.none(), st.sampled_from(["web", "app", "pos", ""])),
}


@settings(max_examples=30)
@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=30))
def test_one_and_many_give_the_same_answers(rows: list[dict[str, float | str | None]]) -> None:
    columns = {name: np.array([row[name] for row in rows], dtype=object) for name in FEATURES}
    as_floats = {**columns, "speed": columns["speed"].astype(np.float64)}
    single = [verdict(RULES.evaluate(row)).action for row in rows]
    expected = [-1 if action is None else ACTIONS.index(action) for action in single]
    assert RULES.actions(columns, len(rows)).tolist() == expected
    assert RULES.actions(as_floats, len(rows)).tolist() == expected


@settings(max_examples=30)
@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=30))
def test_the_answers_are_what_each_verdict_makes_of_each_action(
    rows: list[dict[str, float | str | None]],
) -> None:
    columns = {name: np.array([row[name] for row in rows], dtype=object) for name in FEATURES}
    answers = RULES.answers(RULES.fired(columns, len(rows)))
    for base, found in zip(ACTIONS, answers, strict=True):
        assert [ACTIONS[place] for place in found] == [
            verdict(RULES.evaluate(row)).joined(base)[0] for row in rows
        ]


@pytest.mark.parametrize(
    ("hits", "answers", "by_rule"),
    [
        ([], ["approve", "step_up", "decline"], [False, False, False]),
        ([hit("step_up", 1)], ["step_up", "step_up", "decline"], [True, False, False]),
        ([hit("decline", 1)], ["decline", "decline", "decline"], [True, True, False]),
        ([hit("approve", 1)], ["approve", "approve", "approve"], [True, True, True]),
        ([hit("approve", 5), hit("step_up", 2)], ["step_up", "step_up", "step_up"], [True, True, True]),
        ([hit("decline", 1, "shadow")], ["approve", "step_up", "decline"], [False, False, False]),
    ],
)
def test_the_stronger_of_rules_and_policy_is_answered_unless_an_approving_rule_is_final(
    hits: list[RuleHit], answers: list[str], by_rule: list[bool]
) -> None:
    joined = [verdict(hits).joined(base) for base in ACTIONS]
    assert joined == list(zip(answers, by_rule, strict=True))


def test_no_rows_and_no_rules() -> None:
    assert RULES.answers(RULES.fired({}, 0)).shape == (3, 0)
    assert RuleSet().answers(RuleSet().fired({}, 2)).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert RULES.actions({}, 0).tolist() == []
    assert RuleSet().actions({}, 3).tolist() == [-1, -1, -1]
    assert RuleSet().evaluate({"count": 1.0}, asked()) == ()


def test_more_rules_than_are_asked_together() -> None:
    entries = [
        {"name": f"r{i}", "mode": "live", "priority": i, "action": "step_up", "code": f"T{i}",
         "owner": "o", "when": f"count == {i}"}
        for i in range(100)
    ]  # fmt: skip
    rules = rules_from_yaml(yaml.safe_dump({"version": 2, "rules": entries}), FEATURES)
    for i in (0, 31, 32, 99):
        assert [hit.name for hit in rules.evaluate({"count": float(i)})] == [f"r{i}"]


def test_two_threads_get_their_own_answers() -> None:
    wrong: list[float] = []

    def ask(count: float) -> None:
        for speed in range(2_000):
            names = {hit.name for hit in RULES.evaluate({"count": count, "speed": float(speed % 200)})}
            if ("fast" in names) is not (count >= 2 and speed % 200 > 100):
                wrong.append(speed)

    threads = [threading.Thread(target=ask, args=(count,)) for count in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("speeed > 1", "no name 'speeed'; near it: speed"),
        ("request.cardid == 'a'", "near it: request.card_id"),
        (
            "request.card_id in lists.nothing",
            "no name 'lists.nothing'; near it: lists.blocked, lists.countries",
        ),
        ("count > 'a'", r"'_>_' applied to '\(double, string\)'; numbers are compared with numbers"),
        ("channel == 3", "numbers are compared with numbers"),
        ("count * 2 > speed", "write numbers with a point, such as 2.0"),
        ("count / 2.0 > speed", "division is left out"),
        ("count", "it gives double; a rule must give true or false"),
        ("count >", "Syntax error"),
        ("true", "it reads nothing"),
        ("count > 1 || 1 == 1", "it fires with nothing known"),
        ("[1, 2].all(x, count > x)", "there are no loops"),
        ("[1, 2].exists(x, count > x)", "there are no loops"),
        ("[1, 2].map(x, x) == [1]", "not part of this language|no name|no matching overload"),
        ("[1, 2].filter(x, x > 1) == [1]", "not part of this language|no name|no matching overload"),
        ("[1, 2].exists_one(x, x == count)", "not part of this language|no name|no matching overload"),
        ("has(request.device_id)", "a rule must give|known.device_id"),
        ("dyn(count) == 'a'", "no name 'dyn'"),
        ("count.__class__ == 1", "cannot be the operand of a select|no matching overload|no name"),
        ("channel.matches('(')", "invalid regular expression"),
        ("count > 1e9 && channel.matches('(')", "invalid regular expression"),
        ("channel.matches(channel)", "a pattern must be written out"),
        ("count > 1 // && speed > 1", "a comment"),
        ("'c1' in lists.blocked", "asked for one name at a time"),
        ("size(lists.blocked) > 1", "asked for one name at a time"),
        (
            "request.merchant_id in lists.blocked",
            "is of card_id, device_id, so that 'request.merchant_id' is never",
        ),
        ("count > 1 || " * 400 + "count > 1", "write at most"),
        ("(" * 29 + "count > 1" + ")" * 29, "nested too deep"),
    ],
)
def test_a_wrong_expression_is_refused_with_rule_expression_and_fix(when: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        one(when)
    assert str(error.value).startswith(f"rule 'it': `{when}`: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("mode: shadow", "mode: dry"), "mode 'dry'"),
        (("action: step_up", "action: block"), "action 'block'"),
        (("priority: 2", "priority: high"), "priority 'high'"),
        (("code: T2", "code: T1"), r"share the code \['T1'\]"),
        (("name: web", "name: fast"), r"share the name \['fast'\]"),
        (("name: web", "name: The Web"), "a name is of a-z"),
        (("owner: team", "holder: team"), "give exactly"),
        (("owner: team", "owner: 7"), "owner must be text"),
        (("owner: team", "owner: team, from: soon"), "from 'soon' must be a day"),
        (("owner: team", "owner: team, from: 2026-01-02, until: 2026-01-01"), "would never count"),
        (("owner: team", "owner: team, owner: other"), "'owner' stands twice"),
        (("version: 2", "version: 1"), "version: 2, not 1"),
        (("rules:", "rulez:"), "exactly version and rules"),
        (("rules:", "rules: ["), "is not YAML"),
    ],
)
def test_a_wrong_rules_file_names_what_is_wrong(change: tuple[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        rules_from_yaml(TEXT.replace(*change, 1), FEATURES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[c1, d1]", "[c1, 4111111111111111]"), r"token 2 looks like a card number \(hidden\)"),
        (("[c1, d1]", "['4111-1111-1111-1111']"), r"token 1 looks like a card number \(hidden\)"),
        (("      YY", "      4111 1111 1111 1111"), r"token 2 looks like a card number \(hidden\)"),
        (("[c1, d1]", "[12]"), "put it in quotes"),
        (("[c1, d1]", "['']"), "1 to 256 characters"),
        (("[c1, d1]", "{a: b}"), "must be a list"),
        (("of: card_country", "of: []"), "of must name"),
        (("  blocked:", "  Blocked:"), "a name is of a-z"),
        (("owner: team,", ""), "give exactly"),
        (("version: 1", "version: 3"), "version: 1, not 3"),
    ],
)
def test_a_wrong_lists_file_names_what_is_wrong_and_no_card(change: tuple[str, str], message: str) -> None:
    assert change[0] in LISTS
    with pytest.raises(SettingsError, match=message) as error:
        lists_from_yaml(LISTS.replace(*change, 1))
    assert "4111" not in str(error.value)


CONTRACT = load_contract()
SHIPPED = load_rules(CONTRACT.dtypes)
AT_LIMIT: dict[str, dict[str, float | str]] = {
    "blocked_card": {"request.card_id": "tok"},
    "blocked_customer": {"request.customer_id": "tok"},
    "blocked_device": {"request.device_id": "tok"},
    "blocked_ip": {"request.ip_id": "tok"},
    "blocked_merchant": {"request.merchant_id": "tok"},
    "blocked_country": {"request.merchant_country": "tok"},
    "trusted_card": {"request.card_id": "tok"},
    "trusted_customer": {"request.customer_id": "tok"},
    "card_testing": {"card_txn_count_1h": 20, "card_merchant_distinct_24h": 8},
    "card_velocity": {"card_txn_count_1h": 6, "is_new_device": 1},
    "device_of_many_cards": {"device_card_distinct_7d": 6},
    "device_shared": {"device_card_distinct_24h": 3},
    "impossible_travel": {"card_distance_km": 500, "card_speed_kmh": 1500},
    "first_purchase_large": {"card_txn_count_30d": 0, "amount_minor": 50_000, "is_new_device": 1},
    "reported_card": {"card_fraud_reports_7d": 1, "card_amount_ratio_30d": 2},
    "reported_device": {"device_fraud_reports_30d": 1, "is_new_device": 1},
    "reported_ip": {"ip_fraud_reports_30d": 1, "is_new_device": 1, "amount_minor": 20_000},
    "ip_of_many_cards": {"ip_card_distinct_24h": 20},
    "new_customer_large": {"customer_txn_count_30d": 0, "request.amount_minor": 100_000},
    "customer_velocity": {
        "customer_txn_count_1h": 10,
        "customer_amount_sum_1h": 101,
        "customer_amount_mean_30d": 10,
    },
    "merchant_wave": {"merchant_fraud_reports_24h": 3, "merchant_fraud_share_7d": 0.05},
    "online_without_device": {"request.channel": "ecommerce"},
}
"""For each shipped rule what just makes it fire."""


def with_tokens() -> str:
    return load_lists_text().replace("tokens: []", "tokens: [tok]")


@pytest.mark.parametrize("rule", SHIPPED.declared, ids=lambda rule: rule.name)
def test_every_shipped_rule_fires_at_its_limit_and_stays_silent_below(rule) -> None:
    entry = next(one for one in yaml.safe_load(load_rules_text())["rules"] if one["name"] == rule.name)
    alone = yaml.safe_dump({"version": 2, "rules": [entry | {"mode": "live"}]})
    rules = rules_from_yaml(alone, CONTRACT.dtypes, with_tokens())
    fields = {
        k.removeprefix("request."): v for k, v in AT_LIMIT[rule.name].items() if k.startswith("request.")
    }
    features = {k: v for k, v in AT_LIMIT[rule.name].items() if not k.startswith("request.")}
    assert [hit.code for hit in rules.evaluate(features, asked(**fields))] == [rule.code]
    assert rules.evaluate(dict.fromkeys(CONTRACT.names), asked()) == ()
    assert rules.evaluate({}) == ()
    for name, value in features.items():
        less = {**features, name: value + 1 if name == "card_txn_count_30d" else value - 1}
        if name not in ("customer_amount_mean_30d", "customer_txn_count_30d"):
            assert rules.evaluate(less, asked(**fields)) == ()
    assert re.fullmatch(r"R\d\d", rule.code)


def test_what_is_shipped_is_empty_lists_and_known_features() -> None:
    assert all(not one.tokens for one in SHIPPED.lists.values())
    assert set(SHIPPED.feature_names) <= set(CONTRACT.names)
    assert {of for one in SHIPPED.lists.values() for of in one.of} <= set(FIELD_TYPES)
    assert {pair[1] for rule in SHIPPED.declared for pair in rule.when.asked} == set(SHIPPED.lists)


def test_the_longest_expressions_are_still_asked_together() -> None:
    """The parser has limits of its own; what passes alone must pass in company."""
    whens = ["count == 1" + " || count == 1" * 140, "(" * 28 + "count == 2" + ")" * 28]
    whens += [f"channel == '{'x' * 1_900}' || count == 3"] * 30
    entries = [
        {"name": f"r{i}", "mode": "live", "priority": i, "action": "step_up", "code": f"T{i}",
         "owner": "o", "when": when}
        for i, when in enumerate(whens)
    ]  # fmt: skip
    rules = rules_from_yaml(yaml.safe_dump({"version": 2, "rules": entries}), FEATURES)
    assert [len(rules.evaluate({"count": float(count)})) for count in (0, 1, 2, 3)] == [0, 1, 1, 30]


def test_rules_in_force_count_on_all_days() -> None:
    """Rows of months ago are asked what would be answered today."""
    entry = (
        "  - {{name: {0}, mode: live, priority: 1, action: decline, code: R_{0}, owner: team, "
        "when: count >= 1, {1}}}\n"
    )
    text = "version: 2\nrules:\n" + "".join(
        entry.format(name, days)
        for name, days in (("coming", "from: 2026-01-02"), ("gone", "until: 2026-01-01"))
    )
    rules = rules_from_yaml(text, FEATURES)
    second = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp() * 1000)
    for moment, name in ((second - 1, "gone"), (second, "coming")):
        held = rules.in_force(moment)
        assert [rule.name for rule in held.rules] == [name]
        columns = {"count": np.ones(2), "request.event_time": np.array([0, second + 9 * DAY_MS])}
        assert held.hits(columns, 2)[name].all()
