"""Check that flags such as ``keepdim`` are booleans: ``x.sum(0, 1)`` does not mean the dimensions 0 and 1."""

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tests.ops.op_table import MODULES

X = tl.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [1.0, 1.0, 4.0]])
IMAGE = X.reshape(1, 1, 3, 3)

# Calls f(flag). Each one takes True.
CALLS = {
    **{name: lambda flag, name=name: getattr(X, name)(0, keepdim=flag)
       for name in ("sum", "mean", "amax", "amin", "prod", "all", "any", "argmax", "argmin", "logsumexp", "var", "std",
                    "median", "nanmedian")},
    "max": lambda flag: X.max(0, flag), "min": lambda flag: X.min(0, flag), "norm": lambda flag: X.norm(2, 0, flag),
    "vector_norm": lambda flag: tl.linalg.vector_norm(X, 2, 0, flag),
    "matrix_norm": lambda flag: tl.linalg.matrix_norm(X, keepdim=flag),
    "quantile": lambda flag: tl.quantile(X, 0.5, 0, flag), "nanquantile": lambda flag: tl.nanquantile(X, 0.5, 0, flag),
    "sort": lambda flag: X.sort(0, flag), "argsort": lambda flag: X.argsort(0, descending=flag),
    "largest": lambda flag: X.topk(1, 0, flag), "sorted": lambda flag: X.topk(1, 0, True, flag),
    "right": lambda flag: tl.searchsorted(X[0, 1:], X[0], right=flag), "as_tuple": lambda flag: X.nonzero(flag),
    "upper": lambda flag: tl.linalg.cholesky(X @ X.T, upper=flag),
    "left": lambda flag: tl.linalg.solve(X, X, left=flag), "hermitian": lambda flag: tl.linalg.pinv(X, hermitian=flag),
    "full_matrices": lambda flag: tl.linalg.svd(X, flag), "equal_nan": lambda flag: tl.isclose(X, X, equal_nan=flag),
    "allclose": lambda flag: X.allclose(X, equal_nan=flag), "dropout": lambda flag: F.dropout(X, 0.0, flag),
    "is_causal": lambda flag: F.scaled_dot_product_attention(X, X, X, is_causal=flag),
    "log_target": lambda flag: F.kl_div(X, X, log_target=flag),
    "swap": lambda flag: F.triplet_margin_loss(X, X + 1.0, X - 1.0, swap=flag),
    "pairwise": lambda flag: F.pairwise_distance(X, X, keepdim=flag),
    "ceil_mode": lambda flag: F.max_pool2d(IMAGE, 2, ceil_mode=flag),
    "indices": lambda flag: F.max_pool2d(IMAGE, 2, return_indices=flag),
    "adaptive": lambda flag: F.adaptive_max_pool2d(IMAGE, 2, return_indices=flag),
    "avg_ceil": lambda flag: F.avg_pool2d(IMAGE, 2, ceil_mode=flag),
    "include": lambda flag: F.avg_pool2d(IMAGE, 2, count_include_pad=flag),
    "zeros": lambda flag: tl.zeros(2, requires_grad=flag), "tensor": lambda flag: tl.tensor(1.0, requires_grad=flag),
    "requires_grad_": lambda flag: tl.zeros(2).requires_grad_(flag),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_flag_is_a_boolean(name):
    call = CALLS[name]
    expected, found = call(True), call(np.True_)
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        assert (a.shape, a.dtype, a.requires_grad) == (b.shape, b.dtype, b.requires_grad)
    for wrong in (1, 0, 2, None, "no", 1.0, (), tl.tensor(True)):
        with pytest.raises(TypeError, match=r"must be True or False, got"):
            call(wrong)


def tensors(value):
    """Return the Tensors in a result."""
    return [t for v in (value if isinstance(value, tuple) else (value,)) if isinstance(t := v, tl.Tensor)]


def test_every_flag_of_an_op_is_checked():
    ops = {f.op for module in MODULES for f in vars(module).values() if hasattr(f, "op")}
    flags = {(op.name, op.names[i]) for op in ops for i in op.flags}
    assert {("sum", "keepdim"), ("topk", "largest"), ("pinv", "hermitian"), ("svd", "full_matrices")} <= flags
