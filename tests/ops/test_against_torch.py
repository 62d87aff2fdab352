"""Compare every op with PyTorch on the samples of op_table.py: values, gradients of both orders, dtypes, errors."""

from typing import Any

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import Input, OpSpec, Sample
from tests.ops.op_table import SPECS, resolve

torch = pytest.importorskip("torch")

# Ops without a function of the same name in PyTorch: internal ones, and those that PyTorch has only as a method.
NO_TWIN = {
    "attention", "cdist_", "convert", "convert_to_discrete", "crop", "cross_entropy_rows", "huber", "recurrence_",
    "bernoulli_cross_entropy",
    "apply_dropout_mask", "index_put",
    "layer_norm_rows", "linear", "logistic_cross_entropy", "nll_rows", "normalize_channels", "scale_channels",
    "squared_error",
    "pad_dims", "rms_norm_rows", "sum_to_size", "view",
    "linalg.eigh", "spd.linalg.eigh", "linalg.svd",  # the signs of vectors differ; see test_factorizations.py
}  # fmt: skip
TWINS = {
    "embedding": lambda weight, ids: torch.nn.functional.embedding(ids, weight),
    "cdist": lambda x, y, p=2.0: torch.linalg.vector_norm(x[..., :, None, :] - y[..., None, :, :], p, -1),
    "expand": lambda x, shape: x.expand(shape),
    "getitem": lambda x, index: x[index],
    "repeat": lambda x, sizes: x.repeat(sizes),
    "log_sigmoid": torch.nn.functional.logsigmoid,
    "one_hot": torch.nn.functional.one_hot,
    "einsum": torch.einsum,
    "norm": lambda x, p=2, dim=None, keepdim=False: torch.linalg.vector_norm(x, 2 if p == "fro" else p, dim, keepdim),
    "unflatten": lambda x, dim, sizes: torch.unflatten(x, dim, sizes),
    **{n: getattr(torch.nn.functional, n) for n in ("elu", "gelu", "leaky_relu", "relu", "silu", "softplus")},
}
# Samples that PyTorch refuses or computes wrongly, by number (None: all).
REFUSED: dict[str, set[int] | None] = {
    "floor_divide": None,  # PyTorch has no gradient
    "remainder": {9},  # PyTorch has no gradient for a Python number on the left
    **{name: {9} for name in ("fmod", "eq", "ne", "lt", "le", "gt", "ge")},  # a Python number on the left
    **{name: {8, 9} for name in ("atan2", "maximum", "minimum")},  # a Python number on either side
    "logaddexp": {8, 9, 10},  # 10: its second gradient is NaN where one exponential underflows
    **{name: {4, 5} for name in ("det", "linalg.det")},  # its second gradient is NaN for a rank below n - 1
    "linalg.qr": {4},  # no gradient for mode="r"
    "linalg.lstsq": {3},  # it takes no stack of matrices with one right-hand side
    "linalg.cond": {2, 4, 5},  # its backward pass says that a value was changed in place
    "F.multi_margin_loss": None,  # no second gradient
    "F.soft_margin_loss": {3},  # its exponential overflows
    "scatter": {0, 3, 4, 5},  # the gradient of a source that is larger than the index, and that of reduce
    "scatter_add": {1},
    "F.batch_norm": {2},  # gradients of the running statistics
    "F.layer_norm": {4},  # a bias without a weight
    "F.scaled_dot_product_attention": {7},  # second gradients of its fused kernel
    "pow": {18},  # at exponent 0 its second gradient forgets d/dy (y x^(y-1)) = 1/x
}


# Errors that PyTorch does not raise, by number, with our reason.
TAKEN = {
    ("getitem", 8): "two ellipses; PyTorch takes the second for a colon",
    ("take_along_dim", 0): "an index out of range; PyTorch takes it modulo the size, but not without a dim",
    ("F.mse_loss", 0): "shapes such as (N, 1) and (N,) broadcast to (N, N), which is seldom meant; PyTorch warns",
    ("F.l1_loss", 0): "the same",
    ("cdist", 1): "its twin here is vector_norm, which takes a negative order",
    ("linalg.solve_triangular", 1): "a zero on the diagonal; PyTorch returns infinities",
    ("F.huber_loss", 0): "the same",
    ("F.smooth_l1_loss", 0): "the same",
    ("F.scaled_dot_product_attention", 7): "a negative probability; PyTorch's CPU kernel does not look at it",
}


