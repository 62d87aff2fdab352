"""Run PyTorch's own operator samples with the import changed: values, gradients of both orders, errors.

``torch.testing._internal.common_methods_invocations.op_db`` has valid and invalid calls for each operator of PyTorch.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

import tensorlite as tl

F = tl.nn.functional
ORDERS = ("value", "gradient", "second order")

# Relative tolerances by the dtype of the result. Other orders of summation give other last bits.
TOLERANCES = {"float64": 1e-9, "float32": 2e-5, "float16": 2e-3}

# Operators with another place, or another way to call them, than ``tl.NAME``.
PLACES: dict[str, Callable[..., Any]] = {
    "__getitem__": lambda x, index: x[index],
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "einsum": lambda operands, equation: tl.einsum(equation, *operands),
    "linalg.lstsq.grad_oriented": lambda *args, **kwargs: tl.linalg.lstsq(*args, **kwargs)[:2],
    "linalg.pinv.singular": lambda left, right: tl.linalg.pinv(left @ right.mT),
    "nn.functional.embedding": lambda weight, ids, **kwargs: F.embedding(ids, weight, **kwargs),
    "where": lambda x, condition, other: tl.where(condition, x, other),
    "zero_": lambda x: x.clone().zero_(),
    **{name: getattr(tl.Tensor, name) for name in ("bool", "double", "float", "half", "int", "long", "short")},
}
# Arguments that choose what tensorlite has not, layouts in memory for instance. They are left out.
WITHOUT_MEANING = {"memory_format", "layout", "pin_memory", "generator"}
# Operators with random results: only shapes and dtypes are compared.
RANDOM = {"empty", "empty_like", "new_empty", "rand_like", "randint", "randint_like", "randn", "randn_like",
          "nn.functional.dropout"}  # fmt: skip


class Failure(NamedTuple):
    """One sample that differs: the operator, the sample's number, what differs, and how."""

    op: str
    sample: int
    kind: str
    text: str


@cache
def operators() -> dict[str, Any]:
    """Return the operators that tensorlite has, by name and variant: ``max.binary``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return {full_name(op): op for op in op_db if place(full_name(op)) is not None}


def full_name(op: Any) -> str:
    """Return the name of an operator and of its variant, if it has one."""
    return op.name + ("." + op.variant_test_name) * bool(op.variant_test_name)


def place(name: str) -> Callable[..., Any] | None:
    """Return our function for an operator of PyTorch, or None."""
    if name in PLACES:
        return PLACES[name]
    modules = {"nn.functional.": F, "linalg.": getattr(tl, "linalg", None)}
    for prefix, module in modules.items():
        if name.startswith(prefix):
            return getattr(module, name[len(prefix) :].split(".")[0], None)
    short = name.split(".")[0]
    return getattr(tl, short, None) or getattr(tl.Tensor, short, None)


# ---- PyTorch's values as ours ---------------------------------------------------------------


def ours(value: Any) -> Any:
    """Return an argument of PyTorch as one of tensorlite."""
    if isinstance(value, torch.Tensor):
        array = value.detach().numpy().copy(order="K")
        return tl.from_numpy(array).requires_grad_(value.requires_grad)
    if isinstance(value, torch.dtype):
        return getattr(tl, str(value).removeprefix("torch."), None) or np.dtype(str(value).removeprefix("torch."))
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, slice):
        return slice(ours(value.start), ours(value.stop), ours(value.step))
    if isinstance(value, (list, tuple)):
        return type(value)(map(ours, value))
    if isinstance(value, dict):
        return {k: ours(v) for k, v in value.items() if k not in WITHOUT_MEANING}
    return value


def theirs(value: Any) -> Any:
    """Return a copy of an argument of PyTorch whose tensors are leaves."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(map(theirs, value))
    return {k: theirs(v) for k, v in value.items()} if isinstance(value, dict) else value


def tensors(value: Any) -> Iterator[Any]:
    """Yield the tensors in nested sequences, of either library, in order."""
    if isinstance(value, (tl.Tensor, torch.Tensor)):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def array_of(x: Any) -> np.ndarray:
    """Return the entries of a tensor of either library."""
    return x.detach().numpy(force=True) if isinstance(x, torch.Tensor) else x.detach().numpy()


# ---- one call -------------------------------------------------------------------------------


