"""Erases a person: destroys the keys that seal what the logs hold of them; the chains stay as they are.

Who goes with whom: a customer's erasure takes the customer's key, and the key of each card of theirs that no
other customer was seen with (what was sent without a customer is sealed with the card's key). A card is
erased alone only where no customer was seen with it: under a customer's key lie all of their cards. Belongs
here: finding the keys, and the order of the steps. Does not belong here: keys (`vault`), the warehouse's rows
(`duckdb_monitor`).

It covers the logs and, through `duckdb_monitor.forget`, monitor.decisions and monitor.labels. It does not
cover ingest.* (the source's own data), and not the online store with the copies below <state>/bases: they
hold ids and tokens until the events are too old to count, or `drop_bases` removes the copies. The last event
of a worker that was killed stands in the store as it was sent; the next go-live leaves it behind where a log
holds it, an erased one too, and otherwise it waits for its worker to be recorded first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fraud_platform.adapters.audit_trail import Erasure, record_event
from fraud_platform.adapters.decision_log_files import read_records
from fraud_platform.adapters.go_live import BASES
from fraud_platform.adapters.journal import DECISIONS, LABELS, VAULT
from fraud_platform.adapters.sealed_records import Sealer, Whose, card, customer, whose
from fraud_platform.adapters.vault import Vault
from fraud_platform.errors import DecisionLogError
from fraud_platform.schema import Transaction


@dataclass(frozen=True)
class ErasureReport:
    """keys: that were destroyed; decisions, labels: records that are noise now; shared_cards: cards of the
    customer that others were seen with, whose own keys stay; at: ms UTC."""

    keys: int
    decisions: int
    labels: int
    shared_cards: int
    at: int


def erase_customer(state: Path, customer_id: str, *, by: str, reason: str, at: int) -> ErasureReport:
    """Safe to start again after a kill. DecisionLogError where nothing is known of the customer."""
    with Vault(_vault(state)) as vault:
        sealer = Sealer(vault)
        person = vault.digest("person", customer(customer_id))
        cards = {
            record.card_id: vault.digest("person", card(record.card_id))
            for owner, record in _requests(state, sealer)
            if owner.person == person
        }
        shared = {
            request.card_id
            for owner, request in _requests(state, sealer)
            if request.card_id in cards and owner.person not in (person, cards[request.card_id])
        }
        persons = [person, *(digest for name, digest in cards.items() if name not in shared)]
        return _erase(state, vault, persons, len(shared), by=by, reason=reason, at=at)


def erase_card(state: Path, card_id: str, *, by: str, reason: str, at: int) -> ErasureReport:
    """As `erase_customer`; DecisionLogError too where a customer was seen with the card."""
    with Vault(_vault(state)) as vault:
        person = vault.digest("person", card(card_id))
        customers = {
            owner.person
            for owner, request in _requests(state, Sealer(vault))
            if request.card_id == card_id and owner.person != person
        }
        if customers:
            raise DecisionLogError(
                f"the card was seen with {len(customers)} customers: erase them with --customer; what was "
                "sent without a customer then goes with the last of them"
            )
        return _erase(state, vault, [person], 0, by=by, reason=reason, at=at)


def drop_bases(state: Path) -> int:
    """Removes the copies of stores that replays begin with; how many there were."""
    folders = list((state / BASES).glob("*"))
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)


def _erase(
    state: Path, vault: Vault, persons: list[str], shared: int, *, by: str, reason: str, at: int
) -> ErasureReport:
    keys = [slot for person in persons for slot in vault.slots_of(person)]
    if not keys and not {one.person for one in vault.erased()} & set(persons):
        raise DecisionLogError(f"nothing is known in {state} of whom you name: look at the id")
    decisions, labels = (_count(state / name, keys) for name in (DECISIONS, LABELS))
    event = Erasure(
        key=f"erasure {at} {persons[0]}",
        persons=tuple(persons),
        keys=tuple(keys),
        decisions=decisions,
        labels=labels,
        at=at,
        by=by,
        reason=reason,
    )
    record_event(state, event)
    vault.destroy(keys, at)
    return ErasureReport(len(keys), decisions, labels, shared, at)


def _requests(state: Path, sealer: Sealer) -> Iterator[tuple[Whose, Transaction]]:
    """Whose each decision is, and its request, where it can still be read."""
    for logged in read_records(state / DECISIONS):
        record = sealer.open(logged.payload).record
        if not record.is_erased:
            yield whose(logged.payload), record.request


def _count(folder: Path, keys: list[int]) -> int:
    wanted = set(keys)
    return sum(whose(logged.payload).slot in wanted for logged in read_records(folder))


def _vault(state: Path) -> Path:
    if not (state / VAULT).is_dir():
        raise DecisionLogError(f"no vault in {state}: give the state folder of a service")
    return state / VAULT
