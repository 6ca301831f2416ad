"""One function a kind of row expression: the online twin of the macro row_<kind>.

Each takes the declared feature, asks for the operands that it reads, and returns the text of an expression,
like its twin (text.py). The text may name the operands, `transaction`, `now` (its event_time, ms), `here` (a
Place or None), and what this module knows; a row expression reads only aggregates and the transaction itself.
"""

from __future__ import annotations

from collections.abc import Callable

from fraud_platform.features.contract import Feature, FeatureContract, unknown
from fraud_platform.features.geometry import Place, distance_km, place
from fraud_platform.features.text import filling
from fraud_platform.schema import TEXT_COLUMNS, Transaction

HOUR = "(now // 3_600_000 % 24)"
WEEKDAY = "((now // 86_400_000 + 3) % 7)"
"""Monday is 0; 1970-01-01 was a Thursday."""

FillRows = Callable[[Transaction, "Place | None", "list[float | str | None]"], None]


class Operands:
    """What row expressions read, each read once: a line that names it, for every input that one asks for."""

    def __init__(self, contract: FeatureContract) -> None:
        self._contract = contract
        self._names: dict[str, str] = {}

    @property
    def lines(self) -> list[str]:
        return [f"{name} = {text}" for text, name in self._names.items()]

    def number(self, column: str) -> str:
        return self._name(f"number({column_of(column)})")

    def text(self, column: str) -> str:
        return self._name(column_of(column))

    def feature(self, name: str) -> str:
        """An aggregate's value from the vector, or a column of the transaction."""
        place_in_vector = self._contract.index(name)
        feature = self._contract.features[place_in_vector]
        return (
            self.number(*feature.of) if feature.entity is None else self._name(f"vector[{place_in_vector}]")
        )

    def _name(self, text: str) -> str:
        return self._names.setdefault(text, f"x{len(self._names)}")


def column_of(column: str) -> str:
    """Reads a canonical column, or an extra input by its column name `extra_<name>`; empty text is None.

    ContractError where a transaction has no such column: what a contract says becomes part of a program here.
    """
    if column.startswith("extra_"):
        return f"not_empty(transaction.extras.get({column.removeprefix('extra_')!r}))"
    if column not in Transaction.__struct_fields__:
        raise unknown("column of a row expression", column, Transaction.__struct_fields__)
    return f"transaction.{column} or None" if column in TEXT_COLUMNS else f"transaction.{column}"


def field(feature: Feature, given: Operands) -> str:
    return given.number(*feature.of)


def category(feature: Feature, given: Operands) -> str:
    return given.text(*feature.of)


def ratio(feature: Feature, given: Operands) -> str:
    upper, lower = map(given.feature, feature.inputs)
    return f"{upper} / {lower} if {lower} and {upper} is not None else None"


def zscore(feature: Feature, given: Operands) -> str:
    value, mean, spread = map(given.feature, feature.inputs)
    return (
        f"({value} - {mean}) / {spread} if {spread} and {value} is not None and {mean} is not None else None"
    )


def home_distance_km(feature: Feature, given: Operands) -> str:
    return "home_distance(transaction, here)"


def hour_of_day(feature: Feature, given: Operands) -> str:
    return f"float({HOUR})"


def day_of_week(feature: Feature, given: Operands) -> str:
    return f"float({WEEKDAY})"


def is_weekend(feature: Feature, given: Operands) -> str:
    return f"1.0 if {WEEKDAY} >= 5 else 0.0"


def is_night(feature: Feature, given: Operands) -> str:
    return f"1.0 if {HOUR} < 6 else 0.0"


def roundness(feature: Feature, given: Operands) -> str:
    return "trailing_zeros(transaction.amount_minor)"


def is_different(feature: Feature, given: Operands) -> str:
    left, right = map(given.text, feature.of)
    return f"None if {left} is None or {right} is None else 1.0 if {left} != {right} else 0.0"


def number(value: float | None) -> float | None:
    return None if value is None else float(value)


def not_empty(value: object) -> object:
    return None if value == "" else value


def home_distance(transaction: Transaction, here: Place | None) -> float | None:
    latitude, longitude = transaction.home_latitude, transaction.home_longitude
    if here is None or latitude is None or longitude is None:
        return None
    return distance_km(place(latitude, longitude), here)


def trailing_zeros(amount: int) -> float:
    """6 at the most."""
    if amount % 10:
        return 0.0
    return next((float(zeros) for zeros in range(6, 1, -1) if amount % 10**zeros == 0), 1.0)


def transaction_place(transaction: Transaction) -> tuple[float, float, float] | None:
    if transaction.latitude is None or transaction.longitude is None:
        return None
    return place(transaction.latitude, transaction.longitude)


ROWS: dict[str, Callable[[Feature, Operands], str]] = {
    function.__name__: function
    for function in (
        field,
        category,
        ratio,
        zscore,
        home_distance_km,
        hour_of_day,
        day_of_week,
        is_weekend,
        is_night,
        roundness,
        is_different,
    )
}


def compile_rows(contract: FeatureContract) -> FillRows:
    """One function of a transaction, its Place and a vector that holds the aggregates of a contract: it puts
    the row expressions into it. ContractError lists the known kinds."""
    given = Operands(contract)
    expressions = [
        (place_in_vector, _expression(feature, given))
        for place_in_vector, feature in enumerate(contract.features)
        if feature.entity is None
    ]
    lines = ["now = transaction.event_time", *given.lines]
    return filling(expressions, "transaction, here, vector", globals(), lines)


def _expression(feature: Feature, given: Operands) -> str:
    if feature.kind not in ROWS:
        raise unknown(f"kind of feature {feature.name!r}", feature.kind, ROWS)
    return ROWS[feature.kind](feature, given)
