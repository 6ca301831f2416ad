"""The approved version as a bundle, and the Bento that holds it."""

import json

import dagster as dg

from fraud_platform.adapters.bento import build_bento
from fraud_platform.adapters.bundle_files import build_bundle, bundle_path
from fraud_platform.adapters.golden_samples import golden_samples
from fraud_platform.adapters.mlflow_tags import RegisteredVersion
from fraud_platform.adapters.parity_replay import read_proof, store_code
from fraud_platform.defs.evaluate import evaluation_folder, read_evaluation, read_reference
from fraud_platform.defs.latest import latest_text
from fraud_platform.defs.parity import PARITY
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import GateError
from fraud_platform.evaluate import Evaluation, model_card
from fraud_platform.features.proof import ParityProof, require_proof
from fraud_platform.package import BundleParts, Reference, load_reasons_text
from fraud_platform.serve.golden import with_golden
from fraud_platform.train import Candidate

JUDGED_AS_SHIPPED = "judged_as_shipped"


@dg.asset(
    key=["package", "bundle"],
    deps=[["register", "model_version"], PARITY],
    group_name="package",
    kinds={"file"},
    owners=["team:fraud-ml"],
    check_specs=[
        dg.AssetCheckSpec(
            JUDGED_AS_SHIPPED,
            asset=["package", "bundle"],
            description="The model was judged by the prices, rules and lists that it ships with",
        )
    ],
)
def bundle(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """Everything the approved version needs to decide, named after the hash of its contents.

    Its card, metrics and reference are those of the evidence that was approved, whatever was evaluated since.
    Refused where its contract was not proven exact: packaging is a job of its own, which no check of learning
    stops.
    """
    champion = platform.registry.champion()
    if champion is None or champion.approval is None:
        raise GateError(
            "no version is approved: fraud-platform approve VERSION --by NAME --reason TEXT, then package"
        )
    model = platform.registry.candidate(champion.version)
    proof = proof_of(platform, model)
    judged = Evaluation.from_dict(json.loads(platform.registry.evidence(champion.version))["evaluation"])
    versions = {
        "dataset": platform.settings.dataset_name,
        "model_version": champion.version,
        "fingerprint": model.fingerprint,
        "data": model.data_digest,
        "code": model.code_version,
        "approved_by": champion.approval.by,
    }
    if champion.approval.uncompared:
        versions["approved_without_comparison"] = champion.approval.uncompared
    parts = BundleParts(
        model_text=model.model_text,
        calibrator=model.calibrator,
        encoder=model.encoder,
        contract=model.contract,
        rules_text=platform.rules_text,
        lists_text=platform.lists_text,
        policy_text=platform.policy_text,
        reasons_text=load_reasons_text(),
        reference=reference_of(platform, champion),
        versions=versions,
        evaluation=dict(judged.metrics()),
        card_text=model_card(model, judged, platform.mapping, versions),
    )
    is_known = {path.name for path in platform.settings.bundles.glob("*")}
    golden = with_golden(parts, golden_samples(platform.warehouse, model.contract))
    built = build_bundle(golden, platform.settings.bundles)
    path = bundle_path(platform.settings.bundles, built.id)
    return dg.MaterializeResult(
        metadata={
            "bundle": built.id,
            "path": str(path),
            "model_version": champion.version,
            "approved_by": champion.approval.by,
            "reason": champion.approval.reason,
            "files": len(built.files),
            "golden_requests": len(built.golden),
            "parity": str(proof),
            "card": dg.MetadataValue.md(built.card),
            "unchanged": path.name in is_known,
        },
        check_results=[_judged_as_shipped(platform, champion)],
    )


def _judged_as_shipped(platform: Platform, approved: RegisteredVersion) -> dg.AssetCheckResult:
    """A warning: rules change while a model stays, and then nobody has priced the two together."""
    wanted, version = platform.decision_hash, f"version {approved.version}"
    known = _decision_hashes(platform, approved)
    if wanted in known:
        said = f"{version} was judged by the prices, rules and lists of this bundle"
    else:
        told = ", ".join(one[:12] or "not noted" for one in known)
        said = (
            f"{version} was judged by other prices, rules or lists ({told}; of this bundle {wanted[:12]}): "
            "materialize evaluate/evaluation to see what they cost together"
        )
    return dg.AssetCheckResult(
        check_name=JUDGED_AS_SHIPPED,
        passed=wanted in known,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"said": said},
    )


def _decision_hashes(platform: Platform, approved: RegisteredVersion) -> list[str]:
    """By what it was judged for its approval, and since."""
    evidence = json.loads(platform.registry.evidence(approved.version))["evaluation"]
    found = [Evaluation.from_dict(evidence)]
    if evaluation_folder(platform, approved.fingerprint).is_dir():
        found.append(read_evaluation(platform, approved.fingerprint))
    return list(dict.fromkeys(one.decision_hash for one in found))


def reference_of(platform: Platform, approved: RegisteredVersion) -> Reference:
    """What the rows looked like on which it was approved; of a version that was registered without, those of
    its last evaluation."""
    registered = platform.registry.reference(approved.version)
    if registered is None:
        return read_reference(platform, approved.fingerprint)
    return Reference.from_json(registered)


def proof_of(platform: Platform, model: Candidate) -> ParityProof:
    """What proves that this code serves the model's contract exactly. GateError where nothing does."""
    known = read_proof(platform.settings, model.contract_hash)
    return require_proof(known, model.contract_hash, store_code(), platform.contract.hash)


@dg.asset(
    key=["package", "bento"],
    deps=[["package", "bundle"]],
    group_name="package",
    kinds={"bentoml"},
    owners=["team:fraud-ml"],
)
def bento(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """A Bento that starts from its own files alone; deploy it with `bentoml containerize`."""
    digest = latest_text(context.instance, ["package", "bundle"], "bundle")
    built = build_bento(bundle_path(platform.settings.bundles, digest), platform.settings.bento_home)
    return dg.MaterializeResult(
        metadata={"tag": built.tag, "path": str(built.path), "bundle": digest, "unchanged": not built.is_new}
    )
