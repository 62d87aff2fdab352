"""Devices, each with the namespace ``xp`` that computes on its arrays.

A namespace has NumPy's names (``xp.exp``, ``xp.zeros``) and tensorlite's kernels (``xp.softmax``,
``xp.scatter_add_into``). ``BACKENDS`` maps the type of an array to it, so no op tests which device it is on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from ..errors import DeviceError
from . import reference
from .cpu import array_lists as cpu_array_lists
from .cpu import bfloat16_kernels
from .cpu import broadcasts as cpu_broadcasts
from .cpu import channel_norms as cpu_channel_norms
from .cpu import convolutions as cpu_convolutions
from .cpu import distances as cpu_distances
from .cpu import elementwise as cpu_elementwise
from .cpu import factors as cpu_factors
from .cpu import folds as cpu_folds
from .cpu import indexing as cpu_indexing
from .cpu import kernels as cpu_kernels
from .cpu import moments as cpu_moments
from .cpu import orders as cpu_orders
from .cpu import piecewise as cpu_piecewise
from .cpu import scatters as cpu_scatters
from .cpu import softmaxes as cpu_softmaxes
from .cpu import sums as cpu_sums
from .cpu.generator import Pcg64Generator
from .cpu.memory_views import memory_offset, view_at
from .philox import PhiloxGenerator

__all__ = [
    "BACKENDS",
    "Array",
    "Device",
    "DeviceLike",
    "Namespace",
    "backend_of",
    "bfloat16_namespace",
    "build_namespace",
    "cuda_is_available",
    "describe_array",
    "device",
    "device_of",
    "get_default_device",
    "namespace",
    "plain_array",
    "register_backend",
    "set_default_device",
]

Array: TypeAlias = Any
"""A raw array of any registered backend: ``numpy.ndarray``, ``cupy.ndarray``, ..."""


class Namespace(SimpleNamespace):
    """A set of functions that compute on one type of array: a module's names, some of them replaced by kernels.

    It also has these attributes:

    - ``device_type``, such as ``"cpu"``, and ``array_type``.
    - ``from_numpy(array, index)`` and ``to_numpy(array)``.
    - ``index_of(array)``: the ordinal of the device that holds an array, None on the CPU.
    - ``select(index)``: makes the device of that ordinal the current one.
    - ``memory_offset(array, owner)``, ``view_at(owner, offset, shape, dtype, strides)``: see ``cpu/memory_views.py``.
    - ``generator``: the class of its random number generators. It is Philox unless the backend names another.
    - ``peer_transport``: what moves arrays between the devices of several processes, as ``cuda/nccl.py`` does, or None.
    - ``bfloat16``: a namespace whose kernels take bfloat16 arrays as they are where its ``covers`` says so, or None.
    """

    generator: type = PhiloxGenerator
    bfloat16: Namespace | None = None
    peer_transport: Any = None


class _Backends(dict[type, Namespace]):
    """A dict from the type of an array to its namespace, with an error that names the expected types."""

    def __missing__(self, kind: type) -> Namespace:
        raise TypeError(
            f"the array of a tensor must be a raw array of one of its backends, got {kind.__name__}. To change what "
            f"a tensor x holds, write x.data = value or x.data -= step."
        )


BACKENDS: dict[type, Namespace] = _Backends()
"""The namespace of each array type. The entry of CuPy's arrays is added when a GPU is first used."""

_LOADERS: dict[str, Callable[[], Namespace]] = {}
_LOADED: dict[str, Namespace] = {}


