"""The care that ops of users get and ops of this library do not need: shared memory, missing rules, errors in rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..backends.registry import BACKENDS, describe_array
from ..dtypes import is_floating
from ..errors import DTypeError, GraphError
from .graph import Value, Variable, wrap
from .thread_state import threads

__all__ = ["call_forward", "check_recordable", "guarded_backward", "guarded_rule", "run_user"]

_OTHER_MEANING = {"repeat", "sort", "std", "transpose", "var"}
"""Methods of NumPy's arrays and of Tensors that take the same arguments and compute something else."""


# ---- the forward function -------------------------------------------------------------------


def _read_only(value: Any) -> Any:
    """Return a read-only view of a NumPy array; anything else unchanged, because other arrays cannot be read-only."""
    if type(value) not in BACKENDS or not getattr(value.flags, "writeable", False):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _owner(array: Any) -> Any:
    """Return the object whose memory an array shows."""
    while True:
        base = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
        if base is None:
            return array
        array = base


def _call(f: Callable[..., Any], *args: Any) -> Any:
    return f(*args)


def run_user(f: Callable[..., Any], *args: Any) -> Any:
    """Return ``f(*args)`` for the function of a user's op: with NumPy's warnings, and through this thread's hooks."""
    hook = threads.state.hooks.forward
    return f(*args) if hook is None else hook(_call, f, *args)


def call_forward(op: Any, xp: Any, arrays: Sequence[Any]) -> Any:
    """Return the results of an op's function; none shares memory with an argument or another result.

    op: the Op. A result that shares memory, also with an array that the function keeps for its next call, is copied. A
    view of the first argument that the op declares (``view=True``) is not. Raises GraphError if the function writes
    into an argument.
    """
    given = [_read_only(a) for a in arrays]
    # NumPy's add.at, and its like, write into read-only arrays, so its traces are looked for.
    before = [(a, a.copy()) for a in arrays if type(a) in BACKENDS] if "at" in op.forward.__code__.co_names else []
    try:
        out = run_user(op.forward, xp, *given)
    except Exception as error:
        text = str(error).lower()
        if "read-only" not in text and "readonly" not in text:
            raise
        raise _writes_error(op, f" ({error})") from error
    for a, old in before:
        if xp.to_numpy(a).tobytes() != xp.to_numpy(old).tobytes():
            a[...] = old
            raise _writes_error(op)
    taken = {id(_owner(a)) for a in arrays if type(a) in BACKENDS}
    single = not (op.multi_output or op.aux)
    results = [out] if single else list(out)
    del out  # because the references to the results are counted
    taken |= {id(_owner(a)) for a, n in zip(results, _references(results), strict=True) if n > _references_of_a_new(a)}
    for k, result in enumerate(results if op.multi_output else results[:1]):
        results[k] = _unshared(op, result, arrays, taken)
        if type(results[k]) in BACKENDS:
            taken.add(id(_owner(results[k])))
    return results[0] if single else tuple(results)


def _references(results: list[Any]) -> list[int]:
    """Return how many references there are to the memory of each array in a list."""
    return [sys.getrefcount(_owner(a)) for a in results]


_NEW, _NEW_VIEW = _references([np.empty(1)])[0], _references([np.empty(2)[:1]])[0]


def _references_of_a_new(array: Any) -> int:
    """Return the references to the memory of an array that nothing else holds, such as a buffer of the function."""
    return _NEW if _owner(array) is array else _NEW_VIEW


def _writes_error(op: Any, reason: str = "") -> GraphError:
    return GraphError(
        f"{op.name}: expected a function that leaves its arguments unchanged, got one that writes into an argument"
        f"{reason}. Compute a new array (x * 2 instead of x *= 2), or copy the argument first."
    )


def _unshared(op: Any, out: Any, arrays: Sequence[Any], taken: set[int]) -> Any:
    """Return a result, or a copy of it if its memory is taken and it is not a declared view of the first argument."""
    if type(out) not in BACKENDS or id(_owner(out)) not in taken:
        return out
    first = arrays[0]
    if not op.view or type(first) not in BACKENDS or _owner(out) is not _owner(first):
        return out.copy()
    if getattr(first.flags, "writeable", False) and not out.flags.writeable and 0 not in out.strides:
        out.flags.writeable = True  # as the view would be if the argument had not been made read-only
    return out


