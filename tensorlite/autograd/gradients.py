"""The functions with which users compute gradients: ``grad``, ``backward``, hooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, overload

import numpy as np

from ..backends.registry import BACKENDS, Array, describe_array
from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from . import version_counter
from .engine import run_backward
from .grad_mode import set_grad_enabled
from .gradient_observers import finish, gradient_observers
from .graph import Edge, Value, Variable, wrap
from .retained_grad import RetainHook
from .shared_state import shared_state
from .views import regenerate_views

__all__ = ["accumulate_grad", "add_hook", "backward", "deliver_gradients", "grad", "retain_grad"]


def _seeds(name: str, outputs: Sequence[Any], gradients: Sequence[Any], create_graph: bool) -> dict[Edge, Value]:
    """Return the gradient that each output starts with, by the output's edge. Raises an error that names the caller."""
    seeds: dict[Edge, Any] = {}
    if len(outputs) != len(gradients):
        raise GraphError(f"{name}: expected one gradient for each of {len(outputs)} outputs, got {len(gradients)}")
    for out, g in zip(outputs, gradients, strict=True):
        if not isinstance(out, Variable):
            raise TypeError(f"{name}: expected a Tensor to differentiate, got {type(out).__name__}")
        if not out.tracked:
            raise GraphError(
                f"{name}: this tensor of shape {tuple(out.array.shape)} does not require gradients and no op recorded "
                f"how it was made. Set requires_grad=True on a tensor that it is computed from. If that is set, look "
                f"for no_grad(), detach() or integers on the way."
            )
        if version_counter.inplace_in_graph:
            regenerate_views(name, [out])
        if g is None:
            if out.array.size != 1:
                raise GraphError(
                    f"{name}: the gradient can be left out only for a scalar, and this tensor has shape "
                    f"{tuple(out.array.shape)}. Reduce it first (say .sum()), or pass a gradient of that shape."
                )
            g = BACKENDS[type(out.array)].ones_like(out.array)
        else:
            raw = g.array if isinstance(g, Variable) else g
            if type(raw) not in BACKENDS:
                raise TypeError(
                    f"{name}: the gradient must be a Tensor of shape {tuple(out.array.shape)}, got "
                    f"{type(raw).__name__}. Make one with tl.tensor()."
                )
            if type(raw) is not type(out.array):
                raise DeviceError(
                    f"{name}: the gradient is {describe_array(raw)}, but the tensor is {describe_array(out.array)}"
                )
            if raw.shape != out.array.shape:
                raise ShapeError(
                    f"{name}: expected a gradient of shape {tuple(out.array.shape)}, got one of {tuple(raw.shape)}"
                )
            if raw.dtype != out.array.dtype:
                raise DTypeError(f"{name}: expected a gradient of {out.array.dtype}, got one of {raw.dtype}")
            g = g if create_graph and isinstance(g, Variable) else raw
        if create_graph and not isinstance(g, Variable):
            g = wrap(g)
        edge = out.node or out
        with set_grad_enabled(create_graph):
            seeds[edge] = seeds[edge] + g if edge in seeds else g
    return seeds


def _as_list(values: Any) -> list[Any]:
    """Return a list or tuple as a list, and anything else as a list with one entry."""
    return list(values) if isinstance(values, (list, tuple)) else [values]


