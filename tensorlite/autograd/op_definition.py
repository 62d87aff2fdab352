"""The definition of an op: its signature, its gradient rules and the plans made from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from ..backends.registry import BACKENDS, Array, plain_array
from ..dtypes import DType, Policy, as_dtype, bfloat16_among, float32, float64, narrow_beside_number, narrow_dtype
from ..errors import GraphError
from ..scalars import as_number
from . import version_counter
from .autocast_mode import forget_conversion
from .compact_values import compact_values
from .graph import Edge, Node, Plan, Rule, Value, Variable
from .user_ops import guarded_backward, guarded_rule
from .views import regenerate_views

__all__ = ["Op"]

FindNarrow: TypeAlias = Callable[[Collection[Any]], DType | None]
"""A function of the arguments of an op, which returns the dtype of those that are converted to float32, or None."""

NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "unbiased": "correction", "size": "shape"}
"""Other names of arguments, NumPy's and PyTorch's, that every op accepts."""

_OF_INPUT = {"in_shape": -1, "given_dtype": -2}
"""What a rule may name besides values: the shape of its input, and the dtype that it had before autocast."""


def _is_flag(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function annotates its argument of this name as a boolean."""
    return function.__annotations__.get(name) in ("bool", bool)


_new = object.__new__


def _slice_of(positions: list[int]) -> slice | None:
    """Return the slice of a list that has the entries at these increasing positions, None if others lie between."""
    first = positions[0] if positions else 0
    stop = first + len(positions)
    return slice(first, stop) if positions == list(range(first, stop)) else None


