"""The online store for several machines: Redis 7 or Valkey, one server or a cluster.

Belongs here: the messages of a decision and of a report, in order, and what is forgotten. Does not belong
here: bytes and names (redis_session.py), what happens inside the server (redis_script.lua), connections
(redis_link.py), what an event means (features/engine.py).

A decision waits for one answer of a single server: its script claims the id, takes the event down for every
key and hands out what the engine needs, in one atomic step. On a cluster the id is claimed first, so that it
counts once whatever keys it comes with, and the keys follow: two waits, each for all nodes at once. What came
out is sent before `observe` returns, and nobody waits for it: where it is lost, the next visitor computes it
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import sleep
from types import TracebackType
from typing import Any

import msgspec

from fraud_platform.adapters.redis_link import Command, Limits, Link, Talk, plain
from fraud_platform.adapters.redis_report import ReportSession
from fraud_platform.adapters.redis_session import (
    ANSWERED,
    Known,
    Names,
    RedisKeySession,
    RedisSession,
    claimed,
    known,
    pack_vector,
    script,
)
from fraud_platform.adapters.store_bytes import EntryCodec, SeenRecord, key_bytes, seen_keys, token
from fraud_platform.errors import StoreError, TooLateError
from fraud_platform.features.contract import FeatureContract
from fraud_platform.features.engine import LATENESS_MS, Engine, Observation, too_late
from fraud_platform.features.plan import EntityPlan
from fraud_platform.features.state import NEVER
from fraud_platform.schema import LabelEvent, Transaction

FORMAT = "3"
READY = "ready"
"""The note of a store that was filled and may serve."""
BATCH_EVENTS = 32
"""Events of a replay that are under way at the same time."""
BATCH_COMMANDS = 1000
"""Commands of a bulk load that are sent at once."""
CLAIM_STEP_S = 0.002
"""Between two looks at an event that someone else is at work on."""
SWEEP_EVERY = 16
"""Decisions between two sweeps: often and little, so that no decision meets a long one."""
SWEEP_KEYS = 4 * SWEEP_EVERY
"""Vectors, transactions and keys that one sweep cleans up at the most, each: more than was added."""

SWEEP_AT_ONCE = 4
"""Of them, so many a message: a server at work on a whole sweep would let decisions wait."""

HOUR_MS = 3_600_000

Visit = tuple[EntityPlan, bytes, bytes]
"""A plan, a key's name, and the entry that the event becomes in it."""


