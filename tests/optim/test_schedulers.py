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
    "StepLR": lambda s, o: s.StepLR(o, 7),
    "StepLR gamma": lambda s, o: s.StepLR(o, step_size=3, gamma=0.9),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [3, 3, 10, 40], gamma=0.5),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 30, power=2.0),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 2, eta_min=0.01),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.97),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 30), s.ConstantLR(o, 0.5, 2)], [5, 35]
    ),
    "SequentialLR made last first": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.5, 100), s.StepLR(o, 4, 0.5)][::-1], milestones=[11]
    ),
    "SequentialLR from the second": lambda s, o: s.SequentialLR(o, [s.StepLR(o, 4), s.LinearLR(o)], [0]),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 2.0, total_steps=400),
    "OneCycleLR options": lambda s, o: s.OneCycleLR(
        o, max_lr=0.5, epochs=40, steps_per_epoch=10, pct_start=0.25, anneal_strategy="linear", base_momentum=0.5,
        max_momentum=0.7, div_factor=10.0, final_div_factor=100.0
    ),
    "OneCycleLR three phases": lambda s, o: s.OneCycleLR(o, 0.5, 399, pct_start=0.4, three_phase=True),
    "OneCycleLR without momentum": lambda s, o: s.OneCycleLR(o, 0.5, 400, cycle_momentum=False, pct_start=1.0),
}  # fmt: skip

OWN = {
    "CosineWithWarmup": lambda s, o: s.CosineWithWarmup(o, 3, 20),
    "WarmupStableDecay": lambda s, o: s.WarmupStableDecay(o, 3, 8, 20, decay="cosine"),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduled_trajectory(name):
    same_trajectory(OPTIMIZERS["groups"], scheduler=SCHEDULERS[name])


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_400_steps_set_the_options_that_pytorch_sets(name, optimizer):
    torch = pytest.importorskip("torch")
    runs = []
    for library in (tl, torch):
        parameters = [library.ones(1, requires_grad=True) for _ in range(2)]
        groups = [{"params": parameters[:1], "lr": 0.5}, {"params": parameters[1:]}]
        o = getattr(library.optim, optimizer)(groups, lr=2.0, **({"momentum": 0.9} if optimizer == "SGD" else {}))
        scheduler = SCHEDULERS[name](library.optim.lr_scheduler, o)
        o.step()
        seen = []
        for _ in range(399):
            last = scheduler.get_last_lr()
            assert last == [group["lr"] for group in o.param_groups]
            seen.append([v for g in o.param_groups for v in (g["lr"], *g.get("betas", [g.get("momentum")]))])
            scheduler.step()
        runs.append(seen)
    for step, (mine, theirs) in enumerate(zip(*runs, strict=True)):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-14), step


def test_rates_of_each_group():
    same_trajectory(OPTIMIZERS["groups"], scheduler=lambda s, o: s.OneCycleLR(o, [0.1, 0.2, 0.3], 60))


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


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [0.8, 0.6, 0.4]),
        ("cosine", [0.2 + 0.8 * (1 + math.cos(math.pi * k / 4)) / 2 for k in (1, 2, 3)]),
        ("1-sqrt", [1 - 0.8 * 0.5, 1 - 0.8 * math.sqrt(0.5), 1 - 0.8 * math.sqrt(0.75)]),
    ],
)
def test_warmup_stable_decay(decay, expected):
    """The peak is kept until the decay, whose first step has it, too. The rates do not depend on the last step."""
    found = rates(lambda o: lr_scheduler.WarmupStableDecay(o, 3, 4, 12, min_lr=0.2, decay=decay), 14)
    assert found[:3] == pytest.approx([0.25, 0.5, 0.75], rel=1e-15)
    assert found[3:9] == [1.0] * 6
    assert found[9:12] == pytest.approx(expected, rel=1e-14)
    assert found[12:] == [0.2, 0.2]
    longer = rates(lambda o: lr_scheduler.WarmupStableDecay(o, 3, 4, 30, min_lr=0.2, decay=decay), 30)
    assert longer[:9] == found[:9]
    assert longer[9:27] == [1.0] * 18
    assert longer[27:] == found[9:12]
    assert rates(lambda o: lr_scheduler.WarmupStableDecay(o, 2, 0, 2, decay=decay), 4)[2:] == [0.0, 0.0]
    assert rates(lambda o: lr_scheduler.WarmupStableDecay(o, 0, 0, 2, decay=decay), 3) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 2, 5), "warmup_steps must be a whole number of at least 0, got -1"),
        ((1, 2.5, 5), "decay_steps must be a whole number of at least 0, got 2.5"),
        ((2, 4, 5), "total_steps must be a whole number of at least 6, got 5"),
        ((1, 1, 5, -1.0), "min_lr must be a number of at least 0, got -1.0"),
        ((1, 1, 5, 0.0, "exp"), "decay must be one of 'linear', 'cosine', '1-sqrt', got 'exp'"),
    ],
)
def test_warmup_stable_decay_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"WarmupStableDecay: {message}"):
        lr_scheduler.WarmupStableDecay(optim.SGD([tl.ones(1)], 1.0), *arguments)


