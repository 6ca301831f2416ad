"""From a training set to a candidate."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata, resources

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from fraud_platform.calibration import Calibrator
from fraud_platform.errors import TrainingError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.encoding import CategoryEncoder
from fraud_platform.train.baseline import fit_logistic
from fraud_platform.train.booster import TrainParams, fit_booster, row_weights, sample_rows
from fraud_platform.train.candidate import (
    DEFAULT_PARAMS,
    Candidate,
    PartLog,
    TrainLog,
    columns_of,
    fingerprint_of,
)
from fraud_platform.train.split import Part, Split

FRAUDS_MIN = 10
CODE_FILES = ("calibration.py", "features/encoding.py")


@dataclass(frozen=True)
class _Rows:
    """Rows of one part by time and id: `matrix` float64 (n, k), `is_fraud` bool (n,)."""

    matrix: np.ndarray
    is_fraud: np.ndarray
    identity: bytes


def train(
    training_set: pd.DataFrame,
    contract: FeatureContract,
    split: Split,
    params: TrainParams | None = None,
    report: Callable[[str], None] = lambda message: None,
    params_source: str = DEFAULT_PARAMS,
) -> Candidate:
    """Fit on the train part, stop and calibrate on the validation part; the test part is not looked at.

    training_set: mature rows with transaction_id, event_time (ms), is_fraud and every feature column.
    params_source: where the parameters come from, for the log. The same rows in any order give the same
    candidate. TrainingError when a part cannot teach.
    """
    started = time.perf_counter()
    params = params or TrainParams()
    in_train, train_log = _part(training_set, split.train, "train")
    in_validation, validation_log = _part(training_set, split.validation, "validation")
    columns = columns_of(training_set, contract)
    teaching, stopping = (
        in_order(training_set, rows) for rows in (_drawn(training_set, in_train, params), in_validation)
    )
    encoder = CategoryEncoder.fit(_Taken(columns, teaching), contract)
    learn, held_out = (
        _rows(training_set, places, _Taken(columns, places), encoder, contract)
        for places in (teaching, stopping)
    )
    report(f"{len(teaching)} of {train_log.rows} rows teach ({train_log.frauds} frauds)")

    booster = fit_booster(
        learn.matrix, learn.is_fraud, contract, params, (held_out.matrix, held_out.is_fraud), report
    )
    score = np.asarray(booster.predict(held_out.matrix, num_threads=params.threads))
    weight = row_weights(learn.is_fraud, replace(params, is_prior_kept=True))
    baseline = fit_logistic(
        learn.matrix, learn.is_fraud, weight, (held_out.matrix, held_out.is_fraud), contract, encoder.levels
    )
    log = TrainLog(
        train=train_log,
        validation=validation_log,
        teaching_rows=len(teaching),
        rounds=booster.best_iteration if booster.best_iteration > 0 else booster.num_trees(),
        validation_average_precision=float(average_precision_score(held_out.is_fraud, score)),
        seconds=time.perf_counter() - started,
        params_source=params_source,
    )
    digest, version = _digest(encoder, learn, held_out), code_version()
    return Candidate(
        model_text=booster.model_to_string(),
        calibrator=Calibrator.fit(score, held_out.is_fraud),
        encoder=encoder,
        contract=contract,
        baseline=baseline,
        params=params,
        split=split,
        log=log,
        data_digest=digest,
        code_version=version,
        fingerprint=fingerprint_of(digest, params, contract.hash, version),
    )


def code_version() -> str:
    """What the sources that make a candidate hash to, with the version of LightGBM."""
    root = resources.files("fraud_platform")
    own = sorted(
        (item for item in root.joinpath("train").iterdir() if item.name.endswith(".py")),
        key=lambda item: item.name,
    )
    digest = hashlib.sha256(metadata.version("lightgbm").encode())
    for source in [*own, *(root.joinpath(name) for name in CODE_FILES)]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _part(training_set: pd.DataFrame, part: Part, name: str) -> tuple[np.ndarray, PartLog]:
    """Which rows lie in the part, bool (n,), and what there is of them."""
    moments = training_set["event_time"].to_numpy()
    inside = part.mask(moments)
    rows, frauds = int(inside.sum()), int(training_set["is_fraud"].to_numpy(dtype=bool)[inside].sum())
    if frauds < FRAUDS_MIN or frauds == rows:
        raise TrainingError(
            f"the {name} part ({part}) has {rows} mature rows and {frauds} frauds; "
            f"at least {FRAUDS_MIN} frauds and some legitimate rows are needed: give more history"
        )
    return inside, PartLog(rows, frauds, int(moments[inside].min()), int(moments[inside].max()))


def _drawn(training_set: pd.DataFrame, inside: np.ndarray, params: TrainParams) -> np.ndarray:
    """Which rows teach: bool (n,)."""
    identity = training_set.loc[inside, ["transaction_id", "is_fraud"]]
    keep = sample_rows(
        identity["transaction_id"].to_numpy(),
        identity["is_fraud"].to_numpy(),
        params.legit_share,
        params.seed,
    )
    drawn = inside.copy()
    drawn[inside] = keep
    return drawn


@dataclass(frozen=True)
class _Taken(Mapping[str, np.ndarray]):
    """Some rows of columns, by place; each is taken when it is asked for, so that no second table is made."""

    columns: Mapping[str, np.ndarray]
    places: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name][self.places]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def in_order(training_set: pd.DataFrame, chosen: np.ndarray) -> np.ndarray:
    """Places of the chosen rows by event_time, then transaction_id: int64 (m,).

    Ids are compared only where moments are equal: sorting millions of different texts takes seconds.
    """
    places = np.flatnonzero(chosen)
    moments = training_set["event_time"].to_numpy()[places]
    order = np.argsort(moments, kind="stable")
    places, moments = places[order], moments[order]
    is_same = moments[1:] == moments[:-1]
    tied = np.flatnonzero(np.append(is_same, False) | np.append(False, is_same))
    ids = training_set["transaction_id"].iloc[places[tied]].to_numpy()
    keyed = pd.DataFrame({"moment": moments[tied], "id": ids})
    by_id = keyed.sort_values(["moment", "id"], kind="stable").index.to_numpy()
    places[tied] = places[tied[by_id]]
    return places


def _rows(
    training_set: pd.DataFrame,
    places: np.ndarray,
    columns: Mapping[str, np.ndarray],
    encoder: CategoryEncoder,
    contract: FeatureContract,
) -> _Rows:
    ids = training_set["transaction_id"].iloc[places]
    identity = "\n".join(ids).encode() + training_set["event_time"].to_numpy()[places].tobytes()
    is_fraud = training_set["is_fraud"].to_numpy(dtype=bool)[places]
    return _Rows(encoder.matrix(columns, contract), is_fraud, identity)


def _digest(encoder: CategoryEncoder, *parts: _Rows) -> str:
    """Over exactly what taught: ids, moments, values and outcomes of the sampled and the held-out rows."""
    digest = hashlib.sha256(encoder.to_json())
    for rows in parts:
        digest.update(rows.identity)
        digest.update(np.ascontiguousarray(rows.matrix).reshape(-1).view(np.uint8).data)
        digest.update(rows.is_fraud.tobytes())
    return digest.hexdigest()
