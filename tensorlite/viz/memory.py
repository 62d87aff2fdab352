"""The memory that a backward pass frees, step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ..autograd.graph import Node
from ..autograd.version_counter import base_array
from ..backends.registry import BACKENDS
from .backward import Step
from .graph import Graph

__all__ = ["freed_values", "held_elsewhere"]


def held_elsewhere(nodes: Iterable[Node]) -> set[int]:
    """Return the ids of the arrays that own saved memory which more than the graph holds.

    Such an array has more references than the saved values and the views among them. Call this before anything else
    refers to them.
    """
    saved = [node.saved for node in nodes if isinstance(node.saved, tuple)]
    counts: dict[int, int] = {}
    views: dict[int, set[int]] = {}
    owners: dict[int, list[Any]] = {}
    places = [(values, k) for values in saved for k in range(len(values)) if type(values[k]) in BACKENDS]
    for values, k in places:
        owner = base_array(values[k])
        counts[id(values[k])] = counts.get(id(values[k]), 0) + 1
        owners[id(owner)] = [owner]
        if owner is not values[k]:
            views.setdefault(id(owner), set()).add(id(values[k]))
        del owner  # because references are counted below
    known = {key: 1 + counts.get(key, 0) + len(views.get(key, ())) for key in owners}
    held = {key for key, one in owners.items() if _references(one, 0) > known[key]}
    for values, k in places:
        if id(values[k]) not in owners and _references(values, k) > counts[id(values[k])]:
            held.add(id(base_array(values[k])))
    return held


def _references(values: Sequence[Any], k: int) -> int:
    """Return how many objects refer to an entry of a list, the list included."""
    return sys.getrefcount(values[k]) - _EXTRA


_EXTRA = 0
_EXTRA = _references([object()], 0) - 1  # the reference that the call itself makes


def freed_values(graph: Graph, steps: list[Step], held: set[int]) -> dict[int, list[tuple[str, int]]]:
    """Return the names and bytes of the saved values that each step frees, by vertex id.

    Memory that several values share is freed once, by the last step that holds it. Memory of leaves is not freed.
    held: the ids of other arrays whose memory is not freed; see :func:`held_elsewhere`.
    """
    held = held | {id(base_array(v.leaf.array)) for v in graph.leaves if v.leaf is not None}
    visited = {step.vertex.id for step in steps if step.error is None}
    last: dict[int, int] = {}
    for vertex in graph.ops:
        for value in vertex.saved or ():
            if type(value) in BACKENDS and vertex.id not in visited:
                held.add(id(base_array(value)))
    for step in steps:
        for value in step.vertex.saved or ():
            if type(value) in BACKENDS:
                last[id(base_array(value))] = step.vertex.id
    freed: dict[int, list[tuple[str, int]]] = {}
    for step in steps:
        node = step.vertex.node
        seen: set[int] = set()
        for k, value in enumerate(step.vertex.saved or ()):
            if type(value) not in BACKENDS or node is None:
                continue
            memory = base_array(value)
            if id(memory) not in held | seen and last[id(memory)] == step.vertex.id:
                seen.add(id(memory))
                freed.setdefault(step.vertex.id, []).append((node.plan.saved_names[k], int(memory.nbytes)))
    return freed
