"""Learning rate schedulers: trajectories compared with PyTorch's, their state, and every error."""

import json
import math

import pytest

import tensorlite as tl
from tensorlite import optim
from tensorlite.optim import lr_scheduler
from tests.optim.trajectories import OPTIMIZERS, same_trajectory

SCHEDULERS = {
    "ConstantLR": lambda s, o: s.ConstantLR(o, factor=0.25, total_iters=7),
    "ConstantLR default": lambda s, o: s.ConstantLR(o),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.1, 0.9, total_iters=20),
    "LinearLR default": lambda s, o: s.LinearLR(o),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, T_max=50, eta_min=0.001),
    "CosineAnnealingLR and back": lambda s, o: s.CosineAnnealingLR(o, 20),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda step: 0.9**step),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduled_trajectory(name):
    same_trajectory(OPTIMIZERS["groups"], scheduler=SCHEDULERS[name])


def test_lambda_of_each_group():
    lambdas = [lambda step: 1 / (1 + step), lambda step: 1.0, lambda step: 0.5 * (step > 3)]
    same_trajectory(OPTIMIZERS["groups"], scheduler=lambda s, o: s.LambdaLR(o, lambdas))


# ---- schedulers -------------------------------------------------------------------------------


def rates(make, steps, lr=1.0):
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found += scheduler.get_last_lr()
        scheduler.step()
    return found


def test_cosine_with_warmup():
    found = rates(lambda o: lr_scheduler.CosineWithWarmup(o, 3, 8, min_lr=0.2), 10)
    assert found[:3] == pytest.approx([0.25, 0.5, 0.75], rel=1e-15)
    assert found[3] == 1.0
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * k / 5)) / 2 for k in range(1, 5)]
    assert found[4:8] == pytest.approx(expected, rel=1e-15)
    assert found[8:] == [0.2, 0.2]
    assert rates(lambda o: lr_scheduler.CosineWithWarmup(o, 0, 2), 3) == pytest.approx([1.0, 0.5, 0.0], rel=1e-15)
    assert rates(lambda o: lr_scheduler.CosineWithWarmup(o, 1, 1), 3) == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("name", [*SCHEDULERS, "CosineWithWarmup"])
def test_scheduler_state_goes_through_json(name):
    make = {**SCHEDULERS, "CosineWithWarmup": lambda s, o: s.CosineWithWarmup(o, 3, 20)}[name]
    expected = rates(lambda o: make(lr_scheduler, o), 20)
    first = make(lr_scheduler, optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0))
    for _ in range(7):
        first.step()
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    second = make(lr_scheduler, optimizer)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for k in range(7, 20):
        assert second.last_epoch == k
        assert optimizer.param_groups[0]["lr"] == expected[k]
        second.step()


def test_going_on_from_a_step():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match="to go on from step 4, group 0 needs an 'initial_lr'"):
        lr_scheduler.LinearLR(optimizer, last_epoch=4)
    optimizer.param_groups[0]["initial_lr"] = 2.0
    scheduler = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=10, last_epoch=4)
    assert scheduler.get_last_lr() == [1.5]


def test_schedulers_say_what_is_wrong():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    s = lr_scheduler
    for make, message in [
        (lambda: s.ConstantLR(optimizer, factor=2), "ConstantLR: factor"),
        (lambda: s.ConstantLR(optimizer, total_iters=-1), "ConstantLR: total_iters"),
        (lambda: s.LinearLR(optimizer, start_factor=0), "LinearLR: start_factor"),
        (lambda: s.LinearLR(optimizer, end_factor=2), "LinearLR: start_factor"),
        (lambda: s.CosineAnnealingLR(optimizer, 0), "CosineAnnealingLR: T_max"),
        (lambda: s.CosineWithWarmup(optimizer, 5, 4), "total_steps must be a whole number of at least 5, got 4"),
        (lambda: s.CosineWithWarmup(optimizer, 0.5, 4), "warmup_steps"),
        (lambda: s.CosineWithWarmup(optimizer, 1, 4, min_lr=-1), "min_lr"),
        (lambda: s.LambdaLR(optimizer, [lambda k: 1, lambda k: 1]), "LambdaLR: expected 1 functions"),
        (lambda: s.ConstantLR(optimizer).load_state_dict({}), "expected a state with base_lrs, factor"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="ConstantLR: expected an Optimizer, got list"):
        s.ConstantLR([])
    state = s.ConstantLR(optimizer).state_dict()
    with pytest.raises(ValueError, match="the state is for 2 groups, the optimizer has 1"):
        s.ConstantLR(optimizer).load_state_dict({**state, "base_lrs": [1.0, 2.0]})
