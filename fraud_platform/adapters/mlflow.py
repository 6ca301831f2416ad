"""The model registry: versions with evidence, and the aliases `challenger` and `champion`.

Belongs here: MLflow. Does not belong here: the verdict on a candidate (`register.gate`).
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fraud_platform.adapters.candidates import read_folder, write_folder
from fraud_platform.adapters.mlflow_tags import RegisteredVersion, approval_tags, gate_tags, version_of
from fraud_platform.errors import GateError
from fraud_platform.evaluate import Evaluation
from fraud_platform.features.contract import FeatureContract
from fraud_platform.register import Approval, Promotion, checked_approval, evidence_of
from fraud_platform.train import Candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
CANDIDATE_FOLDER, EVIDENCE_FOLDER, PLOTS_FOLDER = "candidate", "evidence", "plots"
EVIDENCE_FILE, REFERENCE_FILE = "evidence.json", "reference.json"


@dataclass(frozen=True)
class Registration:
    """`outcome`: created; kept (the same candidate with the same evidence was there); judged_again."""

    version: str
    run_id: str
    outcome: Literal["created", "kept", "judged_again"]


class ModelRegistry:
    """One registered model and its experiment of the same name; artifacts go below `artifact_root`."""

    def __init__(self, tracking_uri: str, name: str, artifact_root: Path) -> None:
        self.tracking_uri = tracking_uri
        self.name = name
        self.artifact_root = artifact_root
        self._connected: MlflowClient | None = None

    def register(
        self,
        candidate: Candidate,
        evaluation: Evaluation,
        promotion: Promotion,
        plots: Mapping[str, bytes] | None = None,
        reference: bytes | None = None,
    ) -> Registration:
        """A version with its evidence; the same candidate is never registered twice.

        A version that was never approved takes newer evidence; an approved one keeps what it was approved
        on. `challenger` points to the last version whose gate passed, a kept one too, since a run before may
        have been killed before it pointed there; the champion is no challenger. plots: the page of the
        evaluation and its images, by file name; reference: what the rows that judged looked like, as JSON.
        """
        evidence, digest = evidence_of(evaluation, promotion)
        known = self._with_fingerprint(candidate.fingerprint)
        if known is not None and (known.approval is not None or known.evidence_sha256 == digest):
            if CHAMPION not in known.aliases:
                self._point_challenger(known.version, promotion.is_allowed)
            return Registration(known.version, known.run_id, "kept")
        run_id = known.run_id if known else self._run(candidate)
        files = {EVIDENCE_FILE: evidence} | ({REFERENCE_FILE: reference} if reference is not None else {})
        self._log_evidence(run_id, evaluation, files, plots or {})
        tags = gate_tags(promotion, digest)
        if known is None:
            version = self._create_version(run_id, candidate, tags)
        else:
            version = known.version
            self._tag(version, tags)
        self._point_challenger(version, promotion.is_allowed)
        return Registration(version, run_id, "judged_again" if known else "created")

    def approve(
        self,
        version: str,
        by: str,
        reason: str,
        now_ms: int,
        log: Path | None = None,
        *,
        uncompared: str = "",
    ) -> Approval:
        """Make a version the champion, in somebody's name; `log`: a JSONL file that gets a line for it.

        The champion of today is left as it is, and its approval returned. A version that was approved
        before may come back (a rollback). uncompared: why it may ship although nobody can compare it with
        the champion. GateError when the version is unknown, its gate failed, its gate compared it with
        another champion than today's, or could not compare it and `uncompared` says nothing; and where that
        says something of a version that was compared.
        """
        wanted, champion = self.version(version), self.champion()
        if champion is not None and champion.version == wanted.version and champion.approval is not None:
            return champion.approval
        if uncompared and not wanted.is_uncompared:
            raise GateError(
                f"version {version} needs no reason to ship without a comparison: approve it without one"
            )
        if wanted.approval is None:
            _refuse_unproved(wanted, champion, is_excused=bool(uncompared))
        elif not uncompared:
            uncompared = wanted.approval.uncompared
        replaced = champion.version if champion else None
        approval = checked_approval(version, wanted.fingerprint, by, reason, now_ms, replaced, uncompared)
        if log is not None:
            append_approval(log, approval)
        self._tag(version, approval_tags(approval))
        self._client.set_registered_model_alias(self.name, CHAMPION, version)
        if CHALLENGER in wanted.aliases:
            self._client.delete_registered_model_alias(self.name, CHALLENGER)
        return approval

    def champion(self) -> RegisteredVersion | None:
        return next((one for one in self.versions() if CHAMPION in one.aliases), None)

    def version(self, version: str) -> RegisteredVersion:
        """GateError lists the versions there are when this one is unknown."""
        found = {one.version: one for one in self.versions()}
        if version not in found:
            raise GateError(f"{self.name} has no version {version!r}; it has {sorted(found) or 'none yet'}")
        return found[version]

    def versions(self) -> tuple[RegisteredVersion, ...]:
        """All versions, oldest first."""
        return self._search(f"name = '{self.name}'")

    def candidate_files(self, version: str) -> dict[str, bytes]:
        """The candidate's folder as it was registered: see `Candidate.from_files`."""
        return self._artifacts(version, CANDIDATE_FOLDER)

    def candidate(self, version: str) -> Candidate:
        """BundleError when what was registered is no longer intact."""
        return Candidate.from_files(self.candidate_files(version))

    def evidence(self, version: str) -> bytes:
        """The evidence that the version's gate was passed or failed on, as JSON."""
        return self._artifacts(version, EVIDENCE_FOLDER)[EVIDENCE_FILE]

    def reference(self, version: str) -> bytes | None:
        """What the rows of that evidence looked like, as JSON; None where it was registered without."""
        return self._artifacts(version, EVIDENCE_FOLDER).get(REFERENCE_FILE)

    @property
    def _client(self) -> MlflowClient:
        if self._connected is None:
            mlflow = load_mlflow()
            self.artifact_root.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(self.tracking_uri)
            mlflow.set_registry_uri(self.tracking_uri)
            self._connected = mlflow.MlflowClient(self.tracking_uri, self.tracking_uri)
        return self._connected

    def experiment(self) -> tuple[MlflowClient, str]:
        """The client, and the id of the experiment."""
        return self._client, self._experiment_id()

    def _experiment_id(self) -> str:
        """The experiment's id; its artifacts must not fall into the working directory."""
        known = self._client.get_experiment_by_name(self.name)
        if known is not None:
            return str(known.experiment_id)
        return self._client.create_experiment(self.name, (self.artifact_root / self.name).as_uri())

    def _run(self, candidate: Candidate) -> str:
        """The candidate's run: one that was begun and broken off is taken up again."""
        experiment_id = self._experiment_id()
        query = f"tags.fingerprint = '{candidate.fingerprint}'"
        begun = self._client.search_runs([experiment_id], query, max_results=1)
        if begun:
            run_id = begun[0].info.run_id
        else:
            tags = {"fingerprint": candidate.fingerprint, "params_source": candidate.log.params_source}
            name = candidate.fingerprint[:12]
            run_id = self._client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        for key, value in (asdict(candidate.params) | _log_params(candidate)).items():
            self._client.log_param(run_id, key, value)
        self._log_files(run_id, candidate.to_files(), CANDIDATE_FOLDER)
        return str(run_id)

    def _log_evidence(
        self, run_id: str, evaluation: Evaluation, files: Mapping[str, bytes], plots: Mapping[str, bytes]
    ) -> None:
        for key, value in evaluation.metrics().items():
            self._client.log_metric(run_id, key, value)
        self._log_files(run_id, files, EVIDENCE_FOLDER)
        self._log_files(run_id, plots, PLOTS_FOLDER)

    def _create_version(self, run_id: str, candidate: Candidate, tags: Mapping[str, str]) -> str:
        mlflow, client = load_mlflow(), self._client
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            model = mlflow.lightgbm.log_model(
                candidate.booster,
                name="model",
                signature=_signature(candidate.contract),
                pip_requirements=[f"lightgbm=={_lightgbm_version()}"],
            )
        if not client.search_registered_models(f"name = '{self.name}'"):
            client.create_registered_model(self.name)
        created = client.create_model_version(
            self.name,
            source=model.model_uri,
            run_id=run_id,
            model_id=model.model_id,
            tags={"fingerprint": candidate.fingerprint, **tags},
        )
        return str(created.version)

    def _point_challenger(self, version: str, is_allowed: bool) -> None:
        if is_allowed:
            self._client.set_registered_model_alias(self.name, CHALLENGER, version)
        elif CHALLENGER in self.version(version).aliases:
            self._client.delete_registered_model_alias(self.name, CHALLENGER)

    def _log_files(self, run_id: str, files: Mapping[str, bytes], folder: str) -> None:
        if files:
            with tempfile.TemporaryDirectory() as scratch:
                write_folder(files, Path(scratch) / folder)
                self._client.log_artifacts(run_id, str(Path(scratch) / folder), folder)

    def _artifacts(self, version: str, folder: str) -> dict[str, bytes]:
        run_id = self.version(version).run_id
        with tempfile.TemporaryDirectory() as scratch:
            return read_folder(Path(self._client.download_artifacts(run_id, folder, scratch)))

    def _tag(self, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, version, key, value)

    def _with_fingerprint(self, fingerprint: str) -> RegisteredVersion | None:
        found = self._search(f"name = '{self.name}' and tags.fingerprint = '{fingerprint}'")
        return found[0] if found else None

    def _search(self, query: str) -> tuple[RegisteredVersion, ...]:
        found = self._client.search_model_versions(query)
        aliases = self._aliases() if found else {}
        versions = (version_of(one, aliases) for one in found)
        return tuple(sorted(versions, key=lambda one: int(one.version)))

    def _aliases(self) -> dict[str, str]:
        """Alias to version; a search for versions does not tell them."""
        known: Mapping[str, Any] = self._client.get_registered_model(self.name).aliases
        return {alias: str(version) for alias, version in known.items()}


