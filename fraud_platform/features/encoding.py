"""Feature values as the numbers that a model reads; the same bits for a column and for one vector.

Belongs here: category levels and their codes, NULL as NaN.
Does not belong here: how values come about (the engines), what a model does with them (`train`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fraud_platform.errors import ContractError

if TYPE_CHECKING:
    from fraud_platform.features.contract import FeatureContract

LEVELS_MAX = 255
"""The most frequent levels that a category keeps; rarer ones are read as unknown."""

COLUMNS_AT_ONCE, ROWS_AT_ONCE = 16, 4096
"""A matrix is written in blocks of so many: a column alone would fetch all of the matrix for itself."""

_Places = tuple[tuple[int, dict[str, float]], ...]


@dataclass(frozen=True)
class CategoryEncoder:
    """`levels`: for each category feature its known levels, most frequent first; a code is the place in it.

    None, empty text and unseen levels are NaN, and so is a NULL number.
    """

    levels: dict[str, tuple[str, ...]]
    _codes: dict[str, dict[str, float]] = field(init=False, repr=False, compare=False)
    _bound: tuple[Any, _Places] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        codes = {
            name: {level: float(place) for place, level in enumerate(known)}
            for name, known in self.levels.items()
        }
        object.__setattr__(self, "_codes", codes)
        object.__setattr__(self, "_bound", (None, ()))

    @classmethod
    def fit(cls, columns: Mapping[str, np.ndarray], contract: FeatureContract) -> CategoryEncoder:
        """Learn the levels of every category feature; columns: name -> (n,)."""
        names = [feature.name for feature in contract.features if feature.dtype == "category"]
        return cls({name: _frequent(_column(columns, name)) for name in names})

    def matrix(self, columns: Mapping[str, np.ndarray], contract: FeatureContract) -> np.ndarray:
        """Columns by name, each (n,), as float64 (n, k) in contract order. ContractError when one lacks or
        is of another length."""
        codes = dict(self._places(contract))
        names = contract.names
        out = np.empty((0, len(names)), dtype=np.float64)
        for start in range(0, len(names), COLUMNS_AT_ONCE):
            block = [_column(columns, name) for name in names[start : start + COLUMNS_AT_ONCE]]
            if start == 0:
                out = np.empty((len(block[0]), len(names)), dtype=np.float64)
            for place, part in enumerate(block, start):
                if len(part) != len(out):
                    raise ContractError(
                        f"feature {names[place]!r} has {len(part)} rows and {names[0]!r} {len(out)}: "
                        "give columns of one table"
                    )
                block[place - start] = _coded(part, codes[place]) if place in codes else _numbers(part)
            _fill(out, start, block)
        return out

    def vector(self, vector: Sequence[float | str | None], contract: FeatureContract) -> np.ndarray:
        """One row in contract order as float64 (k,)."""
        values = list(vector)
        for place, known in self._places(contract):
            values[place] = known.get(values[place], np.nan)  # type: ignore[arg-type]
        return np.array(values, dtype=np.float64)

    def to_json(self) -> bytes:
        return json.dumps(self.levels, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, content: bytes) -> CategoryEncoder:
        return cls({name: tuple(known) for name, known in json.loads(content).items()})

    def _places(self, contract: FeatureContract) -> _Places:
        """Places of the category features with their codes; remembered for the contract last asked about."""
        bound_to, places = self._bound
        if bound_to is contract:
            return places
        places = tuple(
            (place, self._codes_of(feature.name))
            for place, feature in enumerate(contract.features)
            if feature.dtype == "category"
        )
        object.__setattr__(self, "_bound", (contract, places))
        return places

    def _codes_of(self, name: str) -> dict[str, float]:
        if name not in self._codes:
            raise ContractError(f"category {name!r}: this encoder knows {sorted(self._codes)}; fit it again")
        return self._codes[name]


def _column(columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return columns[name]
    except KeyError:
        raise ContractError(f"feature {name!r} has no column; build the features of this contract") from None


def _fill(out: np.ndarray, start: int, block: Sequence[np.ndarray]) -> None:
    """Writes columns side by side from the place `start` on."""
    for first in range(0, len(out), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        for place, column in enumerate(block, start):
            out[rows, place] = column[rows]


def _frequent(column: np.ndarray) -> tuple[str, ...]:
    counted = Counter(value for value in column.tolist() if isinstance(value, str) and value)
    order = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return tuple(level for level, _ in order[:LEVELS_MAX])


def _coded(column: np.ndarray, codes: Mapping[str, float]) -> np.ndarray:
    return np.fromiter((codes.get(value, np.nan) for value in column.tolist()), np.float64, len(column))


def _numbers(column: np.ndarray) -> np.ndarray:
    """float64 with NaN for None and for masked values."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.filled(column.astype(np.float64), np.nan)
    return np.asarray(column, dtype=np.float64)
