"""The array functions of the strict device."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np

from ...backends import reference, registry
from ...backends.cpu.memory_views import memory_offset, view_at
from ...errors import DeviceError
from .array import StrictArray, call_numpy, host_index, read_on_host, reject_host_data, unwrap, with_signature
from .syncs import record_sync

__all__ = ["FUNCTIONS", "UFUNCS"]

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
    "argpartition": "a kth axis?", "argwhere": "a", "array": "obj dtype? copy? order?", "ascontiguousarray": "a dtype?",
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
    "unique": "ar return_index? return_inverse? return_counts? axis? equal_nan?", "bincount": "x weights? minlength?",
    "var": "a axis? dtype? out? ddof? keepdims?", "zeros": "shape dtype?",
    "zeros_like": "a dtype?",
}  # fmt: skip
"""The functions of CuPy that are available, with their arguments (``?`` marks optional ones)."""

LINALG = {
    "cholesky": "a", "det": "a", "eigh": "a UPLO?", "eigvalsh": "a UPLO?", "inv": "a", "qr": "a mode?",
    "slogdet": "a", "solve": "a b", "svd": "a full_matrices? compute_uv?",
}  # fmt: skip
"""The functions of ``cupy.linalg`` that are available, with their arguments."""

# How many of its first arguments must be strict arrays, because CuPy rejects Python numbers and lists there.
_NO_ARRAYS = {"arange", "array", "concatenate", "empty", "eye", "full", "linspace", "ones", "stack", "tri", "zeros"}
_ARRAYS = {name: 0 if name in _NO_ARRAYS else 1 for name in FUNCTIONS}
_ARRAYS.update(dict.fromkeys(("dot", "outer", "searchsorted", "take_along_axis", "tensordot"), 2))


def _needs_arrays(name: str, f: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Return f with a check that its first ``count`` arguments are strict arrays. Record that nonzero synchronises."""

    def strict(*args: Any, **kwargs: Any) -> Any:
        for k, value in enumerate(args[:count]):
            if not isinstance(value, StrictArray):
                raise TypeError(f"{name}: expected argument {k} to be a strict array, got {type(value).__name__}")
        if name in ("argwhere", "bincount", "nonzero", "unique"):
            record_sync("nonzero")
        return f(*args, **kwargs)

    strict.__name__ = name
    return strict


def _poisoned(array: StrictArray) -> StrictArray:
    """Fill new memory with values that cannot be overlooked, because real new memory may hold anything."""
    kind = array.dtype.kind
    array.host.fill(np.nan if kind in "fc" else np.iinfo(array.dtype).max if kind in "iu" else True)
    return array


def _argsort(a: StrictArray, axis: int = -1, kind: str | None = None) -> Any:
    if kind not in (None, "stable"):
        raise ValueError(f"argsort: kind must be None or 'stable', got {kind!r}")
    return call_numpy(np.argsort, a, axis, kind="stable")


def _matmul(a: StrictArray, b: StrictArray, out: StrictArray | None = None) -> Any:
    if not isinstance(a, StrictArray) or not isinstance(b, StrictArray):
        raise TypeError(f"matmul: unsupported types {type(a)} and {type(b)}")
    return call_numpy(np.matmul, a, b) if out is None else call_numpy(np.matmul, a, b, out=out)


def _asarray(a: Any, dtype: Any = None, order: Any = None) -> StrictArray:
    """Return an array of the device. This function accepts NumPy arrays, numbers and lists."""
    if isinstance(a, StrictArray) and dtype in (None, a.dtype):
        return a
    return StrictArray(np.array(unwrap(a), dtype, order=order))


def _count_nonzero(a: StrictArray, axis: int | None = None) -> Any:
    """Return the number of entries that are not zero, as an array without dimensions, where NumPy gives an int."""
    return call_numpy(lambda a: np.asarray(np.count_nonzero(a, axis)), a)


def _where(condition: StrictArray, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        record_sync("nonzero")  # only the device knows how many there are
        return call_numpy(np.where, condition)
    reject_host_data([x, y], "where")
    return call_numpy(np.where, condition, x, y)


def _add_at(a: StrictArray, index: Any, b: Any) -> None:
    reject_host_data([a, b], "add.at")
    with np.errstate(all="ignore"):
        np.add.at(a.host, host_index(a, index, "add.at")[0], unwrap(b))


def _ufunc(ufunc: np.ufunc) -> Callable[..., Any]:
    def f(*args: Any, out: StrictArray | None = None, dtype: Any = None) -> Any:
        reject_host_data(args, ufunc.__name__)
        if not any(isinstance(a, StrictArray) for a in args):
            raise TypeError(f"{ufunc.__name__}: unsupported types {[type(a).__name__ for a in args]}")
        given = {"out": out, "dtype": dtype}
        return call_numpy(ufunc, *args, **{name: value for name, value in given.items() if value is not None})

    f.__name__ = ufunc.__name__
    return f


def _functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]]
    found = {name: with_signature(getattr(np, name), signature) for name, signature in FUNCTIONS.items()}
    found.update(argsort=_argsort, count_nonzero=_count_nonzero, take=StrictArray.take, where=_where)
    found = {name: _needs_arrays(name, f, _ARRAYS.get(name, 1)) for name, f in found.items()}
    for name in ("empty", "empty_like"):
        made = found[name]
        found[name] = lambda *args, made=made, **kwargs: _poisoned(made(*args, **kwargs))
    found.update({name: _ufunc(getattr(np, name)) for name in UFUNCS.split()})
    found["add"].at = _add_at  # type: ignore[attr-defined]
    return {
        **found, "asarray": _asarray, "matmul": _matmul,
        "result_type": lambda *args: np.result_type(*map(unwrap, args)),
    }  # fmt: skip


def _module() -> types.ModuleType:
    """Return a module that stands for ``cupy``. All its names exist in CuPy."""
    module = types.ModuleType("strict")
    dtypes = "bool_ uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
    vars(module).update({name: getattr(np, name) for name in (*dtypes.split(), "e", "inf", "nan", "newaxis", "pi")})
    linalg = types.SimpleNamespace(**{n: with_signature(getattr(np.linalg, n), a) for n, a in LINALG.items()})
    vars(module).update(_functions(), ndarray=StrictArray, linalg=linalg)
    return module


def _to_numpy(array: StrictArray) -> np.ndarray[Any, Any]:
    return read_on_host(array, "to_numpy").copy()


def _select(index: int) -> None:
    if index:
        raise DeviceError(f"device: expected strict:0, the only strict device, got strict:{index}")


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
        memory_offset=lambda array, owner: memory_offset(array.host, owner.host),
        view_at=lambda owner, *place: StrictArray(view_at(owner.host, *place), owner),
    )


registry.register_backend("strict", _load)
