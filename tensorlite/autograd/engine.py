"""Reverse-mode automatic differentiation.

An op is a function on raw arrays and one gradient rule per input. Calling it on Variables computes the result and, if
an input needs gradients, records a Node: which rules to run, on which saved values, and where their results go. The
backward sweep visits the nodes from the newest to the oldest and pushes gradients along their edges:

    for node k, newest first:   g[input i] += rule_i(g[k], saved values of k)      (the chain rule, transposed)

Rules are written in operators and public ops only. Fed with raw arrays they compute; fed with Variables that are
attached to the graph (``create_graph=True``) they record themselves, and so gradients of any order follow.
"""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from ..backends.registry import BACKENDS, Array, backend_of
from ..dtypes import POLICIES, Policy
from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from . import anomaly_mode, version_counter
from .anomaly_mode import detect_anomaly

__all__ = [
    "Node", "Op", "OpFunction", "Variable", "backward", "detect_anomaly", "enable_grad", "grad", "is_grad_enabled",
    "no_grad", "op", "set_grad_enabled", "walk",
]  # fmt: skip

Value: TypeAlias = Any
"""What a rule computes on: raw arrays, or Variables under ``create_graph``."""
Rule: TypeAlias = Callable[..., Value]

# ---- grad mode ------------------------------------------------------------------------------


class ThreadState(threading.local):
    """What each thread has for itself: is recording on, a context in which NumPy does not warn, and who watches."""

    grad = True
    watchers: Watchers = (None, None)

    def __init__(self) -> None:
        context = copy_context()
        context.run(np.seterr, all="ignore")  # log(0) is -inf and no warning, as on a GPU
        self.quietly: Callable[..., Any] = context.run
        self.unwatched = self.quietly


Watchers: TypeAlias = tuple[Callable[..., Any] | None, Callable[..., Any] | None]

thread_state = ThreadState()


def watch(forward: Callable[..., Any] | None, backward: Callable[..., Any] | None) -> Watchers:
    """Have this thread's ops run through these functions, or through none. Returns those that were there.

    ``forward(run, f, *args)`` has to return ``run(f, *args)``, and ``backward(run, node, *args)`` has to call
    ``run(node, *args)``; see :mod:`tensorlite.profiler`.
    """
    before, thread_state.watchers = thread_state.watchers, (forward, backward)
    run = thread_state.unwatched
    thread_state.quietly = run if forward is None else functools.partial(forward, run)
    return before


