"""Compute the same thing on two devices, and compare the results."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorlite as tl
from tensorlite.testing import OpSpec, Sample

LIMITS = {tl.float64: 1e-10, tl.float32: 1e-4, tl.float16: 5e-2}
"""The largest difference of two devices, by dtype, as a fraction of the largest expected number."""


def on(*shape: int, seed: int = 0, device: Any = "cpu", **kwargs: Any) -> tl.Tensor:
    """Return normal numbers in float64, the same on every device."""
    return tl.tensor(np.random.default_rng(seed).standard_normal(shape), tl.float64, device, **kwargs)


def numpy(x: tl.Tensor) -> np.ndarray:
    """Return the values on the host."""
    return x.detach().cpu().numpy()


def difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the largest difference, as a fraction of the largest expected number or of 1, whichever is larger.

    Dtypes and shapes must be equal, and so must infinities and NaNs.
    """
    assert len(found) == len(expected), f"{len(found)} results instead of {len(expected)}"
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite])
        assert np.isfinite(a[finite]).all(), f"{a[finite & ~np.isfinite(a)][0]} instead of a finite number"
        if finite.any():
            scale = max(1.0, float(np.abs(b[finite]).max()))
            worst = max(worst, float(np.abs(a[finite] - b[finite]).max()) / scale)
    return worst


def computed(row: OpSpec, sample: Sample, arrays: Sequence[np.ndarray], dtype: Any, device: Any) -> list[tl.Tensor]:
    """Return the results of an op and its gradients through random cotangents; in float64, second gradients too."""
    tensors = [
        tl.tensor(a, dtype if a.dtype.kind == "f" else None, device, requires_grad=i.grad)
        for a, i in zip(arrays, sample.inputs(), strict=True)
    ]
    args, kwargs = sample.fill(tensors)
    result = row.f(*args, **kwargs)
    results = [result] if isinstance(result, tl.Tensor) else list(result)
    ys, xs = ([t for t in ts if t.requires_grad] for ts in (results, tensors))
    rng = np.random.default_rng(0)
    cotangents = [tl.tensor(np.asarray(rng.standard_normal(y.shape)), y.dtype, device) for y in ys]
    twice = dtype == tl.float64 and row.order > 1
    if ys and xs:
        found = tl.autograd.grad(ys, xs, cotangents, create_graph=twice, allow_unused=True)
        first = [g for g in found if g is not None]
        squares = [g.square().sum() for g in first if g.requires_grad]
        second = tl.autograd.grad(squares, xs, allow_unused=True) if squares else ()
        results += [*first, *(g for g in second if g is not None)]
    for tensor in results:
        assert tensor.device.type == device.type, f"a result is on {tensor.device}"
    return results


def evaluated(*case: Any) -> list[np.ndarray]:
    """Return what `computed` returns, on the host."""
    return [numpy(tensor) for tensor in computed(*case)]