def twin(spec: OpSpec) -> Any:
    """Return PyTorch's function for an op."""
    if spec.name in TWINS:
        return TWINS[spec.name]
    return resolve(spec.name, torch, torch.nn.functional, torch.Tensor)


SAMPLES = [
    pytest.param(spec, k, id=f"{spec.name}-{k}")
    for spec in SPECS.values() if spec.name not in NO_TWIN
    for k in range(len(spec.samples))
    if k not in (refused if (refused := REFUSED.get(spec.name, set())) is not None else {k})
]  # fmt: skip
ERRORS = [
    pytest.param(spec, k, id=f"{spec.name}-{k}")
    for spec in SPECS.values() if spec.name not in NO_TWIN
    for k in range(len(spec.errors))
]  # fmt: skip


def outcomes(f: Any, sample: Sample, inputs: list[Input], xs: list[Any], library: Any, order: int) -> list[np.ndarray]:
    """Return the results, the gradients, and the gradients of the gradients, computed by one library."""
    args, kwargs = sample.fill(xs)
    found = f(*args, **kwargs)
    ys = [found] if isinstance(found, (tl.Tensor, torch.Tensor)) else list(found)
    everything = [as_array(y) for y in ys]
    rng = np.random.default_rng(2)

    def weights(tensors: list[Any]) -> list[Any]:
        return [library.tensor(np.asarray(rng.standard_normal(tuple(t.shape)))) for t in tensors]

    leaves = [x for x, i in zip(xs, inputs, strict=True) if i.grad]
    ys = [y for y in ys if y.requires_grad]
    cs = weights(ys)
    if not ys or not order:
        return everything
    first = library.autograd.grad(ys, leaves, cs, create_graph=order > 1, allow_unused=True)
    everything += [np.zeros(tuple(x.shape)) if g is None else as_array(g) for g, x in zip(first, leaves, strict=True)]
    if order > 1:
        ds = dict(zip(range(len(first)), weights(leaves), strict=True))
        known = [k for k, g in enumerate(first) if g is not None and g.requires_grad]
        second = [None] * len(leaves)
        if known:
            second = library.autograd.grad(
                [first[k] for k in known], leaves, [ds[k] for k in known], allow_unused=True
            )
        everything += [
            np.zeros(tuple(x.shape)) if g is None else as_array(g) for g, x in zip(second, leaves, strict=True)
        ]
    return everything


def as_array(x: Any) -> np.ndarray:
    return x.detach().numpy(force=True) if isinstance(x, torch.Tensor) else x.detach().numpy()


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.filterwarnings(r"ignore:.*degrees of freedom is <= 0:UserWarning")
@pytest.mark.parametrize(("spec", "k"), SAMPLES)
def test_against_torch(spec, k):
    """Compare values and gradients in float64, with random cotangents."""
    sample = spec.samples[k]
    inputs = sample.inputs()
    theirs = [torch.tensor(a, requires_grad=i.grad) for a, i in zip(spec.arrays[k], inputs, strict=True)]
    expected = outcomes(twin(spec), sample, inputs, theirs, torch, spec.order)
    found = outcomes(spec.f, sample, inputs, spec.tensors(k), tl, spec.order)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11 * scale)


# The errors that PyTorch raises for invalid calls. (F.embedding's padding_idx is an assert of its own.)
REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError, OverflowError)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
@pytest.mark.parametrize(("spec", "k"), ERRORS)
def test_torch_refuses_it_too(spec, k):
    """Check that PyTorch raises an error too, except for the listed differences."""
    wrong = spec.errors[k]
    rng = np.random.default_rng(0)
    inputs = zip(wrong.sample.arrays(rng), wrong.sample.inputs(), strict=True)
    args, kwargs = wrong.sample.fill([torch.tensor(a, requires_grad=i.grad) for a, i in inputs])
    if (spec.name, k) in TAKEN:
        twin(spec)(*args, **kwargs)  # remove the entry if PyTorch raises now
    else:
        with pytest.raises(REFUSALS):
            twin(spec)(*args, **kwargs)
