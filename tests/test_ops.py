"""Every op, on every sample of tests/op_table.py: gradients, dtypes, memory, layouts, and its composite."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import ops
from tensorlite.autograd import Op, walk
from tests.gradcheck import check_gradients, numpy, outputs
from tests.op_table import ROWS, Input, Row, Sample

NO_ROW = {
    "ops.dim_in": "counts dimensions, takes no tensor",
    "ops.assign": "writes into raw arrays; x[index] = value is tested with tensors",
}
"""Public functions of ops that are no ops."""

SAMPLES = [
    pytest.param(row, sample, arrays, id=f"{row.name}-{k}")
    for row in ROWS for k, (sample, arrays) in enumerate(zip(row.samples, row.arrays, strict=True))
]  # fmt: skip
SMOOTH = [p for p in SAMPLES if p.values[0].order]  # type: ignore[attr-defined]


def function_of(row: Row, sample: Sample, arrays: Sequence[np.ndarray]) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """The op as a function of those of its inputs that gradients are asked for, and these."""
    wanted = [i.grad for i in sample.inputs()]
    rest = [None if w else tl.tensor(a) for w, a in zip(wanted, arrays, strict=True)]

    def f(*xs: tl.Tensor) -> Any:
        given = iter(xs)
        args, kwargs = sample.fill([next(given) if w else r for w, r in zip(wanted, rest, strict=True)])
        return row.f(*args, **kwargs)

    return f, [a for a, w in zip(arrays, wanted, strict=True) if w]


def strided(x: tl.Tensor) -> tl.Tensor:
    """The same entries with other strides: the transpose of every second entry of a larger tensor."""
    if not x.ndim:
        return x.detach().clone()
    big = tl.zeros(*(2 * n for n in x.shape[::-1]), dtype=x.dtype)
    view = big.data[(slice(None, None, 2),) * x.ndim].T
    view[...] = x.data
    result = tl.zeros(0)
    result.data = view
    return result


def results(row: Row, sample: Sample, tensors: Sequence[tl.Tensor]) -> list[tl.Tensor]:
    args, kwargs = sample.fill(tensors)
    found = row.f(*args, **kwargs)
    return [found] if isinstance(found, tl.Tensor) else list(found)


def cotangents(ys: Sequence[tl.Tensor]) -> list[tl.Tensor]:
    rng = np.random.default_rng(1)
    return [tl.tensor(np.asarray(rng.standard_normal(y.shape)), dtype=y.dtype) for y in ys]


def tensors_of(sample: Sample, arrays: Sequence[np.ndarray], dtype: Any = None) -> list[tl.Tensor]:
    """The inputs as tensors, those that gradients are asked for in this dtype and asking for them."""
    return [
        tl.tensor(a, dtype if a.dtype.kind == "f" else None, requires_grad=i.grad)
        for i, a in zip(sample.inputs(), arrays, strict=True)
    ]


# ---- the table is complete ------------------------------------------------------------------


def test_every_public_function_has_a_row():
    rows = {row.name for row in ROWS}
    public = [*(("", ops, n) for n in ops.__all__), *(("F.", F, n) for n in F.__all__)]
    missing = {
        prefix + name for prefix, place, name in public
        if callable(f := getattr(place, name)) and not inspect.isclass(f) and f"ops.{name}" not in NO_ROW
        and prefix + name not in rows and not (prefix and getattr(ops, name, None) is f and name in rows)
    }  # fmt: skip
    assert not missing, "ops without a row in tests/op_table.py"


def test_every_differentiable_op_is_recorded_by_some_row():
    """Private ones too, which public functions are made of."""
    recorded: set[Op] = set()
    for row in ROWS:
        for sample, arrays in zip(row.samples, row.arrays, strict=True):
            if row.order:
                ys = results(row, sample, tensors_of(sample, arrays))
                recorded |= {node.plan.op for node in walk([y.node for y in ys if y.node])}
    rooms = [vars(room) for name, room in vars(ops).items() if inspect.ismodule(room)]
    every = {f.op for room in rooms for f in room.values() if hasattr(f, "op") and isinstance(f.op, Op)}
    backward_only = {"unslice", "unindex", "undiagonal", "embedding_backward", "slice", "zero"}
    missing = {op.name for op in every - recorded if (op.rules and any(op.rules)) or op.backward}
    assert not missing - backward_only


# ---- gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "sample", "arrays"), SMOOTH)
def test_gradients(row, sample, arrays):
    """At first and second order, through a random cotangent."""
    f, xs = function_of(row, sample, arrays)
    check_gradients(f, *xs, order=row.order)


@pytest.mark.parametrize(("row", "sample", "arrays"), SMOOTH)
def test_gradients_leave_memory_alone(row, sample, arrays):
    """Neither inputs nor cotangents change, twice gives the same bits, and no gradient shares memory with anything."""
    xs = tensors_of(sample, arrays)
    ys = [y for y in outputs(results(row, sample, xs)) if y.requires_grad]
    wanted = [x for x in xs if x.requires_grad]
    cs = cotangents(ys)
    before = [x.data.copy() for x in [*xs, *cs, *ys]]
    first = tl.autograd.grad(ys, wanted, cs, retain_graph=True, allow_unused=True)
    second = tl.autograd.grad(ys, wanted, cs, allow_unused=True)
    for x, old in zip([*xs, *cs, *ys], before, strict=True):
        np.testing.assert_array_equal(numpy(x), numpy(tl.tensor(old)))
    found = [g for g in first if g is not None]
    for a, b in zip(found, [g for g in second if g is not None], strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
    if all(type(x.data) is np.ndarray for x in xs):
        others = [*xs, *cs, *ys]
        for k, g in enumerate(found):
            assert not any(np.shares_memory(g.data, x.data) for x in [*others, *found[:k]])
            assert g.data.flags.writeable


# ---- dtypes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [tl.float32, tl.float16], ids=["float32", "float16"])
@pytest.mark.parametrize(("row", "sample", "arrays"), SMOOTH)
def test_dtypes_are_preserved(row, sample, arrays, dtype):
    """Of results and gradients, whatever Python numbers and integer tensors take part; values are those of float64."""
    if row.name in ("convert", "dropout_with") or (dtype == tl.float16 and not row.half):
        pytest.skip("the row says so")
    xs, exact = tensors_of(sample, arrays, dtype), tensors_of(sample, arrays)
    ys, wide = results(row, sample, xs), results(row, sample, exact)
    tolerance = {tl.float32: 2e-5, tl.float16: 3e-2}[dtype]
    for y, w in zip(ys, wide, strict=True):
        assert y.dtype == (dtype if w.dtype == tl.float64 else w.dtype)
        scale = max(1.0, float(np.abs(numpy(w)[np.isfinite(numpy(w))]).max(initial=0)))
        np.testing.assert_allclose(numpy(y).astype(np.float64), numpy(w), rtol=0, atol=tolerance * scale)
    ys, wide = ([y for y in outputs(r) if y.requires_grad] for r in (ys, wide))
    leaves = [[x for x in r if x.requires_grad] for r in (xs, exact)]
    found = tl.autograd.grad(ys, leaves[0], cotangents(ys), allow_unused=True)
    true = tl.autograd.grad(wide, leaves[1], cotangents(wide), allow_unused=True)
    for g, t in zip(found, true, strict=True):
        if g is None or t is None:
            assert g is t
            continue
        assert g.dtype == dtype
        scale = max(1.0, float(np.abs(numpy(t)).max(initial=0)))
        np.testing.assert_allclose(numpy(g).astype(np.float64), numpy(t), rtol=0, atol=2 * tolerance * scale)


# ---- layouts and twins ----------------------------------------------------------------------


def assert_same(found: Sequence[tl.Tensor], expected: Sequence[tl.Tensor]) -> None:
    """Values and dtypes agree."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-12, atol=1e-12)


