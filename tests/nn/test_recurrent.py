"""Recurrent layers and cells."""

import copy
import pickle

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn

rng = np.random.default_rng(0)
OPTIONS = {
    "plain": ({}, (5, 2, 3)),
    "two layers": ({"num_layers": 2}, (5, 2, 3)),
    "both directions": ({"num_layers": 2, "bidirectional": True}, (5, 2, 3)),
    "batch first": ({"batch_first": True, "bias": False}, (2, 5, 3)),
    "one sequence": ({"bidirectional": True}, (5, 3)),
    "one sequence, batch first": ({"batch_first": True}, (5, 3)),
}


def pair(torch, cls, *args, **options):
    """Return the same layer in both libraries."""
    theirs = getattr(torch.nn, cls)(*args, **options).double()
    mine = getattr(nn, cls)(*args, **options).double()
    mine.load_state_dict({key: tl.tensor(value.numpy()) for key, value in theirs.state_dict().items()})
    assert list(mine.state_dict()) == list(theirs.state_dict())
    return mine, theirs


def leaves(value):
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, tuple) else [value]


def compare(libraries, layers, x, states):
    """Compare results and gradients, with an initial state and without."""
    for given in ([], states):
        outs = []
        for library, layer in zip(libraries, layers, strict=True):
            inputs = [library.tensor(a, requires_grad=True) for a in (x, *given)]
            hx = None if not given else inputs[1] if len(given) == 1 else tuple(inputs[1:])
            result = leaves(layer(inputs[0], hx))
            layer.zero_grad()
            sum((y * y).sum() for y in result).backward()
            tensors = [*result, *(t.grad for t in inputs), *(p.grad for p in layer.parameters())]
            outs.append([t.detach().numpy() for t in tensors])
        for a, b in zip(*outs, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("cls", ["RNN", "LSTM", "GRU"])
def test_layers_are_pytorchs(cls, name):
    torch = pytest.importorskip("torch")
    options, shape = OPTIONS[name]
    layers = pair(torch, cls, 3, 4, **options)
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    state = (count, 4) if len(shape) == 2 else (count, 2, 4)
    states = [rng.standard_normal(state) for _ in range(2 if cls == "LSTM" else 1)]
    compare((tl, torch), layers, rng.standard_normal(shape), states)


@pytest.mark.parametrize("shape", [(2, 3), (3,)])
@pytest.mark.parametrize("cls", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_are_pytorchs(cls, shape):
    torch = pytest.importorskip("torch")
    states = [rng.standard_normal((*shape[:-1], 4)) for _ in range(2 if cls == "LSTMCell" else 1)]
    compare((tl, torch), pair(torch, cls, 3, 4), rng.standard_normal(shape), states)


def test_relu():
    torch = pytest.importorskip("torch")
    layers = pair(torch, "RNN", 3, 4, nonlinearity="relu")
    compare((tl, torch), layers, rng.standard_normal((5, 2, 3)), [rng.standard_normal((1, 2, 4))])


def test_a_layer_is_its_cell_step_by_step():
    """This needs no PyTorch."""
    layer, cell = nn.GRU(3, 4), nn.GRUCell(3, 4)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
    x, h = tl.randn(5, 2, 3), tl.zeros(2, 4)
    outs, last = layer(x)
    for t in range(5):
        h = cell(x[t], h)
        assert tl.allclose(outs[t], h, rtol=1e-6, atol=1e-6)
    assert tl.equal(last[0], outs[-1])


def test_dropout_between_layers_is_for_training():
    layer = nn.LSTM(3, 50, num_layers=2, dropout=0.5)
    x = tl.randn(4, 2, 3)
    assert not tl.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert tl.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("cls", [nn.RNN, nn.LSTM, nn.GRU])
def test_copies(cls):
    layer, x = cls(3, 4, 2), tl.randn(4, 2, 3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert tl.equal(other(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.RNN(3, 4)(tl.ones(5, 2, 2)), tl.ShapeError, r"RNN\(float32\(5, 2, 2\)\): expected \(L, N, 3\)"),
        (lambda: nn.RNN(3, 4)(tl.ones(0, 2, 3)), tl.ShapeError, "expected a sequence of at least one step"),
        (lambda: nn.RNN(3, 4)(tl.ones(5, 2, 3), tl.ones(1, 3, 4)), tl.ShapeError, r"expected hx of shape \(1, 2, 4\)"),
        (lambda: nn.LSTM(3, 4)(tl.ones(5, 2, 3), tl.ones(1, 2, 4)), TypeError, r"expected hx to be a pair \(h, c\)"),
        (lambda: nn.RNN(3, 4, nonlinearity="sin"), ValueError, "expected nonlinearity 'tanh' or 'relu', got 'sin'"),
        (lambda: nn.RNN(3, 0), ValueError, "expected a hidden_size of 1 or more"),
        (lambda: nn.GRU(3, 4, 0), ValueError, "expected num_layers of 1 or more"),
        (lambda: nn.GRU(3, 4, dropout=2.0), ValueError, "dropout"),
        (lambda: nn.GRU(3, 4.5), TypeError, "hidden_size"),
        (lambda: nn.GRUCell(3, 4)(tl.ones(2, 2)), tl.ShapeError, r"GRUCell.*expected \(N, 3\), or \(3,\)"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
