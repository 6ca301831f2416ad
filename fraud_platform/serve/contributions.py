"""Exact TreeSHAP of one row, over all trees at once: LightGBM's `pred_contrib`, several times as fast.

Belongs here: the same Shapley values (path dependent, with the trees' own cover), from a model's trees.
Does not belong here: scores (`booster`), what is made of contributions (`reasons`).

Lundberg et al., "Consistent Individualized Feature Attribution for Tree Ensembles", 2018, weigh each set S of
the d features on the path to a leaf by |S|! (d - |S| - 1)! / d!. This weight is the integral from 0 to 1 of
t^|S| (1 - t)^(d - |S| - 1), so that the sum over all sets is the integral of a product with one factor a
feature: o t + z (1 - t), where o says whether the row takes the path at all splits of the feature, and z is
the share of training rows that does. The rule of Gauss and Legendre with k points integrates a polynomial of
degree 2 k - 1 exactly. Each point carries a product down the trees and sums of leaf values up again, as in Yu
et al., "Linear TreeShap", 2022; here each depth of all trees together is a few operations on arrays.

Only + - * / touch a double, in a fixed order: the same row has the same bits everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fraud_platform.serve.model_text import Forest

_ZERO = float(np.float32(1e-35))
"""LightGBM's: what is nearer to 0 than this is 0."""
_NEWTON_STEPS = 8


class TreeShap:
    """Contributions of a model's features to its raw score. Not safe for several threads at once."""

    def __init__(self, forest: Forest, width: int) -> None:
        """width: how many features a row has."""
        self._width = width
        self._decisions = _Decisions(forest)
        self._groups = [_Group(forest, roots) for roots in _by_points(forest)]

    def contributions(self, row: np.ndarray) -> np.ndarray:
        """Of the score's log-odds: float64 (width,), the bias left out.

        row: float64 (width,), NaN for unknown.
        """
        goes_left = self._decisions.of(row)
        total = np.zeros(self._width)
        for group in self._groups:
            total += np.bincount(group.feature, weights=group.of(goes_left), minlength=self._width)
        return total


class _Decisions:
    """Which way a row goes at every node of the forest, as LightGBM decides it."""

    def __init__(self, forest: Forest) -> None:
        kind = forest.decision_type
        missing = (kind >> 2) & 3
        self._feature, self._threshold = forest.feature, forest.threshold
        self._default_left = (kind & 2) > 0
        self._is_zero_missing, self._is_nan_missing = missing == 1, missing == 2
        self._categorical = np.flatnonzero(kind & 1)
        self._is_left = forest.category_is_left

    def of(self, row: np.ndarray) -> np.ndarray:
        """Whether it goes left: bool (nodes,)."""
        value = row[self._feature]
        is_nan = np.isnan(value)
        by_default = is_nan & self._is_nan_missing
        value = np.where(is_nan & ~by_default, 0.0, value)
        by_default |= self._is_zero_missing & (np.abs(value) <= _ZERO)
        goes_left = np.where(by_default, self._default_left, value <= self._threshold)
        if len(self._categorical):
            code = row[self._feature[self._categorical]]
            is_level = (code >= 0) & (code < self._is_left.shape[1])
            level = np.where(is_level, code, 0.0).astype(np.intp)
            places = np.arange(len(level))
            goes_left[self._categorical] = is_level & self._is_left[places, level]
        return goes_left


@dataclass(frozen=True)
class _Level:
    """Edges of one depth: `width` to left children, then as many to the right ones, from `start` on.

    parents: the edges that lead to their nodes, (width,); -1 at the roots.
    """

    start: int
    width: int
    parents: np.ndarray


class _Step:
    """A level's part of the group's buffer, seen as the operations need it; made once."""

    def __init__(self, level: _Level, buffer: np.ndarray) -> None:
        points, edges = buffer.shape
        part = buffer[:, level.start : level.start + 2 * level.width]
        self.sides = part.reshape(points, 2, level.width)
        self.left, self.right = self.sides[:, 0], self.sides[:, 1]
        self.parents = (np.arange(points)[:, None] * edges + level.parents).ravel()
        self.middle = np.empty((points, level.width))
        self.middle_flat, self.middle_of_both = self.middle.reshape(-1), self.middle[:, None, :]


