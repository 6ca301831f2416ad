from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fraud_platform.adapters.bundle_files import build_bundle, bundle_path, load_bundle
from fraud_platform.calibration import Calibrator
from fraud_platform.errors import BundleError, SettingsError
from fraud_platform.features.contract import FeatureContract, load_contract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.package import (
    BundleParts,
    Distribution,
    ReasonTexts,
    Reference,
    check_contract,
    load_reasons_text,
)
from fraud_platform.package.bundle import CARD, CARDLESS_FORMAT, FILES, MANIFEST, _manifest, build, parse
from fraud_platform.policy import load_policy_text
from fraud_platform.rules import load_lists_text, load_rules, load_rules_text

CONTRACT = load_contract()


def parts() -> BundleParts:
    return BundleParts(
        model_text="tree\n",
        calibrator=Calibrator((-1.0, 1.0), (0.01, 0.9)),
        encoder=CategoryEncoder(dict.fromkeys(CONTRACT.category_names, ("a", "b"))),
        contract=CONTRACT,
        rules_text=load_rules_text(),
        lists_text=load_lists_text(),
        policy_text=load_policy_text(),
        reasons_text=load_reasons_text(),
        reference=Reference.of({"amount_minor": np.array([1.0, 2.0, np.nan])}, np.array([0.1, 0.2, 0.3])),
        versions={"code": "1", "as_of": "2026-01-01"},
        evaluation={"ap": 0.7},
    )


def test_the_same_parts_are_the_same_bundle_and_building_again_changes_nothing(tmp_path: Path) -> None:
    first = build_bundle(parts(), tmp_path)
    target = bundle_path(tmp_path, first.id)
    before = {file.name: file.stat().st_mtime_ns for file in target.iterdir()}
    second = build_bundle(replace(parts(), versions={"as_of": "2026-01-01", "code": "1"}), tmp_path)
    assert second.id == first.id
    assert {file.name: file.stat().st_mtime_ns for file in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_another_part_is_another_bundle(tmp_path: Path) -> None:
    first = build_bundle(parts(), tmp_path)
    second = build_bundle(replace(parts(), model_text="other\n"), tmp_path)
    assert first.id != second.id


def test_a_loaded_bundle_holds_what_was_put_in(tmp_path: Path) -> None:
    built = build_bundle(parts(), tmp_path)
    loaded = load_bundle(bundle_path(tmp_path, built.id))
    assert loaded.files == built.files
    assert loaded.contract == CONTRACT
    assert loaded.calibrator == parts().calibrator
    assert loaded.reference == parts().reference
    assert (loaded.versions, loaded.evaluation) == (parts().versions, {"ap": 0.7})


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    built = build_bundle(parts(), tmp_path)
    target = bundle_path(tmp_path, built.id)
    file = target / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BundleError, match=name):
        load_bundle(target)
    with pytest.raises(BundleError, match=name):
        build_bundle(parts(), tmp_path)


def test_two_files_exchanged_are_noticed(tmp_path: Path) -> None:
    target = bundle_path(tmp_path, build_bundle(parts(), tmp_path).id)
    rules, policy = (target / "rules.yaml").read_bytes(), (target / "policy.yaml").read_bytes()
    (target / "rules.yaml").write_bytes(policy)
    (target / "policy.yaml").write_bytes(rules)
    with pytest.raises(BundleError, match="does not describe"):
        load_bundle(target)


def test_a_file_too_many_and_no_folder_are_refused(tmp_path: Path) -> None:
    target = bundle_path(tmp_path, build_bundle(parts(), tmp_path).id)
    (target / "notes.txt").write_text("x")
    with pytest.raises(BundleError, match=r"notes\.txt does not belong"):
        load_bundle(target)
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path / "absent")


