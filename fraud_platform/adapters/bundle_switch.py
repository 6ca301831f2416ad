"""Another bundle for a running service: named in its state folder, loaded beside the old one, checked, taken.

<state>/bundle.json says which bundle is wanted. Every worker of the state looks at it, also when it starts; a
bundle that does not hold is refused, and the old one stays.
Belongs here: the wish, and judging a bundle before it decides. Does not belong here: the moment of the switch
(`service`), what a bundle is (`package`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fraud_platform.adapters.bundle_files import load_bundle
from fraud_platform.errors import BundleError
from fraud_platform.package import Bundle, check_contract
from fraud_platform.serve import Judge
from fraud_platform.serve.golden import check_golden

WISH = "bundle.json"
SERVING = "serving"


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """bundle: the folder of the bundle that is wanted; id: its id; instead_of: the id of the bundle that the
    service was started with: one that is started with another (a newer Bento) has no use for the wish."""

    bundle: str
    id: str
    instead_of: str


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker of the state decides with: in <state>/serving/<worker>.json while it runs.

    started_with, bundle: ids; contract: its hash; refused: the id of the bundle that did not hold, and why.
    """

    pid: int
    started_with: str
    bundle: str
    contract: str
    refused: str = ""
    why: str = ""


@dataclass
class WishReader:
    """Reads the wish of a state folder when it has changed."""

    state: Path
    _seen: tuple[int, int] | None = None

    def changed(self) -> Wish | None:
        """A wish that was not read before. BundleError where it cannot be read."""
        path = self.state / WISH
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version == self._seen:
                return None
            self._seen = version
            return msgspec.json.decode(path.read_bytes(), type=Wish)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise BundleError(f"{path}: {error}; name the bundle again (fraud-platform switch)") from error


def make_wish(state: Path, bundle: Path, instead_of: str, contract_hash: str) -> Wish:
    """Has a state's service go on with a bundle. BundleError, and no wish, where it does not hold."""
    judge = ready_judge(load_bundle(bundle), contract_hash)
    wish = Wish(str(bundle.resolve()), judge.bundle.id, instead_of)
    judge.close()
    _write(state / WISH, msgspec.json.encode(wish))
    return wish


def ready_judge(bundle: Bundle, contract_hash: str) -> Judge:
    """A bundle that may decide over stores of this contract: of that contract, warm, golden as ever.

    BundleError names what does not hold.
    """
    check_contract(bundle, contract_hash)
    judge = Judge(bundle)
    try:
        check_golden(judge)
    except BundleError:
        judge.close()
        raise
    return judge


def note_serving(state: Path, worker: str, serving: Serving) -> None:
    (state / SERVING).mkdir(exist_ok=True)
    _write(state / SERVING / f"{worker}.json", msgspec.json.encode(serving))


def forget_serving(state: Path, worker: str) -> None:
    (state / SERVING / f"{worker}.json").unlink(missing_ok=True)


def read_serving(state: Path) -> list[Serving]:
    """Of every worker that noted what it serves; one that was killed may be among them."""
    files = sorted((state / SERVING).glob("*.json"))
    return [msgspec.json.decode(file.read_bytes(), type=Serving) for file in files]


def _write(path: Path, content: bytes) -> None:
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_bytes(content)
    building.replace(path)