@dataclass(frozen=True)
class Device:
    """A place where tensors live, such as ``cpu`` or ``cuda:0``. Make one with :func:`device`."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device({str(self)!r})"


DeviceLike: TypeAlias = Device | str | None


def device(spec: DeviceLike = None, index: int | None = None) -> Device:
    """Return the device that ``spec`` names.

    spec: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or a Device; None is the default device. index: the ordinal of a GPU, if
    the name has none.

    Raises DeviceError if no backend has that name. Whether the GPU exists is checked on first use.
    """
    if spec is None:
        return get_default_device()
    if isinstance(spec, Device):
        return spec
    name, _, ordinal = str(spec).partition(":")
    if name not in _LOADERS or (ordinal and not ordinal.isdecimal()):
        raise DeviceError(f"device: expected one of {', '.join(sorted(_LOADERS))}, got {spec!r}")
    if ordinal:
        index = int(ordinal)
    if index is None and name == "cuda":
        index = 0
    return Device(name, index)


_default: Device | None = None


def get_default_device() -> Device:
    """Return the device of tensors that are made without one.

    It is the device given to ``set_default_device``, else that of the environment variable ``TENSORLITE_DEVICE``, else
    the CPU. Raises DeviceError if the variable names no known device.
    """
    global _default
    if _default is None:
        try:
            _default = device(os.environ.get("TENSORLITE_DEVICE") or "cpu")
        except DeviceError as error:
            raise DeviceError(f"TENSORLITE_DEVICE: {error}") from None
    return _default


def set_default_device(spec: DeviceLike) -> None:
    """Set the device of tensors that are made without one. None restores ``TENSORLITE_DEVICE``, else the CPU.

    Raises DeviceError if the device cannot be used.
    """
    global _default
    chosen = None if spec is None else device(spec)
    if chosen is not None:
        namespace(chosen)
    _default = chosen


def namespace(where: Device) -> Namespace:
    """Return the namespace of a device, loaded on first use, and make the device the current one of its type.

    Raises DeviceError, with the reason, if the device cannot be used.
    """
    found = _LOADED.get(where.type)
    if found is None:
        found = _LOADED[where.type] = _LOADERS[where.type]()
        BACKENDS[found.array_type] = found
    if where.index is not None:
        found.select(where.index)
    return found


def backend_of(values: Iterable[object]) -> Namespace | None:
    """Return the namespace of the first raw array among the values, or None if there is none."""
    for value in values:
        if type(value) in BACKENDS:
            return BACKENDS[type(value)]
    return None


def bfloat16_namespace(op: str, arguments: Sequence[Any]) -> Namespace | None:
    """Return the namespace whose kernels take these arguments of an op, of bfloat16, as they are, or None."""
    xp = backend_of(arguments)
    narrow = None if xp is None else xp.bfloat16
    return narrow if narrow is not None and narrow.covers(op, arguments) else None


def device_of(array: Array) -> Device:
    """Return the device that holds a raw array."""
    xp = BACKENDS[type(array)]
    return Device(xp.device_type, xp.index_of(array))


def plain_array(name: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of a subclass of NumPy's, such as ``numpy.memmap``, as an array that shares its memory.

    name: the function to name in messages. Raises TypeError for a masked array, because a tensor has no mask.
    """
    if hasattr(value, "mask"):  # numpy.ma.MaskedArray, which would have to be imported
        raise TypeError(
            f"{name}: expected an array without a mask, got a masked one of shape {value.shape}, and a tensor has no "
            f"mask. Replace its masked entries with .filled(value), or choose the others with .compressed()."
        )
    return value.view(np.ndarray)


def describe_array(value: Any) -> str:
    """Return a short description of a value for error messages.

    A raw array is described as ``float32(2, 3)``, with its device if that is not the CPU; other values by their type.
    """
    if type(value) not in BACKENDS:
        return type(value).__name__
    kind = BACKENDS[type(value)].device_type
    return f"{value.dtype}{tuple(value.shape)}" + ("" if kind == "cpu" else f" on {kind}")


def register_backend(name: str, load: Callable[[], Namespace]) -> None:
    """Register a type of device. ``load`` returns its namespace (see :func:`build_namespace`) or raises DeviceError."""
    _LOADERS[name] = load
    _LOADED.pop(name, None)


def build_namespace(module: ModuleType, *kernels: ModuleType, **names: Any) -> Namespace:
    """Return a namespace of a module's public names and the kernels in the ``__all__`` of other modules.

    A kernel takes the namespace as its first argument, which is bound here. A kernel of a later module replaces that of
    an earlier one, so a faster version replaces the reference. names: further attributes of the namespace.
    """
    xp = Namespace(**{k: v for k, v in vars(module).items() if not k.startswith("_")})
    for kernel_module in kernels:
        for name in kernel_module.__all__:
            setattr(xp, name, partial(getattr(kernel_module, name), xp))
    vars(xp).update(names)
    return xp


def _load_cpu() -> Namespace:
    kernels = (
        reference, cpu_broadcasts, cpu_factors, cpu_sums, cpu_moments, cpu_softmaxes, cpu_elementwise, cpu_folds,
        cpu_indexing, cpu_orders, cpu_piecewise, cpu_scatters, cpu_distances, cpu_kernels, cpu_array_lists,
        cpu_convolutions, cpu_channel_norms,
    )  # fmt: skip
    attributes: dict[str, Any] = {
        "device_type": "cpu",
        "array_type": np.ndarray,
        "from_numpy": lambda array, index=None: array,
        "to_numpy": lambda array: array,
        "index_of": lambda array: None,
        "select": lambda index: None,
        "generator": Pcg64Generator,
        "memory_offset": memory_offset,
        "view_at": view_at,
    }
    narrow = build_namespace(np, *kernels, bfloat16_kernels, covers=bfloat16_kernels.covers, **attributes)
    return build_namespace(np, *kernels, bfloat16=narrow, **attributes)


def _load_cuda() -> Namespace:
    from .cuda import devices, find_cupy, kernels  # imported here, because CuPy is an extra

    module = find_cupy.require_cupy()
    return build_namespace(module, reference, kernels, **devices.namespace_attributes(module))


def cuda_is_available() -> bool:
    """Return whether a GPU can be used through CuPy."""
    from .cuda import find_cupy

    return find_cupy.find_cupy()[0] is not None


register_backend("cpu", _load_cpu)
register_backend("cuda", _load_cuda)
namespace(Device("cpu"))
