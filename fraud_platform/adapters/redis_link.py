"""Connections to Redis: a bounded pool, one send for many commands, replies that nobody waits for.

Belongs here: addresses, time-outs, the nodes of a cluster and which of them holds a key. Does not belong
here: what is stored (redis_session.py, redis_script.lua), what an event means (features/engine.py).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from types import TracebackType
from typing import Any

from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, parse_url
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError, TimeoutError
from redis.retry import Retry

from fraud_platform.errors import StoreError

CLUSTER = "redis+cluster://"
HOPS_MAX = 5
"""So often a command follows a key that has moved to another node."""

Address = tuple[str, int]
ANY: Address = ("", 0)
"""The one server where there is no cluster."""


@dataclass(frozen=True)
class Limits:
    """connect_s, command_s: time-outs (seconds); connections: at the most, for each node; wait_s: how long a
    call waits for one of them to become free; claim_s: how long a repeat waits for the answer of whoever is
    at work on the same event, before it takes that one for dead."""

    connect_s: float = 0.25
    command_s: float = 0.05
    connections: int = 16
    wait_s: float = 0.25
    claim_s: float = 0.1


PATIENT = Limits(connect_s=5.0, command_s=30.0, wait_s=30.0)
"""For a load or a replay: it sends much at once, and no payment waits for it."""


class Script:
    """A Lua script: sent by its digest, in full to a server that does not know it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[bytes], *arguments: bytes | str | int) -> Command:
        return Command(keys[0], ("EVALSHA", self.digest, len(keys), *keys, *arguments), self.text)


@dataclass(frozen=True)
class Command:
    """key: decides the node; script: the text behind an EVALSHA."""

    key: bytes
    arguments: tuple[Any, ...]
    script: str | None = None

    def in_full(self) -> tuple[Any, ...]:
        return ("EVAL", self.script, *self.arguments[2:])


def plain(name: str, key: bytes, *arguments: bytes | str | int) -> Command:
    return Command(key, (name, key, *arguments))


