"""Fold modules of the explorer's data: all boxes of a module become one."""

from __future__ import annotations

from typing import Any

__all__ = ["folded"]


def folded(data: dict[str, Any], max_edges: int) -> dict[str, Any]:
    """Return the data with as many modules folded as it takes for at most this many edges, the smallest modules first.

    A module's nodes become one node of the kind ``"module"``. Edges inside it are left out, and of several edges
    between two boxes one is left. Steps of the backward pass that lead inside are left out. It is the data itself if
    that has few edges, and may still have more edges if they are outside of modules.
    """
    if len(data["edges"]) <= max_edges:
        return data
    parents = {module["id"]: module["parent"] for module in data["modules"]}
    sizes = dict.fromkeys(parents, 0)
    for node in data["nodes"]:
        for module in _chain(parents, node["module"]):
            sizes[module] += 1
    fold: set[int] = set()
    order = sorted(sizes, key=lambda module: (sizes[module], -module))
    best = data
    step = max(1, len(order) // 50)  # so that a graph of thousands of modules is not folded thousands of times
    for i in range(0, len(order), step):
        fold |= {m for m in order[i : i + step] if parents[m] is not None}
        best = _fold(data, parents, fold)
        if len(best["edges"]) <= max_edges:
            return best
    return _fold(data, parents, set(parents)) if parents else best


def _chain(parents: dict[int, int | None], module: int | None) -> list[int]:
    """Return a module and those around it, innermost first."""
    found = []
    while module is not None:
        found.append(module)
        module = parents[module]
    return found


def _fold(data: dict[str, Any], parents: dict[int, int | None], fold: set[int]) -> dict[str, Any]:
    """Return the data with these modules as single boxes."""
    box_of: dict[int, int] = {}
    nodes: dict[int, dict[str, Any]] = {}
    first = 1 + max((node["id"] for node in data["nodes"]), default=-1)
    for node in data["nodes"]:
        around = [m for m in _chain(parents, node["module"]) if m in fold]
        if not around:
            box_of[node["id"]] = node["id"]
            nodes[node["id"]] = node
            continue
        outermost = around[-1]
        module = data["modules"][outermost]
        box = box_of[node["id"]] = first + outermost
        nodes[box] = {
            **node, "id": box, "kind": "module", "op": module["type"], "name": module["name"], "module":
            parents[outermost], "root": node["root"] or nodes.get(box, node)["root"], "saved": [],
        }  # the shape is that of the newest node
    edges: dict[tuple[int, int], dict[str, Any]] = {}
    for edge in data["edges"]:
        ends = box_of[edge["from"]], box_of[edge["to"]]
        if ends[0] != ends[1]:
            plain = ends == (edge["from"], edge["to"])
            new = edge if plain else {**edge, "from": ends[0], "to": ends[1], "argument": ""}
            edges.setdefault((*ends, edge["id"]) if plain else ends, new)  # type: ignore[arg-type]
    kept = {edge["id"] for edge in edges.values() if edge["argument"]}
    backward = [
        {**step, "inputs": [entry for entry in step["inputs"] if entry["edge"] in kept]} for step in data["backward"]
    ]
    used = {m for node in nodes.values() for m in _chain(parents, node["module"])}
    return {
        **data, "nodes": list(nodes.values()), "edges": list(edges.values()), "backward": backward,
        "modules": [module for module in data["modules"] if module["id"] in used],
    }  # fmt: skip
