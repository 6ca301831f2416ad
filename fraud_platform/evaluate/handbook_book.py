"""The handbook's single split (chapter 3), again: its 15 features, its models, its published figures.

Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook", 2022. The week from 2018-07-25 teaches, the week from 08-08 is assessed.

Belongs here: what the book did, as a yardstick of the data and the metrics. Does not belong here: the
platform's own features, which end strictly before a transaction where the book's count it in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fraud_platform.evaluate.handbook import (
    CHECK_COUNTS,
    CHECK_START,
    DELAY_DAYS,
    Published,
    check_counts,
    make_fold,
)
from fraud_platform.evaluate.metrics import card_precision_at_k
from fraud_platform.schema import MILLISECONDS_PER_DAY

Report = Callable[[str], None]

TOLERANCE = 0.002
WINDOW_DAYS = (1, 7, 30)
NIGHT_HOUR_MAX = 6
SEED = 0
THREADS = 2
FEATURES = (
    "amount",
    "is_weekend",
    "is_night",
    *(f"customer_{what}_{days}d" for days, what in product(WINDOW_DAYS, ("txn_count", "amount_mean"))),
    *(f"terminal_{what}_{days}d" for days, what in product(WINDOW_DAYS, ("txn_count", "fraud_share"))),
)
COLUMNS = ("transaction_id", "event_time", "card_id", "merchant_id", "amount_minor", "is_fraud")
HEADER = ("model, the book's features", "AUC", "AP", "CP@100", "published", f"within {TOLERANCE}")
XGBOOST = "XGBoost, defaults of its day"
SOURCE = "book, chapter 3"
PUBLISHED = (
    Published("logistic regression", 0.871, 0.606, 0.291, SOURCE),
    Published("decision tree of depth 2", 0.763, 0.496, 0.241, SOURCE),
    Published("decision tree, unlimited", 0.788, 0.309, 0.243, SOURCE),
    Published("random forest, 100 trees", 0.867, 0.658, 0.287, SOURCE),
    Published(XGBOOST, 0.862, 0.639, 0.273, SOURCE),
)


@dataclass(frozen=True)
class Reproduced:
    """A row of the book and the same measured here; None where what it needs is not installed."""

    published: Published
    measured: Published | None

    @property
    def is_within(self) -> bool:
        """Whether all three figures, to the book's three decimals, are at most TOLERANCE off."""
        if self.measured is None:
            return False
        pairs = zip(_figures(self.measured), _figures(self.published), strict=True)
        return all(abs(round(ours, 3) - theirs) < TOLERANCE + 1e-9 for ours, theirs in pairs)

    def row(self) -> tuple[str, ...]:
        """Cells as text, in the order of HEADER."""
        told = " / ".join(f"{figure:.3f}" for figure in _figures(self.published))
        if self.measured is None:
            return (self.published.model, "", "", "", told, "not run: install the extra learning")
        ours = tuple(f"{figure:.3f}" for figure in _figures(self.measured))
        return (self.published.model, *ours, told, "yes" if self.is_within else "NO")


@dataclass(frozen=True)
class BookTable:
    rows: tuple[Reproduced, ...]

    @property
    def is_reproduced(self) -> bool:
        """Whether every row that could be run is within the tolerance."""
        return all(row.is_within for row in self.rows if row.measured is not None)


def run_book(
    transactions: pd.DataFrame,
    report: Report = lambda message: None,
    expected_counts: Sequence[int] = CHECK_COUNTS,
) -> BookTable:
    """Fit and assess each of the book's models on its split.

    transactions: all of the data, with COLUMNS (event_time in ms, amount_minor in cents).
    SourceError when the rows are not those of the book.
    """
    rows = in_order(transactions)
    check_counts(rows, expected_counts)
    fold = make_fold(rows, "test", CHECK_START)
    learn, asked = (book_features(rows, part) for part in (fold.first_week, fold.assessed))
    scaler = StandardScaler().fit(learn)
    is_fraud = rows["is_fraud"].to_numpy(dtype=bool)
    truth = is_fraud[fold.assessed]
    moments = rows["event_time"].to_numpy()[fold.assessed]
    # Where a coarse tree gives many cards the same score, the book takes those of lower number.
    cards = numbered(rows["card_id"])[fold.assessed]
    found = []
    for published in PUBLISHED:
        model = make_model(published.model)
        if model is None:
            found.append(Reproduced(published, None))
            continue
        model.fit(scaler.transform(learn), is_fraud[fold.first_week])
        score = model.predict_proba(scaler.transform(asked))[:, 1]
        auc, ap = float(roc_auc_score(truth, score)), float(average_precision_score(truth, score))
        precision = card_precision_at_k(score, truth, moments, cards)
        found.append(Reproduced(published, Published(published.model, auc, ap, precision, "measured")))
        report(f"the book's {published.model}: AP {ap:.3f}")
    return BookTable(tuple(found))


