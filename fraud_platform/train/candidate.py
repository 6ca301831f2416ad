"""A candidate: everything that turns feature columns into a probability, and how it came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fraud_platform.calibration import Calibrator
from fraud_platform.errors import BundleError, ContractError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.train.baseline import LogisticBaseline
from fraud_platform.train.booster import Booster, TrainParams, booster_from_text
from fraud_platform.train.split import Part, Split, date_of

MODEL_FILE, LOG_FILE = "model.txt", "candidate.json"
CALIBRATOR_FILE, ENCODER_FILE = "calibrator.json", "encoder.json"
CONTRACT_FILE, BASELINE_FILE = "contract.json", "baseline.json"
FILES = (MODEL_FILE, LOG_FILE, CALIBRATOR_FILE, ENCODER_FILE, CONTRACT_FILE, BASELINE_FILE)
FILE_VERSION = 1
DEFAULT_PARAMS = "the platform's defaults"


@dataclass(frozen=True)
class PartLog:
    """Rows and frauds of one part, and the moments of its first and last row (ms UTC)."""

    rows: int
    frauds: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class YoungLog:
    """Rows after the validation part that taught, corrected for what was not known of them at `as_of_ms`.

    rows: drawn to teach; frauds: reported ones among them; frauds_expected: what these count for.
    known_share_min, known_share_max: of the frauds of such rows, from the youngest to the oldest.
    """

    as_of_ms: int
    rows: int
    frauds: int
    frauds_expected: float
    known_share_min: float
    known_share_max: float
    first_ms: int
    last_ms: int

    def explain(self) -> str:
        return (
            f"{self.rows:,} rows from {date_of(self.first_ms)[:10]} to {date_of(self.last_ms)[:10]}; "
            f"{self.frauds:,} frauds reported before {date_of(self.as_of_ms)} count as "
            f"{self.frauds_expected:,.0f}, since {self.known_share_min:.0%} to {self.known_share_max:.0%} of "
            "such were known by then"
        )


@dataclass(frozen=True)
class TrainLog:
    """`teaching_rows`: the rows of the train part drawn to teach; `young`: the rows too young to be mature
    that taught as well, None where none did; `params_source`: where the parameters come from, as a sentence.
    It and `seconds` are left out of equality."""

    train: PartLog
    validation: PartLog
    teaching_rows: int
    rounds: int
    validation_average_precision: float
    seconds: float = field(compare=False)
    params_source: str = field(default=DEFAULT_PARAMS, compare=False)
    young: YoungLog | None = None


@dataclass(frozen=True)
class Candidate:
    """`fingerprint`: sha-256 over training data, parameters, contract and code; the candidate's id."""

    model_text: str
    calibrator: Calibrator
    encoder: CategoryEncoder
    contract: FeatureContract
    baseline: LogisticBaseline
    params: TrainParams
    split: Split
    log: TrainLog
    data_digest: str
    code_version: str
    fingerprint: str

    @property
    def contract_hash(self) -> str:
        return self.contract.hash

    @property
    def learned_until_ms(self) -> int:
        """No row from this moment on (ms UTC) had a part in it: only such can judge it."""
        return self.split.validation.end_ms if self.log.young is None else self.split.test.start_ms

    @cached_property
    def booster(self) -> Booster:
        return booster_from_text(self.model_text)

    def matrix(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Feature columns, each (n,), as the float64 (n, k) that the model reads."""
        return self.encoder.matrix(columns, self.contract)

    def score_matrix(self, matrix: np.ndarray) -> np.ndarray:
        return np.asarray(self.booster.predict(matrix, num_threads=self.params.threads), dtype=np.float64)

    def score(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Raw score from 0 to 1: float64 (n,). Not a probability: see `probability`."""
        return self.score_matrix(self.matrix(columns))

    def probability(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Calibrated probability of fraud: float64 (n,)."""
        return self.calibrator(self.score(columns))

    def to_files(self) -> dict[str, bytes]:
        """The candidate's folder, by file name."""
        log = {
            "file_version": FILE_VERSION,
            "fingerprint": self.fingerprint,
            "data_digest": self.data_digest,
            "code_version": self.code_version,
            "contract_hash": self.contract_hash,
            "model_sha256": _sha256(self.model_text.encode()),
            "params": asdict(self.params),
            "split": asdict(self.split),
            "log": asdict(self.log),
        }
        return {
            MODEL_FILE: self.model_text.encode(),
            LOG_FILE: json.dumps(log, indent=2, sort_keys=True).encode(),
            CALIBRATOR_FILE: self.calibrator.to_json(),
            ENCODER_FILE: self.encoder.to_json(),
            CONTRACT_FILE: self.contract.to_json(),
            BASELINE_FILE: self.baseline.to_json(),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Candidate:
        """Back from `to_files`. BundleError when a file lacks or is not the one that was written."""
        missing = sorted(set(FILES) - set(files))
        if missing:
            raise BundleError(f"candidate: files {missing} are missing; train it again")
        log = json.loads(files[LOG_FILE])
        contract = FeatureContract.from_json(files[CONTRACT_FILE])
        _refuse_damage(log, files, contract)
        return cls(
            model_text=files[MODEL_FILE].decode(),
            calibrator=Calibrator.from_json(files[CALIBRATOR_FILE]),
            encoder=CategoryEncoder.from_json(files[ENCODER_FILE]),
            contract=contract,
            baseline=LogisticBaseline.from_json(files[BASELINE_FILE]),
            params=TrainParams(**log["params"]),
            split=_split(log["split"]),
            log=_log(log["log"]),
            data_digest=log["data_digest"],
            code_version=log["code_version"],
            fingerprint=log["fingerprint"],
        )


def fingerprint_of(data_digest: str, params: TrainParams, contract_hash: str, code_version: str) -> str:
    """The candidate's id: the same data, parameters, contract and code give the same one."""
    parts = [data_digest, asdict(params), contract_hash, code_version]
    return _sha256(json.dumps(parts, sort_keys=True).encode())


def columns_of(frame: pd.DataFrame, contract: FeatureContract) -> dict[str, np.ndarray]:
    """The contract's columns of a frame, each (n,). ContractError names those that it lacks."""
    missing = sorted(set(contract.names) - set(frame.columns))
    if missing:
        raise ContractError(f"features {missing} are not in the table; build the features of this contract")
    return {name: frame[name].to_numpy() for name in contract.names}


def _refuse_damage(log: Mapping[str, Any], files: Mapping[str, bytes], contract: FeatureContract) -> None:
    if log["file_version"] != FILE_VERSION:
        raise BundleError(f"candidate file version {log['file_version']}: this platform reads {FILE_VERSION}")
    if _sha256(files[MODEL_FILE]) != log["model_sha256"]:
        raise BundleError(f"candidate {log['fingerprint'][:12]}: {MODEL_FILE} was changed; train it again")
    if contract.hash != log["contract_hash"]:
        raise BundleError(f"candidate {log['fingerprint'][:12]}: {CONTRACT_FILE} was changed; train it again")


def _split(content: Mapping[str, Any]) -> Split:
    parts = {name: Part(**content[name]) for name in ("train", "validation", "test")}
    return Split(gap_ms=content["gap_ms"], **parts)


def _log(content: Mapping[str, Any]) -> TrainLog:
    parts: dict[str, Any] = {name: PartLog(**content[name]) for name in ("train", "validation")}
    young = content.get("young")
    parts["young"] = None if young is None else YoungLog(**young)
    return TrainLog(**{**content, **parts})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