def quietly(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``, without NumPy's warnings, and seen by who watches."""
    return thread_state.quietly(f, *args)


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are recorded, in this thread."""
    return thread_state.grad


def _decorated(mode: Callable[[], Any], f: Callable[..., Any]) -> Callable[..., Any]:
    """f, each call of which runs in a new ``mode()``."""
    if inspect.isgeneratorfunction(f):
        raise TypeError(f"{f.__name__}: a generator runs between its calls; use a with block inside it instead")

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return f(*args, **kwargs)

    return wrapped


class set_grad_enabled:
    """Switch recording on or off in this thread: at once, for a ``with`` block, or in the decorated function."""

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self._old, thread_state.grad = thread_state.grad, self.mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        thread_state.grad = self._old

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        thread_state.grad = self._old
        return _decorated(lambda: set_grad_enabled(self.mode), f)


class _GradMode:
    """A context manager and decorator that sets the grad mode, nestable and reusable."""

    mode: bool

    def __new__(cls, f: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if f is None else _decorated(cls, f)  # `@no_grad` without its parentheses

    def __init__(self) -> None:
        self._old: list[bool] = []

    def __enter__(self) -> None:
        self._old.append(thread_state.grad)
        thread_state.grad = self.mode

    def __exit__(self, *exc: object) -> None:
        thread_state.grad = self._old.pop()

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        return _decorated(type(self), f)


class no_grad(_GradMode):
    """Record nothing inside this ``with`` block, or inside the decorated function."""

    mode = False


class enable_grad(_GradMode):
    """Record again inside this ``with`` block, or inside the decorated function."""

    mode = True


# ---- the graph ------------------------------------------------------------------------------


class Variable:
    """A differentiable value: a raw array and its place in the graph. Tensor adds the methods.

    array: the raw array.
    grad: what ``backward`` has accumulated here, or None.
    node: the Node that made it; None for a leaf.
    tracked: whether gradients flow through it.
    origin: of a view, the tensor whose memory it shows, and the way from there: ``(way to what it was taken from, view
        op, its arguments)``, which starts with None. ``(None, None)`` of a view op's result that shares no memory.
    """

    tensor_type: ClassVar[type[Variable]]
    """What ops return. :class:`tensorlite.Tensor` puts itself here, once."""

    array: Array
    grad: Any = None
    node: Node | None = None
    tracked: bool = False
    hooks: list[Callable[[Any], Any]] | None = None
    origin: tuple[Any, tuple[Any, Callable[..., Any], tuple[Any, ...]] | None] | None = None

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
        self, plan: Plan, edges: list[Edge], shapes: list[tuple[int, ...]], saved: list[Any] | Lazy | None
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


class Lazy:
    """Stands for the saved values of nodes whose forward will be computed again; see :func:`checkpoint`."""

    def fill(self) -> None:
        """Give every node that this object stands for its saved values back."""
        raise NotImplementedError


# ---- ops ------------------------------------------------------------------------------------


class Op:
    """A forward function on raw arrays, its gradient rules, and the plans compiled for it. Made by :func:`op`."""

    again: Callable[..., Any] | None = None  # of a view op, what does the same in memory of any order

    def __init__(
        self,
        forward: Callable[..., Any],
        rules: Sequence[Rule | None],
        *,
        backward: Callable[..., Any] | None = None,
        composite: Callable[..., Any] | None = None,
        dtypes: Policy | None = None,
        aux: Sequence[str] = (),
        several: bool = False,
        view: bool = False,
        castable: bool = False,
    ) -> None:
        self.forward, self.rules, self.composite, self.backward = forward, tuple(rules), composite, backward
        self.dtypes, self.aux, self.several, self.view, self.castable = dtypes, tuple(aux), several, view, castable
        self.name = forward.__name__.strip("_")
        self.built_in = forward.__module__.startswith("tensorlite.")
        self.plans: dict[Any, Plan] = {}

        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.signature = inspect.Signature([p.replace(annotation=p.empty) for p in parameters])
        self.names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
        self.variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.defaults = [p.default for p in parameters if p.kind is not p.VAR_POSITIONAL]
        self._check_rules()
        self.wants = [() if r is None else tuple(inspect.signature(r).parameters)[1:] for r in self.rules]
        self.backward_names = () if backward is None else tuple(inspect.signature(backward).parameters)[2:]
        self._check_names()

    def _check_rules(self) -> None:
        arguments = [*self.names, *filter(None, [self.variadic])]
        if not arguments:
            raise TypeError(f"op {self.name}: its function must take the namespace xp, and then at least one argument")
        if len(self.rules) > len(arguments):
            raise TypeError(f"op {self.name}: {len(self.rules)} gradient rules for arguments {', '.join(arguments)}")
        for rule in self.rules:
            if rule is not None and not (callable(rule) and inspect.signature(rule).parameters):
                raise TypeError(
                    f"op {self.name}: a gradient rule is a function of the gradient g and what it names, got {rule!r}"
                )

    def _check_names(self) -> None:
        known = (
            (set() if self.several else {"out", *self.aux})
            | {*self.names}
            | ({self.variadic, "index"} if self.variadic else set())
        )
        for names in (*(set(w) - {"in_shape"} for w in self.wants), set(self.backward_names) - {"needs"}):
            if unknown := set(names) - known:
                raise TypeError(
                    f"op {self.name}: its gradient rule names {', '.join(sorted(unknown))}, but it can only name "
                    f"{', '.join([*self.names, *filter(None, [self.variadic]), 'out', 'in_shape', *self.aux])}"
                )

    def rule(self, i: int) -> Rule | None:
        """The gradient rule of argument ``i``; the last one serves all of a variadic op's tensors."""
        if i < len(self.rules):
            return self.rules[i]
        return self.rules[-1] if self.variadic and self.rules else None

    def plan(self, needs: tuple[int, ...], names: list[str]) -> Plan:
        """The plan for calls that differentiate the arguments at ``needs``.

        names: those of the arguments of such a call, then ``out``, then the auxiliary results.
        Raises GraphError if one of the inputs has no gradient.
        """
        for i in needs:
            if self.backward is None and self.rule(i) is None:
                raise GraphError(f"{self.name}: no gradient is defined for its argument {names[i]!r}; detach() it")
        wanted = self.wants_of(needs, names)
        inputs = range(len(names) - 1 - len(self.aux)) if self.composite is not None else range(0)
        keep = [p for p, name in enumerate(names) if name in wanted or p in inputs]
        at = {p: k for k, p in enumerate(keep)}
        out = names.index("out")
        fused = self.backward is not None
        return Plan(
            op_name=self.name,
            needs=needs,
            input_names=[names[i] for i in needs],
            saved_positions=keep,
            saved_names=[names[p] for p in keep],
            saved_edges=[-1 if p == out else needs.index(p) if p in needs else None for p in keep],
            rules=[] if fused else [self.bind_rule(i, names, at) for i in needs],
            backward=self.backward,
            backward_places=[at[names.index(n)] if n != "needs" else None for n in self.backward_names],
            composite=self.composite,
            composite_places=[at[p] for p in inputs],
            is_view=self.view,
            built_in=self.built_in,
            casts_gradients=self.built_in or self.dtypes is not None,
        )

    def wants_of(self, needs: tuple[int, ...], names: list[str]) -> set[str]:
        """The names of the values that must be saved to differentiate these inputs."""
        if self.backward is not None:
            return set(self.backward_names)
        wanted = {n for i in needs for n in self.wants[min(i, len(self.wants) - 1)]}
        if self.variadic in wanted:
            wanted |= {n for n in names if n.startswith(f"{self.variadic}[")}
        return wanted

    def bind_rule(self, i: int, names: list[str], at: dict[int, int]) -> tuple[Rule, list[int]]:
        """The rule of input ``i`` and the places of its arguments among the saved values (-1 is the input's shape)."""
        rule, wants = self.rule(i), self.wants[min(i, len(self.wants) - 1)]
        assert rule is not None
        if not self.variadic or not {self.variadic, "index"} & set(wants):
            return rule, [-1 if n == "in_shape" else at[names.index(n)] for n in wants]
        # A variadic op's rule also knows which of the tensors it is for, and may ask for all of them.
        places = [at[p] for p, n in enumerate(names) if n.startswith(f"{self.variadic}[") and p in at]
        fixed = [-1 if n == "in_shape" else at[names.index(n)] for n in wants if n not in (self.variadic, "index")]

        def with_index(g: Value, *values: Value) -> Value:
            rest, tensors = iter(values[len(places) :]), values[: len(places)]
            chosen = {self.variadic: tensors, "index": i - len(self.names)}
            return rule(g, *(chosen[n] if n in chosen else next(rest) for n in wants))

        return with_index, places + fixed

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Positional arguments, defaults filled in; PyTorch's names for arguments count too. TypeError names the op."""
        renamed = dict(zip(("input", "other"), self.names, strict=False))
        renamed |= {"axis": "dim", "keepdims": "keepdim", "unbiased": "correction", "size": "shape"}
        dtype = kwargs.pop("dtype", None) if self.castable else None
        kwargs = {k if k in self.names else renamed.get(k, k): v for k, v in kwargs.items()}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; its signature is {self.name}{self.signature}") from None
        bound.apply_defaults()
        if dtype is None:
            return bound.args
        first, *rest = bound.args
        if not isinstance(first, Variable):
            raise TypeError(f"{self.name}: expected a Tensor, got {type(first).__name__}")
        return (first.to(dtype=dtype), *rest)  # type: ignore[attr-defined]

    def argument_names(self, n: int) -> list[str]:
        """The names of the arguments of a call with n of them, then ``out`` and the auxiliary results."""
        names = list(self.names)
        if self.variadic:
            names += [f"{self.variadic}[{k}]" for k in range(n - len(names))]
        return [*names, "out", *self.aux]

    def static(self, value: Any, position: int) -> Any:
        """An argument that is not a Tensor, as the forward function gets it. Raises TypeError for a list of numbers."""
        if isinstance(value, np.generic):
            return value.item()  # NumPy's scalars count as Python's: they never upcast a tensor
        if isinstance(value, (list, tuple, str)) and position < len(self.rules) and self.rules[position] is not None:
            raise TypeError(
                f"{self.name}: expected a Tensor or a number, got a {type(value).__name__}; make it one with tensor()"
            )
        return value

    def record(
        self, args: Sequence[Any], given: list[Any], arrays: list[Any], needs: tuple[int, ...], values: list[Any]
    ) -> Node:
        """The node of one call: ``given`` are its raw arguments, ``arrays`` the same in the dtypes it computed in."""
        key = (needs, len(args)) if self.variadic else needs
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = self.plan(needs, self.argument_names(len(args)))
        if version_counter.rebased:
            version_counter.check_inputs(self.name, args)
        node = Node(plan, [args[i].node or args[i] for i in needs], [arrays[i].shape for i in needs],
                    [values[p] for p in plan.saved_positions])  # fmt: skip
        if arrays is not given or not self.built_in:
            node.dtypes = [given[i].dtype for i in needs]
        return node

    def _array_of_result(self, xp: Any, out: Any) -> Array:
        """What the forward function returned, if it is not an array: NumPy turns 0-d results into scalars."""
        if not isinstance(out, (np.generic, int, float, complex)):
            raise TypeError(
                f"{self.name}: the function must return a raw array, got {type(out).__name__}"
                f"{'; for several results pass several=True' * isinstance(out, (tuple, list))}"
            )
        return xp.asarray(out)

    def explain(self, error: Exception, args: Sequence[Any]) -> Exception:
        """One clear error for what the forward function, NumPy or CuPy said about these arguments."""
        message = str(error)
        ours = type(error).__module__.startswith("tensorlite.")
        if isinstance(error, Warning) or (ours and message.startswith(self.name)):
            return error
        arrays = [a for a in args if type(a) in BACKENDS]
        call = f"{self.name}({', '.join(map(describe, arrays))})"
        kinds = {BACKENDS[type(a)].device_type for a in arrays}
        if len(kinds) > 1:
            return DeviceError(
                f"{call}: tensors on different devices ({', '.join(sorted(kinds))}); move them with .to(device)"
            )
        if ours:
            return type(error)(f"{call}: {message}")
        if isinstance(error, IndexError):
            return IndexError(f"{call}: {message}")
        if isinstance(error, OverflowError):
            whole = [a for a in args if type(a) is int]
            wrong = [str(n) for n in whole for a in arrays if a.dtype.kind in "iu" and not _holds(a.dtype, n)]
            return DTypeError(f"{call}: {', '.join(wrong) or message} does not fit into the dtype; convert with .to()")
        if isinstance(error, ValueError):
            if "broadcast" in message:
                return ShapeError(f"{call}: the shapes do not broadcast: from the last dimension on, two sizes must be "
                                  f"equal, or one of them 1")  # fmt: skip
            return ValueError(f"{call}: {message}")
        if any(word in message for word in ("ufunc", "numpy", "cupy", "operand type")):
            call = f"{self.name}({', '.join(describe(a) if type(a) in BACKENDS else f'{a!r:.40}' for a in args)})"
            return DTypeError(f"{call}: this op is not defined for arguments of these types")
        return TypeError(f"{call}: {message}")


def _holds(dtype: Any, number: int) -> bool:
    return int(np.iinfo(dtype).min) <= number <= int(np.iinfo(dtype).max)


def describe(value: Any) -> str:
    """A raw array as ``float32(2, 3)``, with its device if that is not the CPU; anything else by its type."""
    if type(value) not in BACKENDS:
        return type(value).__name__
    kind = BACKENDS[type(value)].device_type
    return f"{value.dtype}{tuple(value.shape)}" + ("" if kind == "cpu" else f" on {kind}")


class OpFunction(Protocol):
    """What :func:`op` makes: called with Tensors it gives a Tensor, called with raw arrays alone a raw array."""

    op: Op

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


_PLAIN = {int, float, bool, type(None)}
"""Argument types that go to the forward function as they are."""


def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Callable[..., Any] | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    several: bool = False,
    view: bool = False,
    castable: bool = False,
) -> Callable[[Callable[..., Any]], OpFunction]:
    """Make a differentiable op from a function on raw arrays.

        @op(lambda g, y: g * y,          # gradient for x
            lambda g, x: g * x)          # gradient for y
        def mul(xp, x, y):
            return x * y

    The function gets the namespace ``xp`` of its arrays (NumPy's names, or CuPy's), then its arguments; every Tensor
    among them arrives as a raw array. There is one rule per leading argument, None where no gradient exists. A rule
    gets the gradient ``g`` of the result, and what its other parameters *name*: arguments, ``out`` (the result) or
    ``in_shape`` (the shape of its input). What nobody names is not kept. A rule uses operators and public ops only,
    never changes ``g``, and returns a gradient of the input's dtype, which may still have the broadcast shape: the
    engine sums it down.

    backward: instead of rules, one function ``(xp, g, <names>) -> tuple of gradients`` on raw arrays, one for each
        leading argument (None where ``needs``, a tuple of argument positions that it may name, does not ask for it).
        It needs a ``composite``: the same maths in plain ops, differentiated where the gradient itself
        must be differentiable.
    dtypes: how inputs of different dtypes meet: None (as they are), "promote" (as PyTorch does), "float" (the same, and
        integers become the default float dtype), "same" (mixing is an error), "floating" (integers are an error too).
    aux: names of further arrays that the function returns after its result, for ``backward`` to name.
    several: the function returns a tuple of results, and its rule gets the tuple of their gradients.
    view: the result may share memory with the first argument.
    castable: calls may give ``dtype=``, to which the first argument, a Tensor, is converted before anything else.

    Raises TypeError if a rule names something the op does not have, or if there are more rules than arguments.
    """
    if backward is not None and composite is None:
        raise TypeError("op: a backward function needs a composite, so that its gradient can be differentiated again")
    if isinstance(dtypes, str) and dtypes not in POLICIES:
        raise ValueError(f"op: dtypes={dtypes!r} is no policy; choose from {', '.join(map(repr, POLICIES))}")
    policy = POLICIES[dtypes] if isinstance(dtypes, str) else dtypes

    def decorate(forward: Callable[..., Any]) -> OpFunction:
        if not inspect.isfunction(forward):
            raise TypeError(
                f"op: expected a function to decorate, got {type(forward).__name__}; write @op(...), with parentheses"
            )
        return _callable(Op(forward, rules, backward=backward, composite=composite, dtypes=policy, aux=aux,
                            several=several, view=view, castable=castable))  # fmt: skip

    return decorate


