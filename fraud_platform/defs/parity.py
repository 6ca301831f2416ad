"""The proof that served features equal built ones: without it nothing teaches and nothing is released.

Beside it, on nobody's path: what windows that are only about right would have got wrong.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from fraud_platform.adapters.candidates import read_candidate
from fraud_platform.adapters.parity_replay import prove, proves_present, read_proof, write_proof
from fraud_platform.adapters.tails import TailFinding, report_tails
from fraud_platform.defs.ingest import POOL
from fraud_platform.defs.latest import latest_text
from fraud_platform.defs.platform import Platform
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.proof import ParityProof

PARITY = dg.AssetKey(["features", "parity"])
TAILS = dg.AssetKey(["evaluate", "tails"])


@dg.asset(
    key=PARITY,
    deps=[["features", "transaction_features"]],
    group_name="features",
    kinds={"lmdb", "dbt"},
    owners=["team:fraud-ml"],
    pool=POOL,
    check_specs=[
        dg.AssetCheckSpec(
            "parity",
            asset=PARITY,
            blocking=True,
            description="Every value that is served equals the built one as bits: 0 mismatches or no release",
        )
    ],
)
def parity(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult]:
    """The whole timeline replayed through the online store, each value compared with dbt's as bits.

    The proof is kept for the contract; it is made anew where rows, contract or the store's code have changed.
    """
    warehouse, contract = platform.warehouse, platform.contract
    proof = read_proof(platform.settings, contract.hash)
    is_unchanged = proves_present(proof, warehouse, contract)
    if proof is None or not is_unchanged:
        proof = prove(warehouse, contract, platform.now_ms(), progress=context.log.info)
        write_proof(platform.settings, proof)
    found = _metadata(proof, contract)
    yield dg.MaterializeResult(
        metadata=found | {"unchanged": is_unchanged},
        check_results=[
            dg.AssetCheckResult(
                check_name="parity",
                passed=proof.is_exact,
                description=str(proof),
                metadata=found,
            )
        ],
    )


def _metadata(proof: ParityProof, contract: FeatureContract) -> dict[str, Any]:
    compared = proof.transactions
    lines = [f"| {name} | {compared:,} | {proof.mismatches.get(name, 0):,} |" for name in contract.names]
    by_feature = "\n".join(["| feature | values | mismatches |", "|---|---:|---:|", *lines])
    return {
        "transactions": proof.transactions,
        "labels": proof.labels,
        "values": proof.values,
        "mismatches": proof.wrong_values,
        "by_feature": dg.MetadataValue.md(by_feature),
        "examples": list(proof.examples),
        "contract": proof.contract,
        "proven_at": dg.MetadataValue.timestamp(proof.at_ms / 1000),
    }


@dg.asset(
    key=TAILS,
    deps=[["train", "candidate"]],
    group_name="evaluate",
    kinds={"dbt", "lightgbm"},
    owners=["team:fraud-ml"],
    pool=POOL,
)
def tails(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult:
    """What five-minute and one-day tails would get wrong on the candidate's test rows, and cost in ranking.

    Built in a scratch copy: no exact table is touched. Left out of the learning job, which it would only slow
    down; it follows each candidate, or is asked for.
    """
    fingerprint = latest_text(context.instance, ["train", "candidate"], "fingerprint")
    report = report_tails(
        platform.settings,
        platform.mapping,
        platform.contract,
        read_candidate(platform.settings.candidates / fingerprint),
        context.log.info,
    )
    return dg.MaterializeResult(
        metadata={
            "fingerprint": fingerprint,
            "summary": dg.MetadataValue.md("\n".join(f"- {line.strip()}" for line in report.explain())),
            **{name: value for one in report.findings for name, value in _of_tail(one).items()},
        }
    )


def _of_tail(finding: TailFinding) -> dict[str, Any]:
    errors, ranking = finding.errors, finding.ranking
    prefix = errors.tail.replace("-", "_")
    found = {
        f"{prefix}_wrong_values": errors.wrong_share,
        f"{prefix}_wrong_transactions": errors.wrong_transactions_share,
    }
    if ranking is not None:
        found |= {
            f"{prefix}_average_precision": ranking.second,
            f"{prefix}_average_precision_difference": ranking.difference.estimate,
        }
    return found
