"""The CPU's kernels where a block ends, where rows are many, and where memory is not contiguous."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import optim
from tensorlite.backends import reference
from tensorlite.backends.cpu import kernels as cpu
from tensorlite.nn import functional as F

MANY = 2 * cpu._BLOCK + 3


@pytest.mark.parametrize("ids", [
    [3, 4, 4, 5, 300, 299, 3, 0, 301], [7, 7, 7], [0, 1, 2, 3], [301, 0], list(range(300, 0, -7)) * 2,
])  # fmt: skip
def test_embedding_of_many_rows(ids: list[int]) -> None:
    g = np.random.default_rng(0).standard_normal((len(ids), 4))
    expected = np.zeros((302, 4))
    np.add.at(expected, ids, g)
    np.testing.assert_allclose(cpu.embedding_backward(np, g, np.array(ids), 302), expected, rtol=1e-14)
    table = tl.zeros(302, 4, dtype=tl.float64, requires_grad=True)
    F.embedding(tl.tensor(ids), table).backward(tl.tensor(g))
    assert table.grad is not None
    np.testing.assert_allclose(table.grad.numpy(), expected, rtol=1e-14)


def _stepped(step: Any, shape: tuple[int, ...], transposed: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    p, g, m, v = (abs(rng.standard_normal(shape)).astype(np.float32) for _ in range(4))
    if transposed:
        p, g, m, v = (a.T.copy().T for a in (p, g, m, v))
    step(np, p, g, m, v, 3, 1e-2, 0.9, 0.99, 1e-8, 0.1, True, False)
    return [p, m, v]


@pytest.mark.parametrize("transposed", [False, True])
def test_adam_of_several_blocks(transposed: bool) -> None:
    shape = (MANY // 2, 3)
    for a, b in zip(_stepped(cpu.adam_step, shape, transposed), _stepped(reference.adam_step, shape, transposed)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)  # entries are about 1, and some steps end near 0


def test_adam_of_a_large_transposed_parameter() -> None:
    p = tl.tensor(np.ones((MANY, 2), np.float32).T, requires_grad=True)
    p.array = np.ones((MANY, 2), np.float32).T
    p.grad = tl.ones(2, MANY)
    optim.Adam([p], lr=0.5).step()
    np.testing.assert_allclose(p.detach().numpy(), 0.5, rtol=1e-6)


def test_gelu_of_several_blocks() -> None:
    numbers = np.random.default_rng(2).standard_normal(MANY)
    found = []
    for dtype in (tl.float32, tl.float64):
        x = tl.tensor(numbers, dtype=dtype, requires_grad=True)
        y = F.gelu(x)
        y.sum().backward()
        assert x.grad is not None
        found.append((y.detach().numpy(), x.grad.numpy()))
    for narrow, wide in zip(*found):
        np.testing.assert_allclose(narrow, wide, atol=2e-6)


@pytest.mark.parametrize("change", [
    lambda x: x.mul_(2.0), lambda x: x.zero_(), lambda x: x.fill_(1.0), lambda x: x.copy_(tl.zeros(3)),
    lambda x: x.__setitem__(0, 1.0), lambda x: x.normal_(),
])  # fmt: skip
def test_memory_that_may_not_be_written_is_left_alone(change: Any) -> None:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    x = tl.from_numpy(array)
    with pytest.raises(RuntimeError, match="its memory is read-only"):
        change(x)
    assert array.tolist() == [1.0, 1.0, 1.0]
