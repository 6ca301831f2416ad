"""How good the estimates of `selective` are where the truth about declines is known, and what they cost.

Rows are a model's later decisions in a world whose truth is known. Each draw is a world of its own: cards
drawn with replacement, `times` as many as there are, whose declines are explored anew. Over many draws an
estimate has a mean, which is compared with the truth, and an interval, which holds it in a share of them.
Belongs here: the draws and the tables. Does not belong here: the estimators (`selective`), reading the truth
(`adapters`). Outcomes are the truth itself: what is reported late or never is another matter, and the same
for every estimator here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fraud_platform.errors import TrainingError
from fraud_platform.exploration import DAY_MS, DayCounts, Venture, venture
from fraud_platform.learning.selective import (
    ESTIMATORS,
    MEASURES,
    Estimate,
    Logged,
    SelectiveLabels,
    decline_values,
    estimate,
)
from fraud_platform.policy import Exploration, Policy
from fraud_platform.schema import ACTIONS

SHARES = (0.0, 0.01, 0.02, 0.05, 0.10)
DRAWS = 200
TIMES = 50
RESAMPLES = 300
SEED = 20_182
PER = 1_000
"""Transactions that a cost is told for."""
UNLIMITED = 1e9


@dataclass(frozen=True)
class World:
    """Decisions and their truth, each array (n,), in order of time.

    event_time: ms UTC; is_declined: model and policy decline it; probability: the model's; amount: major
    units.
    """

    event_time: np.ndarray
    is_declined: np.ndarray
    is_fraud: np.ndarray
    probability: np.ndarray
    amount: np.ndarray
    card_id: np.ndarray

    def __post_init__(self) -> None:
        """TrainingError where it has nothing to estimate."""
        declined = int(self.is_declined.sum())
        frauds = int(self.is_fraud[self.is_declined].sum())
        if not frauds or frauds == declined:
            raise TrainingError(
                f"{len(self.is_fraud):,} decisions with {declined:,} declines, {frauds:,} of them frauds: "
                "both frauds and others must be declined, give more history"
            )

    def take(self, rows: np.ndarray) -> World:
        names = self.__dataclass_fields__
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


@dataclass(frozen=True)
class Scored:
    """An estimator on a measure over all draws.

    mean, bias: of the estimates, against the truth; deviation: their standard deviation; coverage: the share
    of intervals that hold the truth; width: their mean width; untold: the share of draws without an interval.
    None where no draw told any.
    """

    estimator: str
    measure: str
    truth: float
    mean: float | None
    bias: float | None
    deviation: float | None
    coverage: float | None
    width: float | None
    untold: float


@dataclass(frozen=True)
class Arm:
    """One way to explore. explored: declines a draw; supported: the share that might have been; cost: what
    exploring really cost, major units per 1,000 transactions."""

    share: float
    is_limited: bool
    explored: float
    supported: float
    cost: float
    scored: tuple[Scored, ...]

    def of(self, estimator: str, measure: str) -> Scored:
        return next(one for one in self.scored if (one.estimator, one.measure) == (estimator, measure))


@dataclass(frozen=True)
class SelectiveBakeoff:
    """transactions, declined, truth: of the world as it is; of a draw, `times` as much."""

    transactions: int
    declined: int
    times: int
    draws: int
    truth: dict[str, float]
    arms: tuple[Arm, ...]

    def explain(self) -> str:
        return (
            f"{self.declined:,} of {self.transactions:,} decisions are declines, "
            f"{self.truth['precision']:.1%} of them frauds; each of {self.draws:,} draws has {self.times} "
            "times as many"
        )


def bakeoff(
    world: World,
    policy: Policy,
    limits: Exploration | None = None,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    times: int = TIMES,
    resamples: int = RESAMPLES,
    report: Callable[[str], None] = lambda message: None,
) -> SelectiveBakeoff:
    """Every share without limits, and then within those of `limits`, whose share is not looked at.

    A draw is the same cards at every share, so that shares differ by what they explore alone. A day of it
    declines `times` as much as one of the world, so its limit is `loss_per_day * times`; `amount_max` is of
    one transaction and stays.
    """
    truth = true_measures(world, policy)
    cards, member = np.unique(world.card_id, return_inverse=True)
    told = replace(world, card_id=member).take(world.is_declined | world.is_fraud)
    size = _Size(len(world.is_fraud), len(cards), times)
    plans = [Exploration(share, SEED, UNLIMITED, UNLIMITED) for share in shares]
    if limits is not None:
        drawn = replace(limits, loss_per_day=limits.loss_per_day * times)
        plans += [replace(drawn, share=share) for share in shares if share > 0.0]
    arms = []
    for plan in plans:
        arms.append(_arm(told, size, policy, plan, truth, draws, resamples))
        report(f"share {plan.share:g}{'' if plan.amount_max == UNLIMITED else ', within limits'}: done")
    return SelectiveBakeoff(
        len(world.is_fraud), int(world.is_declined.sum()), times, draws, truth, tuple(arms)
    )


def true_measures(world: World, policy: Policy) -> dict[str, float]:
    """By measure, what an estimate should say; `saved` is of this world once."""
    declined, fraud = world.is_declined, world.is_fraud
    of_fraud, of_good = decline_values(policy, world.amount)
    return {
        "precision": float(fraud[declined].mean()),
        "recall": float(declined[fraud].mean()),
        "saved": float(np.where(fraud, of_fraud, of_good)[declined].sum()),
    }


def explored(world: World, policy: Policy, plan: Exploration, rng: np.random.Generator) -> Logged:
    """What the log of a service with this plan would tell of the world; see `serve.exploration`."""
    may = world.is_declined & (world.amount <= plan.amount_max) & plan.is_on
    lots = rng.random(len(may))
    loss = policy.expected_costs(world.probability, world.amount)[:, ACTIONS.index("approve")]
    chance = np.zeros(len(may))
    chance[may] = _chances(world.event_time[may], loss[may], lots[may], plan)
    is_explored = lots < chance
    is_known = is_explored | ~world.is_declined
    return Logged(
        is_declined=world.is_declined,
        is_explored=is_explored,
        propensity=np.where(is_explored, chance, 1.0 - chance),
        outcome=np.where(is_known, world.is_fraud.astype(np.float64), np.nan),
        probability=world.probability,
        amount=world.amount,
        card_id=world.card_id,
    )


def _chances(event_time: np.ndarray, loss: np.ndarray, lots: np.ndarray, plan: Exploration) -> list[float]:
    """The chance of each row, which come in order of time."""
    days: dict[int, DayCounts] = {}
    found = []
    for moment, asked, lot in zip(event_time.tolist(), loss.tolist(), lots.tolist(), strict=True):
        day = moment // DAY_MS
        one = Venture(asked, plan.loss_per_day, plan.share, lot)
        days[day], chance = venture(one, moment, days.get(day, DayCounts()), days.get(day - 1))
        found.append(chance)
    return found


@dataclass(frozen=True)
class _Size:
    """Of the whole world, of which a draw has `times` as many cards."""

    transactions: int
    cards: int
    times: int


def _arm(
    told: World,
    size: _Size,
    policy: Policy,
    plan: Exploration,
    truth: dict[str, float],
    draws: int,
    resamples: int,
) -> Arm:
    """told: the declines and the frauds elsewhere; what is approved and good tells no estimator anything."""
    found, costs = [], []
    for draw in range(draws):
        drawn = _drawn_world(told, size, np.random.default_rng([SEED, draw]))
        logged = explored(drawn, policy, plan, np.random.default_rng([SEED, draw, 1]))
        found.append(estimate(logged, policy, draw, resamples))
        of_fraud, of_good = decline_values(policy, drawn.amount[logged.is_explored])
        costs.append(float(np.where(drawn.is_fraud[logged.is_explored], of_fraud, of_good).sum()))
    expected = truth | {"saved": truth["saved"] * size.times}
    return Arm(
        share=plan.share,
        is_limited=plan.amount_max != UNLIMITED,
        explored=float(np.mean([one.explored for one in found])),
        supported=float(np.mean([one.supported for one in found])),
        cost=float(np.mean(costs)) * PER / (size.transactions * size.times),
        scored=tuple(_scored(found, expected)),
    )


def _drawn_world(told: World, size: _Size, rng: np.random.Generator) -> World:
    """Cards with replacement, each with all its rows, those drawn twice under two names; in order of time."""
    counts = rng.multinomial(size.cards * size.times, np.full(size.cards, 1.0 / size.cards))
    copies = counts[told.card_id]
    rows = np.repeat(np.arange(len(copies)), copies)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(copies) - copies, copies)
    drawn = replace(told.take(rows), card_id=told.card_id[rows] + number * size.cards)
    return drawn.take(np.argsort(drawn.event_time, kind="stable"))


def _scored(found: Sequence[SelectiveLabels], truth: dict[str, float]) -> Iterator[Scored]:
    for estimator in ESTIMATORS:
        for measure in MEASURES:
            yield _score(
                estimator, measure, [one.estimates[estimator][measure] for one in found], truth[measure]
            )


def _score(estimator: str, measure: str, found: Sequence[Estimate], truth: float) -> Scored:
    values = [one.value for one in found if one.value is not None]
    held = [holds for one in found if (holds := one.holds(truth)) is not None]
    widths = [one.high - one.low for one in found if one.low is not None and one.high is not None]
    return Scored(
        estimator=estimator,
        measure=measure,
        truth=truth,
        mean=_mean(values),
        bias=float(np.mean(values)) - truth if values else None,
        deviation=float(np.std(values)) if values else None,
        coverage=_mean(held),
        width=_mean(widths),
        untold=1.0 - len(held) / len(found),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
