from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.errors import SettingsError
from fraud_platform.rules import Condition, RuleSet, load_rules_text
from fraud_platform.schema import ACTIONS

FEATURES = ("count", "speed", "channel")
TEXT = """
version: 1
rules:
  - {name: fast, mode: live, priority: 2, action: decline, code: T1, text: Too fast,
     all: [{feature: speed, op: ">", value: 100}, {feature: count, op: ">=", value: 2}]}
  - {name: web, mode: live, priority: 1, action: step_up, code: T2, text: On the web,
     all: [{feature: channel, op: in, value: [web, app]}]}
  - {name: seen, mode: shadow, priority: 0, action: decline, code: T3, text: Seen,
     all: [{feature: count, op: "!=", value: 0}]}
  - {name: dead, mode: "off", priority: 0, action: decline, code: T4, text: Never,
     all: [{feature: count, op: ">=", value: 0}]}
"""
RULES = RuleSet.from_yaml(TEXT, FEATURES)


def test_hits_come_strongest_first_and_shadow_hits_are_marked() -> None:
    hits = RULES.evaluate({"speed": 101.0, "count": 2.0, "channel": "web"})
    assert [(hit.name, hit.is_live) for hit in hits] == [("seen", False), ("fast", True), ("web", True)]


def test_only_live_rules_act() -> None:
    columns = {
        "speed": np.array([101.0, 0.0, 0.0]),
        "count": np.array([2.0, 5.0, 5.0]),
        "channel": np.array([None, "app", ""], dtype=object),
    }
    assert RULES.actions(columns, 3).tolist() == [ACTIONS.index("decline"), ACTIONS.index("step_up"), -1]


@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("op", [">", ">=", "<", "<=", "==", "!="])
def test_an_unknown_value_never_fires(op: str, value: float | None) -> None:
    condition = Condition("count", op, 3.0)
    assert not condition.test()(value)
    assert not condition.mask(np.array([np.nan])).any()
    assert not condition.mask(np.array([value], dtype=object)).any()


def test_not_in_does_not_fire_on_unknown_text() -> None:
    condition = Condition("channel", "not_in", ("web",))
    assert not condition.test()(None)
    assert condition.test()("pos")


VALUES = {
    "speed": st.one_of(st.none(), st.floats(allow_nan=True), st.sampled_from([100.0, 101.0])),
    "count": st.one_of(st.none(), st.integers(0, 4).map(float)),
    "channel": st.one_of(st.none(), st.sampled_from(["web", "app", "pos", ""])),
}


@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=30))
def test_one_and_many_give_the_same_answers(rows: list[dict[str, float | str | None]]) -> None:
    columns = {name: np.array([row[name] for row in rows], dtype=object) for name in FEATURES}
    as_floats = {**columns, "speed": columns["speed"].astype(np.float64)}
    single = [[hit for hit in RULES.evaluate(row) if hit.is_live] for row in rows]
    expected = [max((ACTIONS.index(hit.action) for hit in hits), default=-1) for hits in single]
    assert RULES.actions(columns, len(rows)).tolist() == expected
    assert RULES.actions(as_floats, len(rows)).tolist() == expected


def test_an_unknown_feature_is_refused_with_the_near_ones() -> None:
    with pytest.raises(SettingsError, match=r"no feature 'speeed'; near it: \['speed'\]"):
        RuleSet.from_yaml(TEXT.replace("speed", "speeed"), FEATURES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('op: ">"', 'op: "=>"'), "op '=>' must be one of"),
        (("value: 100", "value: fast"), "must compare numbers"),
        (("value: 100", "value: [100]"), "only in and not_in take lists"),
        (("value: [web, app]", "value: web"), "only in and not_in take lists"),
        (("value: [web, app]", "value: [web, 1]"), "must compare numbers"),
        (("mode: shadow", "mode: dry"), "mode 'dry'"),
        (("action: step_up", "action: block"), "action 'block'"),
        (("priority: 2", "priority: high"), "priority 'high'"),
        (("code: T2", "code: T1"), r"share the code \['T1'\]"),
        (("text: Too fast", "text: ''"), "text must be text"),
        (("text: Too fast", "txt: Too fast"), "give exactly"),
        (("version: 1", "version: 9"), "version: 1"),
    ],
)
def test_a_wrong_rules_file_names_what_is_wrong(change: tuple[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RuleSet.from_yaml(TEXT.replace(*change), FEATURES)


SHIPPED = yaml.safe_load(load_rules_text())["rules"]
SHIPPED_FEATURES = {condition["feature"] for rule in SHIPPED for condition in rule["all"]}


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda rule: rule["name"])
def test_every_shipped_rule_fires_and_stays_silent_when_nothing_is_known(entry: dict) -> None:
    alone = yaml.safe_dump({"version": 1, "rules": [entry]})
    rules = RuleSet.from_yaml(alone, sorted(SHIPPED_FEATURES))
    at_limit = {c["feature"]: c["value"] - 1 if c["op"] == "<" else c["value"] for c in entry["all"]}
    assert [hit.code for hit in rules.evaluate(at_limit)] == [entry["code"]]
    assert rules.evaluate(dict.fromkeys(SHIPPED_FEATURES)) == ()
    assert re.fullmatch(r"R\d\d", entry["code"])
