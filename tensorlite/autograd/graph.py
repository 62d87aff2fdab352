"""The graph that ops record: values, nodes and edges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

from ..backends.registry import Array
from . import version_counter
from .views import ViewInfo

__all__ = ["Edge", "Node", "Output", "Plan", "RecomputedValues", "Rule", "Value", "Variable", "attach",
           "topological_order", "wrap"]  # fmt: skip

Value: TypeAlias = Any
"""What a rule computes on: raw arrays, or Variables under ``create_graph``."""
Rule: TypeAlias = (
    Callable[[Value], Value]
    | Callable[[Value, Any], Value]
    | Callable[[Value, Any, Any], Value]
    | Callable[[Value, Any, Any, Any], Value]
    | Callable[[Value, Any, Any, Any, Any], Value]
    | Callable[[Value, Any, Any, Any, Any, Any], Value]
    | Callable[[Value, Any, Any, Any, Any, Any, Any], Value]
    | Callable[..., Value]
)
"""A gradient rule. One alternative for each number of arguments, so that a type checker knows those of a lambda."""


class Variable:
    """A differentiable value: a raw array and its place in the graph. Tensor adds the methods.

    array: the raw array.
    grad: what ``backward`` has accumulated here, or None.
    node: the Node that made it; None for a leaf.
    tracked: whether gradients flow through it.
    view_info: for a view, its base and the view ops that lead to it; None for what no view op made.
    """

    tensor_type: ClassVar[type[Variable]]
    """What ops return. :class:`tensorlite.Tensor` puts itself here, once."""

    array: Array
    grad: Any = None
    node: Node | None = None
    tracked: bool = False
    hooks: list[Callable[[Any], Any]] | None = None
    view_info: ViewInfo | None = None

    __array_ufunc__ = None  # so that `ndarray * Variable` is left to Variable.__rmul__


Variable.tensor_type = Variable


class Node:
    """One recorded call of an op.

    edges: for each differentiated input the Node that made it, or the Variable itself if it is a leaf. Edges never
    point at intermediate Variables, and a node never holds its own output as a Variable: there is no reference cycle,
    and memory goes back as soon as the sweep has passed.
    """

    hooks: list[Callable[[Any], Any]] | None = None
    dtypes: list[Any] | None = None  # of the inputs, only if the op had to convert them, or is a user's
    outputs: Sequence[tuple[tuple[int, ...], Any]] = ()  # shapes and dtypes, only if the op has several results
    where: str | None = None  # the line of user code, under detect_anomaly()

    def __init__(
        self, plan: Plan, edges: list[Edge], shapes: list[tuple[int, ...]], saved: list[Any] | RecomputedValues | None
    ) -> None:
        self.plan = plan
        self.edges = edges
        self.shapes = shapes
        self.saved = saved
        self.seq = version_counter.clock()

    @property
    def name(self) -> str:
        """The name of the op that made this node."""
        return self.plan.op_name

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Output(Node):
    """One result of an op that has several: it hands its gradient to the node that they share."""

    def __init__(self, parent: Node, index: int) -> None:
        super().__init__(parent.plan, [parent], [parent.outputs[index][0]], [])
        self.index = index


Edge: TypeAlias = Node | Variable


@dataclass(slots=True, eq=False)
class Plan:
    """What the nodes of one op have in common, for one choice of differentiated inputs: its rules, and what they need.

    op_name: the name of the op.
    needs: the positions of the differentiated inputs among the op's arguments.
    input_names: the names of those inputs.
    saved_positions: which values a node saves: positions among the arguments, the result and the auxiliary results.
    saved_names: their names.
    saved_edges: where each saved value sits in the graph: an index into ``node.edges``, -1 for the result, None for a
        constant.
    rules: for each differentiated input its gradient rule, and the places of the rule's arguments among the saved
        values (-1 for the shape of the input). Empty if there is a ``backward``.
    backward: one function on raw arrays for all gradients, or None; and the places of its arguments among the saved
        values (None for ``needs``).
    composite: the op in plain ops, for gradients of ``backward``; and the places of the op's inputs among the saved
        values.
    is_view: whether the result may share memory with the first argument.
    built_in: whether the op is one of this library's.
    casts_gradients: whether a gradient is converted to the dtype that its input had before the op converted it.
    """

    op_name: str
    needs: tuple[int, ...]
    input_names: list[str]
    saved_positions: list[int] = field(default_factory=list)
    saved_names: list[str] = field(default_factory=list)
    saved_edges: list[int | None] = field(default_factory=list)
    rules: list[tuple[Rule, list[int]]] = field(default_factory=list)
    backward: Callable[..., Any] | None = None
    backward_places: list[int | None] = field(default_factory=list)
    composite: Callable[..., Any] | None = None
    composite_places: list[int] = field(default_factory=list)
    is_view: bool = False
    built_in: bool = True
    casts_gradients: bool = True


class RecomputedValues:
    """Stands for the saved values of nodes whose forward will be computed again; see :func:`checkpoint`."""

    def fill(self) -> None:
        """Give every node that this object stands for its saved values back."""
        raise NotImplementedError


def wrap(array: Array) -> Any:
    """A Tensor with no history around a raw array, which is not copied."""
    result = object.__new__(Variable.tensor_type)
    result.array = array
    return result


def attach(array: Array, node: Node) -> Any:
    """A Tensor around a raw array that stands where ``node`` says in the graph."""
    result = wrap(array)
    result.node, result.tracked = node, True
    return result


def topological_order(roots: Collection[Edge], oldest: int = 0) -> list[Node]:
    """All nodes that lead to the roots, newest first, as far back as tick ``oldest``. Creation order is topological."""
    seen = {e for e in roots if isinstance(e, Node)}
    stack = list(seen)
    while stack:
        for e in stack.pop().edges:
            if isinstance(e, Node) and e.seq >= oldest and e not in seen:
                seen.add(e)
                stack.append(e)
    return sorted(seen, key=attrgetter("seq"), reverse=True)