def check_recordable(op: Any, args: Sequence[Any], arrays: Sequence[Any], outs: Iterable[Any]) -> None:
    """Raise an error if the gradient of a call would be lost, or could only fail in the backward pass.

    args: the arguments, some of which require gradients. arrays: the same as raw arrays. outs: the results.

    Raises GraphError for an op without gradient rules, DTypeError for floating point arguments of different dtypes.
    """
    if not (op.rules or op.backward):
        if any(isinstance(o, float) or getattr(o, "dtype", np.dtype(bool)).kind == "f" for o in outs):
            names = op.argument_names(len(args))
            tracked = next(k for k, a in enumerate(args) if isinstance(a, Variable) and a.tracked)
            raise GraphError(
                f"{op.name}: no gradient is defined for its argument {names[tracked]!r}, which requires gradients. "
                f"Give op() a gradient rule for each argument, or detach() the argument if no gradient is intended."
            )
        return
    if op.dtypes is None:
        differentiable = arrays if op.variadic or not op.rules else arrays[: len(op.rules)]
        floats = [a for a in differentiable if type(a) in BACKENDS and is_floating(a.dtype)]
        if len({a.dtype for a in floats}) > 1:
            raise DTypeError(
                f"{op.name}: expected arguments of one floating point dtype, got "
                f"{', '.join(map(describe_array, floats))}. Convert them with .to(), or give op() dtypes='promote'."
            )


# ---- gradient rules -------------------------------------------------------------------------


def guarded_rule(op_name: str, argument: str, rule: Callable[..., Any], source: Any) -> Callable[..., Any]:
    """Return a gradient rule of a user's op as the engine calls it. source: the function that the user wrote.

    The rule gets raw arrays, or Tensors if it is recorded. One that uses methods of Tensors gets Tensors in both cases.
    Errors name the op and the argument.
    """
    what = f"gradient rule of argument {argument!r}"
    code = getattr(source, "__code__", None)
    ways = [_on_arrays, _on_tensors]
    if code is not None and not _OTHER_MEANING.isdisjoint(code.co_names):
        ways.reverse()

    def recorded(g: Value, *values: Any) -> Value:
        try:
            d = rule(g, *values)
        except Exception as error:
            raise _explained(op_name, what, error, True) from error
        return wrap(np.asarray(d) if isinstance(d, np.generic) else d) if _is_raw(d) else d

    def guarded(g: Value, *values: Any) -> Value:
        if any(isinstance(v, Variable) for v in (g if isinstance(g, tuple) else (g,))):
            return recorded(g, *values)
        try:
            return ways[0](rule, g, values)
        except (AttributeError, TypeError) as error:
            try:
                return ways[1](rule, g, values)
            except Exception as again:
                shown = again if isinstance(error, AttributeError) or ways[0] is _on_tensors else error
                raise _explained(op_name, what, shown, False) from shown
        except Exception as error:
            raise _explained(op_name, what, error, False) from error

    return guarded


def _is_raw(d: Any) -> bool:
    return type(d) in BACKENDS or isinstance(d, np.generic)


def _on_arrays(rule: Callable[..., Any], g: Value, values: Sequence[Any]) -> Any:
    """Return what the rule computes on raw arrays, which it cannot change."""
    given = tuple(map(_read_only, g)) if isinstance(g, tuple) else _read_only(g)
    d = rule(given, *map(_read_only, values))
    return g if d is given else d.array if isinstance(d, Variable) else d


def _on_tensors(rule: Callable[..., Any], g: Value, values: Sequence[Any]) -> Any:
    """Return what the rule computes on Tensors, as a raw array."""

    def tensor(value: Any) -> Any:
        return wrap(value) if type(value) in BACKENDS else value

    d = rule(tuple(map(tensor, g)) if isinstance(g, tuple) else tensor(g), *map(tensor, values))
    return d.array if isinstance(d, Variable) else d


def guarded_backward(op_name: str, backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the ``backward`` function of a user's op as the engine calls it: it cannot write; errors name the op."""

    def guarded(xp: Any, g: Value, *values: Any) -> Any:
        given = tuple(map(_read_only, g)) if isinstance(g, tuple) else _read_only(g)
        try:
            found = backward(xp, given, *map(_read_only, values))
        except Exception as error:
            raise _explained(op_name, "backward function", error, False) from error
        return tuple(g if d is given else d for d in found) if isinstance(found, tuple) else found

    return guarded


def _explained(op_name: str, what: str, error: Exception, recorded: bool) -> Exception:
    """Return the error to raise instead of one that a rule or a backward function raised."""
    text = str(error)
    message = f"{op_name}: its {what} raised {type(error).__name__}: {text}"
    message += "" if text.endswith(".") else "."
    if "read-only" in text.lower():
        message += " It must not change g or the saved values, which other rules use too."
    elif recorded and any(word in text.lower() for word in ("numpy", "ufunc", "__array__")):
        message += " With create_graph=True a rule gets Tensors: use operators and ops, such as tl.cos for np.cos."
    if type(error).__module__.startswith(("builtins", "numpy.", "tensorlite.")):
        for kind in type(error).__mro__:
            if kind in _PLAIN or kind.__module__ == "tensorlite.errors":
                return kind(message)
    error.add_note(message)
    return error


_PLAIN = {TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError, ArithmeticError}
