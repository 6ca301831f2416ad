"""features: contract, geometry, exact numbers, facts of a key's past, parity and row expressions."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fraud_platform.errors import ContractError
from fraud_platform.features.compiler import compile_plans
from fraud_platform.features.contract import DECLARATION, Feature, FeatureContract, load_contract, unknown
from fraud_platform.features.engine import Engine
from fraud_platform.features.geometry import EARTH_RADIUS_KM, distance_km, place
from fraud_platform.features.parity import ParityReport, compare
from fraud_platform.features.rows import compile_rows, transaction_place
from fraud_platform.features.state import NEVER, State, exact_double
from fraud_platform.schema import Column, Transaction

LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)


def declare(path: Path, *features: dict[str, Any]) -> Path:
    """A declaration with the project's entities and windows, and these features alone."""
    variables = yaml.safe_load(DECLARATION.read_text(encoding="utf-8"))["vars"]
    declaration = path / "dbt_project.yml"
    declaration.write_text(yaml.safe_dump({"vars": variables | {"features": list(features)}}))
    return declaration


def entry(**changes: Any) -> dict[str, Any]:
    plain = {"name": "x", "kind": "count", "entity": "card", "windows": ["1h"], "description": "X"}
    return {key: value for key, value in (plain | changes).items() if value is not None}


def transaction(**changes: Any) -> Transaction:
    plain = {
        "transaction_id": "t",
        "event_time": 0,
        "card_id": "c",
        "merchant_id": "m",
        "amount_minor": 100,
        "currency": "EUR",
    }
    return Transaction(**(plain | changes))


# Contract


def test_few_known_names_are_all_listed_and_of_many_the_near_ones() -> None:
    assert str(unknown("window", "8d", ["30d", "1h", "7d"])).endswith("use one of: 7d, 1h, 30d")
    many = [f"card_txn_count_{number}h" for number in range(200)]
    said = str(unknown("feature", "card_txn_count_1x", many))
    assert said.endswith("(195 others: fraud-platform features lists them)")
    assert "card_txn_count_1h" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"entity": "crad"}, ["entity of feature", "'crad'", "card"]),
        ({"windows": ["2h"]}, ["window of feature 'x'", "'2h'", "1h"]),
        ({"kind": "sum", "of": "amount"}, ["column of feature 'x'", "'amount'", "amount_minor"]),
        ({"stream": "chargebacks"}, ["stream of feature", "fraud_reports, transactions"]),
        (
            {"kind": "ratio", "entity": None, "windows": None, "inputs": ["x", "yy"]},
            ["input of feature 'x'", "'yy'", "use one of: x"],
        ),
        ({"windws": ["1h"]}, ["feature 'x'", "windws"]),
    ],
)
def test_a_wrong_declaration_names_the_value_and_what_is_known(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ContractError) as caught:
        load_contract(declaration=declare(tmp_path, entry(**changes)))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "cuont"}, ["kind of feature 'x", "'cuont'", "count"]),
        ({"kind": "hour_of_dya", "entity": None, "windows": None}, ["hour_of_day"]),
        ({"windows": None}, ["kind count", "declare its windows"]),
        ({"kind": "is_new"}, ["kind is_new", "no windows"]),
        ({"kind": "sum", "of": "home_latitude"}, ["sum reads one of amount_minor"]),
        ({"kind": "distinct"}, ["distinct reads one of", "merchant_id"]),
        ({"kind": "distinct", "of": ["channel", "category"]}, ["distinct reads one of"]),
        ({"kind": "distinct", "of": "amount_minor"}, ["distinct reads one of"]),
        ({"of": "amount_minor"}, ["count reads no column"]),
        (
            {"kind": "sum", "of": "amount_minor", "stream": "fraud_reports"},
            ["sum reads transactions, not 'fraud_reports'"],
        ),
    ],
)
def test_the_engine_refuses_what_a_kind_cannot_compute(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    contract = load_contract(declaration=declare(tmp_path, entry(**changes)))
    with pytest.raises(ContractError) as caught:
        Engine(contract)
    for word in words:
        assert word in str(caught.value)


def test_a_name_is_declared_once(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="'x_1h' is declared twice"):
        load_contract(declaration=declare(tmp_path, entry(), entry()))


def test_a_wrong_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ContractError, match="card_txn_count_1h"):
        load_contract().index("card_txn_cuont_1h")


