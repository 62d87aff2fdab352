"""A GPU that is none: the device type "fake", whose arrays are NumPy's behind a counter and as strict as CuPy's.

What a GPU would run can so be run anywhere. Like CuPy's, its arrays refuse to become NumPy arrays unasked and to meet
them in one call, its reductions return 0-d arrays, an index array out of range wraps around, and its functions have
CuPy's arguments, not NumPy's. Whatever would make a program wait for the GPU is noted in ``SYNCS``.

Importing this module makes the device known; nothing else changes.
"""
import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlite import backend
from tensorlite.kernels import reference

SYNCS: list[str] = []
"""What has read values on the host since the list was last cleared, in order."""


class FakeArray:
    """An array on the device. ``base`` is the array that owns its memory, None if that is itself, as in CuPy."""

    __slots__ = ("__weakref__", "base", "host")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray, base: "FakeArray | None" = None) -> None:
        self.host, self.base = host, base

    # ---- what it is

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: self.host.flags)
    T = property(lambda self: call(np.transpose, self))

    def __len__(self) -> int:
        return len(self.host)

    def __repr__(self) -> str:
        return f"FakeArray({self.host!r})"

    # ---- what must not happen unasked

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, function: Any, *rest: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with an array of the device")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or not any(isinstance(x, np.generic) for x in inputs):
            raise TypeError(f"numpy.{ufunc.__name__}.{method} was called with an array of the device")
        return call(ufunc, *inputs)  # `np.float32(2) * array` comes here

    def __iter__(self) -> Any:
        raise TypeError("iteration would launch a kernel an entry")

    # ---- reading values

    def item(self) -> Any:
        return self._read("item").item()

    def tolist(self) -> Any:
        return self._read("tolist").tolist()

    def __bool__(self) -> bool:
        return bool(self._read("bool"))

    def __int__(self) -> int:
        return int(self._read("int"))

    def __float__(self) -> float:
        return float(self._read("float"))

    def __index__(self) -> int:
        return self._read("index").__index__()  # type: ignore[no-any-return]

    def _read(self, how: str) -> np.ndarray:
        SYNCS.append(how)
        return self.host

    # ---- indexing

    def __getitem__(self, index: Any) -> "FakeArray":
        items, picks = self._index(index)
        if any(item.dtype == bool for item in picks):
            SYNCS.append("mask")  # the size of the result is known on the device alone
        return wrapped(self.host[items], () if picks else (self,))

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse_numpy([value], "setitem")
        self.host[self._index(index)[0]] = unwrapped(value)

    def _index(self, index: Any) -> tuple[tuple[Any, ...], list[np.ndarray]]:
        """The index of the host's array, with an Ellipsis so that one entry is a view too, and its arrays."""
        items = list(index) if isinstance(index, tuple) else [index]
        refuse_numpy(items, "getitem")
        if not any(item is Ellipsis for item in items):
            items.append(...)
        taken = sum(item.ndim if _is_mask(item) else item is not None and item is not ... for item in items)
        dim = 0
        for k, item in enumerate(items):
            if item is Ellipsis:
                dim += self.ndim - taken
            elif isinstance(item, FakeArray) and not _is_mask(item):
                items[k] = item.host % max(1, self.shape[dim])
            elif isinstance(item, FakeArray):
                items[k], dim = item.host, dim + item.ndim - 1
            dim += item is not None and item is not Ellipsis
        picks = [item for item in items if isinstance(item, np.ndarray)]
        if picks and items[-1] is Ellipsis:
            items.pop()  # NumPy returns a scalar copy, which is wrapped again
        return tuple(items), picks


def _is_mask(item: Any) -> bool:
    return isinstance(item, FakeArray) and item.dtype == bool


# ---- calls ----------------------------------------------------------------------------------


def refuse_numpy(values: Any, name: str) -> None:
    """Raise TypeError, as CuPy does, if there is a NumPy array among these, or in a list of them."""
    for value in values:
        if isinstance(value, np.ndarray):
            raise TypeError(f"{name}: unsupported type {type(value)}")
        if isinstance(value, (list, tuple)):
            refuse_numpy(value, name)


def unwrapped(value: Any) -> Any:
    if isinstance(value, FakeArray):
        return value.host
    return type(value)(map(unwrapped, value)) if type(value) in (list, tuple) else value


