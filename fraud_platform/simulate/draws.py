"""Small vectorised ways to draw: streams, weighted members of groups, tokens.

Belongs here: randomness that knows nothing of payments. Does not belong here: any rule of the world.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.str_]


def stream(seed: int, part: str) -> np.random.Generator:
    """An independent generator for one part of the world, so that parts do not disturb each other."""
    return np.random.default_rng([seed, zlib.crc32(part.encode())])


@dataclass(frozen=True)
class Weighted:
    """Members (n,) sorted by group, with running weights (n + 1,) and the groups' bounds (groups + 1,)."""

    member: Ints
    running: Floats
    bound: Ints

    @classmethod
    def of(cls, group: Ints, weight: Floats, groups: int, member: Ints | None = None) -> Weighted:
        """Groups 0..groups-1; `member` defaults to 0..n-1."""
        order = np.argsort(group, kind="stable")
        running = np.concatenate(([0.0], np.cumsum(weight[order])))
        bound = np.searchsorted(group[order], np.arange(groups + 1)).astype(np.int64)
        return cls(order if member is None else member[order], running, bound)

    def draw(self, rng: np.random.Generator, group: Ints) -> Ints:
        """One member of each named group, with probability proportional to its weight.

        A group must not be empty.
        """
        first, last = self.bound[group], self.bound[group + 1]
        low, high = self.running[first], self.running[last]
        point = low + rng.random(group.shape) * (high - low)
        place = np.searchsorted(self.running, point, side="right") - 1
        return self.member[np.clip(place, first, last - 1)]


class Fresh:
    """Hands out integer codes that nobody has used yet."""

    def __init__(self, first: int) -> None:
        self.total = first

    def take(self, count: int) -> Ints:
        codes = np.arange(self.total, self.total + count, dtype=np.int64)
        self.total += count
        return codes


def lognormal(rng: np.random.Generator, median: Floats | float, spread: Floats | float, size: int) -> Floats:
    return median * np.exp(spread * rng.standard_normal(size))


_LETTERS = bytes.maketrans(b"0123456789", b"ghijklmnop")


def tokens(rng: np.random.Generator, prefix: str, count: int) -> Texts:
    """`count` different opaque ids such as c_lfjapimhdinbekoc: a prefix and 64 random bits, as letters, which
    nobody takes for a card number."""
    while True:
        text = np.frombuffer(rng.bytes(8 * count).hex().encode().translate(_LETTERS), dtype="S16").astype(
            "U16"
        )
        if np.unique(text).size == count:
            return np.char.add(prefix, text)


def within(position: Ints, size: Ints) -> Ints:
    """0, 1, 2, ... inside each run of repeated `position` whose runs have the lengths `size`.

    >>> within(np.array([0, 0, 0, 1]), np.array([3, 1])).tolist()
    [0, 1, 2, 0]
    """
    first = np.concatenate(([0], np.cumsum(size)[:-1]))
    return np.arange(position.size) - first[position]


def running_within(value: Floats, position: Ints, size: Ints) -> Floats:
    """Running sum of `value` that begins anew with each run."""
    total = np.concatenate(([0.0], np.cumsum(value)))
    first = np.concatenate(([0], np.cumsum(size)[:-1]))
    return total[1:] - total[first][position]
