"""Rules, evaluated: the same program for one decision and for a million rows.

Belongs here: what a rule is, which ones fire, what those that fire say together, and what becomes of the
policy's action beside them.
Does not belong here: reading files (`reading`), the language (`language`), what an action costs (`policy`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Literal

import numpy as np

from fraud_platform.rules.inputs import Data, Inputs, Value
from fraud_platform.rules.language import Expression, Programs
from fraud_platform.rules.lists import TokenList
from fraud_platform.schema import ACTIONS, MILLISECONDS_PER_DAY, Action, Transaction

Mode = Literal["live", "shadow", "off"]


@dataclass(frozen=True)
class Rule:
    """`begins` and `ends`: the first and the last UTC day on which it counts, None without a limit."""

    name: str
    mode: Mode
    priority: int
    action: Action
    code: str
    owner: str
    when: Expression
    begins: date | None = None
    ends: date | None = None

    def counts_at(self, event_time: int | None) -> bool:
        """Whether a transaction of that moment (ms UTC) is on one of its days; never where none is known."""
        if self.begins is None and self.ends is None:
            return True
        if event_time is None:
            return False
        first = -1 if self.begins is None else _day_ms(self.begins)
        return event_time >= first and (
            self.ends is None or event_time < _day_ms(self.ends) + MILLISECONDS_PER_DAY
        )


@dataclass(frozen=True)
class RuleHit:
    """A rule that fired. Only hits of mode `live` may change an action."""

    name: str
    mode: Mode
    priority: int
    action: Action
    code: str

    @property
    def is_live(self) -> bool:
        return self.mode == "live"


@dataclass(frozen=True)
class Verdict:
    """What the live rules that fired say together.

    action: None where none fired; is_final: an approving rule fired, so that the policy is not asked; heard:
    the hits against the transaction that count, strongest action first.
    """

    action: Action | None
    is_final: bool
    heard: tuple[RuleHit, ...]

    def joined(self, base: Action) -> tuple[Action, bool]:
        """The answer where the policy says `base`, and whether it is the rules': the stronger of the two.

        After an approving rule the policy is not heard. This is the one place that says so: the service
        answers by it, and `RuleSet.answers` has it for columns.
        """
        if self.action is None:
            return base, False
        if self.is_final or ACTIONS.index(self.action) > ACTIONS.index(base):
            return self.action, True
        return base, False


def verdict(hits: Sequence[RuleHit]) -> Verdict:
    """An approving rule ends the matter at its priority: adverse rules of larger numbers and the policy are
    not heard. Of the adverse ones that are, the strongest action counts. At equal numbers they are heard.
    """
    live = [hit for hit in hits if hit.is_live]
    last = min((hit.priority for hit in live if hit.action == "approve"), default=None)
    heard = tuple(hit for hit in live if hit.action != "approve" and (last is None or hit.priority <= last))
    if heard:
        return Verdict(heard[0].action, last is not None, heard)
    return Verdict(None if last is None else "approve", last is not None, ())


class RuleSet:
    """The rules that are live or in shadow, strongest action first, then by priority. Safe in threads.

    declared: all rules of the file, those that are off as well.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        lists: Mapping[str, TokenList] | None = None,
        is_trial: bool = False,
    ) -> None:
        """is_trial: rules that are off are evaluated too, and on all days."""
        self.declared = tuple(rules)
        self.lists = dict(lists or {})
        self._is_trial = is_trial
        active = (rule for rule in rules if is_trial or rule.mode != "off")
        order = sorted(active, key=lambda r: (-ACTIONS.index(r.action), r.priority, r.name))
        self.rules: tuple[Rule, ...] = tuple(order)
        self._hits = tuple(_hit(rule) for rule in self.rules)
        self._programs = Programs([rule.when for rule in self.rules])
        self._inputs = Inputs([rule.when for rule in self.rules], self.lists)

    def trial(self) -> RuleSet:
        """The same rules, those that are off as well, on all days: to ask what they would have done."""
        return RuleSet(self.declared, self.lists, is_trial=True)

    def in_force(self, moment: int) -> RuleSet:
        """Those that count at a moment (ms UTC), on all days: what would decide if all were decided then."""
        counting = [rule for rule in self.declared if rule.counts_at(moment)]
        return RuleSet([replace(rule, begins=None, ends=None) for rule in counting], self.lists)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features of the contract that the rules read, sorted."""
        return self._inputs.features

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns that `fired` reads: features, and the request's fields as "request.FIELD"; sorted."""
        return tuple(sorted(self._inputs.columns))

    def evaluate(
        self, values: Mapping[str, Value], transaction: Transaction | None = None
    ) -> tuple[RuleHit, ...]:
        """Every live or shadow rule that fires, strongest action first. A feature not given is unknown.

        Days are those of the transaction's event_time: it is in the record and in history, so that a replay
        and a backtest see the same day.
        """
        moment = None if transaction is None else transaction.event_time
        return tuple(self._hits[i] for i in self._fired(self._inputs.of_one(values, transaction), moment))

    def fired(self, columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """Which rules fire on n rows: bool (n, len(rules)), by the programs that evaluate one.

        columns: (n,) each, features by name, the request's fields as "request.FIELD"; what has no column
        is unknown.
        """
        found = np.zeros((n, len(self.rules)), dtype=bool)
        for row, (moment, data) in enumerate(self._inputs.of_columns(columns, n)):
            fired = self._fired(data, moment)
            if fired:
                found[row, fired] = True
        return found

    def hits(self, columns: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
        """For each live or shadow rule, by name, where it fires: bool (n,). See `fired`."""
        fired = self.fired(columns, n)
        return {rule.name: fired[:, place] for place, rule in enumerate(self.rules)}

    def actions(self, columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """Index into ACTIONS of the live rules' verdict: int8 (n,), -1 where none fires. See `fired`."""
        said, place = self._verdicts(self.fired(columns, n))
        levels = [-1 if one.action is None else ACTIONS.index(one.action) for one in said]
        return np.array(levels, dtype=np.int8)[place]

    def answers(self, fired: np.ndarray) -> np.ndarray:
        """What is answered where the policy says ACTIONS[a], by row a: index into ACTIONS, int8 (3, n).

        fired: as of `fired`, bool (n, len(rules)). `np.choose(actions, answers)` joins the policy's actions,
        (n,), with the rules; row 0 is what the rules answer alone, where all else is approved.
        """
        said, place = self._verdicts(fired)
        joined = [[ACTIONS.index(one.joined(base)[0]) for one in said] for base in ACTIONS]
        return np.array(joined, dtype=np.int8)[:, place]

    def _verdicts(self, fired: np.ndarray) -> tuple[list[Verdict], np.ndarray]:
        """One for each pattern of what fires, and the place of each row's: int (n,)."""
        patterns, which = np.unique(fired, axis=0, return_inverse=True)
        said = [verdict([self._hits[i] for i in np.flatnonzero(pattern)]) for pattern in patterns]
        return said, which.reshape(len(fired))

    def _fired(self, data: Data, moment: int | None) -> list[int]:
        found = self._programs.true(data)
        return found if self._is_trial else [i for i in found if self.rules[i].counts_at(moment)]


def _hit(rule: Rule) -> RuleHit:
    return RuleHit(rule.name, rule.mode, rule.priority, rule.action, rule.code)


def _day_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
