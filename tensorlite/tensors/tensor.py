"""The Tensor: an array that remembers how it was made. Its methods are the ops, written out, with PyTorch's names."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import ops, random
from ..autograd import gradients, version_counter
from ..autograd.function import op
from ..autograd.grad_mode import is_grad_enabled
from ..autograd.graph import Node, Variable, wrap
from ..autograd.views import current_view_info, owns_memory, regenerate_view
from ..backends.registry import BACKENDS, Array, Device, DeviceLike, Namespace, device_of, namespace
from ..backends.registry import device as as_device
from ..dtypes import (
    DType,
    as_dtype,
    bool_,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    is_floating,
    uint8,
)
from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from ..ops.arguments import dim_in, ints_in, numpy_names
from ..ops.elementwise import convert, convert_to_discrete
from ..ops.index import assign, getitem, index_put, with_view
from ..ops.reduce import sum_to_size
from ..ops.shape import expand, repeat, view

__all__ = ["RemovableHandle", "Tensor", "as_array"]


def as_array(data: Any, dtype: Any = None, where: DeviceLike = None) -> Array:
    """A raw array of a Tensor, a raw array, a number, or nested sequences of these; not copied if it need not be.

    Python floats become the default dtype, ints int64; arrays keep theirs. Raises TypeError, ShapeError, DTypeError.
    """
    raw = data.array if isinstance(data, Variable) else data
    if type(raw) not in BACKENDS:
        raw = _from_python(raw, dtype)
        _require_fit(raw, dtype)
    target = as_dtype(raw.dtype.newbyteorder("=") if dtype is None else dtype)
    if raw.dtype != target:
        raw = raw.astype(target)
    if where is None and (isinstance(data, Variable) or type(data) in BACKENDS):
        return raw
    return _moved(raw, as_device(where))


def _from_python(data: Any, dtype: Any = None) -> Array:
    if isinstance(data, (list, tuple)) and any(isinstance(item, Variable) for item in data):
        data = [item.array.tolist() if isinstance(item, Variable) else item for item in data]
    try:
        array = np.array(data)
    except ValueError:
        raise ShapeError(
            "tensor: the nested sequences have different lengths; every row needs the same number of entries"
        ) from None
    if array.dtype == np.object_ and isinstance(data, int):
        raise DTypeError(f"tensor: {data} does not fit into int64")
    if array.dtype.kind not in "biufc":
        raise TypeError(f"tensor: expected numbers or booleans, got {type(data).__name__} {data!r:.60}")
    if dtype is not None:
        return array  # as precise as Python's numbers, until it is converted
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if array.dtype == np.float64 and not isinstance(first, (np.generic, np.ndarray)):
        return array.astype(get_default_dtype())
    if array.dtype == np.complex128 and not isinstance(first, (np.generic, np.ndarray)):
        return array.astype(np.complex64)
    return array


def _require_fit(array: Array, dtype: Any) -> None:
    """Raise DTypeError if Python's numbers would wrap around in an integer dtype, or cannot be integers at all."""
    if dtype is None or (target := as_dtype(dtype)).kind not in "iu" or not array.size or array.dtype.kind not in "iuf":
        return
    low, high = array.min(), array.max()
    if not np.iinfo(target).min <= low <= high <= np.iinfo(target).max:
        raise DTypeError(f"tensor: the numbers from {low} to {high} do not fit into {target}")


def _moved(array: Array, where: Device) -> Array:
    """The array on this device; itself if it is there."""
    here = device_of(array)
    if here.type == where.type and where.index in (None, here.index):
        return array
    return namespace(where).from_numpy(BACKENDS[type(array)].to_numpy(array), where.index)


@op(lambda g, source, target: transfer(g, source, target))
def transfer(xp: Namespace, x: Array, target: Device, source: Device) -> Array:
    """x on another device."""
    return _moved(x, target)


@op(lambda g: g)
def clone(xp: Namespace, x: Array) -> Array:
    """A copy of x, through which gradients flow."""
    return x.copy()


class RemovableHandle:
    """What ``register_hook`` returns: ``remove()`` takes the hook away. Also a context manager."""

    def __init__(self, remove: Callable[[], None]) -> None:
        self.remove = remove

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _is_dtype(name: str) -> bool:
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True


def _sizes(args: tuple[Any, ...], named: Any = None) -> tuple[int, ...]:
    """``f(2, 3)``, ``f((2, 3))`` and ``f(name=(2, 3))`` mean the same."""
    if named is not None:
        args = (named,) if isinstance(named, (tuple, list)) else (named, *args)
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


