"""Reading and editing the top-level constants of a train.py, as text.

Covers `NAME = …` at the top level where the right side is a literal, arithmetic on literals
(`2**19`), or a number taken from elsewhere, as it is or changed by one step (`PROFILE.depth`,
`PROFILE.depth + 1`). Only the text right of the equals sign is replaced; every other byte of the
file stays. Does not cover names that are assigned twice: an edit of those would say one thing and
do another.
"""

import ast
import contextlib
import math
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Derived:
    """A number that the file takes from `base`, plus `plus` or times 2**`shift` (not both)."""

    base: str
    plus: int = 0
    shift: int = 0


Value = int | float | str | Derived

# The line ends that Python's tokenizer knows, which are fewer than str.splitlines does.
_LINE_END = re.compile(rb"\r\n|\r|\n")
_CONSTANT_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_BASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Pow: operator.pow,
}  # fmt: skip
_LARGEST_EXPONENT = 64
_LARGEST = 1e18


@dataclass(frozen=True)
class Constant:
    """A constant's value, and where its text stands: byte offsets in the UTF-8 source."""

    value: Value
    start: int
    end: int


def read_constants(source: str) -> dict[str, Constant]:
    """The editable constants of `source` by name, in order. SyntaxError if it is no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a doubtful escape in the file is its author's business
        tree = ast.parse(source)
    bound = _times_bound(tree)
    starts = [0, *(match.end() for match in _LINE_END.finditer(source.encode()))]
    found: dict[str, Constant] = {}
    for statement in tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=node)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as node)
            ) if _CONSTANT_NAME.fullmatch(name) and bound[name] == 1:
                start = starts[node.lineno - 1] + node.col_offset
                end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
                with contextlib.suppress(ValueError, ArithmeticError):
                    found[name] = Constant(_evaluate(node), start, end)
    return found


def with_constants(source: str, changes: Mapping[str, Value]) -> str:
    """`source` with new values; a value that is already there leaves its text as it is.

    KeyError for a name that `read_constants` does not give, ValueError for a value that cannot be
    written down.
    """
    constants = read_constants(source)
    text = source.encode()
    for name in sorted(changes, key=lambda name: -constants[name].start):
        old, value = constants[name], changes[name]
        if not same_value(old.value, value):
            text = text[: old.start] + render(value).encode() + text[old.end :]
    return text.decode()


def render(value: Value) -> str:
    """Python text for `value`, in the way a person would write it."""
    if isinstance(value, Derived):
        return _render_derived(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no literal")
    if isinstance(value, int) and value >= 1024 and value & (value - 1) == 0:
        return f"2**{value.bit_length() - 1}"
    if isinstance(value, str) and value.isprintable() and not set('"\\') & set(value):
        return f'"{value}"'
    return repr(value)


def same_value(a: Value, b: Value) -> bool:
    """Equal and of one type: `1` and `1.0` are different constants."""
    return type(a) is type(b) and a == b


def _render_derived(value: Derived) -> str:
    if not _BASE.fullmatch(value.base) or (value.plus and value.shift):
        raise ValueError(f"{value} has no simple text")
    if value.plus:
        return f"{value.base} {'+' if value.plus > 0 else '-'} {abs(value.plus)}"
    if value.shift:
        return f"{value.base} {'*' if value.shift > 0 else '//'} {2 ** abs(value.shift)}"
    return value.base


def _times_bound(tree: ast.Module) -> Counter[str]:
    """How often each name is bound anywhere, which is more often than at the top level alone."""
    count: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            count[node.id] += 1
        elif isinstance(node, ast.Global):
            count.update(node.names)
    return count


def _evaluate(node: ast.expr) -> Value:
    """A right side's value; ValueError or ArithmeticError for one of another kind."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.Attribute() if _BASE.fullmatch(base := ast.unparse(node)):
            return Derived(base)
        case ast.BinOp(left=ast.Attribute() as left, right=ast.Constant(value=int() as amount)) if (
            _BASE.fullmatch(base := ast.unparse(left))
        ):
            shift = amount.bit_length() - 1
            match node.op:
                case ast.Add() | ast.Sub():
                    return Derived(base, plus=amount if isinstance(node.op, ast.Add) else -amount)
                case ast.Mult() | ast.FloorDiv() if amount == 2 ** max(shift, 0):
                    return Derived(base, shift=shift if isinstance(node.op, ast.Mult) else -shift)
    return _number(node)


def _number(node: ast.expr) -> int | float:
    value: object = None
    match node:
        case ast.Constant():
            value = node.value
        case ast.UnaryOp(op=ast.USub()):
            value = -_number(node.operand)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            left, right = _number(node.left), _number(node.right)
            if not isinstance(node.op, ast.Pow) or abs(right) <= _LARGEST_EXPONENT:
                value = _ARITHMETIC[type(node.op)](left, right)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        return value
    raise ValueError("no number, or a very large one")
