"""Record the ops that a thread calls: their results, times, source lines and modules."""

from __future__ import annotations

import linecache
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..autograd.grad_mode import is_grad_enabled
from ..autograd.graph import Node, Output, Variable
from ..autograd.op_hooks import OpHooks, set_op_hooks
from ..autograd.version_counter import clock
from ..backends.registry import BACKENDS, Array
from ..dtypes import is_floating
from ..nn.module import Module
from .module_tree import ModuleTree
from .variables import found_in, module_name, variables_of
from .view_changes import changed_base

__all__ = ["ModuleCall", "Record", "recording", "source_line"]

_PACKAGE = __name__.partition(".")[0] + "."
_CALL_CODE = Module.__call__.__code__
_LONGEST_LINE = 160  # characters of a line of the program that are kept
SMALL = 512
"""The size in bytes of the largest array that a recording copies because an op has it as an argument."""
_LOOK_BACK = 64  # how many records before a node's tick are compared: views that its op took again come between


@dataclass(eq=False)
class ModuleCall:
    """One call of a module.

    tree: the tree that the module is in. path: its path there. module: a number for each module.
    parent: the call around it, None if there is none.
    """

    tree: ModuleTree
    path: str
    module: int
    parent: ModuleCall | None


@dataclass(eq=False)
class Record:
    """One call of an op.

    name: the op's name. seconds: the time of its function on arrays. On a GPU, that is the time of launching the work.
    values: copies of the results, or None. why_no_value: a sentence if there are none.
    line: the line of the program that called it, such as ``train.py:3: y = a * b``.
    call: the innermost call of a module around it.
    of: the ticks of the nodes whose gradient rules made the call, the outermost first. It is empty in a forward pass.
    shapes: those of the op's arguments, None for those that are not arrays.
    arguments: the arguments; of small arrays copies, and None for large ones.
    """

    name: str
    seconds: float
    values: tuple[Array, ...] | None
    why_no_value: str | None
    line: str | None
    call: ModuleCall | None
    of: tuple[int, ...]
    shapes: list[tuple[int, ...] | None]
    arguments: list[Any]