def _callable(self: Op) -> OpFunction:
    """The public function of an op. This is the hot path of the library: all that it can know is a local name."""
    forward, aux, policy, several, built_in = self.forward, self.aux, self.dtypes, self.several, self.built_in
    arity, variadic, differentiable = len(self.names), self.variadic is not None, bool(self.rules or self.backward)
    defaults, state, new, ndarray = tuple(self.defaults), thread_state, object.__new__, np.ndarray
    backends = BACKENDS
    view, rebased, rules = self.view and not several, version_counter.rebased, len(self.rules)
    required = sum(d is inspect.Parameter.empty for d in defaults)
    meet = slice(arity, None) if variadic else slice(0, len(self.rules) or None)  # the arguments whose dtypes must fit

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs or (len(args) != arity and not (variadic and len(args) > arity)):
            if kwargs or len(args) > arity or len(args) < required:
                args = self.bind(args, kwargs)
        arrays: list[Any] = []
        needs: tuple[int, ...] = ()
        dtype, grad = None, state.grad
        raw, mixed = True, False
        for a in args:
            if isinstance(a, Variable):
                raw = False
                if grad and (a.tracked or (rebased and version_counter.taken_again(a))):
                    needs += (len(arrays),)
                a = a.array
                if a.dtype is not dtype:
                    mixed, dtype = mixed or dtype is not None, a.dtype
            elif type(a) is ndarray:
                mixed = True  # perhaps: the policy looks at its dtype
            elif type(a) not in _PLAIN and (type(a) is not tuple or len(arrays) < rules):
                a = self.static(a, len(arrays))
                mixed = mixed or hasattr(a, "dtype")
            arrays.append(a)
        if len(arrays) < arity:
            arrays += defaults[len(arrays) :]
        given = arrays
        if policy is not None and dtype is not None and (mixed or dtype.kind != "f"):
            met = arrays[meet]
            converted = policy(self.name, met)
            if converted is not met:
                arrays = arrays.copy()
                arrays[meet] = converted
        xp = backends.get(type(arrays[0])) if arrays else None
        if xp is None and (xp := backend_of(arrays)) is None:
            # In a gradient rule NumPy's operators have made scalars of 0-d arrays.
            scalars = {i: np.asarray(a) for i, a in enumerate(args) if isinstance(a, np.generic)}
            arrays = [scalars.get(i, a) for i, a in enumerate(arrays)]
            xp = backend_of(arrays)
        if xp is None:
            for a in arrays:
                if isinstance(a, Variable):
                    BACKENDS[type(a)]  # the data of a Tensor is a Tensor, which this says
            raise TypeError(f"{self.name}: expected a Tensor, got {', '.join(map(describe, arrays)) or 'nothing'}")
        try:
            if built_in:
                out = state.quietly(forward, xp, *arrays)
            elif state.watchers[0] is None:
                out = forward(xp, *arrays)
            else:
                out = state.watchers[0](_plainly, forward, xp, *arrays)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            if not built_in:
                raise
            raise self.explain(error, arrays) from None
        except RuntimeError as error:
            if not str(error).startswith("cannot enter context"):
                raise
            with np.errstate(all="ignore"):  # another op is running: this is a debugger, a signal handler, a finaliser
                out = forward(xp, *arrays)

        if several:
            outs = tuple(o if type(o) in BACKENDS else self._array_of_result(xp, o) for o in out)
            if raw:
                return outs
            results = tuple(map(wrap, outs))
            if needs and differentiable:
                node = self.record(args, given, arrays, needs, [*arrays, None])
                node.outputs = [(o.shape, o.dtype) for o in outs]
                for k, result in enumerate(results):
                    result.node, result.tracked = Output(node, k), True
            if anomaly_mode.watching:
                for result in results:
                    anomaly_mode.check_forward(self.name, given, result.array, result.node and result.node.edges[0])
            return results

        extra: Sequence[Any] = ()
        if aux:
            out, *extra = out
        if type(out) not in BACKENDS:
            out = self._array_of_result(xp, out)
        if raw:
            return out
        result = new(Variable.tensor_type)
        result.array = out
        if view and grad and isinstance(args[0], Variable):
            result.origin = _origin(args[0], self.again or call, args[1:], out)
        if needs and differentiable:
            result.node, result.tracked = self.record(args, given, arrays, needs, [*arrays, out, *extra]), True
        if anomaly_mode.watching:
            anomaly_mode.check_forward(self.name, given, out, result.node)
        return result

    functools.update_wrapper(call, self.forward)
    del call.__wrapped__  # type: ignore[attr-defined]  # its signature has the namespace, which no caller passes
    call.__signature__ = self.signature  # type: ignore[attr-defined]
    call.__name__ = self.name
    call.op = self  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _plainly(f: Callable[..., Any], *args: Any) -> Any:
    return f(*args)


