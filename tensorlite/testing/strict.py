"""The device ``"strict"``: NumPy's arithmetic behind arrays that behave as CuPy's do, for tests without a GPU.

    import tensorlite.testing.strict
    x = tl.tensor([1.0, 2.0], device="strict")

Importing this module makes the device known; nothing else changes. What runs on it runs on a GPU, as far as these go:

- Nothing converts by itself: an array of the device never becomes a NumPy array, and meets none, nor a list, in a call.
- Reductions and single entries are 0-d arrays of the device, and functions take CuPy's arguments, not all of NumPy's.
- Fresh memory, of ``empty`` and ``empty_like``, holds NaN, or the largest integer: who forgets to fill it will notice.
- An index array out of range wraps around without a word, and no arithmetic warns.
- NumPy's scalars count as arrays of their dtype: ``np.float64(3) * x`` is float64 for a float32 ``x``.
- Reading a value on the host is what makes a program wait for a GPU. :func:`count_syncs` lists where that happens,
  :func:`forbid_syncs` makes it an error.

It is stricter than CuPy in places: NumPy's functions do not take its arrays, and nobody iterates over one. What it
cannot show is a kernel's own numerics, and how long anything takes. Every kernel is the one of ``kernels.reference``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..autograd.anomaly_mode import call_site
from ..backends import reference, registry
from ..errors import DeviceError

__all__ = ["SYNCS", "Sync", "SyncError", "SyncLog", "allow_syncs", "count_syncs", "forbid_syncs"]

# ---- what makes a GPU's program wait --------------------------------------------------------

SYNCS = ("bool", "complex", "float", "index", "int", "item", "mask", "nonzero", "to_numpy", "tolist")
"""The kinds of host synchronisation: ``bool(x)`` and its like, ``x.item()``, ``x.tolist()``, the way to NumPy (a
tensor's ``cpu()``), and results whose size only the device knows, of indexing by a mask and looking for nonzeros."""


class Sync(NamedTuple):
    """A moment at which a GPU's program would have to wait: ``what`` it was (one of SYNCS), and at which line of the
    code that called tensorlite."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what} at {self.where}"


class SyncError(RuntimeError):
    """A value was read on the host inside :func:`forbid_syncs`."""


class SyncLog(list[Sync]):
    """What has synchronised, in order. ``print(log)`` is a line each."""

    def __init__(self, allowed: Collection[str] = SYNCS) -> None:
        super().__init__()
        self._allowed = frozenset(allowed)

    @property
    def kinds(self) -> list[str]:
        """``what`` of each."""
        return [sync.what for sync in self]

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no syncs"


_logs: list[SyncLog] = []
_allowing = 0


def _synchronise(what: str) -> None:
    """Note a sync in every open log. Raises SyncError if one of them forbids it."""
    if not _logs:
        return
    sync = Sync(what, call_site())
    for log in _logs:
        log.append(sync)
    if not _allowing and not all(what in log._allowed for log in _logs):
        raise SyncError(
            f"{what}: a value is read on the host inside forbid_syncs(), so a GPU would have to be waited for\n"
            f"  {sync.where}\n"
            f"keep it on the device and read it after the loop, or put the line into `with allow_syncs():`"
        )


@contextmanager
def _logged(log: SyncLog) -> Iterator[SyncLog]:
    _logs.append(log)
    try:
        yield log
    finally:
        _logs[:] = [other for other in _logs if other is not log]


def count_syncs() -> AbstractContextManager[SyncLog]:
    """``with count_syncs() as log:`` lists each sync of the block, in any thread: ``len(log)``, ``log.kinds``."""
    return _logged(SyncLog())


def forbid_syncs(allow: Collection[str] = ()) -> AbstractContextManager[SyncLog]:
    """``with forbid_syncs() as log:`` as :func:`count_syncs`, and the first sync raises SyncError with the line of it.

    allow: kinds of SYNCS that are noted but raise nothing. Raises ValueError for what is not one.
    """
    if unknown := sorted({allow} if isinstance(allow, str) else set(allow) - set(SYNCS)):
        raise ValueError(f"forbid_syncs: allow={allow!r}: expected some of {', '.join(SYNCS)}, got {unknown}")
    return _logged(SyncLog(allow))


@contextmanager
def allow_syncs() -> Iterator[None]:
    """Inside :func:`forbid_syncs`, a block whose syncs are meant: they are noted, and raise nothing."""
    global _allowing
    _allowing += 1
    try:
        yield
    finally:
        _allowing -= 1


# ---- the arrays -----------------------------------------------------------------------------


class Flags(NamedTuple):
    """What an array of CuPy's says about its memory."""

    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class StrictArray:
    """An array on the device. ``host`` is the NumPy array behind it; to look at that is no sync, so that tests can.

    ``base`` is the array that owns the memory, None if that is this one, as in CuPy.
    """

    __slots__ = ("__weakref__", "base", "host")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray[Any, Any], base: StrictArray | None = None) -> None:
        self.host, self.base = host, base

    # ---- what it is

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    strides = property(lambda self: self.host.strides)
    T = property(lambda self: _call(np.transpose, self))

    @property
    def flags(self) -> Flags:
        """How the memory is laid out, and whether it is its own."""
        flags = self.host.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, self.base is None)

    def __len__(self) -> int:
        return len(self.host)

    def __repr__(self) -> str:
        return f"StrictArray({self.host!r})"  # no sync: debuggers and pytest look at everything

    # ---- what must not happen unasked

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        raise TypeError("implicit conversion of a strict array to a NumPy array; move it with Tensor.cpu()")

    def __array_function__(self, function: Any, *rest: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with a strict array; use the xp of its device")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or not any(isinstance(x, np.generic) for x in inputs):
            raise TypeError(f"numpy.{ufunc.__name__}.{method} was called with a strict array; use the xp of its device")
        return _call(ufunc, *inputs)  # `np.float32(2) * array` comes here

    def __iter__(self) -> Any:
        raise TypeError("iteration over a strict array would launch a kernel an entry")

    # ---- reading values

    def item(self) -> Any:
        """The only entry, as a Python number. A sync."""
        return self._read("item").item()

    def tolist(self) -> Any:
        """The entries in lists of Python numbers. A sync."""
        return self._read("tolist").tolist()

    def __bool__(self) -> bool:
        return bool(self._read("bool"))

    def __int__(self) -> int:
        return int(self._read("int"))

    def __float__(self) -> float:
        return float(self._read("float"))

    def __complex__(self) -> complex:
        return complex(self._read("complex"))

    def __index__(self) -> int:
        return self._read("index").__index__()

    def _read(self, how: str) -> np.ndarray[Any, Any]:
        _synchronise(how)
        return self.host

    # ---- indexing

    def __getitem__(self, index: Any) -> StrictArray:
        items, picks = self._index(index, "getitem")
        found: StrictArray = _wrapped(self.host[items], () if picks else (self,))
        return found

    def __setitem__(self, index: Any, value: Any) -> None:
        _refuse_foreign([value], "setitem")
        with np.errstate(all="ignore"):
            self.host[self._index(index, "setitem")[0]] = _unwrapped(value)

    def _index(self, index: Any, name: str) -> tuple[tuple[Any, ...], list[np.ndarray[Any, Any]]]:
        """The index of the host's array, with an Ellipsis so that one entry is a view too, and its arrays."""
        items = list(index) if isinstance(index, tuple) else [index]
        _refuse_foreign(items, name)
        if not any(item is Ellipsis for item in items):
            items.append(...)
        taken = sum(item.ndim if _is_mask(item) else item is not None and item is not ... for item in items)
        dim = 0
        for k, item in enumerate(items):
            if item is Ellipsis:
                dim += self.ndim - taken
            elif isinstance(item, StrictArray) and not _is_mask(item):
                items[k] = item.host % max(1, self.shape[dim])
            elif isinstance(item, StrictArray):
                _synchronise("mask")  # how many entries it picks is known on the device alone
                items[k], dim = item.host, dim + item.ndim - 1
            dim += item is not None and item is not Ellipsis
        picks = [item for item in items if isinstance(item, np.ndarray)]
        if picks and items[-1] is Ellipsis:
            items.pop()  # NumPy returns a scalar copy, which is wrapped again
        return tuple(items), picks


def _is_mask(item: Any) -> bool:
    return isinstance(item, StrictArray) and item.dtype == bool


# ---- calls ----------------------------------------------------------------------------------


def _refuse_numpy(values: Any, name: str) -> None:
    """Raise TypeError, as CuPy does, if there is a NumPy array among these, or in a list of them."""
    for value in values:
        if isinstance(value, np.ndarray):
            what = f"{value.dtype}{value.shape}"
            raise TypeError(f"{name}: a NumPy array, {what}, among strict ones; xp.asarray() moves it")
        if isinstance(value, (list, tuple)):
            _refuse_numpy(value, name)


def _refuse_foreign(values: Any, name: str) -> None:
    """Also refuse lists and tuples: what they hold would be moved to the device unasked."""
    _refuse_numpy(values, name)
    for value in values:
        if isinstance(value, (list, tuple)):
            raise TypeError(f"{name}: a {type(value).__name__} among strict arrays; xp.asarray() moves it")


def _unwrapped(value: Any) -> Any:
    if isinstance(value, StrictArray):
        return value.host
    return type(value)(map(_unwrapped, value)) if type(value) in (list, tuple) else value


def _wrapped(result: Any, sources: tuple[Any, ...] = ()) -> Any:
    """Results as arrays of the device; one that shares memory with a source is a view of it."""
    if isinstance(result, (list, tuple)):
        return [_wrapped(r, sources) for r in result]
    if isinstance(result, np.generic):
        return StrictArray(np.asarray(result))
    if not isinstance(result, np.ndarray):
        return result
    for source in sources:
        if isinstance(source, StrictArray) and result.size and np.may_share_memory(result, source.host):
            owner = source if source.base is None else source.base
            return source if result is source.host else StrictArray(result, owner)
    return StrictArray(result)


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A function of NumPy's on arrays of the device. No device warns of what arithmetic does."""
    _refuse_numpy([*args, *kwargs.values()], getattr(function, "__name__", str(function)))
    with np.errstate(all="ignore"):
        result = function(*map(_unwrapped, args), **{name: _unwrapped(value) for name, value in kwargs.items()})
    return _wrapped(result, (kwargs.get("out"), *args))


def _lifted(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """A function of NumPy's as one of the device, with this signature and no other argument."""
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
            raise TypeError(f"{function.__name__}: CuPy's takes {signature!r}: {error}") from None
        # Names and order may differ from NumPy's: those of what is required, and the place of what is not.
        return _call(function, *(given.pop(name) for name in required_names), **given)

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
"""The methods of ``cupy.ndarray`` that may be used, with their arguments (``?``: may be left out)."""

for _name, _signature in METHODS.items():
    setattr(StrictArray, _name, _lifted(getattr(np.ndarray, _name), _signature))


def _method(name: str) -> Callable[..., Any]:
    return lambda self, *args: _call(getattr(np.ndarray, name), self, *args)


def _operator(name: str) -> Callable[..., Any]:
    def f(self: StrictArray, other: Any) -> Any:
        _refuse_foreign([other], name)
        return _call(getattr(np.ndarray, f"__{name}__"), self, other)

    return f


def _in_place(name: str) -> Callable[..., Any]:
    def f(self: StrictArray, other: Any) -> StrictArray:
        _refuse_foreign([other], name)
        _call(getattr(np.ndarray, f"__{name}__"), self, other)
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

# ---- the namespace --------------------------------------------------------------------------

UFUNCS = """
    abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or bitwise_xor cbrt ceil
    conjugate copysign cos cosh divide equal exp exp2 expm1 floor floor_divide fmax fmin fmod greater greater_equal
    hypot invert isfinite isinf isnan left_shift less less_equal log log10 log1p log2 logaddexp logical_and logical_not
    logical_or logical_xor maximum minimum mod multiply negative not_equal power reciprocal remainder right_shift rint
    sign signbit sin sinh sqrt square subtract tan tanh true_divide trunc
"""

FUNCTIONS = {
    "all": "a axis? out? keepdims?", "any": "a axis? out? keepdims?", "arange": "start stop? step? dtype?",
    "argmax": "a axis?", "argmin": "a axis?",
    "argpartition": "a kth axis?", "argwhere": "a", "array": "obj dtype? copy? order?",
    "broadcast_to": "array shape", "clip": "a a_min a_max out?", "concatenate": "tup axis?",
    "cumprod": "a axis? dtype? out?", "cumsum": "a axis? dtype? out?", "diag": "v k?",
    "diagonal": "a offset? axis1? axis2?", "dot": "a b out?", "empty": "shape dtype? order?",
    "empty_like": "prototype dtype?", "expand_dims": "a axis", "eye": "N M? k? dtype?", "flip": "a axis?",
    "full": "shape fill_value dtype?", "full_like": "a fill_value dtype?", "linspace": "start stop num?",
    "max": "a axis? out? keepdims?", "mean": "a axis? dtype? out? keepdims?", "min": "a axis? out? keepdims?",
    "moveaxis": "a source destination", "nonzero": "a", "ones": "shape dtype?", "ones_like": "a dtype?",
    "outer": "a b out?", "prod": "a axis? dtype? out? keepdims?", "ravel": "a order?", "repeat": "a repeats axis?",
    "roll": "a shift axis?", "rollaxis": "a axis start?", "round": "a decimals?", "searchsorted": "a v side?",
    "sort": "a axis? kind?", "squeeze": "a axis?", "stack": "tup axis?", "std": "a axis? dtype? out? ddof? keepdims?",
    "sum": "a axis? dtype? out? keepdims?", "swapaxes": "a axis1 axis2", "take_along_axis": "a indices axis",
    "tensordot": "a b axes?", "tile": "A reps", "trace": "a offset? axis1? axis2? dtype? out?",
    "transpose": "a axes?", "tri": "N M? k? dtype?", "tril": "m k?", "triu": "m k?",
    "var": "a axis? dtype? out? ddof? keepdims?", "zeros": "shape dtype?",
    "zeros_like": "a dtype?",
}  # fmt: skip
"""The functions of CuPy that may be used, with their arguments."""

# CuPy takes no Python number, and no list of them, in these places; in the others it is happy with none at all.
_NO_ARRAYS = {"arange", "array", "concatenate", "empty", "eye", "full", "linspace", "ones", "stack", "tri", "zeros"}
_ARRAYS = {name: 0 if name in _NO_ARRAYS else 1 for name in FUNCTIONS}
_ARRAYS.update(dict.fromkeys(("dot", "outer", "searchsorted", "take_along_axis", "tensordot"), 2))


def _needs_arrays(name: str, f: Callable[..., Any], count: int) -> Callable[..., Any]:
    """f, refusing anything but arrays of the device in its first places, and noting that some functions synchronise."""

    def strict(*args: Any, **kwargs: Any) -> Any:
        for k, value in enumerate(args[:count]):
            if not isinstance(value, StrictArray):
                raise TypeError(f"{name}: argument {k} must be an array of the device, not {type(value).__name__}")
        if name in ("argwhere", "nonzero"):
            _synchronise("nonzero")
        return f(*args, **kwargs)

    strict.__name__ = name
    return strict


def _poisoned(array: StrictArray) -> StrictArray:
    """Fresh memory holds whatever it does: here, what cannot be overlooked."""
    kind = array.dtype.kind
    array.host.fill(np.nan if kind in "fc" else np.iinfo(array.dtype).max if kind in "iu" else True)
    return array


def _argsort(a: StrictArray, axis: int = -1, kind: str | None = None) -> Any:
    if kind not in (None, "stable"):
        raise ValueError(f"argsort: kind must be None or 'stable', got {kind!r}")
    return _call(np.argsort, a, axis, kind="stable")


def _matmul(a: StrictArray, b: StrictArray, out: StrictArray | None = None) -> Any:
    if not isinstance(a, StrictArray) or not isinstance(b, StrictArray):
        raise TypeError(f"matmul: unsupported types {type(a)} and {type(b)}")
    return _call(np.matmul, a, b) if out is None else _call(np.matmul, a, b, out=out)


def _asarray(a: Any, dtype: Any = None, order: Any = None) -> StrictArray:
    """Where NumPy arrays are welcome: this is how they come to the device."""
    if isinstance(a, StrictArray) and dtype in (None, a.dtype):
        return a
    return StrictArray(np.array(_unwrapped(a), dtype, order=order))


def _take(a: StrictArray, indices: Any, axis: int | None = None, out: StrictArray | None = None) -> Any:
    _refuse_foreign([indices], "take")
    found = _call(np.take, a, indices, axis, mode="wrap")
    if out is None:
        return found
    out[...] = found
    return out


def _where(condition: StrictArray, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        _synchronise("nonzero")  # how many there are is known on the device alone
        return _call(np.where, condition)
    _refuse_foreign([x, y], "where")
    return _call(np.where, condition, x, y)


def _add_at(a: StrictArray, index: Any, b: Any) -> None:
    _refuse_foreign([a, b], "add.at")
    with np.errstate(all="ignore"):
        np.add.at(a.host, a._index(index, "add.at")[0], _unwrapped(b))


def _ufunc(ufunc: np.ufunc) -> Callable[..., Any]:
    def f(*args: Any, out: StrictArray | None = None, dtype: Any = None) -> Any:
        _refuse_foreign(args, ufunc.__name__)
        if not any(isinstance(a, StrictArray) for a in args):
            raise TypeError(f"{ufunc.__name__}: unsupported types {[type(a).__name__ for a in args]}")
        given = {"out": out, "dtype": dtype}
        return _call(ufunc, *args, **{name: value for name, value in given.items() if value is not None})

    f.__name__ = ufunc.__name__
    return f


def _functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]]
    found = {name: _lifted(getattr(np, name), signature) for name, signature in FUNCTIONS.items()}
    found.update(argsort=_argsort, take=_take, where=_where)
    found = {name: _needs_arrays(name, f, _ARRAYS.get(name, 1)) for name, f in found.items()}
    for name in ("empty", "empty_like"):
        made = found[name]
        found[name] = lambda *args, made=made, **kwargs: _poisoned(made(*args, **kwargs))
    found.update({name: _ufunc(getattr(np, name)) for name in UFUNCS.split()})
    found["add"].at = _add_at  # type: ignore[attr-defined]
    return {
        **found, "asarray": _asarray, "matmul": _matmul,
        "result_type": lambda *args: np.result_type(*map(_unwrapped, args)),
    }  # fmt: skip


def _module() -> types.ModuleType:
    """What would be ``import cupy``: what is in here, CuPy has as well."""
    module = types.ModuleType("strict")
    dtypes = "bool_ uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
    vars(module).update({name: getattr(np, name) for name in (*dtypes.split(), "e", "inf", "nan", "newaxis", "pi")})
    linalg = types.SimpleNamespace(qr=_lifted(np.linalg.qr, "a mode?"))
    vars(module).update(_functions(), ndarray=StrictArray, linalg=linalg)
    return module


def _to_numpy(array: StrictArray) -> np.ndarray[Any, Any]:
    return array._read("to_numpy").copy()


def _select(index: int) -> None:
    if index:
        raise DeviceError(f"device 'strict:{index}' is not there: there is one, strict:0")


def _load() -> registry.Namespace:
    return registry.build_namespace(
        _module(),
        reference,
        device_type="strict",
        array_type=StrictArray,
        from_numpy=lambda array, index=None: StrictArray(np.array(array)),
        to_numpy=_to_numpy,
        index_of=lambda array: 0,
        select=_select,
    )


registry.register_backend("strict", _load)
