"""What one event reads and writes of the Redis store, and the bytes of it.

Belongs here: names of keys, records, and the engine's session over what one round trip has fetched. Does not
belong here: connections (redis_link.py), the order of messages (redis.py), what an event means
(features/engine.py).

A key's State is a snapshot, and each outcome a new `version` of it; what has arrived since waits in a list,
in order, and whoever visits the key takes it in. So the script only takes arrivals down and hands out what
lies between the snapshot and the event, atomically; the outcome is written later, where nobody else was
faster.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib import resources
from math import copysign
from typing import Any, NamedTuple

import msgspec

from fraud_platform.adapters.redis_link import Script
from fraud_platform.adapters.store_bytes import (
    NO_TOKEN,
    TOKEN_BYTES,
    EntryCodec,
    SeenRecord,
    decode_seen,
    decode_state,
    encode,
    token,
)
from fraud_platform.features.engine import (
    LATENESS_MS,
    TRIM_ENTRIES,
    Engine,
    Key,
    Observation,
    Seen,
    Vector,
)
from fraud_platform.features.lookback import Outcome, Outcomes, Span
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.recent import Entry
from fraud_platform.features.state import FAR, NEVER, WAITING_MAX, State
from fraud_platform.schema import Transaction

EVERYTHING = [(0, 1 << 62)]
ANSWERED = (b"v", b"l")
"""What is known of a transaction whose vector was told: in order, late."""
KNOWN_ONLY = (b"k", b"m")
"""The same of one whose vector is not stored any more, or never was (redis_script.lua: strip_vectors)."""

_MOMENT = struct.Struct("<d")
_AMOUNT = struct.Struct("<q")
_KNOWN = struct.Struct("<cdH")
_ARRIVAL_BYTES = 1 + _MOMENT.size + TOKEN_BYTES
_EXACT = 1 << 53


def script(engine: Engine) -> Script:
    """The script, with the shape of each plan in front of it."""
    plans = ", ".join(f"[{plan.number}] = {_shape(plan)}" for plan in engine.plans)
    text = resources.files("fraud_platform.adapters").joinpath("redis_script.lua").read_text("utf-8")
    limits = f"local LATENESS, TRIM, WAITING_MAX = {LATENESS_MS}, {TRIM_ENTRIES}, {WAITING_MAX}\n"
    return Script(f"{limits}local PLANS = {{{plans}}}\n{text}")


def _shape(plan: EntityPlan) -> str:
    return (
        f"{{log = {_lua(plan.has_log)}, place = {_lua(plan.has_place)}, "
        f"columns = {len(plan.distinct_columns)}, values = {TOKEN_BYTES + 8 + 16 * plan.has_place + 1}, "
        f"reach = {plan.reach}, stride = {plan.stride}, "
        f"windows = {{{', '.join(map(str, plan.windows))}}}, "
        f"reports = {{{', '.join(map(str, plan.report_windows))}}}, "
        f"amounts = {_span(plan.wanted.amounts)}, outcomes = {_span(plan.wanted.outcomes)}, "
        f"outer_reports = {plan.wanted.reports}}}"
    )


def _span(span: Span | None) -> str:
    return (
        "false" if span is None else f"{{last = {span.last}, width = {span.width}, offset = {span.offset}}}"
    )


def _lua(value: bool) -> str:
    return "true" if value else "false"


class Names:
    """Redis keys of one store. The braces keep an entity's key in one slot of a cluster."""

    def __init__(self, namespace: str) -> None:
        self._prefix = namespace.encode() + b":"
        self.meta = self._prefix + b"meta"
        self.due = self._prefix + b"due"
        self.everything = self._prefix + b"*"

    def entity(self, name: bytes) -> tuple[bytes, ...]:
        base = b"%b{%b}:" % (self._prefix, name.hex().encode())
        return base + b"s", base + b"p", base + b"t", base + b"r", base + b"d"

    def seen(self, transaction: bytes) -> bytes:
        return self._prefix + b"x:" + transaction

    def calendar(self, kind: str) -> bytes:
        """The hours that have a list of their own: `vectors` or `known`."""
        return self._prefix + kind.encode()

    def hour(self, kind: str, hour: int) -> bytes:
        return self._prefix + f"{kind}:{hour}".encode()


