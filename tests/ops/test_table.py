"""Run every op of the table in tests/ops/op_table.py: the checks of its OpSpec, and rules for the library's own ops.

The cases of one op are found with ``-k``: ``pytest tests/ops/test_table.py -k "gather"``.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.autograd import Op
from tensorlite.autograd.graph import Plan, topological_order
from tensorlite.testing import Input, OpSpec, check_against
from tests.ops.op_table import MODULES, SPECS

NO_SPEC = {
    "assign": "writes into raw arrays; x[index] = value is tested with tensors",
    "call_lapack": "calls LAPACK",
    "check_matrices": "checks shapes and dtypes",
    "dims_in": "reads the argument dim",
    "fitting": "converts a value for index_put and its like, which are tested",
    "flipped": "transposes matrices",
    "pick_along": "gather checks its arguments and returns its result",
    "rows": "reshapes the arrays of matmul's gradient",
    "wide_matmul": "only gradients in a lower dtype use it; see tests/amp/test_wide_gradients.py",
    "with_view": "only in-place changes use it; see VIEWS in tests/autograd/test_views.py",
}
"""Functions in the modules of ops that need no row in the table, with the reason."""

NO_REFERENCE: dict[str, str] = dict.fromkeys(
    ("linalg.eigh", "spd.linalg.eigh", "linalg.qr", "linalg.svd"),
    "LAPACK chooses the signs of vectors; tests/ops/test_factorizations.py multiplies the factors",
)
"""Ops with float results that cannot be computed in another way, with the reason."""

NO_ERRORS = {
    "kron": "any two shapes fit",
    "recurrence_": "cumprod and logcumsumexp check",
    "crop": "narrow checks",
    "cross_entropy_rows": "F.cross_entropy checks",
    "logistic_cross_entropy": "F.binary_cross_entropy_with_logits checks",
    "nll_rows": "F.nll_loss checks",
    "squared_error": "F.mse_loss checks",
    "attention": "F.scaled_dot_product_attention checks",
}
"""Ops of two tensors, an index or a dim that check nothing, with the function that does."""

INVERTED = (
    "inverse", "linalg.inv", "linalg.solve", "slogdet", "linalg.slogdet", "logdet", "spd.logdet", "linalg.cholesky",
    "spd.linalg.cholesky", "linalg.matrix_power", "linalg.cond", "linalg.solve_triangular",
)  # fmt: skip
SKIP = {
    "convert": {"hygiene", "dtypes"},  # its dtype is an argument
    "view": {"hygiene"},  # it refuses some layouts; tests/tensors/test_tensor.py tests that
    "Tensor.view": {"hygiene"},
    **{name: {"hygiene"} for name in INVERTED},  # it repeats one row, and the matrix is then singular
    "F.dropout": {"hygiene"},  # it returns its argument itself if it drops nothing
}

CASES = [
    pytest.param(case, id=f"{spec.name}-{case.name}")
    for spec in SPECS.values() for case in spec.cases(SKIP.get(spec.name, ()))
]  # fmt: skip
SAMPLES = [pytest.param(spec, k, id=f"{spec.name}-{k}") for spec in SPECS.values() for k in range(len(spec.samples))]


@pytest.mark.parametrize("case", CASES)
def test_op(case):
    """Check values, gradients, memory, dtypes, layouts and errors."""
    case.run()


# ---- the table is complete ------------------------------------------------------------------


def test_every_public_function_has_a_spec():
    own = [(module, name) for module in MODULES for name, f in vars(module).items()
           if getattr(f, "__module__", "") == module.__name__ and name == name.strip("_")]  # fmt: skip
    ops = {name: f for module, name in own if callable(f := getattr(module, name)) and not inspect.isclass(f)}
    aliases = {name for name, f in ops.items() if name != f.__name__ and ops.get(f.__name__) is f}
    missing = ops.keys() - SPECS.keys() - NO_SPEC.keys() - aliases
    reexported = {name for name in F.__all__ if ops.get(name) is getattr(F, name)}
    linalg = {name for name in tl.linalg.__all__ if not inspect.isclass(getattr(tl.linalg, name))}
    missing -= {name for name in linalg if ops.get(name) is getattr(tl.linalg, name)}
    missing |= {f"linalg.{name}" for name in linalg} - SPECS.keys()
    missing |= {f"F.{name}" for name in F.__all__} - SPECS.keys() - {f"F.{name}" for name in reexported & SPECS.keys()}
    assert not missing, "ops without a row in tests/ops/op_table.py"


def test_every_op_with_float_results_has_a_reference():
    missing = {
        name for name, spec in SPECS.items() if spec.reference is None
        and any(y.is_floating_point() for k in range(len(spec.samples)) for y in spec.results(k, spec.tensors(k)))
    }  # fmt: skip
    assert missing == NO_REFERENCE.keys(), "ops without a reference in tests/ops/op_references.py"


def test_no_reference_computes_with_tensorlite():
    """Check that references return arrays, because one that used tensorlite would prove nothing."""
    for spec in SPECS.values():
        if spec.reference is not None:
            for sample, arrays in zip(spec.samples, spec.arrays, strict=True):
                args, kwargs = sample.fill(arrays)
                found = spec.reference(*args, **kwargs)
                for y in found if isinstance(found, (list, tuple)) else [found]:
                    assert isinstance(y, (np.ndarray, np.generic)), f"{spec.name} has a {type(y).__name__}"


def takes_what_may_not_fit(spec: OpSpec) -> bool:
    """Return whether an op takes several tensors, a dimension or an index."""
    names = set(inspect.signature(spec.f).parameters)
    several = any(len(sample.inputs()) > 1 for sample in spec.samples)
    return several or bool(names & {"dim", "dims", "dim0", "dim1", "index", "shape", "sizes"})


def test_every_op_with_checks_has_error_cases():
    missing = {name for name, spec in SPECS.items() if not spec.errors and takes_what_may_not_fit(spec)}
    assert missing == NO_ERRORS.keys(), "ops without errors in tests/ops/op_errors.py"


def test_every_differentiable_op_is_recorded_by_some_sample():
    """Check private ops too, because public functions call them."""
    recorded: set[Plan] = set()
    for spec in SPECS.values():
        for k in range(len(spec.samples)) if spec.order else ():
            ys = spec.results(k, spec.tensors(k))
            recorded |= {node.plan for node in topological_order([y.node for y in ys if y.node])}
    functions = [f for module in MODULES for f in vars(module).values()]
    every = {f.op for f in functions if hasattr(f, "op") and isinstance(f.op, Op)}
    backward_only = {"unslice", "unindex", "undiagonal", "embedding_backward", "slice", "zero", "over_square", "share"}
    backward_only |= {"share_out", "deviations", "cofactors", "cofactors_gradient", "atan_slope", "bell"}
    backward_only |= {"power_derivative", "softmax_gradient", "log_softmax_gradient", "unselect", "select_last"}
    backward_only |= {"sigmoid_slope", "relu_slope", "nll_gradient", "unpick"}
    composites = {op.composite.op for op in every if hasattr(op.composite, "op")}  # recorded for higher orders only
    never = {op for op in every - composites if recorded.isdisjoint(op.plans.values())}
    missing = {op.name for op in never if (op.rules and any(op.rules)) or op.backward}
    elsewhere = {"with_view", "wide_matmul"}  # see NO_SPEC
    assert not missing - backward_only - elsewhere


# ---- layouts of integers and booleans -------------------------------------------------------


def strided(x: tl.Tensor) -> tl.Tensor:
    """Return the same entries with other strides: the transpose of every second entry of a larger tensor."""
    if not x.ndim:
        return x.detach().clone()
    big = tl.zeros(*(2 * n for n in x.shape[::-1]), dtype=x.dtype)
    view = big.array[(slice(None, None, 2),) * x.ndim].T
    view[...] = x.array
    result = tl.zeros(0)
    result.array = view
    return result


def assert_same(found: Sequence[tl.Tensor], expected: Sequence[tl.Tensor]) -> None:
    """Assert that values and dtypes agree."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("spec", "k"), [p for p in SAMPLES if p.values[0].name not in ("view", "Tensor.view")])  # type: ignore[attr-defined]
