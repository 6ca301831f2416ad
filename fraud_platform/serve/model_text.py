"""The trees of a LightGBM model, read from its text into arrays over all nodes.

Belongs here: the text's grammar, as far as trees need it. Does not belong here: what is computed of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_NUMBERS = {
    "split_feature": np.intp,
    "threshold": np.float64,
    "decision_type": np.intp,
    "left_child": np.intp,
    "right_child": np.intp,
    "internal_count": np.float64,
    "leaf_count": np.float64,
    "leaf_value": np.float64,
}


@dataclass(frozen=True)
class Forest:
    """Trees with at least one split. Arrays are over nodes, but leaf_count and leaf_value over leaves.

    left, right: the child's node, or ~leaf; count, leaf_count: training rows; roots: first node of each tree;
    node_counts: of each tree; category_is_left: for each categorical node, in order, which levels go left.
    """

    feature: np.ndarray
    threshold: np.ndarray
    decision_type: np.ndarray
    left: np.ndarray
    right: np.ndarray
    count: np.ndarray
    leaf_count: np.ndarray
    leaf_value: np.ndarray
    roots: np.ndarray
    node_counts: np.ndarray
    category_is_left: np.ndarray

    @classmethod
    def of(cls, model_text: str) -> Forest | None:
        """None for a model that is more than a sum of plain trees: linear leaves, averages, several classes,
        or one whose text does not say what its leaves counted."""
        header, *blocks = model_text.split("end of trees")[0].split("\nTree=")
        lines = header.splitlines()
        if "average_output" in lines or "num_tree_per_iteration=1" not in lines:
            return None
        trees = [_fields(block) for block in blocks]
        if any(tree.get("is_linear", "0") != "0" for tree in trees):
            return None
        grown = [tree for tree in trees if int(tree["num_leaves"]) > 1]
        if any(not all(tree.get(name) for name in _NUMBERS) for tree in grown):
            return None
        forest = cls._joined(grown) if grown else cls._empty()
        return forest if np.all(forest.count > 0) and np.all(forest.leaf_count > 0) else None

    @classmethod
    def _joined(cls, trees: list[dict[str, str]]) -> Forest:
        read = [{name: _array(tree[name], kind) for name, kind in _NUMBERS.items()} for tree in trees]
        node_counts = np.array([len(tree["split_feature"]) for tree in read])
        roots = np.cumsum(node_counts) - node_counts
        leaves = roots - np.arange(len(roots)) + np.arange(len(roots)) * 2  # a leaf more than nodes each
        for tree, root, leaf in zip(read, roots, leaves, strict=True):
            for side in ("left_child", "right_child"):
                child = tree[side]
                tree[side] = np.where(child >= 0, child + root, child - leaf)
        whole = {name: np.concatenate([tree[name] for tree in read]) for name in _NUMBERS}
        return cls(
            feature=whole["split_feature"],
            threshold=whole["threshold"],
            decision_type=whole["decision_type"],
            left=whole["left_child"],
            right=whole["right_child"],
            count=whole["internal_count"],
            leaf_count=whole["leaf_count"],
            leaf_value=whole["leaf_value"],
            roots=roots,
            node_counts=node_counts,
            category_is_left=_categories(trees, read),
        )

    @classmethod
    def _empty(cls) -> Forest:
        places, numbers = np.zeros(0, dtype=np.intp), np.zeros(0)
        return cls(
            *(places, numbers, places, places, places, numbers, numbers, numbers, places, places),
            category_is_left=np.zeros((0, 1), dtype=bool),
        )

    def tree_of(self, nodes: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.roots, nodes, side="right") - 1

    def counts_below(self, child: np.ndarray) -> np.ndarray:
        """Training rows of children as `left` and `right` name them."""
        return np.where(child >= 0, self.count[np.maximum(child, 0)], self.leaf_count[~np.minimum(child, -1)])

    def values_of(self, child: np.ndarray) -> np.ndarray:
        """A leaf's value, 0 for a node."""
        return np.where(child >= 0, 0.0, self.leaf_value[~np.minimum(child, -1)])


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.splitlines())
    return {key: value for key, sign, value in pairs if sign}


def _array(text: str, kind: Any) -> np.ndarray:
    return np.array(text.split(), dtype=kind)


def _categories(trees: list[dict[str, str]], read: list[dict[str, np.ndarray]]) -> np.ndarray:
    """A tree's sets of levels are bits in words of 32; a categorical node's threshold is its set's number."""
    sets: list[np.ndarray] = []
    for tree, arrays in zip(trees, read, strict=True):
        if int(tree["num_cat"]):
            ends, words = _array(tree["cat_boundaries"], np.intp), _array(tree["cat_threshold"], np.uint32)
            bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little").astype(bool)
            for number in arrays["threshold"][arrays["decision_type"] & 1 == 1].astype(np.intp):
                sets.append(bits[32 * ends[number] : 32 * ends[number + 1]])
    table = np.zeros((len(sets), max(map(len, sets), default=1)), dtype=bool)
    for row, levels in zip(table, sets, strict=True):
        row[: len(levels)] = levels
    return table