def test_the_hash_ignores_descriptions(tmp_path: Path) -> None:
    one = load_contract(declaration=declare(tmp_path, entry(description="one")))
    two = load_contract(declaration=declare(tmp_path, entry(description="two")))
    assert one.hash == two.hash
    assert len(one.hash) == 64


CHANGED = {
    "name": "y",
    "kind": "sum",
    "entity": "device",
    "stream": "fraud_reports",
    "of": ("amount_minor",),
    "window": "2h",
    "window_ms": 3_600_001,
    "offset": "7d",
    "offset_ms": 1,
    "last": 3,
    "inputs": ("x_1h",),
}


@pytest.mark.parametrize("field", [name for name in Feature.__struct_fields__ if name != "description"])
def test_the_hash_changes_with_anything_that_decides_a_value(tmp_path: Path, field: str) -> None:
    contract = load_contract(declaration=declare(tmp_path, entry()))
    changed = msgspec.structs.replace(contract.features[0], **{field: CHANGED[field]})
    assert FeatureContract(contract.entities, (changed,)).hash != contract.hash


def test_the_hash_changes_with_the_order_and_with_the_keys(tmp_path: Path) -> None:
    contract = load_contract(declaration=declare(tmp_path, entry(), entry(name="y")))
    assert FeatureContract(contract.entities, contract.features[::-1]).hash != contract.hash
    keys = contract.entities | {"card": ("customer_id",)}
    assert FeatureContract(keys, contract.features).hash != contract.hash


def test_json_keeps_the_contract() -> None:
    contract = load_contract(
        (Column("extra_risk", "DOUBLE", False, "R"), Column("extra_kind", "VARCHAR", False, "K"))
    )
    again = FeatureContract.from_json(contract.to_json())
    assert again == contract
    assert again.hash == contract.hash
    assert again.names[-2:] == ("extra_risk", "extra_kind")
    assert again.category_names[-1] == "extra_kind"


def test_a_contract_read_from_json_compiles_to_the_same_plans() -> None:
    """JSON sorts the entities; numbers taken from their order made a bundle's contract read other keys."""
    contract = load_contract()
    again = FeatureContract.from_json(contract.to_json())
    numbers = [{plan.name: plan.number for plan in compile_plans(one)} for one in (contract, again)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"entities": {}, "features": [{"name": 1}]}'])
def test_json_that_is_no_contract_is_refused(data: bytes) -> None:
    with pytest.raises(ContractError, match="intact bundle"):
        FeatureContract.from_json(data)


def test_distinct_twice_of_the_same_is_counted_once(tmp_path: Path) -> None:
    same = {"kind": "distinct", "of": "merchant_id"}
    contract = load_contract(declaration=declare(tmp_path, entry(**same), entry(name="y", **same)))
    assert len(compile_plans(contract)[0].distincts) == 1


# Geometry


@given(LATITUDES, LONGITUDES)
def test_places_are_those_of_the_mathematical_library(latitude: float, longitude: float) -> None:
    phi, theta = math.radians(latitude), math.radians(longitude)
    wanted = math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)
    assert place(latitude, longitude) == pytest.approx(wanted, abs=2e-10)


@given(LATITUDES, LONGITUDES, LATITUDES, LONGITUDES)
def test_distance_is_the_chord_of_the_great_circle(a: float, b: float, c: float, d: float) -> None:
    phi, psi = math.radians(a), math.radians(c)
    haversine = (
        math.sin((psi - phi) / 2) ** 2
        + math.cos(phi) * math.cos(psi) * math.sin(math.radians(d - b) / 2) ** 2
    )
    great_circle = 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, haversine)))
    chord = 2 * EARTH_RADIUS_KM * math.sin(great_circle / EARTH_RADIUS_KM / 2)
    distance = distance_km(place(a, b), place(c, d))
    assert distance == pytest.approx(chord, abs=1e-5)
    assert distance <= great_circle + 1e-5


def test_a_place_is_no_distance_from_itself() -> None:
    assert math.copysign(1.0, distance_km(place(-0.0, 0.0), place(0.0, -0.0))) == 1.0
    assert distance_km(place(-0.0, 0.0), place(0.0, -0.0)) == 0.0


# Exact numbers


@given(st.integers(0, 1 << 105))
def test_exact_double_is_the_nearest_double(value: int) -> None:
    assert exact_double(value) == float(value)


