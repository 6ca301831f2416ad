"""The feature contract: which features there are, in which order, and what each one means.

Belongs here: reading the declaration (vars of dbt_project/dbt_project.yml) and the frozen contract made of
it, which travels in every bundle. Does not belong here: computing a feature (aggregates, rows, engine).
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from fraud_platform.errors import ContractError
from fraud_platform.schema import MILLISECONDS_PER_DAY, TRANSACTION_COLUMNS, Column
from fraud_platform.settings import PROJECT_ROOT
from fraud_platform.yaml_files import load_yaml

DECLARATION = PROJECT_ROOT / "dbt_project" / "dbt_project.yml"
STREAMS = ("transactions", "fraud_reports")
NEAR, FEW = 5, 20

Dtype = Literal["double", "category"]


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of the vector.

    kind: the aggregate or row expression; entity: whose past it reads, None for a row expression;
    stream: which events it counts; of: the column(s) it reads; window_ms: None reaches back to the
    beginning; offset_ms: how long before the event the window ends; last: of a window's moments, how many of
    the latest count; inputs: the values a row expression combines.
    """

    name: str
    kind: str
    description: str
    entity: str | None = None
    stream: str = "transactions"
    of: tuple[str, ...] = ()
    window: str | None = None
    window_ms: int | None = None
    offset: str | None = None
    offset_ms: int = 0
    last: int | None = None
    inputs: tuple[str, ...] = ()

    @property
    def dtype(self) -> Dtype:
        return "category" if self.kind == "category" else "double"

    @property
    def reach_ms(self) -> int:
        """How far back its window begins, 0 where it has none."""
        return (self.window_ms or 0) + self.offset_ms


class FeatureContract(msgspec.Struct, frozen=True, dict=True):
    """Entities (name to key columns), the features in vector order, and how late a report still counts.

    report_horizon_ms: a transaction that becomes known as fraud later than this after its event_time changes
    no feature, so that a store need not know transactions for ever.
    """

    entities: dict[str, tuple[str, ...]]
    features: tuple[Feature, ...]
    report_horizon_ms: int = 540 * MILLISECONDS_PER_DAY

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features if feature.dtype == "category")

    @cached_property
    def dtypes(self) -> dict[str, Dtype]:
        return {feature.name: feature.dtype for feature in self.features}

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of everything that decides a value, descriptions aside."""
        bare = msgspec.structs.replace(
            self, features=tuple(msgspec.structs.replace(f, description="") for f in self.features)
        )
        return hashlib.sha256(bare.to_json()).hexdigest()

    def without(self, later: FeatureContract) -> tuple[str, ...]:
        """Its features, in order, that a later contract has no longer, or has of another meaning: what reads
        them cannot be fed from what was built for the later one."""
        return tuple(name for name in self.names if self._meaning(name) != later._meaning(name))

    def _meaning(self, name: str) -> object:
        """Everything that decides the values of a feature, and of what it is made of; None where there is
        none of the name."""
        if name not in self._places:
            return None
        feature = self.features[self._places[name]]
        bare = msgspec.structs.replace(feature, description="", window=None, offset=None)
        horizon_ms = self.report_horizon_ms if feature.stream == "fraud_reports" else 0
        columns = self.entities[feature.entity] if feature.entity is not None else ()
        return bare, columns, horizon_ms, tuple(self._meaning(one) for one in feature.inputs)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def from_json(cls, data: bytes) -> FeatureContract:
        """Raises ContractError where `data` is not a contract."""
        try:
            contract = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise ContractError(f"feature contract: {error}; take it from an intact bundle") from error
        return contract.checked()

    def index(self, name: str) -> int:
        """Place of a feature in the vector; ContractError lists the nearest known names."""
        if name not in self._places:
            raise unknown("feature", name, self.names)
        return self._places[name]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def checked(self) -> FeatureContract:
        """Itself, or ContractError naming the first entry that breaks a rule."""
        seen: set[str] = set()
        for feature in self.features:
            if feature.name in seen:
                raise ContractError(f"feature {feature.name!r} is declared twice; names must be unique")
            seen.add(feature.name)
            if feature.entity is not None and feature.entity not in self.entities:
                raise unknown(f"entity of feature {feature.name!r}", feature.entity, self.entities)
            if feature.stream not in STREAMS:
                raise unknown(f"stream of feature {feature.name!r}", feature.stream, STREAMS)
        for feature in self.features:
            for name in feature.inputs:
                if name not in seen:
                    raise unknown(f"input of feature {feature.name!r}", name, seen)
        return self


def unknown(what: str, value: str, known: Iterable[str]) -> ContractError:
    """The error for a name that is not declared: the known ones, near ones first.

    Where they are many, the near ones and how to see the others.
    """
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=NEAR, cutoff=0.5)
    others = [name for name in names if name not in near]
    if len(names) <= FEW:
        listed = ", ".join(near + others)
    elif near:
        listed = f"{', '.join(near)} ({len(others)} others: fraud-platform features lists them)"
    else:
        listed = ", ".join(names)
    return ContractError(f"{what} is {value!r}, which is not declared; use one of: {listed}")


def load_contract(extras: Iterable[Column] = (), declaration: Path = DECLARATION) -> FeatureContract:
    """The contract of the declaration plus a dataset's extra inputs (columns named extra_<name>).

    Raises ContractError for an unknown entity, window, column, stream or input, and for a key that stands
    twice.
    """
    text = declaration.read_text(encoding="utf-8")
    variables = load_yaml(text, str(declaration), error=ContractError)["vars"]
    features = [
        feature for entry in variables["features"] for feature in _expand(entry, variables["windows"])
    ]
    features += [
        Feature(
            name=extra.name,
            kind="category" if extra.type == "VARCHAR" else "field",
            description=extra.description,
            of=(extra.name,),
        )
        for extra in extras
    ]
    entities = {name: tuple(keys) for name, keys in variables["entities"].items()}
    horizon_ms = variables["report_horizon_days"] * MILLISECONDS_PER_DAY
    return FeatureContract(entities, tuple(features), horizon_ms).checked()


def _expand(entry: Mapping[str, Any], windows: Mapping[str, int]) -> Iterable[Feature]:
    fields = {key: value for key, value in entry.items() if key not in ("windows", "of", "inputs")}
    of = entry.get("of", ())
    fields["of"] = (of,) if isinstance(of, str) else tuple(of)
    fields["inputs"] = tuple(entry.get("inputs", ()))
    _check_columns(entry["name"], fields["of"])
    offset = fields.get("offset")
    if offset is not None:
        if offset not in windows:
            raise unknown(f"offset of feature {entry['name']!r}", offset, windows)
        fields["offset_ms"] = windows[offset]
    for window in entry.get("windows", [None]):
        if window is not None and window not in windows:
            raise unknown(f"window of feature {entry['name']!r}", window, windows)
        name = entry["name"] if window is None else f"{entry['name']}_{window}"
        window_ms = None if window is None else windows[window]
        description = entry["description"] + ("" if window is None else f" in {window}")
        try:
            yield msgspec.convert(
                fields | {"name": name, "window": window, "window_ms": window_ms, "description": description},
                Feature,
            )
        except msgspec.ValidationError as error:
            raise ContractError(
                f"feature {entry['name']!r}: {error}; see the comments in {DECLARATION.name}"
            ) from error


def _check_columns(name: str, columns: tuple[str, ...]) -> None:
    known = [column.name for column in TRANSACTION_COLUMNS]
    for column in columns:
        if column not in known:
            raise unknown(f"column of feature {name!r}", column, known)
