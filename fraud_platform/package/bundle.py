"""What a bundle is: named files, a manifest of their SHA-256, and an id that is the manifest's hash.

The same parts give the same bytes and so the same id; nothing in a bundle says when it was built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import yaml

from fraud_platform.calibration import Calibrator
from fraud_platform.errors import BundleError, FraudPlatformError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.package.golden import GoldenRequest, golden_from_json, golden_to_json
from fraud_platform.package.reasons import ReasonTexts
from fraud_platform.package.reference import Reference
from fraud_platform.policy import Policy
from fraud_platform.rules import EMPTY_LISTS_TEXT, RuleSet, lists_from_yaml, rules_from_yaml

FORMAT = 3
CARDLESS_FORMAT = 2
"""Of before bundles had a model card; such a bundle is still read."""
MANIFEST = "manifest.json"
MODEL = "model.txt"
CALIBRATOR = "calibrator.json"
ENCODER = "encoder.json"
CONTRACT = "contract.json"
RULES = "rules.yaml"
LISTS = "lists.yaml"
POLICY = "policy.yaml"
REASONS = "reasons.yaml"
REFERENCE = "reference.json"
VERSIONS = "versions.json"
EVALUATION = "evaluation.json"
GOLDEN = "golden.json"
CARD = "card.md"
FILES = (
    CALIBRATOR,
    CARD,
    CONTRACT,
    ENCODER,
    EVALUATION,
    GOLDEN,
    LISTS,
    MODEL,
    POLICY,
    REASONS,
    REFERENCE,
    RULES,
    VERSIONS,
)

Part = TypeVar("Part")


@dataclass(frozen=True)
class BundleParts:
    """What goes into a bundle.

    model_text: a LightGBM booster's model string; versions: of data and code, such as as_of, data
    fingerprint, model version; evaluation: the metrics that approved it; golden: what it must answer wherever
    it is loaded (`serve.golden`); card_text: the model card (`evaluate.card`). None of them may tell the
    time of the build, or the same parts would not give the same bundle.
    """

    model_text: str
    calibrator: Calibrator
    encoder: CategoryEncoder
    contract: FeatureContract
    rules_text: str
    policy_text: str
    reasons_text: str
    reference: Reference
    versions: Mapping[str, str]
    evaluation: Mapping[str, object]
    golden: tuple[GoldenRequest, ...] = ()
    lists_text: str = EMPTY_LISTS_TEXT
    card_text: str = ""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle: every file has the hash that the manifest states, and every part was read.

    id: SHA-256 of the manifest, hex; files: their bytes by name, the manifest among them.
    """

    id: str
    model_text: str
    calibrator: Calibrator
    encoder: CategoryEncoder
    contract: FeatureContract
    rules: RuleSet
    policy: Policy
    reasons: ReasonTexts
    reference: Reference
    versions: Mapping[str, str]
    evaluation: Mapping[str, object]
    golden: tuple[GoldenRequest, ...]
    card: str
    files: Mapping[str, bytes]


def build(parts: BundleParts) -> Bundle:
    """The bundle of these parts. BundleError names the part that cannot be read back."""
    files = {
        MODEL: parts.model_text.encode(),
        CALIBRATOR: parts.calibrator.to_json(),
        ENCODER: parts.encoder.to_json(),
        CONTRACT: parts.contract.to_json(),
        RULES: parts.rules_text.encode(),
        LISTS: parts.lists_text.encode(),
        POLICY: parts.policy_text.encode(),
        REASONS: parts.reasons_text.encode(),
        REFERENCE: parts.reference.to_json(),
        VERSIONS: msgspec.json.encode(parts.versions, order="sorted"),
        EVALUATION: msgspec.json.encode(parts.evaluation, order="sorted"),
        GOLDEN: golden_to_json(parts.golden),
        CARD: parts.card_text.encode(),
    }
    return parse({**files, MANIFEST: _manifest(files)})


