"""features: the SQL that dbt compiles against the definition, on the timelines that the stores are given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_platform.features.contract import FeatureContract
from fraud_platform.schema import LabelEvent, Transaction
from tests.compiled_sql import CompiledSql
from tests.oracle import DAY, Oracle, require_equal
from tests.worlds import BESIDE, CONTRACT, EDGES, FIELDS, MOMENTS, NOW, OUTCOMES, WINDOWS, report, transaction

TIMELINES = st.lists(st.tuples(MOMENTS, FIELDS), min_size=1, max_size=25)
REPORTS = st.lists(
    st.tuples(st.integers(0, 27), OUTCOMES, st.sampled_from((*EDGES, 540 * DAY)), st.sampled_from(BESIDE)),
    max_size=20,
)
"""(transaction, outcome, known so long after it, a little more or less); some transactions are unknown."""


def known(contract: FeatureContract, events: Iterable[Transaction], labels: Iterable[LabelEvent]) -> Oracle:
    """Whoever builds offline knows everything; what lies after a row must not count in it all the same."""
    oracle = Oracle(contract)
    for event in events:
        oracle.arrive(event)
    for label in labels:
        oracle.learn(label)
    return oracle


def require_definition(compiled: CompiledSql, events: list[Transaction], labels: list[LabelEvent]) -> None:
    oracle = known(CONTRACT, events, labels)
    compiled.fill(events, labels)
    vectors = compiled.vectors()
    assert len(vectors) == len(events)
    for event in events:
        require_equal(CONTRACT, vectors[event.transaction_id], oracle.vector(event))


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(TIMELINES, REPORTS)
def test_the_sql_is_the_definition(
    compiled: CompiledSql,
    timeline: list[tuple[int, dict[str, object]]],
    reports: list[tuple[int, Any, int, int]],
) -> None:
    events = [
        Transaction(transaction_id=str(number), event_time=moment, **fields)
        for number, (moment, fields) in enumerate(timeline)
    ]
    labels = [
        LabelEvent(
            transaction_id=str(number),
            source=f"source{place}",
            outcome=outcome,
            known_at=timeline[number % len(timeline)][0] + edge + beside,
        )
        for place, (number, outcome, edge, beside) in enumerate(reports)
    ]
    require_definition(compiled, events, labels)


def test_every_edge_of_every_window(compiled: CompiledSql) -> None:
    """Nothing left to chance: ties, exact windows and one millisecond beside them, for both streams."""
    moments = sorted(
        {NOW + sign * width + beside for width in WINDOWS for sign in (0, 1) for beside in BESIDE}
    )
    events = [
        transaction(f"{number}.{copy}", moment) for number, moment in enumerate(moments) for copy in "ab"
    ]
    labels = [report(event.transaction_id, event.event_time + DAY) for event in events]
    require_definition(compiled, events, labels)


def test_the_models_are_found_in_the_manifest(compiled: CompiledSql) -> None:
    names = [name.rsplit(".", 1)[1] for name in compiled.models]
    assert names[-1] == "transaction_features"
    assert {f"{entity}_features" for entity in CONTRACT.entities} <= set(names)
    assert names.index("stg_transactions") < names.index("card_features")