def make_model(name: str) -> Any:
    """The book's classifier of that name, unfitted; None for XGBoost where it is not installed.

    XGBoost has since changed two defaults, which are set back: the score it starts from, and how it
    looks for splits.
    """
    if name == XGBOOST:
        try:
            from xgboost import XGBClassifier
        except ImportError:
            return None
        return XGBClassifier(random_state=SEED, n_jobs=THREADS, base_score=0.5, tree_method="exact")
    models = {
        "logistic regression": LogisticRegression(random_state=SEED),
        "decision tree of depth 2": DecisionTreeClassifier(max_depth=2, random_state=SEED),
        "decision tree, unlimited": DecisionTreeClassifier(random_state=SEED),
        "random forest, 100 trees": RandomForestClassifier(100, random_state=SEED, n_jobs=THREADS),
    }
    return models[name]


def in_order(transactions: pd.DataFrame) -> pd.DataFrame:
    """The rows by time, those of one moment by their number: trees that draw rows depend on the order."""
    rows = transactions[list(COLUMNS)]
    rank = numbered(rows["transaction_id"])
    return rows.iloc[np.lexsort((rank, rows["event_time"].to_numpy()))].reset_index(drop=True)


def numbered(ids: pd.Series) -> np.ndarray:
    """Each id's place among the different ones, ordered as numbers are (2 before 10): int64 (n,)."""
    codes, different = pd.factorize(ids.astype(str))
    names = pd.Series(different)
    order = pd.DataFrame({"digits": names.str.len(), "name": names}).sort_values(["digits", "name"]).index
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return place[codes]


def book_features(rows: pd.DataFrame, wanted: np.ndarray) -> np.ndarray:
    """The book's features of the rows at the places `wanted` (m,): float64 (m, 15), as FEATURES.

    rows: all transactions, with COLUMNS. Customer windows (t - w, t] hold the transaction itself; terminal
    windows end where labels are known, (t - 7 d - w, t - 7 d], and a share of none is 0.
    """
    moment = rows["event_time"].to_numpy(dtype=np.int64)
    amount = rows["amount_minor"].to_numpy(dtype=np.int64)
    cards = _Past(rows["card_id"], moment, amount)
    terminals = _Past(rows["merchant_id"], moment, rows["is_fraud"].to_numpy(dtype=np.int64))
    day, within_day = np.divmod(moment[wanted], MILLISECONDS_PER_DAY)
    hour = within_day // (MILLISECONDS_PER_DAY // 24)
    columns = [amount[wanted] / 100.0, (day + 3) % 7 >= 5, hour <= NIGHT_HOUR_MAX]
    for days in WINDOW_DAYS:
        count, total = cards.window(wanted, days, 0)
        columns += [count, total / count / 100.0]
    for days in WINDOW_DAYS:
        count, frauds = terminals.window(wanted, days, DELAY_DAYS)
        columns += [count, frauds / np.maximum(count, 1)]
    return np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])


class _Past:
    """Counts and sums of an entity's windows, as differences of running totals over its rows in time."""

    def __init__(self, entity: pd.Series, moment: np.ndarray, value: np.ndarray) -> None:
        self._moment = moment - moment.min()
        self._reach = int(self._moment.max()) + 2
        self._code = pd.factorize(entity)[0].astype(np.int64)
        key = self._code * self._reach + self._moment
        order = np.argsort(key, kind="stable")
        self._key = key[order]
        self._total = np.concatenate(([0], np.cumsum(value[order])))

    def window(self, wanted: np.ndarray, days: int, delay_days: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and sum over (t - delay - days, t - delay] for each of the wanted places: int64 (m,) both."""
        end = self._moment[wanted] - delay_days * MILLISECONDS_PER_DAY
        start = end - days * MILLISECONDS_PER_DAY
        first, last = (self._until(self._code[wanted], at) for at in (start, end))
        return last - first, self._total[last] - self._total[first]

    def _until(self, code: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """Places in time of the first row after the moment; -1 stands for every moment before the first."""
        return np.searchsorted(self._key, code * self._reach + np.maximum(moment, -1), side="right")


def _figures(row: Published) -> tuple[float, float, float]:
    return row.auc, row.average_precision, row.card_precision
