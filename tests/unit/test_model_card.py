"""The model card and the page of an evaluation: complete, the same twice, and safe to open."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from fraud_platform.adapters.html_report import EXPLORED, explorer_data, html_report
from fraud_platform.adapters.plots import evaluation_plots
from fraud_platform.evaluate import Evaluation, Uncompared, choices, evaluate, model_card
from fraud_platform.features.contract import Feature, FeatureContract
from fraud_platform.ingest import load_mapping
from fraud_platform.policy import load_policy
from fraud_platform.register import gate
from fraud_platform.rules import RuleSet
from fraud_platform.schema import MILLISECONDS_PER_DAY as DAY
from fraud_platform.train import Candidate, Split, TrainParams, train

START = 1_700_006_400_000
CONTRACT = FeatureContract({}, (Feature(name="amount_minor", kind="field", description="Amount"),))
VOID = {"meta", "img", "input", "br"}
VERSIONS = {"model_version": "3", "approved_by": "Ada | <b>"}
HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def world() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = 3_000
    amount = rng.gamma(2.0, 40.0, rows)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i:05d}" for i in range(rows)],
            "event_time": np.sort(START + rng.integers(0, 60 * DAY, rows)),
            "card_id": [f"c{i}" for i in rng.integers(0, 200, rows)],
            "amount_minor": np.round(amount * 100).astype(np.int64),
            "currency": "EUR",
            "category": rng.choice([HOSTILE, "food"], rows),
            "is_fraud": rng.random(rows) < np.where(amount > 150, 0.5, 0.01),
        }
    )


@pytest.fixture(scope="module")
def candidate(world) -> Candidate:
    params = TrainParams(rounds_max=5, early_stopping_rounds=0, min_data_in_leaf=20, legit_share=1.0)
    return train(world, CONTRACT, Split.by_time(START, START + 60 * DAY, 7 * DAY), params)


@pytest.fixture(scope="module")
def evaluation(world, candidate) -> Evaluation:
    return evaluate(candidate, world, load_policy(), RuleSet([]), resamples=50)


class Page(HTMLParser):
    """Fails at a tag that is not closed in its order; keeps tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)


@pytest.fixture(scope="module")
def page(evaluation) -> Page:
    return Page(html_report(evaluation, evaluation_plots(evaluation), gate(evaluation)).decode())


def test_the_page_is_whole_and_says_it_all(page, evaluation):
    assert set(evaluation.costs) <= set(page.texts)
    headings = {text for text in page.texts if text[:1].isupper()}
    assert {"Summary", "Verdict", "Contenders", "Money", "Thresholds", "Segments", "Calibration"} <= headings
    assert page.tags.count("img") == 3
    assert evaluation.method in page.texts
    assert page.texts.count(str(evaluation.alone)) == 2, "in the summary and beside the money"
    assert f"{evaluation.rates['candidate'].false_positive_rate:.3%}" in page.texts


def test_the_page_asks_for_nothing_from_outside(page, evaluation):
    text = html_report(evaluation, evaluation_plots(evaluation)).decode()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    sources = [value or "" for name, value in page.attributes if name in ("src", "href", "action")]
    assert sources
    assert all(value.startswith("data:image/png;base64,") for value in sources)


def test_what_a_merchant_calls_himself_stays_text(page):
    assert HOSTILE in page.texts
    assert page.tags.count("script") == 2


def test_the_explorer_shows_each_pair_as_it_was_computed(page, evaluation):
    shown = json.loads(page.scripts[0])
    assert shown == explorer_data(evaluation)
    grid = choices(evaluation.curves.bands)
    assert [len(row) for row in shown["grid"]] == list(range(len(grid), 0, -1))
    i, j = shown["start"]
    cheapest = grid[i][j - i]
    assert cheapest.cost == min(one.cost for row in grid for one in row)
    texts = dict(zip((name for _, name in EXPLORED), shown["grid"][i][j - i], strict=True))
    assert texts["cost"] == f"{cheapest.cost:,.0f}"
    assert texts["recall"] == f"{cheapest.recall:.3%}"
    never = shown["grid"][-1][0]
    assert never[:4] == ["never", "never", "0.000%", "none"]


def test_the_script_names_elements_that_exist(page):
    asked = set(re.findall(r'getElementById\("([a-z_-]+)"\)', page.scripts[1]))
    there = {value for name, value in page.attributes if name == "id"}
    assert asked == {"explorer-data", "step_up", "decline"}
    assert asked <= there
    assert {f"explored-{place}" for place in range(len(EXPLORED))} <= there


def test_an_evaluation_without_bands_has_a_page_without_the_explorer(evaluation):
    old = replace(
        evaluation, curves=replace(evaluation.curves, bands=()), rates={}, importance=(), alone=None
    )
    assert "script" not in Page(html_report(old, {}).decode()).tags


def test_the_same_evaluation_is_the_same_page_and_card(evaluation, candidate):
    plots = evaluation_plots(evaluation)
    assert html_report(evaluation, plots) == html_report(evaluation, plots)
    back = Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict())))
    dataset = load_mapping("sparkov")
    again = model_card(
        Candidate.from_files(candidate.to_files()), back, dataset, dict(reversed(VERSIONS.items()))
    )
    assert again == model_card(candidate, evaluation, dataset, VERSIONS)


def test_the_card_says_what_is_left_out_and_what_was_measured(evaluation, candidate):
    card = model_card(candidate, evaluation, load_mapping("sparkov"), VERSIONS)
    for column in ("gender", "age", "dob", "job", "profile"):
        assert f"| {column} | " in card
    assert candidate.fingerprint in card
    assert candidate.contract_hash in card
    assert f"| test | {evaluation.test} | {evaluation.rows:,} | {evaluation.frauds:,} |" in card
    assert "mature 7 days after it" in card
    saving = evaluation.savings["rules"]
    assert f"| {saving.estimate:,.0f} | {saving.low:,.0f} | {saving.high:,.0f} |" in card
    assert f"{evaluation.alone}." in card
    assert "with the policy and the live rules at the evaluation" in card
    assert "| false_positive_rate | " in card
    titles = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert {"Intended use", "Limits", "Labels", "Segments", "Excluded attributes"} <= set(titles)


def test_the_card_names_a_champion_that_could_not_be_compared(evaluation, candidate):
    gone = Uncompared("f" * 64, ("amount",))
    card = model_card(candidate, replace(evaluation, uncompared=gone), load_mapping("simulated"), VERSIONS)
    sentence = "champion ffffffffffff reads 'amount', which the contract no longer has"
    assert sentence in card
    assert sentence not in model_card(candidate, evaluation, load_mapping("simulated"), VERSIONS)


def test_a_text_can_neither_open_a_tag_nor_end_a_cell_of_the_card(evaluation, candidate):
    card = model_card(candidate, evaluation, load_mapping("simulated"), VERSIONS)
    assert "| approved_by | Ada \\| &lt;b> |" in card
    assert "<script>" not in card
    assert "excludes no column" in card


def test_a_card_of_another_model_is_refused(evaluation, candidate):
    other = replace(evaluation, fingerprint="f" * 64)
    with pytest.raises(ValueError, match="the evaluation is of ffffffffffff"):
        model_card(candidate, other, load_mapping("simulated"), VERSIONS)
