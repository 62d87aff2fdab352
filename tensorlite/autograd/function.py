"""Ops: make functions on raw arrays differentiable."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

import numpy as np

from ..backends.registry import BACKENDS, backend_of, bfloat16_namespace, describe_array
from ..dtypes import (
    POLICIES,
    Policy,
    accumulate_dtype,
    convert_arrays,
    float16,
    float32,
    float64,
)
from ..scalars import flag_in
from . import anomaly_mode, version_counter
from .autocast_mode import CLASSES, cast_arguments, casting
from .graph import Edge, Output, Rule, Value, Variable, wrap
from .op_definition import Op
from .op_errors import translate_error
from .thread_state import threads
from .user_ops import call_forward, check_recordable, run_user
from .usual_call import with_usual_call
from .views import record_view, regenerate_view

__all__ = ["OpFunction", "op"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class OpFunction(Protocol[P, R]):
    """A function made by :func:`op`.

    It returns a Tensor if an argument is a Tensor, and a raw array if all its arguments are raw arrays.
    """

    op: Op

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


_CONSTANT_TYPES = {int, float, bool, type(None)}
"""Types of arguments that the op's function gets unchanged."""


@overload
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Rule | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: Literal[False] = False,
    view: bool = False,
    accepts_dtype: bool = False,
    widen: bool | str = False,
    autocast: str | None = None,
    bfloat16: bool | str = False,
) -> Callable[[Callable[Concatenate[Any, P], Any]], OpFunction[P, Value]]: ...
@overload
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Rule | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: Literal[True],
    view: bool = False,
    accepts_dtype: bool = False,
    widen: bool | str = False,
    autocast: str | None = None,
    bfloat16: bool | str = False,
) -> Callable[[Callable[Concatenate[Any, P], Any]], OpFunction[P, tuple[Value, ...]]]: ...
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Rule | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: bool = False,
    view: bool = False,
    accepts_dtype: bool = False,
    widen: bool | str = False,
    autocast: str | None = None,
    bfloat16: bool | str = False,
) -> Any:
    """Return a decorator that makes a differentiable op of a function on raw arrays.

        @op(lambda g, y: g * y,          # gradient for x
            lambda g, x: g * x)          # gradient for y
        def mul(xp, x, y):
            return x * y

    The function gets the namespace ``xp`` of its arrays (NumPy's names, or CuPy's), then its arguments. Every Tensor
    among them arrives as a raw array.

    rules: one gradient rule for each leading argument, None where no gradient exists. A rule gets the gradient ``g`` of
        the result, and the values that its other parameters *name*: arguments, ``out`` (the result), ``in_shape`` (the
        shape of its input) or ``given_dtype`` (the dtype of its input before the op converted it; None for an op of the
        library that converted nothing). A node saves only the values that its rules name. A rule uses operators and
        public ops only, and never changes ``g``. It returns a gradient of the input's dtype. That gradient may have the
        broadcast shape: the engine sums it to the shape of the input.
    backward: one function ``(xp, g, <names>) -> tuple of gradients`` on raw arrays, instead of rules. It returns one
        gradient for each leading argument. It may name ``needs``, the positions of the arguments that need a gradient,
        and return None for the others. Its last parameter may be ``given_dtypes``, a dict from each of these positions
        to its ``given_dtype``, or None. It needs a ``composite``.
    composite: the same function in plain ops, which is differentiated when the gradient itself must be differentiable.
    dtypes: how inputs of different dtypes are combined: None (unchanged), "promote" (as PyTorch does), "float" (the
        same, and integers become the default float dtype), "scale" and "float_scale" (the same two, except that a 0-d
        array next to float16 becomes float32), "round" (as "promote", and next to bfloat16 numbers are rounded to it),
        "choose" (as "promote", except for the first argument, a condition), "bits" (as "promote", and floats are an
        error), "compare" (as "promote" among floats; integers of different widths are compared exactly), "same"
        (mixing is an error), "floating" (integers are an error too).
    aux: the names of further arrays that the function returns after its result, for ``backward`` to name.
    multi_output: whether the function returns a tuple of results; then a rule gets the tuple of their gradients.
    view: whether the result may share memory with the first argument.
    accepts_dtype: whether calls may give ``dtype=``, to which the first argument is converted first. Integer results
        are converted to it, too.
    widen: whether float16 arrays are converted to float32 for the function and its gradient rules, and their results
        back, so that each result is rounded once. "backward" does so for the gradient rules alone, "numbers" also for
        the function where one of the arguments is a number that float16 would round. Set it for ops that add up, or
        that compute in several steps.
    autocast: the dtype of the call inside :class:`tensorlite.autocast`: "lower" (that of the context), "float32",
        "widest" (that to which the arguments are promoted) or "follow" (as without autocast). None is "follow", and for
        the library's own ops the class in ``tensorlite/amp/op_classes.py``.
    bfloat16: whether the function and its gradient rules take bfloat16 arrays, because they copy values, have kernels
        for that dtype, or reject it. "forward" says so of the function alone, "backward" of the gradient rules alone.
        Otherwise they get float32 arrays, and each result is rounded once, because most functions of NumPy do not know
        bfloat16. A view always gets bfloat16.

    Raises TypeError if a rule names a value that the op does not have, or if there are more rules than arguments.
    """
    if backward is not None and composite is None:
        raise TypeError("op: a backward function needs a composite, so that its gradient can be differentiated again")
    if isinstance(dtypes, str) and dtypes not in POLICIES:
        raise ValueError(f"op: dtypes={dtypes!r} is not a policy. Choose from {', '.join(map(repr, POLICIES))}.")
    if widen not in (False, True, "backward", "numbers"):
        raise ValueError(f"op: widen must be False, True, 'backward' or 'numbers', got {widen!r}")
    if autocast not in (None, *CLASSES):
        raise ValueError(f"op: autocast must be {', '.join(map(repr, CLASSES))} or None, got {autocast!r}")
    if bfloat16 not in (False, True, "forward", "backward"):
        raise ValueError(f"op: bfloat16 must be False, True, 'forward' or 'backward', got {bfloat16!r}")
    policy = POLICIES[dtypes] if isinstance(dtypes, str) else dtypes

    def decorate(forward: Callable[..., Any]) -> OpFunction[..., Any]:
        if not inspect.isfunction(forward):
            raise TypeError(
                f"op: expected a function to decorate, got {type(forward).__name__}. Write @op(...), with parentheses."
            )
        return make_op_function(
            Op(forward, rules, backward=backward, composite=composite, dtypes=policy, aux=aux,
               multi_output=multi_output, view=view, accepts_dtype=accepts_dtype, widen=widen, autocast=autocast,
               bfloat16=bfloat16)
        )  # fmt: skip

    return decorate


