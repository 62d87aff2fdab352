"""nn.init: initial values of layers and tensors, and skip_init."""

import math
import threading

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn


@pytest.fixture(autouse=True)
def seeded():
    tl.manual_seed(0)


# ---- first values -------------------------------------------------------------------------------


def test_initial_values_of_layers():
    m = nn.Linear(50, 400)
    bound = 1 / math.sqrt(50)
    for p in (m.weight, m.bias):
        a = p.detach().numpy()
        assert abs(a).max() <= bound
        assert abs(a).max() > 0.95 * bound
        assert abs(a.std() / (bound / math.sqrt(3)) - 1) < 0.1
    a = nn.Embedding(100, 100).weight.detach().numpy()
    assert abs(a.mean()) < 0.05
    assert abs(a.std() - 1) < 0.05
    m = nn.MultiheadAttention(30, 3)
    assert (m.in_proj_bias == 0).all()
    assert (m.out_proj.bias == 0).all()
    a = m.in_proj_weight.detach().numpy()
    assert 0.95 * math.sqrt(6 / 120) < abs(a).max() <= math.sqrt(6 / 120)
    norm = nn.LayerNorm(3)
    assert (norm.weight == 1).all()
    assert (norm.bias == 0).all()
    nn.init.zeros_(norm.weight)
    norm.reset_parameters()
    assert (norm.weight == 1).all()
    assert nn.Linear(0, 3)(tl.zeros(2, 0)).shape == (2, 3)


def test_dtype_and_default_dtype():
    assert nn.Linear(2, 2, dtype=tl.float64).weight.dtype == tl.float64
    assert nn.Linear(2, 2, device="cpu").weight.dtype == tl.float32


GAINS = [("linear", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("leaky_relu", None), ("leaky_relu", 0.3)]


def test_calculate_gain():
    torch = pytest.importorskip("torch")
    for name, param in GAINS:
        expected = torch.nn.init.calculate_gain(name, param)
        assert nn.init.calculate_gain(name, param) == pytest.approx(expected, rel=1e-15)
    with pytest.raises(ValueError, match=r"expected one of linear, .*, got 'cube'"):
        nn.init.calculate_gain("cube")


INITS = {
    "uniform_": (lambda i, w: i.uniform_(w, -3, 1), -1, 4 / math.sqrt(12), (-3, 1)),
    "normal_": (lambda i, w: i.normal_(w, 2, 3), 2, 3, None),
    "trunc_normal_": (lambda i, w: i.trunc_normal_(w), 0, 0.8796, (-2, 2)),
    "trunc_normal_ aside": (lambda i, w: i.trunc_normal_(w, 1, 2, a=2, b=5), 3.0860, 0.7753, (2, 5)),
    "xavier_uniform_": (lambda i, w: i.xavier_uniform_(w, 2), 0, 2 * math.sqrt(2 / 500), None),
    "xavier_normal_": (lambda i, w: i.xavier_normal_(w), 0, math.sqrt(2 / 500), None),
    "kaiming_uniform_": (lambda i, w: i.kaiming_uniform_(w, nonlinearity="relu"), 0, math.sqrt(2 / 200), None),
    "kaiming_uniform_ a": (lambda i, w: i.kaiming_uniform_(w, a=2), 0, math.sqrt(2 / 5 / 200), None),
    "kaiming_normal_": (lambda i, w: i.kaiming_normal_(w, mode="fan_out"), 0, math.sqrt(2 / 300), None),
}


@pytest.mark.parametrize("name", INITS)
def test_init_has_the_right_mean_deviation_and_bounds(name):
    fill, mean, std, bounds = INITS[name]
    w = nn.Parameter(tl.zeros(300, 200, dtype=tl.float64))
    assert fill(nn.init, w) is w
    assert w.is_leaf
    assert w.requires_grad
    a = w.detach().numpy()
    assert abs(a.mean() - mean) < 5 * std / math.sqrt(a.size)
    assert abs(a.std() / std - 1) < 0.015
    if bounds:
        assert bounds[0] <= a.min() < bounds[0] + 0.01
        assert bounds[1] - 0.01 < a.max() <= bounds[1]


def test_constant_inits():
    w = nn.Parameter(tl.randn(2, 3))
    assert nn.init.constant_(w, 3).tolist() == [[3, 3, 3]] * 2
    assert nn.init.ones_(w).tolist() == [[1, 1, 1]] * 2
    assert nn.init.zeros_(w).tolist() == [[0, 0, 0]] * 2
    assert nn.init.eye_(w).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (4, 2, 3), (0, 3)])
