"""vmap, a function of one example mapped over a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

from .errors import ShapeError
from .ops.shape import stack
from .pytree import tree_leaves, tree_unflatten
from .random import default_generator
from .scalars import as_integer
from .tensors.tensor import Tensor

__all__ = ["vmap"]


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: Literal["error", "different", "same"] = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Return a function that maps ``func`` over a dimension of its arguments and stacks the results.

    It calls ``func`` once for each example and stacks the results, so it takes as long as a loop. Everything that works
    in a loop works here: gradients of any order, :func:`jacobian`, hooks, branches on values.

    func: a function of Tensors, or trees of them, that returns a Tensor or a tree of Tensors.
    in_dims: the dimension of each argument that is mapped over: an int for all arguments, or a tuple with an entry for
        each. An entry is an int, None (every call gets the whole argument), or a tree of these, as the argument is one.
        Every call gets the whole of a keyword argument, as in PyTorch.
    out_dims: where the batch dimension is in the results, an int or a tree of them, as the result is one.
    randomness: "error" refuses random numbers of the default generator; "different" draws them anew for each example;
        "same" repeats them for each.
    chunk_size: accepted for compatibility; it changes nothing.

    Raises ValueError if nothing is mapped over, or for a batch of 0 examples, whose results have no shape. Raises
    ShapeError for batches of different sizes, IndexError for a dimension that an argument lacks, and RuntimeError for
    random numbers under "error". The name and arguments are those of ``torch.vmap``.
    """
    if not callable(func):
        raise TypeError(f"vmap: expected a function, got {type(func).__name__}")
    if randomness not in ("error", "different", "same"):
        raise ValueError(f"vmap: expected randomness 'error', 'different' or 'same', got {randomness!r}")

    @wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        if isinstance(in_dims, (tuple, list)) and len(in_dims) != len(args):
            raise ValueError(f"vmap: expected in_dims with {len(args)} entries, one for each argument, got {in_dims}")
        dims = tuple(in_dims) if isinstance(in_dims, (tuple, list)) else (in_dims,) * len(args)
        leaves, where = tree_leaves(args), _dims_of(args, dims)
        slices = [_unbind(leaf, dim) for leaf, dim in zip(leaves, where, strict=True)]
        sizes = {len(s) for s in slices if s is not None}
        if not sizes:
            raise ValueError("vmap: expected an in_dims that is not None. There is no dimension to map over.")
        if len(sizes) > 1:
            raise ShapeError(f"vmap: expected batches of one size, got {sorted(sizes)}")
        size = sizes.pop()
        if not size:
            raise ValueError("vmap: expected at least 1 example, got a batch of 0. The results would have no shape.")
        results, state = [], default_generator.get_state()
        for i in range(size):
            if randomness == "same":
                default_generator.set_state(state)
            chosen = [leaf if s is None else s[i] for leaf, s in zip(leaves, slices, strict=True)]
            results.append(func(*tree_unflatten(chosen, args), **kwargs))
            if randomness == "error" and default_generator.get_state() != state:
                default_generator.set_state(state)
                raise RuntimeError(
                    "vmap: the function draws random numbers. Pass randomness='different' or randomness='same'."
                )
        return _stack(results, out_dims)

    return mapped


def _dims_of(tree: Any, dims: Any) -> list[Any]:
    """Return the dimension for each leaf of a tree. An int or None counts for all leaves below it."""
    if dims is None or as_integer(dims) is not None:
        return [dims] * len(tree_leaves(tree))
    items = list(tree.values()) if isinstance(tree, dict) else tree
    entries = [dims.get(key) for key in tree] if isinstance(tree, dict) and isinstance(dims, dict) else dims
    if not isinstance(items, (tuple, list)) or not isinstance(entries, (tuple, list)) or len(entries) != len(items):
        raise ValueError(
            f"vmap: expected dims that are ints, None, or as nested as what they are for, got {dims!r} for "
            f"{type(tree).__name__}"
        )
    return [dim for item, entry in zip(items, entries, strict=True) for dim in _dims_of(item, entry)]


def _unbind(leaf: Any, dim: Any) -> tuple[Tensor, ...] | None:
    """Return the examples of one argument, or None if every call gets the whole argument."""
    if dim is None or leaf is None:
        return None
    if not isinstance(leaf, Tensor):
        raise ValueError(
            f"vmap: expected Tensors to map over, got {type(leaf).__name__}. Use None in in_dims for this argument."
        )
    return leaf.unbind(dim)


def _stack(results: list[Any], out_dims: Any) -> Any:
    """Stack the results of all calls, leaf by leaf."""
    columns = list(zip(*(tree_leaves(result) for result in results), strict=True))
    where = _dims_of(results[0], out_dims)
    stacked = []
    for column, dim in zip(columns, where, strict=True):
        if any(not isinstance(x, Tensor) for x in column):
            kind = next(type(x).__name__ for x in column if not isinstance(x, Tensor))
            raise ValueError(f"vmap: expected the function to return Tensors, got {kind}")
        stacked.append(column[0] if dim is None else stack(column, dim))
    return tree_unflatten(stacked, results[0])