@overload
def grad(
    outputs: Value | Sequence[Value],
    inputs: Value | Sequence[Value],
    grad_outputs: Value | Sequence[Value | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: Literal[False] = False,
    materialize_grads: bool = False,
) -> tuple[Value, ...]: ...
@overload
def grad(
    outputs: Value | Sequence[Value],
    inputs: Value | Sequence[Value],
    grad_outputs: Value | Sequence[Value | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    *,
    allow_unused: Literal[True],
    materialize_grads: bool = False,
) -> tuple[Value | None, ...]: ...
def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> Any:
    """Return the gradients of ``outputs`` with respect to each of ``inputs``, as a tuple of Tensors.

    The result is the vector-Jacobian product ``sum_k <grad_outputs[k], d outputs[k] / d input>``. No ``.grad`` changes.

    outputs, inputs: a Tensor each, or a list or tuple of Tensors.
    grad_outputs: a Tensor of the shape, dtype and device of each output; None for a scalar output stands for 1.
    retain_graph: whether to keep the saved values for another pass; by default the value of ``create_graph``.
    create_graph: whether to record the computation of the gradients, so that they can be differentiated again.
    allow_unused: whether to return None for an input that the outputs do not depend on. Otherwise that is an error.
    materialize_grads: whether to return zeros for such an input.

    Raises GraphError if an output or an input does not require gradients, or if a non-scalar output has no gradient.
    Raises GraphError for a graph that has been freed and for an unused input. Raises VersionError if a saved value was
    changed in place, and ShapeError, DTypeError or DeviceError if an entry of ``grad_outputs`` does not fit its output.
    """
    outputs, inputs = _as_list(outputs), _as_list(inputs)
    for x in inputs:
        if not isinstance(x, Variable):
            raise TypeError(f"grad: expected a Tensor as an input, got {type(x).__name__}")
        if not x.tracked:
            raise GraphError(
                f"grad: an input of shape {tuple(x.array.shape)} does not require gradients. Set requires_grad=True on "
                f"it before computing the outputs."
            )
    seeds = _seeds(
        "grad", outputs, [None] * len(outputs) if grad_outputs is None else _as_list(grad_outputs), create_graph
    )
    retain = create_graph if retain_graph is None else retain_graph
    edges = [x.node or x for x in inputs]
    grads = run_backward(seeds, create_graph, retain, set(edges))
    if materialize_grads:
        for edge, x in zip(edges, inputs, strict=True):
            if edge not in grads:
                zeros = BACKENDS[type(x.array)].zeros(x.array.shape, x.array.dtype)
                grads[edge] = wrap(zeros) if create_graph else zeros
    elif not allow_unused:
        for k, edge in enumerate(edges):
            if edge not in grads:
                raise GraphError(
                    f"grad: the outputs do not depend on input {k}, of shape {tuple(inputs[k].array.shape)}. "
                    f"Pass allow_unused=True to get None for it."
                )
    if create_graph:
        return tuple(grads.get(e) for e in edges)
    owned = Ownership(seeds.values()).copy_shared([grads[e] for e in edges if e in grads])
    if len(owned) == len(edges):
        return tuple(map(wrap, owned))
    rest = iter(owned)
    return tuple(wrap(next(rest)) if e in grads else None for e in edges)


def backward(
    tensors: Value | Sequence[Value],
    grad_tensors: Value | Sequence[Value | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Value | Sequence[Value] | None = None,
) -> None:
    """Add the gradients of ``tensors`` to the ``.grad`` of the leaves they depend on.

    tensors: a Tensor, or a list or tuple of Tensors.
    grad_tensors: the gradient that each tensor starts with, as ``grad_outputs`` of :func:`grad`.
    inputs: the Tensors whose ``.grad`` is added to, None for all leaves.

    The other arguments and the errors are those of :func:`grad`.
    """
    outputs = _as_list(tensors)
    weights = [None] * len(outputs) if grad_tensors is None else _as_list(grad_tensors)
    seeds = _seeds("backward", outputs, weights, create_graph)
    retain = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        grads = run_backward(seeds, create_graph, retain, None)
        receivers = {e: e for e in grads if isinstance(e, Variable)}
    else:
        inputs = _as_list(inputs)
        if not inputs:
            raise GraphError(
                "backward: expected at least one Tensor in inputs, got none. Leave inputs out to reach all leaves."
            )
        for x in inputs:
            if not isinstance(x, Variable) or not x.tracked:
                raise GraphError("backward: each of inputs must be a Tensor that requires gradients")
        receivers = {x.node or x: x for x in inputs}
        grads = run_backward(seeds, create_graph, retain, set(receivers))
    deliver_gradients(receivers, grads, seeds.values(), create_graph)
    if gradient_observers:
        finish(receivers.values())


def deliver_gradients(
    receivers: dict[Any, Variable], grads: dict[Any, Value], seeds: Collection[Value], create_graph: bool
) -> None:
    """Add the result of a backward pass to the ``grad`` of each tensor in ``receivers``, by its edge.

    seeds: the gradients that the pass started with, whose memory is not given away.
    """
    found = {edge: grads[edge] for edge in receivers if edge in grads}
    given = found.values() if create_graph else Ownership(seeds).copy_shared([*found.values()])
    for edge, g in zip(found, given, strict=True):
        accumulate_grad(receivers[edge], g)


def accumulate_grad(x: Variable, g: Value) -> None:
    """Add the gradient g to ``x.grad``. Several threads may do that at the same time.

    The sum is made in place unless a graph contains the old or the new gradient, so that existing references to
    ``x.grad`` see it. Raises ShapeError if ``x.grad`` was set to a value of another shape or type.
    """
    with shared_state:
        old = x.accumulated_grad
        if old is None:
            if x.array.shape != g.shape:
                raise ShapeError(
                    f"backward: the gradient has shape {tuple(g.shape)}, but its tensor has shape "
                    f"{tuple(x.array.shape)} since its data was replaced. Run the forward pass again."
                )
            x.accumulated_grad = g if isinstance(g, Variable) else wrap(g)
        elif old.array.shape != g.shape:
            raise ShapeError(
                f"backward: expected a grad of shape {tuple(g.shape)}, got {describe_array(old.array)}. Set grad to "
                f"None, or to a Tensor of that shape."
            )
        elif isinstance(g, Variable) or old.tracked or old.array.dtype != g.dtype:
            with set_grad_enabled(isinstance(g, Variable)):
                x.accumulated_grad = old + g
        else:
            old.array += g
            version_counter.record_change(old.array)


_LARGE = 1 << 16  # entries of an array from which its copies are made together


class Ownership:
    """A record of the memory of the gradients returned so far.

    A gradient rule may return the gradient that it got, or a view of it. So two gradients can share memory, which must
    not reach the user.
    """

    def __init__(self, seeds: Collection[Value]) -> None:
        roots = [version_counter.base_array(g.array if isinstance(g, Variable) else g) for g in seeds]
        self.taken = {id(r): r for r in roots}

    def copy_if_shared(self, g: Value) -> Array:
        """Return g, or a copy if its memory is shared, read-only, or part of a larger array."""
        return self.copy_shared([g])[0]

    def copy_shared(self, gradients: list[Value]) -> list[Array]:
        """Return the gradients, each of them or a copy, as :func:`copy_if_shared` does."""
        taken, owned = self.taken, []
        copied: dict[int, list[int]] = {}  # the places of each array that is copied
        for k, g in enumerate(gradients):
            if type(g) not in BACKENDS:  # a NumPy scalar
                g = np.asarray(g)
            root = version_counter.base_array(g)
            # NumPy makes broadcast arrays read-only, also those of one entry.
            broadcast = not getattr(g.flags, "writeable", True)
            if id(root) in taken or root.size != g.size or root.base is not None or not g.size or broadcast:
                if g.size < _LARGE:
                    g = BACKENDS[type(g)].array(g, copy=True, order="C")
                else:
                    copied.setdefault(id(g), []).append(k)
            else:
                taken[id(root)] = root
            owned.append(g)
        for places in copied.values():
            g = owned[places[0]]
            for k, copy in zip(places, BACKENDS[type(g)].copies_of(g, len(places)), strict=True):
                owned[k] = copy
        return owned


def retain_grad(x: Variable) -> None:
    """Make ``backward`` fill ``x.grad`` although x is not a leaf.

    The gradient is that of the value that x has at the end, after changes in place, and after the other hooks.
    Raises GraphError if x does not require gradients.
    """
    if not x.tracked:
        raise GraphError("retain_grad: this tensor does not require gradients. Compute it from one that does.")
    if x.node is not None and x.retain_hook is None:
        x.retain_hook = RetainHook(x, accumulate_grad)
        add_hook(x, x.retain_hook)


def add_hook(x: Variable, hook: Callable[[Any], Any]) -> Callable[[], None]:
    """Call ``hook`` on the gradient of ``x`` in every backward pass, and return a function that removes the hook.

    If the hook returns a Tensor, that replaces the gradient.
    Raises TypeError if hook is not callable, GraphError if x does not require gradients.
    """
    if not callable(hook):
        raise TypeError(f"register_hook: expected a function of the gradient, got {type(hook).__name__}")
    if not x.tracked:
        raise GraphError("register_hook: this tensor does not require gradients. Set requires_grad=True on it first.")
    with shared_state:
        place = x.node or x
        if place.hooks is None:
            place.hooks = []
        hooks = place.hooks
        # A retain hook comes last, so that it gets the gradient that the other hooks have made.
        first = len(hooks) if isinstance(hook, RetainHook) else sum(not isinstance(h, RetainHook) for h in hooks)
        hooks.insert(first, hook)

    return functools.partial(_remove_hook, hooks, hook)


def _remove_hook(hooks: list[Any], hook: Callable[[Any], Any]) -> None:
    """Remove a hook from a list, if it is still there."""
    with shared_state:
        if hook in hooks:
            hooks.remove(hook)
