"""Averages of weights, compared with those of PyTorch."""

import copy

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.optim import swa_utils

FUNCTIONS = {
    "the mean": {},
    "ema": {"multi_avg_fn": ("get_ema_multi_avg_fn", 0.7)},
    "ema of each": {"avg_fn": ("get_ema_avg_fn", 0.7)},
    "mean": {"multi_avg_fn": ("get_swa_multi_avg_fn",)},
    "mean of each": {"avg_fn": ("get_swa_avg_fn",)},
}


def options(library, name):
    return {key: getattr(library, made[0])(*made[1:]) for key, made in FUNCTIONS[name].items()}


def small():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_averages_equal_those_of_pytorch(name, use_buffers):
    """PyTorch 2.13 refuses the integer of BatchNorm in the mean of lists; see the next test for that."""
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4, track_running_stats=name != "mean"))
    mine = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=name != "mean"))
    expected = torch.optim.swa_utils.AveragedModel(
        theirs, use_buffers=use_buffers, **options(torch.optim.swa_utils, name)
    )
    found = swa_utils.AveragedModel(mine, use_buffers=use_buffers, **options(swa_utils, name))
    rng = np.random.default_rng(0)
    for step in range(4):
        values = {
            key: rng.standard_normal(value.shape).astype("f4") if value.dtype.is_floating_point else np.array(3 * step)
            for key, value in theirs.state_dict().items()
        }
        theirs.load_state_dict({key: torch.tensor(value) for key, value in values.items()})
        mine.load_state_dict({key: tl.tensor(value) for key, value in values.items()})
        expected.update_parameters(theirs)
        found.update_parameters(mine)
    state, reference = found.state_dict(), expected.state_dict()
    assert list(state) == list(reference)
    for key, value in state.items():
        np.testing.assert_allclose(value.numpy(), reference[key].numpy(), rtol=1e-6, atol=2e-7)


def test_the_mean_of_all_models_and_a_saved_state():
    model = small()
    average = swa_utils.AveragedModel(model, use_buffers=True)
    for value in (1.0, 2.0, 6.0):
        with tl.no_grad():
            model[0].weight.fill_(value)
            model[1].num_batches_tracked.fill_(int(value))
        average.update_parameters(model)
    assert (average.module[0].weight == 3.0).all()
    assert int(average.module[1].num_batches_tracked.item()) == 2  # 1, 1.5 and 2.67 as integers
    again = swa_utils.AveragedModel(small(), use_buffers=True)
    again.load_state_dict(average.state_dict())
    for a in (average, again):
        a.update_parameters(model)
    assert int(again.n_averaged.item()) == 4
    assert (again.module[0].weight == 3.75).all()


def test_the_averaged_model_computes_and_leaves_the_other_alone():
    model = nn.Linear(2, 1)
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    before = copy.deepcopy(model.state_dict())
    average.update_parameters(model)
    with tl.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    average.update_parameters(model)
    x = tl.ones(3, 2)
    expected = 0.5 * (x.numpy() @ before["weight"].numpy().T + before["bias"].numpy())
    np.testing.assert_allclose(average(x).detach().numpy(), expected, rtol=1e-6)
    assert not model.weight.any()
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("make", [swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn])
@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan"), "0.9"])
def test_a_decay_out_of_range(make, decay):
    with pytest.raises(ValueError, match=rf"{make.__name__}: decay must be a number"):
        make(decay)


def test_mistakes():
    model = small()
    with pytest.raises(ValueError, match="AveragedModel: expected avg_fn or multi_avg_fn, got both"):
        swa_utils.AveragedModel(model, None, swa_utils.get_swa_avg_fn(), swa_utils.get_swa_multi_avg_fn())
    with pytest.raises(ValueError, match="AveragedModel: expected a model with 4 tensors, got one with 2"):
        swa_utils.AveragedModel(model).update_parameters(model[0])