class _Group:
    """Trees that are integrated with the same number of points; arrays are (points, edges)."""

    def __init__(self, forest: Forest, roots: np.ndarray) -> None:
        edges = _Edges(forest, roots)
        self._node, self._is_left, self.feature = edges.node, edges.is_left, edges.feature
        self._value = edges.value
        t, weight = _gauss_legendre(max(1, (int(edges.depth_of_features.max()) + 1) // 2))
        z, before = edges.cover, edges.cover_before
        on, off = z * (1.0 - t) + t, z * (1.0 - t)
        on_before = np.where(edges.before >= 0, before * (1.0 - t) + t, 1.0)
        gain_before = (1.0 - before) / on_before
        gain_off = -1.0 / (1.0 - t) - gain_before
        self._ratio_off, self._ratio_more = off / on_before, (on - off) / on_before
        self._gain_off = weight * gain_off
        self._gain_more = weight * ((1.0 - z) / on - gain_before - gain_off)
        again = np.flatnonzero(edges.before >= 0)
        self._again, self._again_before = again, edges.before[again]
        self._again_ratio = (z / before)[again]
        repeats = [np.flatnonzero(edges.repeat == number) for number in range(1, int(edges.repeat.max()) + 1)]
        self._repeats = [(repeated, edges.before[repeated]) for repeated in repeats]
        self._product, self._gain = np.empty_like(off), np.empty_like(off)
        self._flat = self._product.reshape(-1)
        self._steps = [_Step(level, self._product) for level in edges.levels[1:]]

    def of(self, goes_left: np.ndarray) -> np.ndarray:
        """What each edge adds to the contribution of its feature: float64 (edges,)."""
        is_on = goes_left[self._node] == self._is_left
        for edges, before in self._repeats:
            is_on[edges] &= is_on[before]
        self._choose(is_on)
        product, flat = self._product, self._flat
        for step in self._steps:
            flat.take(step.parents, out=step.middle_flat, mode="clip")
            np.multiply(step.sides, step.middle_of_both, out=step.sides)
        np.multiply(product, self._value, out=product)
        for step in reversed(self._steps):
            np.add(step.left, step.right, out=step.middle)
            flat[step.parents] = step.middle_flat
        np.multiply(product, self._gain, out=product)
        return np.add.reduce(product, axis=0)

    def _choose(self, is_on: np.ndarray) -> None:
        """Each edge's factor and gain, by whether the row still takes the path for the edge's feature."""
        product, gain, share = self._product, self._gain, is_on.astype(np.float64)
        np.multiply(self._ratio_more, share, out=product)
        np.add(product, self._ratio_off, out=product)
        np.multiply(self._gain_more, share, out=gain)
        np.add(gain, self._gain_off, out=gain)
        was_off = ~is_on[self._again_before]
        off_again = self._again[was_off]
        product[:, off_again] = self._again_ratio[was_off]
        gain[:, off_again] = 0.0  # the feature left the path before: this split changes nothing for it


class _Edges:
    """The edges from the nodes of some trees to their children, level by level; arrays are (edges,).

    before: the nearest edge above that splits by the same feature, -1 where there is none; repeat: how many
    such there are; cover: the share of the training rows that passes all splits of the feature down to here,
    cover_before: down to that edge; value: the leaf's, 0 where the edge leads to a node; depth_of_features:
    different features down to here.
    """

    def __init__(self, forest: Forest, roots: np.ndarray) -> None:
        count = 2 * int(sum(forest.node_counts[forest.tree_of(roots)]))
        self.node, self.feature, self.above, self.before = (np.empty(count, dtype=np.intp) for _ in range(4))
        self.repeat, self.depth_of_features = (np.empty(count, dtype=np.intp) for _ in range(2))
        self.is_left = np.empty(count, dtype=bool)
        self.cover, self.cover_before, self.value = (np.empty(count) for _ in range(3))
        self.levels: list[_Level] = []
        nodes, parents, start = roots, np.full(len(roots), -1), 0
        while len(nodes):
            self.levels.append(_Level(start, len(nodes), parents))
            child = np.concatenate([forest.left[nodes], forest.right[nodes]])
            here = slice(start, start + len(child))
            self._fill(forest, here, np.tile(nodes, 2), child, parents)
            inner = np.flatnonzero(child >= 0)
            nodes, parents, start = child[inner], start + inner, here.stop

    def _fill(
        self, forest: Forest, here: slice, node: np.ndarray, child: np.ndarray, parents: np.ndarray
    ) -> None:
        self.node[here], self.feature[here] = node, forest.feature[node]
        self.is_left[here] = np.arange(len(node)) < len(node) // 2
        above = np.tile(parents, 2)
        self.above[here] = above
        before = self._before(above, forest.feature[node])
        self.before[here] = before
        self.repeat[here] = np.where(before >= 0, self.repeat[before] + 1, 0)
        self.cover_before[here] = np.where(before >= 0, self.cover[before], 1.0)
        self.cover[here] = forest.counts_below(child) / forest.count[node] * self.cover_before[here]
        self.value[here] = forest.values_of(child)
        self.depth_of_features[here] = np.where(above >= 0, self.depth_of_features[above], 0) + (before < 0)

    def _before(self, above: np.ndarray, feature: np.ndarray) -> np.ndarray:
        found = np.full(len(above), -1)
        while np.any(above >= 0):
            is_same = (found < 0) & (above >= 0) & (self.feature[above] == feature)
            found[is_same] = above[is_same]
            above = np.where(above >= 0, self.above[above], -1)
        return found


def _by_points(forest: Forest) -> list[np.ndarray]:
    """Roots of the trees in at most two groups, so that the few deep trees do not make the others dear."""
    roots = forest.roots
    if not len(roots):
        return []
    edges = _Edges(forest, roots)
    depth = np.zeros(len(roots), dtype=np.intp)
    np.maximum.at(depth, forest.tree_of(edges.node), edges.depth_of_features)
    points = np.maximum(1, (depth + 1) // 2)
    costs = {
        limit: float((forest.node_counts * np.where(points <= limit, limit, points.max())).sum())
        for limit in np.unique(points).tolist()
    }
    limit = min(costs, key=costs.__getitem__)
    return [part for part in (roots[points <= limit], roots[points > limit]) if len(part)]


def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in (0, 1) and weights, both (count, 1), by Newton's method on Legendre's polynomial."""
    points, weights = [], []
    for place in range(count):
        x = round(math.cos(math.pi * (place + 0.75) / (count + 0.5)), 6)  # the same start everywhere
        for _ in range(_NEWTON_STEPS):
            value, slope = _legendre(count, x)
            x -= value / slope
        _, slope = _legendre(count, x)
        points.append((1.0 - x) / 2.0)
        weights.append(1.0 / ((1.0 - x * x) * slope * slope))
    return np.array(points)[:, None], np.array(weights)[:, None]


def _legendre(count: int, x: float) -> tuple[float, float]:
    """Legendre's polynomial of that degree at x, and its slope."""
    below, value = 1.0, x
    for degree in range(2, count + 1):
        below, value = value, ((2 * degree - 1) * x * value - (degree - 1) * below) / degree
    return value, count * (x * value - below) / (x * x - 1.0)
