"""A dataset mapping: how the columns of somebody's files become the canonical ones.

Belongs here: the frozen value and the reading of its YAML, with errors that name the place and the fix.
Does not belong here: the SQL that runs (plan.py) and anything that looks at the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from fraud_platform.errors import MappingError
from fraud_platform.schema import LABEL_COLUMNS, TRANSACTION_COLUMNS, Column
from fraud_platform.yaml_files import load_yaml

DATASETS = Path(__file__).resolve().parent.parent / "datasets"
STREAMS: tuple[Literal["transactions", "labels"], ...] = ("transactions", "labels")
EXTRA_TYPES = {"numeric": "DOUBLE", "category": "VARCHAR"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_KEYS = {
    "name",
    "description",
    "transactions",
    "extras",
    "labels",
    "maturity_days",
    "label_precedence",
    "split",
    "excluded",
    "first_day",
    "average_precision_max",
    "young_rows",
}
_REQUIRED = _KEYS - {
    "description",
    "extras",
    "excluded",
    "first_day",
    "average_precision_max",
    "young_rows",
}
FIRST_DAY = date(2015, 1, 1)
YoungRows = Literal["corrected", "left_out"]


@dataclass(frozen=True)
class Extra:
    """One extra model input; becomes the column `extra_<name>`."""

    name: str
    expression: str
    type: Literal["numeric", "category"]
    description: str = ""

    @property
    def column(self) -> Column:
        kind: Literal["DOUBLE", "VARCHAR"] = "DOUBLE" if self.type == "numeric" else "VARCHAR"
        return Column(f"extra_{self.name}", kind, False, self.description)


@dataclass(frozen=True)
class StreamMapping:
    """One stream: globs below the source root, and a SQL expression over the source for each column.

    `columns` may hold `amount` (major units) instead of `amount_minor`. `where` keeps the rows that hold
    it; None keeps all.
    """

    files: tuple[str, ...]
    columns: AnyMapping[str, str]
    where: str | None = None


@dataclass(frozen=True)
class Split:
    """Days at the end of the mature history that test a candidate, and days before them that tune it."""

    test_days: int
    validation_days: int


@dataclass(frozen=True)
class Mapping:
    """A dataset: two streams, extra inputs, and how its labels mature.

    label_precedence: sources, strongest first. excluded: source columns that must never become an input,
    each with its reason; an expression that names one is refused. first_day: of the
    daily partitions. average_precision_max: a score that ranks better is taken for a leak; None is the
    platform's limit. young_rows: whether rows whose labels are not mature teach by what is known of them,
    corrected for what is not, or are left out; nothing but mature ones stops, calibrates or judges.
    """

    name: str
    transactions: StreamMapping
    labels: StreamMapping
    maturity_days: int
    label_precedence: tuple[str, ...]
    split: Split
    extras: tuple[Extra, ...] = ()
    excluded: AnyMapping[str, str] = field(default_factory=dict)
    description: str = ""
    first_day: date = FIRST_DAY
    average_precision_max: float | None = None
    young_rows: YoungRows = "corrected"

    @property
    def transaction_columns(self) -> tuple[Column, ...]:
        """The columns of ingest.transactions, extras last."""
        return TRANSACTION_COLUMNS + tuple(extra.column for extra in self.extras)

    @classmethod
    def from_yaml(cls, text: str, where: str) -> Mapping:
        """Read a mapping; `where` names the text in errors. Raises MappingError."""
        return _Reader(where).mapping(load_yaml(text, where, error=MappingError))


def load_mapping(dataset: str) -> Mapping:
    """The shipped mapping of that name, or the mapping file at that path (ending in .yaml or .yml).

    Raises MappingError where there is none, or where its `name` is not the file's stem.
    """
    is_path = dataset.endswith((".yaml", ".yml"))
    path = Path(dataset) if is_path else DATASETS / f"{dataset}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in DATASETS.glob("*.yaml")))
        raise MappingError(
            f"no dataset mapping {dataset!r}: give one of {shipped}, or the path of a .yaml file"
        )
    mapping = Mapping.from_yaml(path.read_text(encoding="utf-8"), str(path))
    if mapping.name != path.stem:
        raise MappingError(f"{path}: name is {mapping.name!r}; it must be the file's stem, {path.stem!r}")
    return mapping


class _Reader:
    """Turns parsed YAML into a Mapping; every complaint names the place."""

    def __init__(self, where: str) -> None:
        self.where = where

    def mapping(self, content: object) -> Mapping:
        table = self._table(content, "the file", known=_KEYS, required=_REQUIRED)
        excluded = self._texts(table.get("excluded", {}), "excluded")
        extras = self._extras(table.get("extras", {}), excluded)
        transactions = self._stream(table["transactions"], "transactions", TRANSACTION_COLUMNS, excluded)
        return Mapping(
            name=self._name(table["name"], "name"),
            description=str(table.get("description", "")).strip(),
            transactions=transactions,
            labels=self._stream(table["labels"], "labels", LABEL_COLUMNS, {}),
            extras=extras,
            maturity_days=self._days(table["maturity_days"], "maturity_days", least=0),
            label_precedence=self._precedence(table["label_precedence"]),
            split=self._split(table["split"]),
            excluded=excluded,
            first_day=self._date(table.get("first_day", FIRST_DAY)),
            average_precision_max=self._limit(table.get("average_precision_max")),
            young_rows=self._young_rows(table.get("young_rows", "corrected")),
        )

    def _fail(self, place: str, message: str) -> MappingError:
        return MappingError(f"{self.where}: {place}: {message}")

    def _table(self, content: object, place: str, known: set[str], required: set[str]) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise self._fail(place, f"is {content!r}; it must be a table of {', '.join(sorted(known))}")
        for key in content:
            if key not in known:
                raise self._fail(place, f"unknown entry {key!r}; known: {', '.join(sorted(known))}")
        for key in sorted(required):
            if key not in content:
                raise self._fail(place, f"{key!r} is missing; add it")
        return content

    def _texts(self, content: object, place: str) -> dict[str, str]:
        if not isinstance(content, dict):
            raise self._fail(place, f"is {content!r}; it must be a table of name: text")
        return {str(key): str(value).strip() for key, value in content.items()}

    def _name(self, content: object, place: str) -> str:
        if not isinstance(content, str) or not _NAME.fullmatch(content):
            rule = "1 to 40 lower-case letters, digits or _, beginning with a letter"
            raise self._fail(place, f"is {content!r}; it must be {rule}")
        return content

    def _days(self, content: object, place: str, least: int) -> int:
        if not isinstance(content, int) or isinstance(content, bool) or content < least:
            raise self._fail(place, f"is {content!r}; it must be a whole number of days, {least} or more")
        return content

    def _date(self, content: object) -> date:
        if not isinstance(content, date):
            raise self._fail("first_day", f"is {content!r}; it must be a date such as 2024-01-31")
        return content

    def _limit(self, content: object) -> float | None:
        if content is None:
            return None
        if isinstance(content, bool) or not isinstance(content, int | float) or not 0 < content <= 1:
            rule = "it must be a number above 0 and at most 1"
            raise self._fail("average_precision_max", f"is {content!r}; {rule}")
        return float(content)

    def _young_rows(self, content: object) -> YoungRows:
        for known in get_args(YoungRows):
            if content == known:
                return known
        known_ones = " or ".join(get_args(YoungRows))
        raise self._fail("young_rows", f"is {content!r}; it must be {known_ones}")

    def _precedence(self, content: object) -> tuple[str, ...]:
        sources = tuple(content) if isinstance(content, list) else ()
        is_text = bool(sources) and all(isinstance(source, str) and source for source in sources)
        if not is_text or len(set(sources)) < len(sources):
            raise self._fail("label_precedence", f"is {content!r}; list each source once, strongest first")
        return tuple(source.lower() for source in sources)

    def _split(self, content: object) -> Split:
        keys = {"test_days", "validation_days"}
        table = self._table(content, "split", known=keys, required=keys)
        return Split(**{key: self._days(table[key], f"split.{key}", least=1) for key in sorted(keys)})

    def _stream(
        self, content: object, place: str, columns: tuple[Column, ...], excluded: dict[str, str]
    ) -> StreamMapping:
        known = {"files", "columns"} | ({"where"} if place == "labels" else set())
        table = self._table(content, place, known=known, required={"files", "columns"})
        where = self._expression(table["where"], f"{place}.where", {}) if "where" in table else None
        return StreamMapping(
            self._files(table["files"], f"{place}.files"),
            self._columns(table["columns"], place, columns, excluded),
            where,
        )

    def _files(self, content: object, place: str) -> tuple[str, ...]:
        globs = (
            (content,) if isinstance(content, str) else tuple(content) if isinstance(content, list) else ()
        )
        if not globs or not all(isinstance(glob, str) and glob.strip() for glob in globs):
            raise self._fail(place, f"is {content!r}; give a glob below the source, or a list of them")
        if outside := [glob for glob in globs if glob.startswith("/") or ".." in Path(glob).parts]:
            raise self._fail(place, f"{outside[0]!r} leaves the source; give a path below it")
        return globs

    def _columns(
        self, content: object, place: str, columns: tuple[Column, ...], excluded: dict[str, str]
    ) -> dict[str, str]:
        takes_amount = columns is TRANSACTION_COLUMNS
        names = {column.name for column in columns} | ({"amount"} if takes_amount else set())
        required = {column.name for column in columns if column.is_required} - {"amount_minor"}
        table = self._table(content, f"{place}.columns", known=names, required=required)
        if takes_amount and ("amount" in table) == ("amount_minor" in table):
            raise self._fail(
                f"{place}.columns", "give exactly one of 'amount' (major units) and 'amount_minor'"
            )
        return {
            key: self._expression(value, f"{place}.columns.{key}", excluded) for key, value in table.items()
        }

    def _extras(self, content: object, excluded: dict[str, str]) -> tuple[Extra, ...]:
        if not isinstance(content, dict):
            raise self._fail("extras", f"is {content!r}; it must be a table of name: {{expression, type}}")
        return tuple(self._extra(name, entry, excluded) for name, entry in content.items())

    def _extra(self, name: object, content: object, excluded: dict[str, str]) -> Extra:
        place = f"extras.{name}"
        known = {"expression", "type", "description"}
        table = self._table(content, place, known=known, required={"expression", "type"})
        if table["type"] not in EXTRA_TYPES:
            raise self._fail(f"{place}.type", f"is {table['type']!r}; it must be numeric or category")
        return Extra(
            name=self._name(name, place),
            expression=self._expression(table["expression"], f"{place}.expression", excluded),
            type=table["type"],
            description=str(table.get("description", "")).strip(),
        )

    def _expression(self, content: object, place: str, excluded: dict[str, str]) -> str:
        if content is None or isinstance(content, dict | list) or not str(content).strip():
            raise self._fail(place, f"is {content!r}; it must be a SQL expression over the source's columns")
        expression = str(content).strip()
        outside_quotes = re.sub(r"'(?:[^']|'')*'", "''", expression)
        for column, reason in excluded.items():
            if re.search(rf"(?<!\w){re.escape(column)}(?!\w)", outside_quotes, re.IGNORECASE):
                raise self._fail(place, f"uses {column!r}, which is excluded ({reason}); leave it out")
        return expression
