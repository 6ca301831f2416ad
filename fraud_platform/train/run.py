"""From a training set to a candidate.

Belongs here: what teaches, stops and calibrates, in which order. Does not belong here: reading rows (`rows`),
the weights of young ones (`young`), LightGBM (`booster`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
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
from fraud_platform.train.booster import Booster, TrainParams, fit_booster, row_weights
from fraud_platform.train.candidate import (
    DEFAULT_PARAMS,
    Candidate,
    PartLog,
    TrainLog,
    YoungLog,
    columns_of,
    fingerprint_of,
)
from fraud_platform.train.rows import Rows, Table, Taken, digest_of, drawn_rows, in_order, joined
from fraud_platform.train.split import Part, Split, date_of
from fraud_platform.train.young import KNOWN_SHARE_MIN, YoungLabels, importance_weights

FRAUDS_MIN = 10
CODE_FILES = ("calibration.py", "features/encoding.py")


@dataclass(frozen=True)
class _Fitted:
    """A booster with its scores of the held-out rows, (m,)."""

    booster: Booster
    score: np.ndarray


def train(
    training_set: pd.DataFrame,
    contract: FeatureContract,
    split: Split,
    params: TrainParams | None = None,
    report: Callable[[str], None] = lambda message: None,
    params_source: str = DEFAULT_PARAMS,
    young: YoungLabels | None = None,
) -> Candidate:
    """Fit on the train part, stop and calibrate on the validation part; the test part is not looked at.

    training_set: mature rows with transaction_id, event_time (ms), is_fraud as it was known when the test
    part began, and every feature column. params_source: where the parameters come from, for the log. young:
    what was known of these rows then; with it the rows of the gap teach too, by that and not by is_fraud,
    each weighed by importance (`train.young`); None leaves them out. The same rows in any order give the same
    candidate. TrainingError when a part cannot teach.
    """
    started = time.perf_counter()
    params = params or TrainParams()
    in_train, train_log = _part(training_set, split.train, "train")
    in_validation, validation_log = _part(training_set, split.validation, "validation")
    columns, is_fraud = columns_of(training_set, contract), training_set["is_fraud"].to_numpy(dtype=bool)
    teaching = in_order(training_set, drawn_rows(training_set, in_train, is_fraud, params))
    encoder = CategoryEncoder.fit(Taken(columns, teaching), contract)
    table = Table(training_set, columns, contract, encoder)
    learn = table.rows(teaching, is_fraud)
    held_out = table.rows(in_order(training_set, in_validation), is_fraud)
    report(f"{len(teaching)} of {train_log.rows} rows teach ({train_log.frauds} frauds)")

    fitted = _fit(learn, held_out, contract, params, report)
    young_rows, young_log = _weighed(table, split, young, params, fitted, held_out)
    if young_log is not None:
        report(f"rows too young to be mature teach as well: {young_log.explain()}")
        fitted = _fit(joined(learn, young_rows), held_out, contract, params, report)
    weight = row_weights(learn.is_fraud, replace(params, is_prior_kept=True))
    baseline = fit_logistic(
        learn.matrix, learn.is_fraud, weight, (held_out.matrix, held_out.is_fraud), contract, encoder.levels
    )
    booster = fitted.booster
    log = TrainLog(
        train=train_log,
        validation=validation_log,
        teaching_rows=len(teaching),
        rounds=booster.best_iteration if booster.best_iteration > 0 else booster.num_trees(),
        validation_average_precision=float(average_precision_score(held_out.is_fraud, fitted.score)),
        seconds=time.perf_counter() - started,
        params_source=params_source,
        young=young_log,
    )
    digest, version = digest_of(encoder, learn, held_out, young_rows), code_version()
    return Candidate(
        model_text=booster.model_to_string(),
        calibrator=Calibrator.fit(fitted.score, held_out.is_fraud),
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


def _fit(
    learn: Rows,
    held_out: Rows,
    contract: FeatureContract,
    params: TrainParams,
    report: Callable[[str], None],
) -> _Fitted:
    stops = (held_out.matrix, held_out.is_fraud)
    booster = fit_booster(learn.matrix, learn.is_fraud, contract, params, stops, report, learn.weight)
    return _Fitted(booster, np.asarray(booster.predict(held_out.matrix, num_threads=params.threads)))


def _weighed(
    table: Table,
    split: Split,
    young: YoungLabels | None,
    params: TrainParams,
    first: _Fitted,
    held_out: Rows,
) -> tuple[Rows, YoungLog | None]:
    """Rows of the gap with their importance, and what there is of them: no row, and None, where there are no
    young labels, or too little of what happened is known in all of the gap.

    first: fitted on mature rows alone, it says how likely each is a fraud.
    """
    places = np.zeros(0, dtype=np.int64)
    if young is not None:
        _refuse_other(young, table.frame, split)
        gap = Part(split.validation.end_ms, split.test.start_ms)
        inside = gap.mask(table.frame["event_time"].to_numpy()) & (young.known_share >= KNOWN_SHARE_MIN)
        places = in_order(table.frame, drawn_rows(table.frame, inside, young.is_known_fraud, params))
    if young is None or not len(places):
        none = np.zeros(0, dtype=bool)
        return Rows(np.zeros((0, len(table.contract.names))), none, b"", np.zeros(0)), None
    rows = table.rows(places, young.is_known_fraud)
    calibrator = Calibrator.fit(first.score, held_out.is_fraud)
    probability = calibrator(np.asarray(first.booster.predict(rows.matrix, num_threads=params.threads)))
    share = young.known_share[places]
    weight = importance_weights(rows.is_fraud, share, probability)
    moments = table.frame["event_time"].to_numpy()[places]
    return replace(rows, weight=weight), YoungLog(
        as_of_ms=young.as_of_ms,
        rows=len(places),
        frauds=int(rows.is_fraud.sum()),
        frauds_expected=float(weight[rows.is_fraud].sum()),
        known_share_min=float(share.min()),
        known_share_max=float(share.max()),
        first_ms=int(moments[0]),
        last_ms=int(moments[-1]),
    )


def _refuse_other(young: YoungLabels, training_set: pd.DataFrame, split: Split) -> None:
    if young.as_of_ms != split.test.start_ms or len(young.known_share) != len(training_set):
        raise TrainingError(
            f"young labels of {len(young.known_share)} rows as of {date_of(young.as_of_ms)}: the training "
            f"set has {len(training_set)} rows and its test part begins {date_of(split.test.start_ms)}; "
            "give its own"
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
