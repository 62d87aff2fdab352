"""The decorator that makes a property-based test of an op.

    from tensorlite.testing import axes, gradtest

    @gradtest("(m,n),(n)->(m,n)")
    def test_rms_norm(x, weight):
        return my_rms_norm(x, weight)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import event, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ..tensors.tensor import Tensor
from .gradcheck.checks import Kinks, check_grad
from .gradcheck.messages import has_replay, with_replay
from .opcheck.checks import check_op
from .plugin import chosen_settings, tally
from .report import GradientError, GradReport
from .strategies.arguments import Shape
from .strategies.drawn_tensors import Sources, draw_tensor, sources
from .strategies.entries import ElementsLike
from .strategies.signatures import Signature

__all__ = ["gradtest"]

_MAX_PRINTED = 24  # the number of entries up to which an example shows a tensor


@dataclass(frozen=True, repr=False)
class _Example:
    """The arguments of one call. hypothesis prints it if the op itself raises an error."""

    tensors: tuple[Tensor, ...]
    results: tuple[Shape, ...] | None
    options: dict[str, Any]
    seed: int

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
    shapes, results = signature.draw(draw)
    xs = tuple(draw_tensor(draw, shape, *kind, layouts) for shape, kind in zip(shapes, kinds))
    options = {key: draw(strategy) for key, strategy in strategies.items()}
    return _Example(xs, results, options, draw(_SEEDS))


_SEEDS = st.integers(0, 999)


@dataclass
class _Totals:
    examples: int = 0
    report: GradReport = field(default_factory=GradReport)


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

    The test takes no arguments, so it needs no fixtures. It may be a method of a test class, and it can be called. It
    draws examples with hypothesis. In each of them it checks the shapes of the results, the gradients (``check_grad``
    with a random cotangent) and memory, dtypes and layouts (``check_op``). A failing example is shrunk. The report ends
    with the call that reproduces the failure. ``test.f`` is the decorated function.

    signature: the shapes of the inputs, as :func:`matching` describes them. With ``->``, the results must have the
        shapes on its right side for all sizes that are drawn, 0 included: ``n>=1`` excludes 0.
    elements: the entries to draw: a kind that :func:`elements` knows, a strategy for one entry, :func:`tie_free`, or a
        list of these with one for each input. Inputs of the kinds ``"int"`` and ``"bool"`` are not differentiated.
    order: the order of the derivatives to check, 1 or 2; 0 for functions without gradients.
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
    if order not in (0, 1, 2):
        raise ValueError(f"gradtest: order must be 0, 1 or 2, got {order!r}")
    if max_examples is not None and (type(max_examples) is not int or max_examples < 1):
        raise ValueError(f"gradtest: max_examples must be an int of 1 or more, got {max_examples!r}")
    if not any(dtype.kind == "f" for _, dtype in entries):
        raise ValueError(f"gradtest: no input of {signature!r} is a floating point one, there is nothing to check")
    for key, strategy in strategies.items():
        if not isinstance(strategy, SearchStrategy):
            raise TypeError(f"gradtest: {key} must be a strategy, got {type(strategy).__name__}; st.just() makes one")
    grad_options = {"order": order, "kinks": kinks, "rtol": rtol, "wrt": wrt}

    def decorate(f: Callable[..., Any]) -> Any:
        is_method = _require_parameters(f, parsed, strategies)
        name = f.__qualname__.rpartition("<locals>.")[2]

        def check(call: Callable[..., Any], example: _Example, totals: _Totals) -> None:
            __tracebackhide__ = True
            totals.examples += 1
            if example.results is not None:
                _check_shapes(name, call, parsed, example)
            if order:
                report = check_grad(
                    call, *example.tensors, seed=example.seed, name=f"{name}.f", allow_inconclusive=True,
                    **grad_options, **example.options,
                )  # fmt: skip
                totals.report += report
                tally(report.checked, report.inconclusive, report.kinks)
                for what, count in (("on a kink", report.kinks), ("inconclusive", report.inconclusive)):
                    if count:
                        event(f"derivatives {what}")
            check_op(call, *example.tensors, seed=example.seed, name=f"{name}.f", **example.options)

        examples = _examples(parsed, entries, layouts, strategies)
        return _as_test(f, name, check, examples, max_examples, is_method, bool(order))

    return decorate


def _require_parameters(f: Callable[..., Any], signature: Signature, strategies: dict[str, Any]) -> bool:
    """Return whether f is a method. Raise if its parameters do not match the inputs and strategies."""
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
            f"gradtest: {signature.text!r} has {count} input{'s' * (count != 1)}, but {f.__name__} takes "
            f"{len(names)}: {', '.join(names) or 'none'}"
        )
    known = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    if inspect.Parameter.VAR_KEYWORD not in open_kinds and (stray := [key for key in strategies if key not in known]):
        raise TypeError(f"gradtest: {f.__name__} has no parameter {stray[0]!r} for the strategy of this name")
    left = [
        p.name for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in strategies
    ]  # fmt: skip
    if left:
        raise TypeError(f"gradtest: {f.__name__} needs the argument {left[0]!r}. Pass a strategy, {left[0]}=...")
    return is_method


def _check_shapes(name: str, call: Callable[..., Any], signature: Signature, example: _Example) -> None:
    """Raise GradientError if the results do not have the shapes of the signature."""
    __tracebackhide__ = True
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
        raise GradientError(with_replay(text, f"{name}.f{example!r}"))


def _as_test(
    f: Callable[..., Any],
    name: str,
    check: Callable[[Callable[..., Any], _Example, _Totals], None],
    examples: SearchStrategy[_Example],
    max_examples: int | None,
    is_method: bool,
    differentiates: bool,
) -> Any:
    """Return the test. pytest calls ``test``, and hypothesis calls ``run`` for each example."""
    totals = _Totals()

    def run(self: Any = None, *, example: _Example) -> None:
        __tracebackhide__ = True
        check(f.__get__(self) if is_method else f, example, totals)

    functools.update_wrapper(run, f)
    own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)] if is_method else []
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*own, inspect.Parameter("example", inspect.Parameter.KEYWORD_ONLY)]
    )
    searched = chosen_settings(max_examples)(given(example=examples)(run))

    def test(*args: Any) -> None:
        __tracebackhide__ = True
        nonlocal totals
        totals = _Totals()
        failure: BaseException | None = None
        try:
            searched(*args)
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
            raise_here.__code__ = raise_here.__code__.replace(
                co_filename=f.__code__.co_filename, co_firstlineno=f.__code__.co_firstlineno, co_name=f.__name__
            )
            raise_here()

    functools.update_wrapper(test, f, updated=())
    del test.__wrapped__  # type: ignore[attr-defined]  # else pytest would take the inputs for fixtures
    searched.__dict__.update({k: v for k, v in f.__dict__.items() if k not in searched.__dict__})  # pytest's marks
    test.__dict__ = searched.__dict__  # so that @seed and @reproduce_failure above gradtest reach hypothesis
    test.f = f  # type: ignore[attr-defined]
    test.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    return test


def _without_internal_frames(error: Exception) -> Exception:
    """Return the same error without the frames of hypothesis and of this file.

    The message of a GradientError has everything, so it loses its frames. It also loses the notes of hypothesis, unless
    its arguments are too large to be reproduced by a call. Any other error was raised by the op. It keeps the frames
    from there on, and the note with the example.
    """
    if isinstance(error, GradientError):
        if has_replay(error):
            error.__notes__ = []
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    frames, internal = error.__traceback__, {str(Path(hypothesis.__file__).parent), __file__}
    while frames and any(frames.tb_frame.f_code.co_filename.startswith(path) for path in internal):
        frames = frames.tb_next
    return error.with_traceback(frames or error.__traceback__)