def test_strides_do_not_matter(spec, k):
    """Check index arrays, masks and integers; check_op covers floats and cotangents."""
    assert_same(spec.results(k, [strided(x) for x in spec.tensors(k)]), spec.results(k, spec.tensors(k)))


# ---- equals ---------------------------------------------------------------------------------

KERNELS = [p for p in SAMPLES if getattr(getattr(p.values[0].f, "op", None), "composite", None)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("spec", "k"), KERNELS)
def test_a_kernel_equals_its_composite(spec, k):
    """Compare a kernel with the same function in plain ops: values and gradients."""
    op: Op = spec.f.op
    args, kwargs = spec.samples[k].fill(spec.tensors(k))
    bound = op.bind(args, kwargs)
    places = [i for i, a in enumerate(bound) if isinstance(a, tl.Tensor) and a.requires_grad]

    def at(f: Callable[..., Any]) -> Callable[..., Any]:
        def g(*xs: tl.Tensor) -> Any:
            full = list(bound)
            for i, x in zip(places, xs, strict=True):
                full[i] = x
            return f(*full)

        return g

    assert op.composite is not None
    tensors = [bound[i].detach() for i in places]
    check_against(at(spec.f), at(op.composite), *tensors, rtol=1e-12, atol=1e-12, gradients=True, name=spec.name)


def has_method(spec: OpSpec, k: int) -> bool:
    """Return whether a method takes the same arguments. ``x.where(condition, y)`` does not."""
    return hasattr(tl.Tensor, spec.name) and spec.name != "where" and isinstance(spec.samples[k].args[0], Input)


@pytest.mark.parametrize(("spec", "k"), [p for p in SAMPLES if has_method(*p.values)])  # type: ignore[arg-type]
def test_a_method_is_its_function(spec, k):
    """Check that ``x.exp()`` is ``exp(x)``, with the same arguments and names."""
    x, *tensors = spec.tensors(k)
    (_, *args), kwargs = spec.samples[k].fill([x, *tensors])
    found = getattr(x, spec.name)(*args, **kwargs)
    assert_same([found] if isinstance(found, tl.Tensor) else list(found), spec.results(k, [x, *tensors]))
