"""Asks whether a batch looks right at a trust boundary, by a suite of expectations from YAML.

Belongs here: reading expectations/*.yaml and running them with Great Expectations (ephemeral context, one
DataFrame). Does not belong here: the expectations themselves (data), loading the batch, deciding what a
failure stops (asset checks do).

A suite is data:

    asset: the table it guards
    description: ...
    may_be_empty: false           # true: a batch without rows passes
    expectations:
      - type: expect_column_max_to_be_between
        kwargs: {column: event_time, max_value: {$PARAMETER: mature_before}}
        why: ...
        optional: true            # skipped where the column is absent
        from_rows: 100            # skipped in smaller batches: a statistic of a few rows says nothing
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fraud_platform.errors import SettingsError
from fraud_platform.yaml_files import load_yaml

_PARAMETER = "$PARAMETER"
_SUITE_KEYS = {"asset", "description", "may_be_empty", "expectations"}
_EXPECTATION_KEYS = {"type", "kwargs", "why", "optional", "from_rows"}
_EXAMPLES = 5


@dataclass(frozen=True)
class Expectation:
    """One expectation: a Great Expectations type in snake case, its arguments, and why it holds."""

    type: str
    kwargs: Mapping[str, Any]
    why: str
    optional: bool = False
    from_rows: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column it reads, in order."""
        single = [self.kwargs[key] for key in ("column", "column_A", "column_B") if key in self.kwargs]
        lists = [self.kwargs.get(key) or () for key in ("column_list", "column_set")]
        return tuple(dict.fromkeys([*single, *(column for names in lists for column in names)]))

    @property
    def reads_every_column(self) -> bool:
        """Whether a column that it does not name can break it."""
        return self.type.startswith("expect_table_column") and bool(self.kwargs.get("exact_match", True))

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(value[_PARAMETER] for value in self.kwargs.values() if _is_parameter(value))

    def with_parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: values[value[_PARAMETER]] if _is_parameter(value) else value
            for key, value in self.kwargs.items()
        }