class recording:
    """Context manager that records each op that this thread calls inside it, if it can be part of a graph.

        with tl.viz.recording() as r:
            loss = model(x).sum()
        tl.explore(loss, "loss.html", recording=r)

    model: the module that gives names to the modules inside it. By default they are named after the variables of the
        code that enters the block. A module that no variable holds has the name of its class.
    max_bytes: the size of all copies of results. Results of later ops are left out, and ``notes`` says so.
    trees: the modules that were called. notes: sentences for the user.

    The recording holds copies, no Tensors, nodes or modules. So it keeps no graph alive, and changes in place do not
    change it. Ops of other threads, ops under ``no_grad`` and gradient rules on raw arrays are not recorded. Blocks
    nest with each other and with :class:`tensorlite.profiler.profile`. Raises RuntimeError if it is entered twice at
    once.
    """

    def __init__(self, model: Module | None = None, *, max_bytes: int = 2**28) -> None:
        if model is not None and not isinstance(model, Module):
            raise TypeError(f"recording: expected model to be a Module, got {type(model).__name__}.")
        self.max_bytes = max_bytes
        self.trees: list[ModuleTree] = [] if model is None else [ModuleTree(model, "")]
        self._named = model is not None
        self._records: list[Record] = []
        self._ticks: list[int] = []
        self._owners: dict[int, int] = {}  # the tick of the node that each record was given to
        self._bytes = self._left_out = 0
        self._numbers: dict[tuple[int, str], int] = {}
        self._active: list[tuple[FrameType, int, ModuleCall]] = []
        self._rules: tuple[int, ...] = ()
        self._raw_rule = False
        self._thread: int | None = None
        self._before = OpHooks()

    # ---- the block ----------------------------------------------------------------------------

    def __enter__(self) -> recording:
        return self.start(None if self._named else variables_of(sys._getframe(1)))

    def start(self, variables: Mapping[str, Any] | None = None) -> recording:
        """Begin to record, as ``with`` does. variables: those that hold the modules, by name. Return the recording."""
        if self._thread is not None:
            raise RuntimeError("recording: expected one that is not running, got one that is. Make a second recording.")
        if variables is not None:
            self.trees += module_trees(variables)
        self._thread = threading.get_ident()
        self._before = set_op_hooks(OpHooks(self._forward, self._backward))
        return self

    def __exit__(self, *exc: object) -> None:
        same_thread, self._thread = self._thread == threading.get_ident(), None
        self._active, self._rules, self._raw_rule = [], (), False
        if not same_thread:  # a generator that another thread closes; the hook does nothing from now on
            return
        current = set_op_hooks(OpHooks())
        set_op_hooks(_running(current))

    # ---- the hooks ----------------------------------------------------------------------------

    def _forward(self, run: Callable[..., Any], f: Callable[..., Any], *args: Any) -> Any:
        before = self._before.forward
        began = time.perf_counter()
        out = run(f, *args) if before is None else before(run, f, *args)
        seconds = time.perf_counter() - began
        if self._thread == threading.get_ident() and not self._raw_rule and is_grad_enabled():
            self._record(f.__name__.strip("_"), seconds, args[1:], out)
        return out

    def _backward(self, run: Callable[..., Any], node: Node, *args: Any) -> Any:
        g = args[0]
        outer = self._rules, self._raw_rule
        if self._thread is not None:
            self._rules = (*self._rules, node.seq)
            self._raw_rule = not any(isinstance(v, Variable) for v in (g if isinstance(g, tuple) else (g,)))
        before = self._before.backward
        try:
            return run(node, *args) if before is None else before(run, node, *args)
        finally:
            if self._thread is not None:
                self._rules, self._raw_rule = outer

    def _record(self, name: str, seconds: float, args: tuple[Any, ...], out: Any) -> None:
        """Add a record. args: the raw arguments of the op. out: its result, or a tuple of several."""
        results = out if isinstance(out, (tuple, list)) else (out,)
        size = sum(getattr(a, "nbytes", 0) for a in results)
        values: tuple[Array, ...] | None = None
        why = None
        if self._bytes + size <= self.max_bytes:
            self._bytes += size
            values = tuple(a.copy() if type(a) in BACKENDS else a for a in results)
            if name == "with_view":
                values = (self._changed_base(*args),)
        else:
            self._left_out += 1
            why = f"The recording keeps at most {self.max_bytes:,} bytes of results."
        frame = sys._getframe(2)
        shapes = [tuple(a.shape) if hasattr(a, "shape") else None for a in args]
        given = [None if values is None else _kept(a) for a in args]
        record = Record(name, seconds, values, why, source_line(frame), self._call(frame), self._rules, shapes, given)
        self._records.append(record)
        self._ticks.append(clock())  # The op's node gets one of the next ticks.

    def _changed_base(self, base: Array, part: Array, steps: Any) -> Array:
        """Return what a change in place of a view makes of its base."""
        outer, self._raw_rule = self._raw_rule, True  # The view ops on raw arrays are not recorded.
        try:
            return changed_base(base, part, steps)
        finally:
            self._raw_rule = outer

    def _call(self, frame: FrameType | None) -> ModuleCall | None:
        """Return the innermost call of a module on the stack, as a new one if its frame was not there before."""
        found: list[tuple[FrameType, Module]] = []
        while frame is not None:
            code = frame.f_code
            if code is _CALL_CODE or (code.co_name == "forward" and code.co_argcount):
                module = frame.f_locals.get(code.co_varnames[0])
                if isinstance(module, Module):
                    found.append((frame, module))
            frame = frame.f_back
        calls: list[tuple[FrameType, Module]] = []
        for frame, module in reversed(found):
            # The forward of a call, and a forward that calls that of its base class, are the same call.
            if frame.f_code is _CALL_CODE or not calls or calls[-1][1] is not module:
                calls.append((frame, module))
        active = []
        for (frame, module), (known, _, call) in zip(calls, self._active):  # their lengths differ
            if frame is not known:
                break
            active.append((frame, id(module), call))
        for frame, module in calls[len(active) :]:
            active.append((frame, id(module), self._new_call(module, active[-1][2] if active else None, frame)))
        # The frames are kept until the next op, so that no new frame has the identity of an old one.
        self._active = active
        return active[-1][2] if active else None

    def _new_call(self, module: Module, parent: ModuleCall | None, frame: FrameType) -> ModuleCall:
        trees = [*([parent.tree] if parent else []), *self.trees]
        tree = next((t for t in trees if t.paths(module)), None)
        if tree is None:
            name = module_name(module, frame.f_back)
            taken = {t.name for t in self.trees}
            tree = ModuleTree(module, next(n for n in _numbered(name) if n not in taken))
            self.trees.append(tree)
        paths = tree.paths(module)
        inside = f"{parent.path}." if parent is not None and parent.tree is tree and parent.path else ""
        path = next((p for p in paths if p.startswith(inside)), paths[0])
        number = self._numbers.setdefault((self.trees.index(tree), paths[0]), len(self._numbers))
        return ModuleCall(tree, path, number, parent)

    # ---- what was recorded --------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """Return sentences about what is missing."""
        if not self._left_out:
            return []
        return [
            f"The results of {self._left_out:,} recorded ops are left out, because the recording keeps at most "
            f"{self.max_bytes:,} bytes. Use a smaller input, or recording(max_bytes=...)."
        ]

    def __len__(self) -> int:
        """Return the number of recorded calls of ops."""
        return len(self._records)

    def of(self, node: Node) -> Record | None:
        """Return the record of the call that made a node, None if the call was not recorded.

        Nodes and records share a clock, so the recording needs no reference to a node.
        """
        while isinstance(node, Output):
            node = node.edges[0]  # type: ignore[assignment]  # its edge is a Node
        plan = node.plan
        last = bisect_right(self._ticks, node.seq)
        for i in reversed(range(max(0, last - _LOOK_BACK), last)):
            record = self._records[i]
            if record.name == plan.op_name and len(record.shapes) > max(plan.needs):
                if all(record.shapes[k] == tuple(s) for k, s in zip(plan.needs, node.shapes, strict=True)):
                    # A later node with the same op and shapes was made by another thread.
                    owner = self._owners[i] = min(node.seq, self._owners.get(i, node.seq))
                    return record if owner == node.seq else None
        return None

    def value(self, node: Node) -> Array | None:
        """Return a copy of the result of a node at the time of the call, or None if it was not recorded."""
        record = self.of(node)
        if record is None or record.values is None:
            return None
        value = record.values[node.index if isinstance(node, Output) else 0]
        narrow = [d for d in node.dtypes or () if is_floating(d)]
        if node.plan.find_narrow is not None and narrow and max(d.itemsize for d in narrow) < 4 <= value.dtype.itemsize:
            return value.astype(narrow[0])  # The op computed in float32, and rounded its result.
        return value


