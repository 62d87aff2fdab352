"""The autocast mode of each thread: the dtypes in which ops compute inside ``tensorlite.autocast``.

An op call converts its arrays here, before its function runs. So a node saves the converted arrays, and the engine
converts the gradients back. Nothing is done while no thread is inside ``autocast``.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from ..backends.registry import BACKENDS, Array
from ..dtypes import DType, cast_array, float32, kind_of, promote_types
from . import version_counter
from .graph import Variable
from .thread_state import threads

__all__ = [
    "CLASSES", "AutocastMode", "Casting", "autocast_mode", "autocasts", "can_combine", "cast_arguments", "cast_tensors",
    "casting", "enter_context", "forget_conversion", "keep_autocast", "leave_context", "lowered", "without_autocast",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

CLASSES = ("lower", "float32", "widest", "follow")
"""The classes of ops, which ``tensorlite/amp/op_classes.py`` describes."""


class Casting:
    """What all threads share: how many ``autocast`` contexts are open, and the classes of the library's ops by name.

    Every op call reads ``active``, which costs less than the mode of the thread.
    """

    __slots__ = ("active", "classes")

    def __init__(self) -> None:
        self.active = 0
        self.classes: Mapping[str, str] = {}


class AutocastMode(threading.local):
    """The autocast mode of the current thread.

    dtypes: for each type of device on which autocast is on, the dtype of ops of the class "lower".
    chosen: for each type of device, the dtype that the innermost context chose, also if it switched autocast off.
    depth: how many contexts this thread is inside. keeps: whether conversions of leaves are kept.
    converted: the arrays of leaves that were converted, by their ids and the dtype; each with the leaf's array and the
        tick of the conversion. The end of the outermost context clears it.
    latest: the last conversion of another array, as (weak reference to it, dtype, weak reference to the result, tick).
    """

    dtypes: Mapping[str, DType] = {}
    chosen: Mapping[str, DType] = {}
    depth = 0
    keeps = True
    latest: tuple[Any, DType, Any, int] | None = None

    def __init__(self) -> None:
        self.converted: dict[tuple[int, DType], tuple[Array, Array, int]] = {}


casting = Casting()
autocast_mode = AutocastMode()


def cast_arguments(op: Any, args: Sequence[Any], arrays: list[Any]) -> list[Any]:
    """Return the arrays of an op call in the dtypes of the op's class; the same list if nothing is converted.

    op: the Op. args: its arguments, as Tensors. arrays: the same as raw arrays.
    """
    dtypes = autocast_mode.dtypes
    if not dtypes:
        return arrays
    kind = op.autocast or (casting.classes.get(op.name, "follow") if op.built_in else "follow")
    if kind == "follow":
        return arrays
    found = [i for i, a in enumerate(arrays) if _is_eligible(a)]
    lower = dtypes.get(BACKENDS[type(arrays[found[0]])].device_type) if found else None
    if lower is None:
        return arrays
    target = _target(kind, lower, [arrays[i].dtype for i in found])
    changed = [i for i in found if arrays[i].dtype != target]
    if not changed:
        return arrays
    converted = arrays.copy()
    for i in changed:
        leaf = i < len(args) and isinstance(args[i], Variable) and args[i].tracked and args[i].node is None
        converted[i] = _kept(arrays[i], target, leaf) if kind == "lower" else _convert(arrays[i], target)
    return converted


def _is_eligible(value: Any) -> bool:
    """Return whether autocast converts a value: an array of floating point numbers other than float64."""
    return type(value) in BACKENDS and value.dtype.itemsize < 8 and kind_of(value.dtype) == "f"


def _target(kind: str, lower: DType, dtypes: Iterable[DType]) -> DType:
    """Return the dtype that an op of a class computes in. lower: that of the class "lower"."""
    if kind == "widest":
        return functools.reduce(promote_types, dtypes)
    return lower if kind == "lower" else float32


def _convert(array: Array, dtype: DType) -> Array:
    """Return an array in another dtype. Numbers that are too large for float16 become infinite, without a warning."""
    result: Array = threads.state.run_without_hooks(cast_array, array, dtype)
    return result


def _kept(array: Array, dtype: DType, leaf: bool) -> Array:
    """Return an array in another dtype, converted anew only if that was not done before.

    leaf: whether it belongs to a leaf that requires gradients, such as a weight. Its conversion is kept until the
    outermost context ends. That of another array is kept until the next one, while both arrays are in use.
    """
    mode = autocast_mode
    if leaf and mode.keeps:
        key = id(array), dtype
        known = mode.converted.get(key)
        if known is None or version_counter.changed_since(array, known[2]):
            known = mode.converted[key] = (array, _convert(array, dtype), version_counter.clock())
        return known[1]
    if mode.latest is not None:
        source, kept_dtype, result, tick = mode.latest
        found = result() if source() is array and kept_dtype is dtype else None
        if found is not None and not version_counter.changed_since(array, tick):
            return found
    found = _convert(array, dtype)
    mode.latest = weakref.ref(array), dtype, weakref.ref(found), version_counter.clock()
    return found


def forget_conversion(array: Array) -> None:
    """Drop the kept conversions of a leaf's array, so that only its nodes keep them."""
    converted = autocast_mode.converted
    for key in [key for key in converted if key[0] == id(array)]:
        del converted[key]


