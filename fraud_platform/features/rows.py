"""One function a kind of row expression: the online twin of the macro row_<kind>.

Each takes the declared feature and the contract, and returns a function of the transaction and the vector
built so far (a row expression reads only aggregates and the transaction itself).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from fraud_platform.features.contract import Feature, FeatureContract, unknown
from fraud_platform.features.geometry import distance_km, place
from fraud_platform.schema import TEXT_COLUMNS, Transaction

Value = float | str | None
Vector = list[Value]
RowExpression = Callable[[Transaction, Vector], Value]


def column_of(column: str) -> Callable[[Transaction], object]:
    """Reads a canonical column, or an extra input by its column name `extra_<name>`; empty text is None."""
    if column.startswith("extra_"):
        name = column.removeprefix("extra_")

        def extra(transaction: Transaction) -> object:
            value = transaction.extras.get(name)
            return None if value == "" else value

        return extra
    read = attrgetter(column)
    return (lambda transaction: read(transaction) or None) if column in TEXT_COLUMNS else read


def field(feature: Feature, contract: FeatureContract) -> RowExpression:
    read = column_of(*feature.of)

    def expression(transaction: Transaction, vector: Vector) -> Value:
        value = read(transaction)
        return None if value is None else float(value)  # type: ignore[arg-type]

    return expression


def category(feature: Feature, contract: FeatureContract) -> RowExpression:
    read = column_of(*feature.of)
    return lambda transaction, vector: read(transaction)  # type: ignore[return-value]


def _operand(name: str, contract: FeatureContract) -> RowExpression:
    """An input of a row expression: an aggregate's value from the vector, or a column of the transaction."""
    place_in_vector = contract.index(name)
    if contract.features[place_in_vector].entity is None:
        return field(contract.features[place_in_vector], contract)
    return lambda transaction, vector: vector[place_in_vector]


def ratio(feature: Feature, contract: FeatureContract) -> RowExpression:
    upper, lower = (_operand(name, contract) for name in feature.inputs)

    def expression(transaction: Transaction, vector: Vector) -> Value:
        numerator, denominator = upper(transaction, vector), lower(transaction, vector)
        if numerator is None or not denominator:
            return None
        return numerator / denominator  # type: ignore[operator]

    return expression


def zscore(feature: Feature, contract: FeatureContract) -> RowExpression:
    value, mean, spread = (_operand(name, contract) for name in feature.inputs)

    def expression(transaction: Transaction, vector: Vector) -> Value:
        x, centre, width = value(transaction, vector), mean(transaction, vector), spread(transaction, vector)
        if x is None or centre is None or not width:
            return None
        return (x - centre) / width  # type: ignore[operator]

    return expression


def home_distance_km(feature: Feature, contract: FeatureContract) -> RowExpression:
    def expression(transaction: Transaction, vector: Vector) -> Value:
        here = transaction_place(transaction)
        latitude, longitude = transaction.home_latitude, transaction.home_longitude
        if here is None or latitude is None or longitude is None:
            return None
        return distance_km(place(latitude, longitude), here)

    return expression


def hour_of_day(feature: Feature, contract: FeatureContract) -> RowExpression:
    return lambda transaction, vector: float(_hour(transaction))


def day_of_week(feature: Feature, contract: FeatureContract) -> RowExpression:
    return lambda transaction, vector: float(_weekday(transaction))


def is_weekend(feature: Feature, contract: FeatureContract) -> RowExpression:
    return lambda transaction, vector: 1.0 if _weekday(transaction) >= 5 else 0.0


def is_night(feature: Feature, contract: FeatureContract) -> RowExpression:
    return lambda transaction, vector: 1.0 if _hour(transaction) < 6 else 0.0


def roundness(feature: Feature, contract: FeatureContract) -> RowExpression:
    def expression(transaction: Transaction, vector: Vector) -> Value:
        return next((float(n) for n in range(6, 0, -1) if transaction.amount_minor % 10**n == 0), 0.0)

    return expression


def is_different(feature: Feature, contract: FeatureContract) -> RowExpression:
    left, right = map(column_of, feature.of)

    def expression(transaction: Transaction, vector: Vector) -> Value:
        a, b = left(transaction), right(transaction)
        if a is None or b is None:
            return None
        return 1.0 if a != b else 0.0

    return expression


def transaction_place(transaction: Transaction) -> tuple[float, float, float] | None:
    if transaction.latitude is None or transaction.longitude is None:
        return None
    return place(transaction.latitude, transaction.longitude)


def _hour(transaction: Transaction) -> int:
    return transaction.event_time // 3_600_000 % 24


def _weekday(transaction: Transaction) -> int:
    """Monday is 0; 1970-01-01 was a Thursday."""
    return (transaction.event_time // 86_400_000 + 3) % 7


ROWS: dict[str, Callable[[Feature, FeatureContract], RowExpression]] = {
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


def row_expression(feature: Feature, contract: FeatureContract) -> RowExpression:
    """The expression of a declared feature; ContractError lists the known kinds."""
    if feature.kind not in ROWS:
        raise unknown(f"kind of feature {feature.name!r}", feature.kind, ROWS)
    return ROWS[feature.kind](feature, contract)