def _origin(x: Variable, view: Callable[..., Any], arguments: tuple[Any, ...], out: Array) -> Any:
    """Where the result of a view op comes from; from nowhere if it had to be copied."""
    data, shown = x.array, out.base
    if shown is None or (shown is not data and shown is not data.base):
        if out is not data and version_counter.owner(out) is not version_counter.owner(data):
            return None, None
    base, steps = x.origin or (x, None)
    return (x if base is None else base), (steps, view, arguments)


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


@op(lambda g: g, view=True)
def alias(xp: Any, x: Array) -> Array:
    """The same value, as a new place in the graph."""
    return x


# ---- the sweep ------------------------------------------------------------------------------


def walk(roots: Collection[Edge], oldest: int = 0) -> list[Node]:
    """All nodes that lead to the roots, newest first, as far back as tick ``oldest``. Creation order is topological."""
    seen = {e for e in roots if isinstance(e, Node)}
    stack = list(seen)
    while stack:
        for e in stack.pop().edges:
            if isinstance(e, Node) and e.seq >= oldest and e not in seen:
                seen.add(e)
                stack.append(e)
    return sorted(seen, key=attrgetter("seq"), reverse=True)


def unbroadcast(g: Value, shape: tuple[int, ...]) -> Value:
    """Sum a gradient down to the shape that its input had before it was broadcast."""
    return BACKENDS[type(g)].sum_to(g, shape) if type(g) in BACKENDS else g.sum_to_size(shape)


