"""The check of an op's treatment of memory, dtypes and layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...autograd.graph import Node, topological_order
from ...pytree import tree_leaves
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..gradcheck.function import FunctionUnderTest, random_eighths, require_float64, strided_copy, to_numpy
from ..gradcheck.messages import format_array
from ..gradcheck.replay import run_with_replay
from ..report import GradientError

__all__ = ["check_op"]

Arrays = list[np.ndarray]

_FLOAT32 = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)
_ROUNDING = 1024 * _FLOAT32  # roundings of numbers on the way, relative to the results at points of the same size
_HUGE = 1e37  # close to the largest float32
_SQUARED = 1e18  # the square of a larger number is more than the largest float32
_LARGE = 40.0  # the exponential of larger numbers, squared, is more than the largest float32
_MODERATE = (2.0**-4, 8.0)  # between these sizes of all arguments float32 has digits enough for most formulas
_MAX_ARGUMENTS = 8  # how many arguments are checked one by one


def check_op(f: Callable[..., Any], *args: Any, seed: int = 0, name: str | None = None, **kwargs: Any) -> None:
    """Check how ``f(*args, **kwargs)`` treats memory, dtypes and layouts. ``check_grad`` checks its numbers.

    - No argument changes, and two calls give the same bits.
    - No result shares memory with an argument, unless f is a view (``op(view=True)``, as reshape is).
    - For arguments of float64 and of float32, results of floating dtype and gradients have the dtype of the arguments.
      Gradients have the shapes of their arguments. Results and gradients in float32 agree with those in float64, as far
      as f is well conditioned.
    - Values and gradients do not depend on strides. Arguments and cotangents are transposed, strided, reversed and
      broadcast.
    - Under ``no_grad`` the result is the same and does not require grad.
    - The gradient of an argument is the same where no other argument requires grad. A Tensor that is passed as two
      arguments gets the sum of their gradients. Two Tensors that share one array get the gradients of two arrays.
    - If f accepts int8, uint8, int16 or int32 instead of integers of 64 bits, and gives the same results, it gives the
      same gradients.

    The arguments are those of ``check_grad``. Raises GradientError if a check fails.
    """
    function = FunctionUnderTest("check_op", f, args, kwargs, None, name)
    run_with_replay(partial(_check_all, function, seed), "check_op", function, {"seed": seed}, {})


def _check_all(function: FunctionUnderTest, seed: int) -> None:
    """Make all checks of ``check_op``. Raise GradientError if one fails."""
    rng = np.random.default_rng(seed)
    at = [np.array(to_numpy(leaf), order="C") for leaf in function.leaves]
    with np.errstate(all="ignore"):  # numbers that float32 lacks become infinity or 0
        values = _check_memory(function)
        cotangents = [random_eighths(rng, y.shape) for y in values]
        gradients = function.vjp(at, cotangents)
        _check_dtypes(function, at, cotangents)
        _check_gradients_one_by_one(function, at, gradients, cotangents)
        _check_shared_argument(function)
        _check_integers(function, at, values, gradients, cotangents)
        _check_layouts(function, at, values, gradients, cotangents)


def _check_memory(function: FunctionUnderTest) -> Arrays:
    """Return the results, after checking purity, determinism, ``no_grad`` and shared memory."""
    before = [to_numpy(leaf).copy() for leaf in function.leaves]
    with enable_grad():
        attached = function.outputs()
    with no_grad():
        free = function.outputs()
    for leaf, old, label in zip(function.leaves, before, function.labels):
        if not np.array_equal(to_numpy(leaf), old, equal_nan=True):
            raise GradientError(
                f"{function.name}: the forward pass changes {label} in place\n    before  {format_array(old)}\n"
                f"    after   {format_array(to_numpy(leaf))}\nIt belongs to the caller. Work on a copy"
            )
    for k, (a, b) in enumerate(zip(attached, free, strict=True)):
        if not np.array_equal(to_numpy(a), to_numpy(b), equal_nan=True) or a.dtype != b.dtype:
            raise GradientError(
                f"{function.name}: two calls with the same arguments differ in result {k} (the second under no_grad)\n"
                f"    first   {format_array(to_numpy(a))}\n    second  {format_array(to_numpy(b))}"
            )
        if b.requires_grad:
            raise GradientError(f"{function.name}: result {k} requires grad under no_grad")
        require_float64(function, k, b.dtype)
        if _is_view(a):
            continue
        for leaf, label in zip(function.leaves, function.labels):
            if isinstance(a.array, np.ndarray) and np.shares_memory(a.array, leaf.array):
                raise GradientError(
                    f"{function.name}: result {k} shares memory with {label}, so changing one in place changes the "
                    f"other. Return a copy, or declare the op with op(view=True)"
                )
    return [to_numpy(y).copy() for y in free]


def _is_view(y: Tensor) -> bool:
    """Return whether y may share memory: it is a leaf, or its op is declared as a view."""
    return y.node is None or y.node.plan.is_view


def _run_in_float32(
    function: FunctionUnderTest, at: Arrays, cotangents: Arrays
) -> tuple[Arrays, list[np.ndarray | None]]:  # fmt: skip
    """Return the results and the gradients for these arguments in float32."""
    narrow = [tensor(a.astype(np.float32), device=function.device) for a in at]
    for leaf, x in zip(function.leaves, narrow):
        leaf.array = x.array
    try:
        with enable_grad():
            ys = function.outputs()
            for k, y in enumerate(ys):
                if y.dtype != np.float32:
                    raise GradientError(
                        f"{function.name}: result {k} is {y.dtype} for arguments of float32. Look for a NumPy scalar "
                        f"or array of float64; a Python number keeps the dtype"
                    )
            kept = [y for y in ys if y.requires_grad]
            weights = [tensor(c, np.float32, device=function.device) for y, c in zip(ys, cotangents) if y.requires_grad]
            found: Sequence[Tensor | None] = _grad(kept, function.leaves, weights, allow_unused=True) if kept else []
        return [to_numpy(y) for y in ys], [None if g is None else to_numpy(g) for g in found]
    finally:
        function.reset()


def _check_dtypes(function: FunctionUnderTest, at: Arrays, cotangents: Arrays) -> None:
    """Raise GradientError if results or gradients in float32 have another dtype, or other values than in float64."""
    single, gs = _run_in_float32(function, at, cotangents)
    for g, a, label in zip(gs, at, function.labels):
        if g is not None and (g.dtype != np.float32 or g.shape != a.shape):
            raise GradientError(
                f"{function.name}: the gradient of {label} is {g.dtype} {g.shape}, but {label} is float32 "
                f"{a.shape}"
            )
    rounded = [a.astype(np.float32).astype(np.float64) for a in at]
    exact = function.values(rounded)
    rng = np.random.default_rng(0)
    noise = [np.zeros(y.shape) for y in exact]
    sizes: list[float] = []

    def wrong(k: int) -> bool:
        short, wide = single[k], exact[k]
        scale = abs(wide[np.isfinite(wide)]).max(initial=0.0)
        tolerance = 100 * noise[k] + 1e-4 * abs(wide) + 1e-5 * scale + _TINY
        if sizes:
            tolerance = tolerance + _ROUNDING * sizes[k]
        known = np.isfinite(wide) & (abs(wide) < _HUGE) & np.isfinite(tolerance)
        return not (abs(short[known].astype(np.float64) - wide[known]) <= tolerance[known]).all()

    with np.errstate(all="ignore"):
        for count in (3, 16):  # measure the change that a rounding of the arguments alone causes
            for _ in range(count):
                moved = function.values([a * (1 + _FLOAT32 * rng.choice([-1.0, 1.0], a.shape)) for a in rounded])
                noise = [np.fmax(n, np.nan_to_num(abs(m - y), nan=np.inf)) for n, m, y in zip(noise, moved, exact)]
            bad = [k for k in range(len(exact)) if wrong(k)]
            if not bad:
                break
            # gelu(-4) is the small difference of numbers of the size of gelu(4), which float32 rounds.
            sizes = sizes or _typical_sizes(function.values, rounded, exact)
    if bad and not _is_moderate(rounded):
        # Where numbers of other sizes cancel, or a formula of several ops overflows on the way, float32 cannot tell.
        with np.errstate(all="ignore"):
            finite = [np.isfinite(single[k])[np.isfinite(exact[k]) & (abs(exact[k]) < _HUGE)].all() for k in bad]
        if _is_composite(function) or all(finite):
            return
    for k in bad[:1]:
        raise GradientError(
            f"{function.name}: result {k} in float32 differs from float64\n    float32  {format_array(single[k])}\n"
            f"    float64  {format_array(exact[k])}\nLook for an overflow or a cancellation on the way"
        )
    if all((abs(y) < _HUGE).all() for y in exact):
        _check_float32_gradients(function, gs, rounded, cotangents)


def _is_moderate(at: Arrays) -> bool:
    """Return whether all arguments have sizes at which float32 must be right."""
    low, high = _MODERATE
    return all(((a == 0) | ((abs(a) >= low) & (abs(a) <= high))).all() for a in at)


def _is_composite(function: FunctionUnderTest) -> bool:
    """Return whether f consists of several ops of the library alone."""
    with enable_grad():
        nodes = topological_order([y.node for y in function.outputs() if isinstance(y.node, Node)])
    return len(nodes) > 1 and all(node.plan.built_in for node in nodes)


def _typical_sizes(f: Callable[[Arrays], Arrays], at: Arrays, values: Arrays) -> list[float]:
    """Return the size of each result of f at points of the size of ``at``: its reflection, and half of it.

    Sizes of more than 1e6 times those of the arguments and results are not typical.
    """
    largest = max([1.0, *(float(abs(a[np.isfinite(a)]).max(initial=0.0)) for a in (*at, *values))])
    arguments = max([1.0, *(float(abs(a[np.isfinite(a)]).max(initial=0.0)) for a in at)])
    sizes = [arguments / 64] * len(values)  # numbers on the way are about as large as the arguments
    for factor in (-1.0, 0.5, -0.5):
        with suppress(Exception):  # f may be undefined there
            there = f([factor * a for a in at])
            found = [float(abs(y[np.isfinite(y)]).max(initial=0.0)) for y in there]
            sizes = [max(a, min(b, 1e6 * largest)) for a, b in zip(sizes, found, strict=True)]
    return sizes


def _check_float32_gradients(
    function: FunctionUnderTest, gs: Sequence[np.ndarray | None], at: Arrays, cotangents: Arrays
) -> None:  # fmt: skip
    """Raise GradientError if gradients in float32 and float64, within rounding of a point, do not overlap.

    Kinks and sums that cancel turn roundings of the arguments into large changes of the gradient. So one point does not
    decide; the gradients at 24 points within rounding of it are compared as well.
    """
    rng = np.random.default_rng(0)
    near: list[tuple[Arrays, Any]] = []

    def around() -> tuple[Arrays, Any]:
        size = _FLOAT32 * float(rng.choice([0.5, 1.0, 4.0, 16.0]))
        point = [a * (1 + size * rng.choice([-1.0, 1.0], a.shape)) for a in at]
        return function.vjp(point, cotangents), _run_in_float32(function, point, cotangents)[1]

    with np.errstate(all="ignore"):
        # Terms of a sum that cancels may be as large as this.
        unit = float(sum(abs(c).max(initial=0.0) + abs(c * y).sum() for c, y in zip(cotangents, function.values(at))))
        for k, (short, wide) in enumerate(zip(gs, function.vjp(at, cotangents))):
            if short is None:
                continue
            # Where numbers are large and the gradient is too small for float32, it may overflow on the way to NaN.
            large = any((abs(a) >= _LARGE).any() for a in at)
            middle = ((abs(wide) >= _TINY) | (not large)) & (abs(wide) < _SQUARED)
            known = (abs(wide) < _HUGE) & (np.isfinite(short) | middle)
            margin = 1e-3 * (abs(wide) + abs(wide[known]).max(initial=0.0)) + 1e-4 * unit
            if (~known | (abs(short - wide) <= margin)).all():
                continue
            near = near or [around() for _ in range(24)]
            wides = np.array([wide, *(one[k] for one, _ in near)])
            shorts = np.array([short, *(two[k] for _, two in near)])
            known &= np.isfinite(wides).all(axis=0)
            seen = np.isfinite(shorts)
            if not seen[:, known].all():
                # The backward pass of a formula may overflow alone: log(exp(-100)) multiplies by 1 / exp(-100).
                is_formula = not _is_moderate(at) and _is_composite(function)
                if is_formula or _overflows_in_float32(function, at):
                    continue
            if seen[:, known].all() and not _is_moderate(at):
                continue
            low, high = np.where(seen, shorts, np.inf).min(axis=0), np.where(seen, shorts, -np.inf).max(axis=0)
            margin = margin + np.ptp(wides, axis=0) + np.where(low <= high, high - low, 0.0)
            if (known & ((low > wides.max(axis=0) + margin) | (high < wides.min(axis=0) - margin))).any():
                raise GradientError(
                    f"{function.name}: the gradient of {function.labels[k]} in float32 differs from float64\n"
                    f"    float32  {format_array(short)}\n    float64  {format_array(wide)}\n"
                    f"arguments\n    {'; '.join(map(format_array, at))}"
                )


def _overflows_in_float32(function: FunctionUnderTest, at: Arrays) -> bool:
    """Return whether f overflows on the way to its results in float32."""
    with function.moved_to([a.astype(np.float32) for a in at]) as narrow:
        return narrow.overflows_at([a.astype(np.float32) for a in at])


def _check_gradients_one_by_one(function: FunctionUnderTest, at: Arrays, gradients: Arrays, cotangents: Arrays) -> None:
    """Raise GradientError if the gradient of an argument changes where no other argument requires grad."""
    if len(function.leaves) < 2:
        return
    for k, (leaf, label) in enumerate(zip(function.leaves[:_MAX_ARGUMENTS], function.labels)):
        for other in function.leaves:
            other.requires_grad_(other is leaf)
        try:
            found = function.vjp(at, cotangents, [leaf])
        finally:
            for other in function.leaves:
                other.requires_grad_(True)
        if function.first_difference(found, gradients[k : k + 1], at, cotangents, k) is not None:
            raise GradientError(
                f"{function.name}: the gradient of {label} changes where no other argument requires grad\n"
                f"    with the others  {format_array(gradients[k])}\n    alone            {format_array(found[0])}"
            )


def _check_shared_argument(function: FunctionUnderTest) -> None:
    """Raise GradientError if passing one Tensor, or one array, as two arguments gives another result or gradient.

    The reference are two equal Tensors with an array each. An op may compare arrays to find equal arguments.
    """
    leaves = function.leaves[:_MAX_ARGUMENTS]
    pairs = [(i, k) for k in range(len(leaves)) for i in range(k) if leaves[i].shape == leaves[k].shape]
    for i, k in pairs[:_MAX_ARGUMENTS]:
        at = [np.array(to_numpy(leaf), order="C") for leaf in function.leaves]
        for given in (at[k], at[i]):  # one of the two may not be valid as the other argument
            at[i], at[k] = given.copy(), given.copy()
            with suppress(Exception), np.errstate(all="ignore"):
                values = function.values(at)
                if all(np.isfinite(y).all() for y in values):
                    break
        else:
            continue
        rng = np.random.default_rng(1)
        cotangents = [random_eighths(rng, y.shape) for y in values]
        gradients = function.vjp(at, cotangents)
        one_array = [at[i] if n == k else a for n, a in enumerate(at)]
        summed = list(gradients)
        summed[i], summed[k] = gradients[i] + gradients[k], np.zeros_like(gradients[k])
        one = function.with_shared_leaf(k, i)
        cases = [
            ("are the same Tensor", "two equal Tensors", "one Tensor", one, at, summed),
            ("share one array", "two arrays", "one array", function, one_array, gradients),
        ]
        for how, two_words, one_words, f, point, expected_gradients in cases:
            found, expected, what = f.values(point), values, "a result"
            wrong = function.first_difference(found, expected, at, None)
            if wrong is None:
                found, expected, what = f.vjp(point, cotangents), expected_gradients, "the gradient"
                wrong = function.first_difference(found, expected, at, cotangents)
            if wrong is not None:
                both = f"{function.labels[i]} and {function.labels[k]}"
                width = max(len(two_words), len(one_words))
                raise GradientError(
                    f"{function.name}: {what} changes where {both} {how}\n"
                    f"    {two_words:<{width}}  {format_array(expected[wrong])}\n"
                    f"    {one_words:<{width}}  {format_array(found[wrong])}\n"
                    f"arguments\n    {both}  {format_array(at[k])}"
                )


def _check_integers(
    function: FunctionUnderTest, at: Arrays, values: Arrays, gradients: Arrays, cotangents: Arrays
) -> None:  # fmt: skip
    """Raise GradientError if f accepts small integers, with the same results, and gives other gradients."""
    given = tree_leaves([list(function.args), function.kwargs])
    integers = [x for x in given if isinstance(x, Tensor) and x.dtype == np.int64]
    if not integers:
        return
    for dtype in map(np.dtype, ("int8", "uint8", "int16", "int32")):
        limits = np.iinfo(dtype)
        arrays = [to_numpy(x) for x in integers]
        if any(a.size and not limits.min <= a.min() <= a.max() <= limits.max for a in arrays):
            continue
        one = function.with_arguments({id(x): tensor(a, dtype, x.device) for x, a in zip(integers, arrays)})
        found: Arrays = []
        with suppress(Exception), np.errstate(all="ignore"):  # f may refuse these
            found = one.values(at)
        if not found or not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, values, strict=True)):
            continue
        try:
            wrong = function.first_difference(one.vjp(at, cotangents), gradients, at, cotangents)
            problem = "" if wrong is None else f"the gradient of {function.labels[wrong]} changes"
        except Exception as error:
            problem = f"the backward pass fails ({type(error).__name__}: {error})"
        if problem:
            raise GradientError(
                f"{function.name}: {problem} where integers are {dtype} instead of int64. The forward pass accepts "
                f"them. Convert them there, or refuse them"
            )


def _check_layouts(
    function: FunctionUnderTest, at: Arrays, values: Arrays, gradients: Arrays, cotangents: Arrays
) -> None:  # fmt: skip
    """Raise GradientError if results or gradients depend on the strides of arguments and cotangents."""
    if not function.on_cpu:
        return
    layouts = {
        "transposed": lambda a: np.asfortranarray(a) if a.ndim else a, "strided": strided_copy, "reversed": _reversed,
    }  # fmt: skip
    for layout, lay in layouts.items():
        laid = [lay(a) for a in at]
        _require_same(function, layout, function.values(laid), values, at, None)
        _require_same(function, layout, function.vjp(laid, [lay(c) for c in cotangents]), gradients, at, cotangents)
    # Broadcast arguments: all entries are the same number in memory.
    flat = [np.broadcast_to(a.reshape(-1)[:1].reshape((1,) * a.ndim), a.shape) if a.size else a for a in at]
    full = [np.array(a, order="C") for a in flat]
    ones = [np.broadcast_to(np.float64(1.5), c.shape) for c in cotangents]
    expected = function.values(full)
    _require_same(function, "broadcast", function.values(flat), expected, full, None)
    if len(expected) == len(ones) and all(y.shape == c.shape for y, c in zip(expected, ones)):
        contiguous = function.vjp(full, [np.array(c) for c in ones])
        _require_same(function, "broadcast", function.vjp(flat, ones), contiguous, full, ones)


def _reversed(a: np.ndarray) -> np.ndarray:
    """Return the same entries in reversed memory order."""
    return np.flip(np.flip(a).copy()) if a.ndim else a


def _require_same(
    function: FunctionUnderTest, layout: str, found: Arrays, expected: Arrays, at: Arrays, cotangents: Arrays | None
) -> None:
    """Raise GradientError, which names the layout, if a result or gradient differs from the expected one."""
    wrong = function.first_difference(found, expected, at, cotangents)
    if wrong is None:
        return
    what = f"result {wrong}" if cotangents is None else f"the gradient of {function.labels[wrong]}"
    raise GradientError(
        f"{function.name}: {what} depends on the memory layout of the arguments\n"
        f"    contiguous  {format_array(expected[wrong])}\n"
        f"    {layout:<11} {format_array(found[wrong])}"
    )
