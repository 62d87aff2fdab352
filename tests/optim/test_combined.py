"""CombinedOptimizer: several optimizers behave as one."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import optim
from tensorlite.optim import lr_scheduler


def make(lr=0.1):
    """Return a combined optimizer after one step, with its matrix and its vector."""
    x, y = tl.ones(2, 2, requires_grad=True), tl.ones(2, requires_grad=True)
    optimizer = optim.CombinedOptimizer(optim.Muon([x], lr=lr), optim.AdamW([y], lr=lr))
    (x.sum() * 2 + y.sum()).backward()
    optimizer.step()
    return optimizer, x, y


def test_options_and_state_come_from_all_optimizers():
    optimizer, x, y = make()
    assert {"momentum", "ns_steps", "betas"} <= optimizer.defaults.keys()
    assert set(optimizer.state) == {x, y}
    assert repr(optimizer).count("group") == 2
    with pytest.raises(TypeError, match=r"optimizers\[i\].add_param_group"):
        optimizer.add_param_group({"params": [tl.ones(1)]})


def test_a_scheduler_of_momentum_scales_both():
    optimizer, _, _ = make()
    scheduler = lr_scheduler.OneCycleLR(optimizer, [0.1, 0.2], total_steps=10)
    assert optimizer.param_groups[0]["momentum"] == 0.95
    assert optimizer.param_groups[1]["betas"] == (0.95, 0.999)
    for _ in range(2):
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.1, 0.2])
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.85)


def test_a_state_that_does_not_fit_changes_nothing():
    optimizer, _, y = make()
    before = optimizer.state_dict()
    bad = {
        **before,
        "param_groups": [{**before["param_groups"][0], "lr": 0.5}, {**before["param_groups"][1], "lr": -1}],
    }
    with pytest.raises(ValueError, match="AdamW: lr"):
        optimizer.load_state_dict(bad)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    np.testing.assert_array_equal(optimizer.state[y]["exp_avg"].numpy(), before["state"][1]["exp_avg"].numpy())


def test_a_closure_runs_with_gradients():
    optimizer, x, y = make()

    def closure():
        optimizer.zero_grad()
        loss = x.sum() + y.sum()
        loss.backward()
        return loss

    with tl.no_grad():
        assert optimizer.step(closure).requires_grad
