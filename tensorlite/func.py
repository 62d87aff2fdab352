"""Differentiation of functions: ``grad(f)`` is a function that can be differentiated again.

Everything here is reverse mode. A Jacobian-vector product needs no forward mode, because the vector-Jacobian product
``u -> J^T u`` is linear in u. The transpose of that map is ``v -> J v``, and it is a vector-Jacobian product again.

The arguments and results of f are Tensors, or tuples, lists and dicts of Tensors. The function names are those of
``torch.func`` and ``torch.autograd.functional``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar, overload

import numpy as np

from .autograd.function import op
from .autograd.grad_mode import enable_grad, is_grad_enabled
from .autograd.gradients import grad as _grad
from .autograd.graph import Edge, Variable, topological_order, wrap
from .backends.registry import BACKENDS, Array
from .batching import vmap
from .dtypes import is_floating
from .errors import DTypeError, ShapeError
from .missing_names import module_getattr
from .ops.shape import reshape, stack
from .pytree import tree_leaves, tree_map
from .scalars import as_integer, ints_in
from .tensors.creation import as_tensor, zeros_like
from .tensors.tensor import Tensor

__all__ = ["grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp", "vmap"]

P = ParamSpec("P")
R = TypeVar("R")
Aux = TypeVar("Aux")
Tree = TypeVar("Tree", bound=dict[Any, Any] | list[Any] | tuple[Any, ...])
OfTensor: TypeAlias = Callable[Concatenate[Tensor, P], Tensor]
"""A function of a Tensor, and perhaps of further arguments, that returns a Tensor."""


# ---- trees of tensors, in which None may stand for a tensor ---------------------------------


def _flatten(tree: Any) -> list[Any]:
    return [leaf for leaf in tree_leaves(tree) if leaf is not None]


def _map(f: Callable[[Any], Any], tree: Any) -> Any:
    return tree_map(lambda leaf: None if leaf is None else f(leaf), tree)


def _aligned(tree: Any, like: Any) -> list[Any] | None:
    """Return the leaves of a tree in the order of those of ``like``; None if the structures differ.

    A None stands for any leaf of ``like``. Lists and tuples are alike, and a dict's items may come in any order.
    """
    if like is None:
        return []
    if isinstance(like, dict):
        same = isinstance(tree, dict) and tree.keys() == like.keys()
        pairs = [(tree[key], item) for key, item in like.items()] if same else None
    elif isinstance(like, (list, tuple)):
        same = isinstance(tree, (list, tuple)) and len(tree) == len(like)
        pairs = list(zip(tree, like, strict=True)) if same else None
    else:
        return None if isinstance(tree, (dict, list, tuple)) else [tree]
    parts = [_aligned(item, of) for item, of in pairs or ()]
    if pairs is None or None in parts:
        return None
    return [leaf for part in parts if part is not None for leaf in part]


def _unflatten(tree: Any, leaves: Sequence[Any]) -> Any:
    rest = iter(leaves)
    return _map(lambda _: next(rest), tree)


# ---- one evaluation of f --------------------------------------------------------------------


class _Linearization:
    """The graph of one call of f, from fresh inputs to outputs.

    primals: the arguments, with a fresh input for each Tensor or number in them. inputs: those fresh inputs.
    out: the result. outputs: the Tensors in it. aux: the auxiliary results, or None.
    outer: whether the caller records. nested: whether the outputs also depend on tensors that the caller
        differentiates; only then do the results stay attached to the graph.
    """

    def __init__(self, name: str, f: Callable[..., Any], primals: Sequence[Any], has_aux: bool = False) -> None:
        if not callable(f):
            raise TypeError(f"{name}: expected a function to differentiate, got {type(f).__name__}")
        self.name = name
        self.outer = is_grad_enabled()
        with enable_grad():
            self.primals = [_map(lambda x: _as_input(name, x), p) for p in primals]
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
        self.nested = self.outer and self._reaches_outer_leaves(self.outputs)

    def _reaches_outer_leaves(self, outputs: Sequence[Any]) -> bool:
        """Return whether some output depends on a leaf that is not one of the inputs."""
        inputs: set[Edge] = {x.node or x for x in self.inputs}
        roots = {y.node or y for y in outputs if y.tracked}
        if any(isinstance(e, Variable) and e not in inputs for e in roots):
            return True
        for node in topological_order(roots):
            if node in inputs:
                if node.edges:  # this input is an alias of a tensor that the caller differentiates
                    return True
            elif any(isinstance(e, Variable) and e not in inputs for e in node.edges):
                return True
        return False

    def vjp(self, cotangents: Sequence[Any], create_graph: bool | None = None, retain: bool = False) -> list[Any]:
        """Return the vector-Jacobian product for each input, zeros where no output depends on it.

        cotangents: one for each output; None stands for zeros, and for the output of integers or booleans.
        create_graph: whether to record the products. None records them if the linearization is nested.
        """
        create = self.nested if create_graph is None else create_graph
        tracked = [(y, u) for y, u in zip(self.outputs, cotangents, strict=True) if y.tracked and u is not None]
        if not tracked:
            return [zeros_like(x) for x in self.inputs]
        outs, weights = zip(*tracked, strict=True)
        grads = _grad(outs, self.inputs, weights, retain or create, create, allow_unused=True)
        return [zeros_like(x) if g is None else g for x, g in zip(self.inputs, grads, strict=True)]

    def detach_if_outermost(self, tree: Any) -> Any:
        """Return the results, detached unless the caller differentiates something that they depend on."""
        return tree if self.nested else _detach(tree)

    def detached_aux(self) -> Any:
        """Return the auxiliary results, detached by the same rule; they may depend on more than the outputs do."""
        tensors = [y for y in _flatten(self.aux) if isinstance(y, Variable)]
        return self.aux if self.outer and self._reaches_outer_leaves(tensors) else _detach(self.aux)


def _detach(tree: Any) -> Any:
    return _map(lambda y: y.detach() if isinstance(y, Tensor) else y, tree)


@op(lambda g: g, view=True)
def _alias(xp: Any, x: Array) -> Array:
    """Return the same array at a new place in the graph."""
    return x


def _as_input(name: str, x: Any) -> Any:
    """Return a tensor with the value of x, where the gradients of f end. Raises DTypeError if it is not floating."""
    if not isinstance(x, Variable):
        x = as_tensor(float(x) if isinstance(x, int) and not isinstance(x, bool) else x)
    if not is_floating(x.array.dtype):
        raise DTypeError(
            f"{name}: only floating point arguments can be differentiated, got {x.array.dtype}. See argnums."
        )
    if x.tracked:
        return _alias(x)
    fresh = wrap(x.array)
    fresh.tracked = True
    return fresh


def _scalar_cotangent(name: str, linear: _Linearization) -> Array:
    """Return the cotangent 1 for the one scalar output. Raises ShapeError if there is no such output."""
    if len(linear.outputs) != 1 or linear.outputs[0].array.size != 1:
        shapes = ", ".join(str(tuple(y.array.shape)) for y in linear.outputs) or "nothing"
        raise ShapeError(f"{name}: the function must return one scalar, got {shapes}. See jacobian() and vjp().")
    array = linear.outputs[0].array
    return BACKENDS[type(array)].ones_like(array)


def _linearize_argnums(
    name: str, f: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, argnums: int | Sequence[int], has_aux: bool
) -> _Linearization:
    """Linearize f in the positional arguments that ``argnums`` names, with the others held fixed."""
    if not callable(f):
        raise TypeError(f"{name}: expected a function to differentiate, got {type(f).__name__}")
    chosen = ints_in(name, "argnums", argnums)
    for i in chosen:
        if not -len(args) <= i < len(args):
            raise IndexError(f"{name}: argnums {i} is out of range for {len(args)} positional arguments")
    if len({i % len(args) for i in chosen}) < len(chosen):
        raise ValueError(f"{name}: argnums {chosen} names an argument twice")

    def of_chosen(*primals: Any) -> Any:
        full = list(args)
        for i, p in zip(chosen, primals, strict=True):
            full[i] = p
        return f(*full, **kwargs)

    return _Linearization(name, of_chosen, [args[i] for i in chosen], has_aux)


def _is_floating(y: Any) -> bool:
    return is_floating(y.array.dtype)


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(x.array.shape if isinstance(x, Variable) else np.shape(x))


def _fitted(name: str, what: str, tree: Any, of: str, like: Any) -> list[Any]:
    """Return the leaves of a tree for the leaves of ``like``, which are Tensors. Those of integers get None.

    Raises ShapeError if the structures differ, or the shapes of leaves that are not None.
    """
    expected, leaves = _flatten(like), _aligned(tree, like)
    given = _flatten(tree) if leaves is None else leaves
    fits = len(given) == len(expected) and all(
        x is None or not _is_floating(y) or _shape(x) == _shape(y) for x, y in zip(given, expected, strict=True)
    )
    if not fits:
        shapes = [", ".join(str(_shape(x)) for x in group if x is not None) or "nothing" for group in (expected, given)]
        raise ShapeError(f"{name}: expected {what} of the shape of the {of}, {shapes[0]}, got {shapes[1]}")
    if leaves is None:
        shown = [_map(_shape, t) for t in (like, tree)]
        raise ShapeError(f"{name}: expected {what} of the structure of the {of}, {shown[0]}, got {shown[1]}")
    return [x if _is_floating(y) else None for x, y in zip(leaves, expected, strict=True)]


def _tangents(name: str, linear: _Linearization, tangents: Any) -> list[Any]:
    """Return the tangents as Tensors, zeros for None. Raises ShapeError or DTypeError if they do not fit."""
    given = _fitted(name, "tangents", tangents, "primals", linear.primals)
    found = [zeros_like(x) if t is None else as_tensor(t) for x, t in zip(linear.inputs, given, strict=True)]
    for x, t in zip(linear.inputs, found, strict=True):
        if t.dtype != x.dtype:
            raise DTypeError(
                f"{name}: expected a tangent of {x.dtype}, as its primal, got one of {t.dtype}. Convert it with "
                f".to(dtype)."
            )
    return found


def _check_tuples(name: str, primals: Any, tangents: Any) -> None:
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(
            f"{name}: primals and tangents must be tuples, with one entry for each argument of the function"
        )


# ---- public functions -----------------------------------------------------------------------


@overload
def value_and_grad(f: OfTensor[P]) -> Callable[Concatenate[Tensor, P], tuple[Tensor, Tensor]]: ...
@overload
def value_and_grad(
    f: Callable[Concatenate[Tree, P], Tensor],
) -> Callable[Concatenate[Tree, P], tuple[Tensor, Tree]]: ...
@overload
def value_and_grad(
    f: Callable[P, Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[P, tuple[Any, Any]]: ...
def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Return a function of f's arguments that returns ``(f(*args), gradient)``. f must return a scalar.

    argnums: the positional argument to differentiate, or several; for several the gradient is a tuple.
    has_aux: whether f returns ``(value, aux)``; then the new function returns ``((value, aux), gradient)``.

    The new function raises ShapeError if the value is not a scalar, and DTypeError if an argument to differentiate is
    not floating point. It raises IndexError if there is no such argument.
    """

    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        linear = _linearize_argnums("grad", f, args, kwargs, argnums, has_aux)
        leaves = linear.vjp([_scalar_cotangent("grad", linear)])
        grads = tuple(_unflatten(linear.primals, leaves))
        value = linear.detach_if_outermost(linear.out)
        one = as_integer(argnums) is not None
        return ((value, linear.detached_aux()) if has_aux else value), (grads[0] if one else grads)

    return differentiated