def values_and_gradients(f: Callable[..., Any], xs: Sequence[tl.Tensor]) -> tuple[list[tl.Tensor], list[tl.Tensor]]:
    """Of a function of tensors, with the cotangents that :func:`cotangents` gives."""
    found = f(*xs)
    ys = [found] if isinstance(found, tl.Tensor) else list(found)
    kept = [y for y in ys if y.requires_grad]
    wanted = [x for x in xs if x.requires_grad]
    gs = tl.autograd.grad(kept, wanted, cotangents(kept), allow_unused=True) if kept else ()
    return ys, [g for g in gs if g is not None]


NOT_VIEWS = [p for p in SAMPLES if p.values[0].name not in ("view", "Tensor.view")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("row", "sample", "arrays"), NOT_VIEWS)
def test_strides_do_not_matter(row, sample, arrays):
    """Neither those of inputs nor those of cotangents."""
    straight = tensors_of(sample, arrays)
    bent = [strided(x).requires_grad_(x.requires_grad) for x in straight]

    def f(*xs: tl.Tensor) -> list[tl.Tensor]:
        return results(row, sample, xs)

    for a, b in zip(values_and_gradients(f, bent), values_and_gradients(f, straight), strict=True):
        assert_same(a, b)
    ys = [y for y in f(*bent) if y.requires_grad]
    if ys:
        wanted = [x for x in bent if x.requires_grad]
        found = tl.autograd.grad(ys, wanted, [strided(c) for c in cotangents(ys)], allow_unused=True)
        assert_same([g for g in found if g is not None], values_and_gradients(f, straight)[1])


KERNELS = [p for p in SMOOTH if getattr(getattr(p.values[0].f, "op", None), "composite", None)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("row", "sample", "arrays"), KERNELS)
def test_a_kernel_equals_its_composite(row, sample, arrays):
    """The same maths in plain ops: values and gradients."""
    op: Op = row.f.op
    args, kwargs = sample.fill(tensors_of(sample, arrays))
    bound = op.bind(args, kwargs)
    places = [i for i, a in enumerate(bound) if isinstance(a, tl.Tensor)]

    def at(f: Callable[..., Any]) -> Callable[..., Any]:
        def g(*xs: tl.Tensor) -> Any:
            full = list(bound)
            for i, x in zip(places, xs, strict=True):
                full[i] = x
            return f(*full)

        return g

    tensors = [bound[i] for i in places]
    assert op.composite is not None
    kernel, composite = (values_and_gradients(at(f), tensors) for f in (row.f, op.composite))
    for a, b in zip(kernel, composite, strict=True):
        assert_same(a, b)




def has_method(row: Row, sample: Sample) -> bool:
    """Whether a method takes the same arguments; ``x.where(condition, y)`` does not."""
    return hasattr(tl.Tensor, row.name) and row.name != "where" and isinstance(sample.args[0], Input)


METHODS = [p for p in SAMPLES if has_method(*p.values[:2])]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("row", "sample", "arrays"), METHODS)
def test_a_method_is_its_function(row, sample, arrays):
    """``x.exp()`` is ``exp(x)``, with the same arguments and names."""
    x, *tensors = tensors_of(sample, arrays)
    (_, *args), kwargs = sample.fill([x, *tensors])
    found = getattr(x, row.name)(*args, **kwargs)
    assert_same([found] if isinstance(found, tl.Tensor) else list(found), results(row, sample, [x, *tensors]))
