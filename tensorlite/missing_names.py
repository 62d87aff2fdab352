"""Errors for names that do not exist: what to write instead of a name of PyTorch, and the nearest name of ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["CheckedArguments", "missing_attribute", "module_getattr", "pair_getattr"]

_TYPED = {
    f"tensorlite.{kind}Tensor": f"Use tl.tensor(data, dtype=tl.{dtype}), or tl.empty(shape, dtype=tl.{dtype})"
    for kind, dtype in (
        ("Float", "float32"), ("Double", "float64"), ("Half", "float16"), ("Long", "int64"), ("Int", "int32"),
        ("Short", "int16"), ("Char", "int8"), ("Byte", "uint8"), ("Bool", "bool_"),
    )
}  # fmt: skip
_LIKE_LINEAR = "Build it from nn.MultiheadAttention, nn.LayerNorm and nn.Linear"

_INSTEAD: dict[str, str] = {
    **_TYPED,
    "tensorlite.BoolTensor": "Use tl.tensor(data, dtype=tl.bool_), or mask.bool()",
    "tensorlite.Parameter": "Use tl.nn.Parameter",
    "tensorlite.Module": "Use tl.nn.Module",
    "tensorlite.bfloat16": "Use tl.float32 or tl.float16, because NumPy has no bfloat16",
    "tensorlite.compile": "Call the model itself: with the extra tensorlite[fast] its loops are compiled",
    "tensorlite.jit": "Call the model itself: with the extra tensorlite[fast] its loops are compiled",
    "tensorlite.amp": "Train in float32, or convert the model with .half() for inference",
    "tensorlite.autocast": "Train in float32, or convert the model with .half() for inference",
    "tensorlite.cuda.amp": "Train in float32, or convert the model with .half() for inference",
    "tensorlite.bernoulli": "Use (tl.rand(p.shape) < p).to(p.dtype)",
    "tensorlite.multinomial": "Draw with NumPy: rng.choice(n, size, p=p.numpy())",
    "tensorlite.meshgrid": "Use x.reshape(-1, 1).expand(n, m) and y.expand(n, m)",
    "tensorlite.distributed": "Train in one process",
    "tensorlite.backends": "Use tl.set_num_threads(n) or tl.use_deterministic_algorithms(True)",
    "tensorlite.nn.DataParallel": "Train in one process",
    "tensorlite.nn.Conv3d": "Use nn.Conv1d or nn.Conv2d",
    "tensorlite.nn.Transformer": _LIKE_LINEAR,
    "tensorlite.nn.TransformerEncoder": _LIKE_LINEAR,
    "tensorlite.nn.TransformerEncoderLayer": _LIKE_LINEAR,
    "tensorlite.nn.TransformerDecoder": _LIKE_LINEAR,
    "tensorlite.nn.TransformerDecoderLayer": _LIKE_LINEAR,
    "tensorlite.optim.LBFGS": "Use optim.Adam, or scipy.optimize with tl.func.value_and_grad",
    "tensorlite.autograd.Function": "Write the function and its gradient rules with @tl.op: see docs/autograd.md",
    "tensorlite.autograd.profiler": "Use tl.profiler.profile()",
    "Tensor.apply_": "Use operators and ops, or make a tensor of a NumPy result with tl.tensor()",
    "Tensor.map_": "Use operators and ops, or make a tensor of a NumPy result with tl.tensor()",
    "Tensor.bfloat16": "Use .float() or .half(), because NumPy has no bfloat16",
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

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:  # a copy is made without any
            signature = _signature(cls.__init__)
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{cls.__name__}: {error}; its signature is {cls.__name__}{signature}") from None
        return super().__new__(cls)
