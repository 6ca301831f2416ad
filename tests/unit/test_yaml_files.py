"""yaml_files: every YAML that people write is read strictly, and by one reader."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import fraud_platform
from fraud_platform.adapters.great_expectations import load_suite
from fraud_platform.adapters.keys import read_keys
from fraud_platform.errors import ContractError, FraudPlatformError, MappingError, SettingsError
from fraud_platform.features.contract import DECLARATION, load_contract
from fraud_platform.ingest.mapping import DATASETS, Mapping
from fraud_platform.package.reasons import ReasonTexts, load_reasons_text
from fraud_platform.policy import Policy, load_policy_text
from fraud_platform.rules import lists_from_yaml, load_lists_text, load_rules_text, rules_from_yaml
from fraud_platform.settings import PROJECT_ROOT
from fraud_platform.yaml_files import load_yaml

SOURCES = Path(fraud_platform.__file__).parent
KEYS = """keys:
- name: checkout
  id: 7k2m4qzvxw
  digest: "{digest}"
  scopes: [decide]
  created: 2026-11-24
""".format(digest="ab" * 32)
SUITE = PROJECT_ROOT / "expectations" / "raw_transactions.yaml"
FEATURES = load_contract().dtypes
Reader = Callable[[str, Path], object]


def of_file(read: Callable[[Path], object]) -> Reader:
    def written(text: str, path: Path) -> object:
        path.write_text(text, encoding="utf-8")
        return read(path)

    return written


READERS: dict[str, tuple[Reader, str, type[FraudPlatformError]]] = {
    "policy": (lambda text, _: Policy.from_yaml(text), load_policy_text(), SettingsError),
    "rules": (
        lambda text, _: rules_from_yaml(text, FEATURES, load_lists_text()),
        load_rules_text(),
        SettingsError,
    ),
    "lists": (lambda text, _: lists_from_yaml(text), load_lists_text(), SettingsError),
    "reasons": (lambda text, _: ReasonTexts.from_yaml(text), load_reasons_text(), SettingsError),
    "mapping": (
        lambda text, _: Mapping.from_yaml(text, "a mapping"),
        (DATASETS / "handbook.yaml").read_text(),
        MappingError,
    ),
    "suite": (of_file(load_suite), SUITE.read_text(), SettingsError),
    "declaration": (
        of_file(lambda path: load_contract(declaration=path)),
        DECLARATION.read_text(),
        ContractError,
    ),
    "keys": (of_file(read_keys), KEYS, SettingsError),
}


@pytest.mark.parametrize("name", READERS)
def test_a_key_that_stands_twice_is_named_with_its_lines(name: str, tmp_path: Path) -> None:
    """YAML would take the last one, and a price that is changed at the first would change nothing."""
    read, text, error = READERS[name]
    read(text, tmp_path / "file.yaml")
    lines = text.rstrip().splitlines()
    number, line = next((n, one) for n, one in enumerate(lines, 1) if one[:1].isalpha() and ":" in one)
    key = line.partition(":")[0]
    doubled = "\n".join([*lines, f"{key}: 1", ""])
    wanted = f"{key!r} stands twice, in lines {number} and {len(lines) + 1}: keep one"
    with pytest.raises(error, match=wanted):
        read(doubled, tmp_path / "file.yaml")


def test_a_price_that_stands_twice_is_refused() -> None:
    text = load_policy_text().replace("  review: 12", "  review: 12\n  review: 13")
    with pytest.raises(SettingsError, match=r"^the policy file: 'review' stands twice, .*see policy\.yaml$"):
        Policy.from_yaml(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n- c: 1\n  d: 2\n  c: 3", "'c' stands twice, in lines 3 and 5"),
        ("{a: 1, 'a': 2}", "'a' stands twice, in lines 1 and 1"),
        ("1: a\ntrue: b", "True stands twice, in lines 1 and 2"),
        ("? {a: 1}\n: 2", "found unhashable key"),
        ("a: [", "is not YAML: .*, line 1, column 5; correct it at that place"),
        ("a: \x00", "is not YAML: "),
        ("a: 1\nb: [2026-13-01]", "is not YAML: no timestamp can be read, line 2, column 5; correct it"),
        ("a: !!bool maybe", "is not YAML: no bool can be read, line 1, column 4"),
        ("a: !!int ''", "is not YAML: no int can be read, line 1, column 4"),
        ("[" * 3000, "is not YAML: it is nested too deeply"),
        ("a: 1\n---\nb: 2", "is not YAML: expected a single document"),
        ("&a [*a, {b: 1, b: 2}]", "'b' stands twice"),
        ("&a [*a, 2026-02-30]", "no timestamp can be read, line 1, column 9"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(MappingError, match=f"^the file.*{said}.*see it$"):
        load_yaml(text, "the file", "it", MappingError)


@pytest.mark.parametrize(
    "text",
    [
        "tokens:\n- 4111111111111111: [",
        "tokens: *tok_4111111111111111",
        "tokens: !tok_4111111111111111 x",
        "tokens: !!int x4111111111111111",
    ],
)
def test_nothing_of_a_line_that_is_not_yaml_is_shown(text: str) -> None:
    """It may be one of a list, whose card numbers no message may tell."""
    with pytest.raises(SettingsError) as caught:
        load_yaml(text, "the lists file")
    assert "411" not in str(caught.value)


def test_what_is_merged_may_be_replaced() -> None:
    """The plain meaning of `<<`, also where what is merged has merged and replaced itself."""
    text = "a: {deep: &x {<<: &y {p: 0, r: 4}, p: 1, q: 2}}\nb:\n  <<: [*x, *y]\n  p: 3\n"
    deep = {"p": 1, "q": 2, "r": 4}
    assert load_yaml(text, "it") == {"a": {"deep": deep}, "b": deep | {"p": 3}}
    assert load_yaml("", "it") is None


def test_one_reader_reads_all_yaml_that_people_write() -> None:
    """`bento.yaml` is written by BentoML."""
    asking = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("yaml.", "msgspec.yaml."))
        if node.attr in ("load", "safe_load", "load_all", "safe_load_all", "decode", "compose")
    }
    assert asking == {"adapters/image.py", "yaml_files.py"}