def make_op_function(self: Op) -> OpFunction[..., Any]:
    """Return the public function of an op.

    This is the hot path of the library, so everything that does not depend on the call is a local variable here.
    """
    forward, aux, policy, multi_output, built_in = self.forward, self.aux, self.dtypes, self.multi_output, self.built_in
    arity, variadic, differentiable = len(self.names), self.variadic is not None, bool(self.rules or self.backward)
    defaults = tuple(self.defaults)
    new, ndarray, accepts_dtype, flags = object.__new__, np.ndarray, self.accepts_dtype, self.flags
    backends, orders, numpy_xp, casts = BACKENDS, self.orders, BACKENDS[np.ndarray], casting
    view, inplace_in_graph, rules = self.view and not multi_output, version_counter.inplace_in_graph, len(self.rules)
    required = sum(d is inspect.Parameter.empty for d in defaults)
    find_narrow = self.find_narrow
    combined = slice(arity, None) if variadic else slice(0, len(self.rules) or None)  # arguments that ``dtypes`` is for

    def general(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        thread = threads.state
        if kwargs:
            order = orders.get((len(args), *kwargs))
            if order is None and accepts_dtype and kwargs.get("dtype") is not None:
                return self.call_in_dtype(call, args, kwargs)
            args = self.bind(args, kwargs) if order is None else order((*args, *kwargs.values(), *defaults))
        elif len(args) != arity and not (variadic and len(args) > arity):
            if len(args) > arity or len(args) < required:
                args = self.bind(args, kwargs)
        arrays: list[Any] = []
        needs: tuple[int, ...] = ()
        edges: list[Edge] = []
        shapes: list[tuple[int, ...]] = []
        dtype, grad = None, thread.records
        raw, mixed = True, False
        for a in args:
            if isinstance(a, Variable):
                raw = False
                array = a.array
                if grad and (a.tracked or (inplace_in_graph and regenerate_view(a))):
                    needs += (len(arrays),)
                    edges.append(a.node or a)
                    shapes.append(array.shape)
                a = array
                if a.dtype is not dtype:
                    mixed, dtype = mixed or dtype is not None, a.dtype
            elif type(a) is ndarray:
                mixed = True  # its dtype may differ, which the policy checks
            elif type(a) not in _CONSTANT_TYPES and (type(a) is not tuple or len(arrays) < rules):
                a = self.check_constant(a, len(arrays))
                mixed = mixed or hasattr(a, "dtype")
            arrays.append(a)
        if len(arrays) < arity:
            arrays += defaults[len(arrays) :]
        if flags:
            for i in flags:
                if arrays[i] is not False and arrays[i] is not True:
                    arrays[i] = flag_in(self.name, self.names[i], arrays[i])
        given = arrays
        if casts.active and not raw and (cast := cast_arguments(self, args, arrays)) is not arrays:
            arrays, mixed = cast, True
        if policy is not None and dtype is not None and (mixed or dtype.kind != "f"):
            unconverted = arrays[combined]
            converted = policy(self.name, unconverted)
            if converted is not unconverted:
                arrays = arrays.copy()
                arrays[combined] = converted
        inputs, narrow, narrow_xp = arrays, None, None
        if (
            find_narrow is not None
            and (mixed or (dtype is not float32 and dtype is not float64))
            and (narrow := find_narrow(arrays)) is not None
        ):
            if built_in and narrow is not float16:
                narrow_xp = bfloat16_namespace(self.name, arrays)
            if narrow_xp is not None:
                narrow = None
            else:
                inputs = convert_arrays(arrays, narrow, accumulate_dtype(narrow))
        xp = numpy_xp if inputs and type(inputs[0]) is ndarray else backends.get(type(inputs[0])) if inputs else None
        if xp is None and (xp := backend_of(arrays)) is None:
            # In a gradient rule NumPy's operators turn 0-d arrays into scalars.
            scalars = {i: np.asarray(a) for i, a in enumerate(args) if isinstance(a, np.generic)}
            arrays = [scalars.get(i, a) for i, a in enumerate(arrays)]
            inputs = [scalars.get(i, a) for i, a in enumerate(inputs)]
            xp = backend_of(arrays)
        if xp is None:
            for a in arrays:
                if isinstance(a, Variable):
                    BACKENDS[type(a)]  # raises TypeError, because the array of a Tensor must not be a Tensor
            got = ", ".join(map(describe_array, arrays)) or "nothing"
            raise TypeError(f"{self.name}: expected a Tensor, got {got}")
        if narrow_xp is not None:
            xp = narrow_xp
        try:
            if built_in:
                out = thread.run(forward, xp, *inputs)
            elif raw:
                out = run_user(forward, xp, *inputs)
            else:
                out = call_forward(self, xp, inputs)
                if needs:
                    check_recordable(self, args, arrays, out if multi_output else (out[0],) if aux else (out,))
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            if not built_in:
                raise
            raise translate_error(self.name, error, arrays) from None
        except RuntimeError as error:
            if not str(error).startswith("cannot enter context"):
                raise
            # Another op of this thread is running, so a debugger, a signal handler or a finalizer makes this call.
            with np.errstate(all="ignore"):
                out = forward(xp, *inputs)

        if multi_output:
            outs = out if narrow is None else convert_arrays(out, accumulate_dtype(narrow), narrow)
            outs = tuple(o if type(o) in BACKENDS else self.result_array(xp, o) for o in outs)
            if raw:
                return outs
            results = tuple(map(wrap, outs))
            if needs and differentiable:
                node = self.record(args, given, arrays, needs, edges, shapes, (*arrays, None), dtype)
                node.outputs = [(o.shape, o.dtype) for o in outs]
                for k, result in enumerate(results):
                    result.node, result.tracked = Output(node, k), True
            if anomaly_mode.enabled:
                for result in results:
                    anomaly_mode.check_forward(self.name, given, result.array, result.node)
            return results

        extra: Sequence[Any] = ()
        if aux:
            out, *extra = out
        if narrow is not None:
            [out] = convert_arrays([out], accumulate_dtype(narrow), narrow)
        if type(out) is not ndarray and type(out) not in backends:
            out = self.result_array(xp, out)
        if raw:
            return out
        result = new(Variable.tensor_type)
        result.array = out
        if view and grad and isinstance(args[0], Variable):
            result.view_info = record_view(args[0], self.replay or call, args[1:], out)
        if needs and differentiable:
            result.node = self.record(args, given, arrays, needs, edges, shapes, (*arrays, out, *extra), dtype)
            result.tracked = True
        if anomaly_mode.enabled:
            anomaly_mode.check_forward(self.name, given, out, result.node)
        return result

    def call(*args: Any, **kwargs: Any) -> Any:
        return general(args, kwargs)

    if built_in and arity and required <= 2 and not (variadic or multi_output or aux):
        call = with_usual_call(self, general)
    functools.update_wrapper(call, self.forward)
    del call.__wrapped__  # type: ignore[attr-defined]  # its signature has ``xp``, which no caller passes
    call.__signature__ = self.public_signature  # type: ignore[attr-defined]
    call.__name__ = self.name
    call.op = self  # type: ignore[attr-defined]
    self.function = call
    return call  # type: ignore[return-value]
