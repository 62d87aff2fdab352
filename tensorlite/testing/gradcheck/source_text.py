"""The source text of a function, for a call that can be pasted and run."""

from __future__ import annotations

import ast
import functools
import importlib
import linecache
import sys
import types
from collections.abc import Callable
from typing import Any

__all__ = ["Label", "source_text"]

# Modules of the library that a function may come from, and the names that their users give them.
_MODULES = (("tensorlite", "tl"), ("tensorlite.nn.functional", "F"), ("numpy", "np"))
_PACKAGE = __name__.rpartition(".gradcheck")[0]


class Label(str):
    """The name of a function in messages, with an expression that is this function.

    expression: a function that returns the expression. It is called for a failure only.
    """

    expression: Callable[[], str]

    def __new__(cls, text: str, expression: Callable[[], str]) -> Label:
        label = super().__new__(cls, text)
        label.expression = expression
        return label


def source_text(f: Any, name: str | None = None) -> str:
    """Return an expression that is the function f where the check was called.

    This is the name of a variable or of a function of the library, else the source of a lambda, else ``name``.
    """
    if variable := _variable(f):
        return variable
    if isinstance(f, functools.partial):
        given = [source_text(f.func), *map(_value, f.args), *(f"{k}={_value(v)}" for k, v in f.keywords.items())]
        return f"functools.partial({', '.join(given)})"
    if isinstance(f, types.MethodType):
        return f"{source_text(f.__self__, type(f.__self__).__name__)}.{f.__name__}"
    made_of = getattr(f, "made_of", None)
    if made_of is not None and (text := made_of(source_text)):
        return str(text)
    if isinstance(f, types.FunctionType) and f.__code__.co_name == "<lambda>" and (text := _lambda_text(f)):
        return text
    own = getattr(f, "__name__", type(f).__name__)
    return next((str(text) for text in (own, name) if text and text.isidentifier()), "f")


def _value(x: Any) -> str:
    return source_text(x) if callable(x) else repr(x)


def _variable(f: Any) -> str:
    """Return the name of a variable that is f in the code that called the check, or an empty string."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith((_PACKAGE, "contextlib")):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is not None:
        for names in (frame.f_locals, frame.f_globals):
            for key, value in list(names.items()):
                if value is f and not key.startswith("__"):
                    return key
    name = getattr(f, "__name__", "")
    for module, short in _MODULES:
        if module in sys.modules and getattr(importlib.import_module(module), name or "-", None) is f:
            return f"{short}.{name}"
    return ""


def _lambda_text(f: Any) -> str:
    """Return the source of a lambda, or an empty string if it is not known."""
    code = f.__code__
    lines = linecache.getlines(code.co_filename, f.__globals__)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return ""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    if not found:
        return ""
    node = max(found, key=lambda node: _likeness(node, code))  # several may be on one line
    return f"({' '.join((ast.get_source_segment(''.join(lines), node) or '').split())})"


def _likeness(node: ast.Lambda, code: types.CodeType) -> int:
    """Return how many properties of the code the lambda has: parameters, names, numbers."""
    inside = list(ast.walk(node.body))
    parameters = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    names = {n.id for n in inside if isinstance(n, ast.Name)} | {n.attr for n in inside if isinstance(n, ast.Attribute)}
    numbers = {n.value for n in inside if isinstance(n, ast.Constant) and isinstance(n.value, (int, float))}
    count = code.co_argcount + code.co_kwonlyargcount
    return (
        2 * (parameters == list(code.co_varnames[:count]))
        + (names - set(parameters) == {*code.co_names, *code.co_freevars} - set(parameters))
        + (numbers == {c for c in code.co_consts if isinstance(c, (int, float))})
    )