def test_min_lr_never_raises_the_rate_of_a_group_that_starts_below_it():
    optimizer = optim.SGD([{"params": [tl.ones(1)], "lr": 1.0}, {"params": [tl.ones(1)], "lr": 0.01}])
    schedule = lr_scheduler.CosineWithWarmup(optimizer, 2, 6, min_lr=0.1)
    rates = []
    for _ in range(9):
        rates.append(schedule.get_last_lr())
        schedule.step()
    large, small = zip(*rates, strict=True)
    assert min(large[2:]) == large[-1] == 0.1
    assert list(small) == pytest.approx([0.01 / 3, 0.02 / 3, *[0.01] * 7], rel=1e-15)


@pytest.mark.parametrize("name", [*SCHEDULERS, *OWN])
def test_scheduler_state_goes_through_json(name):
    make = {**SCHEDULERS, **OWN}[name]
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


def test_continuing_from_a_step():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match="to continue from step 4, group 0 needs an 'initial_lr'"):
        lr_scheduler.LinearLR(optimizer, last_epoch=4)
    optimizer.param_groups[0]["initial_lr"] = 2.0
    scheduler = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=10, last_epoch=4)
    assert scheduler.get_last_lr() == [1.5]


def test_wrong_options_are_errors():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    other = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    s = lr_scheduler
    for make, message in [
        (lambda: s.ConstantLR(optimizer, factor=2), "ConstantLR: factor"),
        (lambda: s.ConstantLR(optimizer, total_iters=-1), "ConstantLR: total_iters"),
        (lambda: s.LinearLR(optimizer, start_factor=0), "LinearLR: (start|end)_factor"),
        (lambda: s.LinearLR(optimizer, end_factor=2), "LinearLR: (start|end)_factor"),
        (lambda: s.CosineAnnealingLR(optimizer, 0), "CosineAnnealingLR: T_max"),
        (lambda: s.CosineWithWarmup(optimizer, 5, 4), "total_steps must be a whole number of at least 5, got 4"),
        (lambda: s.CosineWithWarmup(optimizer, 0.5, 4), "warmup_steps"),
        (lambda: s.CosineWithWarmup(optimizer, 1, 4, min_lr=-1), "min_lr"),
        (lambda: s.LambdaLR(optimizer, [lambda k: 1, lambda k: 1]), "LambdaLR: expected 1 functions"),
        (lambda: s.ConstantLR(optimizer).load_state_dict({}), "expected a state with base_lrs, factor"),
        (lambda: s.StepLR(optimizer, 0), "StepLR: step_size must be a whole number of at least 1, got 0"),
        (lambda: s.StepLR(optimizer, 3, gamma="0.1"), "StepLR: gamma must be a number"),
        (lambda: s.ExponentialLR(optimizer, -1.0), "ExponentialLR: gamma must be a number of at least 0, got -1.0"),
        (lambda: s.MultiStepLR(optimizer, [5, 3]), "MultiStepLR: milestones must be in increasing order"),
        (lambda: s.MultiStepLR(optimizer, [0.5]), "each of milestones must be a whole number"),
        (lambda: s.SequentialLR(optimizer, [], []), "SequentialLR: expected at least one scheduler"),
        (lambda: s.SequentialLR(optimizer, [s.StepLR(optimizer, 1)], [3]), "expected 0 milestones for 1 schedulers"),
        (lambda: s.SequentialLR(optimizer, [s.StepLR(optimizer, 1)] * 3, [3, 3]), "in increasing order"),
        (lambda: s.SequentialLR(optimizer, [s.StepLR(other, 1)], []), "the StepLR at index 0 is for another optim"),
        (lambda: s.OneCycleLR(optimizer, 1.0), "expected total_steps, or epochs and steps_per_epoch"),
        (lambda: s.OneCycleLR(optimizer, 1.0, 0), "total_steps must be a whole number of at least 1, got 0"),
        (lambda: s.OneCycleLR(optimizer, [1.0, 2.0], 9), "max_lr must be a number or a list of 1, one for each group"),
        (lambda: s.OneCycleLR(optimizer, 1.0, 9, pct_start=1.5), "pct_start must be a number from 0 to 1, got 1.5"),
        (lambda: s.OneCycleLR(optimizer, 1.0, 9, anneal_strategy="exp"), "anneal_strategy must be 'cos' or 'linear'"),
        (lambda: s.OneCycleLR(optimizer, 1.0, 9, div_factor=0), "div_factor must not be 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="ConstantLR: expected an Optimizer, got list"):
        s.ConstantLR([])
    state = s.ConstantLR(optimizer).state_dict()
    with pytest.raises(ValueError, match="the state is for 2 groups, the optimizer has 1"):
        s.ConstantLR(optimizer).load_state_dict({**state, "base_lrs": [1.0, 2.0]})
    with pytest.raises(TypeError, match="SequentialLR: expected schedulers, got int at index 0"):
        s.SequentialLR(optimizer, [1], [])


def test_onecycle_ends_with_an_error():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=4)
    for _ in range(4):
        scheduler.step()
    with pytest.raises(ValueError, match="step 5 is beyond the cycle, which has total_steps=4"):
        scheduler.step()


def test_the_state_of_other_schedulers_is_an_error_and_changes_nothing():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    s = lr_scheduler

    def make(second):
        return s.SequentialLR(optimizer, [s.LinearLR(optimizer), second], [5])

    scheduler = make(s.StepLR(optimizer, 3))
    for _ in range(7):
        scheduler.step()
    before, lr = scheduler.state_dict(), optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="StepLR: expected a state with base_lrs, gamma, last_epoch, step_size"):
        scheduler.load_state_dict({**before, "schedulers": make(s.ConstantLR(optimizer)).state_dict()["schedulers"]})
    with pytest.raises(ValueError, match="the state is for 1 schedulers, not 2"):
        scheduler.load_state_dict({**before, "schedulers": before["schedulers"][:1]})
    assert scheduler.state_dict() == before
    scheduler.load_state_dict(before)
    assert optimizer.param_groups[0]["lr"] == lr


