"""Studies of a search on disk: Optuna's trials in a journal, and the answer that `train` may use.

Belongs here: Optuna and the search folder. Does not belong here: the space, what a trial is worth, when a
search ends (`learning.search`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fraud_platform.errors import SettingsError, TrainingError
from fraud_platform.learning.extra import load_extra
from fraud_platform.learning.search import Dimension, Found, Metric, Trial, applied, params_from_json
from fraud_platform.train import TrainParams

JOURNAL, BEST_FILE = "studies.journal", "best.json"
STARTUP_TRIALS = 10
"""Trials drawn at random before the sampler models what was seen."""
PRUNED_AFTER_TRIALS = 5
SEED_STEP = 100_003
SECONDS, VALUES = "seconds", "values"


class OptunaTrial:
    """See `learning.search.Asked`."""

    def __init__(self, study: Any, trial: Any) -> None:
        self._study, self._trial = study, trial
        self.params: dict[str, float] = dict(trial.params)

    def report(self, fold: int, value: float) -> bool:
        self._trial.report(value, fold)
        return bool(self._trial.should_prune())

    def tell(self, values: Sequence[float], value: float | None, seconds: float) -> None:
        self._trial.set_user_attr(VALUES, list(values))
        self._trial.set_user_attr(SECONDS, seconds)
        if value is None:
            self._study.tell(self._trial, state=_states().PRUNED)
        else:
            self._study.tell(self._trial, value)


class OptunaStudy:
    """See `learning.search.Study`. TPE, pruned at the median of the trials before.

    Each trial is drawn by a sampler of its own, seeded by the study's seed and the number of trials that
    ended: a search that was broken off and taken up again makes the trials of one that was not.
    """

    def __init__(self, folder: Path, name: str, metric: Metric, seed: int = TrainParams.seed) -> None:
        """Opens the study of this name in the folder's journal, or begins it."""
        optuna = load_extra("optuna")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = load_extra("optuna.storages.journal")
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self._seed = name, seed
        self._study = optuna.create_study(
            study_name=name,
            storage=optuna.storages.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL))),
            direction="minimize" if metric == "cost" else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNED_AFTER_TRIALS),
            load_if_exists=True,
        )
        for broken_off in self._study.get_trials(deepcopy=False, states=(_states().RUNNING,)):
            self._study.tell(broken_off.number, state=_states().FAIL)

    def trials(self) -> tuple[Trial, ...]:
        ended = self._study.get_trials(deepcopy=False, states=(_states().COMPLETE, _states().PRUNED))
        return tuple(_trial(number, one) for number, one in enumerate(ended))

    def ask(self, space: Sequence[Dimension], first: Mapping[str, float]) -> OptunaTrial:
        optuna, ended = load_extra("optuna"), len(self.trials())
        self._study.sampler = optuna.samplers.TPESampler(
            seed=(self._seed * SEED_STEP + ended) % 2**32, n_startup_trials=STARTUP_TRIALS
        )
        if ended == 0 and not self._study.get_trials(deepcopy=False, states=(_states().WAITING,)):
            self._study.enqueue_trial(dict(first))
        return OptunaTrial(self._study, self._study.ask({one.name: _distribution(one) for one in space}))


def write_best(folder: Path, found: Found) -> Path:
    """The answer's file, which appears at once."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, building = tempfile.mkstemp(prefix=".building-", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(found.to_json())
    os.replace(building, folder / BEST_FILE)
    return folder / BEST_FILE


def read_best(folder: Path, base: TrainParams) -> tuple[TrainParams, str]:
    """`base` with the parameters that the last search found, and their source for a candidate's log.

    SettingsError where there was no search yet; it names the file where that is broken.
    """
    path = folder / BEST_FILE
    if not path.is_file():
        raise SettingsError(f"there is no search result at {path}; run fraud-platform search first")
    try:
        found, source = params_from_json(path.read_bytes())
        return applied(base, found), source
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    except TrainingError as error:
        raise SettingsError(f"{path}: {error}; search again") from error


def _distribution(one: Dimension) -> Any:
    distributions = load_extra("optuna").distributions
    if one.is_whole:
        return distributions.IntDistribution(int(one.low), int(one.high), log=one.is_log)
    return distributions.FloatDistribution(one.low, one.high, log=one.is_log)


def _trial(number: int, one: Any) -> Trial:
    """Numbered among those that ended."""
    value = one.value if one.state == _states().COMPLETE else None
    values = tuple(one.user_attrs.get(VALUES, ()))
    return Trial(number, dict(one.params), values, value, float(one.user_attrs.get(SECONDS, 0.0)))


def _states() -> Any:
    return load_extra("optuna").trial.TrialState
