"""compile, which makes a function replay a training step that is the same every time."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from ..autograd import anomaly_mode, version_counter
from ..autograd.autocast_mode import casting
from ..autograd.gradient_observers import active_observers, gradient_observers
from ..autograd.graph import Variable, new_node, wrap
from ..autograd.op_hooks import OpHooks
from ..autograd.thread_state import threads
from ..backends.registry import get_default_device
from ..dtypes import get_default_dtype
from ..nn.module import Module
from ..pytree import tree_leaves, tree_map, tree_unflatten
from .guards import Guards, NotCapturableError, is_plain, is_plain_tensor
from .plan import Plan, settings
from .recorder import Recorder
from .steps import Delivery
from .tape import Tape
from .user_code import guards_of

__all__ = ["CompiledStep", "compile"]

P = ParamSpec("P")
R = TypeVar("R")

_MAX_SIGNATURES = 16
_MAX_CAPTURES = 8  # of one signature: values that change in each step, such as a counter, would capture it each time
_MAX_PLANS = 8  # of one capture
_NO_HOOKS = OpHooks()


class _Capture:
    """A recorded step: its tape, what it depends on, and how its result is made."""

    def __init__(self, tape: Tape, guards: Guards, given: list[int], results: list[tuple[str, Any, Any]], like: Any):
        self.tape, self.guards, self.given, self.results, self.like = tape, guards, given, results, like
        self.kept = {key for kind, key, _ in results if kind == "tensor"}
        self.plan: Plan | None = None
        self.plans_left, self.lock = _MAX_PLANS, threading.Lock()
        tape.finish(self.kept)
        self.leaves = {x for row in tape.program if isinstance(row[0], Delivery) for x in row[0].leaves}

    def is_observed(self) -> bool:
        """Return whether an observer wants the gradients of the step's backward pass, which a replay does not tell."""
        return bool(gradient_observers) and any(not each.leaves.isdisjoint(self.leaves) for each in active_observers())

    def replay(self, leaves: list[Any], arrays: list[Any]) -> Any:
        """Do the calls of the step on these arguments, and return its result."""
        return self._results(self._values(arrays), leaves)

    def _values(self, arrays: list[Any]) -> dict[int, Any] | list[Any]:
        """Return the values of the places after the calls, by the plan if no other thread uses it."""
        if self.plans_left and self.lock.acquire(blocking=False):
            try:
                return self._planned(arrays)
            finally:
                self.lock.release()
        return self.tape.run(list(zip(self.given, arrays, strict=True)))

    def _planned(self, arrays: list[Any]) -> dict[int, Any]:
        """Return the values that are read at the end. After an error a new plan is made, because gradients may live."""
        plan, self.plan = self.plan, None
        if plan is None or plan.settings != settings():
            self.plans_left -= 1
            plan = Plan(self.tape, self.given, arrays, self.kept)
            self.plans_left = self.plans_left if plan.complete else 0
        else:
            plan.run(arrays)
        self.plan = plan if plan.complete else None
        return {place: plan.result(place) for place in self.kept}

    def _results(self, values: Any, leaves: list[Any]) -> Any:
        """Return the result of the step."""
        made = []
        for kind, key, graph in self.results:
            if kind == "constant":
                made.append(key)
            elif kind == "argument":
                made.append(leaves[key])
            else:
                result = wrap(values[key])
                if graph is not None:  # the place of a result in a graph that the backward pass has freed
                    result.node, result.tracked = new_node(graph[0], [], graph[1], None), True
                made.append(result)
        return tree_unflatten(made, self.like)


class _Signature:
    """What is known of the calls with one kind of arguments.

    calls: how many there were. captures: how often the step was recorded. watches: how often since then its code was
    watched. reason: why the last call was eager.
    """

    def __init__(self) -> None:
        self.calls = self.captures = self.replays = self.watches = 0
        self.capture: _Capture | None = None
        self.pending: Guards | None = None
        self.final = False
        self.reason = "the first call runs as usual"


