"""Ops: functions on raw arrays with gradient rules, and what a call of one does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

import numpy as np

from ..backends.registry import BACKENDS, Array, backend_of, describe_array
from ..dtypes import POLICIES, Policy
from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from . import anomaly_mode, version_counter
from .grad_mode import grad_mode
from .graph import Node, Output, Plan, Rule, Value, Variable, wrap
from .op_hooks import op_runner
from .views import record_view, regenerate_view, regenerate_views

__all__ = ["Op", "OpFunction", "op"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "unbiased": "correction", "size": "shape"}
"""Other names of arguments, NumPy's and PyTorch's, that every op accepts."""


class Op:
    """A forward function on raw arrays, its gradient rules, and the plans compiled for it. Made by :func:`op`."""

    replay: Callable[..., Any] | None = None  # of a view op, what does the same in memory of any order

    def __init__(
        self,
        forward: Callable[..., Any],
        rules: Sequence[Rule | None],
        *,
        backward: Callable[..., Any] | None = None,
        composite: Callable[..., Any] | None = None,
        dtypes: Policy | None = None,
        aux: Sequence[str] = (),
        multi_output: bool = False,
        view: bool = False,
        accepts_dtype: bool = False,
    ) -> None:
        self.forward, self.rules, self.composite, self.backward = forward, tuple(rules), composite, backward
        self.dtypes, self.aux = dtypes, tuple(aux)
        self.multi_output, self.view, self.accepts_dtype = multi_output, view, accepts_dtype
        self.name = forward.__name__.strip("_")
        self.built_in = forward.__module__.startswith("tensorlite.")
        self.plans: dict[Any, Plan] = {}
        self.orders: dict[Any, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {}

        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.signature = inspect.Signature(self._public_parameters(parameters))
        self.names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
        self.variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.defaults = [p.default for p in parameters if p.kind is not p.VAR_POSITIONAL]
        public = list(self.signature.parameters)
        self.renamed = {**NUMPY_NAMES, **dict(zip(("input", "other"), public)), **dict(zip(self.names, public))}
        self.renamed |= {name: name for name in public}
        self._check_rules()
        self.wants = [() if r is None else tuple(inspect.signature(r).parameters)[1:] for r in self.rules]
        self.backward_names = () if backward is None else tuple(inspect.signature(backward).parameters)[2:]
        self._check_names()

    def _public_parameters(self, parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
        """Return the parameters as callers see them. In the library's own ops ``x`` and ``y`` have PyTorch's names."""
        theirs = iter(("input", "other"))
        names = {p.name: next(theirs) for p in parameters if p.name in ("x", "y")} if self.built_in else {}
        return [p.replace(name=names.get(p.name, p.name), annotation=p.empty) for p in parameters]

    @property
    def public_signature(self) -> inspect.Signature:
        """The signature of the op's function, with ``dtype`` where :meth:`bind` accepts it."""
        dtype = inspect.Parameter("dtype", inspect.Parameter.KEYWORD_ONLY, default=None)
        return inspect.Signature([*self.signature.parameters.values(), *[dtype] * self.accepts_dtype])

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
            (set() if self.multi_output else {"out", *self.aux})
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
        """Return the arguments by position, defaults filled in; PyTorch's names for them count too.

        Raises TypeError, which names the op. Later calls with the same names find the order of their arguments in
        ``orders``.
        """
        if self.accepts_dtype and "dtype" in kwargs:
            dtype = kwargs.pop("dtype")
            first, *rest = self.bind(args, kwargs)
            if dtype is not None and not isinstance(first, Variable):
                raise TypeError(f"{self.name}: expected a Tensor, got {type(first).__name__}")
            return (first if dtype is None else first.to(dtype=dtype), *rest)
        order = self._order(len(args), tuple(kwargs))
        if len(order) > 1 and not self.variadic:
            self.orders[len(args), *kwargs] = itemgetter(*order)
        values = (*args, *kwargs.values(), *self.defaults)
        return tuple(values[k] for k in order)

    def _order(self, n: int, keywords: tuple[str, ...]) -> list[int]:
        """Return where each argument is among n positional values, then the keywords' values, then the defaults."""
        places: dict[str, int] = {}
        for k, keyword in enumerate(keywords):
            name = self.renamed.get(keyword, keyword)
            if name in places:
                raise TypeError(f"{self.name}: {keywords[places[name] - n]} and {keyword} are the same argument")
            places[name] = n + k
        try:
            bound = self.signature.bind(*range(n), **places).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; its signature is {self.name}{self.public_signature}") from None
        public = [name for name in self.signature.parameters if name != self.variadic]
        order = [bound.get(name, n + len(keywords) + k) for k, name in enumerate(public)]
        return order + list(bound.get(self.variadic or "", ()))

    def argument_names(self, n: int) -> list[str]:
        """The names of the arguments of a call with n of them, then ``out`` and the auxiliary results."""
        names = list(self.names)
        if self.variadic:
            names += [f"{self.variadic}[{k}]" for k in range(n - len(names))]
        return [*names, "out", *self.aux]

    def check_constant(self, value: Any, position: int) -> Any:
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
        if version_counter.inplace_in_graph:
            regenerate_views(self.name, args)
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
                f"{'; for several results pass multi_output=True' * isinstance(out, (tuple, list))}"
            )
        return xp.asarray(out)

    def translate_error(self, error: Exception, args: Sequence[Any]) -> Exception:
        """One clear error for what the forward function, NumPy or CuPy said about these arguments."""
        message = str(error)
        ours = type(error).__module__.startswith("tensorlite.")
        if isinstance(error, Warning) or (ours and message.startswith(self.name)):
            return error
        arrays = [a for a in args if type(a) in BACKENDS]
        call = f"{self.name}({', '.join(map(describe_array, arrays))})"
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
            call = f"{self.name}({', '.join(describe_array(a) if type(a) in BACKENDS else f'{a!r:.40}' for a in args)})"
            return DTypeError(f"{call}: this op is not defined for arguments of these types")
        return TypeError(f"{call}: {message}")


