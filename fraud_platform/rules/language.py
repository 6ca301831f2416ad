"""The language of rules: CEL (Common Expression Language), narrowed to comparisons of known values.

Belongs here: which names, operators and functions an expression may use, and compiling it.
Does not belong here: what a rule does when it fires (`ruleset`), where values come from (`inputs`).

What is not allowed is not declared, so it fails when the file is read: loops, conversions, division (a value
of 0 would make it no number), and comparing a number with text. A name without a value makes a comparison
unknown; `&&` and `||` follow Kleene (`false && unknown` is false, `true || unknown` is true), and what ends
unknown is not true. So nothing fires for want of a value, `!` and `!=` included.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from cel_expr_python import cel

from fraud_platform.errors import SettingsError
from fraud_platform.schema import TRANSACTION_COLUMNS

EXPRESSION_LENGTH_MAX = 2_000
NEAR = 3
TOGETHER, DEPTH = 32, 4
"""Expressions in one program, and how much deeper they may lie in it: the parser has limits."""
NUMBER, TEXT, TRUTH, TOKENS = "double", "string", "bool", "map"
REQUEST, KNOWN, LISTS = "request.", "known.", "lists."

FIELD_TYPES: dict[str, str] = {
    column.name: TEXT if column.type == "VARCHAR" else NUMBER
    for column in TRANSACTION_COLUMNS
    if column.name != "transaction_id"
} | {"amount": NUMBER}
"""The request's own fields and their types; `amount` is in major units of the currency."""
OPTIONAL_FIELDS = tuple(column.name for column in TRANSACTION_COLUMNS if not column.is_required)

_TYPES = {NUMBER: cel.Type.DOUBLE, TEXT: cel.Type.STRING, TRUTH: cel.Type.BOOL}
_TYPES[TOKENS] = cel.Type.Map(cel.Type.STRING, cel.Type.BOOL)
_FUNCTIONS = ("_&&_", "_||_", "!_", "_?_:_", "startsWith", "endsWith", "contains", "matches", "size")
_SUMS = {"_+_": "add_double", "_-_": "subtract_double", "_*_": "multiply_double", "-_": "negate_double"}
_ORDER = {">=": "greater_equals", ">": "greater", "<=": "less_equals", "<": "less"}
_NUMBERS = tuple(product((NUMBER, "int"), (NUMBER, "int")))
_HINTS = {
    "_/_": "division is left out, for a value of 0 would make it no number: multiply the other side instead",
    "_%_": "there is no remainder in this language",
    "@not_strictly_false": "there are no loops in this language: write the comparisons out, or use a list",
}
_MACROS = ("has", "all", "exists", "exists_one", "map", "filter")
_SYMBOLS = re.compile(r"'(@not_strictly_false|@in|_?[-+*/%<>=!?:&|]+_?(?:[-+*/%<>=!?:&|]+_)?)'")