def sweep(
    seeds: dict[Edge, Value], create_graph: bool, retain: bool, targets: Collection[Edge] | None
) -> dict[Edge, Value]:
    """Push the seeds back through the graph and return the gradients of the leaves, or of the targets if given.

    Nothing is computed that does not lead to a target. Saved values go back to the allocator as the sweep passes
    them, unless ``retain``.
    """
    oldest = 0
    if targets is not None and all(isinstance(t, Node) for t in targets):
        oldest = min((t.seq for t in targets if isinstance(t, Node)), default=0)  # nothing older leads to a target
    order = walk(seeds, oldest)
    wanted: set[Edge] | None = None
    if targets is not None:
        wanted = set(targets)
        for node in reversed(order):
            if not wanted.isdisjoint(node.edges):
                wanted.add(node)
    found: dict[Edge, Any] = dict(seeds)
    watcher = thread_state.watchers[1]
    back = _back if watcher is None else functools.partial(watcher, _back)
    old, thread_state.grad = thread_state.grad, create_graph
    try:
        with np.errstate(all="ignore"):
            for node in order:
                g = found.pop(node, None)
                if g is None:
                    continue
                if isinstance(g, np.generic):  # NumPy's operators make scalars of 0-d arrays
                    g = np.asarray(g)
                if type(g) is list:
                    g = _fill(node, g)
                elif node.hooks:
                    g = _run_hooks(node.hooks, g)
                if wanted is not None:
                    if targets is not None and node in targets:
                        found[node] = g
                    if wanted.isdisjoint(node.edges):
                        continue
                if type(node) is Output:
                    parent = node.edges[0]
                    found.setdefault(parent, [None] * len(parent.outputs))[node.index] = g  # type: ignore[union-attr]
                    continue
                back(node, g, create_graph, wanted, found)
                if not retain:
                    node.saved = None
            for edge, g in found.items():
                if isinstance(edge, Variable) and edge.hooks:
                    found[edge] = _run_hooks(edge.hooks, np.asarray(g) if isinstance(g, np.generic) else g)
    finally:
        thread_state.grad = old
    return found