def parse(files: Mapping[str, bytes]) -> Bundle:
    """Check every file against the manifest and read it. BundleError names the file that is wrong."""
    manifest = files.get(MANIFEST)
    if manifest is None:
        raise BundleError(f"{MANIFEST} is missing: this is not a bundle")
    _check_files(manifest, files)
    contract = _read(CONTRACT, files, FeatureContract.from_json)
    reasons = _read(REASONS, files, lambda raw: ReasonTexts.from_yaml(raw.decode()))
    reasons.family_of(contract.names)
    lists_text = _read(LISTS, files, _lists_text)
    rules = _read(RULES, files, lambda raw: rules_from_yaml(raw.decode(), contract.dtypes, lists_text))
    _read(REASONS, files, lambda _: reasons.check_rules(rule.code for rule in rules.declared))
    return Bundle(
        id=hashlib.sha256(manifest).hexdigest(),
        model_text=files[MODEL].decode(),
        calibrator=_read(CALIBRATOR, files, Calibrator.from_json),
        encoder=_read(ENCODER, files, CategoryEncoder.from_json),
        contract=contract,
        rules=rules,
        policy=_read(POLICY, files, lambda raw: Policy.from_yaml(raw.decode())),
        reasons=reasons,
        reference=_read(REFERENCE, files, Reference.from_json),
        versions=_read(VERSIONS, files, lambda raw: msgspec.json.decode(raw, type=dict[str, str])),
        evaluation=_read(EVALUATION, files, lambda raw: msgspec.json.decode(raw, type=dict[str, object])),
        golden=_read(GOLDEN, files, golden_from_json),
        card=_read(CARD, files, bytes.decode) if CARD in files else "",
        files=dict(files),
    )


def check_contract(bundle: Bundle, contract_hash: str) -> None:
    """BundleError unless the bundle was made for the feature contract of that hash."""
    if bundle.contract.hash != contract_hash:
        raise BundleError(
            f"bundle {bundle.id[:12]} wants feature contract {bundle.contract.hash[:12]}, the store holds "
            f"{contract_hash[:12]}: rebuild the store for this contract, or package a model of the store's"
        )


def _manifest(files: Mapping[str, bytes], number: int = FORMAT) -> bytes:
    entries = {
        name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in files.items()
    }
    return msgspec.json.encode({"format": number, "files": entries}, order="sorted")


def _check_files(manifest: bytes, files: Mapping[str, bytes]) -> None:
    try:
        stated = msgspec.json.decode(manifest, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise BundleError(f"{MANIFEST} is damaged: {error}") from error
    number = stated.get("format")
    if not isinstance(number, int) or number not in (CARDLESS_FORMAT, FORMAT):
        raise BundleError(
            f"{MANIFEST} has format {number!r}; this platform reads {CARDLESS_FORMAT} and {FORMAT}"
        )
    names = FILES if number == FORMAT else tuple(name for name in FILES if name != CARD)
    missing = sorted(set(names) - files.keys())
    if missing:
        raise BundleError(f"{missing[0]} is missing from the bundle; copy the bundle again")
    unexpected = sorted(files.keys() - {*names, MANIFEST})
    if unexpected:
        raise BundleError(f"{unexpected[0]} does not belong to the bundle; remove it")
    held = {name: files[name] for name in names}
    if _manifest(held, number) == manifest:
        return
    for name in names:
        digest = hashlib.sha256(files[name]).hexdigest()
        if digest.encode() not in manifest:
            raise BundleError(f"{name} has SHA-256 {digest[:12]}, not the manifest's; copy the bundle again")
    raise BundleError(f"{MANIFEST} does not describe the bundle's files; copy the bundle again")


def _lists_text(raw: bytes) -> str:
    """Read here, so that an error is the lists file's and not the rules'."""
    text = raw.decode()
    lists_from_yaml(text)
    return text


def _read(name: str, files: Mapping[str, bytes], parse_part: Callable[[bytes], Part]) -> Part:
    try:
        return parse_part(files[name])
    except (FraudPlatformError, msgspec.MsgspecError, yaml.YAMLError, ValueError, LookupError) as error:
        raise BundleError(f"{name} cannot be read: {error}") from error