def test_orthogonal(shape):
    w = nn.init.orthogonal_(tl.zeros(*shape, dtype=tl.float64), gain=2.0).numpy()
    m = w.reshape(shape[0], math.prod(shape[1:]))
    small = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_inits_repeat_with_a_seed():
    def draw():
        g = tl.Generator(3)
        return [f(tl.zeros(3, 4), generator=g).tolist() for f in (
            nn.init.uniform_, nn.init.normal_, nn.init.trunc_normal_, nn.init.orthogonal_, nn.init.kaiming_normal_
        )]  # fmt: skip

    assert draw() == draw()


def test_wrong_arguments_of_inits_are_errors():
    with pytest.raises(tl.ShapeError, match=r"xavier_uniform_: expected a weight of at least 2 dimensions"):
        nn.init.xavier_uniform_(tl.zeros(3))
    with pytest.raises(tl.ShapeError, match="orthogonal_"):
        nn.init.orthogonal_(tl.zeros(3))
    with pytest.raises(tl.ShapeError, match="eye_"):
        nn.init.eye_(tl.zeros(3))
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out'"):
        nn.init.kaiming_normal_(tl.zeros(3, 3), mode="both")
    with pytest.raises(ValueError, match="trunc_normal_: expected a <= b"):
        nn.init.trunc_normal_(tl.zeros(3), a=1, b=0)


# ---- skip_init -----------------------------------------------------------------------------------

FILLS = {
    "uniform_": nn.init.uniform_,
    "normal_": nn.init.normal_,
    "trunc_normal_": nn.init.trunc_normal_,
    "constant_": lambda w: nn.init.constant_(w, 7.0),
    "ones_": nn.init.ones_,
    "zeros_": nn.init.zeros_,
    "eye_": nn.init.eye_,
    "xavier_uniform_": nn.init.xavier_uniform_,
    "xavier_normal_": nn.init.xavier_normal_,
    "kaiming_uniform_": nn.init.kaiming_uniform_,
    "kaiming_normal_": nn.init.kaiming_normal_,
    "orthogonal_": nn.init.orthogonal_,
}


def test_every_init_function_is_tested_with_skip_init():
    assert {*FILLS, "calculate_gain", "skip_init"} == set(nn.init.__all__)


@pytest.mark.parametrize("name", FILLS)
def test_skip_init_leaves_the_tensor_unchanged(name):
    w = nn.Parameter(tl.full((3, 4), 2.5))
    with nn.init.skip_init():
        assert FILLS[name](w) is w
    assert (w == 2.5).all()
    assert FILLS[name](w) is w
    assert not (w == 2.5).all()


def test_skip_init_draws_no_random_numbers():
    tl.manual_seed(0)
    expected = tl.rand(4).tolist()
    tl.manual_seed(0)
    with nn.init.skip_init():
        model = nn.Sequential(nn.Embedding(5, 3, padding_idx=1), nn.Linear(3, 4), nn.MultiheadAttention(4, 2))
        model[1].reset_parameters()
    assert tl.rand(4).tolist() == expected
    assert [tuple(p.shape) for p in model.parameters()] == [(5, 3), (4, 3), (4,), (12, 4), (12,), (4, 4), (4,)]


def test_a_model_made_under_skip_init_can_be_loaded_and_trained():
    source = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    with nn.init.skip_init():
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model.load_state_dict(source.state_dict())
    x = tl.randn(2, 3)
    np.testing.assert_array_equal(model(x).detach().numpy(), source(x).detach().numpy())
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_skip_init_nests_and_ends_after_an_error():
    w = tl.zeros(2)
    with nn.init.skip_init():
        with nn.init.skip_init():
            nn.init.ones_(w)
        nn.init.ones_(w)
    assert w.tolist() == [0, 0]
    with pytest.raises(RuntimeError, match="stop"), nn.init.skip_init():
        raise RuntimeError("stop")
    assert nn.init.ones_(w).tolist() == [1, 1]


def test_skip_init_still_checks_its_arguments():
    with nn.init.skip_init():
        with pytest.raises(tl.ShapeError, match="xavier_uniform_"):
            nn.init.xavier_uniform_(tl.zeros(3))
        with pytest.raises(TypeError, match="trunc_normal_: expected a Tensor to fill, got list"):
            nn.init.trunc_normal_([0.0])


def test_skip_init_holds_for_its_own_thread():
    w = tl.zeros(2)
    with nn.init.skip_init():
        thread = threading.Thread(target=nn.init.ones_, args=(w,))
        thread.start()
        thread.join()
    assert w.tolist() == [1, 1]