class Op:
    """The definition of an op: its function on raw arrays, its gradient rules and the plans made from them.

    The parameters are those of :func:`op`, which makes it.

    signature: the parameters of the op, by the names that callers see.
    names: the names of its arguments in its own function. variadic: the name of ``*tensors``, or None.
    defaults: the defaults of its arguments. flags: the positions of those that built-in ops annotate as bool.
    wants: for each rule the names of its parameters after ``g``. backward_names: those of ``backward`` after ``xp, g``,
        except for ``given_dtypes``. takes_given_dtypes: whether its last parameter is that.
    plans: the plan for each choice of differentiated inputs, made on first use.
    orders: the order of the arguments for each choice of keywords, made on first use.
    replay: for a view op, a function that returns the same values when the memory order of x does not allow a view.
    function: the public function of the op, which ``make_op_function`` makes.
    """

    replay: Callable[..., Any] | None = None
    function: Callable[..., Any]

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
        widen: bool | str = False,
        autocast: str | None = None,
        bfloat16: bool | str = False,
    ) -> None:
        self.forward, self.rules, self.composite, self.backward = forward, tuple(rules), composite, backward
        self.dtypes, self.aux = dtypes, tuple(aux)
        self.multi_output, self.view, self.accepts_dtype, self.widen = multi_output, view, accepts_dtype, widen
        self.autocast = autocast
        self.bfloat16 = True if view else bfloat16
        self.find_narrow, self.find_narrow_backward = self._conversions()
        self.name = forward.__name__.strip("_")
        self.built_in = (forward.__module__ or "").startswith("tensorlite.")  # exec() may give none
        self.plans: dict[Any, Plan] = {}
        self.orders: dict[Any, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {}

        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.signature = inspect.Signature(self._public_parameters(parameters))
        self.names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
        self.variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.defaults = [p.default for p in parameters if p.kind is not p.VAR_POSITIONAL]
        self.flags = [i for i, name in enumerate(self.names) if self.built_in and _is_flag(forward, name)]
        public = list(self.signature.parameters)
        self.renamed = {**NUMPY_NAMES, **dict(zip(("input", "other"), public)), **dict(zip(self.names, public))}
        self.renamed |= {name: name for name in public}
        self._check_rules()
        self.wants = [() if r is None else tuple(inspect.signature(r).parameters)[1:] for r in self.rules]
        names = [] if backward is None else list(inspect.signature(backward).parameters)[2:]
        self.takes_given_dtypes = names[-1:] == ["given_dtypes"]
        self.backward_names = tuple(names[:-1] if self.takes_given_dtypes else names)
        self._check_names()

    def _conversions(self) -> tuple[FindNarrow | None, FindNarrow | None]:
        """Return what finds the dtype that is converted to float32, for the function and for its gradient rules.

        It returns None if nothing is to be converted.
        """
        forward = {True: narrow_dtype, "numbers": narrow_beside_number}.get(self.widen)
        if forward is None and self.bfloat16 not in (True, "forward"):
            forward = bfloat16_among
        backward = narrow_dtype if self.widen else bfloat16_among if self.bfloat16 in (False, "forward") else None
        return forward, backward

    def _public_parameters(self, parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
        """Return the parameters as callers see them: in built-in ops ``x`` and ``y`` have PyTorch's names."""
        pytorch_names = iter(("input", "other"))
        names = {p.name: next(pytorch_names) for p in parameters if p.name in ("x", "y")} if self.built_in else {}
        return [p.replace(name=names.get(p.name, p.name), annotation=p.empty) for p in parameters]

    @property
    def public_signature(self) -> inspect.Signature:
        """Return the signature that callers see, with ``dtype`` if the op accepts it."""
        dtype = inspect.Parameter("dtype", inspect.Parameter.KEYWORD_ONLY, default=None)
        return inspect.Signature([*self.signature.parameters.values(), *[dtype] * self.accepts_dtype])

    def _check_rules(self) -> None:
        """Raise TypeError if there are no arguments, more rules than arguments, or a rule that is not a function."""
        arguments = [*self.names, *filter(None, [self.variadic])]
        if not arguments:
            raise TypeError(f"op {self.name}: its function must take the namespace xp, and then at least one argument")
        if len(self.rules) > len(arguments):
            raise TypeError(f"op {self.name}: {len(self.rules)} gradient rules for arguments {', '.join(arguments)}")
        for rule in self.rules:
            if rule is not None and not (callable(rule) and inspect.signature(rule).parameters):
                raise TypeError(
                    f"op {self.name}: expected a gradient rule, a function of g and of values by name, got {rule!r}"
                )

    def _check_names(self) -> None:
        """Raise TypeError if a rule names a value that the op does not have."""
        known = (
            (set() if self.multi_output else {"out", *self.aux})
            | {*self.names}
            | ({self.variadic, "index"} if self.variadic else set())
        )
        for names in (*(set(w) - _OF_INPUT.keys() for w in self.wants), set(self.backward_names) - {"needs"}):
            if unknown := set(names) - known:
                raise TypeError(
                    f"op {self.name}: its gradient rule names {', '.join(sorted(unknown))}, but it can only name "
                    f"{', '.join([*self.names, *filter(None, [self.variadic]), 'out', *_OF_INPUT, *self.aux])}"
                )

    def rule(self, i: int) -> Rule | None:
        """Return the gradient rule of argument ``i``. All tensors of a variadic op share the last rule."""
        if i < len(self.rules):
            return self.rules[i]
        return self.rules[-1] if self.variadic and self.rules else None

    def plan(self, needs: tuple[int, ...], names: list[str]) -> Plan:
        """Return the plan for calls that differentiate the arguments at ``needs``.

        names: the names of the arguments of such a call, then ``out``, then those of the auxiliary results.
        Raises GraphError if one of these arguments has no gradient rule.
        """
        for i in needs:
            if self.backward is None and self.rule(i) is None:
                raise GraphError(f"{self.name}: no gradient is defined for its argument {names[i]!r}. detach() it.")
        needed = self._saved_names(needs, names)
        inputs = range(len(names) - 1 - len(self.aux)) if self.composite is not None else range(0)
        keep = [p for p, name in enumerate(names) if name in needed or p in inputs]
        at = {p: k for k, p in enumerate(keep)}  # position of a value -> its place among the saved values
        out = names.index("out")
        fused, rules, backward = self.backward is not None, [], self.backward
        if not fused:
            rules = [self._bind_rule(i, names, at) for i in needs]
        if not self.built_in:
            rules = [
                (guarded_rule(self.name, names[i], rule, self.rule(i)), places)
                for i, (rule, places) in zip(needs, rules, strict=False)  # fused ops have no rules
            ]
            backward = guarded_backward(self.name, backward) if backward is not None else None
        return Plan(
            op_name=self.name,
            needs=needs,
            input_names=[names[i] for i in needs],
            saved_positions=keep,
            saved_slice=_slice_of(keep),
            saved_names=[names[p] for p in keep],
            saved_edges=[-1 if p == out else needs.index(p) if p in needs else None for p in keep],
            rules=rules,
            backward=backward,
            backward_places=[at[names.index(n)] if n != "needs" else None for n in self.backward_names],
            takes_given_dtypes=self.takes_given_dtypes,
            composite=self.composite,
            composite_places=[at[p] for p in inputs],
            is_view=self.view,
            built_in=self.built_in,
            casts_gradients=(
                self.built_in or self.dtypes is not None or bool(self.widen) or self.autocast not in (None, "follow")
            ),
            find_narrow=self.find_narrow_backward,
            op=self,
        )

    def _saved_names(self, needs: tuple[int, ...], names: list[str]) -> set[str]:
        """Return the names of the values that a node must save to differentiate these arguments."""
        if self.backward is not None:
            return set(self.backward_names)
        needed = {n for i in needs for n in self.wants[min(i, len(self.wants) - 1)]}
        if self.variadic in needed:
            needed |= {n for n in names if n.startswith(f"{self.variadic}[")}
        return needed

    def _bind_rule(self, i: int, names: list[str], at: dict[int, int]) -> tuple[Rule, list[int]]:
        """Return the rule of argument ``i``, and the places of the rule's arguments among the saved values.

        The places in ``_OF_INPUT`` stand for what the engine knows of argument ``i``.
        """
        rule, wants = self.rule(i), self.wants[min(i, len(self.wants) - 1)]
        assert rule is not None
        if not self.variadic or not {self.variadic, "index"} & set(wants):
            return rule, [_OF_INPUT[n] if n in _OF_INPUT else at[names.index(n)] for n in wants]
        # The rule of a variadic op may also name ``index``, the number of its tensor, and the tuple of all tensors.
        places = [at[p] for p, n in enumerate(names) if n.startswith(f"{self.variadic}[") and p in at]
        fixed = [
            _OF_INPUT[n] if n in _OF_INPUT else at[names.index(n)] for n in wants if n not in (self.variadic, "index")
        ]

        def with_index(g: Value, *values: Value) -> Value:
            rest, tensors = iter(values[len(places) :]), values[: len(places)]
            chosen = {self.variadic: tensors, "index": i - len(self.names)}
            return rule(g, *(chosen[n] if n in chosen else next(rest) for n in wants))

        with_index.rule = rule  # type: ignore[attr-defined]  # for a plan of a recorded step
        return with_index, places + fixed

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return all arguments by position, defaults included. PyTorch's and NumPy's names for them are accepted.

        The order is kept in ``orders``, where later calls with the same keywords find it.
        Raises TypeError, with the op's name and signature, if the arguments do not fit.
        """
        if self.accepts_dtype and kwargs.get("dtype", 0) is None:
            del kwargs["dtype"]
        order = self._order(len(args), tuple(kwargs))
        if len(order) > 1 and not self.variadic:
            self.orders[len(args), *kwargs] = itemgetter(*order)
        values = (*args, *kwargs.values(), *self.defaults)
        return tuple(values[k] for k in order)

    def call_in_dtype(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of ``call``, the op's public function, for arguments with ``dtype=``.

        The first argument is converted to that dtype before the op, and the result after it, because NumPy sums
        integers and booleans in int64. Raises TypeError if the first argument is not a Tensor.
        """
        dtype = as_dtype(kwargs.pop("dtype"))
        first, *rest = self.bind(args, kwargs)
        if not isinstance(first, Variable):
            raise TypeError(f"{self.name}: expected a Tensor, got {type(first).__name__}")
        out = call(first.to(dtype=dtype), *rest)  # type: ignore[attr-defined]
        return out if out.dtype == dtype else out.to(dtype=dtype)

    def _order(self, n: int, keywords: tuple[str, ...]) -> list[int]:
        """Return the place of each argument among n positional values, the keywords' values and the defaults."""
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
        """Return the names of the values of a call with n arguments: those, ``out`` and the auxiliary results."""
        names = list(self.names)
        if self.variadic:
            names += [f"{self.variadic}[{k}]" for k in range(n - len(names))]
        return [*names, "out", *self.aux]

    def check_constant(self, value: Any, position: int) -> Any:
        """Return a constant argument as the op's function gets it. Raises TypeError for other data."""
        if type(value) in BACKENDS or (type(value) is str and position >= len(self.rules)):
            return value
        if isinstance(value, np.generic):
            return value.item()  # NumPy's scalars are treated as Python's, so that they never upcast a tensor
        if isinstance(value, np.ndarray):
            return plain_array(self.name, value)  # a subclass of NumPy's arrays
        if hasattr(value, "__array__"):
            kind = type(value)
            raise TypeError(
                f"{self.name}: expected a Tensor or an array of its device, got {kind.__module__}.{kind.__name__}. "
                f"Make a Tensor of it with tl.tensor()."
            )
        if (number := as_number(value)) is not None:
            return number  # such as a Fraction, of which NumPy would make an array of objects
        if isinstance(value, (list, tuple, str)) and position < len(self.rules) and self.rules[position] is not None:
            raise TypeError(
                f"{self.name}: expected a Tensor or a number, got a {type(value).__name__}. Make it one with tensor()."
            )
        return value

    def record(
        self, args: Sequence[Any], given: list[Any], arrays: list[Any], needs: tuple[int, ...], edges: list[Edge],
        shapes: list[tuple[int, ...]], values: tuple[Any, ...], dtype: Any,
    ) -> Node:  # fmt: skip
        """Return the node of one call.

        args: the arguments. given: the same as raw arrays. arrays: those in the dtypes that the op computed in.
        needs, edges, shapes: the positions of the differentiated arguments, their edges and their shapes.
        values: the arrays, the result, the auxiliary results.
        dtype: that of the last Tensor among the arguments.
        """
        key = (needs, len(args)) if self.variadic else needs
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = self.plan(needs, self.argument_names(len(args)))
        if version_counter.inplace_in_graph:
            regenerate_views(self.name, args)
            edges = [args[i].node or args[i] for i in needs]
        adjacent = plan.saved_slice
        saved = values[adjacent] if adjacent is not None else tuple([values[p] for p in plan.saved_positions])
        node = _new(Node)  # as new_node does, without the time of a call
        node.plan, node.edges, node.shapes, node.saved = plan, edges, shapes, saved
        node.seq = version_counter.clock()
        narrow = (dtype is not float32 and dtype is not float64 and arrays[needs[0]].dtype.itemsize < 4
                  and (self.find_narrow_backward is not None or self.backward is not None))  # fmt: skip
        if arrays is not given or not self.built_in or narrow:
            node.dtypes = [given[i].dtype for i in needs]
            if arrays is not given and (parameter := compact_values(node, args, given, arrays)) is not None:
                forget_conversion(parameter)
        return node

    def result_array(self, xp: Any, out: Any) -> Array:
        """Return a scalar result as a 0-d array, because NumPy turns 0-d results into scalars. Raises TypeError."""
        if not isinstance(out, (np.generic, int, float, complex)):
            raise TypeError(
                f"{self.name}: the function must return a raw array, got {type(out).__name__}"
                f"{'. For several results pass multi_output=True.' * isinstance(out, (tuple, list))}"
            )
        return xp.asarray(out)