def test_the_first_scheduler_sets_the_initial_rate():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    lr_scheduler.ConstantLR(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert lr_scheduler.StepLR(optimizer, 3).base_lrs == [1.0]


# ---- several schedulers, and changes by hand ------------------------------------------------------

PARTS = {
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.1, total_iters=5),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 20),
    "StepLR": lambda s, o: s.StepLR(o, 3),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 3]),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.8),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 7, 0.01),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda step: 0.9**step),
}


def pairs_of_rates(library, first, second, by_hand, chained, resume=None):
    """Return the rates of 12 steps of two schedulers, of which the rate is halved by hand once."""
    s, o = library.optim.lr_scheduler, library.optim.SGD([library.ones(1, requires_grad=True)], lr=0.5)
    both = [PARTS[first](s, o), PARTS[second](s, o)]
    both = [s.ChainedScheduler(both)] if chained else both
    seen = []
    for k in range(12):
        if k == by_hand:
            o.param_groups[0]["lr"] *= 0.5
        if k == resume:
            states = json.loads(json.dumps([scheduler.state_dict() for scheduler in both]))
            both = [PARTS[first](s, o), PARTS[second](s, o)]
            for scheduler, state in zip(both, states, strict=True):
                scheduler.load_state_dict(state)
        seen.append(o.param_groups[0]["lr"])
        o.step()
        for scheduler in both:
            scheduler.step()
    return seen


