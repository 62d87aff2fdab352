"""The exercises of chapter 3: the engine, read line by line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Array = np.ndarray
Shape = tuple[int, ...]
Rule = Callable[[Array], Array]
Nodes = dict[int, list[tuple[int | str, Rule]]]
Saved = dict[str, tuple[int, list[str]]]


def leaf_gradients(nodes: Nodes, result: int, g: Array) -> dict[str, Array]:
    """Return the gradients of the leaves that a result depends on, by name.

    nodes has an entry for each node, by its number: a list of (edge, rule), one for each input. An edge is the number
    of another node, or the name of a leaf. A rule is a function: it takes the gradient of the node's result, and
    returns that of the input. `result` is the number of a node, g the gradient of its result. Every edge leads to a
    smaller number. Some nodes do not belong to the result: they receive nothing. Do not change an array in place,
    because a rule may return the array that it got.

    >>> nodes = {1: [("a", lambda g: 3 * g), ("b", lambda g: g)], 2: [(1, lambda g: g), ("a", lambda g: g)]}
    >>> leaf_gradients(nodes, 2, np.array([1.0, 2.0]))
    {'a': array([4., 8.]), 'b': array([1., 2.])}
    """
    grads: dict[int | str, Array] = {result: g}
    for number in sorted(nodes, reverse=True):
        if number in grads:
            g = grads.pop(number)
            for edge, rule in nodes[number]:
                d = rule(g)
                grads[edge] = grads[edge] + d if edge in grads else d
    return _leaves(grads)


def mean_gradient(g: Array, shape: Shape, axis: int) -> Array:
    """Return the gradient of x for y = x.mean(axis), where g is the gradient of y.

    x has the given shape, and y lacks the dimension `axis` of it. Return an array of the shape of x.

    >>> mean_gradient(np.array([6.0, 9.0]), (2, 3), 1)
    array([[2., 2., 2.],
           [3., 3., 3.]])
    """
    return np.broadcast_to(np.expand_dims(g, axis), shape) / shape[axis]


def stale_nodes(saved: Saved, writes: list[tuple[int, str]]) -> tuple[str, ...]:
    """Return the names of the nodes that have saved an array which was changed later.

    saved has for each node its number, and the names of the arrays that it saved. `writes` has for each change in
    place its number, and the name of the array. Nodes and changes take their numbers from one clock. Return each node
    once, in the order of `saved`.

    >>> stale_nodes({"mul": (2, ["w", "x"]), "exp": (5, ["y"])}, [(1, "x"), (4, "w")])
    ('mul',)
    """
    return tuple(
        node for node, (number, arrays) in saved.items() if any(n > number and array in arrays for n, array in writes)
    )


# ---- calls ----------------------------------------------------------------------------------------------------------


def _same(g: Array) -> Array:
    """g -> g"""
    return g


def _double(g: Array) -> Array:
    """g -> 2 * g"""
    return 2 * g


def _scale(g: Array) -> Array:
    """g -> g * [1, 10]"""
    return g * np.array([1.0, 10.0])


_CHAIN: Nodes = {1: [("x", _double)], 2: [(1, _scale)]}
_TWICE: Nodes = {1: [("x", _double), ("x", _double)], 2: [(1, _same), ("x", _same)]}
# Both inputs of node 3 get the same array.
_SHARED: Nodes = {1: [("x", _same)], 2: [("x", _same), ("y", _same)], 3: [(1, _same), (2, _same)]}
# Node 1 is used by nodes 2 and 4, and node 4 comes first in the dict.
_ORDER: Nodes = {4: [(1, _double), (3, _same)], 1: [("x", _double)], 2: [(1, _scale)], 3: [(2, _same), ("y", _same)]}
_OTHERS: Nodes = {1: [("x", _double)], 2: [("z", _same)], 3: [(1, _same)], 4: [(3, _double), ("z", _same)]}


def _numbers(*shape: int) -> Array:
    """Return an array of whole numbers that differ, some of them negative."""
    size = int(np.prod(shape))
    return (np.arange(size) * 7 % 11 - 4.0).reshape(shape)


_G = np.array([1.0, -2.0])


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _pass(
    nodes: Nodes, result: int, g: Array, order: list[int], add: Callable[[Array, Array], Array]
) -> dict[int | str, Array]:
    grads: dict[int | str, Array] = {result: g}
    for number in order:
        if number in grads:
            g = grads.pop(number)
            for edge, rule in nodes[number]:
                d = rule(g)
                grads[edge] = add(grads[edge], d) if edge in grads else d
    return grads


def _leaves(grads: dict[int | str, Array]) -> dict[str, Array]:
    return {edge: g for edge, g in grads.items() if isinstance(edge, str)}


def _overwritten(nodes: Nodes, result: int, g: Array) -> dict[str, Array]:
    return _leaves(_pass(nodes, result, g, sorted(nodes, reverse=True), lambda old, new: new))


def _in_place(nodes: Nodes, result: int, g: Array) -> dict[str, Array]:
    def add(old: Array, new: Array) -> Array:
        old += new
        return old

    return _leaves(_pass(nodes, result, g, sorted(nodes, reverse=True), add))


def _oldest_first(nodes: Nodes, result: int, g: Array) -> dict[str, Array]:
    return _leaves(_pass(nodes, result, g, sorted(nodes), np.add))


def _as_listed(nodes: Nodes, result: int, g: Array) -> dict[str, Array]:
    return _leaves(_pass(nodes, result, g, list(reversed(nodes)), np.add))


def _every_node(nodes: Nodes, result: int, g: Array) -> dict[str, Array]:
    grads: dict[int | str, Array] = {result: g}
    for number in sorted(nodes, reverse=True):
        arrived = grads.pop(number, g)
        for edge, rule in nodes[number]:
            grads[edge] = grads.get(edge, 0) + rule(arrived)
    return _leaves(grads)


def _nodes_kept(nodes: Nodes, result: int, g: Array) -> dict[int | str, Array]:
    grads: dict[int | str, Array] = {result: g}
    for number in sorted(nodes, reverse=True):
        if number in grads:
            for edge, rule in nodes[number]:
                d = rule(grads[number])
                grads[edge] = grads[edge] + d if edge in grads else d
    return grads


def _not_divided(g: Array, shape: Shape, axis: int) -> Array:
    return np.broadcast_to(np.expand_dims(g, axis), shape)


def _divided_by_all(g: Array, shape: Shape, axis: int) -> Array:
    return np.broadcast_to(np.expand_dims(g, axis), shape) / np.prod(shape)


def _not_expanded(g: Array, shape: Shape, axis: int) -> Array:
    return np.broadcast_to(g, shape) / shape[axis]


def _not_repeated(g: Array, shape: Shape, axis: int) -> Array:
    return np.expand_dims(g, axis) / shape[axis]


def _last_axis(g: Array, shape: Shape, axis: int) -> Array:
    return np.broadcast_to(g[..., None], shape) / shape[-1]


def _any_write(saved: Saved, writes: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(node for node, (_, arrays) in saved.items() if any(array in arrays for _, array in writes))


def _any_array(saved: Saved, writes: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(node for node, (number, _) in saved.items() if any(n > number for n, _ in writes))


def _first_write(saved: Saved, writes: list[tuple[int, str]]) -> tuple[str, ...]:
    first = {array: n for n, array in reversed(writes)}
    return tuple(node for node, (number, arrays) in saved.items() if any(first.get(a, 0) > number for a in arrays))


def _first_array(saved: Saved, writes: list[tuple[int, str]]) -> tuple[str, ...]:
    last = {array: n for n, array in writes}
    return tuple(node for node, (number, arrays) in saved.items() if last.get(arrays[0], 0) > number)


def _earlier(saved: Saved, writes: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(
        node for node, (number, arrays) in saved.items() if any(n < number and array in arrays for n, array in writes)
    )


def _repeated(saved: Saved, writes: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(
        node for node, (number, arrays) in saved.items() for n, array in writes if n > number and array in arrays
    )


CHAPTER = Chapter(
    3,
    "the engine, read line by line",
    "docs/learn/3-the-engine-read-line-by-line.md",
    (
        Exercise(
            leaf_gradients,
            ((_CHAIN, 2, _G), (_TWICE, 2, _G), (_SHARED, 3, _G), (_ORDER, 4, _G), (_OTHERS, 3, _G)),
            "Keep a dict of the gradients that have arrived. Take the nodes from the largest number to the smallest.",
            (
                Mistake(_oldest_first, "This goes from the oldest node to the newest. Begin with the largest number."),
                Mistake(_as_listed, "The dict has the nodes in any order. Sort their numbers, the largest first."),
                Mistake(_overwritten, "An edge that is used twice gets two gradients. Add the second to the first."),
                Mistake(_in_place, "A rule may return the array that it got, so += changes the gradient of another "
                                   "edge, too. Make a new array: a + b."),
                Mistake(_every_node, "Some nodes do not belong to the result. Skip a node that has received nothing."),
                Mistake(_nodes_kept, "The result must have leaves only, whose names are text. Take out the nodes."),
            ),
        ),
        Exercise(
            mean_gradient,
            (
                # Equal sizes first: there a wrong alignment is a wrong value, which has a hint, and not an error.
                (_numbers(3), (3, 3), 1), (_numbers(3, 3), (3, 3, 3), 1), (_numbers(2), (2, 3), 1),
                (_numbers(3), (2, 3), 0), (_numbers(2, 4), (2, 3, 4), 1), (np.array(6.0), (3,), 0),
                (_numbers(2, 3), (2, 3, 4), -1),
            ),
            "Each entry of x is used once, with the slope 1 / n for a mean of n entries. Put the dimension back into "
            "g, then repeat it.",
            (
                Mistake(_not_divided, "This is the gradient of a sum. An entry of x has a share of 1 / n in its mean."),
                Mistake(_divided_by_all, "Each mean has shape[axis] entries, not all entries of x. Divide by that."),
                Mistake(_not_expanded, "g lacks the dimension `axis`. Put it back before you repeat, "
                                       "or broadcasting aligns g at the right."),
                Mistake(_not_repeated, "The gradient must have the shape of x: repeat g along the axis."),
                Mistake(_last_axis, "This puts the dimension at the end. Put it at the place `axis`."),
            ),
        ),
        Exercise(
            stale_nodes,
            (
                ({"mul": (2, ["w", "x"]), "exp": (5, ["y"])}, [(1, "x"), (4, "w")]),
                ({"mul": (1, ["w", "x"]), "exp": (3, ["y"])}, [(2, "y"), (4, "x")]),
                ({"mul": (2, ["w", "x"]), "tanh": (4, ["w"]), "exp": (6, ["x"])}, [(1, "w"), (3, "x"), (5, "w")]),
                ({"add": (1, []), "exp": (2, ["y"])}, [(3, "y")]),
                ({"mul": (1, ["w", "x"])}, []),
            ),
            "A node is stale if one of its arrays has a change with a larger number than the node.",
            (
                Mistake(_any_write, "A change before the node was made does no harm: the node saved the new values. "
                                    "Compare the numbers."),
                Mistake(_any_array, "Only a change of an array that the node has saved counts."),
                Mistake(_earlier, "A larger number is later. Look for changes after the node was made."),
                Mistake(_first_write, "An array may be changed several times. Its last change decides."),
                Mistake(_repeated, "A node whose arrays have several later changes must be named once."),
                Mistake(_first_array, "A node may save several arrays, or none. Look at each of them."),
            ),
        ),
    ),
)
