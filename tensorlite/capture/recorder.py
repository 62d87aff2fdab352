"""Write the calls of a step on a tape, while the step runs as usual."""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Callable, Sequence
from operator import add
from typing import Any

import numpy as np

from ..autograd import anomaly_mode, version_counter
from ..autograd.engine import MIN_SHARED, cast_to_input_dtype, sum_to_input_shape
from ..autograd.gradients import deliver_gradients
from ..autograd.graph import Node, Output, Variable
from ..autograd.op_hooks import OpHooks, set_op_hooks
from ..backends.registry import BACKENDS
from ..nn.module import Module
from ..optim import lr_scheduler
from ..optim.optimizer import Optimizer
from ..tensors import creation
from ..tensors.tensor import Tensor
from .guards import Guards, NotCapturableError, is_plain
from .known_code import CAPTURABLE_OPS
from .planners import add_large, as_tuple
from .steps import CallOnGradients, Creation, Delivery, Repetition
from .tape import Tape
from .user_code import Watcher

__all__ = ["Recorder"]

_CREATIONS = (
    creation.arange, creation.eye, creation.full, creation.full_like, creation.linspace, creation.ones,
    creation.ones_like, creation.tensor, creation.zeros, creation.zeros_like,
)  # fmt: skip
_CREATION_CODES = {f.__code__ for f in _CREATIONS}
_LIKE = {f.__code__ for f in (creation.full_like, creation.ones_like, creation.zeros_like)}


