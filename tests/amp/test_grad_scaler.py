"""GradScaler: the factor, the steps that it leaves out, its state, its errors; against PyTorch's."""

import copy
import math
import pickle

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.amp import GradScaler
from tensorlite.testing import strict


def parameter(*values, device="cpu", dtype=tl.float32):
    return nn.Parameter(tl.tensor(list(values), dtype=dtype, device=device))


def scaled_step(scaler, optimizer, *pairs):
    """Take a step in which each parameter has a gradient of a given value, and return the result of the step."""
    optimizer.zero_grad()
    scaler.scale(sum((p * v).sum() for p, v in pairs)).backward()
    result = scaler.step(optimizer)
    scaler.update()
    return result


def test_a_step_is_that_of_the_unscaled_gradient():
    p, q = parameter(1.0, 2.0), parameter(1.0, 2.0)
    a, b = tl.optim.SGD([p], lr=0.5), tl.optim.SGD([q], lr=0.5)
    scaler = GradScaler("cpu", init_scale=1024.0)
    scaled_step(scaler, a, (p, 3.0))
    (q * 3.0).sum().backward()
    b.step()
    assert np.array_equal(p.detach().numpy(), q.detach().numpy())
    assert np.array_equal(p.grad.numpy(), [3.0, 3.0])


class Descent:
    """Gradient descent for both libraries. PyTorch's own optimizers take seconds to import."""

    def __init__(self, library, parameter):
        self.library, self.param_groups = library, [{"params": [parameter]}]

    def zero_grad(self):
        self.param_groups[0]["params"][0].grad = None

    def step(self):
        (p,) = self.param_groups[0]["params"]
        with self.library.no_grad():
            p -= 0.01 * p.grad


def test_the_factor_grows_and_shrinks_as_in_pytorch():
    torch = pytest.importorskip("torch")
    gradients = [1.0, 1.0, math.inf, 1.0, math.nan, -math.inf, 1.0, 1.0, 1.0, 1.0, 1.0]
    found = []
    for lib, module in ((tl, nn), (torch, torch.nn)):
        p = module.Parameter(lib.tensor([1.0, 2.0]))
        optimizer = Descent(lib, p)
        scaler = lib.amp.GradScaler("cpu", init_scale=8.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=2)
        rows = []
        for g in gradients:
            scaled_step(scaler, optimizer, (p, lib.tensor([1.0, g])))
            rows.append((scaler.get_scale(), *p.tolist()))
        found.append((rows, scaler.state_dict()))
    (ours, our_state), (theirs, their_state) = found
    assert np.allclose(ours, theirs, rtol=1e-6)
    assert our_state == their_state
    assert len({row[0] for row in ours}) > 3


def test_a_step_that_is_left_out_changes_nothing():
    p, q = parameter(1.0), parameter(1.0)
    optimizer = tl.optim.AdamW([p, q])
    scaler = GradScaler("cpu", init_scale=4.0)
    assert scaled_step(scaler, optimizer, (p, 1.0), (q, math.inf)) is None
    assert (p.item(), q.item(), scaler.get_scale()) == (1.0, 1.0, 2.0)
    assert not optimizer.state
    scaled_step(scaler, optimizer, (p, 1.0), (q, 1.0))
    assert p.item() != 1.0
    assert q.item() != 1.0


def test_two_optimizers_have_their_own_checks_and_one_factor():
    p, q = parameter(1.0), parameter(1.0)
    a, b = tl.optim.SGD([p], lr=1.0), tl.optim.SGD([q], lr=1.0)
    scaler = GradScaler("cpu", init_scale=4.0)
    scaler.scale((p * 2.0).sum() + (q * math.inf).sum()).backward()
    scaler.step(a)
    scaler.step(b)
    scaler.update()
    assert (p.item(), q.item(), scaler.get_scale()) == (-1.0, 1.0, 2.0)
    # An optimizer that was unscaled and not stepped counts, too.
    a.zero_grad()
    b.zero_grad()
    scaler.scale((p * 2.0).sum() + (q * math.nan).sum()).backward()
    scaler.unscale_(b)
    scaler.step(a)
    scaler.update()
    assert scaler.get_scale() == 1.0