@pytest.mark.parametrize("first", PARTS)
def test_schedulers_of_one_optimizer_multiply_as_in_pytorch(first):
    torch = pytest.importorskip("torch")
    for second in PARTS:
        for by_hand, chained in [(None, False), (None, True), (4, False)]:
            mine = pairs_of_rates(tl, first, second, by_hand, chained)
            theirs = pairs_of_rates(torch, first, second, by_hand, chained)
            assert mine == pytest.approx(theirs, rel=1e-9), (second, by_hand, chained)
        resumed = pairs_of_rates(tl, first, second, None, False, resume=6)
        assert resumed == pairs_of_rates(tl, first, second, None, False)


def test_rates_multiply_without_pytorch():
    found = pairs_of_rates(tl, "ExponentialLR", "StepLR", None, False)
    assert found == pytest.approx([0.5 * 0.8**k * 0.1 ** (k // 3) for k in range(12)], rel=1e-12)


def test_a_scheduler_of_ones_own_defines_get_lr():
    class Halves(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base * 0.5**self.last_epoch for base in self.base_lrs]

    assert rates(Halves, 4) == [1.0, 0.5, 0.25, 0.125]
    with pytest.raises(NotImplementedError, match=r"LRScheduler does not define get_lr\(\)"):
        rates(lr_scheduler.LRScheduler, 1)


def test_warm_restarts_at_fractions_of_a_step():
    torch = pytest.importorskip("torch")
    runs = []
    for library in (tl, torch):
        o = library.optim.SGD([library.ones(1, requires_grad=True)], lr=0.5)
        scheduler = library.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2)
        seen = []
        for k in range(40):
            scheduler.step(k / 4) if k < 30 else scheduler.step()
            seen.append(o.param_groups[0]["lr"])
        runs.append(seen)
    assert runs[0] == pytest.approx(runs[1], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1},
        {"mode": "max", "patience": 0, "threshold": 0.1},
        {"threshold_mode": "abs", "threshold": 0.2, "patience": 2, "cooldown": 2},
        {"factor": 0.5, "patience": 0, "min_lr": 0.1, "eps": 0.01},
        {"mode": "max", "threshold_mode": "abs", "patience": 1, "factor": 0.3},
    ],
)
def test_reduce_on_plateau(options):
    torch = pytest.importorskip("torch")
    losses = [1.0, 0.9, 0.95, 0.91, 0.89, 0.95, 1.2, 1.1, 1.3, 0.2, 0.2, 0.3, 0.19, 0.2, 0.5, 0.6, 0.7, math.nan, 0.1]
    runs = []
    for library in (tl, torch):
        o = library.optim.SGD([library.ones(1, requires_grad=True)], lr=0.5)
        scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(o, **options)
        seen = []
        for k, loss in enumerate(losses):
            scheduler.step(library.tensor(loss) if k % 2 else loss)
            seen.append(scheduler.get_last_lr()[0])
            if library is tl and k == 8:
                state = json.loads(json.dumps(scheduler.state_dict()))
                scheduler = lr_scheduler.ReduceLROnPlateau(o)
                scheduler.load_state_dict(state)
        runs.append(seen)
    assert runs[0] == pytest.approx(runs[1], rel=1e-12)
    assert len(set(runs[0])) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s, o: s.ReduceLROnPlateau(o, "low"), "mode must be 'min' or 'max'"),
        (lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode must be 'rel' or 'abs'"),
        (lambda s, o: s.ReduceLROnPlateau(o, factor=1.0), "factor must be a number"),
        (lambda s, o: s.ReduceLROnPlateau(o).load_state_dict({"best": 1}), "expected a state of its own, got best"),
        (lambda s, o: s.ChainedScheduler([]), "at least one scheduler"),
        (lambda s, o: s.ChainedScheduler([s.StepLR(o, 1)], optim.SGD([tl.ones(1)])), "schedulers of one optimizer"),
        (lambda s, o: s.ChainedScheduler([s.StepLR(o, 1)]).load_state_dict({"schedulers": []}), "for 0 sched"),
        (lambda s, o: s.PolynomialLR(o, 0), "total_iters"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 0), "T_0"),
    ],
)  # fmt: skip
def test_wrong_options_of_further_schedulers_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make(lr_scheduler, optim.SGD([tl.ones(1, requires_grad=True)]))
