"""The imbalance bake-off: what to do about one fraud among hundreds of rows, decided by measurement."""

from __future__ import annotations

from collections.abc import Iterable

from fraud_platform.evaluate.money import RESAMPLES
from fraud_platform.learning.contest import Contest, Report, contest
from fraud_platform.learning.extra import load_extra
from fraud_platform.learning.lessons import Lesson
from fraud_platform.learning.resampling import RESAMPLED_WAYS
from fraud_platform.learning.ways import LIGHTGBM_WAYS
from fraud_platform.policy import Policy
from fraud_platform.train import TrainParams

WAYS = (*LIGHTGBM_WAYS, *RESAMPLED_WAYS)
DEFAULT = "default"


def imbalance_bakeoff(
    lessons: Iterable[Lesson],
    policy: Policy,
    params: TrainParams | None = None,
    resamples: int = RESAMPLES,
    report: Report = lambda message: None,
) -> Contest:
    """All ways of WAYS, the platform's default as the reference.

    SettingsError, before anything is learned, where a package of the extra `learning` is missing.
    """
    for module in sorted({way.needs for way in WAYS if way.needs}):
        load_extra(module)
    return contest(lessons, WAYS, params or TrainParams(), policy, DEFAULT, resamples, report)
