"""The functions of this library that a gradient rule calls, with their source.

The rule of a fused op is one call: ``xp.linear_backward(g, x, weight, needs)``. The mathematics is in the kernel. Those
of :mod:`tensorlite.backends.reference` are the plainest. The kernels of the CPU and of CUDA compute the same.
"""

from __future__ import annotations

import ast
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from .. import ops
from ..autograd.op_definition import Op
from ..backends import reference
from .sources import source_of, unwrapped

__all__ = ["called_functions"]

_MOST = 6  # functions that are shown for one rule: those that it calls itself come first
_NAMED = {
    *ops.__all__, "sum_over", "sum_to", "scatter_add_into",
    "cholesky", "eigh", "inv", "qr", "solve", "svd", "check_matrices", "call_lapack",
}  # fmt: skip
"""Public ops, kernels whose names say what they compute, and functions that only check or call LAPACK."""
_PLACES = (f"{ops.__name__}.", reference.__name__)
_LIBRARY = ops.__name__.partition(".")[0] + "."
_HANDLES_ARGUMENTS = f"{ops.__name__}.arguments"


def called_functions(rule: Callable[..., Any]) -> list[dict[str, Any]]:
    """Return the helper functions and reference kernels that a rule calls, and those that these call.

    Each has ``name``, ``text``, ``file`` and ``line``. Public ops are not among them: their names say what they do.
    """
    first = unwrapped(rule)
    if first is None:
        return []
    found: dict[FunctionType, dict[str, Any]] = {}
    waiting = deque([first])
    while waiting and len(found) < _MOST:
        for f in _called_by(waiting.popleft()):
            if f is not first and f not in found and len(found) < _MOST:
                found[f] = {"name": f.__name__, **source_of(f)}
                waiting.append(f)
    return list(found.values())


def _called_by(f: FunctionType) -> Iterator[FunctionType]:
    """Iterate over the helpers, kernels and internal ops that a function calls by name."""
    text = source_of(f)["text"]
    try:
        tree = ast.parse(f"({text})" if text.startswith("lambda") else text)  # a lambda may have several lines
    except SyntaxError:  # there is no source
        return
    names = {**f.__globals__, **inspect.getclosurevars(f).nonlocals}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called: Any = None
        if isinstance(node.func, ast.Name):
            called = names.get(node.func.id)
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            if node.func.value.id == "xp" and node.func.attr in reference.__all__:
                called = vars(reference)[node.func.attr]
        if type(getattr(called, "op", None)) is Op:
            called = called.op.forward
        if isinstance(called, FunctionType) and _is_shown(called, f):
            yield called


def _is_shown(called: FunctionType, caller: FunctionType) -> bool:
    """Return whether a function is part of the mathematics of its caller, and its source is worth a look."""
    home = str(called.__module__)
    if not home.startswith(_LIBRARY):
        return home == caller.__module__
    return called.__name__.strip("_") not in _NAMED and home.startswith(_PLACES) and home != _HANDLES_ARGUMENTS