@cache
def load_mlflow() -> Any:
    """MLflow, loaded when first needed, and told beforehand to report nothing to anybody."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with warnings.catch_warnings():
        # MLflow warns about type hints of classes of its own while it is imported.
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
        import mlflow
        import mlflow.lightgbm

        _ = mlflow.pyfunc.PyFuncModel  # a module that is loaded when it is first touched
    from mlflow.telemetry import set_telemetry_client

    set_telemetry_client()  # anew: MLflow may have been loaded before the variable was set
    return mlflow


def append_approval(log: Path, approval: Approval) -> None:
    """One more line, on disk before this returns."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(approval.to_json_line())
        file.flush()
        os.fsync(file.fileno())


def _refuse_unproved(
    wanted: RegisteredVersion, champion: RegisteredVersion | None, *, is_excused: bool
) -> None:
    if wanted.is_uncompared and not is_excused:
        raise GateError(f"version {wanted.version} was not compared: {wanted.gate_reasons}")
    if not wanted.is_gate_passed and not wanted.is_uncompared:
        raise GateError(
            f"version {wanted.version} failed its gate ({wanted.gate_reasons}); approve one that passed"
        )
    today = champion.fingerprint if champion else None
    if wanted.champion_fingerprint != today:
        against = (wanted.champion_fingerprint or "no champion")[:12]
        raise GateError(
            f"version {wanted.version} was judged against {against}, and the champion is "
            f"{(today or 'none')[:12]}; run evaluate and register again"
        )


def _log_params(candidate: Candidate) -> dict[str, Any]:
    log = candidate.log
    return {
        "contract_hash": candidate.contract_hash,
        "code_version": candidate.code_version,
        "data_digest": candidate.data_digest,
        "train": str(candidate.split.train),
        "validation": str(candidate.split.validation),
        "test": str(candidate.split.test),
        "gap_ms": candidate.split.gap_ms,
        "train_rows": log.train.rows,
        "train_frauds": log.train.frauds,
        "teaching_rows": log.teaching_rows,
        "validation_rows": log.validation.rows,
        "rounds": log.rounds,
    }


def _signature(contract: FeatureContract) -> Any:
    """Every feature is a number to the booster, and may be unknown."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    inputs = Schema([ColSpec(DataType.double, name, required=False) for name in contract.names])
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec(DataType.double)]))


def _lightgbm_version() -> str:
    from importlib import metadata

    return metadata.version("lightgbm")