def _kept(argument: Any) -> Any:
    """Return an argument that a record keeps: a copy of a small array, None for a large one."""
    if not hasattr(argument, "nbytes"):
        return argument if isinstance(argument, (bool, int, float, complex, str, tuple)) else None
    return argument.copy() if argument.nbytes <= SMALL else None


def _numbered(name: str) -> Iterator[str]:
    """Iterate over a name and the names "name 2", "name 3" and so on."""
    yield name
    for i in range(2, sys.maxsize):
        yield f"{name} {i}"


def _running(hooks: OpHooks) -> OpHooks:
    """Return the innermost hooks that are not those of a recording that has ended."""
    while True:
        owner = getattr(hooks.forward, "__self__", None)
        if not isinstance(owner, recording) or owner._thread is not None:
            return hooks
        hooks = owner._before


def module_trees(variables: Mapping[str, Any]) -> list[ModuleTree]:
    """Return the trees of the modules that variables hold, each module in one tree: that of the outermost module."""
    modules = [(name, value) for name, value in found_in(variables) if isinstance(value, Module)]
    inner: set[int] = set()
    for _, module in modules:
        inner |= {id(m) for m in module.modules() if m is not module}
    chosen: dict[int, tuple[str, Module]] = {}
    for name, module in modules:
        if id(module) not in inner:
            chosen.setdefault(id(module), (name, module))
    return [ModuleTree(module, name) for name, module in chosen.values()]


def source_line(frame: FrameType | None) -> str | None:
    """Return the innermost line of a program on the stack from ``frame`` on, such as ``train.py:3: y = a * b``."""
    while frame is not None and (frame.f_globals.get("__name__", "") + ".").startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return None
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line, frame.f_globals).strip()[:_LONGEST_LINE]
    where = "cell" if "ipykernel" in file or file.startswith("<ipython") else Path(file).name
    return f"{where}:{line}" + (f": {text}" if text else "")
