"""Reading and editing the top-level constants of a train.py, as text.

Covers `NAME = …` at the top level where the right side is a literal, arithmetic on literals
(`2**19`), or a number taken from elsewhere, as it is or changed by one step (`PROFILE.depth`,
`PROFILE.depth + 1`). Only the text right of the equals sign is replaced; every other byte of the
file stays. Does not cover names that are assigned twice: an edit of those would say one thing and
do another.
"""

import ast
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace


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
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
}
_LARGEST_EXPONENT = 64
_LARGEST = 1e18


@dataclass(frozen=True)
class Constant:
    """A constant's value, and where its text stands: byte offsets in the UTF-8 source."""

    name: str
    value: Value
    start: int
    end: int


class _NotConstantError(Exception):
    """The expression is of no kind that this module edits."""


def read_constants(source: str) -> dict[str, Constant]:
    """The editable constants of `source` by name, in order. SyntaxError if it is no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a doubtful escape in the file is its author's business
        tree = ast.parse(source)
    bound = _times_bound(tree)
    text = source.encode()
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
    found: dict[str, Constant] = {}
    for statement in tree.body:
        name, node = _assignment(statement)
        if node is None or bound[name] != 1:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        try:
            found[name] = Constant(name, _evaluate(node), start, end)
        except _NotConstantError:
            continue
    return found


def with_constants(source: str, changes: Mapping[str, Value]) -> str:
    """`source` with new values; a value that is already there leaves its text as it is.

    KeyError for a name that `read_constants` does not give, ValueError for a value that cannot be
    written down.
    """
    constants = read_constants(source)
    text = source.encode()
    for constant in sorted((constants[name] for name in changes), key=lambda c: -c.start):
        value = changes[constant.name]
        if not same_value(constant.value, value):
            text = text[: constant.start] + render(value).encode() + text[constant.end :]
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


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr | None]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target, value = statement.target, statement.value
    else:
        return "", None
    if isinstance(target, ast.Name) and _CONSTANT_NAME.fullmatch(target.id):
        return target.id, value
    return "", None


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
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    try:
        return _number(node)
    except _NotConstantError:
        return _derived(node)


def _derived(node: ast.expr) -> Derived:
    """`a.b`, `a.b + 1`, `a.b - 1`, `a.b * 2`, `a.b // 2`."""
    if isinstance(node, ast.Attribute):
        base = ast.unparse(node)
        if _BASE.fullmatch(base):
            return Derived(base)
    elif isinstance(node, ast.BinOp) and isinstance(node.left, ast.Attribute):
        plain, amount = _derived(node.left), _number(node.right)
        if isinstance(amount, int) and isinstance(node.op, ast.Add | ast.Sub):
            return replace(plain, plus=amount if isinstance(node.op, ast.Add) else -amount)
        if isinstance(amount, int) and amount > 0 and amount & (amount - 1) == 0:
            shift = amount.bit_length() - 1
            if isinstance(node.op, ast.Mult | ast.FloorDiv):
                return replace(plain, shift=shift if isinstance(node.op, ast.Mult) else -shift)
    raise _NotConstantError


def _number(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and not isinstance(node.value, bool):
        if isinstance(node.value, int | float) and abs(node.value) <= _LARGEST:
            return node.value
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand)
    elif isinstance(node, ast.BinOp):
        return _binary(node.op, _number(node.left), _number(node.right))
    raise _NotConstantError


def _binary(operator: ast.operator, left: float, right: float) -> int | float:
    operation = _ARITHMETIC.get(type(operator))
    if isinstance(operator, ast.Pow) and abs(right) <= _LARGEST_EXPONENT:
        operation = _power
    if operation is None:
        raise _NotConstantError
    try:
        value = operation(left, right)
    except (ArithmeticError, ValueError) as error:
        raise _NotConstantError from error
    if not abs(value) <= _LARGEST:
        raise _NotConstantError
    return value


def _power(base: float, exponent: float) -> float:
    value: object = base**exponent
    if not isinstance(value, int | float):
        raise _NotConstantError  # a complex number
    return value
