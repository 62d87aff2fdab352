"""Gradients in flat buckets, which are averaged over the ranks.

A bucket is one array: the gradients of some parameters, one number for each parameter that says whether it has a
gradient, and zeros up to a multiple of the number of ranks. Few large transfers take less time than many small ones
(Li et al., "PyTorch Distributed", 2020, section 3.2.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd import version_counter
from ..autograd.graph import wrap
from ..backends.registry import BACKENDS, Array, device_of
from ..tensors.tensor import Tensor
from .communicator import Work
from .group import Group

__all__ = ["Bucket", "make_buckets"]


class Bucket:
    """The gradients of some parameters of one dtype and device.

    name: of the collective in errors. missing: the parameters whose gradients are not in the array yet.
    """

    def __init__(self, name: str, parameters: Sequence[Tensor], group: Group) -> None:
        self.name, self.parameters, self.group = name, list(parameters), group
        self.missing = set(self.parameters)
        self.places: dict[Tensor, tuple[int, int, int]] = {}  # start, end, and the place of the flag
        numbers = sum(p.numel() for p in self.parameters)
        start = 0
        for i, p in enumerate(self.parameters):
            self.places[p] = start, start + p.numel(), numbers + i
            start += p.numel()
        self.size = math.ceil((numbers + len(self.parameters)) / group.size) * group.size
        self.array: Array = None
        self.work: Work | None = None

    def put(self, parameter: Tensor, g: Array = None) -> None:
        """Copy the gradient of a parameter into the array: its ``grad``, and g, if that is not part of it yet.

        Each parameter is put before the start, so that nothing of an earlier pass is sent. One without a gradient is
        zeros.
        """
        parts = [g] if g is not None else []
        if parameter.grad is not None:
            parts.append(parameter.grad.array)
        start, end, flag = self.places[parameter]
        array = self._array()
        place = array[start:end].reshape(parameter.shape)
        place[...] = parts[0] if parts else 0
        for part in parts[1:]:
            place += part
        array[flag] = bool(parts)
        self.missing.discard(parameter)

    def start(self) -> None:
        """Start the transfer of the array."""
        self.work = self.group.start_all_reduce(self._array(), "mean", self.name)

    def finish(self) -> None:
        """Wait for the averages, and make them the ``grad`` of the parameters that have one on any rank."""
        assert self.work is not None
        averages = self.work.wait()
        first = self.places[self.parameters[0]][2]
        # One copy for all flags, because reading one of them waits for the device.
        flags = BACKENDS[type(averages)].to_numpy(averages[first : first + len(self.parameters)])
        for (p, (start, end, _)), flag in zip(self.places.items(), flags, strict=True):
            if flag > 0:
                set_grad(p, averages[start:end].reshape(p.shape))

    def reset(self) -> None:
        """Forget all gradients. The array stays, because a new one would cost page faults in each step."""
        self.missing, self.work = set(self.parameters), None

    def _array(self) -> Array:
        if self.array is None:
            p = self.parameters[0].array
            self.array = BACKENDS[type(p)].zeros(self.size, p.dtype)
        return self.array


def set_grad(parameter: Tensor, g: Array) -> None:
    """Make a gradient that of a parameter, in place if there is one of its kind."""
    old = parameter.grad
    if old is None or old.requires_grad or old.shape != g.shape or old.dtype != g.dtype:
        parameter.grad = wrap(g.copy())
    else:
        old.array[...] = g
        version_counter.record_change(old.array)


def make_buckets(named: Sequence[tuple[str, Tensor]], group: Group, max_bytes: int) -> list[Bucket]:
    """Return buckets of at most this number of bytes, or of one parameter, in the order in which gradients come.

    The backward pass makes the gradients of the last layers first. named: names and parameters in the order of use.
    """
    lists: list[list[tuple[str, Tensor]]] = []
    open_lists: dict[Any, list[tuple[str, Tensor]]] = {}
    for name, p in reversed(named):
        kind = p.dtype, device_of(p.array)
        bucket = open_lists.get(kind)
        if bucket is None or sum(q.array.nbytes for _, q in bucket) + p.array.nbytes > max_bytes:
            bucket = open_lists[kind] = []
            lists.append(bucket)
        bucket.append((name, p))
    return [
        Bucket(f"gradients of {bucket[-1][0]} to {bucket[0][0]}: all_reduce", [p for _, p in bucket], group)
        for bucket in lists
    ]