class CompiledStep(Generic[P, R]):
    """A function that replays what it did in an earlier call with arguments of the same kind. :func:`compile` makes it.

    function: the function itself, which is called where nothing can be replayed.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        if not callable(function):
            raise TypeError(f"compile: expected a function, got {type(function).__name__}")
        if isinstance(function, Module):
            raise TypeError(
                f"compile: expected a function of a whole training step, got the module {type(function).__name__}. "
                f"Write def step(x, y) with the forward pass, backward() and the optimizer's step, and compile that."
            )
        self.function = function
        self._signatures: dict[Any, _Signature] = {}
        self._recording = threading.Lock()
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        leaves = tree_leaves((args, kwargs))
        arrays: list[Any] = []
        key = _key_of(args, kwargs, leaves, arrays)
        if key is None:
            return self.function(*args, **kwargs)
        signature = self._signatures.get(key)
        if signature is None:
            if len(self._signatures) >= _MAX_SIGNATURES:
                return self.function(*args, **kwargs)
            signature = self._signatures.setdefault(key, _Signature())
        signature.calls += 1
        capture = signature.capture
        if capture is not None:
            if capture.is_observed():
                return self.function(*args, **kwargs)
            if capture.guards.hold() and not any(id(a) in capture.guards.tensors for a in arrays):
                signature.replays += 1
                result: R = capture.replay(leaves, arrays)
                return result
            signature.capture = signature.pending = None
            signature.reason = "something that the step reads has changed"
        if signature.calls == 1 or signature.final:
            return self.function(*args, **kwargs)
        if sys.getprofile() is not None or sys.gettrace() is not None:
            signature.reason = "a debugger, a profiler or a coverage tool watches this thread"
            return self.function(*args, **kwargs)
        if not self._recording.acquire(blocking=False):
            return self.function(*args, **kwargs)
        try:
            return self._record(signature, args, kwargs, leaves, arrays)
        finally:
            self._recording.release()

    def _record(self, signature: _Signature, args: Any, kwargs: Any, leaves: list[Any], arrays: list[Any]) -> Any:
        """Call the function. Watch its code, and the next time, when its guards are known, record it."""
        guards = signature.pending
        signature.pending = None
        if guards is not None:
            guards.note_gradients()
        if guards is not None and not guards.hold():
            guards = None
        if guards is not None and any(id(a) in guards.tensors for a in arrays):
            return self.function(*args, **kwargs)  # a replay could not tell the argument from what the step reads
        recorder = Recorder(arrays, guards)
        result = recorder.run(self.function, args, kwargs)
        watcher = recorder.watcher
        try:
            if watcher.reason is not None:
                raise NotCapturableError(watcher.reason)
            found = guards_of(watcher, self.function)
            if guards is None:
                signature.watches += 1
                if signature.watches > _MAX_CAPTURES:  # A watched call takes several times as long as a plain one.
                    raise NotCapturableError("something that the step reads changes between all calls")
                signature.pending = found
                signature.reason = "the next call records the step"
                return result
            if any(a is not b for a, b in zip(leaves, tree_leaves((args, kwargs)), strict=True)):
                raise NotCapturableError("the step changes its arguments")
            if not guards.hold(at_start=False):
                signature.captures += 1
                if signature.captures >= _MAX_CAPTURES:
                    raise NotCapturableError("something that the step reads changes in every call")
                signature.pending = found
                return result
            if not guards.covers(found):
                signature.pending = found
                signature.captures += 1
                return result
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Variable)]
            results = [recorder.result_of(leaf, leaves) for leaf in tree_leaves(result)]
            if not _is_new(result, guards, (args, kwargs)) or len({id(x) for x in tensors}) < len(tensors):
                raise NotCapturableError("the step returns a container that lives on, or of a user, or a tensor twice")
            like = tree_map(lambda _: None, result)
        except NotCapturableError as error:
            signature.reason, signature.final = str(error), True
            return result
        signature.captures, signature.watches = signature.captures + 1, 0
        signature.final = signature.captures >= _MAX_CAPTURES
        signature.capture = _Capture(recorder.tape, guards, recorder.given, results, like)
        signature.reason = "captured"
        return result

    def explain(self) -> str:
        """Return a text with a line for each kind of arguments: how often it was replayed, and why not."""
        lines = []
        for key, s in self._signatures.items():
            shapes = ", ".join(f"{part[1]}{part[2]}" if part[0] == "tensor" else repr(part[1]) for part in key[2])
            state = "captured" if s.capture is not None else f"not captured: {s.reason}"
            lines.append(f"({shapes}): {s.calls} calls, {s.replays} replayed; {state}")
        return "\n".join(lines) or "no calls with arguments that can be captured"

    def reset(self) -> None:
        """Forget all captures, and free their memory."""
        self._signatures.clear()

    def __repr__(self) -> str:
        return f"compile({getattr(self.function, '__qualname__', self.function)!s})"


def _key_of(args: Any, kwargs: Any, leaves: list[Any], arrays: list[Any]) -> Any:
    """Return what decides, with the guards, how the step runs; None if it must run as usual.

    arrays: gets the arrays of the Tensors among the leaves.
    """
    if (
        casting.active or anomaly_mode.enabled or version_counter.inplace_in_graph or threads.state.hooks != _NO_HOOKS
        or threads.state.inference
    ):  # fmt: skip
        return None
    parts: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, Variable):
            array = leaf.array
            if leaf.tracked or not is_plain_tensor(leaf) or type(array) is not np.ndarray or leaf.hooks:
                return None
            parts.append(("tensor", array.dtype, array.shape, array.strides, type(leaf),
                          next((k for k, a in enumerate(arrays) if a is array), -1),
                          next((k for k, x in enumerate(leaves) if x is leaf), -1), leaf.accumulated_grad is None))
            arrays.append(array)
        elif type(leaf) is float:
            parts.append(("float", leaf.hex()))
        elif is_plain(leaf) and not isinstance(leaf, (np.generic, complex)):
            parts.append((type(leaf), leaf))
        else:
            return None
    try:
        key = (_structure(args), _structure(kwargs), tuple(parts), threads.state.records, get_default_dtype(),
               get_default_device())
        hash(key)
    except TypeError:
        return None
    return key


def _structure(tree: Any) -> Any:
    """Return the containers of a tree, without its leaves, as something to compare.

    Raises TypeError for a container with a class of a user, because the step may read more of it than its items.
    """
    if type(tree) is dict:
        return (dict, *((type(key), key, _structure(item)) for key, item in tree.items()))
    if type(tree) in (list, tuple):
        return (type(tree), *map(_structure, tree))
    if isinstance(tree, (dict, list, tuple)):
        raise TypeError
    return None


def _is_new(tree: Any, guards: Guards, *held: Any) -> bool:
    """Return whether no container of a step's result is one that lives on, or one of a user's class."""
    known = {id(container) for argument in held for container in _containers(argument)}
    found = _containers(tree)
    return all(type(x) in (dict, list, tuple) for x in found) and not any(
        not isinstance(x, tuple) and (id(x) in known or guards.has(x)) for x in found
    )


def _containers(tree: Any) -> list[Any]:
    """Return a tree and the containers in it."""
    if not isinstance(tree, (dict, list, tuple)):
        return []
    items = tree.values() if isinstance(tree, dict) else tree
    return [tree, *(x for item in items for x in _containers(item))]


def compile(function: Callable[P, R]) -> CompiledStep[P, R]:
    """Return a function that does what ``function`` does, and replays its ops where they are the same every time.

        @tl.compile
        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

    The first three calls with arguments of one kind (shapes, dtypes, strides, Python constants) run as usual. The
    second watches the Python code, and the third records the calls of ops, gradient rules and optimizers. Later calls
    do these calls alone, with the same bits: no Module, graph or argument check runs. The first of them makes a plan of
    at most 256 MiB, in which most results have memory that stays where it is; see docs/speed.md.

    Each call first compares what the recorded code read: global names, variables of outer functions, attributes of
    modules and objects, lists and dicts, parameters and whether they have a ``grad``. If one is another object, the
    call runs as usual, and a later one records again. Options of optimizers and random generators are read anew.
    A tensor that the step makes of constants, such as ``zeros(3)``, is computed once.

    A step is never recorded, and runs as usual, if its code does one of the following; ``explain()`` says which:

    - It reads values of a tensor (``item()``, ``if loss > 3``, ``numpy()``) or a NumPy array.
    - It sets an attribute or a global name, or changes a tensor, a list or a dict that lives on.
    - It has a ``with`` or ``try`` statement, a generator, or a function that is written in C and not known.
    - It calls an op of a user, or a function of the library that is not in ``tensorlite/capture/known_code.py``.
    - It runs on another device than the CPU, with hooks, or in float16 or bfloat16.

    Under ``autocast``, ``detect_anomaly``, ``inference_mode``, a profiler or a debugger the call runs as usual.

    What cannot be noticed, and must not be done between two calls: replace functions or classes inside ``tensorlite``,
    or change the shape of a raw array in place. In an error message of a replay the traceback has no line of the step.
    A returned loss has a ``grad_fn`` without ``next_functions``, because its graph was freed in any case.

    Raises TypeError if ``function`` cannot be called, or is a Module, which does a part of a step only.
    """
    return CompiledStep(function)
