"""A small model and its training trajectories, in tensorlite and in PyTorch."""

import numpy as np
import pytest

import tensorlite as tl

STEPS = 50


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((STEPS, 8, 5)), rng.standard_normal((STEPS, 8, 5))


class Tied:
    """The same small model in either library: an embedding that is also the head, a layer, and a scale."""

    def __init__(self, library):
        rng = np.random.default_rng(7)
        make = [rng.standard_normal(s) for s in ((4, 5), (5, 4), (4,), (4,))]
        self.head, self.inner, self.bias, self.scale = (library.tensor(a, requires_grad=True) for a in make)
        self.parameters = [self.head, self.inner, self.bias, self.scale]

    def loss(self, library, x, y):
        h = (library.tensor(x) @ self.inner + self.bias).tanh() * self.scale
        return ((h @ self.head - library.tensor(y)) ** 2).mean() + (self.head * self.head).sum() * 0.01


def trajectory(library, make, scheduler=None, clip=None):
    """Return the parameters and learning rates after each of 50 steps."""
    model, points, rates = Tied(library), [], []
    optimizer = make(library.optim, model)
    schedule = scheduler(library.optim.lr_scheduler, optimizer) if scheduler else None
    for x, y in zip(*data(), strict=True):
        optimizer.zero_grad()
        model.loss(library, x, y).backward()
        if clip:
            clip(library.nn.utils, model.parameters)
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if schedule:
            schedule.step()
        points.append(np.concatenate([p.detach().numpy().ravel() for p in model.parameters]))
    return np.stack(points), np.array(rates)


def same_trajectory(make, **options):
    torch = pytest.importorskip("torch")
    mine, my_rates = trajectory(tl, make, **options)
    theirs, their_rates = trajectory(torch, make, **options)
    assert abs(theirs[-1] - theirs[0]).max() > 1e-3  # training changed the parameters
    np.testing.assert_allclose(my_rates, their_rates, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)


OPTIMIZERS = {
    "SGD": lambda o, m: o.SGD(m.parameters, lr=0.1),
    "SGD default": lambda o, m: o.SGD(m.parameters),
    "SGD momentum": lambda o, m: o.SGD(m.parameters, 0.1, momentum=0.9),
    "SGD dampening": lambda o, m: o.SGD(m.parameters, 0.1, momentum=0.9, dampening=0.3),
    "SGD nesterov": lambda o, m: o.SGD(m.parameters, 0.1, momentum=0.9, nesterov=True),
    "SGD decay": lambda o, m: o.SGD(m.parameters, 0.1, momentum=0.9, dampening=0.3, weight_decay=0.2),
    "SGD maximize": lambda o, m: o.SGD(m.parameters, 0.001, momentum=0.5, weight_decay=0.1, maximize=True),
    "Adam": lambda o, m: o.Adam(m.parameters),
    "Adam options": lambda o, m: o.Adam(m.parameters, lr=0.02, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
    "Adam maximize": lambda o, m: o.Adam(m.parameters, lr=0.02, maximize=True, weight_decay=0.1),
    "AdamW": lambda o, m: o.AdamW(m.parameters),
    "AdamW options": lambda o, m: o.AdamW(m.parameters, lr=0.02, betas=(0.9, 0.99), weight_decay=0.1),
    "AdamW maximize": lambda o, m: o.AdamW(m.parameters, lr=0.02, maximize=True),
    "RMSprop": lambda o, m: o.RMSprop(m.parameters),
    "RMSprop options": lambda o, m: o.RMSprop(m.parameters, 0.02, alpha=0.9, eps=1e-4, weight_decay=0.1, momentum=0.5),
    "RMSprop centered": lambda o, m: o.RMSprop(m.parameters, 0.02, momentum=0.5, centered=True),
    "RMSprop maximize": lambda o, m: o.RMSprop(m.parameters, maximize=True),
    "Adagrad": lambda o, m: o.Adagrad(m.parameters),
    "Adagrad options": lambda o, m: o.Adagrad(m.parameters, 0.1, 0.01, 0.1, 0.5, 1e-3),
    "Adagrad maximize": lambda o, m: o.Adagrad(m.parameters, maximize=True),
    "groups": lambda o, m: o.AdamW(
        [
            {"params": [m.head, m.inner], "weight_decay": 0.1, "lr": 0.05},
            {"params": m.bias, "weight_decay": 0.0},
            {"params": [m.scale], "betas": (0.5, 0.6)},
        ],
        lr=0.01,
    ),
    "named": lambda o, m: o.SGD([("a", m.head), ("b", m.inner)], lr=0.1, momentum=0.9),
}
