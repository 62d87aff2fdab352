"""The class Tensor: its attributes, its conversions, its place in the graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Never, SupportsIndex, overload

import numpy as np

from .. import ops
from ..autograd import gradients, version_counter
from ..autograd.graph import Node, Variable, wrap
from ..autograd.removable_handle import RemovableHandle
from ..backends.registry import BACKENDS, Device, DeviceLike, describe_array, device_of, namespace
from ..backends.registry import device as as_device
from ..dtypes import DType, DTypeLike, as_dtype, bool_, get_default_dtype, int64, is_floating
from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from ..missing_names import missing_attribute
from ..ops.arguments import Number, dim_in, numpy_names
from ..ops.index import getitem
from ..ops.shape import expand, view
from ..scalars import flag_in, int_in, ints_in
from .arguments import constructor_error, flatten_sizes, grad_error
from .closeness import isclose
from .convert import as_array, fill_number, is_dtype_name, to_device, to_dtype
from .copying import copy_tensor, deepcopy_tensor, reduce_tensor
from .dlpack_export import device_code, export_array
from .inplace import InPlaceMethods
from .methods import OpMethods
from .numpy_protocol import UfuncProtocol, apply_function
from .printing import format_array

__all__ = ["Tensor"]


class Tensor(OpMethods, InPlaceMethods):
    """An n-dimensional array that records the ops it goes through, so that gradients can flow back.

    data: numbers, nested sequences, an array or a Tensor; copied. See :func:`tensorlite.tensor`.
    requires_grad: whether ops on it are recorded and ``backward`` fills its ``grad``.
    sizes: not accepted. ``Tensor(2, 3)`` is an error, unlike in PyTorch: use ``tl.empty(2, 3)``.

    ``x.array`` is the raw array. The graph does not record writes into it.
    """

    def __init__(self, data: Any, requires_grad: bool = False, *sizes: Never, **options: Never) -> None:
        if sizes or options or not isinstance(requires_grad, (bool, np.bool_)):
            raise constructor_error((data, requires_grad, *sizes), options)
        array = as_array(data)
        source = data.array if isinstance(data, Variable) else data
        self.array = array.copy() if array is source else array
        self.requires_grad = requires_grad

    if not TYPE_CHECKING:  # because a type checker would then accept any attribute

        def __getattr__(self, name: str) -> Any:
            raise missing_attribute("Tensor", name, dir(type(self)), f"{type(self).__name__!r} object")

    # ---- attributes --------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the size of each dimension."""
        return self.array.shape

    @property
    def dtype(self) -> DType:
        """Return the number type, a NumPy dtype."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return self.array.ndim

    @property
    def device(self) -> Device:
        """Return the device that holds the entries."""
        return device_of(self.array)

    @property
    def itemsize(self) -> int:
        """Return the size of one entry in bytes."""
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        """Return the size of all entries in bytes."""
        return self.array.nbytes

    @property
    def requires_grad(self) -> bool:
        """Return whether gradients flow to or through this tensor. It can be set on leaves."""
        return self.tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        value = flag_in("", "requires_grad", value)
        if value and not is_floating(self.array.dtype):
            raise DTypeError(
                f"requires_grad: expected a floating point tensor, got {self.array.dtype}. Convert it with .float()."
            )
        if not value and self.node is not None:
            raise GraphError("requires_grad: this tensor is the result of a recorded op. Use detach() to cut it off.")
        self.tracked = value

    @property
    def is_leaf(self) -> bool:
        """Return whether no recorded op made this tensor."""
        return self.node is None

    @property
    def grad_fn(self) -> Node | None:
        """Return the recorded op call that made this tensor, or None for a leaf."""
        return self.node

    @property
    def grad(self) -> Tensor | None:
        """Return the gradient that ``backward`` has accumulated, or None.

        It can be set to None, or to another Tensor of this tensor's shape, dtype and device. Raises TypeError for
        anything that is not a Tensor, ShapeError, DTypeError or DeviceError for a Tensor that does not fit, and
        GraphError for this tensor itself.

        Reading the missing gradient of a tensor that is not a leaf gives a UserWarning, because backward does not fill
        it: see :meth:`retain_grad`.
        """
        value: Tensor | None = self.accumulated_grad
        if value is None and self.node is not None and self.retain_hook is None:
            warnings.warn(
                f"grad: this tensor is the result of {self.node.name}, and backward fills the grad of leaves alone. "
                f"Call retain_grad() on it before backward(), or use tl.autograd.grad().",
                stacklevel=2,
            )
        return value

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            mine, given = self.array, value.array if isinstance(value, Variable) else None
            if type(given) is not type(mine) or given.shape != mine.shape or given.dtype != mine.dtype or value is self:
                raise grad_error(self, value)
        self.accumulated_grad = value

    @grad.deleter
    def grad(self) -> None:
        self.accumulated_grad = None

    @property
    def T(self) -> Tensor:
        """Return a view with the dimensions in reverse order."""
        return ops.permute(self, tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """Return a view with the last two dimensions swapped, and a 0-d tensor unchanged."""
        return ops.transpose(self, -2, -1) if self.ndim else self

    @property
    def is_cuda(self) -> bool:
        """Return whether the entries are on an NVIDIA GPU."""
        return self.device.type == "cuda"

    @property
    def _version(self) -> int:
        """Return the number of in-place changes of this tensor's memory, as in PyTorch."""
        return version_counter.version(self.array)

    def dim(self) -> int:
        """Return the number of dimensions."""
        return self.ndim

    @overload
    def size(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def size(self, dim: int) -> int: ...
    @numpy_names
    def size(self, dim: Any = None) -> Any:
        """Return the shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[dim_in("size", dim, self.ndim)]

    def numel(self) -> int:
        """Return the number of entries."""
        return int(self.array.size)

    nelement = numel

    def element_size(self) -> int:
        """Return the size of one entry in bytes."""
        return self.itemsize

    @overload
    def stride(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def stride(self, dim: int) -> int: ...
    @numpy_names
    def stride(self, dim: Any = None) -> Any:
        """Return the step in memory, in entries, to the next entry along each dimension, or along one of them."""
        steps = tuple(n // self.itemsize for n in self.array.strides)
        return steps if dim is None else steps[dim_in("stride", dim, self.ndim)]

    def is_floating_point(self) -> bool:
        """Return whether the dtype is a floating point type."""
        return is_floating(self.dtype)

    def is_contiguous(self) -> bool:
        """Return whether the entries lie in memory in order (C order)."""
        return bool(self.array.flags.c_contiguous)

    def __repr__(self) -> str:
        values = BACKENDS[type(self.array)].to_numpy(self.array)
        notes = [format_array(values, "tensor(")]
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

    def _repr_html_(self) -> str:
        from .html import tensor_html  # imported here, because only notebooks need it

        return tensor_html(self, type(self).__name__)

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

    def __copy__(self) -> Tensor:
        result: Tensor = copy_tensor(self)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        result: Tensor = deepcopy_tensor(self, memo)
        return result

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return reduce_tensor(self)

    # ---- values for Python and NumPy ---------------------------------------------------------

    def item(self) -> int | float | bool:
        """Return the only entry as a Python number. Raises ShapeError if there is not exactly one."""
        if self.array.size != 1:
            raise ShapeError(
                f"item: expected a tensor with one entry, got shape {self.shape}. Use tolist(), or reduce or index it."
            )
        return self.array.item()

    def tolist(self) -> Any:
        """Return the entries as nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """Return the NumPy array that holds the entries, which shares their memory.

        force: return ``x.detach().cpu().numpy()`` instead of raising an error.

        Raises GraphError if this tensor requires gradients, DeviceError if it is not on the CPU.
        """
        if force:
            return self.detach().cpu().numpy()
        if self.tracked:
            raise GraphError("numpy: this tensor requires gradients, which NumPy would lose. Use x.detach().numpy().")
        if type(self.array) is not np.ndarray:
            raise DeviceError(f"numpy: this tensor is on {self.device}. Use x.cpu().numpy().")
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(
        self, *, stream: Any = None, max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None, copy: bool | None = None,
    ) -> Any:  # fmt: skip
        """Return a capsule that shares this tensor's memory with another library: see :func:`tensorlite.from_dlpack`.

        The arguments are those of the array API standard. Raises BufferError if this tensor requires gradients, or if
        NumPy or CuPy cannot export its dtype, as bfloat16.
        """
        given = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        return export_array(self.array, self.tracked, {k: v for k, v in given.items() if v is not None})

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's code of the device and its index. Raises BufferError for a device that DLPack lacks."""
        return device_code(self.array)

    __array_ufunc__ = UfuncProtocol()
    __array_function__ = apply_function

    def _scalar(self) -> Any:
        """Return the only entry, for ``bool(x)``, ``float(x)`` and their like."""
        if self.array.size != 1:
            raise ShapeError(
                f"expected a tensor with one entry, got shape {self.shape}. Use any() or all(), or index it."
            )
        return self.array.item()

    def __bool__(self) -> bool:
        return bool(self._scalar())

    def __float__(self) -> float:
        return float(self._scalar())

    def __int__(self) -> int:
        return int(self._scalar())

    def __index__(self) -> int:
        if self.dtype.kind not in "iub":
            raise TypeError(f"index: expected an integer tensor, got {self.dtype}")
        return int(self._scalar())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.ndim or (spec and self.array.size == 1) else repr(self)

    # ---- gradients ---------------------------------------------------------------------------

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add the gradient of this tensor to the ``grad`` of every leaf that it depends on (or of ``inputs``).

        gradient: the weight of each entry, of this tensor's shape and dtype. It can be left out for a scalar.

        :func:`tensorlite.autograd.grad` describes the other arguments and the errors, GraphError and VersionError.
        """
        gradients.backward(self, gradient, retain_graph, create_graph, inputs)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` and return the tensor."""
        self.requires_grad = requires_grad
        return self

    @property
    def retains_grad(self) -> bool:
        """Return whether ``backward`` fills ``grad`` although this is not a leaf: see :meth:`retain_grad`."""
        return self.retain_hook is not None

    def retain_grad(self) -> None:
        """Make ``backward`` fill ``grad`` although this is not a leaf.

        After a change in place, that is the gradient of the new value.
        """
        gradients.retain_grad(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(gradient)`` in every backward pass. A result that is not None replaces the gradient."""
        return RemovableHandle(gradients.add_hook(self, hook))

    def detach(self) -> Tensor:
        """Return a leaf that shares this tensor's memory and requires no gradients."""
        return wrap(self.array)

    def detach_(self) -> Tensor:
        """Cut this tensor itself off from its history, and return it."""
        self.node, self.tracked, self.hooks, self.view_info, self.retain_hook = None, False, None, None, None
        return self

    @property
    def data(self) -> Tensor:
        """Return a detached Tensor that shares this one's memory, as in PyTorch. The raw array is ``array``.

        A change through it, ``w.data -= lr * w.grad``, is not recorded, but it counts as a change in place: a backward
        pass that needs the old value raises VersionError. (PyTorch does not notice it.)

        Setting it, ``w.data = other``, makes this tensor share the memory of ``other``. Graphs that used the tensor
        before keep the old value. A leaf may change its shape, dtype and device. Raises TypeError if ``other`` is not
        a Tensor, and DTypeError if it is not a floating point one and this tensor requires gradients. Raises
        GraphError if this tensor is the result of an op and ``other`` has another shape, dtype or device.
        """
        return wrap(self.array)

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Variable):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}. Make one with tl.tensor().")
        old, new = self.array, value.array
        if new is old:  # because `w.data -= step` ends with this assignment
            return
        if self.tracked and not is_floating(new.dtype):
            raise DTypeError(
                f"data: expected a floating point tensor, because this one requires gradients, got {new.dtype}"
            )
        if self.node is not None and (new.shape, new.dtype, device_of(new)) != (old.shape, old.dtype, device_of(old)):
            raise GraphError(
                f"data: this tensor is the result of {self.node.name}, expected {describe_array(old)} as before, "
                f"got {describe_array(new)}. Use detach() first."
            )
        if self.node is not None:
            self.node.replaced = True
        self.array, self.view_info = new, None

    # ---- dtypes and devices ------------------------------------------------------------------

    def to(
        self,
        *args: Tensor | DTypeLike | DeviceLike | bool,
        dtype: DTypeLike | None = None,
        device: DeviceLike = None,
        non_blocking: bool = False,
        copy: bool = False,
    ) -> Tensor:
        """Return this tensor in another dtype, on another device, or both.

        Forms: ``to(dtype)``, ``to(device)``, ``to(device, dtype)``, ``to(other)``, each with ``non_blocking`` and
        ``copy`` after it. The result is this tensor itself if nothing changes, unless ``copy``. Gradients flow through.
        ``non_blocking`` is accepted for compatibility and ignored.
        """
        flags = [bool(a) for a in args if isinstance(a, (bool, np.bool_))]
        if len(flags) > 2:
            raise TypeError(f"to: expected at most two booleans, non_blocking and copy, got {len(flags)}")
        copy = flags[1] if len(flags) == 2 else copy
        for a in args[: len(args) - len(flags)]:
            if isinstance(a, Variable):
                dtype, device = a.array.dtype, device_of(a.array)
            elif isinstance(a, Device) or (isinstance(a, str) and not is_dtype_name(a)):
                device = a
            elif a is not None:
                dtype = a  # type: ignore[assignment]  # the booleans are left out
        result: Tensor = self
        if dtype is not None:
            result = to_dtype(result, as_dtype(dtype))
        if device is not None:
            result = to_device(result, as_device(device))
        return ops.clone(result) if copy and result is self else result

    def type(self, dtype: DTypeLike) -> Tensor:
        """Return this tensor in another dtype."""
        return self.to(dtype=dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """Return this tensor in the dtype and on the device of another."""
        return self.to(other)

    def cpu(self) -> Tensor:
        """Return this tensor on the CPU."""
        return self.to(device="cpu")

    def cuda(self, index: int | None = None) -> Tensor:
        """Return this tensor on a GPU. Raises DeviceError, with the reason, if there is none."""
        return self.to(device=as_device("cuda", index))

    def contiguous(self) -> Tensor:
        """Return this tensor if its entries lie in memory in order, otherwise a copy in which they do."""
        return self if self.is_contiguous() else ops.clone(self)

    # ---- new tensors of the same dtype and device --------------------------------------------

    def new_zeros(
        self,
        *size: int | Sequence[int],
        dtype: DTypeLike | None = None,
        device: DeviceLike = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """Return zeros of this size, with this tensor's dtype and device unless others are given."""
        return self.new_full(flatten_sizes(size), 0, dtype, device, requires_grad)

    def new_ones(
        self,
        *size: int | Sequence[int],
        dtype: DTypeLike | None = None,
        device: DeviceLike = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """Return ones of this size, with this tensor's dtype and device unless others are given."""
        return self.new_full(flatten_sizes(size), 1, dtype, device, requires_grad)

    def new_empty(
        self,
        *size: int | Sequence[int],
        dtype: DTypeLike | None = None,
        device: DeviceLike = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """Return zeros of this size, as :meth:`new_zeros` does.

        In PyTorch the entries are arbitrary. Here they are 0, but a program must not rely on it.
        """
        return self.new_zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad)

    def new_full(
        self,
        size: int | Sequence[int],
        fill_value: Any,
        dtype: DTypeLike | None = None,
        device: DeviceLike = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """Return a tensor filled with one value, with this tensor's dtype and device unless others are given."""
        kind = self.dtype if dtype is None else as_dtype(dtype)
        shape, (value, _) = ints_in("new_full", "sizes", size), fill_number("new_full", fill_value, kind)
        if min(shape, default=0) < 0:
            raise ShapeError(f"new_full: sizes must not be negative, got {shape}")
        xp = BACKENDS[type(self.array)] if device is None else namespace(as_device(device))
        result: Tensor = wrap(xp.full(shape, value, kind))
        result.requires_grad = requires_grad
        return result

    def new_tensor(
        self, data: Any, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
    ) -> Tensor:
        """Return a new tensor of the data, with this tensor's dtype and device unless others are given."""
        kind, where = self.dtype if dtype is None else dtype, self.device if device is None else device
        result: Tensor = wrap(as_array(data, kind, where).copy())
        result.requires_grad = requires_grad
        return result

    # ---- methods that are more than the op of the same name ----------------------------------

    def equal(self, other: Tensor) -> bool:
        """Return whether both tensors have the same shape and equal entries."""
        return self.shape == other.shape and bool(ops.all(ops.eq(self, other)).item())

    def isclose(self, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
        """Return where ``|self - other| <= atol + rtol * |other|``, as booleans. Infinities are close to themselves.

        Raises ValueError for a negative tolerance.
        """
        return isclose(self, other, rtol, atol, equal_nan)

    def allclose(self, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        """Return whether all entries are close, see :meth:`isclose`. Raises ShapeError if shapes do not broadcast."""
        try:
            return bool(ops.all(self.isclose(other, rtol, atol, equal_nan)).item())
        except ShapeError:
            raise ShapeError(f"allclose: shapes {self.shape} and {other.shape} do not broadcast") from None

    def clamp_min(self, min: Tensor | Number) -> Tensor:
        """Return this tensor with entries below ``min`` raised to it: see :func:`tensorlite.clamp`."""
        return ops.clamp(self, min, None)

    def clamp_max(self, max: Tensor | Number) -> Tensor:
        """Return this tensor with entries above ``max`` lowered to it: see :func:`tensorlite.clamp`."""
        return ops.clamp(self, None, max)

    def where(self, condition: Tensor, other: Tensor | Number) -> Tensor:
        """Return this tensor's entries where ``condition`` is true, otherwise those of ``other``."""
        return ops.where(condition, self, other)

    @numpy_names
    def softmax(self, dim: int, dtype: DTypeLike | None = None) -> Tensor:
        """Return ``exp(x_i) / sum_j exp(x_j)`` along a dimension, computed in ``dtype`` if one is given."""
        return ops.softmax(self if dtype is None else self.to(dtype=dtype), dim)

    @numpy_names
    def log_softmax(self, dim: int, dtype: DTypeLike | None = None) -> Tensor:
        """Return ``x_i - log(sum_j exp(x_j))`` along a dimension, computed in ``dtype`` if one is given."""
        return ops.log_softmax(self if dtype is None else self.to(dtype=dtype), dim)

    def reshape_as(self, other: Tensor) -> Tensor:
        """Return this tensor in the shape of another; a view where the memory allows it."""
        return ops.reshape(self, other.shape)

    def view_as(self, other: Tensor) -> Tensor:
        """Return a view in the shape of another tensor. Raises ShapeError if that needs a copy."""
        return view(self, other.shape)

    def expand_as(self, other: Tensor) -> Tensor:
        """Return a view expanded to the shape of another tensor."""
        return expand(self, other.shape)

    def ravel(self) -> Tensor:
        """Return all entries in order, in one dimension; a view where the memory allows it."""
        return ops.reshape(self, (-1,))

    def t(self) -> Tensor:
        """Return the transpose of a matrix; a vector or 0-d tensor unchanged. Raises ShapeError for more dimensions."""
        if self.ndim > 2:
            raise ShapeError(f"t: expected at most 2 dimensions, got shape {self.shape}. See mT and permute().")
        return ops.transpose(self, 0, 1) if self.ndim == 2 else self

    @numpy_names
    def select(self, dim: int, index: int) -> Tensor:
        """Return a view of entry ``index`` along a dimension, without that dimension."""
        return getitem(self, (slice(None),) * dim_in("select", dim, self.ndim) + (int_in("select", "index", index),))

    @numpy_names
    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Return views cut along a dimension: see :func:`tensorlite.split`."""
        return ops.split(self, split_size, dim)


Variable.tensor_type = Tensor
