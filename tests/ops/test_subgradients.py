"""Gradients at points that random numbers miss: ties, infinities, NaN."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tensorlite as tl


def gradients(f: Any, *arrays: list[Any]) -> list[list[Any]]:
    xs = [tl.tensor(np.array(a, np.float64), requires_grad=True) for a in arrays]
    f(*xs).sum().backward()
    return [x.grad.tolist() for x in xs]


@pytest.mark.parametrize("f", [tl.maximum, tl.minimum])
def test_equal_arguments_share_the_gradient(f: Any) -> None:
    assert gradients(f, [1.0, 2.0, 0.0], [1.0, 0.0, 0.0])[0][0::2] == [0.5, 0.5]
    assert gradients(f, [1.0, 0.0], [1.0, 0.0]) == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("f", [tl.amax, tl.amin])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 1)])
def test_equal_entries_share_the_gradient(f: Any, dim: Any) -> None:
    (found,) = gradients(lambda x: f(x, dim), [[3.0, 3.0], [3.0, 3.0]])
    shares = {None: 0.25, 0: 0.5, -1: 0.5, (0, 1): 0.25}[dim]
    assert found == [[shares, shares], [shares, shares]]


@pytest.mark.parametrize("f", [tl.amax, tl.amin])
def test_a_nan_among_entries_has_the_gradient(f: Any) -> None:
    (found,) = gradients(lambda x: f(x, -1), [[1.0, math.nan, 2.0], [0.0, 1.0, 2.0]])
    assert found[0] == [0.0, 1.0, 0.0]
    assert sum(found[1]) == 1.0
    assert gradients(f, [math.nan, 1.0, math.nan]) == [[0.5, 0.0, 0.5]]


def test_logaddexp_of_infinities() -> None:
    assert gradients(tl.logaddexp, [math.inf, -math.inf], [math.inf, -math.inf]) == [[0.5, 0.5], [0.5, 0.5]]
