"""Trees: flatten and map nested tuples, lists and dicts.

A tree is a tuple, list, named tuple or dict whose items are trees, or a leaf: any other value, ``None`` included. The
leaves come in the order of the items; a dict's items come in the order of insertion. The names are those of
``torch.utils._pytree`` and JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["tree_leaves", "tree_map", "tree_unflatten"]


def tree_leaves(tree: Any) -> list[Any]:
    """Return the leaves of a tree as a list."""
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        return [tree]
    return [leaf for item in tree for leaf in tree_leaves(item)]


def tree_map(f: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree of the same structure whose leaves are ``f(leaf)``, called in order."""
    if isinstance(tree, dict):
        return {key: tree_map(f, item) for key, item in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(tree_map(f, item) for item in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(tree_map(f, item) for item in tree)
    return f(tree)


def tree_unflatten(leaves: Iterable[Any], like: Any) -> Any:
    """Return a tree with the structure of ``like`` and these leaves. Raises ValueError if there are too few or many."""
    given = list(leaves)
    expected = len(tree_leaves(like))
    if len(given) != expected:
        raise ValueError(f"tree_unflatten: expected {expected} leaves, got {len(given)}")
    rest = iter(given)
    return tree_map(lambda _: next(rest), like)
