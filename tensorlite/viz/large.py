"""The overview of a graph that is too large for a page: modules are single boxes, and there are no values."""

from __future__ import annotations

from typing import Any

from .backward import Trace
from .data import DataWriter
from .folding import folded
from .forward import Known
from .graph import Graph
from .labels import Labels

__all__ = ["MAX_SIZE", "SHOWN", "is_too_large", "overview"]

MAX_SIZE = 5_000
"""The largest size of a graph for which a page has values and steps. It then has at most about 8 MB, without checks."""
SHOWN = 2_000
"""The largest number of boxes of an overview."""
_HINT = "Explore the output of a part of the model, or a shorter loop, to see values and steps."


def is_too_large(graph: Graph) -> bool:
    """Return whether a graph has too many boxes for a page."""
    return graph.size > MAX_SIZE


def overview(graph: Graph, labels: Labels, notes: list[str]) -> dict[str, Any]:
    """Return the data of a graph with modules as boxes that tell how many nodes they contain.

    If that has too many boxes, too, the newest of them are left.
    """
    writer = DataWriter(graph, Known(), labels)
    for vertex in graph.vertices:
        vertex.saved = ()
    whole = writer.data(Trace(), set(), [], notes)
    total = len(whole["nodes"])
    sizes = _sizes(whole)
    data = folded(whole, SHOWN)
    for node in data["nodes"]:
        node["why_no_value"] = "The overview has no values."
        if node["kind"] == "module":
            count = sizes[node["id"] - total]
            node |= {"doc": f"{count:,} nodes.", "count": count}
    kept = sorted(data["nodes"], key=lambda node: node["id"] if node["kind"] != "module" else -1)[-SHOWN:]
    kept = [node for node in data["nodes"] if node in kept] if len(kept) < len(data["nodes"]) else data["nodes"]
    first = f"The graph has {total:,} nodes and {len(graph.arrows):,} edges, which are too many for a page with values."
    if any(node["kind"] == "module" for node in kept):
        first += " So this is an overview: each module is one box."
    if len(kept) < len(data["nodes"]):
        first += f" Of its boxes, the newest {len(kept):,} are shown."
    return _renumbered({**data, "nodes": kept, "notes": [f"{first} {_HINT}", *data["notes"]]})


def _sizes(data: dict[str, Any]) -> dict[int, int]:
    """Return the number of nodes in each module, those of inner modules included."""
    parents = {module["id"]: module["parent"] for module in data["modules"]}
    sizes = dict.fromkeys(parents, 0)
    for node in data["nodes"]:
        module = node["module"]
        while module is not None:
            sizes[module] += 1
            module = parents[module]
    return sizes


def _renumbered(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data with the places of nodes, edges and modules as their ids."""
    nodes = {node["id"]: k for k, node in enumerate(data["nodes"])}
    modules = {module["id"]: k for k, module in enumerate(data["modules"])}
    edges = [e for e in data["edges"] if e["from"] in nodes and e["to"] in nodes]
    return {
        **data,
        "modules": [{**m, "id": modules[m["id"]], "parent": modules.get(m["parent"])} for m in data["modules"]],
        "nodes": [
            {**n, "id": nodes[n["id"]], "module": modules.get(n["module"]), "of": nodes.get(n["of"]), "saved": []}
            for n in data["nodes"]
        ],
        "edges": [{**e, "id": k, "from": nodes[e["from"]], "to": nodes[e["to"]]} for k, e in enumerate(edges)],
        "forward": list(range(len(nodes))),
    }