class Line:
    """One connection and the commands whose replies are still to come."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.owed: deque[Command] = deque()

    def send(self, commands: Iterable[Sequence[Any]]) -> None:
        self.connection.send_packed_command(
            [b"".join([pack_command(tuple(each)) for each in commands])], check_health=False
        )

    def read(self) -> Any:
        """A reply; an error that the server answers with is returned, not raised."""
        try:
            return self.connection.read_response()
        except ResponseError as error:
            return error


class Pool:
    """The connections to one node, `connections` at the most."""

    def __init__(self, connect: Callable[[], AbstractConnection], limits: Limits, name: str) -> None:
        self.name = name
        self._connect = connect
        self._limits = limits
        self._idle: list[Line] = []
        self._free = threading.BoundedSemaphore(limits.connections)
        self._lock = threading.Lock()

    def take(self) -> Line:
        if not self._free.acquire(timeout=self._limits.wait_s):
            raise StoreError(
                f"online store {self.name}: all {self._limits.connections} connections are busy and none "
                f"became free within {self._limits.wait_s * 1000:.0f} ms; allow more, or send less at once"
            )
        with self._lock:
            if self._idle:
                return self._idle.pop()
        line = Line(self._connect())
        try:
            line.connection.connect()
        except BaseException:
            self._free.release()
            raise
        return line

    def give(self, line: Line) -> None:
        with self._lock:
            self._idle.append(line)
        self._free.release()

    def drop(self, line: Line) -> None:
        """A connection that failed; those that wait beside it have most likely failed too."""
        line.connection.disconnect()
        self.clear()
        self._free.release()

    def clear(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.connection.disconnect()


class Link:
    """The server or the cluster behind a URL: redis://, rediss://, unix:// or redis+cluster://.

    Raises StoreError where it cannot be reached.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        self.is_cluster = url.startswith(CLUSTER)
        self.limits = limits
        try:
            options = parse_url(url.replace(CLUSTER, "redis://", 1))
        except ValueError as error:
            raise StoreError(
                f"online store {url!r}: {error}; or redis+cluster://host:port for a cluster"
            ) from error
        self._class: Callable[..., AbstractConnection] = options.pop("connection_class", Connection)
        self._options: Mapping[str, Any] = options
        self._seed = options.get("host", "localhost"), options.get("port", 6379)
        self._lock = threading.Lock()
        self._pools: dict[Address, Pool] = {}
        self._slots: list[tuple[int, int, Address]] = []
        self._process = os.getpid()
        self.name = options.get("path") or f"{self._seed[0]}:{self._seed[1]}"

    def talk(self) -> Talk:
        if self._process != os.getpid():
            self._pools, self._process = {}, os.getpid()
        return Talk(self)

    def pool(self, address: Address) -> Pool:
        with self._lock:
            if address not in self._pools:
                name = self.name if address == ANY else f"{address[0]}:{address[1]}"
                self._pools[address] = Pool(lambda: self._connection(address), self.limits, name)
            return self._pools[address]

    def address(self, key: bytes) -> Address:
        if not self.is_cluster:
            return ANY
        if not self._slots:
            self.look_around()
        slot = key_slot(key)
        for first, last, address in self._slots:
            if first <= slot <= last:
                return address
        raise StoreError(
            f"online store {self.name}: no node of the cluster serves slot {slot}; repair the cluster"
        )

    def masters(self) -> list[Address]:
        if not self.is_cluster:
            return [ANY]
        self.look_around()
        return sorted({address for _, _, address in self._slots})

    def forget_nodes(self) -> None:
        """Has the nodes looked up again before the next command."""
        self._slots = []

    def look_around(self) -> None:
        """Asks the cluster which master serves which slots: the address of the URL, then every known node."""
        failure: RedisError | None = None
        for address in dict.fromkeys([self._seed, *self._pools]):
            connection = self._connection(address)
            try:
                connection.connect()
                connection.send_command("CLUSTER", "SLOTS", check_health=False)
                answer = connection.read_response()
            except RedisError as error:
                failure = error
                continue
            finally:
                connection.disconnect()
            self._slots = [
                (first, last, (_text(master[0]) or address[0], master[1]))
                for first, last, master, *_ in answer
            ]
            for _, _, known in self._slots:
                self.pool(known)
            return
        raise StoreError(f"online store {self.name}: no node of the cluster answers ({failure})") from failure

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def _connection(self, address: Address) -> AbstractConnection:
        options = dict(self._options)
        if address != ANY:
            options |= {"host": address[0], "port": address[1]}
        return self._class(
            **{
                "socket_timeout": self.limits.command_s,
                "socket_connect_timeout": self.limits.connect_s,
                "retry": Retry(NoBackoff(), 0),
                "driver_info": None,
            }
            | options
        )


