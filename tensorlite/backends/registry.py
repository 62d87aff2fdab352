"""Where arrays live: devices, and for each device the namespace ``xp`` that computes on its arrays.

A namespace has NumPy's names (``xp.exp``, ``xp.zeros``) and, laid over them, tensorlite's kernels (``xp.softmax``,
``xp.scatter_add``). ``BACKENDS`` finds it from the type of an array, so no op ever asks which device it is on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from ..errors import DeviceError
from . import reference
from .cpu import kernels as cpu
from .cpu.generator import Pcg64Generator
from .philox import PhiloxGenerator

__all__ = [
    "BACKENDS",
    "Array",
    "Device",
    "DeviceLike",
    "Namespace",
    "backend_of",
    "build_namespace",
    "cuda_is_available",
    "describe_array",
    "device",
    "device_of",
    "get_default_device",
    "namespace",
    "register_backend",
    "set_default_device",
]

Array: TypeAlias = Any
"""A raw array of any registered backend: ``numpy.ndarray``, ``cupy.ndarray``, ..."""


class Namespace(SimpleNamespace):
    """The functions that compute on one kind of array: a module's names with kernels laid over them.

    Beside those names it has ``device_type`` (``"cpu"``), ``array_type``, ``from_numpy(array, index)``,
    ``to_numpy(array)``, ``index_of(array)`` (the ordinal of the device that holds an array, None on the CPU), and
    ``select(index)``, which makes the device of that ordinal the current one. ``generator`` is the class of its random
    numbers: Philox, unless the backend names another.
    """

    generator: type = PhiloxGenerator


class _Backends(dict[type, Namespace]):
    def __missing__(self, kind: type) -> Namespace:
        raise TypeError(
            f"the array of a tensor must be a raw array of one of its backends, got {kind.__name__}. To change what "
            f"a tensor x holds, write x.data = value or x.data -= step."
        )


BACKENDS: dict[type, Namespace] = _Backends()
"""Array type -> namespace. CuPy adds its entry the first time that someone asks for the GPU."""

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
    """The device that ``spec`` names: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or a Device. None is the default device.

    Raises DeviceError if no backend has that name. Whether a GPU is really there is checked on first use.
    """
    if spec is None:
        return get_default_device()
    if isinstance(spec, Device):
        return spec
    name, _, ordinal = str(spec).partition(":")
    if name not in _LOADERS or (ordinal and not ordinal.isdecimal()):
        raise DeviceError(f"device: unknown device {spec!r}; known devices are {', '.join(sorted(_LOADERS))}")
    if ordinal:
        index = int(ordinal)
    if index is None and name == "cuda":
        index = 0
    return Device(name, index)


_default: Device | None = None


def get_default_device() -> Device:
    """The device of tensors made without one: ``set_default_device``, else ``TENSORLITE_DEVICE``, else the CPU."""
    global _default
    if _default is None:
        try:
            _default = device(os.environ.get("TENSORLITE_DEVICE") or "cpu")
        except DeviceError as error:
            raise DeviceError(f"TENSORLITE_DEVICE: {error}") from None
    return _default


def set_default_device(spec: DeviceLike) -> None:
    """Make new tensors on this device from now on. None goes back to ``TENSORLITE_DEVICE``, else the CPU.

    Raises DeviceError if the device is not there.
    """
    global _default
    chosen = None if spec is None else device(spec)
    if chosen is not None:
        namespace(chosen)
    _default = chosen


def namespace(where: Device) -> Namespace:
    """The namespace of a device, loaded on first use; the device becomes the current one of its kind.

    Raises DeviceError, with the reason, if it cannot be.
    """
    found = _LOADED.get(where.type)
    if found is None:
        found = _LOADED[where.type] = _LOADERS[where.type]()
        BACKENDS[found.array_type] = found
    if where.index is not None:
        found.select(where.index)
    return found


def backend_of(values: Iterable[object]) -> Namespace | None:
    """The namespace of the first raw array among the values, None if there is none."""
    for value in values:
        if type(value) in BACKENDS:
            return BACKENDS[type(value)]
    return None


def device_of(array: Array) -> Device:
    """The device that holds a raw array."""
    xp = BACKENDS[type(array)]
    return Device(xp.device_type, xp.index_of(array))


def describe_array(value: Any) -> str:
    """A raw array as ``float32(2, 3)``, with its device if that is not the CPU; anything else by its type."""
    if type(value) not in BACKENDS:
        return type(value).__name__
    kind = BACKENDS[type(value)].device_type
    return f"{value.dtype}{tuple(value.shape)}" + ("" if kind == "cpu" else f" on {kind}")


def register_backend(name: str, load: Callable[[], Namespace]) -> None:
    """Make a device type known. ``load`` returns its namespace (see :func:`build_namespace`) or raises DeviceError."""
    _LOADERS[name] = load
    _LOADED.pop(name, None)


def build_namespace(module: ModuleType, *kernels: ModuleType, **names: Any) -> Namespace:
    """A module's public names, overlaid with the kernels in the ``__all__`` of others: functions of the namespace.

    Later kernel modules lie over earlier ones, so a faster twin replaces the reference of the same name.
    """
    xp = Namespace(**{k: v for k, v in vars(module).items() if not k.startswith("_")})
    for room in kernels:
        for name in room.__all__:
            setattr(xp, name, partial(getattr(room, name), xp))
    vars(xp).update(names)
    return xp


def _load_cpu() -> Namespace:
    return build_namespace(
        np,
        reference,
        cpu,
        device_type="cpu",
        array_type=np.ndarray,
        from_numpy=lambda array, index=None: array,
        to_numpy=lambda array: array,
        index_of=lambda array: None,
        select=lambda index: None,
        generator=Pcg64Generator,
    )


def _load_cuda() -> Namespace:
    from .cuda import devices, find_cupy, kernels  # here, because CuPy is an extra and slow to import

    module = find_cupy.require_cupy()
    return build_namespace(module, reference, kernels, **devices.namespace_attributes(module))


def cuda_is_available() -> bool:
    """Return whether a GPU can be used through CuPy."""
    from .cuda import find_cupy

    return find_cupy.find_cupy()[0] is not None


register_backend("cpu", _load_cpu)
register_backend("cuda", _load_cuda)
namespace(Device("cpu"))
