"""`benchmark imbalance`, `benchmark blend` and `search`: experiments on folds, as tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

from fraud_platform.cli.instance import console, prepare_environment, run_job
from fraud_platform.cli.loop import require_source
from fraud_platform.settings import Settings

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform
    from fraud_platform.learning.contest import Standing

HEADER = ("way", "rows", "share", "AP", "AUC", "CP@100", "cost", "saved", "ECE", "raw ECE", "s")
LEGEND = (
    "rows and share: that taught, of the legitimate ones; cost and saved (against the first way): major "
    "units per 1,000 transactions, with 95 % intervals; ECE: expected calibration error; s: seconds a fold"
)


def show_imbalance(settings: Settings, folds: int, **options: Any) -> None:
    """Every command here takes `folds` for both roles, and the options of its config by their names."""
    from fraud_platform.defs.imbalance import ImbalanceConfig, imbalance_contest

    with _experiment(settings, "ways to treat imbalance") as (platform, report):
        found = imbalance_contest(platform, ImbalanceConfig(**_both(folds), **options), report)
    _show("on the validation folds", found.validation)
    _show("on the test folds", found.test)
    _say((LEGEND, *found.explain()))


def show_blend(settings: Settings, folds: int, **options: Any) -> None:
    from fraud_platform.defs.blend import BlendConfig, blending

    with _experiment(settings, "a second learner") as (platform, report):
        found = blending(platform, BlendConfig(**_both(folds), **options), report)
    _show("on the validation folds", found.contest.validation)
    _show("on the test folds", found.contest.test)
    times = Table("way", "median ms a row", "p99 ms a row")
    for one in found.latencies:
        times.add_row(one.way, f"{one.p50_ms:.3f}", f"{one.p99_ms:.3f}")
    console.print(times)
    _say((LEGEND, *found.reasons()))


def show_search(settings: Settings, folds: int, **options: Any) -> None:
    from fraud_platform.defs.search import SearchConfig, searched, trial_record

    with _experiment(settings, "trials") as (platform, report):
        found, trials = searched(platform, SearchConfig(**_both(folds), **options), report)
    records = [trial_record(trial) for trial in trials]
    shown = Table(*records[0])
    for record in records:
        shown.add_row(*(one if isinstance(one, str) else f"{one:.4g}" for one in record.values()))
    console.print(shown)
    if found.test:
        _show("on the test folds", found.test)
    _say(found.explain())
    console.print(
        f"kept in {settings.search}; fraud-platform run --use-search trains with the best", soft_wrap=True
    )


@contextmanager
def _experiment(settings: Settings, title: str) -> Iterator[tuple[Platform, Callable[[str], None]]]:
    """The platform with its training set, which is built where it is not there, and a line of progress."""
    from fraud_platform.adapters.duckdb_history import TRAINING_SET
    from fraud_platform.definitions import build_defs
    from fraud_platform.defs.platform import Platform

    started = time.perf_counter()
    platform = Platform(settings)
    if not platform.warehouse.exists(TRAINING_SET):
        require_source(platform)
        prepare_environment(settings)
        run_job(build_defs(settings), "teaching")
    with console.status(title) as status:
        yield platform, status.update if console.is_terminal else console.print
    console.print(f"{time.perf_counter() - started:.0f} s")


def _both(folds: int) -> dict[str, Any]:
    return {"validation_folds": folds, "test_folds": folds}


def _show(title: str, found: Sequence[Standing]) -> None:
    shown = Table(*HEADER, title=title, box=SIMPLE)
    for one in found:
        shown.add_row(
            one.way,
            f"{one.rows:,.0f}",
            f"{one.share:.1%}",
            f"{one.average_precision:.3f}",
            f"{one.auc:.3f}",
            f"{one.card_precision:.3f}",
            f"{one.cost.estimate:,.1f}",
            one.saved.short(),
            f"{one.calibration_error:.4f}",
            f"{one.raw_calibration_error:.4f}",
            f"{one.seconds:.0f}",
        )
    console.print(shown)


def _say(sentences: Sequence[str]) -> None:
    """Below the tables."""
    for line in sentences:
        console.print(line, soft_wrap=True)
