"""The vault: a key of its own for every person, so that erasing the key erases what was sealed with it.

    <state>/vault/keys       a header, then one slot of fixed size a key, wrapped by the master key
    <state>/vault/index/     LMDB: person -> slot; made anew from `keys` where it is lost
    <state>/vault/master.key made here where no key file is given

A person is named by a keyed digest, never by an id. A key is destroyed by writing over its slot: no older
copy of it stays in the file, as it would in a database that copies on write. Belongs here: keys. Does not
belong here: what is sealed (`sealed_records`), who may be erased (`erasure`).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fraud_platform.errors import DecisionLogError, SettingsError

KEY_FILE_VARIABLE = "FRAUD_PLATFORM_VAULT_KEY_FILE"

KEY_BYTES, NONCE_BYTES, PERSON_BYTES = 32, 12, 16
CACHED_KEYS = 20_000
"""Keys in memory; the oldest half is let go when there are more."""
MASTER, KEYS, INDEX = "master.key", "keys", "index"
INDEX_MAP_BYTES = 1 << 34
"""Address space, not disk."""

_MAGIC = b"fpvault1"
_HEADER = struct.Struct("<8sQ60s")  # magic, erasures so far, the digest's key as wrapped by the master
_HEADER_BYTES = 96
_SLOT = struct.Struct("<B16s60sQ")  # state, person, wrapped key, erased_at
_SLOT_BYTES = 96
_SLOTS_AT_ONCE = 4096
_LIVE, _ERASED = 1, 2


class PersonKey(NamedTuple):
    """slot: the key's number; person: 32 hex digits that stand for the person."""

    slot: int
    person: str
    cipher: AESGCM


@dataclass(frozen=True)
class Erased:
    """A key that was destroyed at `at` (ms UTC)."""

    slot: int
    person: str
    at: int