class Recorder:
    """The recording of one step.

    arguments: the arrays of the step's arguments. guards: what else it may read, or None to watch its code alone.
    """

    def __init__(self, arguments: Sequence[Any], guards: Guards | None = None) -> None:
        self.guards, self.tape = guards, Tape()
        self.arrays: dict[int, tuple[Any, int]] = {}  # the array keeps its id taken
        self.given: list[int] = []
        self.delivered: dict[Variable, int] = {}
        self.seed: Any = None
        self.change = version_counter.last_change
        for array in arguments:
            self.given.append(self._name(array))
        self.watcher = Watcher(self._landmarks(), self._landmark_ended)

    def run(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return ``f(*args, **kwargs)``, which is recorded if there are guards."""
        recorded = self.guards is not None
        hooks = OpHooks(self._forward, self._backward) if recorded else OpHooks(self._unwatched, self._unwatched)
        before = set_op_hooks(hooks)
        collects = gc.isenabled()
        gc.disable()  # A collection calls code that is not the step's, such as hypothesis's callback.
        try:
            with self.watcher:
                return f(*args, **kwargs)
        finally:
            if collects:
                gc.enable()
            set_op_hooks(before)

    # ---- places -----------------------------------------------------------------------------

    def _name(self, array: Any) -> int:
        place = self.tape.new_place()
        self.arrays[id(array)] = array, place
        return place

    def _constant(self, value: Any) -> int:
        return self.tape.new_constant(value)

    def place_of(self, value: Any) -> int:
        """Return the place of an argument of a call. Raises NotCapturableError if it came from somewhere else."""
        if type(value) is np.ndarray:
            known = self.arrays.get(id(value))
            if known is not None:
                return known[1]
            leaf = None if self.guards is None else self.guards.tensors.get(id(value))
            if leaf is None:
                raise NotCapturableError(
                    f"an op gets an array {value.dtype}{value.shape} that the step made without an op, such as one of "
                    f"tl.zeros() or a conversion"
                )
            place = self._constant(value)
            self.arrays[id(value)] = value, place
            return place
        if type(value) is list:  # such as sizes
            value = list(value)
        if not all(map(_is_constant, value)) if type(value) is list else not _is_constant(value):
            raise NotCapturableError(f"an op gets a {type(value).__name__} that is not constant")
        return self._constant(value)

    def _write(self, f: Any, arguments: Sequence[Any], out: Any, op: str = "") -> Any:
        """Write a call on the tape, and return its result with arrays in the place of NumPy's scalars."""
        sources = [self.place_of(a) for a in arguments]
        several = isinstance(out, (tuple, list))
        outs = [np.asarray(o) if isinstance(o, np.generic) else o for o in (out if several else (out,))]
        results = []
        for o in outs:
            if o is None:
                results.append(-1)
            elif type(o) is np.ndarray:
                results.append(self._name(o))
            else:
                raise NotCapturableError(f"an op returned a {type(o).__name__}")
        self.tape.add(f, sources, results, several, op)
        return tuple(outs) if several else outs[0]

    # ---- ops --------------------------------------------------------------------------------

    def _guarded(self, compute: Callable[[], Any], write: Callable[[Any], Any]) -> Any:
        """Return ``write(compute())``; the result of ``compute()`` alone if the step is known not to be capturable."""
        self.watcher.busy += 1
        try:
            if self.watcher.reason is None and version_counter.last_change != self.change:
                self.watcher.fail("a tensor is changed in place")
            out = compute()
            if self.watcher.reason is not None:
                return out
            try:
                return write(out)
            except NotCapturableError as error:
                self.watcher.fail(str(error))
                return out
        finally:
            self.watcher.busy -= 1

    def _unwatched(self, run: Callable[..., Any], *args: Any) -> Any:
        self.watcher.busy += 1
        try:
            return run(*args)
        finally:
            self.watcher.busy -= 1

    def _forward(self, run: Callable[..., Any], f: Callable[..., Any], *args: Any) -> Any:
        if self.watcher.busy or self.watcher.reason is not None:
            return run(f, *args)

        def write(out: Any) -> Any:
            module, name = getattr(f, "__module__", "") or "", getattr(f, "__name__", "")
            if not module.startswith("tensorlite."):
                raise NotCapturableError(f"{name} is an op of a user")
            if name.strip("_") not in CAPTURABLE_OPS:
                raise NotCapturableError(f"{name}() is not in the list of ops whose results have a fixed shape")
            if args and isinstance(args[0], list):
                return self._write_of_gradients(f, args, out)
            if version_counter.last_change != self.change:
                raise NotCapturableError(f"{name}() changes a tensor in place")
            is_op = bool(args) and args[0] is BACKENDS[np.ndarray]
            return self._write(f, args, out, name.strip("_") if is_op else "")

        return self._guarded(lambda: run(f, *args), write)

    def _write_of_gradients(self, f: Any, args: tuple[Any, ...], out: Any) -> Any:
        """Write a call whose first argument is a list of gradients, such as that of ``clip_grad_norm_``."""
        by_gradient = {id(x.accumulated_grad): x for x in self.delivered}
        if not all(isinstance(g, Variable) and id(g) in by_gradient for g in args[0]):
            raise NotCapturableError(f"{f.__name__}() gets gradients that are not from this step")
        leaves = [by_gradient[id(g)] for g in args[0]]
        out = self._write(CallOnGradients(f, leaves), args[1:], out)
        self.change = version_counter.last_change
        return out

    # ---- the backward pass ------------------------------------------------------------------

    def _backward(self, run: Callable[..., Any], node: Node, g: Any, create: bool, needed: Any, grads: Any) -> None:
        if self.watcher.busy or self.watcher.reason is not None:
            run(node, g, create, needed, grads)
            return
        plan, saved = node.plan, node.saved
        if create or needed is not None or node.hooks or not plan.built_in or type(saved) is not tuple:
            self.watcher.fail(f"the backward pass of {node.name} has hooks, chosen inputs, a checkpoint or a user's op")
        if anomaly_mode.enabled or (plan.find_narrow is not None and node.dtypes is not None):
            self.watcher.fail(f"the backward pass of {node.name} converts float16 or bfloat16")
        if version_counter.last_change > node.seq:
            version_counter.check_saved(plan.op_name, node.seq, plan.saved_names, saved)  # type: ignore[arg-type]
        if self.watcher.has_failed():
            run(node, g, create, needed, grads)
            return
        places = len(self.tape.calls)
        try:
            self.watcher.busy += 1
            try:
                self._gradients(node, saved, g, grads)  # type: ignore[arg-type]
            finally:
                self.watcher.busy -= 1
        except NotCapturableError as error:
            del self.tape.calls[places:]
            self.watcher.fail(str(error))
            run(node, g, create, needed, grads)

    def _gradients(self, node: Node, saved: tuple[Any, ...], g: Any, grads: dict[Any, Any]) -> None:
        """Do what a step of the engine does, and write it. Nothing is added to ``grads`` before all is computed."""
        plan = node.plan
        if isinstance(g, tuple):
            parts = tuple(self._known_gradient(part, zeros=True) for part in g)
            place = self._name(g)
            self.tape.add(as_tuple, [self.place_of(p) for p in parts], [place], False, "")
        else:
            self._known_gradient(g, zeros=False)
            place = self.arrays[id(g)][1]
        if plan.backward is None:
            gradients = []
            for k, (rule, at) in enumerate(plan.rules):
                dtype = None if node.dtypes is None else node.dtypes[k]
                values = [saved[j] if j >= 0 else node.shapes[k] if j == -1 else dtype for j in at]
                gradients.append(self._rule(rule, place, g, values, ()))
        else:
            values = [plan.needs if j is None else saved[j] for j in plan.backward_places]
            if plan.takes_given_dtypes:
                if node.dtypes is not None:
                    raise NotCapturableError(f"{node.name} converted its arguments")
                values.append(None)
            every = self._rule(plan.backward, place, g, values, plan.needs)
            gradients = [every[i] for i in plan.needs]
        for k, d in enumerate(gradients):
            edge, shape = node.edges[k], node.shapes[k]
            if d is None:
                if plan.backward is None:
                    raise NotCapturableError(f"a gradient rule of {node.name} returned None")
                continue
            if d.shape != shape:
                d = self._apply(functools.partial(sum_to_input_shape, plan, k), d, shape)
            if node.dtypes is not None and d.dtype != node.dtypes[k]:
                d = self._apply(functools.partial(cast_to_input_dtype, plan, k), d, node.dtypes[k])
            gradients[k] = d
        sums: dict[Any, Any] = {}
        for edge, d in zip(node.edges, gradients, strict=True):
            if d is not None:
                before = sums.get(edge, grads.get(edge))
                large = d.size >= MIN_SHARED
                sums[edge] = d if before is None else self._apply(add_large if large else add, before, d)
        grads.update(sums)

    def _known_gradient(self, g: Any, zeros: bool) -> Any:
        """Give the gradient that a backward pass starts with a place, and the zeros for results without a gradient."""
        if id(g) not in self.arrays:
            if not zeros and not (self.seed is None and g.size == 1 and np.all(g == 1)):
                raise NotCapturableError("a gradient is made outside of the rules")
            if zeros and np.any(g):
                raise NotCapturableError("a gradient is made outside of the rules")
            self.arrays[id(g)] = g, self._constant(g)
            if not zeros:
                self.seed = g
        return g

    def _rule(self, rule: Any, place: int, g: Any, values: list[Any], needs: Sequence[int]) -> Any:
        sources = [self.place_of(v) for v in values]
        if needs:
            xp = BACKENDS[np.ndarray]
            every = rule(xp, g, *values)
            outs = [np.asarray(o) if isinstance(o, np.generic) else o for o in every]
            results = [self._name(o) if k in needs and o is not None else -1 for k, o in enumerate(outs)]
            self.tape.add(rule, [self._constant(xp), place, *sources], results, True, "")
            return outs
        d = rule(g, *values)
        if d is None:
            return None
        d = np.asarray(d) if isinstance(d, np.generic) else d
        if type(d) is not np.ndarray:
            raise NotCapturableError(f"a gradient rule returned a {type(d).__name__}")
        if id(d) not in self.arrays:
            self.tape.add(rule, [place, *sources], [self._name(d)], False, "")
        elif d is not g:
            raise NotCapturableError("a gradient rule returned a saved value")
        return d

    def _apply(self, f: Any, *args: Any) -> Any:
        return self._write(f, args, f(*args))

    # ---- calls of the library that a replay repeats as they are -------------------------------

    def _landmarks(self) -> dict[types.CodeType, Callable[[Any], None]]:
        found: dict[types.CodeType, Callable[[Any], None]] = {
            deliver_gradients.__code__: self._deliver,
            Optimizer.step.__code__: lambda frame: self._repeat(Optimizer.step, frame, ("closure",)),
            Optimizer.zero_grad.__code__: lambda frame: self._zero_grad(Optimizer.zero_grad, frame),
            Module.zero_grad.__code__: lambda frame: self._zero_grad(Module.zero_grad, frame),
        }
        found.update((f.__code__, self._check_creation) for f in _CREATIONS)
        for name in lr_scheduler.__all__:
            step = vars(getattr(lr_scheduler, name)).get("step")
            if isinstance(step, types.FunctionType):
                found[step.__code__] = functools.partial(self._schedule, step)
        return found

    def _landmark_ended(self, frame: Any, result: Any) -> None:
        self.change = version_counter.last_change
        if self.guards is not None and frame.f_code in _CREATION_CODES and isinstance(result, Variable):
            if type(result.array) is not np.ndarray:
                raise NotCapturableError("it makes a tensor on another device")
            self._write(Creation(result.array.copy(order="K")), [], result.array)

    def _check_creation(self, frame: Any) -> None:
        """Check that a new tensor depends on constants alone, and on the shape and the dtype of the one it is like."""
        self._check_unchanged()
        code, given = frame.f_code, frame.f_locals
        skipped = {"input"} if code in _LIKE else set()
        for name, value in given.items():
            if name not in skipped and not _is_made_of_constants(value):
                raise NotCapturableError(f"{code.co_name}() gets a {type(value).__name__} that is not constant")

    def _repeat(self, method: Callable[..., Any], frame: Any, empty: Sequence[str]) -> None:
        self._check_unchanged()
        local = frame.f_locals
        if any(local.get(name) is not None for name in empty):
            raise NotCapturableError(f"{method.__qualname__} gets a closure or a value")
        self.tape.add(Repetition(method, local["self"]), [], [-1], False, "")

    def _schedule(self, method: Callable[..., Any], frame: Any) -> None:
        names = frame.f_code.co_varnames[1 : frame.f_code.co_argcount]
        self._repeat(method, frame, names)

    def _zero_grad(self, method: Callable[..., Any], frame: Any) -> None:
        if frame.f_locals["set_to_none"] is not True:
            raise NotCapturableError("zero_grad(set_to_none=False) changes gradients in place")
        self._repeat(method, frame, ())
        self.delivered.clear()

    def _deliver(self, frame: Any) -> None:
        """Write the end of a backward pass, which adds gradients to leaves."""
        self._check_unchanged()
        receivers, grads = frame.f_locals["receivers"], frame.f_locals["grads"]
        if frame.f_locals["create_graph"] or any(e is not x for e, x in receivers.items()):
            raise NotCapturableError("backward() gets inputs or create_graph")
        leaves = [x for x in receivers if x in grads]
        if self.guards is not None:
            for x in leaves:
                if self.guards.tensors.get(id(x.array)) is not x:
                    raise NotCapturableError("a gradient goes to a leaf that the step made")
            sources = [self.place_of(grads[x]) for x in leaves]
            self.tape.add(Delivery(leaves, self.seed), sources, [-1], False, "")
        self.seed = None
        self.delivered.update((x, 0) for x in leaves)

    def _check_unchanged(self) -> None:
        if self.guards is not None and version_counter.last_change != self.change:
            raise NotCapturableError("a tensor is changed in place")

    # ---- results ----------------------------------------------------------------------------

    def result_of(self, leaf: Any, arguments: Sequence[Any]) -> tuple[str, Any, Any]:
        """Return how a replay makes a leaf of the step's result. Raises NotCapturableError."""
        if not isinstance(leaf, Variable):
            if _is_constant(leaf):
                return "constant", leaf, None
            raise NotCapturableError(f"the step returns a {type(leaf).__name__}")
        for k, given in enumerate(arguments):
            if given is leaf:
                return "argument", k, None
        if self.guards is not None and self.guards.tensors.get(id(leaf.array)) is leaf:
            return "constant", leaf, None
        if type(leaf) is not Tensor or leaf.hooks or leaf.accumulated_grad is not None or leaf.view_info is not None:
            raise NotCapturableError("the step returns a view, a leaf, or a tensor with hooks or a grad")
        node = leaf.node
        if node is not None and (node.saved is not None or node.hooks or isinstance(node, Output)):
            raise NotCapturableError("the step returns a tensor with a graph, which no backward pass has freed")
        if node is None and leaf.tracked:
            raise NotCapturableError("the step returns a leaf that requires gradients")
        return "tensor", self.place_of(leaf.array), None if node is None else (node.plan, node.shapes)


def _is_constant(value: Any) -> bool:
    """Return whether a value cannot change: a number, a name, a type, a function of the library, a tuple of these."""
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    if is_plain(value) or isinstance(value, type) or value is BACKENDS[np.ndarray]:
        return True
    return isinstance(value, types.FunctionType) and value.__module__.startswith("tensorlite.")


def _is_made_of_constants(value: Any) -> bool:
    """Return whether a value is a constant, or a list or tuple of such values."""
    if type(value) in (list, tuple):
        return all(map(_is_made_of_constants, value))
    return _is_constant(value)
