"""A group of ranks: what they send to each other, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import cuda
from ..backends.registry import Array, Device, DeviceLike
from ..backends.registry import device as as_device
from ..dtypes import bool_, is_floating
from ..errors import DTypeError, ShapeError
from ..scalars import as_integer
from ..tensors.tensor import Tensor
from . import collectives, reduction
from .array_group import ArrayGroup

__all__ = ["Group"]


class Group(ArrayGroup):
    """Processes that compute together, each of which is a rank.

    Every rank calls the same methods in the same order, with tensors of the same shape and dtype. Each method waits for
    all ranks. It raises DistributedError, on every rank, if a rank makes another call, has ended, or does not come
    within the timeout. In a group of size 1 the methods copy their argument and wait for nothing.

    Sums are added in the order of the ranks, so the bits are the same in every run and on every rank. float16 and
    bfloat16 are added in float32, and the result is rounded once.

    rank: the number of this process, from 0. size: the number of processes. local_rank: the number of this process
        among those of its machine, from 0, by which it chooses its GPU.
    """

    def local_device(self, device: DeviceLike = None) -> Device:
        """Return the device of this rank: of N GPUs of a machine that with the number ``local_rank % N``.

        device: a kind of device, None for the default. A name with a number, such as ``cuda:1``, stays as it is, and so
        does any device in a group of size 1. Raises DeviceError if no backend has that name.
        """
        chosen = as_device(device)
        if self.size == 1 or chosen.index is None or ":" in str(device or ""):
            return chosen
        return as_device(chosen.type, self.local_rank % max(1, cuda.device_count()))

    # ---- tensors ----------------------------------------------------------------------------

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        """Return the reduction of the tensors of all ranks, with the shape and the dtype of ``x``.

        op: "sum", "mean", "max" or "min". NaN in any rank gives NaN.

        The result is differentiable. The gradient is the sum (or the mean) of the gradients of all ranks, because each
        rank's result depends on each rank's tensor. So every rank has to run the backward pass. The gradient of a
        maximum goes to the ranks that have it, in equal shares.

        Raises DTypeError for a sum of booleans and a mean of integers, and DistributedError.
        """
        check_tensor("all_reduce", x)
        check_operation("all_reduce", op, x.array)
        return collectives.all_reduce(x, self, op)

    def reduce_scatter(self, x: Tensor, op: str = "sum") -> Tensor:
        """Return ``all_reduce(x, op)[rank]`` for x (size, ...), at half the traffic. Differentiable for sum and mean.

        Raises ShapeError if the first dimension is not the size of the group, and the errors of :meth:`all_reduce`.
        """
        check_tensor("reduce_scatter", x)
        check_operation("reduce_scatter", op, x.array)
        if x.ndim == 0 or x.shape[0] != self.size:
            raise ShapeError(
                f"reduce_scatter: expected a tensor of shape ({self.size}, ...), a row for each rank, got {x.shape}"
            )
        return collectives.reduce_scatter(x, self, op)

    def all_gather(self, x: Tensor) -> Tensor:
        """Return the tensors of all ranks, (size, ...). The gradient is the sum of those of this rank's row."""
        check_tensor("all_gather", x)
        return collectives.all_gather(x, self)

    def broadcast(self, x: Tensor, src: int = 0) -> Tensor:
        """Return the tensor of the rank ``src``. Other ranks pass a tensor of its shape and dtype.

        The gradient goes to ``src``: the sum of those of all ranks. Raises ValueError if there is no such rank.
        """
        check_tensor("broadcast", x)
        return collectives.broadcast(x, self, self.check_rank("broadcast", src))

    def check_rank(self, call: str, rank: Any) -> int:
        """Return a rank as an int. Raises ValueError if the group has no such rank."""
        number = as_integer(rank)
        if number is None or not 0 <= number < self.size:
            raise ValueError(f"{call}: expected a rank from 0 to {self.size - 1}, got {rank!r}")
        return number


def check_tensor(call: str, x: Any) -> None:
    """Raise TypeError unless x is a Tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{call}: expected a Tensor, got {type(x).__name__}. Make one with tl.tensor().")


def check_operation(call: str, operation: Any, x: Array) -> None:
    """Raise ValueError for an unknown reduction, and DTypeError for one that the dtype does not have."""
    names: Sequence[str] = list(reduction.OPERATIONS)
    if operation not in names:
        raise ValueError(f"{call}: op must be {', '.join(map(repr, names[:-1]))} or {names[-1]!r}, got {operation!r}")
    if operation == "mean" and not is_floating(x.dtype):
        raise DTypeError(f"{call}: expected floating point numbers for a mean, got {x.dtype}. Use x.to(tl.float32)")
    if operation == "sum" and x.dtype == bool_:
        raise DTypeError(f"{call}: expected numbers for a sum, got booleans. Use x.int(), or op='max' for any")
