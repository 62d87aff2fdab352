"""nn.init.skip_init: layers allocate their parameters without drawing them."""

import threading

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn

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
