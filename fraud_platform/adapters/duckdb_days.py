"""What the feature tables were built from, day by day, and so from which moment on to build them again.

Belongs here: the fingerprint of each day of the timeline, and its comparison with the last build's.
Does not belong here: how the rows of new days are built (dbt_project/macros/built_through.sql).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fraud_platform.adapters.duckdb import Warehouse
from fraud_platform.schema import MILLISECONDS_PER_DAY

# A label enters its day's fingerprint with its transaction, against whose entities its report counts.
# Both a sum and an exclusive or: rows that come in pairs would cancel each other in the latter.
_DAYS = f"""
with rows as (
    select event_time // {MILLISECONDS_PER_DAY} as day, hash(t) as row_hash from ingest.transactions as t
    union all
    select known_at // {MILLISECONDS_PER_DAY}, hash(l, t)
    from ingest.labels as l inner join ingest.transactions as t on l.transaction_id = t.transaction_id
)
select day, count(*) || ' ' || sum(row_hash) || ' ' || bit_xor(row_hash) as fingerprint
from rows group by day order by day
"""


@dataclass(frozen=True)
class Inputs:
    """project: digest of code and vars; days: fingerprint of each day (UTC, days since 1970) that has rows.

    is_complete: whether everything was built; otherwise only what lies before the days that are missing. As
    text it is what Warehouse.note_build keeps.
    """

    project: str
    days: Mapping[int, str]
    is_complete: bool = True

    def __str__(self) -> str:
        return json.dumps({"project": self.project, "complete": self.is_complete, "days": dict(self.days)})

    @classmethod
    def from_text(cls, text: str) -> Inputs:
        noted = json.loads(text)
        days = {int(day): fingerprint for day, fingerprint in noted["days"].items()}
        return cls(noted["project"], days, noted["complete"])

    def unchanged_through(self, noted: str | None) -> int | None:
        """The moment (ms) before which tables built from `noted` hold; None where nothing of them does.

        What becomes known on a day changes features of that day and of later ones, never of earlier ones. A
        note without an earlier day that is the same, by other code or vars, or without days is worth nothing.
        """
        if noted is None or not noted.startswith("{"):
            return None
        before = Inputs.from_text(noted)
        every = sorted(self.days.keys() | before.days.keys())
        changed = [day for day in every if self.days.get(day) != before.days.get(day)]
        first = changed[0] if changed else every[-1] if every else None
        if before.project != self.project or first is None or first == every[0]:
            return None
        return first * MILLISECONDS_PER_DAY

    def before(self, moment: int) -> Inputs:
        """What is noted while rows from `moment` on are built: a killed run leaves those before it."""
        days = {day: text for day, text in self.days.items() if day * MILLISECONDS_PER_DAY < moment}
        return replace(self, days=days, is_complete=False)


def read_inputs(warehouse: Warehouse, project: str) -> Inputs:
    """The fingerprints of the ingested days; project: digest of everything else that decides a value."""
    frame = warehouse.frame(_DAYS)
    return Inputs(project, dict(zip(frame["day"].tolist(), frame["fingerprint"].tolist(), strict=True)))