@overload
def grad(f: OfTensor[P]) -> OfTensor[P]: ...
@overload
def grad(f: Callable[Concatenate[Tree, P], Tensor]) -> Callable[Concatenate[Tree, P], Tree]: ...
@overload
def grad(
    f: Callable[P, Tensor], argnums: Sequence[int], has_aux: Literal[False] = False
) -> Callable[P, tuple[Any, ...]]: ...
@overload
def grad(f: Callable[P, Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[P, Any]: ...
def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Return the gradient of a scalar-valued f, as a function of f's arguments that can be differentiated again.

    The arguments and errors are those of :func:`value_and_grad`. With ``has_aux`` the new function returns
    ``(gradient, aux)``.
    """
    both = value_and_grad(f, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return gradient


@overload
def vjp(
    f: Callable[..., R], *primals: Tensor, has_aux: Literal[False] = False
) -> tuple[R, Callable[[R], tuple[Tensor, ...]]]: ...
@overload
def vjp(
    f: Callable[..., R], *primals: Any, has_aux: Literal[False] = False
) -> tuple[R, Callable[[R], tuple[Any, ...]]]: ...
@overload
def vjp(
    f: Callable[..., tuple[R, Aux]], *primals: Any, has_aux: Literal[True]
) -> tuple[R, Callable[[R], tuple[Any, ...]], Aux]: ...
def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return ``(f(*primals), pullback)``, or ``(output, pullback, aux)`` with ``has_aux``.

    ``pullback(u)`` returns the tuple of vector-Jacobian products ``J_i^T u``, one for each primal. u has the structure
    and shapes of the output. The pullback can be called any number of times. A None in u stands for zeros. What u holds
    for a result of integers or booleans, such as the indices of ``max``, is ignored.

    Raises DTypeError if a primal is not floating point; the pullback raises ShapeError if u does not fit.
    """
    linear = _Linearization("vjp", f, primals, has_aux)

    def pullback(cotangent: Any) -> Any:
        weights = _fitted("vjp", "cotangent", cotangent, "output", linear.out)
        attached = linear.outer and any(isinstance(u, Variable) and u.tracked for u in weights)
        return tuple(_unflatten(linear.primals, linear.vjp(weights, linear.nested or attached, retain=True)))

    out = linear.detach_if_outermost(linear.out)
    return (out, pullback, linear.detached_aux()) if has_aux else (out, pullback)


def _transpose(products: Sequence[Any], of: Sequence[Any], tangents: Sequence[Any], attached: bool) -> list[Any]:
    """Return the gradients of ``sum_k <products[k], tangents[k]>`` by the tensors in ``of``, or zeros."""
    linked = [(d, t) for d, t in zip(products, tangents, strict=True) if d.tracked]
    if not linked:
        return [zeros_like(x) for x in of]
    ds, ts = zip(*linked, strict=True)
    grads = _grad(ds, of, ts, create_graph=attached, allow_unused=True)
    return [zeros_like(x) if g is None else g for x, g in zip(of, grads, strict=True)]


def jvp(f: Callable[..., R], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[R, R]:
    """Return ``(f(*primals), J v)``: the output, and its directional derivative along v = ``tangents``.

    primals, tangents: tuples with one entry for each argument of f; the entries have the same structures and shapes.
        A None among the tangents stands for zeros.

    The derivative of a result of integers or booleans, such as the indices of ``max``, is 0 in its dtype, as in
    PyTorch.

    Raises TypeError if they are not tuples, ShapeError if the shapes differ, DTypeError for integers.
    """
    _check_tuples("jvp", primals, tangents)
    linear = _Linearization("jvp", f, primals)
    v = _tangents("jvp", linear, tangents)
    with enable_grad():
        u = [zeros_like(y, requires_grad=True) if _is_floating(y) else None for y in linear.outputs]
        products = linear.vjp(u, create_graph=True)  # J^T u, as a function of u
    attached = linear.outer and (linear.nested or any(t.tracked for t in v))
    found = iter(_transpose(products, [x for x in u if x is not None], v, attached))
    out = [next(found) if _is_floating(y) else zeros_like(y) for y in linear.outputs]
    return linear.detach_if_outermost(linear.out), _unflatten(linear.out, out)


@overload
def hvp(f: Callable[[Tensor], R], primals: tuple[Tensor], tangents: Sequence[Tensor]) -> tuple[R, Tensor]: ...
@overload
def hvp(f: Callable[..., R], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[R, Any]: ...
def hvp(f: Callable[..., R], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[R, Any]:
    """Return ``(f(*primals), H v)`` of a scalar-valued f: its Hessian times v = ``tangents``, without the full Hessian.

    ``H v`` has the structure of the primals; for one primal it is that primal's product alone.
    Raises ShapeError if f does not return a scalar; the other arguments and errors are those of :func:`jvp`.
    """
    _check_tuples("hvp", primals, tangents)
    linear = _Linearization("hvp", f, primals)
    v = _tangents("hvp", linear, tangents)
    with enable_grad():
        first = linear.vjp([_scalar_cotangent("hvp", linear)], create_graph=True)
    attached = linear.outer and (linear.nested or any(t.tracked for t in v))
    out = _transpose(first, linear.inputs, v, attached)
    product = _unflatten(list(linear.primals), out)
    return linear.detach_if_outermost(linear.out), product[0] if len(primals) == 1 else tuple(product)


@overload
def jacobian(f: OfTensor[P]) -> OfTensor[P]: ...
@overload
def jacobian(f: Callable[P, Any], argnums: int | Sequence[int] = 0) -> Callable[P, Any]: ...
def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function of f's arguments that returns the Jacobian, of shape ``output.shape + argument.shape``.

    It takes one backward pass for each entry of the output. With several ``argnums`` the result is a tuple. If f
    returns several Tensors in tuples, lists or dicts, the result has their structure, with a Jacobian (or a tuple) for
    each. That of integers or booleans is 0. Raises TypeError if f returns anything else.
    """

    def differentiated(*args: Any, **kwargs: Any) -> Any:
        linear = _linearize_argnums("jacobian", f, args, kwargs, argnums, False)
        found = []
        for index in range(len(linear.outputs)):
            trees = tuple(_unflatten(linear.primals, _jacobians(linear, index)))
            found.append(trees if as_integer(argnums) is None else trees[0])
        return _unflatten(linear.out, found)

    return differentiated


def _jacobians(linear: _Linearization, index: int) -> list[Any]:
    """Return the Jacobian of one output by each input."""
    y = linear.outputs[index]
    size, shape = y.array.size, tuple(y.array.shape)
    if not size or not _is_floating(y):
        return [x.new_zeros((*shape, *x.array.shape)) for x in linear.inputs]
    basis = BACKENDS[type(y.array)].eye(size, dtype=y.array.dtype).reshape(size, *shape)
    weights: list[Any] = [None] * len(linear.outputs)
    rows = []
    for i in range(size):
        weights[index] = basis[i, ...]
        rows.append(linear.vjp(weights, retain=True))
    return [reshape(stack([row[k] for row in rows]), (*shape, *x.array.shape)) for k, x in enumerate(linear.inputs)]


@overload
def hessian(f: OfTensor[P]) -> OfTensor[P]: ...
@overload
def hessian(f: Callable[P, Any], argnums: int | Sequence[int] = 0) -> Callable[P, Any]: ...
def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Return a function that returns the Hessian of a scalar-valued f, of shape ``x.shape + x.shape``.

    For an argument that is a dict, list or tuple, and for several ``argnums``, it has that structure twice: a block for
    each pair of tensors.
    """
    ints_in("hessian", "argnums", argnums)
    return jacobian(grad(f, argnums), argnums)


if not TYPE_CHECKING:  # because a type checker would then accept any name of this module
    __getattr__ = module_getattr(__name__, globals())