def claimed(record: SeenRecord, state: bytes = b"c") -> bytes:
    """What is known of a transaction: c claimed, or see ANSWERED, whose vector is put behind it, and
    KNOWN_ONLY."""
    data = encode(SeenRecord(record.keys, record.event_time))
    reported_at = NEVER if record.reported_at is None else record.reported_at
    return _KNOWN.pack(state, reported_at, len(data)) + data


class Known(NamedTuple):
    """A transaction as it is stored. is_claimed: whoever claimed it has not told its vector yet."""

    record: SeenRecord
    vector: Vector | None
    is_claimed: bool
    is_late: bool

    def seen(self, transaction_id: str) -> Seen:
        keys = self.record.transaction(transaction_id)
        return Seen(self.vector, keys, self.record.reported_at, self.is_late)

    def repeated(self) -> Observation | None:
        """What was answered, None where that is not known, or no longer."""
        return None if self.vector is None else Observation(self.vector, is_repeat=True, is_late=self.is_late)


def known(data: bytes) -> Known:
    state, reported_at, length = _KNOWN.unpack_from(data)
    end = _KNOWN.size + length
    record = decode_seen(data[_KNOWN.size : end])
    record.reported_at = None if reported_at == NEVER else int(reported_at)
    vector = unpack_vector(data[end:]) if state in ANSWERED else None
    return Known(record, vector, state == b"c", state in (ANSWERED[True], KNOWN_ONLY[True]))


def pack_vector(vector: Vector) -> bytes:
    """Whole numbers as integers, which are shorter; negative zero stays a float.

    >>> unpack_vector(pack_vector((1.0, -0.0, 0.5, "DE", None)))
    (1.0, -0.0, 0.5, 'DE', None)
    """
    return encode(
        [
            int(value)
            if isinstance(value, float)
            and value.is_integer()
            and -_EXACT <= value <= _EXACT
            and (value or copysign(1.0, value) > 0)
            else value
            for value in vector
        ]
    )


_decode_short = msgspec.msgpack.Decoder(tuple[int | float | str | None, ...]).decode


def unpack_vector(data: bytes) -> Vector:
    return tuple([float(value) if isinstance(value, int) else value for value in _decode_short(data)])


class Fetched:
    """Entries of one stream in order of moment, whole within `spans`; a scan outside of them is a bug."""

    def __init__(self, spans: Sequence[tuple[int, int]], entries: list[Entry]) -> None:
        self._spans = spans
        self._entries = entries
        self._moments = [entry.moment for entry in entries]

    def scan(self, lower: int, upper: int) -> Iterator[Entry]:
        lower = max(lower, 0)
        if lower >= upper:
            return
        end = next((end for start, end in self._spans if start <= lower < end), lower)
        for place in range(bisect_left(self._moments, lower), bisect_left(self._moments, min(upper, end))):
            yield self._entries[place]
        if end < upper:
            raise AssertionError(f"scan of [{lower}, {upper}) leaves what was fetched: {self._spans}")

    def scan_back(self, upper: int) -> Iterator[Entry]:
        start = next((start for start, end in self._spans if start < upper <= end), upper)
        lowest = bisect_left(self._moments, start)
        for place in range(bisect_left(self._moments, upper) - 1, lowest - 1, -1):
            yield self._entries[place]
        if start > 0:
            raise AssertionError(f"scan back from {upper} leaves what was fetched: {self._spans}")


