"""The decorator that makes a property-based test of an op.

    from tensorlite.testing import axes, gradtest

    @gradtest("(m,n),(n)->(m,n)")
    def test_rms_norm(x, weight):
        return my_rms_norm(x, weight)
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ..dtypes import is_floating
from ..tensors.creation import from_numpy, tensor
from ..tensors.tensor import Tensor
from .gradcheck.checks import Kinks, check_grad
from .gradcheck.replay import has_replay, with_replay
from .gradcheck.source_text import Label, source_text
from .opcheck.checks import check_op
from .plugin import chosen_settings, tally
from .report import GradientError, GradReport
from .strategies.arguments import Shape
from .strategies.drawn_tensors import Sources, draw_tensor, sources
from .strategies.entries import ElementsLike, is_near_by, shifted
from .strategies.primitives import integers
from .strategies.signatures import Signature

__all__ = ["gradtest"]

_MAX_WORK = 8000  # entries, about 5 to 10 seconds of shrinking
_OVERHEAD = 10  # an example costs as much as 10 entries, and each of its entries in addition
_MAX_PRINTED = 24  # the number of entries up to which an example shows a tensor


@dataclass(frozen=True, repr=False)
class _Example:
    """The arguments of one call. hypothesis prints it if the op itself raises an error."""

    tensors: tuple[Tensor, ...]
    results: tuple[Shape, ...] | None
    options: dict[str, Any]
    seed: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Return what distinguishes this example from others."""
        arrays = [x.detach().numpy() for x in self.tensors]
        return (*((a.shape, a.strides, a.dtype.str, a.tobytes()) for a in arrays), repr(self.options), self.seed)

    def __repr__(self) -> str:
        texts = list(map(_format_argument, self.tensors))
        texts += [f"{key}={_format_argument(value)}" for key, value in self.options.items()]
        return f"({', '.join(texts)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def _format_argument(x: Any) -> str:
    if not isinstance(x, Tensor):
        return f"{x!r:.200}"
    array = x.detach().numpy()
    if array.size > _MAX_PRINTED:
        return f"<{array.dtype} {array.shape}>"
    return f"tl.zeros({array.shape}, dtype=tl.{array.dtype})" if 0 in array.shape else (
        f"tl.tensor({array.tolist()}, dtype=tl.{array.dtype})"
    )


@st.composite
def _examples(
    draw: DrawFn, signature: Signature, kinds: Sources, layouts: bool, strategies: dict[str, SearchStrategy[Any]]
) -> _Example:
    shapes, results = signature.draw(draw, long_rows=True)
    xs = [draw_tensor(draw, shape, *kind, layouts) for shape, kind in zip(shapes, kinds)]
    # Functions of a difference, as losses are, may be wrong where arguments are nearly equal.
    pairs = [(i, k) for k in range(len(xs)) for i in range(k) if _are_alike(shapes, kinds, i, k)]
    if len(pairs) > 0 and draw(_IS_CLOSE):
        first, second = pairs[draw(integers(0, len(pairs) - 1))]
        xs[second] = from_numpy(shifted(draw, xs[first].numpy()))
    options = {key: draw(strategy) for key, strategy in strategies.items()}
    return _Example(tuple(xs), results, options, draw(_SEEDS))


def _are_alike(shapes: Sequence[Shape], kinds: Sources, i: int, k: int) -> bool:
    return shapes[i] == shapes[k] and all(is_near_by(kinds[n][0]) for n in (i, k))


_SEEDS = st.integers(0, 999)
_IS_CLOSE = st.sampled_from([False] * 5 + [True])


@dataclass
class _Totals:
    """The counts of one run of a test.

    failed: the examples that failed. work: the entries that were checked since the first failure.
    """

    examples: int = 0
    report: GradReport = field(default_factory=GradReport)
    failed: set[Any] = field(default_factory=set)
    work: int = 0

    @property
    def is_exhausted(self) -> bool:
        """Return whether the example that shrinking has found is good enough, so that no others are tried."""
        return self.work > _MAX_WORK

    def count(self, example: _Example) -> None:
        """Count an example."""
        self.examples += 1
        if self.failed:
            self.work += _OVERHEAD + sum(x.numel() for x in example.tensors)


