"""Compare random calls with PyTorch: values, gradients of both orders, dtypes, and which calls are refused.

``python -m tests.ops.test_random_calls N [OP ...]`` makes N calls of each op, and prints those that differ.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pytest

import tensorlite as tl

torch = pytest.importorskip("torch")

from tests.ops.random_calls import Draw  # noqa: E402  # PyTorch comes first
from tests.ops.random_index_calls import CALLS  # noqa: E402
from tests.support.torch_samples import differences, outcomes  # noqa: E402

CALLS_OF_AN_OP = 15


def outcome(lib: Any, f: Any, arrays: list[np.ndarray], order: int) -> Any:
    """Return the outcome of a call, or the error that it raised."""
    xs = [lib.tensor(a, requires_grad=order > 0 and a.dtype == np.float64) for a in arrays]
    try:
        return outcomes(lib, f(lib, *xs), xs, order)
    except Exception as error:  # an error is an outcome
        return error


def difference(name: str, seed: int) -> str:
    """Return how one random call differs between the libraries, "" if it does not."""
    text, f, arrays = CALLS[name](Draw(seed))
    call = f"{text} for shapes {[a.shape for a in arrays]}"
    for order in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, found = outcome(torch, f, arrays, order), outcome(tl, f, arrays, order)
        if isinstance(expected, Exception):
            known = order or isinstance(found, Exception) or MEANT.get(name, "no error") in str(expected)
            return "" if known else f"{call} is taken; PyTorch: {expected}"
        if isinstance(found, Exception):
            return f"{call} is refused at order {order}: {found!r}"
        if wrong := next(differences(found, expected, False), None):
            return "" if order and not all(np.isfinite(b).all() for _, b in expected) else f"{call}: {' '.join(wrong)}"
    return ""


# Calls that PyTorch refuses and tensorlite takes on purpose, by a part of PyTorch's message.
MEANT = {
    "repeat_interleave": "Dimension out of range",  # of a 0-d tensor that is repeated once
    "cumsum": "not implemented",
    "pad": "supported",  # PyTorch pads some numbers of dimensions only
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    """Compare some calls; where PyTorch's derivatives are not finite, only values and first gradients."""
    wrong = [text for seed in range(CALLS_OF_AN_OP) if (text := difference(name, seed))]
    assert not wrong, "\n".join(wrong)


def main(count: int, names: list[str]) -> None:
    """Make calls and print those that differ."""
    for name in names or CALLS:
        for seed in range(count):
            if text := difference(name, 1000 + seed):
                print(f"{name} {seed}: {text:.300}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