def test_clipping_after_unscale_sees_the_true_norm():
    p = parameter(0.0, 0.0)
    optimizer, scaler = tl.optim.SGD([p], lr=1.0), GradScaler("cpu")
    scaler.scale((p * tl.tensor([3.0, 4.0])).sum()).backward()
    scaler.unscale_(optimizer)
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == pytest.approx(5.0)
    scaler.step(optimizer)
    scaler.update()
    assert np.allclose(p.detach().numpy(), [-0.6, -0.8], atol=1e-6)


def test_gradients_are_added_up_over_batches_with_one_factor():
    p = parameter(0.0)
    optimizer, scaler = tl.optim.SGD([p], lr=1.0), GradScaler("cpu", init_scale=16.0)
    for factor in (1.0, 2.0):
        scaler.scale((p * factor).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert p.item() == -3.0


def test_outputs_may_be_nested():
    scaler = GradScaler("cpu", init_scale=2.0)
    a, b = tl.tensor(1.0), tl.tensor([2.0])
    assert [t.tolist() for t in scaler.scale([a, b])] == [2.0, [4.0]]
    first, (second,) = scaler.scale((a, [b]))
    assert (first.item(), second.tolist()) == (2.0, [4.0])
    assert [t.item() for t in scaler.scale(t for t in (a, a))] == [2.0, 2.0]
    assert scaler.scale(tl.tensor(3.0, dtype=tl.float16)).dtype == tl.float16
    for wrong in (1.0, "loss", None, {"loss": a}):
        with pytest.raises(TypeError, match=r"GradScaler\.scale: expected a Tensor or an iterable of Tensors, got"):
            scaler.scale(wrong)


def test_a_disabled_scaler_does_nothing():
    p = parameter(1.0)
    optimizer, scaler = tl.optim.SGD([p], lr=1.0), GradScaler("cuda", enabled=False)
    loss = (p * 2.0).sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.unscale_(optimizer)
    assert scaler.step(optimizer, closure=lambda: loss) is loss
    scaler.update()
    assert (p.item(), scaler.get_scale(), scaler.is_enabled(), scaler.state_dict()) == (-1.0, 1.0, False, {})
    scaler.load_state_dict({})


def test_the_state_continues():
    p = parameter(1.0)
    optimizer = tl.optim.SGD([p], lr=1.0)
    scaler = GradScaler("cpu", init_scale=4.0, growth_interval=3)
    scaled_step(scaler, optimizer, (p, 1.0))
    other = GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    again = pickle.loads(pickle.dumps(scaler))  # noqa: S301, its own bytes
    for s in (scaler, other, again, copy.deepcopy(scaler)):
        for _ in range(2):
            scaled_step(s, optimizer, (p, 1.0))
        assert s.get_scale() == 8.0
    with pytest.raises(ValueError, match="got one without _growth_tracker, backoff_factor"):
        other.load_state_dict({})
    with pytest.raises(ValueError, match="backoff_factor"):
        other.load_state_dict({**scaler.state_dict(), "scale": 2.0, "backoff_factor": 2.0})
    assert other.get_scale() == 8.0


def test_update_takes_a_new_factor():
    p = parameter(1.0)
    optimizer, scaler = tl.optim.SGD([p], lr=1.0), GradScaler("cpu")
    for value, expected in ((4.0, 4.0), (tl.tensor(2.5), 2.5)):
        scaler.scale(p.sum()).backward()
        scaler.step(optimizer)
        scaler.update(value)
        assert scaler.get_scale() == expected
    with pytest.raises(ValueError, match="new_scale must be a positive number"):
        scaler.update(math.inf)


def test_the_factor_stays_finite():
    p = parameter(0.0)
    scaler = GradScaler("cpu", init_scale=2.0**127, growth_interval=1)
    scaled_step(scaler, tl.optim.SGD([p], lr=1.0), (p, 0.0))
    assert scaler.get_scale() == 2.0**127


MISUSES = {
    "step before scale": (lambda s, o, l: s.step(o), r"step: expected a call of scale\(\) before it, got none"),
    "unscale before scale": (lambda s, o, l: s.unscale_(o), r"unscale_: expected a call of scale\(\) before it"),
    "update before scale": (lambda s, o, l: s.update(), r"update: expected a call of scale\(\) before it"),
    "unscale twice": (lambda s, o, l: (l(), s.unscale_(o), s.unscale_(o)), r"for each update\(\), got a second one"),
    "unscale after step": (lambda s, o, l: (l(), s.step(o), s.unscale_(o)), r"got one after step\(\)"),
    "step twice": (lambda s, o, l: (l(), s.step(o), s.step(o)), r"step: expected one call for each update\(\)"),
    "update twice": (lambda s, o, l: (l(), s.step(o), s.update(), s.update()), r"expected a call of step\(\) since"),
    "no gradients": (lambda s, o, l: (s.scale(tl.tensor(1.0)), s.step(o)), "expected gradients, got none"),
    "a copy in a step": (lambda s, o, l: (l(), s.unscale_(o), pickle.dumps(s)), "got one before update"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_an_error(name):
    p = parameter(1.0)
    scaler, optimizer = GradScaler("cpu"), tl.optim.SGD([p], lr=1.0)
    misuse, message = MISUSES[name]
    with pytest.raises(tl.GraphError, match=message):
        misuse(scaler, optimizer, lambda: scaler.scale(p.sum()).backward())


def test_other_errors():
    p = parameter(1.0, dtype=tl.float16)
    scaler, optimizer = GradScaler("cpu", init_scale=2.0), tl.optim.SGD([p], lr=1.0)
    scaler.scale(p.sum()).backward()
    with pytest.raises(tl.DTypeError, match="expected gradients of float32, got float16"):
        scaler.unscale_(optimizer)
    for closure in ({"closure": lambda: None}, None):
        with pytest.raises(TypeError, match="expected no closure"):
            scaler.step(optimizer, **closure) if closure else scaler.step(optimizer, lambda: None)
    for options in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"growth_interval": 0}, {"init_scale": 0.0},
                    {"device": "tpu"}, {"init_scale": math.nan}):  # fmt: skip
        with pytest.raises(ValueError, match="GradScaler"):
            GradScaler(**{"device": "cpu", **options})


def test_a_gpu_that_is_not_there_is_a_warning():
    if tl.cuda_is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(RuntimeWarning, match="found none, so the scaler is disabled"):
        assert not GradScaler("cuda").is_enabled()


def test_one_sync_a_step_on_a_device():
    p, q = (parameter(1.0, 2.0, device="strict") for _ in range(2))
    optimizer, scaler = tl.optim.SGD([p, q], lr=1.0), GradScaler("strict", init_scale=4.0)
    loss = scaler.scale((p * 2.0).sum() + (q * 3.0).sum())
    with strict.forbid_syncs():
        loss.backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([p, q], 1.0)
    with strict.count_syncs() as log:
        scaler.step(optimizer)
    assert len(log) == 1
    with strict.forbid_syncs():
        scaler.update()
        scaler.get_scale()


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("f", [
    lambda w: w.sum(), lambda w: w.mean(), lambda w: w.expand(3).sum(), lambda w: w.reshape(1, 1).sum(0).sum(),
    lambda w: tl.diag(w).sum(), lambda w: w.broadcast_to((2, 1)).sum(0).sum(), lambda w: w.reshape(()),
])  # fmt: skip
def test_the_gradient_of_one_entry_can_be_changed_in_place(f, device):
    """The gradient of a sum is a broadcast number, which NumPy makes read-only."""
    p = parameter(1.0, device=device)
    exact = tl.autograd.grad(f(p), p)[0].item()
    optimizer, scaler = tl.optim.SGD([p], lr=1.0), GradScaler(device, init_scale=4.0)
    loss = f(p)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    assert p.grad.item() == exact
    nn.utils.clip_grad_norm_([p], 0.5)
    assert abs(p.grad.item() - 0.5) < 1e-5
    scaler.step(optimizer)
    assert abs(p.item() - 0.5) < 1e-5
    p.grad = None
    loss = f(p)
    loss.backward()
    p.grad.mul_(0.0)
    assert loss.item() != 0