@given(st.lists(st.integers(0, 10**12), max_size=20), st.data())
def test_squares_are_exact_whatever_comes_and_goes(amounts: list[int], data: st.DataObject) -> None:
    state = empty()
    for amount in amounts:
        state.add_square(0, amount * amount)
    gone = data.draw(st.lists(st.sampled_from(range(len(amounts))), unique=True)) if amounts else []
    for place_of_amount in gone:
        state.add_square(0, -(amounts[place_of_amount] ** 2))
    left = sum(a * a for i, a in enumerate(amounts) if i not in gone)
    assert state.square(0) == left
    assert all(-(1 << 63) <= part < 1 << 63 for part in state.squares)


# Facts of the past


def empty() -> State:
    return State(0, counts=[0], sums=[0], squares=[0, 0], oldest=[0])


MOMENTS = [
    (10, None),
    (10, (10, 1.0, 2.0)),
    (20, (20, 1.0, 5.0)),
    (20, (20, 2.0, 0.0)),
    (20, None),
    (30, None),
]


@pytest.mark.parametrize("now", [5, 10, 11, 20, 21, 30, 31])
def test_remember_gives_the_same_facts_in_every_order(now: int) -> None:
    """`last_before` and `place_at_last` are asked of a State that has seen nothing after `now`."""
    known = [m for m in MOMENTS if m[0] <= now]
    lasts = [m for m, _ in known if m < now]
    places = [p for m, p in known if p is not None and m < now]
    for order in itertools.permutations(known):
        state = empty()
        for moment, where in order:
            state.remember(moment, where)
        assert state.first == (10 if known else NEVER)
        assert state.last_before(now) == max(lasts, default=NEVER)
        assert state.place_at_last(now) == max(places, default=None)


# Parity


TWO = FeatureContract(
    {},
    (
        Feature(name="number", kind="field", description="", of=("amount_minor",)),
        Feature(name="text", kind="category", description="", of=("channel",)),
    ),
)


@pytest.mark.parametrize(
    ("online", "offline", "is_equal"),
    [
        (1.0, 1.0, True),
        (None, np.nan, True),
        (0.1 + 0.2, 0.3, False),
        (0.0, -0.0, False),
        (None, 0.0, False),
        (0.0, np.nan, False),
        (math.inf, math.inf, True),
        (math.nan, np.nan, False),
    ],
)
def test_numbers_are_compared_as_bits(online: float | None, offline: float, is_equal: bool) -> None:
    built = {"number": np.array([offline]), "text": np.array(["a"], dtype=object)}
    report = compare(TWO, ["t"], [(online, "a")], built)
    assert report.is_exact == is_equal
    assert report.mismatches.total() == (not is_equal)


@pytest.mark.parametrize(
    ("online", "offline", "is_equal"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (None, None, True),
        ("", None, False),
        (None, "", False),
        ("a", None, False),
    ],
)
def test_null_text_equals_only_null(online: str | None, offline: str | None, is_equal: bool) -> None:
    built = {"number": np.array([1.0]), "text": np.array([offline], dtype=object)}
    assert compare(TWO, ["t"], [(1.0, online)], built).is_exact == is_equal


def test_a_report_counts_by_feature_and_keeps_the_first_example() -> None:
    built = {"number": np.array([1.0, 2.0, 3.0]), "text": np.array(["a", "b", "c"], dtype=object)}
    report = compare(TWO, ["t", "u", "v"], [(1.0, "a"), (2.5, "b"), (3.5, "c")], built)
    report += compare(TWO, ["t", "u", "v"], [(0.0, "a"), (2.0, "b"), (3.0, "x")], built)
    assert report.mismatches == {"number": 3, "text": 1}
    assert [(e.transaction_id, e.feature) for e in report.examples] == [("u", "number"), ("v", "text")]
    assert str(report) == "compared 12 values of 6 transactions: 4 mismatches"
    assert not report.is_exact


