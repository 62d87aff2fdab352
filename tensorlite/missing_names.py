"""Errors for names that do not exist: what to write instead of a name of PyTorch, and the nearest name of ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

__all__ = ["EXPRESSIONS", "CheckedArguments", "missing_attribute", "module_getattr", "pair_getattr"]

_TYPED = {
    f"tensorlite.{kind}Tensor": f"Use tl.tensor(data, dtype=tl.{dtype}), or tl.empty(shape, dtype=tl.{dtype})"
    for kind, dtype in (
        ("Float", "float32"), ("Double", "float64"), ("Half", "float16"), ("BFloat16", "bfloat16"), ("Long", "int64"),
        ("Int", "int32"),
        ("Short", "int16"), ("Char", "int8"), ("Byte", "uint8"), ("Bool", "bool_"),
    )
}  # fmt: skip
_LIKE_LINEAR = "Build it from nn.MultiheadAttention, nn.LayerNorm and nn.Linear"

EXPRESSIONS: dict[str, str] = {
    "Size": "a tuple",
    "addbmm": "x + tl.bmm(a, b).sum(0)",
    "addcdiv": "x + value * a / b",
    "addcmul": "x + value * a * b",
    "addmv": "x + tl.mv(a, b)",
    "argwhere": "tl.nonzero(x)",
    "baddbmm": "x + tl.bmm(a, b)",
    "bucketize": "tl.searchsorted(boundaries, x)",
    "chain_matmul": "tl.linalg.multi_dot(tensors)",
    "cholesky": "tl.linalg.cholesky(x)",
    "clamp_max": "tl.clamp(x, max=number)",
    "clamp_min": "tl.clamp(x, min=number)",
    "column_stack": "tl.hstack(tensors), or tl.stack(vectors, 1)",
    "diagflat": "tl.diag(x.flatten())",
    "diff": "x[1:] - x[:-1]",
    "dist": "tl.linalg.vector_norm(x - y)",
    "erfc": "1 - tl.erf(x)",
    "exp2": "2 ** x",
    "fliplr": "x.flip(1)",
    "flipud": "x.flip(0)",
    "frac": "x - x.trunc()",
    "ger": "tl.outer(x, y)",
    "greater": "x > y",
    "greater_equal": "x >= y",
    "hypot": "tl.sqrt(x * x + y * y)",
    "inner": "tl.matmul(x, y.mT), or tl.dot(x, y) of vectors",
    "isin": "(x.unsqueeze(-1) == values).any(-1)",
    "kthvalue": "tl.sort(x, dim)",
    "less": "x < y",
    "less_equal": "x <= y",
    "logspace": "base ** tl.linspace(start, end, steps)",
    "nan_to_num": "tl.where(tl.isnan(x), 0.0, x)",
    "nanmean": "x[~tl.isnan(x)].mean()",
    "nansum": "tl.where(tl.isnan(x), 0.0, x).sum()",
    "normal": "mean + std * tl.randn(shape)",
    "not_equal": "x != y",
    "polar": "tl.sin and tl.cos; complex numbers have no gradients",
    "qr": "tl.linalg.qr(x)",
    "range": "tl.arange(start, end)",
    "ravel": "x.ravel()",
    "row_stack": "tl.vstack(tensors)",
    "std_mean": "(x.std(), x.mean())",
    "svd": "tl.linalg.svd(x)",
    "swapdims": "tl.swapaxes(x, dim0, dim1)",
    "t": "x.t()",
    "tensordot": "tl.einsum(equation, x, y)",
    "tril_indices": "tl.nonzero(tl.tril(tl.ones(n, m))).T",
    "triu_indices": "tl.nonzero(tl.triu(tl.ones(n, m))).T",
    "var_mean": "(x.var(), x.mean())",
    "vdot": "tl.dot(x, y)",
    "xlogy": "x * tl.log(y)",
    "func.grad_and_value": "tl.func.value_and_grad(f), which returns (value, gradient)",
    "func.jacfwd": "tl.func.jacobian(f)",
    "func.jacrev": "tl.func.jacobian(f)",
    "func.linearize": "tl.func.jvp(f, primals, tangents)",
    "linalg.cholesky_ex": "tl.linalg.cholesky(x), which raises LinAlgError",
    "linalg.diagonal": "tl.diagonal(x, 0, -2, -1)",
    "linalg.eig": "tl.linalg.eigh(x) of symmetric matrices",
    "linalg.eigvals": "tl.linalg.eigvalsh(x) of symmetric matrices",
    "linalg.inv_ex": "tl.linalg.inv(x), which raises LinAlgError",
    "linalg.lu_solve": "tl.linalg.solve(a, b)",
    "linalg.solve_ex": "tl.linalg.solve(a, b), which raises LinAlgError",
}
"""Expressions for names of PyTorch, of arguments x and y."""

_FUNCTIONAL = """
    adaptive_avg_pool1d adaptive_max_pool1d avg_pool1d batch_norm binary_cross_entropy_with_logits conv1d
    conv2d conv_transpose1d conv_transpose2d cosine_embedding_loss dropout embedding group_norm
    hinge_embedding_loss kl_div layer_norm margin_ranking_loss max_pool1d max_pool2d pairwise_distance
    rms_norm triplet_margin_loss
