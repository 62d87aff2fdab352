"""Initial values of weights.

Each function whose name ends in ``_`` fills a Tensor in place, whether or not it requires gradients, and returns it.
Nothing is recorded in the graph. ``generator`` is the source of random numbers; None is the default generator.

The *fan* of a weight (out, in, ...) is one of two numbers. "fan_in" is the number of entries that feed one output: in
times the rest. "fan_out" is the number of outputs that one input feeds: out times the rest.
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
from ..scalars import number_in
from ..tensors.tensor import Tensor

__all__ = ["calculate_gain", "constant_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
           "orthogonal_", "skip_init", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_",
           "zeros_"]  # fmt: skip


class _ThreadState(threading.local):
    """The state of a thread: whether it is inside a ``skip_init()`` block."""

    skipped = False


_state = _ThreadState()


@contextmanager
def skip_init() -> Iterator[None]:
    """Context manager in which the functions of this module leave their Tensor unchanged.

    Use it to make a model whose weights are loaded afterwards:

        with nn.init.skip_init():
            model = Model()
        model.load_state_dict(state)

    Layers allocate their parameters, but the entries are arbitrary, NaN included. No random number is drawn, and
    arguments are checked as usual. Layers that need no random numbers, such as LayerNorm, may still fill their
    parameters.

    It applies to the current thread. It can be nested, and it ends when an error leaves the block.
    """
    before, _state.skipped = _state.skipped, True
    try:
        yield
    finally:
        _state.skipped = before


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a Tensor to fill, got {type(tensor).__name__}")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with random numbers from the uniform distribution on [a, b)."""
    _check_tensor("uniform_", tensor)
    a, b = number_in("uniform_", "a", a), number_in("uniform_", "b", b)
    if not _state.skipped:
        tensor.detach().uniform_(a, b, generator=generator)
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with random numbers from the normal distribution with this mean and standard deviation."""
    _check_tensor("normal_", tensor)
    mean, std = number_in("normal_", "mean", mean), number_in("normal_", "std", std)
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
    """Fill with random numbers from the normal distribution, under the condition that they lie in [a, b].

    mean, std: those of the normal distribution itself.

    Raises ValueError if a > b or std is not positive.
    """
    mean, std, a, b = (
        number_in("trunc_normal_", what, number) for what, number in (("mean", mean), ("std", std), ("a", a), ("b", b))
    )
    if a > b or std <= 0:
        raise ValueError(f"trunc_normal_: expected a <= b and std > 0, got a={a}, b={b}, std={std}")
    _check_tensor("trunc_normal_", tensor)
    if _state.skipped:
        return tensor
    normal = NormalDist(mean, std)
    low, high = normal.cdf(a), normal.cdf(b)
    drawn = Tensor(np.empty(tensor.shape)).uniform_(low, high, generator=generator).numpy()
    inside = np.clip(drawn, 1e-300, 1.0 - 2.0**-53)  # where the inverse of the cdf is finite
    values = np.array([normal.inv_cdf(p) for p in inside.reshape(-1).tolist()]).reshape(tensor.shape)
    tensor.detach().copy_(np.clip(values, a, b))
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with the number ``val``."""
    _check_tensor("constant_", tensor)
    val = number_in("constant_", "val", val)
    if not _state.skipped:
        tensor.detach().fill_(val)
    return tensor


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill with the identity matrix: ones on the diagonal, zeros elsewhere.

    tensor: (m, n).

    Raises ShapeError if it is not a matrix.
    """
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: expected a matrix, got shape {tensor.shape}")
    if not _state.skipped:
        tensor.detach().copy_(np.eye(tensor.shape[0], tensor.shape[1]))
    return tensor


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """Return fan_in and fan_out of a weight."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"{name}: expected a weight of at least 2 dimensions, (out, in, ...), got shape {tensor.shape}"
        )
    rest = math.prod(tensor.shape[2:])
    return tensor.shape[1] * rest, tensor.shape[0] * rest


_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 3.0 / 4.0}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor for the weights before a nonlinearity that keeps the scale of the signal.

    nonlinearity: "linear" or "sigmoid" (1), "tanh" (5/3), "relu" (sqrt(2)), "leaky_relu" (sqrt(2 / (1 + slope^2))) or
        "selu" (3/4).
    param: the slope of a leaky_relu, 0.01 if None.

    Raises ValueError for another nonlinearity.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else number_in("calculate_gain", "param", param)
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in _GAINS:
        known = ", ".join([*_GAINS, "leaky_relu"])
        raise ValueError(f"calculate_gain: expected one of {known}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def _xavier_std(name: str, tensor: Tensor, gain: float) -> float:
    """Return ``gain * sqrt(2 / (fan_in + fan_out))``."""
    return number_in(name, "gain", gain) * math.sqrt(2.0 / max(1, sum(_fans(name, tensor))))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with uniform random numbers of standard deviation ``gain * sqrt(2 / (fan_in + fan_out))`` around 0.

    tensor: a weight (out, in, ...).

    Raises ShapeError for fewer than 2 dimensions.
    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    bound = math.sqrt(3.0) * _xavier_std("xavier_uniform_", tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with normal random numbers of standard deviation ``gain * sqrt(2 / (fan_in + fan_out))`` around 0.

    See :func:`xavier_uniform_`.
    """
    return normal_(tensor, 0.0, _xavier_std("xavier_normal_", tensor, gain), generator)


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    """Return ``gain / sqrt(fan)``."""
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
    """Fill with uniform random numbers of standard deviation ``gain / sqrt(fan)`` around 0.

    tensor: a weight (out, in, ...).
    a: the slope of a leaky_relu.
    mode: "fan_in" keeps the scale in the forward pass, "fan_out" in the backward pass.
    nonlinearity: the function after the weight; see :func:`calculate_gain`.

    Raises ShapeError for fewer than 2 dimensions, ValueError for another mode or nonlinearity.
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
    """Fill with normal random numbers of standard deviation ``gain / sqrt(fan)`` around 0.

    See :func:`kaiming_uniform_`.
    """
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with ``gain`` times a random matrix with orthonormal rows or columns, whichever are fewer.

    tensor: (out, ...), seen as a matrix (out, everything else).

    Raises ShapeError for fewer than 2 dimensions.
    Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", 2013.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: expected a weight of at least 2 dimensions, got shape {tensor.shape}")
    if tensor.numel() == 0 or _state.skipped:
        return tensor
    rows = tensor.shape[0]
    shape = (rows, tensor.numel() // rows)
    xp: Any = BACKENDS[type(tensor.array)]
    drawn = Tensor(xp.empty((max(shape), min(shape)))).normal_(generator=generator)
    q, r = xp.linalg.qr(drawn.array)
    q = q * xp.where(xp.diagonal(r) < 0, -1.0, 1.0)  # so that all orthogonal matrices are equally likely
    gain = number_in("orthogonal_", "gain", gain)
    tensor.detach().copy_((q if shape[0] >= shape[1] else q.T).reshape(tensor.shape) * gain)
    return tensor
