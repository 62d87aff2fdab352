"""Gradient clipping. Training loops call it between ``loss.backward()`` and ``optimizer.step()``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..autograd import version_counter
from ..autograd.graph import wrap
from ..autograd.op_hooks import run_op
from ..backends.registry import BACKENDS
from ..dtypes import accumulate_dtype
from ..errors import DeviceError
from ..scalars import number_in
from ..tensors.tensor import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def _gradients(name: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if not isinstance(parameters, Iterable):
        raise TypeError(
            f"{name}: expected a Tensor or several, got {type(parameters).__name__}. Pass model.parameters()."
        )
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for p in tensors:
        if not isinstance(p, Tensor):
            raise TypeError(f"{name}: expected a Tensor or several, got {type(p).__name__}")
    gradients = list({p: p.grad for p in tensors if p.grad is not None}.values())  # a tensor given twice counts once
    if len({type(g.array) for g in gradients}) > 1:
        raise DeviceError(f"{name}: the gradients are on different devices. Clip those of each device separately.")
    return gradients


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float | str = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients in place by ``min(1, max_norm / (norm + 1e-6))``, so that their norm is at most ``max_norm``.

    parameters: a Tensor or several. Those without a gradient are skipped.
    max_norm: the largest norm that is allowed.
    norm_type: the p of the p-norm of all gradients as one vector; ``inf`` is the largest absolute value.
    error_if_nonfinite: raise RuntimeError if the norm is not finite. On a GPU this forces a sync.

    Returns the norm before clipping, a 0-d Tensor; 0 if there are no gradients. Raises ValueError if max_norm is
    negative or norm_type is not positive, DeviceError for gradients on different devices.
    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013.
    """
    max_norm = float(number_in("clip_grad_norm_", "max_norm", max_norm))
    norm_type = float(norm_type if isinstance(norm_type, str) else number_in("clip_grad_norm_", "norm_type", norm_type))
    if not max_norm >= 0 or not norm_type > 0:
        raise ValueError(
            f"clip_grad_norm_: max_norm must not be negative and norm_type must be positive, got {max_norm} and "
            f"{norm_type}"
        )
    gradients = _gradients("clip_grad_norm_", parameters)
    if not gradients:
        return Tensor(0.0)
    return wrap(run_op(clip_grad_norm, gradients, max_norm, norm_type, error_if_nonfinite))


def clip_grad_norm(gradients: list[Tensor], max_norm: float, p: float, error_if_nonfinite: bool) -> Any:
    """Do the work of :func:`clip_grad_norm_` for gradients on one device, and return their p-norm, 0-d."""
    xp = BACKENDS[type(gradients[0].array)]
    arrays = [g.array for g in gradients]
    if p == 2:
        total = xp.asarray(xp.sqrt(xp.sum_squares_of_all(arrays)))
    else:
        total = _root(xp, xp.stack([_power_sum(xp, a, p) for a in arrays]), p)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(
            f"clip_grad_norm_: the gradient norm is {float(total)}; the gradients were not changed. Find the first NaN "
            f"with detect_anomaly()."
        )
    factor = xp.minimum(max_norm / (total + 1e-6), 1.0)
    xp.scale_all_step(arrays, xp.asarray(factor))
    version_counter.bump_versions(arrays)
    return total


def _power_sum(xp: Any, g: Any, p: float) -> Any:
    """Return the sum of the p-th powers of all entries (their maximum for p = inf), 0-d, of at least float32."""
    g = g.astype(accumulate_dtype(g.dtype), copy=False)  # squares above 256 overflow float16
    if p == math.inf:
        return xp.asarray(xp.abs(g).max()) if g.size else xp.zeros((), g.dtype)
    return xp.asarray((xp.abs(g) ** p).sum())


def _root(xp: Any, sums: Any, p: float) -> Any:
    """Return the p-norm of several tensors from their power sums."""
    if p == math.inf:
        return xp.asarray(sums.max())
    return xp.asarray(sums.sum() ** (1.0 / p))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every entry of every gradient to the range from ``-clip_value`` to ``clip_value``, in place.

    parameters: a Tensor or several. Those without a gradient are skipped.

    Raises ValueError if clip_value is negative, DeviceError for gradients on different devices.
    """
    clip_value = float(number_in("clip_grad_value_", "clip_value", clip_value))
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must not be negative, got {clip_value}")
    for g in _gradients("clip_grad_value_", parameters):
        BACKENDS[type(g.array)].clip(g.array, -clip_value, clip_value, out=g.array)
        version_counter.bump_version(g.array)
