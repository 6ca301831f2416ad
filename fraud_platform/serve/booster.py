"""One-row prediction with LightGBM's C API: no Python package of it is imported, and so no pandas.

`LGBM_BoosterPredictForMatSingleRowFast` keeps the parsed configuration and the buffers between calls; its
score has the same bits as `lightgbm.Booster.predict`. Not safe for several threads at once.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fraud_platform.errors import BundleError

SCORE = 0
CONTRIBUTIONS = 3
_FLOAT64 = 1
_ALL_ROUNDS = -1
_SPLIT_COUNTS = 0
_PARAMETERS = b"num_threads=1"


class Booster:
    """A model read from its text; `feature_count` values in, one score or their contributions out."""

    def __init__(self, model_text: str) -> None:
        """BundleError when LightGBM cannot read the text."""
        self._library = _library()
        self._handle = ctypes.c_void_p()
        self._configs: dict[int, ctypes.c_void_p] = {}
        rounds = ctypes.c_int()
        self._call(
            "LGBM_BoosterLoadModelFromString",
            model_text.encode(),
            ctypes.byref(rounds),
            ctypes.byref(self._handle),
        )
        self.round_count = rounds.value
        self.feature_count = self._read_int("LGBM_BoosterGetNumFeature")
        if self._read_int("LGBM_BoosterGetNumClasses") != 1:
            raise BundleError("the model has several classes; a fraud model has one score")
        self._row = np.zeros(self.feature_count, dtype=np.float64)
        self._score = np.zeros(1, dtype=np.float64)
        self._contributions = np.zeros(self.feature_count + 1, dtype=np.float64)
        self._length = ctypes.c_int64()
        self._predict_score = self._prepared(SCORE, self._score)

    def score(self, row: np.ndarray) -> float:
        """The score, before calibration, of float64 (feature_count,), NaN for unknown."""
        self._row[:] = row
        function, arguments = self._predict_score
        if function(*arguments):
            raise BundleError(f"LightGBM could not predict: {_last_error(self._library)}")
        return float(self._score[0])

    def contributions(self, row: np.ndarray) -> np.ndarray:
        """Exact TreeSHAP of the score's log-odds: float64 (feature_count,), the bias left out."""
        self._row[:] = row
        if CONTRIBUTIONS not in self._configs:
            self._predict_contributions = self._prepared(CONTRIBUTIONS, self._contributions)
        function, arguments = self._predict_contributions
        if function(*arguments):
            raise BundleError(f"LightGBM could not explain: {_last_error(self._library)}")
        return self._contributions[:-1].copy()

    @property
    def used_features(self) -> tuple[int, ...]:
        """Places of the features that at least one split reads."""
        splits = np.zeros(self.feature_count, dtype=np.float64)
        self._call(
            "LGBM_BoosterFeatureImportance",
            self._handle,
            ctypes.c_int(_ALL_ROUNDS),
            ctypes.c_int(_SPLIT_COUNTS),
            ctypes.c_void_p(splits.ctypes.data),
        )
        return tuple(np.flatnonzero(splits).tolist())

    def close(self) -> None:
        for config in self._configs.values():
            self._library.LGBM_FastConfigFree(config)
        self._configs.clear()
        if self._handle:
            self._library.LGBM_BoosterFree(self._handle)
            self._handle = ctypes.c_void_p()

    def _prepared(self, kind: int, out: np.ndarray) -> tuple[ctypes._NamedFuncPointer, tuple[object, ...]]:
        """The fast call and its arguments, which never change."""
        config = ctypes.c_void_p()
        self._call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            self._handle,
            ctypes.c_int(kind),
            ctypes.c_int(0),
            ctypes.c_int(_ALL_ROUNDS),
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(self.feature_count),
            _PARAMETERS,
            ctypes.byref(config),
        )
        self._configs[kind] = config
        row = ctypes.c_void_p(self._row.ctypes.data)
        result = ctypes.c_void_p(out.ctypes.data)
        function = self._library.LGBM_BoosterPredictForMatSingleRowFast
        return function, (config, row, ctypes.byref(self._length), result)

    def _read_int(self, name: str) -> int:
        value = ctypes.c_int()
        self._call(name, self._handle, ctypes.byref(value))
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments):
            raise BundleError(f"model.txt: {name} failed: {_last_error(self._library)}")


@cache
def _library() -> ctypes.CDLL:
    """LightGBM's shared library, found beside its Python package without importing that."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spec = find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise BundleError("lightgbm is not installed; install the extra `serve`")
    path = Path(spec.origin).parent / "lib" / "lib_lightgbm.so"
    if not path.exists():
        raise BundleError(f"lightgbm has no {path.name} in {path.parent}; install its wheel for Linux")
    library = ctypes.CDLL(str(path))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


def _last_error(library: ctypes.CDLL) -> str:
    return str(library.LGBM_GetLastError().decode(errors="replace"))