"""
"""Names of functions that are in ``tensorlite.nn.functional`` alone."""

_INSTEAD: dict[str, str] = {
    **{f"tensorlite.{name}": f"Use {text}" for name, text in EXPRESSIONS.items()},
    **{f"tensorlite.{name}": f"Use tl.nn.functional.{name}" for name in _FUNCTIONAL.split()},
    **_TYPED,
    "tensorlite.BoolTensor": "Use tl.tensor(data, dtype=tl.bool_), or mask.bool()",
    "tensorlite.Parameter": "Use tl.nn.Parameter",
    "tensorlite.Module": "Use tl.nn.Module",
    "tensorlite.jit": "Call the model itself: with the extra tensorlite[fast] its loops are compiled",
    "tensorlite.cuda.amp": "Use tl.amp.autocast and tl.amp.GradScaler",
    "tensorlite.bernoulli": "Use (tl.rand(p.shape) < p).to(p.dtype)",
    "tensorlite.multinomial": "Draw with NumPy: rng.choice(n, size, p=p.numpy())",
    "tensorlite.backends": "Use tl.set_num_threads(n) or tl.use_deterministic_algorithms(True)",
    "tensorlite.nn.DataParallel": "Use tl.distributed.DataParallel",
    "tensorlite.nn.Conv3d": "Use nn.Conv1d or nn.Conv2d",
    "tensorlite.nn.Transformer": _LIKE_LINEAR,
    "tensorlite.nn.TransformerEncoder": _LIKE_LINEAR,
    "tensorlite.nn.TransformerEncoderLayer": _LIKE_LINEAR,
    "tensorlite.nn.TransformerDecoder": _LIKE_LINEAR,
    "tensorlite.nn.TransformerDecoderLayer": _LIKE_LINEAR,
    "tensorlite.optim.LBFGS": "Use optim.Adam, or scipy.optimize with tl.func.value_and_grad",
    "tensorlite.autograd.Function": "Write the function and its gradient rules with @tl.op: see docs/autograd.md",
    "tensorlite.autograd.gradcheck": "Use tl.testing.check_grad(f, *inputs)",
    "tensorlite.autograd.gradgradcheck": "Use tl.testing.check_grad(f, *inputs, order=2)",
    "tensorlite.autograd.set_detect_anomaly": "Use with tl.detect_anomaly()",
    "tensorlite.autograd.profiler": "Use tl.profiler.profile()",
    "Tensor.apply_": "Use operators and ops, or make a tensor of a NumPy result with tl.tensor()",
    "Tensor.map_": "Use operators and ops, or make a tensor of a NumPy result with tl.tensor()",
    "Tensor.mps": "Use .to('cuda') or .to('cpu')",
    "Tensor.astype": "Use .to(dtype)",
    "Tensor.copy": "Use .clone()",
    "Tensor.zero_grad": "Use x.grad = None, or the zero_grad() of the optimizer or module",
    "Tensor.step": "Use the step() of an optimizer",
    "Tensor.state_dict": "Use tl.save({'name': x}, path) for a tensor",
    "Tensor.to_numpy": "Use .detach().numpy()",
    "Tensor.bernoulli_": "Use (tl.rand(x.shape) < p).to(x.dtype)",
    "Tensor.parameters": "Use [x], a list of the tensor",
}  # fmt: skip
"""What to write instead of a name that PyTorch has and tensorlite has not."""


def missing_attribute(owner: str, name: str, names: Iterable[str], shown: str = "") -> AttributeError:
    """Return the error for a name that does not exist, with what to write instead.

    owner: the module or class. names: the names that it has. shown: the owner as the message begins with it.
    """
    message = f"{shown or f'module {owner!r}'} has no attribute {name!r}"
    advice = _INSTEAD.get(f"{owner}.{name}")
    if advice is None and not name.startswith("_"):
        from difflib import get_close_matches  # here, because most programs never need it

        public = [n for n in names if not n.startswith("_")]
        near = [n for n in public if n.lower() == name.lower()] or get_close_matches(name, public, 1, 0.7)
        advice = f"Did you mean {near[0]!r}?" if near else None
    elif advice is not None:
        advice += "."
    return AttributeError(message if advice is None else f"{message}. {advice}")


def module_getattr(module: str, names: dict[str, Any]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module. names: its ``globals()``."""

    def missing(name: str) -> Any:
        raise missing_attribute(module, name, names)

    return missing


def pair_getattr(self: Any, name: str) -> Any:
    """Raise AttributeError: the ``__getattr__`` of a pair of values and indices."""
    raise AttributeError(
        f"{type(self).__name__}: expected one of the attributes {', '.join(self._fields)}, got {name!r}. With a "
        f"dimension the result is a pair: use .values or .indices."
    )


@functools.lru_cache(maxsize=1000)
def _signature(init: Callable[..., None]) -> inspect.Signature:
    """Return the signature of an ``__init__`` without ``self`` and types."""
    parameters = list(inspect.signature(init).parameters.values())[1:]
    return inspect.Signature([p.replace(annotation=p.empty) for p in parameters])


class CheckedArguments:
    """A base class of classes whose constructor says its signature if it is called with other arguments."""

    if not TYPE_CHECKING:  # Type checkers read the signature of the constructor itself.

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if args or kwargs:  # a copy is made without any
                signature = _signature(cls.__init__)
                try:
                    signature.bind(*args, **kwargs)
                except TypeError as error:
                    raise TypeError(f"{cls.__name__}: {error}; its signature is {cls.__name__}{signature}") from None
            return super().__new__(cls)