@pytest.mark.parametrize(
    ("online", "value", "is_null", "is_equal"),
    [
        (None, 0.0, True, True),
        (None, np.nan, False, False),
        (None, 0.0, False, False),
        (math.nan, np.nan, False, False),
        (math.nan, np.nan, True, False),
        (1.0, 1.0, False, True),
        (1.0, 1.0, True, False),
    ],
)
def test_in_a_masked_column_only_the_mask_is_null(
    online: float | None, value: float, is_null: bool, is_equal: bool
) -> None:
    """The table's NaN is a wrong value and no NULL: a plain column could not tell them apart."""
    column = np.ma.MaskedArray([value, 7.0], mask=[is_null, False])
    built = {"number": column, "text": np.array(["a", "a"], dtype=object)}
    report = compare(TWO, ["t", "u"], [(online, "a"), (7.0, "a")], built)
    assert report.is_exact == is_equal


def test_one_wrong_bit_in_a_long_column_is_found_and_shown() -> None:
    numbers = np.random.default_rng(3).random(5_000)
    online = [(float(number), "a") for number in numbers]
    flipped = numbers.copy()
    flipped.view(np.int64)[4_321] ^= 1
    texts = np.array(["a"] * len(numbers), dtype=object)
    report = compare(TWO, [f"t{n}" for n in range(len(numbers))], online, {"number": flipped, "text": texts})
    assert report.mismatches == {"number": 1}
    assert str(report.examples[0]) == (
        f"number of t4321: served {float(numbers[4_321])!r}, built {float(flipped[4_321])!r}"
    )


def test_nothing_compared_is_not_exact() -> None:
    assert not ParityReport().is_exact


# Row expressions


def evaluate(
    kind: str, tx: Transaction, of: tuple[str, ...] = (), inputs: tuple[float | None, ...] = ()
) -> Any:
    """The row expression over a contract in which each input is an aggregate of that value."""
    names = tuple(f"input_{place_of_input}" for place_of_input in range(len(inputs)))
    features = [Feature(name=n, kind="sum", entity="card", description="") for n in names]
    feature = Feature(name="x", kind=kind, description="", of=of, inputs=names)
    contract = FeatureContract({"card": ("card_id",)}, (*features, feature))
    vector = [*inputs, None]
    compile_rows(contract)(tx, transaction_place(tx), vector)
    return vector[-1]


@pytest.mark.parametrize(
    ("inputs", "value"),
    [((1.0, 4.0), 0.25), ((None, 4.0), None), ((1.0, None), None), ((1.0, 0.0), None), ((0.0, 4.0), 0.0)],
)
def test_ratio(inputs: tuple[float | None, ...], value: float | None) -> None:
    assert evaluate("ratio", transaction(), inputs=inputs) == value


@pytest.mark.parametrize(
    ("inputs", "value"),
    [((7.0, 1.0, 3.0), 2.0), ((7.0, 1.0, 0.0), None), ((7.0, None, 3.0), None), ((7.0, 1.0, None), None)],
)
def test_zscore(inputs: tuple[float | None, ...], value: float | None) -> None:
    assert evaluate("zscore", transaction(), inputs=inputs) == value


@pytest.mark.parametrize(
    ("event_time", "hour", "weekday", "is_weekend", "is_night"),
    [
        (0, 0, 3, 0, 1),  # Thursday, 1 January 1970
        (194_399_999, 5, 5, 1, 1),  # Saturday, 05:59:59.999
        (194_400_000, 6, 5, 1, 0),
        (1_774_746_000_000, 1, 6, 1, 1),  # Sunday, 29 March 2026: clocks change in Europe, not in UTC
        (1_709_164_800_000, 0, 3, 0, 1),  # Thursday, 29 February 2024
    ],
)
def test_calendar_is_utc(event_time: int, hour: int, weekday: int, is_weekend: int, is_night: int) -> None:
    tx = transaction(event_time=event_time)
    kinds = ("hour_of_day", "day_of_week", "is_weekend", "is_night")
    assert [evaluate(kind, tx) for kind in kinds] == [hour, weekday, is_weekend, is_night]


@pytest.mark.parametrize(
    ("amount", "zeros"), [(0, 6), (1, 0), (10, 1), (12_300, 2), (10**12, 6), (10**12 - 1, 0)]
)
def test_roundness(amount: int, zeros: int) -> None:
    assert evaluate("roundness", transaction(amount_minor=amount)) == zeros


@pytest.mark.parametrize(
    ("card", "merchant", "value"),
    [("DE", "FR", 1.0), ("DE", "DE", 0.0), (None, "DE", None), ("DE", "", None), ("", "", None)],
)
def test_is_different(card: str | None, merchant: str | None, value: float | None) -> None:
    tx = transaction(card_country=card, merchant_country=merchant)
    assert evaluate("is_different", tx, of=("card_country", "merchant_country")) == value


