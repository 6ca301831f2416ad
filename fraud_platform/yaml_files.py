"""Reads the YAML that people write; strictly, so that no line of a file is silently without effect.

Belongs here: from text to plain values. Does not belong here: what a file must hold (its own reader).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from fraud_platform.errors import FraudPlatformError, SettingsError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""LibYAML where it is there: a list of 100,000 tokens takes it half a second."""
MERGE = "tag:yaml.org,2002:merge"
_UNREADABLE = (ValueError, LookupError, AttributeError, RecursionError)
"""What a loader raises where a scalar is not of its kind, and where mappings are nested without end."""
_QUOTED = re.compile(r"(['\"]).{3,}\1")


def load_yaml(text: str, what: str, model: str = "", error: type[FraudPlatformError] = SettingsError) -> Any:
    """The values of a YAML text, None where it is empty.

    `error`, which says `what` is wrong, at which line, and names the `model` of such a file: where the text
    is not YAML, or a key stands twice in one mapping, of which YAML would take the last.

    >>> load_yaml("review: 3\\nreview: 5", "the file")
    Traceback (most recent call last):
        ...
    fraud_platform.errors.SettingsError: the file: 'review' stands twice, in lines 1 and 2: keep one
    """
    see = f", see {model}" if model else ""
    try:
        loader = _LOADER(text)
        node = loader.get_single_node()
        doubled = next(_doubled_keys(loader, node), "")
        loaded = None if node is None or doubled else loader.construct_document(node)
    except (yaml.YAMLError, *_UNREADABLE) as problem:
        said = _said(text, problem)
        raise error(f"{what} is not YAML: {said}; correct it at that place{see}") from None
    if doubled:
        raise error(f"{what}: {doubled}{see}")
    return loaded


def _said(text: str, problem: Exception) -> str:
    """What is wrong, and where as the exact one of the two loaders has it; without the text around it, which
    may be what a list hides."""
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as exact:
        problem = exact
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if isinstance(problem, yaml.MarkedYAMLError) and problem.problem_mark is not None:
        parts = " ".join(filter(None, (problem.context, problem.problem)))
        return f"{_QUOTED.sub('(...)', parts)}, {_place(problem.problem_mark)}"
    if isinstance(problem, _UNREADABLE):
        return next(_unreadable(text), "a value cannot be read")
    return " ".join(str(problem).split())


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """`root` and all below it, each once, in the order of the text."""
    waiting, known = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in known:
            continue
        known.add(id(node))
        yield node
        if isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting += [one for pair in reversed(node.value) for one in reversed(pair)]


def _unreadable(text: str) -> Iterator[str]:
    """Each scalar that is not what it is written or tagged as, as a day that no month has."""
    loader = yaml.SafeLoader(text)
    for node in _nodes(loader.get_single_node()):
        try:
            if isinstance(node, yaml.ScalarNode):
                loader.construct_object(node)
        except _UNREADABLE:
            yield f"no {node.tag.rpartition(':')[2]} can be read, {_place(node.start_mark)}"


def _doubled_keys(loader: Any, root: yaml.Node | None) -> Iterator[str]:
    """What is wrong with each mapping below `root`, before `<<` brings keys that it may replace."""
    for node in _nodes(root):
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = key_node.value if key_node.tag == MERGE else loader.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                yield f"{key!r} stands twice, in lines {lines[key]} and {line}: keep one"
            lines[key] = line
