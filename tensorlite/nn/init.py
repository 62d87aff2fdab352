"""Ways to fill a weight with its first values, in place; each returns the tensor it was given. No gradient follows.

The *fan* of a weight (out, in, ...) is how many entries feed one output ("fan_in": in times the rest), or how many
outputs one input feeds ("fan_out": out times the rest).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import NormalDist
from typing import Any

import numpy as np

from ..backends.registry import BACKENDS
from ..errors import ShapeError
from ..random import Generator
from ..tensors.tensor import Tensor

__all__ = ["calculate_gain", "constant_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
           "orthogonal_", "skip_init", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_",
           "zeros_"]  # fmt: skip


class _ThreadState(threading.local):
    skipped = False  # whether this thread is inside skip_init()


_state = _ThreadState()


@contextmanager
def skip_init() -> Iterator[None]:
    """Context manager in which the functions of this module leave their tensor unchanged and draw nothing.

    Use it to make a model whose weights are loaded right afterwards: layers allocate their parameters, but their first
    values are whatever the memory held, NaN included. Layers that need no random numbers may still be filled, as
    LayerNorm's ones are. The state of the random number generators does not change. Arguments are checked as usual.

    It holds for the thread that enters it, can be nested, and ends when an error leaves it.

        with nn.init.skip_init():
            model = Model()
        model.load_state_dict(state)
    """
    before, _state.skipped = _state.skipped, True
    try:
        yield
    finally:
        _state.skipped = before


def _require_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a Tensor to fill, got {type(tensor).__name__}")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Random numbers from [a, b)."""
    _require_tensor("uniform_", tensor)
    if not _state.skipped:
        tensor.detach().uniform_(a, b, generator=generator)
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Random numbers from the normal distribution with this mean and standard deviation."""
    _require_tensor("normal_", tensor)
    if not _state.skipped:
        tensor.detach().normal_(mean, std, generator=generator)
    return tensor


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Random numbers from a normal distribution, of which only what lies in [a, b] is left.

    Raises ValueError if a > b or std is not positive.
    """
    if a > b or std <= 0:
        raise ValueError(f"trunc_normal_: expected a <= b and std > 0, got a={a}, b={b}, std={std}")
    _require_tensor("trunc_normal_", tensor)
    if _state.skipped:
        return tensor
    normal = NormalDist(mean, std)
    low, high = normal.cdf(a), normal.cdf(b)
    drawn = Tensor(np.empty(tensor.shape)).uniform_(low, high, generator=generator).numpy()
    inside = np.clip(drawn, 1e-300, 1.0 - 2.0**-53)  # where the inverse is finite
    values = np.array([normal.inv_cdf(p) for p in inside.reshape(-1).tolist()]).reshape(tensor.shape)
    tensor.detach().copy_(np.clip(values, a, b))
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every entry ``val``."""
    _require_tensor("constant_", tensor)
    if not _state.skipped:
        tensor.detach().fill_(val)
    return tensor


def ones_(tensor: Tensor) -> Tensor:
    """Every entry 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Every entry 0."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix, or what a matrix that is not square holds of it. Raises ShapeError if it is not a matrix."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: expected a matrix, got shape {tensor.shape}")
    if not _state.skipped:
        tensor.detach().copy_(np.eye(tensor.shape[0], tensor.shape[1]))
    return tensor


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ShapeError(f"{name}: the fan needs at least 2 dimensions, (out, in, ...), got shape {tensor.shape}")
    rest = math.prod(tensor.shape[2:])
    return tensor.shape[1] * rest, tensor.shape[0] * rest


_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 3.0 / 4.0}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor for weights in front of a nonlinearity that keeps the signal's scale.

    1 for "linear" and "sigmoid", 5/3 for "tanh", sqrt(2) for "relu", sqrt(2 / (1 + slope^2)) for "leaky_relu", whose
    slope is ``param`` (0.01 if None), 3/4 for "selu". Raises ValueError for other names.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in _GAINS:
        known = ", ".join([*_GAINS, "leaky_relu"])
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; known are {known}")
    return _GAINS[nonlinearity]


def _xavier_std(name: str, tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / max(1, sum(_fans(name, tensor))))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform numbers with standard deviation ``gain * sqrt(2 / (fan_in + fan_out))``.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    bound = math.sqrt(3.0) * _xavier_std("xavier_uniform_", tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal numbers with standard deviation ``gain * sqrt(2 / (fan_in + fan_out))``."""
    return normal_(tensor, 0.0, _xavier_std("xavier_normal_", tensor, gain), generator)


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{name}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = _fans(name, tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform numbers with standard deviation ``gain / sqrt(fan)``; a is the slope of a leaky_relu.

    Source: He et al., "Delving Deep into Rectifiers", 2015.
    """
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal numbers with standard deviation ``gain / sqrt(fan)``; a is the slope of a leaky_relu."""
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """A random matrix (out, everything else) with orthonormal rows or columns, whichever are fewer, times ``gain``.

    Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning", 2013.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: expected at least 2 dimensions, got shape {tensor.shape}")
    if tensor.numel() == 0 or _state.skipped:
        return tensor
    rows = tensor.shape[0]
    shape = (rows, tensor.numel() // rows)
    xp: Any = BACKENDS[type(tensor.array)]
    drawn = Tensor(xp.empty((max(shape), min(shape)))).normal_(generator=generator)
    q, r = xp.linalg.qr(drawn.array)
    q = q * xp.where(xp.diagonal(r) < 0, -1.0, 1.0)  # makes it uniform over the orthogonal matrices
    tensor.detach().copy_((q if shape[0] >= shape[1] else q.T).reshape(tensor.shape) * gain)
    return tensor