def _back(node: Node, g: Value, create_graph: bool, wanted: set[Edge] | None, found: dict[Edge, Any]) -> None:
    """One step of the sweep: run a node's rules, and add what they give to the gradients found so far."""
    plan = node.plan
    while isinstance(node.saved, Lazy):  # a checkpoint inside another takes two steps
        node.saved.fill()
    saved = node.saved
    if saved is None:
        raise GraphError(
            f"{plan.op_name}: backward through a graph whose saved values have been freed. Pass retain_graph=True to "
            f"the first backward to go through it again"
        )
    if version_counter.last_change > node.seq:
        version_counter.check_saved(plan.op_name, node.seq, plan.saved_names, saved)
    values = _lift(node, saved) if create_graph else saved
    if plan.backward is None:
        gradients: Sequence[Value] = [
            rule(g, *[shape if j < 0 else values[j] for j in places])
            if wanted is None or edge in wanted else None
            for (rule, places), shape, edge in zip(plan.rules, node.shapes, node.edges, strict=True)
        ]  # fmt: skip
    elif create_graph:
        gradients = _through_composite(node, values, g)
    else:
        needs = tuple(i for i, e in zip(plan.needs, node.edges, strict=True) if wanted is None or e in wanted)
        every = plan.backward(BACKENDS[type(g)], g, *[needs if j is None else values[j] for j in plan.backward_places])
        if not isinstance(every, tuple) or len(every) <= plan.needs[-1]:
            raise TypeError(
                f"{plan.op_name}: its backward function must return a tuple, a gradient for each leading argument, "
                f"got {f'{len(every)} of them' if isinstance(every, tuple) else type(every).__name__}"
            )
        gradients = [every[i] for i in plan.needs]
    for k, (edge, d, shape) in enumerate(zip(node.edges, gradients, node.shapes, strict=True)):
        if d is None:
            if plan.backward is None and (wanted is None or edge in wanted):
                raise TypeError(
                    f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} returned None; where there "
                    f"is no gradient, write None in place of the rule"
                )
            continue
        if getattr(d, "shape", None) != shape:
            d = _fit(plan, k, d, shape)
        if node.dtypes is not None and d.dtype != node.dtypes[k]:
            d = _cast(plan, k, d, node.dtypes[k])
        if anomaly_mode.watching:
            raw = [v.array if isinstance(v, Variable) else v for v in (*saved, g)]
            made = d.array if isinstance(d, Variable) else d
            made = np.asarray(made) if isinstance(made, np.generic) else made
            anomaly_mode.check_backward(plan.op_name, node.where, raw, made, plan.input_names[k])
        before = found.get(edge)
        found[edge] = d if before is None else before + d


def _fit(plan: Plan, k: int, d: Value, shape: tuple[int, ...]) -> Value:
    """Sum a gradient down to its input's shape; an error that names the rule if it cannot be."""
    if not hasattr(d, "shape"):
        raise TypeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} must give an array, "
            f"got {type(d).__name__}"
        )
    lead = len(d.shape) - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, d.shape[lead:], strict=True)):
        raise ShapeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} gave shape {tuple(d.shape)}, "
            f"which does not fit the argument's shape {shape}"
        )
    return unbroadcast(d, shape)


def _cast(plan: Plan, k: int, d: Value, dtype: Any) -> Value:
    """A gradient in the dtype that the input had before the op converted it."""
    if not plan.casts_gradients:
        raise DTypeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} gave {d.dtype}, the argument is "
            f"{dtype}; convert the gradient to that"
        )
    return d.to(dtype) if isinstance(d, Variable) else d.astype(dtype)  # type: ignore[attr-defined]


def _fill(node: Node, gradients: list[Value]) -> tuple[Value, ...]:
    """The gradients of all results of a node: zeros for those that nobody used."""
    known = next(g for g in gradients if g is not None)
    xp = BACKENDS[type(known.array if isinstance(known, Variable) else known)]
    return tuple(
        xp.zeros(shape, dtype) if g is None else g for g, (shape, dtype) in zip(gradients, node.outputs, strict=True)
    )


def _run_hooks(hooks: list[Callable[[Any], Any]], g: Value) -> Value:
    """Show a gradient to each hook in turn, and take what it gives back instead, if anything."""
    for hook in list(hooks):
        shown = g if isinstance(g, Variable) else wrap(g)
        changed = hook(shown)
        if changed is not None:
            got = describe(changed.array) if isinstance(changed, Variable) else type(changed).__name__
            if got != describe(shown.array):
                error = DTypeError if getattr(changed, "shape", None) == shown.array.shape else ShapeError
                raise error(f"hook: a gradient hook must return None or a Tensor {describe(shown.array)}, got {got}")
            g = changed if isinstance(g, Variable) else changed.array
    return g


