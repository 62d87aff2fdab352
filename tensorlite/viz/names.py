"""Names for the boxes of a graph: of variables, parameters and modules.

A node of a graph knows its op and its inputs, but not the variable that holds its result, nor the module that called
it. A recording knows the module. Without one, the module of an op is inferred: an op that uses a parameter belongs to
the module of that parameter. Any other op belongs to the innermost module that contains the nearest such ops before
and after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..autograd.graph import Edge, Node, Output, Variable
from ..autograd.version_counter import base_array
from ..backends.registry import Array
from ..nn.module import Module
from ..tensors.tensor import Tensor
from .module_tree import ModuleTree
from .op_recording import ModuleCall, module_trees, recording
from .variables import found_in

__all__ = ["Names", "find_names"]


@dataclass(eq=False)
class _Box:
    """One call of a module in the picture. number: 1 for the first call of the module, 2 for the second."""

    tree: ModuleTree
    path: str
    number: int
    parent: _Box | None
    id: int = -1


@dataclass(eq=False)
class Names:
    """The names of the boxes of a graph, and the modules that they belong to.

    modules: the calls of modules as dicts with ``id``, ``name``, ``type`` and ``parent`` (an id or None), parents
    before children. The name of the outermost module is "". A second call is named ``layer (call 2)``.
    """

    modules: list[dict[str, Any]] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)
    _arrays: dict[int, str] = field(default_factory=dict)
    _memory: dict[int, str] = field(default_factory=dict)  # by the id of the array that owns it
    _boxes: dict[int, _Box] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)  # what has an id above, so that no other object gets the id

    def name(self, place: Edge) -> str:
        """Return the name of a leaf, or of a variable that holds a node's result. It is "" if there is none."""
        return self._names.get(id(place), "")

    def module(self, place: Edge) -> int | None:
        """Return the id of the module that a node or a leaf belongs to, None if it is outside all modules."""
        box = self._boxes.get(id(_op_of(place)))
        return None if box is None else box.id

    def array_name(self, array: Array) -> str:
        """Return the name of a Tensor that holds this raw array, such as an input without a gradient, or "".

        A view of a whole array, such as its reshape, has the name of that array.
        """
        owner = base_array(array)
        whole = self._memory.get(id(owner), "") if owner.nbytes == array.nbytes else ""
        return self._arrays.get(id(array), whole)

    def add_array(self, array: Array, name: str) -> None:
        """Note the name of the Tensor that holds a raw array. The first name of an array counts."""
        self._arrays.setdefault(id(array), name)
        owner = base_array(array)
        if owner.nbytes == array.nbytes:
            self._memory.setdefault(id(owner), name)
            self._kept.append(owner)


def find_names(
    nodes: Iterable[Node],
    *,
    model: Module | None = None,
    variables: Mapping[str, Any] | None = None,
    recording: recording | None = None,
) -> Names:
    """Return the names of the nodes of a graph, and of the leaves that they use.

    nodes: in any order; nodes of single results may be among them.
    model: gives the names of parameters and buffers. Without it, modules that variables hold do.
    variables: by name, the first one wins; see ``variables_of``. recording: that of the forward pass, if there is one.
    """
    every = sorted(nodes, key=lambda node: node.seq)
    ops = [node for node in every if not isinstance(node, Output)]
    held = list(found_in(variables or {}))
    trees = _trees(model, variables or {}, recording)
    boxes = _recorded_boxes(ops, recording)
    boxes |= _inferred_boxes([node for node in ops if id(node) not in boxes], ops, trees, boxes)
    found = {key: box for key, box in boxes.items() if box is not None}
    leaves = _leaves(ops)
    used = [t for t in trees if any(t.tensor_paths(x) for x, _ in leaves)]
    used += [box.tree for box in found.values()]
    several = len({id(t) for t in used}) > 1
    result = Names(_boxes=found, _kept=[every, held, leaves])
    for tree in trees:
        prefix = tree.name if several else ""
        for path, tensor in tree.tensors():
            name = _joined(prefix, path)
            result._names.setdefault(id(tensor), name)
            result.add_array(tensor.array, name)
            result._kept.append((tensor, tensor.array))
    _name_variables(result, held)
    for leaf, uses in leaves:
        if result.name(leaf) and not any(t.tensor_paths(leaf) for t in trees):
            continue  # an input that the program has made, outside of modules
        box = _common([found.get(id(use)) for use in uses])
        if box is not None:
            found[id(leaf)] = box
    result.modules = _listed(ops, found, several)
    return result


