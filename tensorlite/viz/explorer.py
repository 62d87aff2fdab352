"""The explorer: a graph, its forward values and its backward pass as data, and what shows them."""

from __future__ import annotations

import json
import os
from typing import Any

from ..backends.registry import BACKENDS
from .backward import trace_backward
from .data import DataWriter
from .forward import known_results
from .graph import build_graph

__all__ = ["Explorer", "explore"]


class Explorer:
    """A picture of a graph that steps through its backward pass.

    data: a dict that JSON can hold; see :mod:`tensorlite.viz`.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def json(self) -> str:
        """Return the data as JSON."""
        return json.dumps(self.data, separators=(",", ":"), allow_nan=False)


def explore(
    what: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    model: Any = None,
    check: bool = False,
    order: int = 1,
    format: str | None = None,
) -> Any:
    """Return an :class:`Explorer` of the graph of a tensor."""
    graph = build_graph([what])
    known = known_results(graph, [what])
    seed = BACKENDS[type(what.array)].ones_like(what.array)
    trace = trace_backward(graph, {graph.roots[0]: seed})
    return Explorer(DataWriter(graph, known, trace).data("result"))