def gradtest(
    signature: str,
    *,
    elements: ElementsLike | Sequence[ElementsLike] = "real",
    order: int = 2,
    kinks: Kinks = "auto",
    layouts: bool = True,
    max_examples: int | None = None,
    rtol: float = 1e-8,
    wrt: Any = None,
    **strategies: SearchStrategy[Any],
) -> Callable[[Callable[..., Any]], Any]:
    """Make a test of a function that takes Tensors and returns what an op makes of them.

        @gradtest("(m,n>=1)->(m)", elements=tie_free(-1))
        def test_amax(x):
            return tl.amax(x, dim=-1)

        @gradtest("(k,m,n)", dim=axes(3))
        def test_sum(x, dim):
            return tl.sum(x, dim)

    The test takes no arguments, except those of ``@pytest.mark.parametrize`` below gradtest. So it needs no fixture. It
    may be a method of a test class, and it can be called.

    It draws examples with hypothesis. In each of them it checks the shapes of the results, the gradients with a random
    cotangent (``check_grad``), and memory, dtypes and layouts (``check_op``). A failing example is shrunk. If several
    checks fail, the derivative of the lowest order is reported. The report ends with the call that reproduces the
    failure. ``test.f`` is the decorated function.

    ``@settings``, ``@seed`` and ``@example`` of hypothesis may stand above or below gradtest; the arguments of an
    ``@example`` are those of the function.

    signature: the shapes of the inputs, as :func:`matching` describes them. With ``->``, the results must have the
        shapes on its right side for all sizes that are drawn, 0 included: ``n>=1`` excludes 0.
    elements: the entries to draw: a kind that :func:`elements` knows, a strategy for one entry, :func:`tie_free`, or a
        list of these with one for each input. Inputs of the kinds ``"int"`` and ``"bool"`` are not differentiated.
    order: up to which order to check derivatives, 1, 2 or 3; 0 for functions without gradients.
    kinks, rtol, wrt: as in ``check_grad``.
    layouts: whether to draw all memory layouts that :func:`layouts` lists.
    max_examples: the number of examples; None for that of the profile (100; see ``register_profiles``).
    strategies: a strategy for each keyword argument of the function.

    The test fails with GradientError, also if all derivatives in all examples were inconclusive or at a kink.
    Raises ValueError for an invalid signature, or if it does not match the function or ``elements``. Raises TypeError
    for a keyword that is not a strategy or not a parameter of the function.
    """
    parsed = Signature.parse(signature)
    entries = sources("gradtest", parsed, elements)
    if order not in (0, 1, 2, 3):
        raise ValueError(f"gradtest: order must be 0, 1, 2 or 3, got {order!r}")
    if max_examples is not None and (type(max_examples) is not int or max_examples < 1):
        raise ValueError(f"gradtest: max_examples must be an int of 1 or more, got {max_examples!r}")
    if not any(is_floating(dtype) for _, dtype in entries):
        raise ValueError(f"gradtest: no input of {signature!r} is a floating point one, there is nothing to check")
    for key, strategy in strategies.items():
        if not isinstance(strategy, SearchStrategy):
            raise TypeError(f"gradtest: {key} must be a strategy, got {type(strategy).__name__}; st.just() makes one")
    grad_options = {"order": order, "kinks": kinks, "rtol": rtol, "wrt": wrt}

    def decorate(f: Callable[..., Any]) -> Any:
        _require_plain_function(f)
        fixtures = _parametrized(f)
        is_method = _require_parameters(f, parsed, [*strategies, *fixtures])
        if isinstance(f, staticmethod):
            f = f.__func__
        name = getattr(f, "__qualname__", type(f).__qualname__).rpartition("<locals>.")[2]
        label = Label(f"{name}.f", lambda: _expression(f, name, is_method))

        def check(call: Callable[..., Any], example: _Example, totals: _Totals) -> None:
            __tracebackhide__ = True
            totals.count(example)
            if example.results is not None:
                _check_shapes(label, call, parsed, example)
            if order:
                size = max([0, *(math.prod(x.shape) for x in example.tensors)])
                report = check_grad(
                    call, *example.tensors, seed=example.seed, name=label, allow_inconclusive=True,
                    max_elements=64 if size <= _LONG else 24, **grad_options, **example.options,
                )  # fmt: skip
                totals.report += report
                tally(report.checked, report.inconclusive, report.kinks)
                for what, count in (("on a kink", report.kinks), ("inconclusive", report.inconclusive)):
                    if count:
                        event(f"derivatives {what}")
            check_op(call, *example.tensors, seed=example.seed, name=label, **example.options)

        examples = _examples(parsed, entries, layouts, strategies)
        return _as_test(f, name, check, examples, max_examples, is_method, bool(order), fixtures, len(entries))

    return decorate