def _lift(node: Node, saved: list[Any]) -> list[Any]:
    """The saved values as Variables at their places in the graph, so that what is computed from them is recorded."""
    values: list[Any] = []
    for value, k in zip(saved, node.plan.saved_edges, strict=True):
        if k is None or type(value) not in BACKENDS:
            values.append(value)
        elif k < 0:
            values.append(attach(value, node))
        else:
            edge = node.edges[k]
            if isinstance(edge, Variable) and edge.array is value:
                values.append(edge)
            elif isinstance(edge, Node) and node.dtypes is None:
                values.append(attach(value, edge))
            else:  # converted, or the leaf has got other data since: the same place, but not the same array
                values.append(attach(value, _alias_of(edge, value, node.dtypes[k] if node.dtypes else None)))
    return values


def _alias_of(edge: Edge, value: Array, dtype: Any = None) -> Node:
    node = Node(_ALIAS, [edge], [value.shape], [])
    if dtype is not None:
        node.dtypes = [dtype]
    return node


def _through_composite(node: Node, values: list[Any], g: Value) -> list[Value]:
    """The gradients of a fused op as Variables: compute its composite again, and differentiate that."""
    plan = node.plan
    args = [values[j] for j in plan.composite_places]
    leaves = []
    for i in plan.needs:
        leaf = args[i]
        args[i] = attach(leaf.array, _alias_of(leaf.node or leaf, leaf.array))
        leaves.append(args[i].node)
    assert plan.composite is not None
    out = plan.composite(*args)
    found = sweep({out.node: g}, True, True, leaves)
    return [found.get(leaf) for leaf in leaves]


_ALIAS = Plan("alias", (0,), ["x"], rules=[(lambda g: g, [])], is_view=True)


# ---- what users call ------------------------------------------------------------------------


def _seeds(name: str, outputs: Sequence[Any], gradients: Sequence[Any], create_graph: bool) -> dict[Edge, Value]:
    """The gradient that each output starts with, checked."""
    seeds: dict[Edge, Any] = {}
    if len(outputs) != len(gradients):
        raise GraphError(f"{name}: got {len(outputs)} outputs but {len(gradients)} gradients for them")
    for out, g in zip(outputs, gradients, strict=True):
        if not isinstance(out, Variable):
            raise TypeError(f"{name}: expected a Tensor to differentiate, got {type(out).__name__}")
        if not out.tracked:
            raise GraphError(
                f"{name}: this tensor of shape {tuple(out.array.shape)} does not require gradients and no op recorded "
                f"how it was made. Set requires_grad=True on what it is computed from, outside no_grad()"
            )
        if version_counter.rebased:
            version_counter.check_inputs(name, [out])
        if g is None:
            if out.array.size != 1:
                raise GraphError(
                    f"{name}: the gradient can be left out only for a scalar, and this tensor has shape "
                    f"{tuple(out.array.shape)}. Reduce it first (say .sum()), or pass a gradient of that shape"
                )
            g = BACKENDS[type(out.array)].ones_like(out.array)
        else:
            raw = g.array if isinstance(g, Variable) else g
            if type(raw) not in BACKENDS:
                raise TypeError(
                    f"{name}: the gradient must be a Tensor of shape {tuple(out.array.shape)}, got {type(raw).__name__}"
                )
            if type(raw) is not type(out.array):
                raise DeviceError(f"{name}: the gradient is {describe(raw)}, but the tensor is {describe(out.array)}")
            if raw.shape != out.array.shape:
                raise ShapeError(
                    f"{name}: a gradient of shape {tuple(raw.shape)} for a tensor of shape {tuple(out.array.shape)}"
                )
            if raw.dtype != out.array.dtype:
                raise DTypeError(f"{name}: a gradient of dtype {raw.dtype} for a tensor of dtype {out.array.dtype}")
            g = g if create_graph and isinstance(g, Variable) else raw
        if create_graph and not isinstance(g, Variable):
            g = wrap(g)
        edge = out.node or out
        with set_grad_enabled(create_graph):
            seeds[edge] = seeds[edge] + g if edge in seeds else g
    return seeds


