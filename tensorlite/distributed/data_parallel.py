"""Data parallelism: each rank computes the gradients of its part of a batch, and all get the average."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.gradient_observers import add_observer
from ..autograd.graph import wrap
from ..autograd.op_hooks import run_op
from ..backends.registry import Array
from ..dtypes import float32
from ..errors import ShapeError
from ..nn.module import Module
from ..scalars import int_in, number_in
from ..tensors.creation import zeros
from ..tensors.tensor import Tensor
from .buckets import Bucket, make_buckets
from .group import Group
from .state import current

__all__ = ["DataParallel", "average_gradients"]

BUCKET_MB = 4.0


class DataParallel(Module):
    """A module whose gradients are averaged over the ranks of a group, while the backward pass goes on.

    module: the module, which has the same parameters on every rank. Rank 0 sends its parameters and buffers to the
        others, and a hash of them is compared.
    group: the group, by default that of :func:`init`.
    bucket_cap_mb: the size of a bucket of gradients in MiB. It changes the time of a step, and no bit of a result.
    values: how many further float32 numbers, such as the loss, are averaged with the gradients, without a message of
        their own. See :meth:`set_values`.

        group = dist.init()
        model = dist.DataParallel(model)
        for x, y in batches_of(group.rank):     # other batches, and other dropout, on each rank
            loss_fn(model(x), y).backward()     # grad is now the mean over the ranks
            optimizer.step()
            optimizer.zero_grad()

    ``backward()`` returns when all gradients are averaged. A parameter that is used on some of the ranks counts as zero
    on the others, and one that no rank uses keeps its ``grad``. Every rank has to call ``backward()`` equally often.
    ``autograd.grad`` returns the gradients of this rank. Gradients that are all equal are clipped by the norm of the
    average without further transfers. Parameters are those that require gradients when this is made.

    Its buckets and their overlap with the backward pass follow Li et al., "PyTorch Distributed", 2020.
    Raises TypeError if module is not a Module, ValueError for a size that is not positive, and DistributedError.
    """

    def __init__(
        self, module: Module, group: Group | None = None, bucket_cap_mb: float = BUCKET_MB, values: int = 0
    ) -> None:
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(f"DataParallel: expected a Module, got {type(module).__name__}")
        size = float(number_in("DataParallel", "bucket_cap_mb", bucket_cap_mb))
        if not size > 0:
            raise ValueError(f"DataParallel: bucket_cap_mb must be positive, got {bucket_cap_mb!r}")
        self.module = module
        self.group = current("DataParallel") if group is None else group
        copy_from_first(module, self.group)
        named: list[tuple[str, Tensor]] = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.trained = [p for _, p in named]
        self.carrier: Tensor | None = None  # A leaf whose gradient is the values, in the last bucket.
        count = int_in("DataParallel", "values", values)
        if count < 0:
            raise ValueError(f"DataParallel: values must not be negative, got {count}")
        if count:
            device = named[0][1].device if named else None
            self.carrier = zeros(count, dtype=float32, device=device, requires_grad=True)
            named.insert(0, ("values", self.carrier))
        self.reducer = Reducer(make_buckets(named, self.group, int(size * 2**20)))
        self.average = make_average(self.reducer, self.carrier)
        if self.group.size > 1:
            add_observer(self.reducer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the module."""
        return self.module(*args, **kwargs)

    def set_values(self, values: Tensor) -> None:
        """Set the numbers of this rank that the next backward pass averages with the gradients, (values,), float32.

        Raises ShapeError for another shape, and ValueError if this was made without ``values``.
        """
        check_values("set_values", values, self.carrier)
        assert self.carrier is not None
        self.carrier.grad = values.detach().clone()

    def mean_values(self) -> Tensor:
        """Return the means over the ranks of what :meth:`set_values` set, after the backward pass."""
        if self.carrier is None or self.carrier.grad is None:
            raise ValueError("mean_values: expected values to be set before the backward pass. Call set_values first")
        return self.carrier.grad

    def average_gradients(self, values: Tensor | None = None) -> Tensor | None:
        """Average the gradients that backward passes inside of :meth:`no_sync` have left, as the next pass would.

        A step that :func:`tensorlite.compile` records may call this, but no pass that sends. values: as for
        :meth:`set_values`; returns their means.
        """
        if values is not None:
            check_values("average_gradients", values, self.carrier)
        gradients = [p.grad for p in self.trained if p.grad is not None]
        result = run_op(self.average, gradients, None if values is None else values.detach().array)
        return None if result is None else wrap(result)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Context manager in which backward passes add up this rank's gradients, without transfers.

        The next pass outside of it averages the sums.
        """
        before, self.reducer.active = self.reducer.active, False
        try:
            yield
        finally:
            self.reducer.active = before


class Reducer:
    """What averages the gradients of buckets during a backward pass. The buckets start in their order on every rank."""

    def __init__(self, buckets: list[Bucket]) -> None:
        self.buckets, self.active = buckets, True
        self.bucket_of = {p: bucket for bucket in buckets for p in bucket.parameters}
        self.leaves = set(self.bucket_of)
        self.started = 0

    def ready(self, leaf: Tensor, g: Any) -> None:
        """Put a gradient into its bucket, and start the buckets that are full."""
        self.bucket_of[leaf].put(leaf, g)
        while self.started < len(self.buckets) and not self.buckets[self.started].missing:
            self.buckets[self.started].start()
            self.started += 1

    def progress(self) -> None:
        """Go on with the transfers, whose parts follow one another: each waits for the end of the one before it."""
        if self.started:
            communicator = self.buckets[0].group.communicator
            assert communicator is not None
            communicator.progress()

    def finished(self) -> None:
        """Average what is left, and set the gradients."""
        try:
            for bucket in self.buckets[self.started :]:
                for p in list(bucket.missing):
                    bucket.put(p)
                bucket.start()
            for bucket in self.buckets:
                bucket.finish()
        finally:
            self.started = 0
            for bucket in self.buckets:
                bucket.reset()


def check_values(call: str, values: Tensor, carrier: Tensor | None) -> None:
    """Raise ShapeError or ValueError unless values are those that a DataParallel was made for."""
    if carrier is None:
        raise ValueError(f"{call}: expected a DataParallel with values, got one without. Make it with values=n")
    if values.shape != carrier.shape or values.dtype != float32:
        raise ShapeError(f"{call}: expected float32{tuple(carrier.shape)}, got {values.dtype}{tuple(values.shape)}")


def make_average(reducer: Reducer, carrier: Tensor | None) -> Callable[[list[Tensor], Array | None], Array | None]:
    """Return the work of :meth:`DataParallel.average_gradients` as a function, which a recorded step calls again."""

    def average_over_ranks(gradients: list[Tensor], values: Array | None) -> Array | None:
        if values is not None:
            assert carrier is not None
            carrier.grad = wrap(values.copy())
        if reducer.buckets and reducer.buckets[0].group.size > 1:
            reducer.finished()
        return None if carrier is None or values is None else carrier.grad.array  # type: ignore[union-attr]

    return average_over_ranks


def average_gradients(parameters: Iterable[Tensor], group: Group | None = None) -> None:
    """Replace the ``grad`` of parameters by its mean over the ranks: what DataParallel does, after the backward pass.

    A parameter that has a gradient on some of the ranks counts as zero on the others. Raises DistributedError.
    """
    group = current("average_gradients") if group is None else group
    if group.size == 1:
        return
    named = [(f"parameter {i}", p) for i, p in enumerate(dict.fromkeys(parameters)) if p.requires_grad]
    Reducer(make_buckets(named, group, int(BUCKET_MB * 2**20))).finished()


def copy_from_first(module: Module, group: Group) -> None:
    """Give all ranks the parameters and buffers of rank 0.

    Raises DistributedError if their names, shapes or dtypes differ.
    """
    if group.size == 1:
        return
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    kinds = [f"{name} {tuple(x.shape)} {x.dtype}" for name, x in tensors.items()]
    group.check_equal("DataParallel: names, shapes and dtypes of the module", "\n".join(kinds))
    digest = hashlib.sha256()
    with no_grad():
        for x in tensors.values():
            x.copy_(group.broadcast(x.detach()))
            digest.update(x.detach().cpu().contiguous().array.tobytes())
    group.check_equal("DataParallel: parameters after the broadcast", digest.hexdigest())