def outcomes(library: Any, result: Any, arguments: Any, order: int) -> list[tuple[str, np.ndarray]]:
    """Return the values of a call, its gradients, and the gradients of these, with random cotangents."""
    rng = np.random.default_rng(0)
    found = [("value", array_of(y)) for y in tensors(result)] or [("value", np.asarray(result))]
    leaves = [x for x in tensors(arguments) if x.requires_grad]
    ys = [y for y in tensors(result) if y.requires_grad]
    if order < 1 or not leaves or not ys:
        return found

    def cotangents(values: list[Any], requires_grad: bool = False) -> list[Any]:
        drawn = (np.asarray(rng.standard_normal(tuple(v.shape))).astype(array_of(v).dtype) for v in values)
        return [library.from_numpy(a).requires_grad_(requires_grad) for a in drawn]

    cs = cotangents(ys, order > 1)
    first = library.autograd.grad(ys, leaves, cs, create_graph=order > 1, allow_unused=True)
    found += [("gradient", zeros(x) if g is None else array_of(g)) for g, x in zip(first, leaves)]
    if order < 2:
        return found
    leaves = [*leaves, *cs]
    ys = [g for g in first if g is not None]
    cs = cotangents(ys)
    known = [k for k, g in enumerate(ys) if g.requires_grad]
    second = [None] * len(leaves)
    if known:
        second = library.autograd.grad([ys[k] for k in known], leaves, [cs[k] for k in known], allow_unused=True)
    return found + [("second order", zeros(x) if g is None else array_of(g)) for g, x in zip(second, leaves)]


def zeros(x: Any) -> np.ndarray:
    """Return the gradient of a tensor that a result does not depend on."""
    return np.zeros(tuple(x.shape), array_of(x).dtype)


def differences(found: list[Any], expected: list[Any], drawn: bool) -> Iterator[tuple[str, str]]:
    """Yield what differs between the outcomes of both libraries, and how; without the values if those are drawn."""
    if len(found) != len(expected):
        yield "number", f"{len(found)} results, not {len(expected)}"
        return
    for (kind, a), (_, b) in zip(found, expected):
        if a.shape != b.shape:
            yield kind, f"shape {a.shape}, not {b.shape}"
        elif a.dtype != b.dtype:
            yield kind, f"dtype {a.dtype}, not {b.dtype}"
        elif drawn:
            continue
        elif b.dtype.kind not in "fc":
            if not np.array_equal(a, b):
                yield kind, f"{a.ravel()[:4]}, not {b.ravel()[:4]}"
        else:
            scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
            tolerance = TOLERANCES.get(str(b.dtype), 1e-5)
            near = np.isclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
            if not near.all():
                yield kind, f"{a[~near][:3]}, not {b[~near][:3]} (of {b.shape})"


def check_sample(f: Callable[..., Any], op: Any, sample: Any, order: int) -> Iterator[tuple[str, str]]:
    """Yield what differs in one sample. Gradients are compared where the values agree, of the lowest order first."""
    drawn = op.name in RANDOM or bool(sample.kwargs.get("dropout_p"))
    for k in range(order + 1):
        arguments = theirs([sample.input, list(sample.args), sample.kwargs])
        mine = ours([sample.input, list(sample.args), sample.kwargs])
        try:
            expected = outcomes(torch, op.op(arguments[0], *arguments[1], **arguments[2]), arguments, k)
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
            return  # PyTorch refuses this sample on this machine, or has no gradient of this order
        try:
            found = outcomes(tl, f(mine[0], *mine[1], **mine[2]), mine, k)
        except Exception as error:  # any error is a failure, to be listed
            yield f"{ORDERS[k]} refused", f"{type(error).__name__}: {error}"
            return
        wrong = list(differences(found, expected, drawn))
        yield from wrong
        if wrong or drawn:
            return


# ---- all samples of one operator --------------------------------------------------------------


def check_operator(name: str, dtype: Any = torch.float64, limit: int | None = None) -> tuple[int, list[Failure]]:
    """Run the samples of an operator, at most ``limit`` spread evenly. Return their number and what failed."""
    op, f = operators()[name], place(name)
    if dtype not in op.dtypes:
        return 0, []
    torch.manual_seed(0)
    random.seed(0)
    differentiable = op.supports_autograd and dtype is torch.float64
    order = (1 + op.supports_gradgrad) if differentiable else 0
    failures = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The function itself, because the method inspects the whole stack for each sample, which takes 0.2 s in pytest.
        samples = list(op.sample_inputs_func(op, "cpu", dtype, differentiable))
        chosen = range(len(samples)) if limit is None else range(0, len(samples), -(-len(samples) // limit) or 1)
        for k in chosen:
            torch.manual_seed(k)
            for kind, text in check_sample(f, op, samples[k], order):
                failures.append(Failure(name, k, f"{dtype} {kind}".removeprefix("torch."), text))
    return len(chosen), failures


def check_errors(name: str) -> tuple[int, list[Failure]]:
    """Make the calls that PyTorch refuses. Return their number and those that tensorlite takes."""
    op, f = operators()[name], place(name)
    failures, count = [], 0
    if op.error_inputs_func is None:
        return 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, wrong in enumerate(op.error_inputs_func(op, "cpu")):
            sample = wrong.sample_input
            if not wrong.error_regex:
                continue  # a number as an operand, which tensorlite takes everywhere
            try:
                mine = ours([sample.input, list(sample.args), sample.kwargs])
            except Exception:
                continue  # a dtype or layout that tensorlite does not have
            count += 1
            try:
                f(mine[0], *mine[1], **mine[2])
            except Exception:
                continue
            failures.append(Failure(name, k, "taken", f"{wrong.error_regex!s:.90}"))
    return count, failures
