"""Byte formulas: one string over named shapes, evaluated exactly and without `eval`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "log2": math.log2,
}


def evaluate(formula: str, shapes: Mapping[str, float]) -> float:
    """Evaluate `formula` with `shapes`; `max min ceil floor log2` are known.

    >>> evaluate("4*(2*max(m,n)*r + min(m,n)*r)", {"m": 3, "n": 5, "r": 2})
    104
    """
    return _value(_tree(formula).body, shapes, formula)  # type: ignore[no-any-return]


def names(formula: str) -> frozenset[str]:
    """The shapes that a formula asks for.

    >>> sorted(names("4*d*N + min(N, 7)"))
    ['N', 'd']
    """
    found = {node.id for node in ast.walk(_tree(formula)) if isinstance(node, ast.Name)}
    return frozenset(found - _CALLS.keys())


def _tree(formula: str) -> ast.Expression:
    try:
        return ast.parse(formula, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"formula {formula!r} is not an expression; write one such as '4*N*d + 16*E'") from error


def _value(node: ast.expr, shapes: Mapping[str, float], formula: str) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in shapes:
            return shapes[name]
        case ast.Name(id=name):
            raise ValueError(f"formula {formula!r} asks for {name}, given {sorted(shapes)}; add {name}=...")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, shapes, formula), _value(right, shapes, formula))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, shapes, formula)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
            return _CALLS[name](*(_value(arg, shapes, formula) for arg in args))
    raise ValueError(
        f"formula {formula!r} uses {ast.unparse(node)!r}; only numbers, names, + - * / // % ** and {sorted(_CALLS)}"
    )
