"""Gradients of parts are joined without a copy where they lie side by side, and no one sees the shared memory."""

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.backends.registry import BACKENDS

XP = BACKENDS[np.ndarray]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whole_of_adjacent_parts(axis):
    whole = np.arange(4 * 6 * 8, dtype=np.float32).reshape(4, 6, 8).swapaxes(0, 1)
    parts = np.split(whole, 2, axis)
    found = XP.whole_of(parts, axis)
    assert np.shares_memory(found, whole)
    np.testing.assert_array_equal(found, whole)


def test_whole_of_other_parts_is_none():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    others = [
        [x[2:], x[:2]], [x[:1], x[2:]], [x[:2], x[2:].copy()], [x[:2], np.full((2, 6), 5, np.float32)],
        [x[:2], x[2:].view(np.int32)], [x[:, ::2][:2], x[2:, 1::2]], [x.copy(), x.copy()],
    ]  # fmt: skip
    assert [XP.whole_of(parts, 0) for parts in others] == [None] * len(others)
    assert XP.whole_of([x[:, :2], x[:, 3:]], 1) is None


def test_joined_gradient_of_user_memory_is_a_copy():
    x, weights = tl.ones(4, requires_grad=True), tl.arange(4.0)
    first, second = x.split(2)
    tl.autograd.backward([first, second], [weights[:2], weights[2:]])
    assert x.grad.tolist() == [0.0, 1.0, 2.0, 3.0]
    x.grad.zero_()
    assert weights.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_gradients_of_parts_and_of_the_whole_share_no_memory():
    x = tl.ones(6, requires_grad=True)
    first, second = x.split([2, 4])
    whole = tl.cat([first, second])
    gradients = tl.autograd.grad((whole * tl.arange(6.0)).sum(), [whole, first, second, x])
    values = [g.tolist() for g in gradients]
    assert values == [[0, 1, 2, 3, 4, 5], [0, 1], [2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    for g in gradients:
        before = [h.tolist() for h in gradients if h is not g]
        g.mul_(-1)
        assert [h.tolist() for h in gradients if h is not g] == before


@pytest.mark.parametrize("hooked", [False, True])
def test_attention_on_parts_of_one_array(hooked):
    """The gradient of packed queries, keys and values is that of separate ones, also where a hook changes a part."""
    rng = np.random.default_rng(0)
    packed = rng.standard_normal((4, 32, 9, 16)).astype(np.float32)
    g = tl.tensor(rng.standard_normal((4, 3, 32, 16)).astype(np.float32))

    def gradient(separate):
        x = tl.tensor(packed, requires_grad=True)
        parts = x.transpose(1, 2).split(3, dim=1)
        q, k, v = (p * 1.0 for p in parts) if separate else parts
        if hooked:
            k.register_hook(lambda d: d * 2.0)
        (F.scaled_dot_product_attention(q, k, v, is_causal=True) * g).sum().backward()
        return x.grad.array

    np.testing.assert_allclose(gradient(False), gradient(True), rtol=1e-5, atol=1e-6)
