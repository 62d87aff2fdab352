"""The array type of the strict device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .syncs import record_sync

__all__ = [
    "METHODS", "StrictArray", "call_numpy", "host_index", "read_on_host", "reject_host_data", "unwrap",
    "with_signature",
]  # fmt: skip


class Flags(NamedTuple):
    """The memory flags of an array, as CuPy has them."""

    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class StrictArray:
    """An array on the strict device.

    host: the NumPy array that holds the entries. Reading it is not a synchronisation, so that tests can.
    base: the array that owns the memory, or None if this one does, as in CuPy.
    """

    __slots__ = ("__weakref__", "base", "host")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray[Any, Any], base: StrictArray | None = None) -> None:
        self.host, self.base = host, base

    # ---- attributes

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    strides = property(lambda self: self.host.strides)
    T = property(lambda self: call_numpy(np.transpose, self))

    @property
    def flags(self) -> Flags:
        """Return the memory flags."""
        flags = self.host.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, self.base is None)

    def __len__(self) -> int:
        return len(self.host)

    def __repr__(self) -> str:
        return f"StrictArray({self.host!r})"  # not a synchronisation, because debuggers and pytest print everything

    # ---- conversions that are errors

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        raise TypeError("implicit conversion of a strict array to a NumPy array. Move it with Tensor.cpu()")

    def __array_function__(self, function: Any, *rest: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with a strict array. Use the xp of its device")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or not any(isinstance(x, np.generic) for x in inputs):
            raise TypeError(f"numpy.{ufunc.__name__}.{method} was called with a strict array. Use the xp of its device")
        return call_numpy(ufunc, *inputs)  # `np.float32(2) * array` comes here

    def __iter__(self) -> Any:
        raise TypeError("iteration over a strict array would launch one kernel for each entry. Use array functions")

    # ---- reading values

    def item(self) -> Any:
        """Return the only entry as a Python number. This is a synchronisation."""
        return read_on_host(self, "item").item()

    def tolist(self) -> Any:
        """Return the entries as lists of Python numbers. This is a synchronisation."""
        return read_on_host(self, "tolist").tolist()

    def __bool__(self) -> bool:
        return bool(read_on_host(self, "bool"))

    def __int__(self) -> int:
        return int(read_on_host(self, "int"))

    def __float__(self) -> float:
        return float(read_on_host(self, "float"))

    def __complex__(self) -> complex:
        return complex(read_on_host(self, "complex"))

    def __index__(self) -> int:
        return read_on_host(self, "index").__index__()

    # ---- indexing

    def __getitem__(self, index: Any) -> StrictArray:
        items, picks = host_index(self, index, "getitem")
        found: StrictArray = _wrapped(self.host[items], () if picks else (self,))
        return found

    def take(self, indices: Any, axis: int | None = None, out: StrictArray | None = None) -> StrictArray:
        """Return entries along an axis. As on a GPU, an index out of range wraps around."""
        reject_host_data([indices], "take")
        found: StrictArray = call_numpy(np.take, self, indices, axis, mode="wrap")
        if out is None:
            return found
        out[...] = found
        return out

    def __setitem__(self, index: Any, value: Any) -> None:
        reject_host_data([value], "setitem")
        with np.errstate(all="ignore"):
            self.host[host_index(self, index, "setitem")[0]] = unwrap(value)


def read_on_host(array: StrictArray, how: str) -> np.ndarray[Any, Any]:
    """Return the NumPy array behind ``array``, and record a synchronisation of the kind ``how``."""
    record_sync(how)
    return array.host


def host_index(array: StrictArray, index: Any, name: str) -> tuple[tuple[Any, ...], list[np.ndarray[Any, Any]]]:
    """Return the index for the NumPy array behind ``array``, and the index arrays in it.

    It has an Ellipsis if it has no index arrays, so that NumPy returns a view, not a scalar, for one entry.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    reject_host_data(items, name)
    if not any(item is Ellipsis for item in items):
        items.append(...)
    taken = sum(item.ndim if _is_mask(item) else item is not None and item is not ... for item in items)
    dim = 0
    for k, item in enumerate(items):
        if item is Ellipsis:
            dim += array.ndim - taken
        elif isinstance(item, StrictArray) and not _is_mask(item):
            items[k] = item.host % max(1, array.shape[dim])
        elif isinstance(item, StrictArray):
            record_sync("mask")  # only the device knows how many entries it selects
            items[k], dim = item.host, dim + item.ndim - 1
        dim += item is not None and item is not Ellipsis
    picks = [item for item in items if isinstance(item, np.ndarray)]
    if picks and items[-1] is Ellipsis:
        items.pop()  # NumPy returns a scalar, which is wrapped as a 0-d array
    return tuple(items), picks


def _is_mask(item: Any) -> bool:
    return isinstance(item, StrictArray) and item.dtype == bool


# ---- calls ----------------------------------------------------------------------------------


def _reject_numpy(values: Any, name: str) -> None:
    """Raise TypeError, as CuPy does, if one of the values, or an item of a list of them, is a NumPy array."""
    for value in values:
        if isinstance(value, np.ndarray):
            what = f"{value.dtype}{value.shape}"
            raise TypeError(f"{name}: expected strict arrays, got a NumPy array {what}. Move it with xp.asarray()")
        if isinstance(value, (list, tuple)):
            _reject_numpy(value, name)