class Tensor(Variable):
    """An n-dimensional array that records the ops it goes through, so that gradients can flow back.

    data: numbers, nested sequences, an array or a Tensor; copied. See :func:`tensorlite.tensor`.
    requires_grad: whether ops on it are recorded and ``backward`` fills its ``grad``.

    ``x.array`` is the raw array: what is written there, no graph notices.
    """

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        array = as_array(data)
        source = data.array if isinstance(data, Variable) else data
        self.array = array.copy() if array is source else array
        self.requires_grad = requires_grad

    # ---- what it is --------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.array.shape

    @property
    def dtype(self) -> DType:
        """The number type, a NumPy dtype."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    @property
    def device(self) -> Device:
        """Where the data lives."""
        return device_of(self.array)

    @property
    def itemsize(self) -> int:
        """Bytes an entry."""
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return self.array.nbytes

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor. Can be set on leaves."""
        return self.tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not is_floating(self.array.dtype):
            raise DTypeError(
                f"requires_grad: only floating point tensors have gradients, this one is {self.array.dtype}"
            )
        if not value and self.node is not None:
            raise GraphError("requires_grad: this tensor is the result of a recorded op; use detach() to cut it off")
        self.tracked = bool(value)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it."""
        return self.node is None

    @property
    def grad_fn(self) -> Node | None:
        """The recorded op call that made it; None for a leaf."""
        return self.node

    @property
    def T(self) -> Tensor:
        """The dimensions in reverse order."""
        return ops.permute(self, tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """The last two dimensions swapped."""
        return ops.transpose(self, -2, -1)

    @property
    def _version(self) -> int:
        """How often its memory has been changed in place."""
        return version_counter.version(self.array)

    def dim(self) -> int:
        """The number of dimensions."""
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[dim_in("size", dim, self.ndim)]

    def numel(self) -> int:
        """The number of entries."""
        return int(self.array.size)

    nelement = numel

    def element_size(self) -> int:
        """Bytes an entry."""
        return self.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """How many entries further in memory the next one along each dimension, or one of them, lies."""
        steps = tuple(n // self.itemsize for n in self.array.strides)
        return steps if dim is None else steps[dim_in("stride", dim, self.ndim)]

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on an NVIDIA GPU."""
        return self.device.type == "cuda"

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating point one."""
        return is_floating(self.dtype)

    def is_contiguous(self) -> bool:
        """Whether the entries lie in memory in order."""
        return bool(self.array.flags.c_contiguous)

    def __repr__(self) -> str:
        values = BACKENDS[type(self.array)].to_numpy(self.array)
        shown = np.array2string(values, separator=", ", prefix="tensor(", precision=4, threshold=1000)
        notes = [shown]
        if self.array.size == 0 and self.ndim != 1:
            notes.append(f"size={self.shape}")
        if self.dtype not in (get_default_dtype(), int64, bool_):
            notes.append(f"dtype={self.dtype}")
        if self.device.type != "cpu":
            notes.append(f"device='{self.device}'")
        if self.node is not None:
            notes.append(f"grad_fn={self.node}")
        elif self.tracked:
            notes.append("requires_grad=True")
        return f"tensor({', '.join(notes)})"

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return iter(ops.unbind(self))

    def __contains__(self, value: Any) -> bool:
        return bool(ops.eq(self, value).array.any())

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self.node is not None:
            raise GraphError("deepcopy: only leaf tensors can be copied with their history; use clone() or detach()")
        result = object.__new__(type(self))
        memo[id(self)] = result
        for name, value in vars(self).items():
            if name != "view_info":
                setattr(result, name, self.array.copy() if name == "array" else copy.deepcopy(value, memo))
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "view_info"}

    # ---- leaving the graph -------------------------------------------------------------------

    def item(self) -> Any:
        """The only entry, as a Python number. Raises ShapeError if there is not exactly one."""
        if self.array.size != 1:
            raise ShapeError(f"item: only a tensor with one entry is a number, this one has shape {self.shape}")
        return self.array.item()

    def tolist(self) -> Any:
        """The entries as nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self, *, force: Any = False) -> np.ndarray[Any, Any]:
        """The NumPy array that holds the entries: the same memory. With ``force``, of ``x.detach().cpu()``.

        Raises GraphError if gradients flow through this tensor, DeviceError if it is not on the CPU.
        """
        if force:
            return self.detach().cpu().numpy()
        if self.tracked:
            raise GraphError("numpy: this tensor requires gradients, which NumPy would lose; use x.detach().numpy()")
        if type(self.array) is not np.ndarray:
            raise DeviceError(f"numpy: this tensor is on {self.device}; use x.cpu().numpy()")
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def detach(self) -> Tensor:
        """The same memory, as a leaf that requires no gradients."""
        return wrap(self.array)

    @property
    def data(self) -> Tensor:
        """Return a detached Tensor that shares this one's memory, as in PyTorch. The raw array is ``.array``."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Variable):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}. Set .array to a raw array.")
        self.array = value.array

    def detach_(self) -> Tensor:
        """Cut this tensor itself off from its history."""
        self.node, self.tracked, self.hooks, self.view_info = None, False, None, None
        return self

    def clone(self) -> Tensor:
        """A copy, through which gradients flow."""
        return clone(self)

    def contiguous(self) -> Tensor:
        """Itself if its entries lie in memory in order, else a copy in which they do."""
        return self if self.is_contiguous() else clone(self)

    def _one(self) -> Any:
        if self.array.size != 1:
            raise ShapeError(
                f"a tensor of shape {self.shape} has no single value; use any(), all() or item() of one entry"
            )
        return self.array.item()

    def __bool__(self) -> bool:
        return bool(self._one())

    def __float__(self) -> float:
        return float(self._one())

    def __int__(self) -> int:
        return int(self._one())

    def __index__(self) -> int:
        if self.dtype.kind not in "iub":
            raise TypeError(f"only integer tensors can be used as an index, this one is {self.dtype}")
        return int(self._one())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.ndim or (spec and self.array.size == 1) else repr(self)

    # ---- gradients ---------------------------------------------------------------------------

    def backward(
        self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
    ) -> None:
        """Add the gradient of this tensor to the ``grad`` of every leaf that it depends on (or of ``inputs``).

        gradient: the weight of each entry, of this tensor's shape; may be left out for a scalar.
        Raises GraphError, VersionError: see :func:`tensorlite.autograd.grad`, which has the other arguments too.
        """
        gradients.backward(self, gradient, retain_graph, create_graph, inputs)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` and return the tensor."""
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Make ``backward`` fill ``grad`` although this is not a leaf."""
        gradients.retain_grad(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(gradient)`` whenever the gradient is known; what it returns, if not None, replaces it."""
        return RemovableHandle(gradients.add_hook(self, hook))

    # ---- devices and dtypes ------------------------------------------------------------------

    def to(
        self, *args: Any, dtype: Any = None, device: DeviceLike = None, non_blocking: Any = False, copy: Any = False
    ) -> Tensor:
        """This tensor with another dtype, on another device, or both: ``to(dtype)``, ``to(device)``, ``to(other)``.

        Itself if nothing changes, unless ``copy``. Gradients flow through. ``non_blocking`` is a wish that PyTorch's
        users have; it changes nothing.
        """
        for a in args:
            if isinstance(a, Variable):
                dtype, device = a.array.dtype, device_of(a.array)
            elif isinstance(a, Device) or (isinstance(a, str) and not _is_dtype(a)):
                device = a
            elif a is not None:
                dtype = a
        result = self
        if dtype is not None and (target := as_dtype(dtype)) != self.dtype:
            if is_floating(target) and is_floating(self.dtype):
                result = convert(result, target, self.dtype)
            else:
                result = convert_to_discrete(result, target)
        if device is not None:
            there, here = as_device(device), self.device
            if here.type != there.type or there.index not in (None, here.index):
                result = transfer(result, there, here)
        return clone(result) if copy and result is self else result

    def type(self, dtype: Any) -> Tensor:
        """This tensor in another dtype."""
        return self.to(dtype=dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """This tensor in the dtype and on the device of another."""
        return self.to(other)

    def cpu(self) -> Tensor:
        """This tensor on the CPU."""
        return self.to(device="cpu")

    def cuda(self, index: int | None = None) -> Tensor:
        """This tensor on a GPU. Raises DeviceError, with the reason, if there is none."""
        return self.to(device=as_device("cuda", index))

    def float(self) -> Tensor:
        """As float32."""
        return self.to(dtype=float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(dtype=float64)

    def half(self) -> Tensor:
        """As float16."""
        return self.to(dtype=float16)

    def int(self) -> Tensor:
        """As int32."""
        return self.to(dtype=int32)

    def long(self) -> Tensor:
        """As int64."""
        return self.to(dtype=int64)

    def short(self) -> Tensor:
        """As int16."""
        return self.to(dtype=int16)

    def char(self) -> Tensor:
        """As int8."""
        return self.to(dtype=int8)

    def byte(self) -> Tensor:
        """As uint8."""
        return self.to(dtype=uint8)

    def bool(self) -> Tensor:
        """As booleans: whether each entry is nonzero."""
        return self.to(dtype=bool_)

    # ---- new tensors of its kind -------------------------------------------------------------

    def new_zeros(self, *size: Any, dtype: Any = None) -> Tensor:
        """Zeros of this size, in this tensor's dtype unless one is given, and on its device."""
        return self.new_full(_sizes(size), 0, dtype)

    def new_ones(self, *size: Any, dtype: Any = None) -> Tensor:
        """Ones of this size, in this tensor's dtype unless one is given, and on its device."""
        return self.new_full(_sizes(size), 1, dtype)

    def new_empty(self, *size: Any, dtype: Any = None) -> Tensor:
        """Zeros, for what PyTorch leaves unset is nothing to rely on; see :meth:`new_zeros`."""
        return self.new_zeros(*size, dtype=dtype)

    def new_full(self, size: Sequence[Any], fill_value: Any, dtype: Any = None) -> Tensor:
        """A tensor of this size with one value, in this tensor's dtype unless one is given, and on its device."""
        kind = self.dtype if dtype is None else as_dtype(dtype)
        shape, value = ints_in("new_full", "sizes", size), as_array(fill_value, where="cpu")
        if min(shape, default=0) < 0 or value.size != 1:
            raise ShapeError(f"new_full: cannot fill sizes {shape} with a value of shape {value.shape}")
        filled = BACKENDS[type(self.array)].full(shape, value.item(), kind)
        return wrap(filled)

    def new_tensor(self, data: Any, dtype: Any = None) -> Tensor:
        """A new tensor of the data, in this tensor's dtype unless one is given, and on its device."""
        return wrap(as_array(data, self.dtype if dtype is None else dtype, self.device).copy())

    # ---- operators ---------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.true_divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.true_divide(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return ops.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return ops.floor_divide(other, self)

    def __mod__(self, other: Any) -> Tensor:
        return ops.remainder(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return ops.remainder(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return ops.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.pow(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __invert__(self) -> Tensor:
        return ops.bitwise_not(self)

    def __lshift__(self, other: Any) -> Tensor:
        return ops.bitwise_left_shift(self, other)

    def __rshift__(self, other: Any) -> Tensor:
        return ops.bitwise_right_shift(self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        return ops.bitwise_left_shift(other, self)

    def __rrshift__(self, other: Any) -> Tensor:
        return ops.bitwise_right_shift(other, self)

    def __and__(self, other: Any) -> Tensor:
        return ops.bitwise_and(self, other)

    def __or__(self, other: Any) -> Tensor:
        return ops.bitwise_or(self, other)

    def __xor__(self, other: Any) -> Tensor:
        return ops.bitwise_xor(self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return ops.eq(self, other) if other is not None else NotImplemented

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return ops.ne(self, other) if other is not None else NotImplemented

    def __lt__(self, other: Any) -> Tensor:
        return ops.lt(self, other)

    def __le__(self, other: Any) -> Tensor:
        return ops.le(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.gt(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.ge(self, other)

    def __getitem__(self, index: Any) -> Tensor:
        return getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._assign("setitem", index, value)

    # ---- in place ----------------------------------------------------------------------------
    # An op computes the new value; it is written into this tensor's memory, and the tensor takes the op's place in the
    # graph. Views of the memory see the change; what the graph had saved of it becomes stale, which backward notices.

    def _refuse_leaf(self, name: str) -> None:
        if self.tracked and self.node is None and is_grad_enabled():
            raise GraphError(
                f"{name}: this leaf requires gradients, which changing it in place would lose; do it under no_grad(), "
                f"or use the op that returns a new tensor"
            )

    def _refuse_read_only(self, name: str) -> None:
        if not getattr(self.array.flags, "writeable", True):
            raise ShapeError(
                f"{name}: cannot write into a tensor of shape {self.shape}: its memory is read-only, as that of an "
                f"expanded tensor or a diagonal is; clone() it first"
            )

    def _refuse_discrete(self, name: str) -> None:
        if not is_floating(self.dtype):
            raise DTypeError(f"{name}: random numbers need a floating point tensor, this one is {self.dtype}")

    def _change(self, name: str, write: Callable[[], None]) -> Tensor:
        """Change the memory in a way that no gradient follows."""
        self._refuse_leaf(name)
        self._refuse_read_only(name)
        try:
            write()
        except ValueError as error:
            raise ShapeError(f"{name}: cannot write into a tensor of shape {self.shape}: {error}") from None
        version_counter.bump_version(self.array)
        return self

    def _assign(self, name: str, index: Any, value: Any) -> Tensor:
        """``self[index] = value``: what was there before gets no gradient, the value does."""
        if version_counter.inplace_in_graph and is_grad_enabled() and not self.tracked:
            regenerate_view(self)
        plain = not self.tracked and not (isinstance(value, Variable) and value.tracked)
        if plain or not is_grad_enabled():
            return self._change(name, lambda: assign(self.array, index, value))
        return self._become(name, index_put(self, index, value))

    def _base(self, name: str) -> tuple[Tensor, Any]:
        """The tensor that changes when this one does, which is itself or what it is a view of, and the way to here."""
        base, steps = current_view_info(self)
        base._refuse_leaf(name)
        if not owns_memory(base) and (base.node is None or base.node.plan.is_view):
            raise GraphError(
                f"{name}: this tensor is a view, and its base would not notice that its gradient has changed; clone() "
                f"it first, or change the base by indexing: base[...] = value"
            )
        return base, steps

    def _become(self, name: str, out: Tensor) -> Tensor:
        """Write an op's result into this tensor's memory and take its place in the graph."""
        self._refuse_leaf(name)
        if out.shape != self.shape:
            raise ShapeError(
                f"{name}: the result has shape {out.shape}, which does not fit in place into shape {self.shape}"
            )
        if out.dtype != self.dtype and not np.can_cast(out.dtype, self.dtype, "same_kind"):
            raise DTypeError(f"{name}: the result is {out.dtype}, which cannot be stored in place as {self.dtype}")
        node = out.node
        if node is None:
            return self._change(name, lambda: self.array.__setitem__(..., out.array))
        base, steps = self._base(name)
        self._refuse_read_only(name)
        out = out.to(self.dtype)
        node = out.node
        assert node is not None
        if isinstance(node.saved, list):  # the op's own inputs must outlive the change
            memory = version_counter.base_array(self.array)
            node.saved = [
                v.copy() if type(v) in BACKENDS and version_counter.base_array(v) is memory else v for v in node.saved
            ]
        if steps is not None:  # it is the base that changes; this view is then taken again
            node = with_view(base, out, steps).node
            assert node is not None
        self.array[...] = out.array
        node.seq = version_counter.bump_version(self.array, in_graph=True)
        base.node, base.tracked = node, True
        if steps is not None:
            regenerate_view(self)
        return self

    def add_(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """``self += alpha * other``."""
        return self._become("add_", ops.add(self, other, alpha))

    def sub_(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """``self -= alpha * other``."""
        return self._become("sub_", ops.sub(self, other, alpha))

    def mul_(self, other: Any) -> Tensor:
        """``self *= other``."""
        return self._become("mul_", ops.mul(self, other))

    def div_(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """``self /= other``."""
        return self._become("div_", ops.div(self, other, rounding_mode=rounding_mode))

    def subtract_(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """As :meth:`sub_`."""
        return self._become("subtract_", ops.sub(self, other, alpha))

    def multiply_(self, other: Any) -> Tensor:
        """As :meth:`mul_`."""
        return self._become("multiply_", ops.mul(self, other))

    def divide_(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """As :meth:`div_`."""
        return self._become("divide_", ops.div(self, other, rounding_mode=rounding_mode))

    def pow_(self, exponent: Any) -> Tensor:
        """``self **= exponent``."""
        return self._become("pow_", ops.pow(self, exponent))

    def remainder_(self, other: Any) -> Tensor:
        """``self %= other``."""
        return self._become("remainder_", ops.remainder(self, other))

    def floor_divide_(self, other: Any) -> Tensor:
        """``self //= other``."""
        return self._become("floor_divide_", ops.floor_divide(self, other))

    __iadd__, __isub__, __imul__, __itruediv__ = add_, sub_, mul_, div_
    __ipow__, __imod__, __ifloordiv__ = pow_, remainder_, floor_divide_

    def neg_(self) -> Tensor:
        """The negative, in place."""
        return self._become("neg_", ops.neg(self))

    def abs_(self) -> Tensor:
        """The absolute value, in place."""
        return self._become("abs_", ops.abs(self))

    def exp_(self) -> Tensor:
        """The exponential, in place."""
        return self._become("exp_", ops.exp(self))

    def log_(self) -> Tensor:
        """The natural logarithm, in place."""
        return self._become("log_", ops.log(self))

    def sqrt_(self) -> Tensor:
        """The square root, in place."""
        return self._become("sqrt_", ops.sqrt(self))

    def tanh_(self) -> Tensor:
        """The hyperbolic tangent, in place."""
        return self._become("tanh_", ops.tanh(self))

    def sigmoid_(self) -> Tensor:
        """The logistic function, in place."""
        return self._become("sigmoid_", ops.sigmoid(self))

    def relu_(self) -> Tensor:
        """``max(x, 0)``, in place."""
        return self._become("relu_", ops.relu(self))

    def clamp_(self, min: Any = None, max: Any = None) -> Tensor:
        """Held between ``min`` and ``max``, in place."""
        return self._become("clamp_", ops.clamp(self, min, max))

    def clip_(self, min: Any = None, max: Any = None) -> Tensor:
        """As :meth:`clamp_`."""
        return self._become("clip_", ops.clamp(self, min, max))

    def clamp_min_(self, min: Any) -> Tensor:
        """Held at or above ``min``, in place."""
        return self._become("clamp_min_", ops.clamp(self, min, None))

    def clamp_max_(self, max: Any) -> Tensor:
        """Held at or below ``max``, in place."""
        return self._become("clamp_max_", ops.clamp(self, None, max))

    def square_(self) -> Tensor:
        """The square, in place."""
        return self._become("square_", ops.square(self))

    def reciprocal_(self) -> Tensor:
        """``1 / x``, in place."""
        return self._become("reciprocal_", ops.reciprocal(self))

    def rsqrt_(self) -> Tensor:
        """``1 / sqrt(x)``, in place."""
        return self._become("rsqrt_", ops.rsqrt(self))

    def expm1_(self) -> Tensor:
        """``exp(x) - 1``, in place."""
        return self._become("expm1_", ops.expm1(self))

    def log1p_(self) -> Tensor:
        """``log(1 + x)``, in place."""
        return self._become("log1p_", ops.log1p(self))

    def erf_(self) -> Tensor:
        """The error function, in place."""
        return self._become("erf_", ops.erf(self))

    def sin_(self) -> Tensor:
        """The sine, in place."""
        return self._become("sin_", ops.sin(self))

    def cos_(self) -> Tensor:
        """The cosine, in place."""
        return self._become("cos_", ops.cos(self))

    def sign_(self) -> Tensor:
        """-1, 0 or 1, in place."""
        return self._become("sign_", ops.sign(self))

    def floor_(self) -> Tensor:
        """Rounded down, in place."""
        return self._become("floor_", ops.floor(self))

    def ceil_(self) -> Tensor:
        """Rounded up, in place."""
        return self._become("ceil_", ops.ceil(self))

    def round_(self) -> Tensor:
        """Rounded to the nearest integer, in place."""
        return self._become("round_", ops.round(self))

    def trunc_(self) -> Tensor:
        """Rounded towards 0, in place."""
        return self._become("trunc_", ops.trunc(self))

    def tril_(self, diagonal: Any = 0) -> Tensor:
        """The lower triangles of matrices, zero elsewhere, in place."""
        return self._become("tril_", ops.tril(self, diagonal))

    def triu_(self, diagonal: Any = 0) -> Tensor:
        """The upper triangles of matrices, zero elsewhere, in place."""
        return self._become("triu_", ops.triu(self, diagonal))

    def masked_fill_(self, mask: Any, value: Any) -> Tensor:
        """``value`` where ``mask`` is true, in place."""
        return self._become("masked_fill_", ops.masked_fill(self, mask, value))

    def index_add_(self, dim: Any, index: Any, source: Any, *, alpha: Any = 1) -> Tensor:
        """Rows of ``source`` added to the rows that ``index`` names, in place."""
        return self._become("index_add_", ops.index_add(self, dim, index, source, alpha=alpha))

    def scatter_(self, dim: Any, index: Any, src: Any = None, *, value: Any = None) -> Tensor:
        """Entries of ``src`` written to where ``index`` says, in place."""
        return self._become("scatter_", ops.scatter(self, dim, index, src, value=value))

    def scatter_add_(self, dim: Any, index: Any, src: Any) -> Tensor:
        """Entries of ``src`` added to where ``index`` says, in place."""
        return self._become("scatter_add_", ops.scatter_add(self, dim, index, src))

    def copy_(self, source: Any) -> Tensor:
        """The values of ``source``, broadcast to this shape and converted to this dtype; gradients flow to it."""
        value: Tensor = source if isinstance(source, Tensor) else wrap(as_array(source, where=self.device))
        return self._assign("copy_", ..., value.to(self.dtype, self.device))

    def fill_(self, value: Any) -> Tensor:
        """Every entry set to a number or a 0-d tensor."""
        return self.copy_(value) if isinstance(value, Variable) else self._assign("fill_", ..., value)

    def zero_(self) -> Tensor:
        """Every entry set to 0."""
        return self._assign("zero_", ..., 0)

    def uniform_(self, low: Any = 0.0, high: Any = 1.0, *, generator: random.Generator | None = None) -> Tensor:
        """Random numbers from [low, high). Raises DTypeError for integers."""
        self._refuse_discrete("uniform_")
        draw = (generator or random.default_generator).uniform(BACKENDS[type(self.array)], self.shape, self.dtype)
        return self._assign("uniform_", ..., draw * (high - low) + low)

    def normal_(self, mean: Any = 0.0, std: Any = 1.0, *, generator: random.Generator | None = None) -> Tensor:
        """Random numbers from a normal distribution. Raises DTypeError for integers."""
        self._refuse_discrete("normal_")
        draw = (generator or random.default_generator).normal(BACKENDS[type(self.array)], self.shape, self.dtype)
        return self._assign("normal_", ..., draw * std + mean)

    # ---- the ops as methods ------------------------------------------------------------------

    def neg(self) -> Tensor:
        """See :func:`tensorlite.neg`."""
        return ops.neg(self)

    def reciprocal(self) -> Tensor:
        """See :func:`tensorlite.reciprocal`."""
        return ops.reciprocal(self)

    def square(self) -> Tensor:
        """See :func:`tensorlite.square`."""
        return ops.square(self)

    def abs(self) -> Tensor:
        """See :func:`tensorlite.abs`."""
        return ops.abs(self)

    def exp(self) -> Tensor:
        """See :func:`tensorlite.exp`."""
        return ops.exp(self)

    def expm1(self) -> Tensor:
        """See :func:`tensorlite.expm1`."""
        return ops.expm1(self)

    def log(self) -> Tensor:
        """See :func:`tensorlite.log`."""
        return ops.log(self)

    def log1p(self) -> Tensor:
        """See :func:`tensorlite.log1p`."""
        return ops.log1p(self)

    def log2(self) -> Tensor:
        """See :func:`tensorlite.log2`."""
        return ops.log2(self)

    def log10(self) -> Tensor:
        """See :func:`tensorlite.log10`."""
        return ops.log10(self)

    def sqrt(self) -> Tensor:
        """See :func:`tensorlite.sqrt`."""
        return ops.sqrt(self)

    def rsqrt(self) -> Tensor:
        """See :func:`tensorlite.rsqrt`."""
        return ops.rsqrt(self)

    def tanh(self) -> Tensor:
        """See :func:`tensorlite.tanh`."""
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        """See :func:`tensorlite.sigmoid`."""
        return ops.sigmoid(self)

    def erf(self) -> Tensor:
        """See :func:`tensorlite.erf`."""
        return ops.erf(self)

    def sin(self) -> Tensor:
        """See :func:`tensorlite.sin`."""
        return ops.sin(self)

    def cos(self) -> Tensor:
        """See :func:`tensorlite.cos`."""
        return ops.cos(self)

    def tan(self) -> Tensor:
        """See :func:`tensorlite.tan`."""
        return ops.tan(self)

    def asin(self) -> Tensor:
        """See :func:`tensorlite.asin`."""
        return ops.asin(self)

    def acos(self) -> Tensor:
        """See :func:`tensorlite.acos`."""
        return ops.acos(self)

    def atan(self) -> Tensor:
        """See :func:`tensorlite.atan`."""
        return ops.atan(self)

    def sinh(self) -> Tensor:
        """See :func:`tensorlite.sinh`."""
        return ops.sinh(self)

    def cosh(self) -> Tensor:
        """See :func:`tensorlite.cosh`."""
        return ops.cosh(self)

    def sign(self) -> Tensor:
        """See :func:`tensorlite.sign`."""
        return ops.sign(self)

    def floor(self) -> Tensor:
        """See :func:`tensorlite.floor`."""
        return ops.floor(self)

    def ceil(self) -> Tensor:
        """See :func:`tensorlite.ceil`."""
        return ops.ceil(self)

    def trunc(self) -> Tensor:
        """See :func:`tensorlite.trunc`."""
        return ops.trunc(self)

    def relu(self) -> Tensor:
        """See :func:`tensorlite.relu`."""
        return ops.relu(self)

    def logical_not(self) -> Tensor:
        """See :func:`tensorlite.logical_not`."""
        return ops.logical_not(self)

    def isnan(self) -> Tensor:
        """See :func:`tensorlite.isnan`."""
        return ops.isnan(self)

    def isinf(self) -> Tensor:
        """See :func:`tensorlite.isinf`."""
        return ops.isinf(self)

    def isfinite(self) -> Tensor:
        """See :func:`tensorlite.isfinite`."""
        return ops.isfinite(self)

    def round(self, decimals: Any = 0) -> Tensor:
        """See :func:`tensorlite.round`."""
        return ops.round(self, decimals)

    def add(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """See :func:`tensorlite.add`."""
        return ops.add(self, other, alpha)

    def sub(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """See :func:`tensorlite.sub`."""
        return ops.sub(self, other, alpha)

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """See :func:`tensorlite.div`."""
        return ops.div(self, other, rounding_mode=rounding_mode)

    def mul(self, other: Any) -> Tensor:
        """See :func:`tensorlite.mul`."""
        return ops.mul(self, other)

    def pow(self, exponent: Any) -> Tensor:
        """See :func:`tensorlite.pow`."""
        return ops.pow(self, exponent)

    def floor_divide(self, other: Any) -> Tensor:
        """See :func:`tensorlite.floor_divide`."""
        return ops.floor_divide(self, other)

    def remainder(self, other: Any) -> Tensor:
        """See :func:`tensorlite.remainder`."""
        return ops.remainder(self, other)

    def fmod(self, other: Any) -> Tensor:
        """See :func:`tensorlite.fmod`."""
        return ops.fmod(self, other)

    def atan2(self, other: Any) -> Tensor:
        """See :func:`tensorlite.atan2`."""
        return ops.atan2(self, other)

    def maximum(self, other: Any) -> Tensor:
        """See :func:`tensorlite.maximum`."""
        return ops.maximum(self, other)

    def minimum(self, other: Any) -> Tensor:
        """See :func:`tensorlite.minimum`."""
        return ops.minimum(self, other)

    def logaddexp(self, other: Any) -> Tensor:
        """See :func:`tensorlite.logaddexp`."""
        return ops.logaddexp(self, other)

    def eq(self, other: Any) -> Tensor:
        """See :func:`tensorlite.eq`."""
        return ops.eq(self, other)

    def ne(self, other: Any) -> Tensor:
        """See :func:`tensorlite.ne`."""
        return ops.ne(self, other)

    def lt(self, other: Any) -> Tensor:
        """See :func:`tensorlite.lt`."""
        return ops.lt(self, other)

    def le(self, other: Any) -> Tensor:
        """See :func:`tensorlite.le`."""
        return ops.le(self, other)

    def gt(self, other: Any) -> Tensor:
        """See :func:`tensorlite.gt`."""
        return ops.gt(self, other)

    def ge(self, other: Any) -> Tensor:
        """See :func:`tensorlite.ge`."""
        return ops.ge(self, other)

    def equal(self, other: Tensor) -> Any:
        """See :func:`tensorlite.equal`."""
        return self.shape == other.shape and ops.all(ops.eq(self, other)).item()

    def isclose(self, other: Tensor, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: Any = False) -> Tensor:
        """See :func:`tensorlite.isclose`."""
        x, y = self.detach(), other.detach()
        if x.dtype.kind == "b" and y.dtype.kind == "b":
            return ops.eq(x, y)
        near = ops.le(ops.abs(ops.sub(x, y)), ops.add(ops.mul(ops.abs(y), rtol), atol))
        same = ops.logical_or(ops.eq(x, y), ops.logical_and(near, ops.isfinite(y)))
        return ops.logical_or(same, ops.logical_and(ops.isnan(x), ops.isnan(y))) if equal_nan else same

    def allclose(self, other: Tensor, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: Any = False) -> Any:
        """See :func:`tensorlite.allclose`."""
        try:
            return ops.all(self.isclose(other, rtol, atol, equal_nan)).item()
        except ShapeError:
            raise ShapeError(f"allclose: shapes {self.shape} and {other.shape} do not broadcast") from None

    def logical_and(self, other: Any) -> Tensor:
        """See :func:`tensorlite.logical_and`."""
        return ops.logical_and(self, other)

    def logical_or(self, other: Any) -> Tensor:
        """See :func:`tensorlite.logical_or`."""
        return ops.logical_or(self, other)

    def logical_xor(self, other: Any) -> Tensor:
        """See :func:`tensorlite.logical_xor`."""
        return ops.logical_xor(self, other)

    def matmul(self, other: Any) -> Tensor:
        """See :func:`tensorlite.matmul`."""
        return ops.matmul(self, other)

    def mm(self, mat2: Any) -> Tensor:
        """See :func:`tensorlite.mm`."""
        return ops.mm(self, mat2)

    def bmm(self, mat2: Any) -> Tensor:
        """See :func:`tensorlite.bmm`."""
        return ops.bmm(self, mat2)

    def dot(self, tensor: Any) -> Tensor:
        """See :func:`tensorlite.dot`."""
        return ops.dot(self, tensor)

    def mv(self, vec: Any) -> Tensor:
        """See :func:`tensorlite.mv`."""
        return ops.mv(self, vec)

    def diagonal(self, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> Tensor:
        """See :func:`tensorlite.diagonal`."""
        return ops.diagonal(self, offset, dim1, dim2)

    def diag(self, diagonal: Any = 0) -> Tensor:
        """See :func:`tensorlite.diag`."""
        return ops.diag(self, diagonal)

    def trace(self) -> Tensor:
        """See :func:`tensorlite.trace`."""
        return ops.trace(self)

    def outer(self, vec2: Any) -> Tensor:
        """See :func:`tensorlite.outer`."""
        return ops.outer(self, vec2)

    def addmm(self, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
        """See :func:`tensorlite.addmm`."""
        return ops.addmm(self, mat1, mat2, beta=beta, alpha=alpha)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """See :func:`tensorlite.clamp`."""
        return ops.clamp(self, min, max)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """See :func:`tensorlite.clamp`."""
        return ops.clamp(self, min, max)

    def clamp_min(self, min: Any) -> Tensor:
        """See :func:`tensorlite.clamp`."""
        return ops.clamp(self, min, None)

    def clamp_max(self, max: Any) -> Tensor:
        """See :func:`tensorlite.clamp`."""
        return ops.clamp(self, None, max)

    def where(self, condition: Any, other: Any) -> Tensor:
        """This tensor where ``condition`` is true, else ``other``."""
        return ops.where(condition, self, other)

    def masked_fill(self, mask: Any, value: Any) -> Tensor:
        """See :func:`tensorlite.masked_fill`."""
        return ops.masked_fill(self, mask, value)

    def masked_select(self, mask: Any) -> Tensor:
        """See :func:`tensorlite.masked_select`."""
        return ops.masked_select(self, mask)

    def mean(self, dim: Any = None, keepdim: Any = False, *, dtype: Any = None) -> Tensor:
        """See :func:`tensorlite.mean`."""
        return ops.mean(self if dtype is None else self.to(dtype=dtype), dim, keepdim)

    def prod(self, dim: Any = None, keepdim: Any = False, *, dtype: Any = None) -> Tensor:
        """See :func:`tensorlite.prod`."""
        return ops.prod(self if dtype is None else self.to(dtype=dtype), dim, keepdim)

    def amax(self, dim: Any = None, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.amax`."""
        return ops.amax(self, dim, keepdim)

    def amin(self, dim: Any = None, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.amin`."""
        return ops.amin(self, dim, keepdim)

    def argmax(self, dim: Any = None, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.argmax`."""
        return ops.argmax(self, dim, keepdim)

    def argmin(self, dim: Any = None, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.argmin`."""
        return ops.argmin(self, dim, keepdim)

    def all(self, dim: Any = None, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.all`."""
        return ops.all(self, dim, keepdim)

    def any(self, dim: Any = None, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.any`."""
        return ops.any(self, dim, keepdim)

    def sum(self, dim: Any = None, keepdim: Any = False, *, dtype: Any = None) -> Tensor:
        """See :func:`tensorlite.sum`."""
        return ops.sum(self if dtype is None else self.to(dtype=dtype), dim, keepdim)

    def max(self, dim: Any = None, keepdim: Any = False) -> Any:
        """See :func:`tensorlite.max`."""
        return ops.max(self, dim, keepdim)

    def min(self, dim: Any = None, keepdim: Any = False) -> Any:
        """See :func:`tensorlite.min`."""
        return ops.min(self, dim, keepdim)

    def var(self, dim: Any = None, unbiased: Any = True, keepdim: Any = False, *, correction: Any = None) -> Tensor:
        """See :func:`tensorlite.var`. ``unbiased=False`` is ``correction=0``."""
        return ops.var(self, dim, int(unbiased) if correction is None else correction, keepdim)

    def std(self, dim: Any = None, unbiased: Any = True, keepdim: Any = False, *, correction: Any = None) -> Tensor:
        """See :func:`tensorlite.std`. ``unbiased=False`` is ``correction=0``."""
        return ops.std(self, dim, int(unbiased) if correction is None else correction, keepdim)

    def norm(self, p: Any = 2, dim: Any = None, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.norm`."""
        return ops.norm(self, p, dim, keepdim)

    def logsumexp(self, dim: Any, keepdim: Any = False) -> Tensor:
        """See :func:`tensorlite.logsumexp`."""
        return ops.logsumexp(self, dim, keepdim)

    def cumsum(self, dim: Any, *, dtype: Any = None) -> Tensor:
        """See :func:`tensorlite.cumsum`."""
        return ops.cumsum(self if dtype is None else self.to(dtype=dtype), dim)

    def softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """See :func:`tensorlite.softmax`."""
        return ops.softmax(self if dtype is None else self.to(dtype=dtype), dim)

    def log_softmax(self, dim: Any, dtype: Any = None) -> Tensor:
        """See :func:`tensorlite.log_softmax`."""
        return ops.log_softmax(self if dtype is None else self.to(dtype=dtype), dim)

    def sum_to_size(self, *shape: Any) -> Tensor:
        """See :func:`tensorlite.sum_to_size`."""
        return sum_to_size(self, _sizes(shape))

    def reshape(self, *_: Any, shape: Any = None) -> Tensor:
        """See :func:`tensorlite.reshape`."""
        return ops.reshape(self, _sizes(_, shape))

    def view(self, *_: Any, size: Any = None) -> Tensor:
        """See :func:`tensorlite.view`."""
        return view(self, _sizes(_, size))

    def reshape_as(self, other: Tensor) -> Tensor:
        """In the shape of another tensor."""
        return ops.reshape(self, other.shape)

    def view_as(self, other: Tensor) -> Tensor:
        """A view in the shape of another tensor."""
        return view(self, other.shape)

    def expand(self, *_: Any, size: Any = None) -> Tensor:
        """See :func:`tensorlite.expand`."""
        return expand(self, _sizes(_, size))

    def expand_as(self, other: Tensor) -> Tensor:
        """Expanded to the shape of another tensor."""
        return expand(self, other.shape)

    def broadcast_to(self, shape: Sequence[Any]) -> Tensor:
        """See :func:`tensorlite.broadcast_to`."""
        return ops.broadcast_to(self, shape)

    def permute(self, *_: Any, dims: Any = None) -> Tensor:
        """See :func:`tensorlite.permute`."""
        return ops.permute(self, _sizes(_, dims))

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector or number is itself. Raises ShapeError for more dimensions."""
        if self.ndim > 2:
            raise ShapeError(f"t: expected at most 2 dimensions, got shape {self.shape}; see mT and permute()")
        return ops.transpose(self, 0, 1) if self.ndim == 2 else self

    def transpose(self, dim0: Any, dim1: Any) -> Tensor:
        """See :func:`tensorlite.transpose`."""
        return ops.transpose(self, dim0, dim1)

    def swapaxes(self, dim0: Any, dim1: Any) -> Tensor:
        """See :func:`tensorlite.swapaxes`."""
        return ops.transpose(self, dim0, dim1)

    def movedim(self, source: Any, destination: Any) -> Tensor:
        """See :func:`tensorlite.movedim`."""
        return ops.movedim(self, source, destination)

    def squeeze(self, dim: Any = None) -> Tensor:
        """See :func:`tensorlite.squeeze`."""
        return ops.squeeze(self, dim)

    def unsqueeze(self, dim: Any) -> Tensor:
        """See :func:`tensorlite.unsqueeze`."""
        return ops.unsqueeze(self, dim)

    def flatten(self, start_dim: Any = 0, end_dim: Any = -1) -> Tensor:
        """See :func:`tensorlite.flatten`."""
        return ops.flatten(self, start_dim, end_dim)

    def ravel(self) -> Tensor:
        """All entries in order, as one dimension."""
        return ops.reshape(self, (-1,))

    def unflatten(self, dim: Any, sizes: Sequence[Any]) -> Tensor:
        """See :func:`tensorlite.unflatten`."""
        return ops.unflatten(self, dim, sizes)

    def flip(self, *_: Any, dims: Any = None) -> Tensor:
        """See :func:`tensorlite.flip`."""
        return ops.flip(self, _sizes(_, dims))

    def roll(self, shifts: Any, dims: Any = None) -> Tensor:
        """See :func:`tensorlite.roll`."""
        return ops.roll(self, shifts, dims)

    def narrow(self, dim: Any, start: Any, length: Any) -> Tensor:
        """See :func:`tensorlite.narrow`."""
        return ops.narrow(self, dim, start, length)

    def select(self, dim: Any, index: Any) -> Tensor:
        """Entry ``index`` along a dimension, which the result lacks: a view."""
        return self[(slice(None),) * dim_in("select", dim, self.ndim) + (operator.index(index),)]

    def split(self, split_size: Any, dim: Any = 0) -> tuple[Tensor, ...]:
        """See :func:`tensorlite.split`."""
        return ops.split(self, split_size, dim)

    def chunk(self, chunks: Any, dim: Any = 0) -> tuple[Tensor, ...]:
        """See :func:`tensorlite.chunk`."""
        return ops.chunk(self, chunks, dim)

    def unbind(self, dim: Any = 0) -> tuple[Tensor, ...]:
        """See :func:`tensorlite.unbind`."""
        return ops.unbind(self, dim)

    def repeat(self, *_: Any, sizes: Any = None) -> Tensor:
        """See :func:`tensorlite.repeat`."""
        return repeat(self, _sizes(_, sizes))

    def tile(self, *_: Any, dims: Any = None) -> Tensor:
        """See :func:`tensorlite.tile`."""
        return ops.tile(self, _sizes(_, dims))

    def repeat_interleave(self, repeats: Any, dim: Any = None) -> Tensor:
        """See :func:`tensorlite.repeat_interleave`."""
        return ops.repeat_interleave(self, repeats, dim)

    def gather(self, dim: Any, index: Any) -> Tensor:
        """See :func:`tensorlite.gather`."""
        return ops.gather(self, dim, index)

    def take_along_dim(self, indices: Any, dim: Any = None) -> Tensor:
        """See :func:`tensorlite.take_along_dim`."""
        return ops.take_along_dim(self, indices, dim)

    def index_select(self, dim: Any, index: Any) -> Tensor:
        """See :func:`tensorlite.index_select`."""
        return ops.index_select(self, dim, index)

    def index_add(self, dim: Any, index: Any, source: Any, *, alpha: Any = 1) -> Tensor:
        """See :func:`tensorlite.index_add`."""
        return ops.index_add(self, dim, index, source, alpha=alpha)

    def scatter(self, dim: Any, index: Any, src: Any = None, *, value: Any = None) -> Tensor:
        """See :func:`tensorlite.scatter`."""
        return ops.scatter(self, dim, index, src, value=value)

    def scatter_add(self, dim: Any, index: Any, src: Any) -> Tensor:
        """See :func:`tensorlite.scatter_add`."""
        return ops.scatter_add(self, dim, index, src)

    def tril(self, diagonal: Any = 0) -> Tensor:
        """See :func:`tensorlite.tril`."""
        return ops.tril(self, diagonal)

    def triu(self, diagonal: Any = 0) -> Tensor:
        """See :func:`tensorlite.triu`."""
        return ops.triu(self, diagonal)

    def sort(self, dim: Any = -1, descending: Any = False, stable: Any = False) -> Any:
        """See :func:`tensorlite.sort`."""
        return ops.sort(self, dim, descending, stable=stable)

    def argsort(self, dim: Any = -1, descending: Any = False, stable: Any = False) -> Any:
        """See :func:`tensorlite.argsort`."""
        return ops.argsort(self, dim, descending, stable=stable)

    def topk(self, k: Any, dim: Any = -1, largest: Any = True, sorted: Any = True) -> Any:
        """See :func:`tensorlite.topk`."""
        return ops.topk(self, k, dim, largest, sorted)

    def nonzero(self, as_tuple: Any = False) -> Any:
        """See :func:`tensorlite.nonzero`."""
        return ops.nonzero(self, as_tuple=as_tuple)

    # PyTorch's other names for the same things.
    absolute, divide, moveaxis, multiply, negative, subtract = abs, div, movedim, mul, neg, sub
    true_divide = div

    # `bool`, `float` and `int` above hide the built-in types from annotations in this class body: hence `Any` there.


for _name, _method in list(vars(Tensor).items()):
    if "dim" in getattr(getattr(_method, "__code__", None), "co_varnames", ()):
        setattr(Tensor, _name, numpy_names(_method))

Variable.tensor_type = Tensor