def test_fields_and_categories_know_no_empty_text() -> None:
    tx = transaction(channel="", extras={"risk": 2, "kind": "", "code": "a"})
    assert evaluate("category", tx, of=("channel",)) is None
    assert evaluate("category", tx, of=("extra_kind",)) is None
    assert evaluate("category", tx, of=("extra_code",)) == "a"
    assert evaluate("field", tx, of=("extra_risk",)) == 2.0
    assert isinstance(evaluate("field", tx, of=("extra_risk",)), float)
    assert evaluate("field", tx, of=("extra_unsent",)) is None


@pytest.mark.parametrize("column", ["nothing", "amount_minor or __import__('os').getpid()"])
def test_a_contract_cannot_bring_a_program(column: str) -> None:
    with pytest.raises(ContractError, match="column of a row expression is"):
        evaluate("field", transaction(), of=(column,))


def test_the_name_of_an_extra_input_is_only_looked_up() -> None:
    assert evaluate("category", transaction(), of=("extra_x') or ('y",)) is None


def test_home_distance_needs_all_four_coordinates() -> None:
    places = {"latitude": 0.0, "longitude": 0.0, "home_latitude": 0.0, "home_longitude": 180.0}
    assert evaluate("home_distance_km", transaction(**places)) == pytest.approx(2 * EARTH_RADIUS_KM)
    for name in places:
        assert evaluate("home_distance_km", transaction(**(places | {name: None}))) is None


def test_an_offset_that_is_not_declared_lists_the_windows(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"offset of feature 'x' is '3d', which is not declared"):
        load_contract(declaration=declare(tmp_path, entry(offset="3d")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "distinct", "of": "merchant_id", "offset": "1h"}, "a window of distinct ends at the event"),
        ({"kind": "last_max", "of": "amount_minor"}, "say how many moments with last: N"),
        ({"kind": "last_max", "of": "amount_minor", "last": 0}, "say how many moments with last: N"),
        ({"last": 3}, "it looks at whole windows, leave last out"),
    ],
    ids=str,
)
def test_a_kind_refuses_an_offset_or_a_number_of_moments_that_it_does_not_know(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    contract = load_contract(declaration=declare(tmp_path, entry(**changes)))
    with pytest.raises(ContractError, match=said):
        Engine(contract)


def test_an_entity_looks_back_at_one_span(tmp_path: Path) -> None:
    entries = [
        entry(name=name, kind="last_max", of="amount_minor", last=last) for name, last in (("x", 3), ("y", 4))
    ]
    contract = load_contract(declaration=declare(tmp_path, *entries))
    with pytest.raises(ContractError, match="looks back at other moments than 'x_1h'"):
        Engine(contract)


def test_what_a_later_contract_lacks_or_means_otherwise() -> None:
    """A description decides nothing; what a feature is made of does."""
    old = load_contract()
    assert old.without(old) == ()
    named = {feature.name: feature for feature in old.features}

    def later(**changes: Feature | None) -> FeatureContract:
        kept = [changes.get(name, feature) for name, feature in named.items()]
        return FeatureContract(old.entities, tuple(one for one in kept if one), old.report_horizon_ms)

    described = msgspec.structs.replace(named["card_age_seconds"], description="Otherwise", window=None)
    assert old.without(later(card_age_seconds=described)) == ()
    assert old.without(later(card_age_seconds=None)) == ("card_age_seconds",)
    wider = msgspec.structs.replace(named["card_amount_mean_7d"], window_ms=8 * 86_400_000)
    mean, ratio, zscore = "card_amount_mean_7d", "card_amount_ratio_7d", "card_amount_zscore_7d"
    assert old.without(later(card_amount_mean_7d=wider)) == (mean, ratio, zscore)
    assert later(is_night=None).without(old) == ()
    horizon = FeatureContract(old.entities, old.features, old.report_horizon_ms + 1)
    assert "card_fraud_reports_7d" in old.without(horizon)
    assert "card_txn_count_7d" not in old.without(horizon)
    keys = FeatureContract(old.entities | {"ip": ("card_id", "ip_id")}, old.features, old.report_horizon_ms)
    assert set(old.without(keys)) == {one.name for one in old.features if one.entity == "ip"}