def _op_of(place: Any) -> Any:
    """Return the node that several results share, for one of them; anything else unchanged."""
    while isinstance(place, Output):
        place = place.edges[0]
    return place


def _leaves(ops: Sequence[Node]) -> list[tuple[Variable, list[Node]]]:
    """Return each leaf with the nodes that use it."""
    uses: dict[int, tuple[Variable, list[Node]]] = {}
    for node in ops:
        for edge in node.edges:
            if isinstance(edge, Variable):
                uses.setdefault(id(edge), (edge, []))[1].append(node)
    return list(uses.values())


def _trees(model: Module | None, variables: Mapping[str, Any], record: recording | None) -> list[ModuleTree]:
    """Return the trees that name parameters: those of the recording first, because its calls belong to them."""
    trees = [] if record is None else list(record.trees)
    others = module_trees(variables)
    if model is not None:
        others.insert(0, ModuleTree(model, ""))
    for tree in others:
        known = {id(tensor) for t in trees for _, tensor in t.tensors()}
        tensors = tree.tensors()
        if not tensors or any(id(tensor) not in known for _, tensor in tensors):
            trees.append(tree)
    return trees


def _joined(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path


def _name_variables(names: Names, held: list[tuple[str, Tensor | Module]]) -> None:
    """Give tensors that variables hold, and the nodes that made them, the variables' names."""
    outputs: dict[int, dict[int, str]] = {}
    parents: dict[int, Node] = {}
    for name, value in held:
        if not isinstance(value, Tensor):
            continue
        names.add_array(value.array, name)
        node = value.node
        if node is None:
            names._names.setdefault(id(value), name)
            continue
        names._names.setdefault(id(node), name)
        if isinstance(node, Output):
            parent = _op_of(node)
            parents[id(parent)] = parent
            outputs.setdefault(id(parent), {}).setdefault(node.index, name)
    for key, results in outputs.items():
        names._names.setdefault(key, ", ".join(results[i] for i in sorted(results)))
    names._kept.append(parents)


# ---- modules ------------------------------------------------------------------------------------


def _recorded_boxes(ops: Sequence[Node], record: recording | None) -> dict[int, _Box | None]:
    """Return the box of each node that the recording knows, by its id; None for a node outside all modules."""
    if record is None:
        return {}
    by_call: dict[int, _Box] = {}
    counts: dict[int, int] = {}

    def box_of(call: ModuleCall) -> _Box:
        if id(call) not in by_call:
            parent = None if call.parent is None else box_of(call.parent)
            counts[call.module] = counts.get(call.module, 0) + 1
            by_call[id(call)] = _Box(call.tree, call.path, counts[call.module], parent)
        return by_call[id(call)]

    found: dict[int, _Box | None] = {}
    at_tick: dict[int, _Box | None] = {}
    for node in ops:
        known = record.of(node)
        if known is None:
            continue
        box = None if known.call is None else box_of(known.call)
        if box is None and known.of:  # An op of a gradient rule belongs where the op with that rule does.
            box = next((at_tick[tick] for tick in known.of if tick in at_tick), None)
        found[id(node)] = at_tick[node.seq] = box
    return found


def _inferred_boxes(
    missing: Sequence[Node], ops: Sequence[Node], trees: Sequence[ModuleTree], known: Mapping[int, _Box | None]
) -> dict[int, _Box]:
    """Return the boxes of nodes without a record, by their ids, inferred from the parameters that they use."""
    own = _boxes_of_parameters(missing, trees)
    if not own:
        return {}
    placed: dict[int, _Box | None] = {**known, **own}
    before: dict[int, _Box] = {}
    after: dict[int, _Box] = {}
    users: dict[int, list[Node]] = {}
    for node in ops:
        inputs = [_op_of(edge) for edge in node.edges if isinstance(edge, Node)]
        for source in inputs:
            users.setdefault(id(source), []).append(node)
        newest = sorted(inputs, key=lambda n: n.seq, reverse=True)
        box = placed.get(id(node)) or next((before[id(n)] for n in newest if id(n) in before), None)
        if box is not None:
            before[id(node)] = box
    for node in reversed(ops):
        box = placed.get(id(node)) or next((after[id(n)] for n in users.get(id(node), ()) if id(n) in after), None)
        if box is not None:
            after[id(node)] = box
    found = dict(own)
    for node in missing:
        if id(node) not in own:
            around = [before.get(id(node)), after.get(id(node))]
            box = _common(around)
            if box is not None:
                found[id(node)] = box
    return found


def _boxes_of_parameters(nodes: Sequence[Node], trees: Sequence[ModuleTree]) -> dict[int, _Box]:
    """Return the boxes of the nodes that use parameters, by their ids.

    The k-th use of a parameter belongs to the k-th call of its module. The uses of one that several modules hold belong
    to each of them in turn. A module around several others is called as often as the one of them that is called least;
    around a single one it is called once.
    """
    uses: dict[int, int] = {}
    places: dict[int, list[tuple[ModuleTree, str, int]]] = {}
    totals: dict[tuple[int, str], int] = {}
    for node in nodes:
        for edge in dict.fromkeys(e for e in node.edges if isinstance(e, Variable)):
            tree = next((t for t in trees if t.tensor_paths(edge)), None)
            if tree is None:
                continue
            owners = list(dict.fromkeys(tree.parent(path) or "" for path in tree.tensor_paths(edge)))
            number = uses.get(id(edge), 0)
            uses[id(edge)] = number + 1
            owner, call = owners[number % len(owners)], number // len(owners) + 1
            places.setdefault(id(node), []).append((tree, owner, call))
            totals[id(tree), owner] = max(call, totals.get((id(tree), owner), 0))
    by_id = {id(tree): tree for tree in trees}
    inside: dict[tuple[int, str], list[int]] = {}  # how often the modules inside a module are called
    for (tree_id, owner), count in totals.items():
        path = by_id[tree_id].parent(owner)
        while path is not None:
            inside.setdefault((tree_id, path), []).append(count)
            path = by_id[tree_id].parent(path)
    for key, counts in inside.items():
        own = totals.get(key)
        if own is not None:
            counts.append(own)
        totals[key] = min(counts) if len(counts) > 1 else 1

    boxes: dict[tuple[int, str, int], _Box] = {}

    def box_of(tree: ModuleTree, path: str, number: int) -> _Box:
        total = totals[id(tree), path]
        number = min(number, total)
        if (id(tree), path, number) not in boxes:
            outer = tree.parent(path)
            parent = None
            if outer is not None:
                parent = box_of(tree, outer, (number - 1) * totals[id(tree), outer] // total + 1)
            boxes[id(tree), path, number] = _Box(tree, path, number, parent)
        return boxes[id(tree), path, number]

    found: dict[int, _Box] = {}
    for node_id, used in places.items():
        box = _common([box_of(*place) for place in used])
        if box is not None:
            found[node_id] = box
    return found


def _common(boxes: Iterable[_Box | None]) -> _Box | None:
    """Return the innermost box that contains all of these, None if there is none."""
    common: list[_Box] | None = None
    for box in boxes:
        chain: list[_Box] = []
        while box is not None:
            chain.insert(0, box)
            box = box.parent
        common = chain if common is None else [a for a, b in zip(common, chain) if a is b]
    return common[-1] if common else None


def _listed(ops: Sequence[Node], found: Mapping[int, _Box], several: bool) -> list[dict[str, Any]]:
    """Number the boxes, and return them as data, parents before children."""
    modules: list[dict[str, Any]] = []

    def add(box: _Box) -> None:
        if box.id >= 0:
            return
        if box.parent is not None:
            add(box.parent)
        box.id = len(modules)
        name = _joined(box.tree.name if several else "", box.path)
        if box.number > 1:
            name = f"{name} (call {box.number})".strip()
        parent = None if box.parent is None else box.parent.id
        modules.append({"id": box.id, "name": name, "type": box.tree.types[box.path], "parent": parent})

    for node in ops:
        if id(node) in found:
            add(found[id(node)])
    for box in found.values():
        add(box)
    return modules
