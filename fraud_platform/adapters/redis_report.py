"""What a fraud report changes in the Redis store: the engine's session while it decides that.

Belongs here: noting for which keys a report counts. Does not belong here: taking it down (redis.py,
redis_script.lua), counting it (redis_session.py: whoever visits a key takes in what has arrived).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fraud_platform.adapters.store_bytes import key_bytes, token
from fraud_platform.features.engine import Key, Seen, Vector
from fraud_platform.features.lookback import Outcomes
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.recent import Entry
from fraud_platform.features.state import FAR, NEVER, State
from fraud_platform.schema import Transaction


class ReportKeySession:
    """Notes what a report changes in one key, for the script to take down as arrivals."""

    def __init__(self, plan: EntityPlan, name: bytes) -> None:
        self.plan = plan
        self.name = name
        self.known_at = NEVER
        self.replaced: int | None = None
        self.due = NEVER

    def state(self) -> State | None:
        return None

    def save(self, state: State) -> None:
        pass

    def scan(self, is_report: bool, lower: int, upper: int) -> Iterator[Entry]:
        return iter(())

    def leave(self, is_report: bool, lower: int, bound: int, upper: int) -> tuple[list[Entry], int]:
        return [], FAR

    def scan_back(self, upper: int) -> Iterator[Entry]:
        return iter(())

    def amounts(self, lower: int, upper: int, last: int) -> Sequence[int]:
        return ()

    def outcomes(self, now: int, lower: int, upper: int, last: int, has_reports: bool) -> Outcomes:
        return Outcomes()

    def outer_reports(self, lower: int, upper: int) -> tuple[int, int]:
        return NEVER, NEVER

    def append(self, name: bytes, entry: Entry) -> None:
        pass

    def reported(self, names: Sequence[bytes]) -> dict[bytes, int]:
        return {}

    def append_report(self, transaction_id: str, known_at: int) -> None:
        self.known_at = known_at

    def remove_report(self, transaction_id: str, known_at: int) -> None:
        self.replaced = known_at

    def trim(self, upper: int, limit: int) -> Sequence[Entry]:
        return ()

    def trim_reports(self, upper: int) -> int:
        return NEVER

    def times(self, column: int, value: bytes) -> list[int]:
        raise AssertionError("a report counts no values: RedisKeySession")

    def schedule(self, moment: int) -> None:
        self.due = moment


class ReportSession:
    """What the engine decides about one report: `keys` it goes to, `is_marked` where it counts."""

    token = staticmethod(token)

    def __init__(self, seen: Seen | None) -> None:
        self._seen = seen
        self.keys: list[ReportKeySession] = []

    def at(self, plan: EntityPlan, key: Key) -> ReportKeySession:
        self.keys.append(ReportKeySession(plan, key_bytes(plan, key)))
        return self.keys[-1]

    def due(self, moment: int) -> tuple[tuple[EntityPlan, ReportKeySession], ...]:
        return ()

    def seen(self, transaction_id: str) -> Seen | None:
        return self._seen

    def save_vector(self, transaction: Transaction, vector: Vector, is_late: bool) -> None:
        raise AssertionError("a report is learnt, no transaction observed: RedisSession")

    def mark_reported(self, transaction_id: str, known_at: int) -> None:
        """Marked by the store once every key has taken the report down."""