def can_combine(*tensors: Any) -> bool:
    """Return whether autocast is on for these Tensors and converts all of their dtypes, so that they may differ.

    Values that are None are left out.
    """
    arrays = [getattr(t, "array", None) for t in tensors if t is not None]
    return bool(
        casting.active and autocast_mode.dtypes and all(map(_is_eligible, arrays))
        and BACKENDS[type(arrays[0])].device_type in autocast_mode.dtypes
    )  # fmt: skip


def lowered(x: Any) -> Any:
    """Return a Tensor in the dtype of the class "lower" if autocast is on and converts it; otherwise the Tensor."""
    return _converted_tree(x, autocast_mode.dtypes[BACKENDS[type(x.array)].device_type]) if can_combine(x) else x


# ---- functions of several ops ---------------------------------------------------------------


def autocasts(f: F) -> F:
    """Make a function of several ops convert its Tensors as one op of its class, and then run without autocast.

    Its class is that of its name in the table of classes.
    """

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if casting.active and (converted := cast_tensors(f, args, kwargs)) is not None:
            return without_autocast(f, *converted[0], **converted[1])
        return f(*args, **kwargs)

    return cast(F, call)


def cast_tensors(
    f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments with each Tensor in the dtype of the class of f, or None if autocast does not concern f."""
    dtypes = autocast_mode.dtypes
    kind = casting.classes.get(f.__name__.strip("_"), "follow") if dtypes else "follow"
    if kind == "follow":
        return None
    tensors = [t for t in _flat((args, kwargs)) if isinstance(t, Variable) and _is_eligible(t.array)]
    lower = dtypes.get(BACKENDS[type(tensors[0].array)].device_type) if tensors else None
    if lower is None:
        return None
    target = _target(kind, lower, [t.array.dtype for t in tensors])
    return _converted_tree(args, target), _converted_tree(kwargs, target)


def _flat(tree: Any) -> list[Any]:
    """Return the leaves of nested tuples, lists and dicts."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [leaf for item in tree for leaf in _flat(item)] if isinstance(tree, (tuple, list)) else [tree]


def _converted_tree(tree: Any, dtype: DType) -> Any:
    """Return nested tuples, lists and dicts with the Tensors that autocast converts in this dtype."""
    if isinstance(tree, dict):
        return {key: _converted_tree(value, dtype) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(_converted_tree(item, dtype) for item in tree)
    eligible = isinstance(tree, Variable) and _is_eligible(tree.array) and tree.array.dtype != dtype
    return tree.to(dtype) if eligible else tree


# ---- the mode of a thread -------------------------------------------------------------------


def without_autocast(f: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Return ``f(*args, **kwargs)``, computed with autocast off on every device."""
    mode = autocast_mode
    before, mode.dtypes = mode.dtypes, {}
    try:
        return f(*args, **kwargs)
    finally:
        mode.dtypes = before


def keep_autocast() -> Callable[[Callable[[], R]], R]:
    """Return a function that calls another one in the autocast mode that this thread has now, in any thread."""
    dtypes, chosen = autocast_mode.dtypes, autocast_mode.chosen

    def call(f: Callable[[], R]) -> R:
        mode = autocast_mode
        before = mode.dtypes, mode.chosen
        enter_context()
        mode.dtypes, mode.chosen = dtypes, chosen
        try:
            return f()
        finally:
            mode.dtypes, mode.chosen = before
            leave_context()

    return call


def enter_context() -> None:
    """Count a context that this thread enters."""
    autocast_mode.depth += 1
    with _counting:
        casting.active += 1


def leave_context() -> None:
    """Count a context that this thread leaves, and drop the kept conversions at the end of the outermost one."""
    mode = autocast_mode
    mode.depth -= 1
    if not mode.depth:
        mode.converted.clear()
        mode.latest = None
    with _counting:
        casting.active -= 1


_counting = threading.Lock()