class RedisStore:
    """A FeatureStore in Redis. Raises StoreError where it cannot be reached or holds another contract.

    `observe` may be called by several threads and processes at once. An event whose call failed can be sent
    again: it counts once.
    """

    def __init__(
        self, url: str, contract: FeatureContract, *, namespace: str = "fraud", limits: Limits | None = None
    ) -> None:
        self.url = url
        self.contract = contract
        self.sequence: int | None = None  # the nodes of a cluster share no order
        self.engine = Engine(contract)
        self.names = Names(namespace)
        self.codecs = {plan.number: EntryCodec(plan) for plan in self.engine.plans}
        self.script = script(self.engine)
        self.link = Link(url, limits or Limits())
        self._sweeper: ThreadPoolExecutor | None = None
        self._sweep: Future[int] | None = None
        self._observed = 0
        self._claim()

    @classmethod
    def open(
        cls, url: str, contract: FeatureContract, *, namespace: str = "fraud", limits: Limits | None = None
    ) -> RedisStore:
        """An existing or a new store. `namespace` keeps several stores of one server apart."""
        return cls(url, contract, namespace=namespace, limits=limits)

    def observe(self, transaction: Transaction) -> Observation:
        with self.link.talk() as talk:
            observation = self._observe(talk, [transaction], {})[0]
        self._observed += 1
        if self._observed % SWEEP_EVERY == 0:
            self._sweep_beside(transaction.event_time)
        return _raised(observation)

    def observe_all(self, events: Iterable[Transaction | LabelEvent]) -> Iterator[Observation | None]:
        """Events in the order of the timeline, many under way at once: for replays. None for label events."""
        batch: list[Transaction] = []
        swept = 0
        for event in events:
            if isinstance(event, Transaction):
                batch.append(event)
                if len(batch) < BATCH_EVENTS:
                    continue
            yield from self._observed_batch(batch)
            swept += len(batch)
            batch.clear()
            if isinstance(event, LabelEvent):
                self.learn(event)
                yield None
            elif swept >= SWEEP_EVERY:
                self.sweep(event.event_time)
                swept = 0
        yield from self._observed_batch(batch)

    def learn(self, event: LabelEvent) -> bool:
        """Order does not matter, and an event that is sent again repairs what a crash has left undone."""
        with self.link.talk() as talk:
            name = self.names.seen(token(event.transaction_id))
            data = talk.call([plain("GET", name)])[0]
            session = ReportSession(None if data is None else known(data).seen(event.transaction_id))
            if not self.engine.learn(session, event):
                return False
            arrivals = []
            for key in session.keys:
                replaced = "" if key.replaced is None else key.replaced
                arguments = "report", token(event.transaction_id), event.known_at, replaced
                arrivals.append(self.script.command(self.names.entity(key.name), *arguments))
            talk.call(arrivals)
            moments = [part for key in session.keys if key.due != NEVER for part in (key.due, key.name)]
            # Scheduled once they are there: a sweep in between meets the one or leaves the other.
            after = [plain("ZADD", self.names.due, *moments)] if moments else []
            after.append(self.script.command([name], "mark_reported", event.known_at))
            return bool(talk.call(after)[-1])

    def seen(self, transaction_id: str) -> bool:
        """Whether the transaction has been observed or loaded."""
        with self.link.talk() as talk:
            return bool(talk.call([plain("EXISTS", self.names.seen(token(transaction_id)))])[0])

    def meta(self, name: str) -> str | None:
        with self.link.talk() as talk:
            data = talk.call([plain("HGET", self.names.meta, name)])[0]
        return None if data is None else str(data, "utf-8")

    def set_meta(self, name: str, value: str) -> None:
        with self.link.talk() as talk:
            talk.call([plain("HSET", self.names.meta, name, value)])

    def sweep(self, moment: int, limit: int = SWEEP_KEYS) -> int:
        """Forgets what no event at `moment` (ms) or later can need, `limit` of each kind at the most: logs of
        idle keys, vectors, transactions. How many it looked at."""
        with self.link.talk() as talk:
            swept = self._sweep_keys(talk, moment, limit)
            ages = ("vectors", self.engine.retention_ms), ("known", self.engine.remembered_ms)
            for kind, age in ages:
                swept += self._sweep_hours(talk, kind, moment - age, limit)
        return swept

    def flush(self) -> None:
        """Waits until a sweep that is under way is done. What was sent is with the server already."""
        if self._sweep is not None:
            self._sweep.result()

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.shutdown()
        self.link.close()

    def __enter__(self) -> RedisStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load(self, commands: Iterable[Command]) -> int:
        """Sends many commands, for a bulk load into a store that nobody uses yet; how many there were."""
        loaded = 0
        batch: list[Command] = []
        with self.link.talk() as talk:
            for command in commands:
                batch.append(command)
                if len(batch) == BATCH_COMMANDS:
                    talk.call(batch)
                    loaded += len(batch)
                    batch.clear()
            talk.call(batch)
        return loaded + len(batch)

    # A decision

    def _observed_batch(self, batch: Sequence[Transaction]) -> Iterator[Observation]:
        if not batch:
            return
        with self.link.talk() as talk:
            observations = self._observe(talk, batch, {})
        for observation in observations:
            yield _raised(observation)

    def _observe(
        self, talk: Talk, batch: Sequence[Transaction], latest: dict[bytes, RedisKeySession]
    ) -> list[Observation | TooLateError]:
        """Answers in order. Of a key that several events visit, the last visit tells what came out."""
        visits = [self._visits(transaction) for transaction in batch]
        arrive = self._arrive_on_cluster if self.link.is_cluster else self._arrive
        arrivals = arrive(talk, batch, visits)
        answered: dict[str, Observation] = {}
        outcome: list[Command] = []
        observations: list[Observation | TooLateError] = []
        for transaction, visited, (kind, *found) in zip(batch, visits, arrivals, strict=True):
            transaction_id = transaction.transaction_id
            if kind == b"late":
                observations.append(self._refused(transaction, visited, found))
                continue
            if kind == b"seen" and transaction_id in answered:
                observations.append(answered[transaction_id]._replace(is_repeat=True))
                continue
            if kind == b"seen":
                observations.append(self._repeated(talk, transaction, found[0], latest))
                continue
            observation, keys = self._answer(transaction, visited, found, has_arrived=True)
            outcome += self._kept(transaction.event_time, transaction_id, observation)
            latest.update(keys)
            answered[transaction_id] = observation
            observations.append(observation)
        talk.post(outcome + self._outcome(latest.values()))
        return observations

    def _visits(self, transaction: Transaction) -> list[Visit]:
        visits = []
        name = token(transaction.transaction_id)
        for plan in self.engine.plans:
            key = plan.key(transaction)
            if key is not None:
                entry = self.engine.entry(token, plan, transaction)
                visits.append((plan, key_bytes(plan, key), name + self.codecs[plan.number].pack(entry)))
        return visits

    def _arrive(self, talk: Talk, batch: Sequence[Transaction], visits: Sequence[list[Visit]]) -> list[Any]:
        """One atomic step for each event: claims its id and takes it down, or tells what is known of it."""
        return talk.call(
            [
                self._arrival("event", each, visited, self.names.seen(token(each.transaction_id)))
                for each, visited in zip(batch, visits, strict=True)
            ]
        )

    def _arrive_on_cluster(
        self, talk: Talk, batch: Sequence[Transaction], visits: Sequence[list[Visit]]
    ) -> list[Any]:
        """First the ids, and whether an event comes too late for a key; then the events that may go on."""
        answers = self._claimed(talk, batch, visits)
        going = [place for place, answer in enumerate(answers) if answer is None]
        commands = [
            self._arrival("event", batch[place], [visit]) for place in going for visit in visits[place]
        ]
        replies = iter(talk.call(commands))
        for place in going:
            found = [next(replies) for _ in visits[place]]
            late = [(number, *reply[2:]) for number, reply in enumerate(found) if reply[0] == b"late"]
            if any(reply[0] == b"there" for reply in found):
                name = self.names.seen(token(batch[place].transaction_id))
                answers[place] = [b"seen", talk.call([plain("GET", name)])[0]]
            else:
                answers[place] = [b"late", *late[0]] if late else [b"new", *(reply[1] for reply in found)]
        return answers

    def _claimed(self, talk: Talk, batch: Sequence[Transaction], visits: Sequence[list[Visit]]) -> list[Any]:
        """Of each event None where it is new and may go on."""
        commands = []
        for transaction, visited in zip(batch, visits, strict=True):
            name = self.names.seen(token(transaction.transaction_id))
            commands.append(self.script.command([name], "claim", claimed(_record(transaction))))
            commands += [self._arrival("peek", transaction, [visit]) for visit in visited]
        replies = iter(talk.call(commands))
        answers: list[Any] = []
        refused = []
        for transaction, visited in zip(batch, visits, strict=True):
            seen, peeks = next(replies), [next(replies) for _ in visited]
            late = [(number, *reply[2:]) for number, reply in enumerate(peeks) if reply[0] == b"late"]
            if seen is not None:
                answers.append([b"seen", seen])
            elif late:
                answers.append([b"late", *late[0]])
                name = self.names.seen(token(transaction.transaction_id))
                refused.append(self.script.command([name], "unclaim"))
            else:
                answers.append(None)
        talk.call(refused)
        return answers

    def _arrival(
        self, mode: str, transaction: Transaction, visits: Iterable[Visit], seen: bytes | None = None
    ) -> Command:
        keys: list[bytes] = [] if seen is None else [seen]
        record = b"" if seen is None else claimed(_record(transaction))
        arguments: list[bytes | str | int] = [mode, transaction.event_time, record]
        for plan, name, entry in visits:
            keys += self.names.entity(name)
            arguments += (plan.number, entry)
        return self.script.command(keys, *arguments)

    def _answer(
        self,
        transaction: Transaction,
        visits: Sequence[Visit],
        replies: Sequence[Any],
        *,
        has_arrived: bool,
        session_seen: Any = None,
    ) -> tuple[Observation, dict[bytes, RedisKeySession]]:
        keys = {
            name: RedisKeySession(plan, self.codecs[plan.number], name, reply, has_arrived)
            for (plan, name, _), reply in zip(visits, replies, strict=True)
        }
        return self.engine.observe(RedisSession(keys.values(), session_seen), transaction), keys

    def _repeated(
        self, talk: Talk, transaction: Transaction, data: bytes, latest: dict[bytes, RedisKeySession]
    ) -> Observation | TooLateError:
        """What was answered before; without it the answer as of its time, from the log. Where whoever claimed
        the id died before it reached every key, it is taken down there now."""
        found = self._awaited(talk, transaction.transaction_id, known(data))
        repeated = found.repeated()
        if repeated is not None:
            return repeated
        transaction = msgspec.structs.replace(transaction, event_time=found.record.event_time)
        if found.is_claimed:
            card, merchant, customer, device, ip = found.record.keys
            transaction = msgspec.structs.replace(
                transaction,
                card_id=card,
                merchant_id=merchant,
                customer_id=customer,
                device_id=device,
                ip_id=ip,
            )
        visits = self._visits(transaction)
        mode = "repair" if found.is_claimed else "repeat"
        replies = talk.call([self._arrival(mode, transaction, [visit]) for visit in visits])
        for number, reply in enumerate(replies):
            if reply[0] == b"late":
                return self._refused(transaction, visits, [number, *reply[2:]])
        observation, keys = self._answer(
            transaction,
            visits,
            [reply[1] for reply in replies],
            has_arrived=False,
            session_seen=found.seen(transaction.transaction_id),
        )
        latest.update(keys)
        if not found.is_claimed:
            return observation
        kept = self._kept(transaction.event_time, transaction.transaction_id, observation, "told")
        return known(talk.call(kept)[0]).repeated() or observation

    def _awaited(self, talk: Talk, transaction_id: str, found: Known) -> Known:
        """What is known of a transaction, once whoever claimed it has told its answer or had the time to."""
        name = self.names.seen(token(transaction_id))
        waited_s = 0.0
        while found.is_claimed and waited_s < self.link.limits.claim_s:
            sleep(CLAIM_STEP_S)
            waited_s += CLAIM_STEP_S
            data = talk.call([plain("GET", name)])[0]
            if data is not None:
                found = known(data)
        return found

    def _refused(
        self, transaction: Transaction, visits: Sequence[Visit], found: Sequence[Any]
    ) -> TooLateError:
        number, reply = found
        plan, name, _ = visits[int(number)]
        key = RedisKeySession(plan, self.codecs[plan.number], name, reply, has_arrived=False)
        return too_late(plan, key.state() or plan.empty(), transaction)

    def _kept(self, event_time: int, transaction_id: str, found: Observation, *told: str) -> list[Command]:
        name = token(transaction_id)
        answered = ANSWERED[found.is_late], pack_vector(found.vector)
        return [
            self.script.command([self.names.seen(name)], "keep_vector", *answered, *told),
            *self.dated("vectors", event_time // HOUR_MS, [name]),
        ]

    def dated(self, kind: str, hour: int, names: Sequence[bytes]) -> list[Command]:
        return [
            plain("RPUSH", self.names.hour(kind, hour), *names),
            plain("ZADD", self.names.calendar(kind), hour, hour),
        ]

    def _outcome(self, keys: Iterable[RedisKeySession]) -> list[Command]:
        """What came out, to be written where nobody else was faster."""
        saved = [key for key in keys if key.saved is not None]
        moments = [part for key in saved if key.due is not None for part in (key.due, key.name)]
        commands = [plain("ZADD", self.names.due, *moments)] if moments else []
        together = [saved] if not self.link.is_cluster and saved else [[key] for key in saved]
        for group in together:
            names: list[bytes] = []
            arguments: list[bytes | int] = []
            for key in group:
                names += self.names.entity(key.name)
                arguments += key.outcome()
            commands.append(self.script.command(names, "settle", *arguments))
        return commands

    # What is forgotten

    def _sweep_beside(self, moment: int) -> None:
        """In a thread of its own: no decision waits for it. What one sweep leaves, the next one takes."""
        if self._sweep is not None and not self._sweep.done():
            return
        failure = None if self._sweep is None else self._sweep.exception()
        if failure is not None and not isinstance(failure, StoreError):
            raise failure
        if self._sweeper is None:
            self._sweeper = ThreadPoolExecutor(1, "online-store-sweep")
        self._sweep = self._sweeper.submit(self.sweep, moment)

    def _sweep_keys(self, talk: Talk, moment: int, limit: int) -> int:
        again = f"{moment + LATENESS_MS}.5"  # which nobody schedules
        names = talk.call([self.script.command([self.names.due], "due", moment, limit, again)])[0]
        settled = moment - LATENESS_MS
        done: list[bytes] = []
        visits = [self.script.command(self.names.entity(name), "visit", name[0], settled) for name in names]
        for name, reply in zip(names, _a_few_at_once(talk, visits), strict=True):
            plan = self.engine.plan(name[0])
            key = RedisKeySession(plan, self.codecs[plan.number], name, reply, has_arrived=False)
            self.engine.settle(plan, key, moment)
            # Saved is None where there is nothing to forget: it is busy, or not there any more.
            is_settled = key.saved is None or talk.call(self._outcome([key]))[-1]
            if not is_settled:
                talk.call([plain("ZADD", self.names.due, again, name)])
            elif key.due is None:
                done.append(name)
            elif key.saved is None:
                talk.call([plain("ZADD", self.names.due, key.due, name)])
        if done:
            talk.call([self.script.command([self.names.due], "undue", again, *done)])
        return len(names)

    def _sweep_hours(self, talk: Talk, kind: str, before: int, limit: int) -> int:
        swept = 0
        calendar = self.names.calendar(kind)
        while swept < limit:
            hours = talk.call(
                [plain("ZRANGEBYSCORE", calendar, "-inf", before // HOUR_MS - 1, "LIMIT", 0, 1)]
            )[0]
            if not hours:
                break
            hour = int(hours[0])
            names = talk.call([plain("LPOP", self.names.hour(kind, hour), limit - swept)])[0]
            if not names:
                talk.call([plain("ZREM", calendar, hour)])
                continue
            seen = [self.names.seen(name) for name in names]
            if kind == "vectors":
                talk.call(self.dated("known", hour, names))
                forgotten = [self.script.command(each, "strip_vectors") for each in self._grouped(seen)]
            else:
                forgotten = [plain("DEL", *each) for each in self._grouped(seen)]
            deque(_a_few_at_once(talk, forgotten), maxlen=0)
            swept += len(names)
        return swept

    def _grouped(self, names: Sequence[bytes]) -> list[list[bytes]]:
        """Redis keys that one command may name: a few of one server, each alone on a cluster."""
        size = 1 if self.link.is_cluster else SWEEP_AT_ONCE
        return [list(names[start : start + size]) for start in range(0, len(names), size)]

    def _claim(self) -> None:
        wanted = {"format": FORMAT, "contract": self.contract.hash}
        with self.link.talk() as talk:
            for name, value in wanted.items():
                talk.call([plain("HSETNX", self.names.meta, name, value)])
                found = str(talk.call([plain("HGET", self.names.meta, name)])[0], "utf-8")
                if found != value:
                    raise StoreError(
                        f"online store {self.link.name}: its {name} is {found[:12]}, wanted is {value[:12]}; "
                        "rebuild it from the warehouse (asset features/online_store), or choose a namespace"
                    )


def _a_few_at_once(talk: Talk, commands: Sequence[Command]) -> Iterator[Any]:
    """The replies in order; other clients have their turn in between."""
    for start in range(0, len(commands), SWEEP_AT_ONCE):
        yield from talk.call(commands[start : start + SWEEP_AT_ONCE])


def namespace_of(contract: FeatureContract) -> str:
    """Where a service's store lies: those of other contracts stand beside it on the same server."""
    return f"fraud:{contract.hash[:12]}"


def open_live(url: str, contract: FeatureContract) -> RedisStore:
    """The contract's store for a service. Raises StoreError where it was never filled."""
    store = RedisStore.open(url, contract, namespace=namespace_of(contract))
    if store.meta(READY) is None:
        store.close()
        raise StoreError(
            f"online store {store.link.name}: nothing was loaded for contract {contract.hash[:12]}; "
            "fraud-platform go-live --store URL fills it"
        )
    return store


def _record(transaction: Transaction) -> SeenRecord:
    return SeenRecord(seen_keys(transaction), transaction.event_time)


def _raised(observation: Observation | TooLateError) -> Observation:
    if isinstance(observation, TooLateError):
        raise observation
    return observation
