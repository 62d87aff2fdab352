"""Copies of tensors, for ``copy``, ``deepcopy`` and ``pickle``.

Tensors that share memory are copied with the whole memory that they share. So their copies share memory, too, if one
call copies both.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

from ..autograd.graph import Variable
from ..autograd.version_counter import base_array
from ..backends.registry import BACKENDS, Array
from ..errors import GraphError
from ..ops.shape import view

__all__ = ["copy_tensor", "deepcopy_tensor", "reduce_tensor"]

_NOT_COPIED = {"array", "node", "hooks", "retain_hook", "view_info"}
"""The attributes of a tensor that belong to its memory or to its place in the graph."""


def _attributes(x: Any) -> dict[str, Any]:
    """Return the attributes that a copy gets."""
    return {name: value for name, value in vars(x).items() if name not in _NOT_COPIED}


def _warn_of_hooks(x: Any, how: str) -> None:
    if x.node is None and x.hooks:
        warnings.warn(f"{how}: the copy has none of the {len(x.hooks)} hooks of this tensor. Register them again.",
                      stacklevel=4)  # fmt: skip


def _owner(array: Array) -> Array | None:
    """Return the contiguous array whose memory this one shows, or None if there is no such array."""
    owner = base_array(array)
    flags = owner.flags
    if not (flags.c_contiguous or flags.f_contiguous):
        return None
    return owner


def _place(array: Array, owner: Array) -> tuple[Any, ...]:
    """Return the place of an array in the memory of its owner, as the arguments of :func:`_view`."""
    offset = BACKENDS[type(array)].memory_offset(array, owner)
    return offset, tuple(array.shape), array.dtype, tuple(array.strides), getattr(array.flags, "writeable", True)


def _view(owner: Array, offset: int, shape: Any, dtype: Any, strides: Any, writeable: bool) -> Array:
    """Return the array at a place in the memory of another one."""
    array = BACKENDS[type(owner)].view_at(owner, offset, shape, dtype, strides)
    if not writeable:
        array.flags.writeable = False
    return array


def copy_tensor(x: Any) -> Any:
    """Return a tensor that shares the memory of x. For ``copy.copy``.

    A leaf that requires gradients gives such a leaf, without the gradient and hooks of x, as in PyTorch. The copy of
    another tensor is a view of it, at its place in the graph.
    """
    if x.node is not None or (type(x) is Variable.tensor_type and not x.tracked):
        result = view(x, x.array.shape)
        result.accumulated_grad = None
        return result
    _warn_of_hooks(x, "copy")
    result = object.__new__(type(x))
    result.array = x.array
    for name, value in _attributes(x).items():
        if name != "accumulated_grad":
            setattr(result, name, value)
    return result


def deepcopy_tensor(x: Any, memo: dict[int, Any]) -> Any:
    """Return a copy of a leaf with its gradient and without its hooks. For ``copy.deepcopy``.

    Raises GraphError if x is the result of a recorded op.
    """
    if x.node is not None:
        raise GraphError("deepcopy: only leaf tensors can be copied with their history. Use clone() or detach().")
    result = object.__new__(type(x))
    memo[id(x)] = result
    owner = _owner(x.array)
    if owner is None:
        result.array = x.array.copy()
    else:
        copied = memo.get(id(owner))
        if copied is None:
            copied = memo[id(owner)] = owner.copy() if owner.flags.c_contiguous else owner.T.copy().T
            memo.setdefault(id(memo), []).append(owner)  # so that its id belongs to no other object
        result.array = copied if x.array is owner else _view(copied, *_place(x.array, owner))
    for name, value in _attributes(x).items():
        setattr(result, name, copy.deepcopy(value, memo))
    return result


def reduce_tensor(x: Any) -> tuple[Any, ...]:
    """Return how to make a copy of x, for ``pickle``. The copy of an op's result is a leaf, as in PyTorch."""
    _warn_of_hooks(x, "pickle")
    owner = _owner(x.array)
    if owner is None:
        return _rebuild, (type(x), x.array.copy(), None), _attributes(x)
    return _rebuild, (type(x), owner, None if x.array is owner else _place(x.array, owner)), _attributes(x)


def _rebuild(kind: type, owner: Array, place: tuple[Any, ...] | None) -> Any:
    """Return the tensor of :func:`reduce_tensor`, without its attributes."""
    result: Any = object.__new__(kind)
    result.array = owner if place is None else _view(owner, *place)
    return result