def test_a_part_that_cannot_be_read_back_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"rules\.yaml cannot be read"):
        build_bundle(replace(parts(), rules_text="version: 1"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_lists_are_a_part_of_the_bundle(tmp_path: Path) -> None:
    lists_text = load_lists_text().replace("tokens: []", "tokens: [tok]", 1)
    built = build_bundle(replace(parts(), lists_text=lists_text), tmp_path)
    assert built.id != build_bundle(parts(), tmp_path).id
    loaded = load_bundle(bundle_path(tmp_path, built.id))
    assert [name for name, one in loaded.rules.lists.items() if one.tokens] == ["blocked_cards"]
    card = load_lists_text().replace("tokens: []", "tokens: ['4111111111111111']", 1)
    with pytest.raises(BundleError, match=r"lists\.yaml cannot be read: .*\(hidden\)"):
        build_bundle(replace(parts(), lists_text=card), tmp_path)


def test_a_bundle_of_before_there_was_a_card_is_still_read(tmp_path: Path) -> None:
    files = {name: raw for name, raw in build(parts()).files.items() if name not in (CARD, MANIFEST)}
    old = parse({**files, MANIFEST: _manifest(files, CARDLESS_FORMAT)})
    assert (old.card, old.contract) == ("", CONTRACT)
    with pytest.raises(BundleError, match=r"card\.md does not belong"):
        parse({**old.files, CARD: b"x"})
    with pytest.raises(BundleError, match="has format 1; this platform reads 2 and 3"):
        parse({**files, MANIFEST: _manifest(files, 1)})


def test_a_card_is_a_part_of_the_bundle(tmp_path: Path) -> None:
    built = build_bundle(replace(parts(), card_text="# Card\n"), tmp_path)
    assert built.id != build_bundle(parts(), tmp_path).id
    assert load_bundle(bundle_path(tmp_path, built.id)).card == "# Card\n"
    assert (bundle_path(tmp_path, built.id) / CARD).read_text() == "# Card\n"


def test_a_bundle_of_another_contract_is_refused(tmp_path: Path) -> None:
    bundle = build_bundle(parts(), tmp_path)
    check_contract(bundle, CONTRACT.hash)
    smaller = FeatureContract(CONTRACT.entities, CONTRACT.features[:3])
    with pytest.raises(BundleError, match="rebuild the store"):
        check_contract(bundle, smaller.hash)


def test_every_feature_has_a_reason_family_that_says_something() -> None:
    texts = ReasonTexts.from_yaml(load_reasons_text())
    families = texts.family_of(CONTRACT.names)
    other = len(texts.families) - 1
    assert [name for name, index in zip(CONTRACT.names, families, strict=True) if index == other] == []
    assert set(range(other)) == set(families), "a family without a feature"


def test_a_feature_without_a_family_is_named() -> None:
    text = load_reasons_text().replace('["*"]', "[none]")
    with pytest.raises(SettingsError, match="'strange'"):
        ReasonTexts.from_yaml(text).family_of(["card_x", "strange"])


def test_the_shipped_rules_read_features_that_exist() -> None:
    assert set(load_rules(CONTRACT.dtypes).feature_names) <= set(CONTRACT.names)


def test_a_distribution_counts_every_row_once() -> None:
    column = np.array([0.0] * 90 + [5.0] * 5 + [np.nan] * 5)
    distribution = Distribution.of(column)
    assert distribution.edges == (0.0,)
    assert distribution.shares == (0.9, 0.05, 0.05)
    assert distribution.shares_of(np.array([np.nan, 7.0])) == (0.0, 0.5, 0.5)


def test_a_category_counts_unseen_levels_as_other_and_none_as_missing() -> None:
    distribution = Distribution.of(np.array(["web", "pos", "web", None], dtype=object))
    assert distribution.levels == ("pos", "web", "(other)")
    assert distribution.shares == (0.25, 0.5, 0.0, 0.25)
    assert distribution.shares_of(np.array(["moto", None], dtype=object)) == (0.0, 0.0, 0.5, 0.5)


def test_a_column_that_is_never_known_has_a_distribution() -> None:
    distribution = Distribution.of(np.full(4, np.nan))
    assert distribution.shares == (0.0, 1.0)
    assert msgspec.json.decode(msgspec.json.encode(distribution), type=Distribution) == distribution
