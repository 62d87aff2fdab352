"""Differentiation as functions of functions: ``grad(f)`` is a function, and can be differentiated again.

Everything here is reverse mode. A Jacobian-vector product needs no forward mode: the vector-Jacobian product
``u -> J^T u`` is linear in u, and the transpose of that map, again a vector-Jacobian product, is ``v -> J v``.

Arguments and results of f are Tensors, or tuples, lists and dicts of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd.function import op
from .autograd.grad_mode import enable_grad, is_grad_enabled
from .autograd.gradients import grad as _grad
from .autograd.graph import Variable, topological_order, wrap
from .backends.registry import BACKENDS, Array
from .errors import DTypeError, GraphError, ShapeError
from .ops.arguments import ints_in
from .ops.shape import reshape, stack
from .pytree import tree_leaves, tree_map
from .tensors.creation import as_tensor, zeros_like
from .tensors.tensor import Tensor

__all__ = ["grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]


@op(lambda g: g, view=True)
def alias(xp: Any, x: Array) -> Array:
    """The same value, as a new place in the graph."""
    return x


# ---- trees of tensors, in which None may stand for a tensor ---------------------------------


def _flatten(tree: Any) -> list[Any]:
    return [leaf for leaf in tree_leaves(tree) if leaf is not None]


def _map(f: Callable[[Any], Any], tree: Any) -> Any:
    return tree_map(lambda leaf: None if leaf is None else f(leaf), tree)


def _unflatten(tree: Any, leaves: Sequence[Any]) -> Any:
    rest = iter(leaves)
    return _map(lambda _: next(rest), tree)


# ---- one run of f ---------------------------------------------------------------------------


class _Run:
    """f at some arguments, with its graph cut free where the arguments enter."""

    def __init__(self, name: str, f: Callable[..., Any], primals: Sequence[Any], has_aux: bool = False) -> None:
        if not callable(f):
            raise TypeError(f"{name}: expected a function to differentiate, got {type(f).__name__}")
        self.name = name
        self.outer = is_grad_enabled()
        with enable_grad():
            self.primals = [_map(lambda x: _enter(name, x), p) for p in primals]
            self.inputs = [x for p in self.primals for x in _flatten(p)]
            result = f(*self.primals)
        self.aux = None
        if has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise TypeError(f"{name}: with has_aux=True the function must return a pair (output, aux)")
            result, self.aux = result
        self.out = result
        self.outputs = _flatten(result)
        for y in self.outputs:
            if not isinstance(y, Variable):
                raise TypeError(f"{name}: the function must return Tensors, got {type(y).__name__}")
        # What comes out stays attached only if it depends on something that is being differentiated further out.
        own = {x.node or x for x in self.inputs}
        self.nested = self.outer and _reaches_others(self.outputs, own)

    def pull(self, cotangents: Sequence[Any], create_graph: bool | None = None, retain: bool = False) -> list[Any]:
        """The gradients of the outputs, so weighed, for every input; zeros where there is no dependence."""
        create = self.nested if create_graph is None else create_graph
        tracked = [(y, u) for y, u in zip(self.outputs, cotangents, strict=True) if y.tracked]
        if not tracked:
            return [zeros_like(x) for x in self.inputs]
        outs, weights = zip(*tracked, strict=True)
        found = _grad(outs, self.inputs, weights, retain or create, create, allow_unused=True)
        return [zeros_like(x) if d is None else d for x, d in zip(self.inputs, found, strict=True)]

    def leave(self, tree: Any) -> Any:
        """Results as the caller may have them: attached only if something further out is being differentiated."""
        return tree if self.nested else _map(lambda y: y.detach() if isinstance(y, Tensor) else y, tree)

    def leave_aux(self) -> Any:
        """As :meth:`leave`, of the auxiliary results, which may depend on other things than the outputs do."""
        tensors = [y for y in _flatten(self.aux) if isinstance(y, Variable)]
        if self.outer and _reaches_others(tensors, {x.node or x for x in self.inputs}):
            return self.aux
        return _map(lambda y: y.detach() if isinstance(y, Tensor) else y, self.aux)


def _enter(name: str, x: Any) -> Any:
    if not isinstance(x, Variable):
        x = as_tensor(float(x) if isinstance(x, int) and not isinstance(x, bool) else x)
    if x.array.dtype.kind != "f":
        raise DTypeError(
            f"{name}: only floating point arguments can be differentiated, got {x.array.dtype}; see argnums"
        )
    if x.tracked:
        return alias(x)
    fresh = wrap(x.array)
    fresh.tracked = True
    return fresh


def _reaches_others(outputs: Sequence[Any], own: set[Any]) -> bool:
    seen = {y.node or y for y in outputs if y.tracked}
    if any(isinstance(e, Variable) and e not in own for e in seen):
        return True
    for node in topological_order(seen):
        if node in own:
            if node.edges:  # an argument that is tracked further out
                return True
        elif any(isinstance(e, Variable) and e not in own for e in node.edges):
            return True
    return False


def _scalar(name: str, run: _Run) -> Any:
    if len(run.outputs) != 1 or run.outputs[0].array.size != 1:
        shapes = ", ".join(str(tuple(y.array.shape)) for y in run.outputs) or "nothing"
        raise ShapeError(f"{name}: the function must return one scalar, got {shapes}; see jacobian() and vjp()")
    return BACKENDS[type(run.outputs[0].array)].ones_like(run.outputs[0].array)


def _chosen(
    name: str, f: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, argnums: int | Sequence[int], has_aux: bool
) -> _Run:
    if not callable(f):
        raise TypeError(f"{name}: expected a function to differentiate, got {type(f).__name__}")
    picked = ints_in(name, "argnums", argnums)
    for i in picked:
        if not -len(args) <= i < len(args):
            raise IndexError(f"{name}: argnums {i} is out of range for {len(args)} positional arguments")
    if len({i % len(args) for i in picked}) < len(picked):
        raise ValueError(f"{name}: argnums {picked} names an argument twice")

    def of_chosen(*primals: Any) -> Any:
        full = list(args)
        for i, p in zip(picked, primals, strict=True):
            full[i] = p
        return f(*full, **kwargs)

    return _Run(name, of_chosen, [args[i] for i in picked], has_aux)


# ---- what users call ------------------------------------------------------------------------


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns ``(f(*args), gradient)`` of a scalar-valued f.

    argnums: which positional argument to differentiate, or several, and then the gradient is a tuple.
    has_aux: f returns ``(value, anything)``, and so does the new function in place of the value.
    Raises ShapeError if the value is not a scalar, DTypeError if the argument is not floating point.
    """

    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        run = _chosen("grad", f, args, kwargs, argnums, has_aux)
        leaves = run.pull([_scalar("grad", run)])
        grads = tuple(_unflatten(run.primals, leaves))
        value = run.leave(run.out)
        return ((value, run.leave_aux()) if has_aux else value), (grads[0] if isinstance(argnums, int) else grads)

    return differentiated


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a scalar-valued f, as a function of the same arguments. It can be differentiated again.

    The arguments are those of :func:`value_and_grad`. With ``has_aux`` the result is ``(gradient, aux)``.
    """
    both = value_and_grad(f, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return gradient


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``(f(*primals), pull)``, where ``pull(u)`` is the tuple of vector-Jacobian products ``J_i^T u``, one an argument.

    u has the structure and shapes of the output. ``pull`` can be called any number of times.
    """
    run = _Run("vjp", f, primals, has_aux)

    def pull(cotangent: Any) -> Any:
        weights = _flatten(cotangent)
        _same_shapes("vjp", "cotangent", weights, "output", run.outputs)
        attached = run.outer and any(isinstance(u, Variable) and u.tracked for u in weights)
        return tuple(_unflatten(run.primals, run.pull(weights, run.nested or attached, retain=True)))

    return (run.leave(run.out), pull, run.leave_aux()) if has_aux else (run.leave(run.out), pull)