_LITERAL = re.compile(r"""[rR]"[^"\n]*"|[rR]'[^'\n]*'|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*")
_ASKED = re.compile(r"(?<![\w.])([A-Za-z_][\w.]*)\s+in\s+lists\.([A-Za-z_]\w*)(?![\w.])")
_MATCHED = re.compile(r"\.\s*matches\s*\(\s*(" + _LITERAL.pattern + r")\s*\)")
_SAMPLES = (
    {NUMBER: 1.0, TEXT: "a", TRUTH: True, TOKENS: {}},
    {NUMBER: -1e6, TEXT: "", TRUTH: False, TOKENS: {}},
)


@dataclass(frozen=True)
class Expression:
    """A checked expression and what it reads.

    types: each name it reads and that name's type; asked: (name, list) for each `name in lists.list`.
    """

    text: str
    types: tuple[tuple[str, str], ...]
    asked: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.types)

    @property
    def features(self) -> tuple[str, ...]:
        """The features of the contract among its names."""
        return tuple(name for name in self.names if not name.startswith((REQUEST, KNOWN, LISTS)))


class Language:
    """The names that expressions may use, and their check."""

    def __init__(self, features: Mapping[str, str], lists: Mapping[str, Sequence[str]]) -> None:
        """features: each name's dtype, "double" or "category"; lists: for each, the names it may be asked
        for, without "request."."""
        self._lists = lists
        self._types = {name: TEXT if dtype == "category" else NUMBER for name, dtype in features.items()}
        self._types |= {REQUEST + name: kind for name, kind in FIELD_TYPES.items()}
        self._types |= {KNOWN + name: TRUTH for name in OPTIONAL_FIELDS}
        self._types |= {LISTS + name: TOKENS for name in lists}

    def expression(self, text: str) -> Expression:
        """The checked expression. SettingsError tells what is wrong with it and what would be right."""
        if len(text) > EXPRESSION_LENGTH_MAX:
            raise SettingsError(f"it has {len(text)} characters; write at most {EXPRESSION_LENGTH_MAX}")
        bare = _LITERAL.sub("''", text)
        if "//" in bare or '"""' in text or "'''" in text:
            raise SettingsError(
                "a comment or a triple quote could hide a part of it: put remarks into the YAML"
            )
        self._compiled(text, self._types)
        types = self._named(bare)
        expression = Expression(text, types, self._asked(bare))
        self._compiled("(" * DEPTH + text + ")" * DEPTH, dict(types))  # nothing but these is read
        _try(expression, bare)
        return expression

    def _named(self, bare: str) -> tuple[tuple[str, str], ...]:
        """The declared names in it. What follows a name (`.startsWith`) is a function."""
        found = {}
        for match in _NAME.finditer(bare):
            words = re.sub(r"\s", "", match.group()).split(".")
            for count in range(len(words), 0, -1):
                name = ".".join(words[:count])
                if name in self._types:
                    found[name] = self._types[name]
                    break
        return tuple(sorted(found.items()))

    def _asked(self, bare: str) -> tuple[tuple[str, str], ...]:
        asked = tuple(dict.fromkeys(_ASKED.findall(bare)))
        if len(_ASKED.findall(bare)) != len(re.findall(r"\blists\b", bare)):
            raise SettingsError(
                "a list is asked for one name at a time: request.card_id in lists.blocked_cards"
            )
        for name, listed in asked:
            if name.removeprefix(REQUEST) not in self._lists[listed]:
                may = ", ".join(self._lists[listed])
                raise SettingsError(f"list {listed!r} is of {may}, so that {name!r} is never in it")
        return asked

    def _compiled(self, text: str, types: Mapping[str, str]) -> None:
        try:
            found = _environment(types).compile(text).return_type()
        except (RuntimeError, TypeError) as error:  # TypeError: text that is not Unicode
            raise SettingsError(self._explained(str(error))) from None
        if found.name() != cel.Type.BOOL.name():
            raise SettingsError(f"it gives {found.name().lower()}; a rule must give true or false")

    def _explained(self, error: str) -> str:
        said = error.split("\n", 1)[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: <input>:")
        if "recursion limit" in said:
            return "it is nested too deep: give a part of it to a rule of its own"
        symbol = _SYMBOLS.search(said)
        if symbol and symbol.group(1) in _HINTS:
            return _HINTS[symbol.group(1)]
        missing = re.search(r"undeclared reference to '([^']*)'", said)
        if missing:
            return self._unknown(missing.group(1))
        if "no matching overload" in said:
            return (
                f"at {said}; numbers are compared with numbers and text with text; in sums and "
                "products write numbers with a point, such as 2.0"
            )
        return f"at {said}"

    def _unknown(self, name: str) -> str:
        if name in _MACROS:
            return f"{name}() is not in this language; known.device_id tells whether a request has the field"
        space, dot, _ = name.rpartition(".")
        space = space + dot or (f"{name}." if name in ("request", "known", "lists") else "")
        same = [known for known in self._types if known.startswith(space)] if space else []
        near = difflib.get_close_matches(name, self._types, n=NEAR) or sorted(same)
        if near:
            return f"no name {name!r}; near it: {', '.join(near)}"
        if name.startswith(LISTS):
            return f"no list {name.removeprefix(LISTS)!r} in the lists file, and no other: declare it there"
        return (
            f"no name {name!r}: there are features (fraud-platform features), request.FIELD, known.FIELD and "
            f"lists.NAME, and the functions {', '.join(name for name in _FUNCTIONS if name.isalpha())}"
        )


class Programs:
    """Expressions, compiled together. Which are true is found by halves: mostly none is."""

    def __init__(self, expressions: Sequence[Expression]) -> None:
        types = {name: kind for expression in expressions for name, kind in expression.types}
        self._environment = _environment(types)
        self._texts = [f"({expression.text})" for expression in expressions]
        places = range(len(expressions))
        self._trees = [self._tree(places[i : i + TOGETHER]) for i in range(0, len(places), TOGETHER)]

    def true(self, data: Mapping[str, object]) -> list[int]:
        """The places of those that are true, in order; data: the value of each name that is known."""
        if not self._trees:
            return []
        known = self._environment.Activation(data)
        found: list[int] = []
        for tree in self._trees:
            tree.collect(known, found)
        return found

    def _tree(self, places: range) -> _Tree:
        """`||` of all of them is true exactly where one is: it is Kleene's."""
        program = self._environment.compile(" || ".join(self._texts[i] for i in places))
        half = len(places) // 2
        return _Tree(
            program,
            places[0],
            [self._tree(part) for part in (places[:half], places[half:]) if part] if half else [],
        )


@dataclass(frozen=True)
class _Tree:
    program: cel.Expression
    first: int
    halves: list[_Tree]

    def collect(self, known: cel.Activation, found: list[int]) -> None:
        if self.program.eval(known).value() is not True:
            return
        if not self.halves:
            found.append(self.first)
        for half in self.halves:
            half.collect(known, found)


def _try(expression: Expression, bare: str) -> None:
    """Run it with nothing known, and with samples: what would fail at every request fails here."""
    runnable = _environment(dict(expression.types)).compile(expression.text)
    if not expression.types:
        raise SettingsError("it reads nothing, so that it fires always or never: set the mode instead")
    if runnable.eval(data={}).value() is True:
        raise SettingsError("it fires with nothing known: say what must be known for it")
    for sample in _SAMPLES:
        found = runnable.eval(data={name: sample[kind] for name, kind in expression.types})
        if found.type().name() != cel.Type.BOOL.name():
            raise SettingsError(f"tried with sample values it fails: {found.value()}")
    patterns = _MATCHED.findall(expression.text)
    if len(patterns) != len(re.findall(r"\bmatches\b", bare)):
        raise SettingsError("a pattern must be written out: request.ip_id.matches('^10[.]')")
    for pattern in patterns:
        tried = _environment({}).compile(f"'a'.matches({pattern})").eval(data={})
        if tried.type().name() != cel.Type.BOOL.name():
            raise SettingsError(f"{tried.value()}")


def _environment(types: Mapping[str, str]) -> cel.Env:
    return cel.NewEnv(config=_standard(), variables={name: _TYPES[kind] for name, kind in types.items()})


@lru_cache(maxsize=1)
def _standard() -> cel.EnvConfig:
    """Functions are named one by one; what CEL adds in a later version stays out."""
    lines = ["stdlib:", "  include_macros: []", "  include_functions:"]
    lines += [f'    - name: "{name}"' for name in _FUNCTIONS]
    lines += [f'    - {{name: "{name}", overloads: [{{id: {kind}}}]}}' for name, kind in _SUMS.items()]
    lines += ["functions:"]
    for sign, name in _ORDER.items():
        lines += _declared(f"_{sign}_", name, (*_NUMBERS, (TEXT, TEXT)))
    for sign, name in (("==", "equals"), ("!=", "not_equals")):
        lines += _declared(f"_{sign}_", name, (*_NUMBERS, (TEXT, TEXT), (TRUTH, TRUTH)))
    members: list[tuple[str, str]] = [
        (kind, f"list, params: [{{type_name: {of}}}]") for kind, of in (*_NUMBERS, (TEXT, TEXT))
    ]
    tokens = (TEXT, f"map, params: [{{type_name: {TEXT}}}, {{type_name: {TRUTH}}}]")
    lines += _declared("@in", "in", (*members, tokens))
    return cel.NewEnvConfigFromYaml("\n".join(lines))


def _declared(function: str, name: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """CEL compares an integer with a decimal, but declares it for neither: here a literal 20 is a number."""
    lines = [f'  - name: "{function}"', "    overloads:"]
    for place, (left, right) in enumerate(pairs):
        arguments = f"[{{type_name: {left}}}, {{type_name: {right}}}]"
        lines.append(f"      - {{id: {name}_{place}, args: {arguments}, return: {{type_name: bool}}}}")
    return lines