def wrapped(result: Any, sources: tuple[Any, ...] = ()) -> Any:
    """Results as arrays of the device; one that shares memory with a source is a view of it."""
    if isinstance(result, (list, tuple)):
        return [wrapped(r, sources) for r in result]
    if isinstance(result, np.generic):
        return FakeArray(np.asarray(result))
    if not isinstance(result, np.ndarray):
        return result
    for source in sources:
        if isinstance(source, FakeArray) and result.size and np.may_share_memory(result, source.host):
            owner = source if source.base is None else source.base
            return source if result is source.host else FakeArray(result, owner)
    return FakeArray(result)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A function of NumPy's on arrays of the device."""
    refuse_numpy([*args, *kwargs.values()], getattr(function, "__name__", str(function)))
    result = function(*map(unwrapped, args), **{name: unwrapped(value) for name, value in kwargs.items()})
    return wrapped(result, (kwargs.get("out"), *args))


def lifted(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """A function of NumPy's as one of the device, with this signature and no other argument."""
    kind, required = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    names = inspect.Signature([
        inspect.Parameter(name.rstrip("?"), kind, default=None if name.endswith("?") else required)
        for name in signature.split()
    ])  # fmt: skip

    def f(*args: Any, **kwargs: Any) -> Any:
        names.bind(*args, **kwargs)
        return call(function, *args, **kwargs)

    f.__name__ = function.__name__
    return f


# ---- methods --------------------------------------------------------------------------------

METHODS = {
    "all": "self axis? out? keepdims?", "any": "self axis? out? keepdims?",
    "argmax": "self axis? out? dtype? keepdims?", "argmin": "self axis? out? dtype? keepdims?",
    "astype": "self dtype order? casting? subok? copy?", "copy": "self order?", "cumsum": "self axis? dtype? out?",
    "diagonal": "self offset? axis1? axis2?", "fill": "self value", "max": "self axis? out? keepdims?",
    "mean": "self axis? dtype? out? keepdims?", "min": "self axis? out? keepdims?",
    "prod": "self axis? dtype? out? keepdims?", "squeeze": "self axis?", "sum": "self axis? dtype? out? keepdims?",
    "swapaxes": "self axis1 axis2", "view": "self dtype?",
}  # fmt: skip
"""The methods of ``cupy.ndarray`` that may be used, with their arguments (``?``: may be left out)."""

for _name, _signature in METHODS.items():
    setattr(FakeArray, _name, lifted(getattr(np.ndarray, _name), _signature))


def _method(name: str) -> Callable[..., Any]:
    return lambda self, *args: call(getattr(np.ndarray, name), self, *args)


_OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
for _name in [
    "reshape",
    "transpose",
    *(f"__{prefix}{name}__" for name in _OPERATORS.split() for prefix in ("", "r")),
    *(f"__{name}__" for name in "eq ne lt le gt ge neg pos abs invert".split()),
]:
    setattr(FakeArray, _name, _method(_name))


def _in_place(method: Callable[..., Any]) -> Callable[[FakeArray, Any], FakeArray]:
    def f(self: FakeArray, other: Any) -> FakeArray:
        call(method, self, other)
        return self

    return f


for _name in _OPERATORS.split():
    if _name != "matmul":
        setattr(FakeArray, f"__i{_name}__", _in_place(getattr(np.ndarray, f"__i{_name}__")))

# ---- the namespace --------------------------------------------------------------------------

UFUNCS = """
    abs add arccos arcsin arctan arctan2 bitwise_and bitwise_or bitwise_xor ceil copysign cos cosh divide exp expm1
    floor fmod invert isfinite isinf isnan log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor
    maximum minimum multiply negative power rint sign sin sinh sqrt subtract tan tanh trunc
"""

FUNCTIONS = {
    "arange": "start stop? step? dtype?", "argpartition": "a kth axis?", "argwhere": "a",
    "array": "obj dtype? copy? order?", "broadcast_to": "array shape", "clip": "a a_min a_max out?",
    "concatenate": "tup axis?", "cumsum": "a axis? dtype? out?", "diagonal": "a offset? axis1? axis2?",
    "empty": "shape dtype? order?", "empty_like": "a dtype?", "eye": "N M? k? dtype?", "flip": "a axis?",
    "full": "shape fill_value dtype?", "linspace": "start stop num?", "moveaxis": "a source destination",
    "nonzero": "a", "ones": "shape dtype?", "ones_like": "a dtype?", "roll": "a shift axis?", "round": "a decimals?",
    "searchsorted": "a v side?", "stack": "tup axis?", "take_along_axis": "a indices axis", "tri": "N M? k? dtype?",
    "tril": "m k?", "triu": "m k?", "where": "condition x? y?", "zeros": "shape dtype?", "zeros_like": "a dtype?",
}  # fmt: skip
"""The functions of CuPy that may be used, with their arguments."""


def _needs_arrays(name: str, *positions: int) -> None:
    """CuPy takes no Python number in these places."""
    f = FUNCTIONS_OF_DEVICE[name]

    def strict(*args: Any, **kwargs: Any) -> Any:
        for k in positions:
            if k < len(args) and not isinstance(args[k], FakeArray):
                raise TypeError(f"{name}: argument {k} must be an array of the device, not {type(args[k])}")
        if name in ("argwhere", "nonzero"):
            SYNCS.append(name)
        return f(*args, **kwargs)

    FUNCTIONS_OF_DEVICE[name] = strict


def _argsort(a: FakeArray, axis: int = -1, kind: str | None = None) -> Any:
    if kind not in (None, "stable"):
        raise ValueError(f"argsort: kind must be None or 'stable', got {kind!r}")
    return call(np.argsort, a, axis, kind="stable")


def _matmul(a: FakeArray, b: FakeArray, out: FakeArray | None = None) -> Any:
    if not isinstance(a, FakeArray) or not isinstance(b, FakeArray):
        raise TypeError(f"matmul: unsupported types {type(a)} and {type(b)}")
    return call(np.matmul, a, b) if out is None else call(np.matmul, a, b, out=out)


def _asarray(a: Any, dtype: Any = None, order: Any = None) -> FakeArray:
    """Where NumPy arrays are welcome: this is how they come to the device."""
    if isinstance(a, FakeArray) and dtype in (None, a.dtype):
        return a
    return FakeArray(np.array(unwrapped(a), dtype, order=order))


def _add_at(a: FakeArray, index: Any, b: Any) -> None:
    refuse_numpy([a, b], "add.at")
    np.add.at(a.host, a._index(index)[0], unwrapped(b))


def _ufunc(ufunc: np.ufunc) -> Callable[..., Any]:
    def f(*args: Any, out: FakeArray | None = None, dtype: Any = None) -> Any:
        if not any(isinstance(a, FakeArray) for a in args):
            raise TypeError(f"{ufunc.__name__}: unsupported types {[type(a) for a in args]}")
        given = {"out": out, "dtype": dtype}
        return call(ufunc, *args, **{name: value for name, value in given.items() if value is not None})

    f.__name__ = ufunc.__name__
    return f


FUNCTIONS_OF_DEVICE: dict[str, Callable[..., Any]] = {
    **{name: lifted(getattr(np, name), signature) for name, signature in FUNCTIONS.items()},
    **{name: _ufunc(getattr(np, name)) for name in UFUNCS.split()},
    "argsort": _argsort, "matmul": _matmul, "asarray": _asarray,
    "result_type": lambda *args: np.result_type(*map(unwrapped, args)),
}  # fmt: skip
for _name in ("argwhere", "clip", "cumsum", "nonzero", "where"):
    _needs_arrays(_name, 0)
for _name in ("searchsorted", "take_along_axis"):
    _needs_arrays(_name, 0, 1)
FUNCTIONS_OF_DEVICE["add"].at = _add_at  # type: ignore[attr-defined]
FUNCTIONS_OF_DEVICE["take"] = lambda a, indices, axis=None: call(np.take, a, indices, axis, mode="wrap")


def module() -> types.ModuleType:
    """What would be ``import cupy``: what is in here, CuPy has as well."""
    fake = types.ModuleType("fake")
    dtypes = "bool_ uint8 int8 int16 int32 int64 uint32 uint64 float16 float32 float64 complex64 complex128"
    vars(fake).update({name: getattr(np, name) for name in (*dtypes.split(), "inf", "nan", "pi")})
    vars(fake).update(FUNCTIONS_OF_DEVICE, linalg=types.SimpleNamespace(qr=lifted(np.linalg.qr, "a mode?")))
    return fake


def to_numpy(array: FakeArray) -> np.ndarray:
    """A copy on the host."""
    return array._read("to_numpy").copy()


def load() -> backend.Namespace:
    """The namespace of the device: every kernel is the reference."""
    return backend.build_namespace(
        module(),
        reference,
        device_type="fake",
        array_type=FakeArray,
        from_numpy=lambda array, index=None: FakeArray(np.array(array)),
        to_numpy=to_numpy,
        index_of=lambda array: 0,
        select=lambda index: None,
    )


backend.register_backend("fake", load)