_LONG = 18  # for arguments with more entries than this a random choice of them is checked one by one


def _require_plain_function(f: Any) -> None:
    """Raise TypeError for what cannot be called for a result, or is a test of hypothesis already."""
    name = getattr(f, "__name__", type(f).__name__)
    if not callable(f):
        raise TypeError(f"gradtest: expected a function, got {type(f).__name__}")
    if inspect.iscoroutinefunction(f) or inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f):
        kind = "a generator" if inspect.isgeneratorfunction(f) else "an async function"
        raise TypeError(f"gradtest: expected a function that returns Tensors, but {name} is {kind}. Use a plain def")
    if getattr(f, "is_hypothesis_test", False):
        raise TypeError(
            f"gradtest: {name} is decorated with @given. Pass its strategies to gradtest: "
            f"@gradtest('...', argument=strategy)"
        )


def _parametrized(f: Any) -> list[str]:
    """Return the names of the arguments that ``@pytest.mark.parametrize`` below gradtest gives."""
    found: list[str] = []
    for mark in getattr(f, "pytestmark", []):
        if mark.name == "parametrize":
            names = mark.args[0] if mark.args else mark.kwargs["argnames"]
            found += [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    return found


def _expression(f: Any, name: str, is_method: bool) -> str:
    """Return an expression that is the decorated function, which takes Tensors only."""
    if f.__class__ is not type(_expression) or f.__name__ == "<lambda>":
        return source_text(f)
    if is_method:
        return f"{name}.f.__get__({name.rpartition('.')[0]}())"
    return name if f.__globals__.get(name) is f else f"{name}.f"


def _require_parameters(f: Any, signature: Signature, strategies: Sequence[str]) -> bool:
    """Return whether f is a method. Raise if its parameters do not match the inputs and strategies."""
    function_name = getattr(f, "__name__", type(f).__name__)
    parameters = list(inspect.signature(f).parameters.values())
    is_method = bool(parameters) and parameters[0].name == "self"
    open_kinds = {p.kind for p in parameters}
    names = [
        p.name for p in parameters[is_method:]
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in strategies
    ]  # fmt: skip
    needed = sum(parameter.default is parameter.empty for parameter in parameters if parameter.name in names)
    count = len(signature.inputs)
    if inspect.Parameter.VAR_POSITIONAL not in open_kinds and not needed <= count <= len(names):
        raise ValueError(
            f"gradtest: {signature.text!r} has {count} input{'s' * (count != 1)}, but {function_name} takes "
            f"{len(names)}: {', '.join(names) or 'none'}. Write one group of dimensions for each Tensor, and pass a "
            f"strategy for each other argument"
        )
    known = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    if inspect.Parameter.VAR_KEYWORD not in open_kinds and (stray := [key for key in strategies if key not in known]):
        raise TypeError(f"gradtest: {function_name} has no parameter {stray[0]!r} for the strategy of this name")
    left = [
        p.name for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in strategies
    ]  # fmt: skip
    if left:
        raise TypeError(f"gradtest: {function_name} needs the argument {left[0]!r}. Pass a strategy, {left[0]}=...")
    return is_method


def _check_shapes(label: Label, call: Callable[..., Any], signature: Signature, example: _Example) -> None:
    """Raise GradientError if the results do not have the shapes of the signature."""
    __tracebackhide__ = True
    name = label.removesuffix(".f")
    result = call(*example.tensors, **example.options)
    found = result if isinstance(result, tuple | list) else (result,)
    shapes = tuple(tuple(getattr(y, "shape", ())) for y in found)
    for y in found:
        if not isinstance(y, Tensor):
            raise TypeError(f"{name}: expected Tensors as results, got {type(y).__name__}")
    if shapes != example.results:
        given = ", ".join(str(x.shape) for x in example.tensors)
        wanted = ", ".join(map(str, example.results or ()))
        text = (
            f"{name}: by {signature.text!r}, expected results of shape {wanted} for inputs of {given}, got "
            f"{', '.join(map(str, shapes))}"
        )
        raise GradientError(with_replay(text, f"{label.expression()}{example!r}"))


def _as_test(
    f: Callable[..., Any],
    name: str,
    check: Callable[[Callable[..., Any], _Example, _Totals], None],
    examples: SearchStrategy[_Example],
    max_examples: int | None,
    is_method: bool,
    differentiates: bool,
    fixtures: list[str],
    count: int,
) -> Any:
    """Return the test. pytest calls ``test``, and hypothesis calls ``run`` for each example."""
    totals = _Totals()

    def run(self: Any = None, *, example: _Example, **more: Any) -> None:
        __tracebackhide__ = True
        call = f.__get__(self) if is_method else f
        if more:
            call = functools.wraps(call)(functools.partial(call, **more))
        if totals.is_exhausted and example.key not in totals.failed:
            return
        try:
            check(call, example, totals)
            return
        except GradientError as error:
            failure = error
        totals.failed.add(example.key)
        # hypothesis takes errors of two types for two bugs, and shrinks each without slipping to the other. It does the
        # same for two contexts, so this error has none.
        raise _KINDS[failure.order](str(failure), failure.report, failure.order)

    functools.update_wrapper(run, f)
    own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)] if is_method else []
    extra = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in fixtures]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*own, inspect.Parameter("example", inspect.Parameter.KEYWORD_ONLY), *extra]
    )
    # Settings and examples of the user are applied when the test is called, because they may stand above gradtest.
    below = {key: run.__dict__.pop(key) for key in _APPLIED if key in run.__dict__}
    chosen_settings(max_examples)  # raises for an unknown profile
    searched = given(example=examples)(run)

    def test(*args: Any, **more: Any) -> None:
        __tracebackhide__ = True
        nonlocal totals
        totals = _Totals()
        failure: BaseException | None = None
        above = {key: searched.__dict__.pop(key) for key in _APPLIED if key in searched.__dict__}
        below[_EXPLICIT] = [*below.get(_EXPLICIT, ()), *above.pop(_EXPLICIT, ())]
        below.update(above)  # for the next call
        searched.__dict__[_SETTINGS] = chosen_settings(max_examples, below.get(_SETTINGS))
        try:
            for one in below[_EXPLICIT]:
                run(*args, example=_explicit_example(f, one, count), **more)
            searched(*args, **more)
        except BaseExceptionGroup as group:
            # Blame the lowest order; an error that the function raised itself comes after wrong first derivatives.
            failures = [error for error in group.exceptions if isinstance(error, Exception)]
            if len(failures) < len(group.exceptions):
                raise
            failure = _without_internal_frames(min(failures, key=lambda e: _RANKS[getattr(e, "order", None)]))
        except Exception as error:
            failure = _without_internal_frames(error)
        if failure is None and differentiates and totals.examples and not totals.report.checked:
            failure = GradientError(
                f"{name}: no derivative could be checked in {totals.examples} examples: "
                f"{totals.report.inconclusive:,} were inconclusive and {totals.report.kinks:,} at a kink. Choose other "
                f"elements (away_from() avoids kinks, 'moderate' has no large numbers), or order=0",
                totals.report,
            )
        if failure is not None:
            def raise_here() -> None: raise failure

            # Raise the error as if from the first line of the test, so that pytest shows the test's source.
            code = getattr(f, "__code__", raise_here.__code__)
            raise_here.__code__ = raise_here.__code__.replace(
                co_filename=code.co_filename, co_firstlineno=code.co_firstlineno, co_name=code.co_name
            )
            raise_here()

    functools.update_wrapper(test, f, updated=())
    del test.__wrapped__  # type: ignore[attr-defined]  # else pytest would take the inputs for fixtures
    own_marks = {k: v for k, v in getattr(f, "__dict__", {}).items() if k not in _APPLIED}
    searched.__dict__.update({k: v for k, v in own_marks.items() if k not in searched.__dict__})  # pytest's marks
    searched.__dict__.pop(_SETTINGS, None)
    searched.__dict__.pop("_hypothesis_internal_settings_applied", None)
    test.__dict__ = searched.__dict__  # so that @seed and @reproduce_failure above gradtest reach hypothesis
    test.f = f  # type: ignore[attr-defined]
    test.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
    return test


