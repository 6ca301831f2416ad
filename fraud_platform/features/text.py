"""Features as one function of Python text: the engine's twin of the SELECT that dbt renders.

Belongs here: turning the expressions of many features into a function that fills their places in a vector.
Does not belong here: the expressions (aggregates.py, rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

Expression = tuple[int, str]
"""A place in the vector, and the text of its value."""

_numbers = count()


def filling(
    expressions: Sequence[Expression], arguments: str, names: Mapping[str, Any], given: Iterable[str] = ()
) -> Callable[..., None]:
    """A function of `arguments`, one of which is `vector`, that puts each expression's value in its place.

    names: what the texts may name beside the arguments; given: lines that come before all expressions.
    """
    lines = [*given]
    for run in _runs(expressions):
        first, last = run[0][0], run[-1][0]
        lines.append(f"vector[{first}:{last + 1}] = ({', '.join(f'({text})' for _, text in run)},)")
    return _function(arguments, lines or ["pass"], names)


def _runs(expressions: Sequence[Expression]) -> list[list[Expression]]:
    """Neighbours in the vector."""
    runs: list[list[Expression]] = []
    for place, text in expressions:
        if runs and runs[-1][-1][0] + 1 == place:
            runs[-1].append((place, text))
        else:
            runs.append([(place, text)])
    return runs


def _function(arguments: str, lines: Sequence[str], names: Mapping[str, Any]) -> Callable[..., None]:
    body = "\n".join(f"    {line}" for line in lines)
    scope = dict(names)
    exec(compile(f"def fill({arguments}):\n{body}\n", f"<features {next(_numbers)}>", "exec"), scope)
    filled: Callable[..., None] = scope["fill"]
    return filled