class Vault:
    """Shared by the processes of one machine. Raises DecisionLogError where it is damaged, SettingsError
    where the master key is another one. Not safe for several threads at once, but for `force`."""

    def __init__(self, folder: Path, key_file: Path | None = None, *, is_reader: bool = False) -> None:
        """key_file: 32 bytes, or 64 hex digits; by default the one that FRAUD_PLATFORM_VAULT_KEY_FILE names,
        without that the master key lies beside the keys. is_reader: makes no keys."""
        named = os.environ.get(KEY_FILE_VARIABLE)
        key_file = key_file or (Path(named) if named else None)
        self._folder = folder
        if is_reader and not (folder / KEYS).is_file():
            raise DecisionLogError(f"vault {folder} is missing: restore the one that belongs to the log")
        if not is_reader:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._master = AESGCM(_master_key(folder, key_file, is_reader))
        flags = os.O_RDONLY if is_reader else os.O_RDWR | os.O_CREAT
        self._file = os.open(folder / KEYS, flags | os.O_CLOEXEC, 0o600)
        if not is_reader:
            with self._only_one():
                if os.fstat(self._file).st_size < _HEADER_BYTES:
                    self._begin()
        self._env = None if is_reader else self._open_index()
        self._header = mmap.mmap(self._file, _HEADER_BYTES, prot=mmap.PROT_READ)
        self._digest_key = self._read_digest_key()
        self._erasures = self._count_of_erasures()
        self._by_name: dict[str, PersonKey] = {}
        self._by_slot: dict[int, PersonKey] = {}
        self._is_unforced = False

    def digest(self, kind: str, name: str) -> str:
        """What stands for a name of a kind: the same here always, and nothing to whoever lacks the vault."""
        content = f"{kind}:{name}".encode()
        return blake2b(content, key=self._digest_key, digest_size=PERSON_BYTES).hexdigest()

    def key_for(self, name: str) -> PersonKey:
        """The key of a person, made where there is none; it then survives this process."""
        self._forget_erased()
        found = self._by_name.get(name)
        if found is None:
            person = bytes.fromhex(self.digest("person", name))
            found = self._found_or_made(person)
            self._remember(found, name)
        return found

    def key_at(self, slot: int) -> PersonKey | None:
        """The key of a slot; None where it was destroyed. DecisionLogError where there never was one."""
        self._forget_erased()
        found = self._by_slot.get(slot)
        if found is None:
            state, person, wrapped, _ = self._read(slot)
            if state == _ERASED:
                return None
            found = self._unwrap(slot, person, wrapped)
            self._remember(found)
        return found

    def slots_of(self, person: str) -> list[int]:
        """The living keys of a person."""
        wanted = bytes.fromhex(person)
        return [n for n, (state, found, _, _) in self._slots() if state == _LIVE and found == wanted]

    def destroy(self, slots: list[int], at: int) -> None:
        """Writes over the keys and forces that to the disk; every process lets go of what it remembers."""
        with self._only_one():
            for slot in slots:
                _, person, _, _ = self._read(slot)
                os.pwrite(self._file, _SLOT.pack(_ERASED, person, os.urandom(60), at), _offset(slot))
            os.fdatasync(self._file)
            os.pwrite(self._file, struct.pack("<Q", self._count_of_erasures() + 1), len(_MAGIC))
            os.fdatasync(self._file)
        self._forget_erased()

    def erased(self) -> list[Erased]:
        """Every key that was destroyed."""
        return [Erased(n, p.hex(), at) for n, (state, p, _, at) in self._slots() if state == _ERASED]

    def force(self) -> None:
        """Forces new keys to the disk: a record that is on the disk can be read."""
        if self._is_unforced:
            self._is_unforced = False
            os.fdatasync(self._file)

    def close(self) -> None:
        self._header.close()
        if self._env is not None:
            self._env.close()
        os.close(self._file)

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        header = _HEADER.pack(_MAGIC, 0, _wrap(self._master, os.urandom(KEY_BYTES), _MAGIC))
        os.pwrite(self._file, header.ljust(_HEADER_BYTES, b"\0"), 0)
        os.fdatasync(self._file)

    def _read_digest_key(self) -> bytes:
        magic, _, wrapped = _HEADER.unpack_from(self._header)
        if magic != _MAGIC:
            raise DecisionLogError(f"{self._folder / KEYS} is no vault: restore it")
        try:
            return _unwrap(self._master, wrapped, _MAGIC)
        except InvalidTag as error:
            raise SettingsError(
                f"vault {self._folder}: its master key is another one; give the key file it was made with"
            ) from error

    def _live(self, person: bytes, transaction: lmdb.Transaction) -> PersonKey | None:
        found = transaction.get(person)
        if found is None:
            return None
        slot = int.from_bytes(found, "little")
        state, owner, wrapped, _ = self._read(slot)
        return self._unwrap(slot, owner, wrapped) if (state, owner) == (_LIVE, person) else None

    def _found_or_made(self, person: bytes) -> PersonKey:
        if self._env is None:
            raise DecisionLogError(f"vault {self._folder}: it was opened to read, and makes no keys")
        with self._env.begin() as transaction:
            found = self._live(person, transaction)
        if found is not None:
            return found
        with self._env.begin(write=True) as transaction:
            self._is_unforced = True  # a key that another process has just made is needed as much
            return self._live(person, transaction) or self._make(person, transaction)

    def _make(self, person: bytes, transaction: lmdb.Transaction) -> PersonKey:
        key, slot = os.urandom(KEY_BYTES), self._slot_count()
        packed = _SLOT.pack(_LIVE, person, _wrap(self._master, key, person), 0)
        os.pwrite(self._file, packed.ljust(_SLOT_BYTES, b"\0"), _offset(slot))
        transaction.put(person, slot.to_bytes(8, "little"))
        return PersonKey(slot, person.hex(), AESGCM(key))

    def _unwrap(self, slot: int, person: bytes, wrapped: bytes) -> PersonKey:
        try:
            return PersonKey(slot, person.hex(), AESGCM(_unwrap(self._master, wrapped, person)))
        except InvalidTag as error:
            raise DecisionLogError(
                f"vault {self._folder}: key {slot} is damaged; restore {KEYS} from a copy"
            ) from error

    def _read(self, slot: int) -> tuple[int, bytes, bytes, int]:
        data = os.pread(self._file, _SLOT.size, _offset(slot))
        if len(data) < _SLOT.size or data[0] not in (_LIVE, _ERASED):
            raise DecisionLogError(
                f"vault {self._folder}: there is no key {slot}; restore {KEYS} from a copy"
            )
        return _SLOT.unpack(data)

    def _slots(self) -> Iterator[tuple[int, tuple[int, bytes, bytes, int]]]:
        for first in range(0, self._slot_count(), _SLOTS_AT_ONCE):
            data = os.pread(self._file, _SLOT_BYTES * _SLOTS_AT_ONCE, _offset(first))
            for number in range(len(data) // _SLOT_BYTES):
                if data[number * _SLOT_BYTES] in (_LIVE, _ERASED):  # else torn by a power loss
                    yield first + number, _SLOT.unpack_from(data, number * _SLOT_BYTES)

    def _slot_count(self) -> int:
        return (os.fstat(self._file).st_size - _HEADER_BYTES) // _SLOT_BYTES

    def _count_of_erasures(self) -> int:
        return int(_HEADER.unpack_from(self._header)[1])

    def _forget_erased(self) -> None:
        erasures = self._count_of_erasures()
        if erasures != self._erasures:
            self._erasures = erasures
            self._by_name.clear()
            self._by_slot.clear()

    def _remember(self, key: PersonKey, name: str | None = None) -> None:
        _make_room(self._by_name)
        _make_room(self._by_slot)
        self._by_slot[key.slot] = key
        if name is not None:
            self._by_name[name] = key

    def _open_index(self) -> lmdb.Environment:
        """The index, with the keys that it lost with the power, and without those that were destroyed."""
        path = str(self._folder / INDEX)
        env = lmdb.open(path, map_size=INDEX_MAP_BYTES, sync=False, metasync=False)
        with env.begin(write=True) as transaction:
            living = {p: slot for slot, (state, p, _, _) in self._slots() if state == _LIVE}
            if transaction.stat()["entries"] != len(living):
                transaction.drop(env.open_db(None, txn=transaction), delete=False)
                for person, slot in living.items():
                    transaction.put(person, slot.to_bytes(8, "little"))
        return env

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _make_room(cache: MutableMapping[Any, PersonKey]) -> None:
    if len(cache) >= CACHED_KEYS:
        for old in list(cache)[: CACHED_KEYS // 2]:
            cache.pop(old, None)


def _offset(slot: int) -> int:
    return _HEADER_BYTES + slot * _SLOT_BYTES


def _wrap(master: AESGCM, key: bytes, bound_to: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + master.encrypt(nonce, key, bound_to)


def _unwrap(master: AESGCM, wrapped: bytes, bound_to: bytes) -> bytes:
    return master.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound_to)


def _master_key(folder: Path, key_file: Path | None, is_reader: bool) -> bytes:
    path = key_file or folder / MASTER
    if key_file is None and not path.exists() and not is_reader:
        building = folder / f".{MASTER}.{os.getpid()}"
        file = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(file, os.urandom(KEY_BYTES).hex().encode())
        os.fsync(file)
        os.close(file)
        with suppress(FileExistsError):
            os.link(building, path)
        building.unlink()
    if not path.is_file():
        raise SettingsError(f"vault key file {path} is not there: give a file of 32 bytes or 64 hex digits")
    raw = path.read_bytes()
    try:
        key = raw if len(raw) == KEY_BYTES else bytes.fromhex(raw.decode().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"vault key file {path}: it must hold 32 bytes or 64 hex digits")
    return key
