"""The graph that ops record: values, nodes and edges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

from ..backends.registry import Array
from . import version_counter
from .retained_grad import RetainHook
from .views import ViewInfo

__all__ = [
    "AccumulateGrad", "Edge", "Node", "Output", "Plan", "RecomputedValues", "RestorableValues", "Rule", "Value",
    "Variable", "attach", "new_node", "topological_order", "wrap",
]  # fmt: skip

Value: TypeAlias = Any
"""The type of the values that a rule computes on: raw arrays, or Variables under ``create_graph``."""
Rule: TypeAlias = (
    Callable[[Value], Value]
    | Callable[[Value, Any], Value]
    | Callable[[Value, Any, Any], Value]
    | Callable[[Value, Any, Any, Any], Value]
    | Callable[[Value, Any, Any, Any, Any], Value]
    | Callable[[Value, Any, Any, Any, Any, Any], Value]
    | Callable[[Value, Any, Any, Any, Any, Any, Any], Value]
    | Callable[[Value, Any, Any, Any, Any, Any, Any, Any], Value]
)
"""A gradient rule. There is one alternative for each number of arguments, so that type checkers accept lambdas."""


class Variable:
    """A differentiable value: a raw array and its place in the graph. Tensor, its subclass, adds the methods.

    array: the raw array.
    accumulated_grad: the gradient that ``backward`` has accumulated, a Variable or None.
    node: the Node that made the value; None for a leaf.
    tracked: whether gradients flow through the value.
    hooks: functions that see the gradient of a leaf; the hooks of other values are on their node.
    retain_hook: the hook that fills ``grad`` of a value that is not a leaf, after ``retain_grad()``; else None.
    view_info: for a view, its base and the view ops that lead to it; None if no view op made it.
    """

    tensor_type: ClassVar[type[Variable]]
    """The class of the results of ops, which :class:`tensorlite.Tensor` sets to itself when it is defined."""

    array: Array
    accumulated_grad: Any = None
    node: Node | None = None
    tracked: bool = False
    hooks: list[Callable[[Any], Any]] | None = None
    retain_hook: RetainHook | None = None
    view_info: ViewInfo | None = None

    __array_ufunc__: Any = None  # makes `ndarray * Variable` call Variable.__rmul__


Variable.tensor_type = Variable
_new = object.__new__


class Node:
    """One recorded call of an op.

    plan: the data that all nodes of the op share for this choice of differentiated inputs.
    edges: for each differentiated input the Node that made it, or the Variable itself if it is a leaf.
    shapes: the shapes of these inputs.
    saved: the values that the gradient rules name; None after a backward pass has freed them.
    seq: the tick at which the node was made. Every edge leads to an older node, so this is a topological order.
    hooks: functions that see the gradient of the node's result.
    dtypes: the dtypes of these inputs, if the op converted them or is not built in; else None.
    outputs: shapes and dtypes of the results, if the op has several; else empty.
    where: the line of user code that called the op, under ``detect_anomaly()``.
    infinite: the places of infinities that the op made, as a mask, under ``detect_anomaly()``; else None.
    replaced: whether ``Tensor.data`` gave the result another array.

    Edges never point at intermediate Variables, and a node never holds its own result as a Variable. So there are no
    reference cycles, and memory is freed as soon as the backward pass has visited the node.
    """

    hooks: list[Callable[[Any], Any]] | None = None
    dtypes: list[Any] | None = None
    outputs: Sequence[tuple[tuple[int, ...], Any]] = ()
    where: str | None = None
    infinite: Array | None = None
    replaced: bool = False

    plan: Plan
    edges: list[Edge]
    shapes: list[tuple[int, ...]]
    saved: tuple[Any, ...] | RecomputedValues | RestorableValues | None
    seq: int

    @property
    def name(self) -> str:
        """Return the name of the op that made this node."""
        return self.plan.op_name

    @property
    def next_functions(self) -> tuple[tuple[Node | AccumulateGrad, int], ...]:
        """Return where the gradients go: a pair for each differentiated input, as PyTorch's ``next_functions`` has it.

        The first of a pair is the node that made the input, or an :class:`AccumulateGrad` if the input is a leaf. The
        second is the index of the input among the results of that node. Inputs without a gradient are left out.
        """
        return tuple(
            (edge.edges[0], edge.index) if isinstance(edge, Output)  # type: ignore[misc]  # its edge is a Node
            else (edge, 0) if isinstance(edge, Node) else (AccumulateGrad(edge), 0)
            for edge in self.edges
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self}: a node of the graph cannot be copied or pickled. Use detach() on its result.")


class AccumulateGrad:
    """The end of the graph at a leaf, in ``next_functions``. Two of one leaf are equal.

    variable: the leaf.
    """

    name = "AccumulateGrad"
    next_functions: tuple[()] = ()

    def __init__(self, variable: Variable) -> None:
        self.variable = variable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccumulateGrad) and other.variable is self.variable

    def __hash__(self) -> int:
        return id(self.variable)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Output(Node):
    """The node of one of several results of an op. It passes its gradient on to the node that the results share."""

    def __init__(self, parent: Node, index: int) -> None:
        self.plan, self.edges, self.shapes, self.saved = parent.plan, [parent], [parent.outputs[index][0]], ()
        self.seq = version_counter.clock()
        self.index = index

    @property
    def next_functions(self) -> tuple[tuple[Node | AccumulateGrad, int], ...]:
        """Return those of the node that the results share."""
        return self.edges[0].next_functions  # type: ignore[union-attr]  # its edge is a Node


Edge: TypeAlias = Node | Variable


@dataclass(slots=True, eq=False)
class Plan:
    """The data that all nodes of one op share, for one choice of differentiated inputs.

    op_name: the name of the op.
    needs: the positions of the differentiated inputs among the op's arguments.
    input_names: the names of those inputs.
    saved_positions: the positions of the saved values among the arguments, the result and the auxiliary results.
    saved_slice: the same positions as a slice, if they are adjacent; else None.
    saved_names: their names.
    saved_edges: where each saved value sits in the graph: an index into ``node.edges``, -1 for the result, None for a
        constant.
    rules: for each differentiated input its gradient rule, and the places of the rule's arguments among the saved
        values (-1 for the shape of the input, -2 for its dtype before autocast). Empty if there is a ``backward``.
    backward: one function on raw arrays for all gradients, or None; and the places of its arguments among the saved
        values (None for ``needs``). takes_given_dtypes: whether its last argument is ``node.dtypes``.
    composite: the op in plain ops, for gradients of ``backward``; and the places of the op's inputs among the saved
        values.
    is_view: whether the result may share memory with the first argument.
    built_in: whether the op belongs to this library.
    casts_gradients: whether a gradient is converted to the dtype that its input had before the op converted it.
    find_narrow: what finds the dtype, float16 or bfloat16, that is converted to float32 for the rules, or None.
    op: the definition of the op, an ``Op``; None for a node that the engine itself makes.
    """

    op_name: str
    needs: tuple[int, ...]
    input_names: list[str]
    saved_positions: list[int] = field(default_factory=list)
    saved_slice: slice | None = None
    saved_names: list[str] = field(default_factory=list)
    saved_edges: list[int | None] = field(default_factory=list)
    rules: list[tuple[Rule, list[int]]] = field(default_factory=list)
    backward: Callable[..., Any] | None = None
    backward_places: list[int | None] = field(default_factory=list)
    takes_given_dtypes: bool = False
    composite: Callable[..., Any] | None = None
    composite_places: list[int] = field(default_factory=list)
    is_view: bool = False
    built_in: bool = True
    casts_gradients: bool = True
    find_narrow: Callable[[Collection[Any]], Any] | None = None
    op: Any = None


class RecomputedValues:
    """A placeholder for saved values that are computed again when they are needed; see ``checkpointing``."""

    def fill(self) -> None:
        """Compute the saved values of all nodes that hold this placeholder, and store them in the nodes."""
        raise NotImplementedError


class RestorableValues:
    """Saved values of one node, some of which are computed when they are needed; see ``compact_values``."""

    __slots__ = ()

    def restore(self) -> tuple[Any, ...]:
        """Return the saved values. Raises VersionError if an array was changed in place from which one is computed."""
        raise NotImplementedError


def new_node(
    plan: Plan, edges: list[Edge], shapes: list[tuple[int, ...]],
    saved: tuple[Any, ...] | RecomputedValues | None,
) -> Node:  # fmt: skip
    """Return a new Node. A recorded op makes one, and a call of this takes half as long as one of ``__init__``."""
    node = _new(Node)
    node.plan, node.edges, node.shapes, node.saved = plan, edges, shapes, saved
    node.seq = version_counter.clock()
    return node


def wrap(array: Array) -> Any:
    """Return a Tensor without a graph around a raw array, which is not copied."""
    result = _new(Variable.tensor_type)
    result.array = array
    return result


def attach(array: Array, node: Node) -> Any:
    """Return a Tensor around a raw array at the place of ``node`` in the graph."""
    result = wrap(array)
    result.node, result.tracked = node, True
    return result


def topological_order(roots: Collection[Edge], oldest: int = 0) -> list[Node]:
    """Return all nodes that lead to the roots, from the newest to the oldest.

    oldest: a tick; nodes that were made earlier are left out.
    """
    seen = {e for e in roots if isinstance(e, Node)}
    stack = list(seen)
    while stack:
        for e in stack.pop().edges:
            if isinstance(e, Node) and e.seq >= oldest and e not in seen:
                seen.add(e)
                stack.append(e)
    return sorted(seen, key=attrgetter("seq"), reverse=True)