def _as_list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of ``outputs`` (a Tensor or several) with respect to each of ``inputs``, as a tuple of Tensors.

    With several outputs, or one that is not a scalar, ``grad_outputs`` weighs them: the result is the vector-Jacobian
    product ``sum_k <grad_outputs[k], d outputs[k] / d input>``. Nothing is added to any ``.grad``.

    retain_graph: keep the saved values for another pass; by default what ``create_graph`` is.
    create_graph: record the computation of the gradients, so that they can be differentiated again.
    allow_unused: give None for an input that the outputs do not depend on, instead of raising GraphError.
    materialize_grads: give zeros for it.

    Raises GraphError if an output or an input does not require gradients, if a non-scalar output has no gradient, or if
    the graph has been freed; VersionError if a value that is needed was changed in place.
    """
    outputs, inputs = _as_list(outputs), _as_list(inputs)
    for x in inputs:
        if not isinstance(x, Variable):
            raise TypeError(f"grad: expected a Tensor as an input, got {type(x).__name__}")
        if not x.tracked:
            raise GraphError(
                f"grad: an input of shape {tuple(x.array.shape)} does not require gradients; set requires_grad=True on "
                f"it before computing the outputs"
            )
    seeds = _seeds(
        "grad", outputs, [None] * len(outputs) if grad_outputs is None else _as_list(grad_outputs), create_graph
    )
    retain = create_graph if retain_graph is None else retain_graph
    edges = [x.node or x for x in inputs]
    found = sweep(seeds, create_graph, retain, set(edges))
    if materialize_grads:
        for edge, x in zip(edges, inputs, strict=True):
            if edge not in found:
                zeros = BACKENDS[type(x.array)].zeros(x.array.shape, x.array.dtype)
                found[edge] = wrap(zeros) if create_graph else zeros
    elif not allow_unused:
        for k, edge in enumerate(edges):
            if edge not in found:
                raise GraphError(
                    f"grad: the outputs do not depend on input {k}, of shape {tuple(inputs[k].array.shape)}; "
                    f"pass allow_unused=True to get None for it"
                )
    if create_graph:
        return tuple(found.get(e) for e in edges)
    mine = _Ownership(seeds.values())
    return tuple(wrap(mine.take(found[e])) if e in found else None for e in edges)


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of ``tensors`` to the ``.grad`` of the leaves they depend on, or of ``inputs`` if given.

    grad_tensors: the weight of each, as ``grad_outputs`` in :func:`grad`, which has the other arguments and the errors.
    """
    outputs = _as_list(tensors)
    weights = [None] * len(outputs) if grad_tensors is None else _as_list(grad_tensors)
    seeds = _seeds("backward", outputs, weights, create_graph)
    retain = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        found = sweep(seeds, create_graph, retain, None)
        receivers = {e: e for e in found if isinstance(e, Variable)}
    else:
        inputs = _as_list(inputs)
        if not inputs:
            raise GraphError("backward: inputs is empty; leave it out for the gradients of all leaves")
        for x in inputs:
            if not isinstance(x, Variable) or not x.tracked:
                raise GraphError("backward: every one of inputs must be a Tensor that requires gradients")
        receivers = {x.node or x: x for x in inputs}
        found = sweep(seeds, create_graph, retain, set(receivers))
    mine = _Ownership(seeds.values())
    for edge, x in receivers.items():
        if edge in found:
            accumulate_grad(x, found[edge] if create_graph else mine.take(found[edge]))


def accumulate_grad(x: Variable, g: Value) -> None:
    """Add to ``x.grad``: in place where no graph can notice, so that who holds it sees the sum."""
    if x.grad is None:
        x.grad = g if isinstance(g, Variable) else wrap(g)
    elif not isinstance(x.grad, Variable) or x.grad.array.shape != g.shape:
        raise ShapeError(
            f"backward: grad was set to {describe(getattr(x.grad, 'array', x.grad))}, and the gradient to add to it "
            f"has shape {tuple(g.shape)}; set it to None, or to a Tensor of that shape"
        )
    elif isinstance(g, Variable) or x.grad.tracked or x.grad.array.dtype != g.dtype:
        with set_grad_enabled(isinstance(g, Variable)):
            x.grad = x.grad + g
    else:
        x.grad.array += g
        version_counter.touch(x.grad.array)


class _Ownership:
    """Sees to it that no two gradients handed out share memory: rules may pass on the gradient they got, or a view."""

    def __init__(self, seeds: Collection[Value]) -> None:
        roots = [version_counter.owner(g.array if isinstance(g, Variable) else g) for g in seeds]
        self.taken = {id(r): r for r in roots}

    def take(self, g: Value) -> Array:
        xp = BACKENDS.get(type(g))
        if xp is None:  # a NumPy scalar
            return np.asarray(g)
        root = version_counter.owner(g)
        broadcast = not getattr(g.flags, "writeable", True)  # of one entry to one entry: NumPy forbids to write
        if id(root) in self.taken or root.size != g.size or root.base is not None or not g.size or broadcast:
            return xp.array(g, copy=True, order="C")
        self.taken[id(root)] = root
        return g


def retain_grad(x: Variable) -> None:
    """Make ``backward`` fill ``x.grad`` although x is not a leaf."""
    if not x.tracked:
        raise GraphError("retain_grad: this tensor does not require gradients")
    if x.node is None:
        return
    ref = weakref.ref(x)

    def keep(g: Any) -> None:
        tensor = ref()
        if tensor is not None:
            accumulate_grad(tensor, g if g.tracked else g.array.copy())

    add_hook(x, keep)


def add_hook(x: Variable, hook: Callable[[Any], Any]) -> Callable[[], None]:
    """Show the gradient of ``x`` to ``hook`` in every backward; what it returns, if not None, takes its place.

    Returns a function that takes the hook away again. Raises GraphError if x does not require gradients.
    """
    if not callable(hook):
        raise TypeError(f"register_hook: expected a function of the gradient, got {type(hook).__name__}")
    if not x.tracked:
        raise GraphError("register_hook: this tensor does not require gradients, so it will never get any")
    place = x.node or x
    if place.hooks is None:
        place.hooks = []
    hooks = place.hooks
    hooks.append(hook)

    def remove() -> None:
        if hook in hooks:
            hooks.remove(hook)

    return remove
