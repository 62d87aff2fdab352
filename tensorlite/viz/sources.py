"""The source text of gradient rules, with file and line."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import types
from collections.abc import Callable
from typing import Any

from ..autograd.graph import Plan

__all__ = ["rule_function", "source_of", "unwrapped"]

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def rule_function(plan: Plan, k: int) -> tuple[Callable[..., Any], str | None]:
    """Return the gradient rule of the k-th differentiated input, or the one ``backward`` function of an op.

    The second result is the name of the argument that it is for, None if it is for all of them.
    """
    if plan.op is None:
        return plan.rules[k][0], plan.input_names[k]
    if plan.op.backward is not None:
        return plan.op.backward, None
    rule = plan.op.rule(plan.needs[k])
    assert rule is not None  # because the input is differentiated
    return rule, plan.input_names[k]


def source_of(f: Callable[..., Any]) -> dict[str, Any]:
    """Return the source of a function: ``text``, ``file`` and ``line``. The text is a reason if it is unknown."""
    found = unwrapped(f)
    if found is None:
        return {"text": f"source not available: {f!r} is not written in Python", "file": None, "line": None}
    code = found.__code__
    return {"text": _text(code, found.__globals__), "file": _short(code.co_filename), "line": code.co_firstlineno}


def unwrapped(f: Callable[..., Any]) -> types.FunctionType | None:
    """Return the Python function inside a partial, a method or an object that is called; None if there is none."""
    while isinstance(f, functools.partial):
        f = f.func
    if isinstance(f, types.MethodType):
        f = f.__func__
    if not isinstance(f, types.FunctionType):
        f = vars(type(f)).get("__call__")
    return f if isinstance(f, types.FunctionType) else None


def _short(file: str) -> str:
    """Return a path relative to this library's folder, if it is inside; else as it is."""
    return os.path.relpath(file, _ROOT) if file.startswith(_ROOT + os.sep) else file


@functools.lru_cache(maxsize=256)
def _functions_of(file: str, text: str) -> dict[int, list[ast.AST]]:
    """Return the lambdas and functions in a file's text, by their first line."""
    found: dict[int, list[ast.AST]] = {}
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef)):
            decorators = getattr(node, "decorator_list", [])
            line = min([node.lineno, *(d.lineno for d in decorators)])
            found.setdefault(line, []).append(node)
    return found


def _text(code: types.CodeType, names: dict[str, Any]) -> str:
    lines = linecache.getlines(code.co_filename, names)
    if not lines:
        return f"source not available: the code of {code.co_name} is not in a file"
    text = "".join(lines)
    found = [n for n in _functions_of(code.co_filename, text).get(code.co_firstlineno, []) if _is(n, code, lines)]
    if not found:
        return f"source not available: {os.path.basename(code.co_filename)} has changed since it was loaded"
    segment = _segment(lines, found[0])
    first = lines[code.co_firstlineno - 1]
    indentation = first[: len(first) - len(first.lstrip())]
    return segment.replace(f"\n{indentation}", "\n")


def _segment(lines: list[str], node: Any) -> str:
    """Return the text of a node of the syntax tree. ``ast.get_source_segment`` splits the whole file each time."""
    chosen = [line.encode() for line in lines[node.lineno - 1 : node.end_lineno]]
    chosen[-1] = chosen[-1][: node.end_col_offset]  # offsets are those of UTF-8
    chosen[0] = chosen[0][node.col_offset :]
    return b"".join(chosen).decode()


def _is(node: ast.AST, code: types.CodeType, lines: list[str]) -> bool:
    """Return whether the code was compiled from a function of the syntax tree."""
    if not isinstance(node, ast.Lambda):
        return getattr(node, "name", None) == code.co_name
    if code.co_name != "<lambda>":
        return False
    places = [p for p in code.co_positions() if p[0] is not None and p[2] is not None]
    inside = (node.body.lineno, node.body.col_offset), (node.body.end_lineno, node.body.end_col_offset)
    used = [((p[0], p[2]), (p[1], p[3])) for p in places]
    body = [(a, b) for a, b in used if a != b and a[1] is not None]
    return bool(body) and all(inside[0] <= a and b <= inside[1] for a, b in body)
