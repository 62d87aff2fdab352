"""Ops that are wrong in narrow dtypes or for integers, which ``optest`` must find with a sample of the right kind."""
from __future__ import annotations

from typing import Any

import numpy as np

import tensorlite as tl
from tensorlite.testing import OpSpec, ints, positive, s, values

SPECS: dict[str, OpSpec] = {}


def _add_in_order(xp: Any, x: Any) -> Any:
    """Return the sum along the first axis, added in the dtype of x, one row after the other."""
    return np.add.accumulate(x, axis=0, dtype=x.dtype)[-1]


_sum_in_order = tl.op(lambda g, in_shape: tl.broadcast_to(g, in_shape))(_add_in_order)
SPECS["float16 is added up in float16: the mean of 3,000 ones"] = OpSpec(
    "mean", lambda x: _sum_in_order(x) * (1 / x.shape[0]), [s(values(np.ones(3000)))]
)
SPECS["float32 is added up along the first axis: 500,000 rows"] = OpSpec(
    "sum", lambda x: _sum_in_order(x), [s(positive(500_000))], half=False
)
SPECS["float16 overflows on the way: the norm of (300, 400)"] = OpSpec(
    "norm", lambda x: tl.sqrt(_sum_in_order(x * x)), [s(values([300.0, 400.0]))]
)
SPECS["integers wrap: the distance of uint8"] = OpSpec(
    "distance", lambda x, y: (x - y).abs() if x.dtype != tl.int64 else tl.tensor(
        np.abs(x.numpy().astype(np.uint8) - y.numpy().astype(np.uint8)).astype(np.int64)
    ),
    [s(ints(200, 9), ints(200, 9))], order=0, reference=lambda x, y: abs(x - y),
)  # fmt: skip