def _holds(dtype: Any, number: int) -> bool:
    return int(np.iinfo(dtype).min) <= number <= int(np.iinfo(dtype).max)


class OpFunction(Protocol[P, R]):
    """What :func:`op` makes: called with Tensors it gives a Tensor, called with raw arrays alone a raw array."""

    op: Op

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


_PLAIN = {int, float, bool, type(None)}
"""Argument types that go to the forward function as they are."""


@overload
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Callable[..., Any] | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: Literal[False] = False,
    view: bool = False,
    accepts_dtype: bool = False,
) -> Callable[[Callable[Concatenate[Any, P], Any]], OpFunction[P, Value]]: ...
@overload
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Callable[..., Any] | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: Literal[True],
    view: bool = False,
    accepts_dtype: bool = False,
) -> Callable[[Callable[Concatenate[Any, P], Any]], OpFunction[P, tuple[Value, ...]]]: ...
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Callable[..., Any] | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: bool = False,
    view: bool = False,
    accepts_dtype: bool = False,
) -> Any:
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
    multi_output: the function returns a tuple of results, and its rule gets the tuple of their gradients.
    view: the result may share memory with the first argument.
    accepts_dtype: calls may give ``dtype=``, to which the first argument, a Tensor, is converted before anything else.

    Raises TypeError if a rule names something the op does not have, or if there are more rules than arguments.
    """
    if backward is not None and composite is None:
        raise TypeError("op: a backward function needs a composite, so that its gradient can be differentiated again")
    if isinstance(dtypes, str) and dtypes not in POLICIES:
        raise ValueError(f"op: dtypes={dtypes!r} is no policy; choose from {', '.join(map(repr, POLICIES))}")
    policy = POLICIES[dtypes] if isinstance(dtypes, str) else dtypes

    def decorate(forward: Callable[..., Any]) -> OpFunction[..., Any]:
        if not inspect.isfunction(forward):
            raise TypeError(
                f"op: expected a function to decorate, got {type(forward).__name__}; write @op(...), with parentheses"
            )
        return make_op_function(Op(forward, rules, backward=backward, composite=composite, dtypes=policy, aux=aux,
                            multi_output=multi_output, view=view, accepts_dtype=accepts_dtype))  # fmt: skip

    return decorate


def make_op_function(self: Op) -> OpFunction[..., Any]:
    """The public function of an op. This is the hot path of the library: all that it can know is a local name."""
    forward, aux, policy, multi_output, built_in = self.forward, self.aux, self.dtypes, self.multi_output, self.built_in
    arity, variadic, differentiable = len(self.names), self.variadic is not None, bool(self.rules or self.backward)
    defaults, mode, runner = tuple(self.defaults), grad_mode, op_runner
    new, ndarray = object.__new__, np.ndarray
    backends, orders = BACKENDS, self.orders
    view, inplace_in_graph, rules = self.view and not multi_output, version_counter.inplace_in_graph, len(self.rules)
    required = sum(d is inspect.Parameter.empty for d in defaults)
    meet = slice(arity, None) if variadic else slice(0, len(self.rules) or None)  # the arguments whose dtypes must fit

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            order = orders.get((len(args), *kwargs))
            args = self.bind(args, kwargs) if order is None else order((*args, *kwargs.values(), *defaults))
        elif len(args) != arity and not (variadic and len(args) > arity):
            if len(args) > arity or len(args) < required:
                args = self.bind(args, kwargs)
        arrays: list[Any] = []
        needs: tuple[int, ...] = ()
        dtype, grad = None, mode.enabled
        raw, mixed = True, False
        for a in args:
            if isinstance(a, Variable):
                raw = False
                if grad and (a.tracked or (inplace_in_graph and regenerate_view(a))):
                    needs += (len(arrays),)
                a = a.array
                if a.dtype is not dtype:
                    mixed, dtype = mixed or dtype is not None, a.dtype
            elif type(a) is ndarray:
                mixed = True  # perhaps: the policy looks at its dtype
            elif type(a) not in _PLAIN and (type(a) is not tuple or len(arrays) < rules):
                a = self.check_constant(a, len(arrays))
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
                    BACKENDS[type(a)]  # raises: the array of a Tensor is a Tensor
            got = ", ".join(map(describe_array, arrays)) or "nothing"
            raise TypeError(f"{self.name}: expected a Tensor, got {got}")
        try:
            if built_in:
                out = runner.run(forward, xp, *arrays)
            elif runner.hooks.forward is None:
                out = forward(xp, *arrays)
            else:
                out = runner.hooks.forward(_plainly, forward, xp, *arrays)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            if not built_in:
                raise
            raise self.translate_error(error, arrays) from None
        except RuntimeError as error:
            if not str(error).startswith("cannot enter context"):
                raise
            with np.errstate(all="ignore"):  # another op is running: this is a debugger, a signal handler, a finaliser
                out = forward(xp, *arrays)

        if multi_output:
            outs = tuple(o if type(o) in BACKENDS else self._array_of_result(xp, o) for o in out)
            if raw:
                return outs
            results = tuple(map(wrap, outs))
            if needs and differentiable:
                node = self.record(args, given, arrays, needs, [*arrays, None])
                node.outputs = [(o.shape, o.dtype) for o in outs]
                for k, result in enumerate(results):
                    result.node, result.tracked = Output(node, k), True
            if anomaly_mode.enabled:
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
            result.view_info = record_view(args[0], self.replay or call, args[1:], out)
        if needs and differentiable:
            result.node, result.tracked = self.record(args, given, arrays, needs, [*arrays, out, *extra]), True
        if anomaly_mode.enabled:
            anomaly_mode.check_forward(self.name, given, out, result.node)
        return result

    functools.update_wrapper(call, self.forward)
    del call.__wrapped__  # type: ignore[attr-defined]  # its signature has the namespace, which no caller passes
    call.__signature__ = self.public_signature  # type: ignore[attr-defined]
    call.__name__ = self.name
    call.op = self  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _plainly(f: Callable[..., Any], *args: Any) -> Any:
    return f(*args)