class Talk:
    """What one caller says in a row: it keeps a connection to each node that it needs until it is closed.

    A failure closes the connection at once: nobody can tell its replies apart any more. StoreError says so.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lines: dict[Address, Line] = {}
        self._is_halfway = False

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Sends everything, then reads: one round trip, to all nodes at the same time."""
        replies: list[Any] = [None] * len(commands)
        nodes = self._by_node(commands)
        self._is_halfway = True
        for address, places in nodes.items():
            self._send(address, [commands[place].arguments for place in places])
        refused = []
        for address, places in nodes.items():
            refused += self._debts(address)
            for place in places:
                replies[place] = self._read(address)
        self._is_halfway = False
        for command, reply in refused:
            self._again(command, reply)
        for place, reply in enumerate(replies):
            if isinstance(reply, ResponseError):
                replies[place] = self._again(commands[place], reply)
        return replies

    def post(self, commands: Sequence[Command]) -> None:
        """Sends, and leaves the replies to whoever uses the connection next."""
        nodes = self._by_node(commands)
        self._is_halfway = True
        for address, places in nodes.items():
            self._send(address, [commands[place].arguments for place in places])
            self._lines[address].owed.extend(commands[place] for place in places)
        self._is_halfway = False

    def settle(self) -> None:
        """Waits for the replies to everything that was posted."""
        refused = [each for address in list(self._lines) for each in self._debts(address)]
        for command, reply in refused:
            self._again(command, reply)

    def close(self) -> None:
        for address, line in self._lines.items():
            self._link.pool(address).give(line)
        self._lines.clear()

    def __enter__(self) -> Talk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_halfway:
            self._drop_all()
        self.close()

    def _by_node(self, commands: Sequence[Command]) -> dict[Address, list[int]]:
        if not self._link.is_cluster:
            return {ANY: list(range(len(commands)))} if commands else {}
        nodes: dict[Address, list[int]] = {}
        for place, command in enumerate(commands):
            nodes.setdefault(self._link.address(command.key), []).append(place)
        return nodes

    def _send(self, address: Address, commands: list[Sequence[Any]]) -> None:
        try:
            self._line(address).send(commands)
        except RedisError as error:
            raise self._failed(address, error) from error

    def _read(self, address: Address) -> Any:
        try:
            return self._lines[address].read()
        except RedisError as error:
            raise self._failed(address, error) from error

    def _line(self, address: Address) -> Line:
        if address not in self._lines:
            self._lines[address] = self._link.pool(address).take()
        return self._lines[address]

    def _debts(self, address: Address) -> list[tuple[Command, ResponseError]]:
        """Reads the replies to what was posted before; what a node did not take has to be sent again."""
        owed = self._lines[address].owed
        refused = []
        while owed:
            reply = self._read(address)
            command = owed.popleft()
            if isinstance(reply, ResponseError):
                refused.append((command, reply))
        return refused

    def _again(self, command: Command, reply: Any) -> Any:
        """The reply to a command that was sent to a node that lacks its script, or its key."""
        arguments, is_asking, address = command.arguments, False, self._link.address(command.key)
        for _ in range(HOPS_MAX):
            if not isinstance(reply, ResponseError):
                return reply
            kind, *where = _error_words(reply)
            if kind == "NOSCRIPT" and command.script is not None:
                arguments = command.in_full()
            elif kind in ("MOVED", "ASK"):
                is_asking = kind == "ASK"
                host, _, port = where[1].rpartition(":")
                address = host or address[0], int(port)
                if not is_asking:
                    self._link.forget_nodes()
            else:
                break
            reply = self._once(address, arguments, is_asking)
        self._link.forget_nodes()
        raise StoreError(
            f"online store {self._link.pool(address).name}: it refuses {command.arguments[0]}: {reply}; see "
            "the server's log, its memory and its access rules"
        )

    def _once(self, address: Address, arguments: Sequence[Any], is_asking: bool) -> Any:
        commands = [("ASKING",), arguments] if is_asking else [arguments]
        self._is_halfway = True
        self._send(address, commands)
        refused = self._debts(address)
        reply = [self._read(address) for _ in commands][-1]
        self._is_halfway = False
        for command, error in refused:
            self._again(command, error)
        return reply

    def _failed(self, address: Address, error: RedisError) -> StoreError:
        pool = self._link.pool(address)
        self._drop_all()
        pool.clear()
        self._link.forget_nodes()
        return self._error(pool, error)

    def _drop_all(self) -> None:
        """Every connection whose replies were not read to the end."""
        for address, line in self._lines.items():
            self._link.pool(address).drop(line)
        self._lines.clear()

    def _error(self, pool: Pool, error: RedisError) -> StoreError:
        limits = self._link.limits
        if isinstance(error, TimeoutError):
            return StoreError(
                f"online store {pool.name}: no answer within {limits.command_s * 1000:.0f} ms (connecting: "
                f"{limits.connect_s * 1000:.0f} ms); is the server overloaded or far away? Send the event "
                "again: it counts once"
            )
        if isinstance(error, AuthenticationError):
            return StoreError(f"online store {pool.name}: {error}; put user and password into its URL")
        if isinstance(error, ConnectionError):
            return StoreError(
                f"online store {pool.name}: {error}; start the server, or correct its address. Send "
                "the event again: it counts once"
            )
        return StoreError(f"online store {pool.name}: {error}")


def _error_words(error: ResponseError) -> list[str]:
    """The words of an error, its code first: redis-py takes the code away where it knows it."""
    kind = type(error).__name__
    words = str(error).split()
    known = {"MovedError": "MOVED", "AskError": "ASK", "NoScriptError": "NOSCRIPT"}
    if kind in known and words[:1] != [known[kind]]:
        return [known[kind], *words]
    return words


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
