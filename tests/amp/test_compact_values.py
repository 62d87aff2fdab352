"""The saved values of linear layers inside autocast that the backward pass computes again."""

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn
from tensorlite.autograd import compact_values
from tensorlite.errors import VersionError

ROWS, WIDTH = 256, 16


@pytest.fixture(autouse=True)
def small_arrays_are_large(monkeypatch):
    monkeypatch.setattr(compact_values, "_MIN_SIZE", 1)


class Layers(nn.Module):
    """A norm, a linear layer, GELU and another linear layer."""

    def __init__(self, norm=nn.LayerNorm, approximate="none"):
        super().__init__()
        tl.manual_seed(0)
        self.norm, self.first, self.second = norm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.approximate = approximate

    def forward(self, x):
        return self.second(F.gelu(self.first(self.norm(x)), self.approximate))


def data(seed=0):
    return tl.tensor(np.random.default_rng(seed).standard_normal((ROWS, WIDTH)).astype(np.float32), requires_grad=True)


def lowered(f, *args):
    with tl.autocast("cpu", dtype=tl.bfloat16):
        return f(*args)


def kept(out, op):
    """Return the nodes of an op that keep less than all of their saved values, from the newest."""
    nodes, found = [out.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node.name == op and isinstance(node.saved, compact_values.CompactValues):
            found.append(node)
        nodes += [n for n, _ in node.next_functions if hasattr(n, "saved")]
    return found


def gradients(f, monkeypatch, compact, order=1):
    """Return the gradients of a function of x and of its parameters."""
    with monkeypatch.context() as patch:
        if not compact:
            patch.setattr(compact_values, "_COMPACT", set())
        x = data()
        out = lowered(f, x)
        assert bool(kept(out, "linear")) is compact
        leaves = [x, *f.parameters()]
        loss = (out.float() ** 2).sum()
        found = tl.autograd.grad(loss, leaves, create_graph=order == 2)
        if order == 2:
            found = tl.autograd.grad(sum((g * g).sum() for g in found), leaves)
        return [g.numpy() for g in found]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("options", [{}, {"approximate": "tanh"}, {"norm": nn.RMSNorm}], ids=str)
def test_gradients_have_the_same_bits(options, order, monkeypatch):
    compact, whole = (gradients(Layers(**options), monkeypatch, c, order) for c in (True, False))
    for a, b in zip(compact, whole, strict=True):
        assert a.dtype == np.float32
        assert a.any()
        np.testing.assert_array_equal(a, b)


def test_a_node_keeps_no_copy_of_its_weight_nor_of_the_result_of_a_norm():
    model, x = Layers(), data()
    out = lowered(model, x)
    second, first = kept(out, "linear")
    assert all(any(value is p.array for value in node.saved)
               for node, p in ((first, model.first.weight), (second, model.second.weight)))  # fmt: skip
    assert not any(value is not None and value.dtype == tl.bfloat16 for value in first.saved if hasattr(value, "dtype")
                   if value.shape == x.shape)  # fmt: skip
    assert any(value is x.array for value in first.saved)


def test_a_retained_graph_gives_the_same_twice():
    x = data()
    loss = (lowered(Layers(), x).float() ** 2).sum()
    first, second = (tl.autograd.grad(loss, [x], retain_graph=True)[0].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_checkpoint_gives_the_same():
    found = []
    for call in (lambda f, x: f(x), tl.checkpoint):
        model, x = Layers(), data()
        (lowered(call, model, x).float() ** 2).sum().backward()
        found.append([x.grad.numpy(), *(p.grad.numpy() for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["first.weight", "x"])
def test_what_was_changed_in_place_is_an_error(name):
    model, x = Layers(), data()
    out = lowered(model, x)
    with tl.no_grad():
        (x if name == "x" else model.first.weight).mul_(2)
    with pytest.raises(VersionError, match="changed in place"):
        out.sum().backward()


@pytest.mark.parametrize("change", ["in place", "data"])
def test_a_result_that_was_changed_is_kept(change):
    layer, x = nn.Linear(WIDTH, 3), data()
    with tl.autocast("cpu", dtype=tl.bfloat16):
        y = F.gelu(x.bfloat16())
        if change == "data":
            y.data = tl.ones_like(y)
        else:
            with tl.no_grad():
                y.copy_(tl.ones_like(y))
        layer(y).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy(), np.full((3, WIDTH), ROWS, np.float32))


def test_few_rows_keep_the_conversion_of_a_weight():
    layer, x = nn.Linear(WIDTH, 3), data()
    with tl.autocast("cpu", dtype=tl.bfloat16):
        few, many = layer(x[:8]), layer(x)
    assert not kept(few, "linear")
    assert kept(many, "linear")
