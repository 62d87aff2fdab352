"""The context ``autocast``: which dtype each op inside it computes in."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar

from ..autograd.autocast_mode import autocast_mode, casting, enter_context, leave_context
from ..backends.mixed_precision import default_lower_dtype, is_present, product_dtype
from ..backends.registry import device, get_default_device
from ..dtypes import DType, DTypeLike, as_dtype
from ..errors import DeviceError
from .op_classes import OP_CLASSES

__all__ = ["autocast", "get_autocast_dtype", "is_autocast_available", "is_autocast_enabled"]

F = TypeVar("F", bound=Callable[..., Any])

casting.classes = OP_CLASSES


def is_autocast_available(device_type: str) -> bool:
    """Return whether ``autocast`` knows this type of device, such as "cpu" or "cuda"."""
    try:
        return isinstance(device_type, str) and device(device_type).type == device_type
    except DeviceError:
        return False


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Return whether autocast is on in this thread, for a type of device. None is that of the default device."""
    return _checked("is_autocast_enabled", device_type or get_default_device().type) in autocast_mode.dtypes


def get_autocast_dtype(device_type: str | None = None) -> DType:
    """Return the dtype that the innermost ``autocast`` of this thread chose, for a type of device.

    It is also the dtype of the next context that names none. Outside of any it is bfloat16 for "cpu" and float16 for
    others. None is the type of the default device. Raises DeviceError for an unknown type.
    """
    kind = _checked("get_autocast_dtype", device_type or get_default_device().type)
    return autocast_mode.chosen.get(kind) or as_dtype(default_lower_dtype(kind))


def _checked(name: str, device_type: Any) -> str:
    """Return a type of device. Raises ValueError for anything but a string, DeviceError for an unknown type."""
    if not isinstance(device_type, str):
        raise ValueError(
            f"{name}: expected a type of device, such as 'cpu', got {device_type!r:.60}. Use x.device.type of a tensor."
        )
    if not is_autocast_available(device_type):
        raise DeviceError(f"{name}: expected a type of device without an index, such as 'cpu', got {device_type!r}.")
    return device_type


class autocast:
    """Context manager and decorator in which ops compute in the dtype that suits them: mixed precision.

    Products, convolutions and attention compute in the lower dtype, with float32 sums inside. Reductions, norms and
    losses compute in float32. All other ops follow their inputs. Parameters keep their dtype, and so do their
    gradients. The backward pass of each op uses the dtype of its forward pass; call it outside of the context.

    device_type: "cpu", "cuda" or another registered type. Contexts of different types are independent.
    dtype: the lower dtype, bfloat16 or float16. None is that of the surrounding context, else bfloat16 on the CPU and
        float16 elsewhere. For another one the context warns and is off.
    enabled: False switches autocast off inside another context.
    cache_enabled: whether the conversion of a weight is kept for its further uses, until the outermost context ends.
        None is the choice of the surrounding context, else True.

    Where the processor has no bfloat16 arithmetic, a context of bfloat16 warns once and its products compute in
    float32. Raises ValueError or DeviceError for a wrong device_type. Raises TypeError if it decorates a generator
    function. The mode belongs to a thread: threads that are started inside begin without it.
    Source: Micikevicius et al., "Mixed Precision Training", 2017.
    """

    def __init__(
        self, device_type: str, dtype: DTypeLike | None = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        self.device_type = _checked("autocast", device_type)
        self.dtype = as_dtype(dtype) if dtype is not None else get_autocast_dtype(device_type) if enabled else None
        self.enabled = self.dtype is not None and bool(enabled) and _is_usable(device_type, self.dtype)
        self.cache_enabled = cache_enabled if cache_enabled is None else bool(cache_enabled)
        self._previous: dict[int, Any] = {}  # by thread, because threads may enter one object at the same time

    def __enter__(self) -> autocast:
        mode, thread, kind = autocast_mode, get_ident(), self.device_type
        self._previous[thread] = mode.dtypes, mode.chosen, mode.keeps, self._previous.get(thread)
        others = {k: dtype for k, dtype in mode.dtypes.items() if k != kind}
        mode.dtypes = others
        if self.dtype is not None:
            mode.chosen = {**mode.chosen, kind: self.dtype}
            mode.dtypes = {**others, kind: _product_dtype(kind, self.dtype)} if self.enabled else others
        mode.keeps = mode.keeps if self.cache_enabled is None else self.cache_enabled
        enter_context()
        return self

    def __exit__(self, *exc: object) -> None:
        previous = self._previous.get(get_ident())
        if previous is not None:  # None if another thread entered
            mode = autocast_mode
            mode.dtypes, mode.chosen, mode.keeps, self._previous[get_ident()] = previous
            leave_context()

    def __call__(self, f: F) -> F:
        for kind, what in _LATER.items():
            if kind(f):
                raise TypeError(
                    f"autocast: expected a function, got the {what} {f.__name__}, which runs after the call. Use a "
                    f"with block inside it."
                )

        @functools.wraps(f)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return f(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


_LATER: dict[Callable[[Any], bool], str] = {
    inspect.isgeneratorfunction: "generator function",
    inspect.iscoroutinefunction: "coroutine function",
    inspect.isasyncgenfunction: "asynchronous generator function",
}


def _is_usable(device_type: str, dtype: DType) -> bool:
    """Return whether ops of the device can compute in a lower dtype. Warns if not."""
    if not is_present(device_type):
        warnings.warn(
            f"autocast: expected a device of type {device_type!r}, found none, so this context is off. Pass "
            "enabled=False.",
            RuntimeWarning, stacklevel=3,
        )  # fmt: skip
        return False
    if dtype.name not in ("float16", "bfloat16"):
        warnings.warn(
            f"autocast: expected the dtype bfloat16 or float16, got {dtype}, so this context is off.",
            RuntimeWarning, stacklevel=3,
        )  # fmt: skip
        return False
    return True


_warned: set[DType] = set()
"""The dtypes of which a warning said that the processor has no arithmetic for them."""


def _product_dtype(device_type: str, dtype: DType) -> DType:
    """Return the dtype in which products compute, with a warning the first time that it is not the chosen one."""
    found = product_dtype(device_type, dtype)
    if found != dtype and dtype not in _warned:
        _warned.add(dtype)
        warnings.warn(
            f"autocast: this processor has no {dtype} arithmetic that a compiled kernel uses (AVX512_BF16), so "
            f"products compute in {found}, which is as fast as without autocast.",
            RuntimeWarning, stacklevel=3,
        )  # fmt: skip
    return found