def reject_host_data(values: Any, name: str) -> None:
    """Raise TypeError for NumPy arrays, lists and tuples, because they would be moved to the device implicitly."""
    _reject_numpy(values, name)
    for value in values:
        if isinstance(value, (list, tuple)):
            raise TypeError(f"{name}: expected strict arrays, got a {type(value).__name__}. Move it with xp.asarray()")


def unwrap(value: Any) -> Any:
    """Return the NumPy array behind a strict array, also inside lists and tuples. Return other values unchanged."""
    if isinstance(value, StrictArray):
        return value.host
    return type(value)(map(unwrap, value)) if type(value) in (list, tuple) else value


def _wrapped(result: Any, sources: tuple[Any, ...] = ()) -> Any:
    """Return results as strict arrays. One that shares memory with a source is a view of it."""
    if isinstance(result, (list, tuple)):
        return [_wrapped(r, sources) for r in result]
    if isinstance(result, np.generic):
        return StrictArray(np.asarray(result))
    if not isinstance(result, np.ndarray):
        return result
    for source in sources:
        if isinstance(source, StrictArray) and result.size and np.may_share_memory(result, source.host):
            owner = source if source.base is None else source.base
            _make_writeable(result, source.host)
            return source if result is source.host else StrictArray(result, owner)
    return StrictArray(result)


def _make_writeable(view: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
    """Let a view be written, as all arrays of CuPy can be, unless an entry of its source is several of its own.

    NumPy's broadcast_to and diagonal give read-only views. A write into an array that repeats entries stays an error.
    """
    repeats = any(stride == 0 and size > 1 for stride, size in zip(view.strides, view.shape, strict=True))
    if source.flags.writeable and not (view.flags.writeable or repeats):
        view.flags.writeable = True


def call_numpy(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a NumPy function on strict arrays, without arithmetic warnings, because a GPU gives none."""
    _reject_numpy([*args, *kwargs.values()], getattr(function, "__name__", str(function)))
    with np.errstate(all="ignore"):
        result = function(*map(unwrap, args), **{name: unwrap(value) for name, value in kwargs.items()})
    return _wrapped(result, (kwargs.get("out"), *args))


def with_signature(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """Return a NumPy function as one of the device that accepts the arguments of CuPy's ``signature`` only."""
    kind, required = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    names = inspect.Signature([
        inspect.Parameter(name.rstrip("?"), kind, default=None if name.endswith("?") else required)
        for name in signature.split()
    ])  # fmt: skip

    required_names = [name for name in signature.split() if not name.endswith("?")]

    def f(*args: Any, **kwargs: Any) -> Any:
        try:
            given = names.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{function.__name__}: CuPy's arguments are {signature!r}: {error}") from None
        # CuPy's names of required arguments may differ from NumPy's, and so may the order of optional ones.
        return call_numpy(function, *(given.pop(name) for name in required_names), **given)

    f.__name__ = function.__name__
    return f


# ---- methods --------------------------------------------------------------------------------

METHODS = {
    "all": "self axis? out? keepdims?", "any": "self axis? out? keepdims?",
    "argmax": "self axis? out? keepdims?", "argmin": "self axis? out? keepdims?",
    "astype": "self dtype order? casting? subok? copy?", "conj": "self", "copy": "self order?",
    "cumsum": "self axis? dtype? out?", "diagonal": "self offset? axis1? axis2?", "fill": "self value",
    "flatten": "self order?", "max": "self axis? out? keepdims?", "mean": "self axis? dtype? out? keepdims?",
    "min": "self axis? out? keepdims?", "prod": "self axis? dtype? out? keepdims?", "ravel": "self order?",
    "repeat": "self repeats axis?", "round": "self decimals? out?", "squeeze": "self axis?",
    "std": "self axis? dtype? out? ddof? keepdims?", "sum": "self axis? dtype? out? keepdims?",
    "swapaxes": "self axis1 axis2", "trace": "self offset? axis1? axis2? dtype? out?",
    "var": "self axis? dtype? out? ddof? keepdims?", "view": "self dtype?",
}  # fmt: skip
"""The methods of ``cupy.ndarray`` that are available, with their arguments (``?`` marks optional ones)."""

for _name, _signature in METHODS.items():
    setattr(StrictArray, _name, with_signature(getattr(np.ndarray, _name), _signature))


def _method(name: str) -> Callable[..., Any]:
    return lambda self, *args: call_numpy(getattr(np.ndarray, name), self, *args)


def _operator(name: str) -> Callable[..., Any]:
    def f(self: StrictArray, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", self) is None:  # as in CuPy, the other operand computes the result
            return NotImplemented
        reject_host_data([other], name)
        return call_numpy(getattr(np.ndarray, f"__{name}__"), self, other)

    return f


def _in_place(name: str) -> Callable[..., Any]:
    def f(self: StrictArray, other: Any) -> StrictArray:
        reject_host_data([other], name)
        call_numpy(getattr(np.ndarray, f"__{name}__"), self, other)
        return self

    return f


_OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
for _name in ["reshape", "transpose", *(f"__{name}__" for name in "neg pos abs invert".split())]:
    setattr(StrictArray, _name, _method(_name))
for _name in [*(prefix + name for name in _OPERATORS for prefix in ("", "r")), *"eq ne lt le gt ge".split()]:
    setattr(StrictArray, f"__{_name}__", _operator(_name))
for _name in _OPERATORS:
    if _name != "matmul":
        setattr(StrictArray, f"__i{_name}__", _in_place(f"i{_name}"))