# What @settings and @example of hypothesis leave on a function.
_SETTINGS, _EXPLICIT = "_hypothesis_internal_use_settings", "hypothesis_explicit_examples"
_APPLIED = ("_hypothesis_internal_settings_applied", _SETTINGS, _EXPLICIT)


class _FirstOrderError(GradientError):
    pass


class _SecondOrderError(GradientError):
    pass


class _ThirdOrderError(GradientError):
    pass


_KINDS = {0: GradientError, 1: _FirstOrderError, 2: _SecondOrderError, 3: _ThirdOrderError}
_RANKS = {1: 0, 0: 1, None: 2, 2: 3, 3: 4}


def _explicit_example(f: Callable[..., Any], given: Any, count: int) -> _Example:
    """Return the example that ``@example`` of hypothesis describes by the arguments of f."""
    positional = [p.name for p in inspect.signature(f).parameters.values() if p.name != "self"][:count]
    options = dict(given.kwargs)
    values = [*given.args, *(options.pop(key) for key in positional[len(given.args) :] if key in options)]
    if len(values) != count:
        raise TypeError(f"gradtest: expected an @example with {count} Tensors or arrays, got {len(values)}")
    tensors = tuple(x if isinstance(x, Tensor) else tensor(x, _wide(x)) for x in values)
    return _Example(tensors, None, options, 0)


def _wide(x: Any) -> Any:
    return np.float64 if is_floating(np.asarray(x).dtype) else None


def _without_internal_frames(error: Exception) -> Exception:
    """Return the same error without the frames of hypothesis and of this file.

    The message of a GradientError has everything, so it loses its frames. It also loses the notes of hypothesis, unless
    its arguments are too large to be reproduced by a call. Any other error was raised by the op. It keeps the frames
    from there on, and the note with the example.
    """
    if isinstance(error, GradientError):
        notes = [] if has_replay(error) else getattr(error, "__notes__", [])
        error = GradientError(str(error), error.report, error.order)
        error.__notes__ = notes
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    frames, internal = error.__traceback__, {str(Path(hypothesis.__file__).parent), __file__}
    while frames and any(frames.tb_frame.f_code.co_filename.startswith(path) for path in internal):
        frames = frames.tb_next
    return error.with_traceback(frames or error.__traceback__)