def _same_shapes(name: str, what: str, given: Sequence[Any], of: str, expected: Sequence[Any]) -> None:
    got = [tuple(x.array.shape if isinstance(x, Variable) else np.shape(x)) for x in given]
    wanted = [tuple(y.array.shape) for y in expected]
    if got != wanted:
        shapes = [", ".join(map(str, group)) or "nothing" for group in (got, wanted)]
        raise ShapeError(f"{name}: {what} of shape {shapes[0]} for {of} of shape {shapes[1]}")


def _check_tuples(name: str, primals: Any, tangents: Any) -> None:
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(f"{name}: primals and tangents must be tuples, one entry an argument of the function")


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``(f(*primals), J v)``: the output, and its derivative along ``tangents``, structured as the primals."""
    _check_tuples("jvp", primals, tangents)
    run = _Run("jvp", f, primals)
    v = [as_tensor(t) for t in _flatten(list(tangents))]
    _same_shapes("jvp", "tangents", v, "primals", run.inputs)
    with enable_grad():
        u = [zeros_like(y, requires_grad=True) for y in run.outputs]
        pulled = run.pull(u, create_graph=True)
    attached = run.outer and (run.nested or any(t.tracked for t in v))
    linear = [(d, t) for d, t in zip(pulled, v, strict=True) if d.tracked]
    if linear:
        ds, ts = zip(*linear, strict=True)
        found: Sequence[Any] = _grad(ds, u, ts, create_graph=attached, allow_unused=True)
    else:
        found = [None] * len(u)
    out = [zeros_like(y) if d is None else d for y, d in zip(run.outputs, found, strict=True)]
    return run.leave(run.out), _unflatten(run.out, out)


def hvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``(f(*primals), H v)`` of a scalar-valued f: its Hessian times ``tangents``, without forming the Hessian."""
    _check_tuples("hvp", primals, tangents)
    run = _Run("hvp", f, primals)
    v = [as_tensor(t) for t in _flatten(list(tangents))]
    _same_shapes("hvp", "tangents", v, "primals", run.inputs)
    with enable_grad():
        first = run.pull([_scalar("hvp", run)], create_graph=True)
    attached = run.outer and (run.nested or any(t.tracked for t in v))
    linear = [(d, t) for d, t in zip(first, v, strict=True) if d.tracked]
    if linear:
        ds, ts = zip(*linear, strict=True)
        found: Sequence[Any] = _grad(ds, run.inputs, ts, create_graph=attached, allow_unused=True)
    else:
        found = [None] * len(run.inputs)
    out = [zeros_like(x) if d is None else d for x, d in zip(run.inputs, found, strict=True)]
    product = _unflatten(list(run.primals), out)
    return run.leave(run.out), product[0] if len(primals) == 1 else tuple(product)


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the matrix of all partial derivatives, of shape ``output.shape + argument.shape``.

    It takes one backward pass an output entry. With several ``argnums`` the result is a tuple.
    """

    def differentiated(*args: Any, **kwargs: Any) -> Any:
        run = _chosen("jacobian", f, args, kwargs, argnums, False)
        if len(run.outputs) != 1:
            raise GraphError(f"jacobian: the function must return one Tensor, got {len(run.outputs)}")
        y = run.outputs[0]
        xp = BACKENDS[type(y.array)]
        basis = xp.eye(y.array.size, dtype=y.array.dtype).reshape(y.array.size, *y.array.shape)
        rows = [run.pull([basis[i, ...]], retain=True) for i in range(y.array.size)]
        whole = [
            reshape(stack([row[k] for row in rows]), (*y.array.shape, *x.array.shape)) if rows
            else zeros_like(x).reshape(-1)[:0].reshape(*y.array.shape, *x.array.shape)
            for k, x in enumerate(run.inputs)
        ]  # fmt: skip
        trees = tuple(_unflatten(run.primals, whole))
        return trees[0] if isinstance(argnums, int) else trees

    return differentiated


def hessian(f: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """A function that returns the matrix of second derivatives of a scalar-valued f, of shape ``x.shape + x.shape``."""
    if not isinstance(argnums, int):
        raise TypeError(f"hessian: argnums must be one int, got {argnums!r}")
    return jacobian(grad(f, argnums), argnums)