@dataclass(frozen=True)
class Suite:
    """The expectations of one trust boundary."""

    name: str
    asset: str
    description: str
    expectations: tuple[Expectation, ...]
    may_be_empty: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is named: unless an expectation reads every column, more need not be loaded."""
        return tuple(dict.fromkeys(column for each in self.expectations for column in each.columns))

    @property
    def select_list(self) -> str:
        """What to select from the table (DuckDB): the columns that are read, as far as they are there."""
        if any(each.reads_every_column for each in self.expectations):
            return "*"
        names = ", ".join(f"'{column}'" for column in self.columns)
        return f"COLUMNS(lambda name: name IN ({names}))"

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in self.expectations for name in each.parameters))


@dataclass(frozen=True)
class Failure:
    """An expectation that does not hold, what was seen, and up to five values that break it."""

    expectation: str
    columns: tuple[str, ...]
    why: str
    observed: str
    examples: tuple[Any, ...] = ()

    def __str__(self) -> str:
        examples = f", such as {', '.join(map(repr, self.examples))}" if self.examples else ""
        return f"{self.expectation}({', '.join(self.columns)}): {self.observed}{examples}; {self.why}"


@dataclass(frozen=True)
class BatchReport:
    """rows: of the batch, all of which were looked at. skipped: expectations that did not apply."""

    success: bool
    rows: int
    checked: int
    failures: tuple[Failure, ...]
    skipped: tuple[str, ...] = ()


def load_suite(path: Path) -> Suite:
    """Raises SettingsError where the file is no suite."""
    content = load_yaml(path.read_text(encoding="utf-8"), str(path))
    _known(content, _SUITE_KEYS, {"asset", "description", "expectations"}, str(path))
    expectations = [
        _expectation(entry, f"{path}, expectation {place}")
        for place, entry in enumerate(content["expectations"], start=1)
    ]
    return Suite(
        name=path.stem,
        asset=content["asset"],
        description=content["description"].strip(),
        expectations=tuple(expectations),
        may_be_empty=bool(content.get("may_be_empty", False)),
    )


def validate(
    suite_path: Path, frame: pd.DataFrame, parameters: Mapping[str, Any] | None = None
) -> BatchReport:
    """Hold `frame` (n rows) against the suite; parameters: values for its {$PARAMETER: name} entries.

    Every row is looked at. Raises SettingsError when a
    parameter is missing or an expectation cannot be evaluated: a crash is not a failed check.
    """
    return validate_suite(load_suite(suite_path), frame, parameters)


def validate_suite(
    suite: Suite, frame: pd.DataFrame, parameters: Mapping[str, Any] | None = None
) -> BatchReport:
    """As `validate`, for a suite that is read already."""
    values = dict(parameters or {})
    if missing := [name for name in suite.parameters if name not in values]:
        raise SettingsError(f"suite {suite.name}: parameters {', '.join(missing)} have no value; give them")
    if frame.empty:
        return _empty(suite)
    skipped = [each for each in suite.expectations if _is_skipped(each, frame)]
    applied = [each for each in suite.expectations if each not in skipped]
    absent = [each for each in applied if set(each.columns) - set(frame.columns)]
    run = [each for each in applied if each not in absent]
    failures = [_absent(each, frame) for each in absent]
    if not any(each.reads_every_column for each in run):
        frame = frame[[column for column in suite.columns if column in frame.columns]]
    failures += _run(suite, run, frame, values)
    skipped_names = tuple(f"{each.type}({', '.join(each.columns)})" for each in skipped)
    return BatchReport(not failures, len(frame), len(applied), tuple(failures), skipped_names)


def _is_parameter(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {_PARAMETER}


def _known(content: object, known: set[str], required: set[str], place: str) -> None:
    if not isinstance(content, dict):
        raise SettingsError(f"{place}: must be a table of {', '.join(sorted(known))}")
    if unknown := sorted(set(content) - known):
        raise SettingsError(f"{place}: unknown entry {unknown[0]!r}; known: {', '.join(sorted(known))}")
    if missing := sorted(required - set(content)):
        raise SettingsError(f"{place}: {missing[0]!r} is missing; add it")


def _expectation(entry: dict[str, Any], place: str) -> Expectation:
    _known(entry, _EXPECTATION_KEYS, {"type", "kwargs", "why"}, place)
    return Expectation(**entry)


def _is_skipped(expectation: Expectation, frame: pd.DataFrame) -> bool:
    is_absent = bool(set(expectation.columns) - set(frame.columns))
    return len(frame) < expectation.from_rows or (expectation.optional and is_absent)


def _empty(suite: Suite) -> BatchReport:
    if suite.may_be_empty:
        return BatchReport(True, 0, 0, (), tuple(each.type for each in suite.expectations))
    failure = Failure("rows", (), f"{suite.asset} must not be empty", "0 rows")
    return BatchReport(False, 0, 1, (failure,))


def _absent(expectation: Expectation, frame: pd.DataFrame) -> Failure:
    columns = tuple(column for column in expectation.columns if column not in frame.columns)
    return Failure(expectation.type, columns, expectation.why, "no such column")


def _run(
    suite: Suite, expectations: list[Expectation], frame: pd.DataFrame, values: Mapping[str, Any]
) -> list[Failure]:
    batch = _batch(suite.name, frame)
    configured = [_implementation(suite, each)(**each.with_parameters(values)) for each in expectations]
    gx_suite = _great_expectations().ExpectationSuite(name=suite.name)
    for place, (each, configuration) in enumerate(zip(expectations, configured, strict=True)):
        configuration.meta = {"place": place, "why": each.why}
        gx_suite.add_expectation(configuration)
    results = batch.validate(gx_suite, result_format="BASIC").results
    failures = []
    for result in sorted(results, key=lambda each: each.expectation_config.meta["place"]):
        expectation = expectations[result.expectation_config.meta["place"]]
        _require_evaluated(suite, expectation, result)
        if not result.success:
            failures.append(_failure(expectation, result.result))
    return failures


def _great_expectations() -> Any:
    """Imported on first use: it takes seconds, and warns of its own use of what Python deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import great_expectations
    return great_expectations


def _batch(name: str, frame: pd.DataFrame) -> Any:
    gx = _great_expectations()
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # Everything in memory: no docs site, no folder, no progress bar between the caller's lines.
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset(name)
    definition = asset.add_batch_definition_whole_dataframe("whole")
    return definition.get_batch(batch_parameters={"dataframe": frame})


def _implementation(suite: Suite, expectation: Expectation) -> Any:
    _great_expectations()
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl

    try:
        return get_expectation_impl(expectation.type)
    except ExpectationNotFoundError as error:
        raise SettingsError(f"suite {suite.name}: no expectation is called {expectation.type!r}") from error


def _require_evaluated(suite: Suite, expectation: Expectation, result: Any) -> None:
    information = result.exception_info or {}
    entries: Iterable[Any] = [information, *information.values()]
    raised = [entry for entry in entries if isinstance(entry, dict) and entry.get("raised_exception")]
    if raised:
        raise SettingsError(
            f"suite {suite.name}: {expectation.type} of {expectation.columns} could not be evaluated: "
            f"{raised[0].get('exception_message')}"
        )


def _failure(expectation: Expectation, result: Mapping[str, Any]) -> Failure:
    if "unexpected_count" in result:
        share = result.get("unexpected_percent") or 0.0
        observed = f"{result['unexpected_count']} values break it ({share:.3g} %)"
    else:
        observed = f"observed {result.get('observed_value')!r}"
    examples = tuple(result.get("partial_unexpected_list") or ())[:_EXAMPLES]
    return Failure(expectation.type, expectation.columns, expectation.why, observed, examples)
