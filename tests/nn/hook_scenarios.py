"""Run one scenario in tensorlite and in PyTorch, and compare what it returns."""

import numpy as np
import pytest

import tensorlite as tl

torch = pytest.importorskip("torch")

LIBRARIES = pytest.mark.parametrize("library", [tl, torch], ids=["tensorlite", "torch"])


def plain(value):
    """Return tensors as arrays, inside tuples and dicts too."""
    if isinstance(value, (tl.Tensor, torch.Tensor)):
        return value.detach().numpy().copy()
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return value


def assert_same(a, b):
    assert type(a) is type(b), (a, b)
    if isinstance(a, np.ndarray):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def linear(library):
    """Return the same small layer in either library."""
    layer = library.nn.Linear(3, 2).double()
    weight = np.arange(6.0).reshape(2, 3) / 10
    layer.load_state_dict({"weight": library.tensor(weight), "bias": library.tensor([0.5, -0.5])})
    return layer


def make_pair_module(library):
    """Return a module of two Tensors and an option that returns two Tensors."""

    class Pair(library.nn.Module):
        def forward(self, x, y, *, scale=1.0):
            return x * y * scale, x + 2 * y

    return Pair()


def inputs(library, requires_grad=True):
    x = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=np.float64)
    return library.tensor(x, requires_grad=requires_grad)


def compare(scenario):
    """Run the scenario, a function of the library, in both libraries, and compare what it returns."""
    assert_same(plain(scenario(tl)), plain(scenario(torch)))