class RedisKeySession:
    """One entity's key: its State with everything that had arrived, and what one round trip has fetched.

    Where the key has a log, the script has put the arrivals into it. Where it has none, `append` notes what
    the first ones of it are.
    """

    def __init__(
        self, plan: EntityPlan, codec: EntryCodec, name: bytes, reply: Sequence[Any], has_arrived: bool
    ) -> None:
        self.plan = plan
        self.name = name
        self._codec = codec
        (
            self.version,
            self._has_log,
            self._trim_upper,
            self._state,
            self._names,
            self._pending,
            self._spans,
            self._pages,
            self._report_spans,
            self._report_pages,
            self._counters,
            self._counted,
            self._old,
            self._old_reports,
            *self._back,
        ) = reply
        self.taken = len(self._pending) + has_arrived
        self._times: dict[bytes, list[int]] = {}
        self._logged: list[bytes | int] = []
        self._trimmed: list[bytes] = []
        self._trimmed_reports: list[bytes] = []
        self.saved: State | None = None
        self.due: int | None = None

    def state(self) -> State | None:
        if not self._state and not self._pending:
            return None
        state = decode_state(self._state) if self._state else self.plan.empty()
        if state.recent is not None:
            state.recent.names = self._names
        self._take_in(state)
        return state

    def save(self, state: State) -> None:
        if state.is_due and self.due is None:  # moved with each event, so that a sweep meets only idle keys
            self.due = Engine.due_at(self.plan, state)
        self.saved = state

    def scan(self, is_report: bool, lower: int, upper: int) -> Iterator[Entry]:
        return (self._reports if is_report else self._transactions).scan(lower, upper)

    def leave(self, is_report: bool, lower: int, bound: int, upper: int) -> tuple[list[Entry], int]:
        entries: list[Entry] = []
        for entry in self.scan(is_report, lower, upper):
            if entry.moment >= bound:
                return entries, entry.moment
            entries.append(entry)
        return entries, FAR

    def scan_back(self, upper: int) -> Iterator[Entry]:
        return self._transactions.scan_back(upper)

    @cached_property
    def _transactions(self) -> Fetched:
        entries = [entry for page in self._pages for entry in self._entries(page)]
        return Fetched(_spans(self._spans) if self.plan.has_log else EVERYTHING, entries)

    @cached_property
    def _reports(self) -> Fetched:
        moments = [Entry(int(moment)) for page in self._report_pages for moment in page[1::2]]
        return Fetched(_spans(self._report_spans), moments)

    @cached_property
    def _stored(self) -> dict[bytes, bytes | None]:
        return dict(zip(self._counters, self._counted, strict=True))

    def amounts(self, lower: int, upper: int, last: int) -> Sequence[int]:
        page, count = self._back[:2]
        return [_AMOUNT.unpack_from(line, TOKEN_BYTES)[0] for line in page[: 2 * count : 2]]

    def outcomes(self, now: int, lower: int, upper: int, last: int, has_reports: bool) -> Outcomes:
        page, count = self._back[2:4]
        reported = self.reported(())
        return Outcomes.by(
            now,
            [
                Outcome(
                    int(moment),
                    reported.get(line[:TOKEN_BYTES], NEVER),
                    _AMOUNT.unpack_from(line, TOKEN_BYTES)[0],
                )
                for line, moment in zip(page[: 2 * count : 2], page[1 : 2 * count : 2], strict=True)
            ],
        )

    def reported(self, names: Sequence[bytes]) -> dict[bytes, int]:
        """Of all transactions that can be asked for, whatever the names."""
        found = self._back[4]
        return {name: int(known_at) for name, known_at in zip(found[::2], found[1::2], strict=True)}

    def outer_reports(self, lower: int, upper: int) -> tuple[int, int]:
        oldest, newest = self._back[5:]
        return oldest, newest

    def append(self, name: bytes, entry: Entry) -> None:
        if not self._has_log:
            self._logged += (entry.moment, name + self._codec.pack(entry))

    def append_report(self, transaction_id: str, known_at: int) -> None:
        raise AssertionError("reports are taken down by the script: ReportSession")

    def remove_report(self, transaction_id: str, known_at: int) -> None:
        raise AssertionError("reports are taken down by the script: ReportSession")

    def trim(self, upper: int, limit: int) -> Sequence[Entry]:
        if upper != self._trim_upper or limit != TRIM_ENTRIES:
            raise AssertionError(f"trim before {upper}, fetched was what lies before {self._trim_upper}")
        self._trimmed = self._old[::2]
        return self._entries(self._old)

    def trim_reports(self, upper: int) -> int:
        self._trimmed_reports = self._old_reports[::2]
        return int(self._old_reports[-1]) if self._old_reports else NEVER

    def times(self, column: int, value: bytes) -> list[int]:
        name = bytes((column,)) + value
        times = self._times.get(name)
        if times is None:
            times = self._codec.unpack_times(self._stored[name] if self._has_log else None)
            self._times[name] = times
        return times

    def schedule(self, moment: int) -> None:
        self.due = moment

    def outcome(self) -> list[bytes | int]:
        """What the script's `settle` writes, if no one else has taken in the arrivals."""
        state = self.saved
        if state is None:
            raise AssertionError("nothing was saved")
        arguments: list[bytes | int] = [self.version, self.taken, *snapshot(self.plan, state)]
        arguments.append(len(self._times))
        for name, times in self._times.items():
            arguments += [name, self._codec.times.pack(*times) if any(times) else b""]
        arguments += [len(self._logged) // 2, *self._logged]
        for trimmed in (self._trimmed, self._trimmed_reports):
            arguments.append(len(trimmed))
            arguments += trimmed
        has_log = self.plan.has_log and state.recent is None
        arguments.append(b"" if has_log == self._has_log else int(has_log))
        return arguments

    def _take_in(self, state: State) -> None:
        """What has arrived since the snapshot; none of it has to come in order of time."""
        for arrival in self._pending:
            kind, moment = arrival[:1], int(_MOMENT.unpack_from(arrival, 1)[0])
            if kind == b"T":
                entry = self._codec.unpack(moment, arrival[_ARRIVAL_BYTES:])
                self.plan.take(state, arrival[_ARRIVAL_BYTES - TOKEN_BYTES : _ARRIVAL_BYTES], entry, self)
            elif kind == b"R":
                if moment < state.log_from:
                    state.trimmed_report = max(state.trimmed_report, moment)
                self.plan.take_report(state, moment)
            else:
                self.plan.drop_report(state, moment)

    def _entries(self, page: Sequence[bytes]) -> list[Entry]:
        """Of a page: an entry's line, its moment, and so on."""
        unpack = self._codec.unpack
        return [
            unpack(int(moment), line[TOKEN_BYTES:])
            for line, moment in zip(page[::2], page[1::2], strict=True)
        ]


def _spans(cover: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(cover[::2], cover[1::2], strict=True)) if cover else []


def snapshot(plan: EntityPlan, state: State) -> tuple[bytes, bytes, bytes, bytes]:
    """h, w, n and s of redis_script.lua."""
    recent = state.recent
    if recent is None:
        return _head(plan, state), _waiting_names(state), b"", encode(state)
    names, recent.names = recent.names, b""  # the script looks for them, too
    data = encode(state)
    recent.names = names
    return _head(plan, state), b"", names, data


def _head(plan: EntityPlan, state: State) -> bytes:
    """The State's facts that decide what an event has to fetch: the order that redis_script.lua reads."""
    facts = (
        state.moment,
        state.last,
        state.before_last,
        state.last_report,
        NEVER if state.place is None else state.place[0],
        NEVER if state.place_before is None else state.place_before[0],
        NEVER if state.waiting is None else len(state.waiting),
        state.recent is None,
        state.log_from,
        state.first,
        max(state.trimmed_last, state.trimmed_report),
        *(state.oldest or [FAR] * len(plan.windows)),
        *state.oldest_report,
    )
    return struct.pack(f"<{len(facts)}d", *facts)


def _waiting_names(state: State) -> bytes:
    """Names of the counters that the waiting entries change when they enter the windows."""
    return b"".join(
        bytes((column,)) + value
        for entry in state.waiting or ()
        for column, value in enumerate(entry.values)
        if value is not None and value != NO_TOKEN
    )


class RedisSession:
    """What was fetched for one transaction."""

    token = staticmethod(token)

    def __init__(self, keys: Iterable[RedisKeySession], seen: Seen | None = None) -> None:
        self._keys = {key.plan.number: key for key in keys}
        self._seen = seen

    def at(self, plan: EntityPlan, key: Key) -> RedisKeySession:
        return self._keys[plan.number]

    def due(self, moment: int) -> tuple[tuple[EntityPlan, RedisKeySession], ...]:
        """None: a sweep of its own looks after them, off the path of a decision."""
        return ()

    def seen(self, transaction_id: str) -> Seen | None:
        return self._seen

    def save_vector(self, transaction: Transaction, vector: Vector, is_late: bool) -> None:
        """The store sends it with what came out of the keys."""

    def mark_reported(self, transaction_id: str, known_at: int) -> None:
        raise AssertionError("a transaction is observed, no report learnt: ReportSession")
