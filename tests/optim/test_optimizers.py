"""Optimizers: trajectories compared with PyTorch's, their state, and every error."""

import json
import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, optim
from tensorlite.dtypes import accumulate_dtype
from tests.optim.trajectories import OPTIMIZERS, STEPS, Tied, data, same_trajectory


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectory(name):
    same_trajectory(OPTIMIZERS[name])


def test_trajectory_of_tied_modules():
    torch = pytest.importorskip("torch")

    def run(library):
        nn = library.nn
        embed, head = nn.Embedding(6, 3), nn.Linear(3, 6, bias=False)
        head.weight = embed.weight
        model = nn.ModuleList([embed, head]).double()
        start = np.random.default_rng(3).standard_normal((6, 3))
        model.load_state_dict({name: library.tensor(start) for name in model.state_dict()})
        parameters = list(model.parameters())
        assert len(parameters) == 1
        optimizer = library.optim.AdamW(parameters, lr=0.05)
        for step in range(STEPS):
            ids = library.tensor(np.random.default_rng(step).integers(0, 6, (4, 2)))
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(embed(ids[:, 0])), ids[:, 1]).backward()
            optimizer.step()
        return parameters[0].detach().numpy()

    np.testing.assert_allclose(run(tl), run(torch), rtol=1e-12, atol=1e-12)


# ---- optimizers -------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad, optim.Lion])
def test_wrong_parameters_are_errors(cls):
    x = tl.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=f"{cls.__name__}: got no parameters"):
        cls([])
    with pytest.raises(ValueError, match="a parameter group has no parameters"):
        cls([{"params": []}])
    with pytest.raises(TypeError, match="must be a list of Tensors or of groups, got Tensor"):
        cls(x)
    with pytest.raises(TypeError, match="got dict"):
        cls({"params": [x]})
    with pytest.raises(TypeError, match="can only optimize Tensors, got float"):
        cls([x, 1.0])
    with pytest.raises(tl.GraphError, match=r"leaf Tensors, got one of shape \(2,\) that is the result of <mul>"):
        cls([x * 2])
    with pytest.raises(tl.DTypeError, match=r"floating point Tensors, got int64\(2,\)"):
        cls([tl.tensor([1, 2])])
    with pytest.raises(ValueError, match=r"a parameter of shape \(2,\) is given twice"):
        cls([x, x])
    with pytest.raises(ValueError, match="given twice"):
        cls([{"params": [x]}, {"params": x}])
    with pytest.raises(TypeError, match="must be a dict with the key 'params'"):
        cls([{"lr": 1.0}])
    with pytest.raises(ValueError, match=r"expected options among lr, .* got 'learning_rate'"):
        cls([{"params": [x], "learning_rate": 1.0}])


BAD_OPTIONS = [
    (optim.SGD, {"lr": -1.0}, "lr"),
    (optim.SGD, {"lr": math.nan}, "lr"),
    (optim.SGD, {"lr": "fast"}, "lr"),
    (optim.SGD, {"lr": math.inf}, "lr"),
    (optim.SGD, {"momentum": -0.1}, "momentum"),
    (optim.SGD, {"weight_decay": -0.1}, "weight_decay"),
    (optim.SGD, {"dampening": None}, "dampening"),
    (optim.SGD, {"nesterov": True}, "nesterov needs a momentum"),
    (optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs a momentum"),
    (optim.Adam, {"lr": -1.0}, "lr"),
    (optim.Adam, {"eps": -1.0}, "eps"),
    (optim.Adam, {"betas": (0.9, 1.0)}, "betas"),
    (optim.Adam, {"betas": (-0.1, 0.9)}, "betas"),
    (optim.Adam, {"betas": 0.9}, "betas must be two numbers"),
    (optim.AdamW, {"weight_decay": True}, "AdamW: weight_decay"),
    (optim.RMSprop, {"alpha": 1.0}, "alpha"),
    (optim.RMSprop, {"momentum": -1.0}, "momentum"),
    (optim.Adagrad, {"lr_decay": -1.0}, "lr_decay"),
    (optim.Adagrad, {"initial_accumulator_value": -1.0}, "initial_accumulator_value"),
    (optim.Lion, {"betas": (0.9,)}, "betas must be two numbers"),
    (optim.Lion, {"weight_decay": math.nan}, "weight_decay"),
    (optim.Muon, {"momentum": -1.0}, "momentum"),
    (optim.Muon, {"ns_steps": 0}, "ns_steps must be an int from 1 to 99, got 0"),
    (optim.Muon, {"ns_coefficients": (1.0, 2.0)}, "ns_coefficients must be three numbers"),
    (optim.Muon, {"adjust_lr_fn": "mine"}, "adjust_lr_fn must be None or one of 'original', 'match_rms_adamw', got"),
]


@pytest.mark.parametrize(("cls", "options", "message"), BAD_OPTIONS)
def test_wrong_options_are_errors(cls, options, message):
    x = tl.ones(2, 2, requires_grad=True)
    with pytest.raises(ValueError, match=f"{cls.__name__}: .*{message.removeprefix('AdamW: ')}"):
        cls([x], **options)
    with pytest.raises(ValueError, match=cls.__name__):
        cls([{"params": [x], **options}])


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad, optim.Lion])
def test_a_parameter_of_zero_dimensions(cls, maximize):
    """Check 0-d parameters. NumPy makes scalars of 0-d arrays, and a scalar cannot be written to."""
    one, row = (nn.Parameter(tl.full(shape, 2.0, tl.float64)) for shape in ((), (1,)))
    optimizer = cls([one, row], 0.1, weight_decay=0.1, maximize=maximize)
    for _ in range(3):
        optimizer.zero_grad()
        (one * one + row * row).sum().backward()
        optimizer.step()
    assert one.shape == ()
    assert one.item() == row.item()
    assert (one.item() > 2) == maximize


# ---- Lion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximize", [False, True])
def test_lion_follows_the_equations_of_its_source(maximize):
    """PyTorch has no Lion."""
    rng = np.random.default_rng(0)
    p, m = rng.standard_normal((3, 4)), np.zeros((3, 4))
    mine = tl.tensor(p, requires_grad=True)
    optimizer = optim.Lion([mine], lr=0.01, betas=(0.8, 0.95), weight_decay=0.1, maximize=maximize)
    for _ in range(5):
        g = rng.standard_normal((3, 4))
        mine.grad = tl.tensor(g)
        optimizer.step()
        g = -g if maximize else g
        p = p * (1 - 0.01 * 0.1) - 0.01 * np.sign(0.8 * m + 0.2 * g)
        m = 0.95 * m + 0.05 * g
        np.testing.assert_allclose(mine.array, p, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(optimizer.state[mine]["exp_avg"].array, m, rtol=1e-13, atol=1e-15)


# ---- Muon -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12), (1, 5)])
def test_muon_makes_singular_values_about_one(shape):
    """Check that a step replaces the gradient's singular values by about 1, and keeps its singular vectors."""
    rng = np.random.default_rng(0)
    u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    s = np.geomspace(1.0, 0.05, min(shape))
    p = nn.Parameter(tl.zeros(*shape, dtype=tl.float64))
    p.grad = tl.tensor(u * s @ vt)
    optim.Muon([p], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False).step()
    found = u.T @ -p.detach().numpy() @ vt.T / math.sqrt(max(1.0, shape[0] / shape[1]))
    assert (np.diagonal(found) > 0.6).all()
    assert (np.diagonal(found) < 1.3).all()
    np.testing.assert_allclose(found, np.diag(np.diagonal(found)), rtol=0, atol=1e-12)


def muon_in_numpy(p, gradients, lr, decay, mu, nesterov, adjust):
    """Return the parameter after Muon's steps, computed in NumPy by the equations of the source."""
    m = np.zeros_like(p)
    for g in gradients:
        m = mu * m + (1 - mu) * g
        x = mu * m + (1 - mu) * g if nesterov else m
        x = x / np.linalg.norm(x)
        for _ in range(5):
            x = 3.4445 * x + (-4.7750 * (x @ x.T) + 2.0315 * (x @ x.T) @ (x @ x.T)) @ x
        a, b = p.shape
        factor = 0.2 * math.sqrt(max(a, b)) if adjust == "match_rms_adamw" else math.sqrt(max(1, a / b))
        p = p * (1 - lr * decay) - lr * factor * x
    return p


@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_muon_follows_the_equations_of_its_source(shape, nesterov, adjust):
    rng = np.random.default_rng(0)
    start, *gradients = rng.standard_normal((6, *shape))
    p = nn.Parameter(tl.tensor(start))
    optimizer = optim.Muon([p], 0.1, weight_decay=0.2, momentum=0.9, nesterov=nesterov, adjust_lr_fn=adjust)
    for g in gradients:
        p.grad = tl.tensor(g)
        optimizer.step()
    expected = muon_in_numpy(start, gradients, 0.1, 0.2, 0.9, nesterov, adjust)
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_muon_is_pytorchs_up_to_bfloat16():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, *gradients = rng.standard_normal((4, 8, 5)).astype(np.float32)
    mine, theirs = nn.Parameter(tl.tensor(start)), torch.nn.Parameter(torch.tensor(start))
    optimizers = optim.Muon([mine], lr=0.1), torch.optim.Muon([theirs], lr=0.1)
    for g in gradients:
        mine.grad, theirs.grad = tl.tensor(g), torch.tensor(g)
        for optimizer in optimizers:
            optimizer.step()
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=0, atol=0.02)
    assert abs(mine.detach().numpy() - start).max() > 0.1


def test_muon_of_other_than_matrices_is_an_error():
    matrix, vector = tl.ones(2, 2, requires_grad=True), tl.ones(2, requires_grad=True)
    with pytest.raises(tl.ShapeError, match=r"Muon: can only optimize matrices, got one of shape \(2,\)\. Use"):
        optim.Muon([matrix, vector])
    optimizer = optim.Muon([matrix])
    with pytest.raises(tl.ShapeError, match="can only optimize matrices"):
        optimizer.add_param_group({"params": [vector]})
    assert len(optimizer.param_groups) == 1


def test_muon_with_a_zero_gradient_changes_nothing():
    p = tl.ones(3, 2, requires_grad=True)
    p.grad = tl.zeros(3, 2)
    optim.Muon([p], weight_decay=0.0).step()
    assert (p == 1).all()


def test_a_parameter_without_a_gradient_is_not_updated():
    x, y = tl.ones(2, requires_grad=True), tl.ones(2, requires_grad=True)
    optimizer = optim.AdamW([x, y], weight_decay=0.5)
    (x * 2).sum().backward()
    optimizer.step()
    assert (x != 1).all()
    assert (y == 1).all()
    assert list(optimizer.state) == [x]
    optimizer.zero_grad(set_to_none=False)
    assert x.grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert x.grad is None


def test_a_step_is_in_place_and_backward_after_it_is_an_error():
    x = tl.ones(2, requires_grad=True)
    optimizer, array = optim.SGD([x], lr=0.5), x.array
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    assert x.array is array
    assert x.tolist() == [0, 0]
    assert x.is_leaf
    with pytest.raises(tl.VersionError, match="mul"):
        loss.backward()


def test_closure():
    x = tl.tensor([3.0], requires_grad=True)
    optimizer = optim.SGD([x], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (x * x).sum()
        loss.backward()
        return loss

    with tl.no_grad():
        assert optimizer.step(closure).item() == 9
    assert x.tolist() == [1.5]


def test_a_step_into_infinity_does_not_warn():
    x = tl.tensor([3e38, 1.0], requires_grad=True)
    x.grad = tl.tensor([-3e38, math.inf])
    for optimizer in (optim.SGD([x], lr=10.0), optim.AdamW([x])):
        optimizer.step()
    assert not np.isfinite(x.detach().numpy()).any()


def test_a_gradient_of_another_shape_is_an_error():
    x = tl.ones(2, requires_grad=True)
    optimizer = optim.SGD([x])
    x.grad = tl.ones(2)
    x.data = tl.ones(3)
    with pytest.raises(tl.ShapeError, match=r"a gradient of shape \(2,\) on cpu for a parameter of shape \(3,\)"):
        optimizer.step()


def test_add_param_group_and_options_that_change():
    x, y = tl.ones(2, requires_grad=True), tl.ones(2, requires_grad=True)
    optimizer = optim.SGD([x], lr=0.5)
    optimizer.add_param_group({"params": [y], "lr": 0.25})
    optimizer.param_groups[0]["lr"] = 1.0
    (x + y).sum().backward()
    optimizer.step()
    assert x.tolist() == [0, 0]
    assert y.tolist() == [0.75, 0.75]
    with pytest.raises(ValueError, match="given twice"):
        optimizer.add_param_group({"params": x})
    assert len(optimizer.param_groups) == 2


def test_groups_do_not_share_their_options():
    x, y = tl.ones(1, requires_grad=True), tl.ones(1, requires_grad=True)
    optimizer = optim.Adam([{"params": x}, {"params": y}], betas=[0.5, 0.6])
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
    optimizer.param_groups[0]["lr"] = 9.0
    assert optimizer.param_groups[1]["lr"] == 1e-3


def test_repr():
    text = repr(optim.SGD([{"params": [tl.ones(2, 3), tl.ones(4)]}], lr=0.5))
    assert text.startswith("SGD (\n  group 0: 2 parameters, 10 numbers\n    lr: 0.5\n    momentum: 0.0\n")


@pytest.mark.parametrize("dtype", [tl.float16, tl.float32])
@pytest.mark.parametrize("name", ["SGD decay", "SGD nesterov", "AdamW", "RMSprop centered", "Adagrad"])
def test_other_dtypes_are_kept(name, dtype):
    model = Tied(tl)
    model.parameters = [p.detach().to(dtype).requires_grad_() for p in model.parameters]
    optimizer = OPTIMIZERS[name](optim, model)
    for p in model.parameters:
        p.grad = tl.ones(p.shape, dtype=dtype)
    optimizer.step()
    assert {p.dtype for p in model.parameters} == {dtype}
    tensors = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, tl.Tensor)]
    assert {v.dtype for v in tensors} == {accumulate_dtype(dtype)}  # squares of float16 would vanish


# ---- state ------------------------------------------------------------------------------------


def run_on(model, optimizer, steps):
    for x, y in zip(*(a[steps] for a in data()), strict=True):
        optimizer.zero_grad()
        model.loss(tl, x, y).backward()
        optimizer.step()
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters])


def through_json(state):
    """Return the state after it was saved: the numbers went through JSON, the tensors are copies."""
    tensors = {(k, n): v for k, s in state["state"].items() for n, v in s.items() if isinstance(v, tl.Tensor)}
    numbers = {k: {n: v for n, v in s.items() if (k, n) not in tensors} for k, s in state["state"].items()}
    loaded = json.loads(json.dumps({"state": numbers, "param_groups": state["param_groups"]}))
    for (k, n), v in tensors.items():
        loaded["state"][str(k)][n] = v.clone()
    return loaded


@pytest.mark.parametrize(
    "name",
    ["SGD", "SGD dampening", "Adam", "groups", "RMSprop options", "RMSprop centered", "Adagrad options"],
)
def test_continuing_from_a_saved_state_is_exact(name):
    whole, halved = Tied(tl), Tied(tl)
    expected = run_on(whole, OPTIMIZERS[name](optim, whole), slice(None))
    first = OPTIMIZERS[name](optim, halved)
    run_on(halved, first, slice(25))
    saved = through_json(first.state_dict())
    second = OPTIMIZERS[name](optim, halved)
    second.load_state_dict(saved)
    np.testing.assert_array_equal(run_on(halved, second, slice(25, None)), expected)


def test_state_dict_counts_parameters_through_the_groups():
    model = Tied(tl)
    optimizer = OPTIMIZERS["groups"](optim, model)
    run_on(model, optimizer, slice(1))
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0, 1], [2], [3]]
    assert sorted(state["state"]) == [0, 1, 2, 3]
    assert sorted(state["state"][0]) == ["exp_avg", "exp_avg_sq", "step"]
    assert state["state"][0]["step"] == 1


def test_loading_takes_options_and_copies_tensors():
    x = tl.ones(2, dtype=tl.float64, requires_grad=True)
    x.grad = tl.ones(2, dtype=tl.float64)
    source = optim.Adam([x], lr=0.5, betas=(0.1, 0.2))
    source.step()
    y = tl.ones(2, requires_grad=True)
    target = optim.Adam([y])
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0]["lr"] == 0.5
    assert target.param_groups[0]["betas"] == (0.1, 0.2)
    assert target.param_groups[0]["params"][0] is y
    assert target.state[y]["exp_avg"].dtype == tl.float32
    assert target.state[y]["exp_avg"].array is not source.state[x]["exp_avg"].array


def test_a_state_that_does_not_fit_is_an_error_and_changes_nothing():
    def made(cls=optim.Adam, shapes=((2,), (3,)), **options):
        parameters = [tl.ones(*s, requires_grad=True) for s in shapes]
        optimizer = cls(parameters, **options)
        for p in parameters:
            p.grad = tl.ones(p.shape)
        optimizer.step()
        return optimizer

    optimizer = made(lr=0.5)
    before = optimizer.state_dict()
    for bad, error, message in [
        (
            made(shapes=((2,),)).state_dict(),
            ValueError,
            r"expected groups of \[2\] parameters, got a state for groups of \[1\]",
        ),
        (made(shapes=((2,), (4,))).state_dict(), tl.ShapeError, r"'exp_avg' of parameter 1 has shape \(4,\)"),
        (made(optim.SGD).state_dict(), ValueError, r"no option 'betas'\. Load a state of Adam"),
        ({}, ValueError, r"expected the result of state_dict\(\), got dict"),
        ({"state": [], "param_groups": []}, ValueError, r"expected the result of state_dict\(\), got dict"),
        ({**before, "state": {7: {}}}, ValueError, r"the saved state lists parameters \[7\]"),
        (
            {**before, "state": {0: {"step": 1}}},
            ValueError,
            "expected a state with exp_avg, exp_avg_sq, step for parameter 0, got step",
        ),
        ({**before, "param_groups": [{**before["param_groups"][0], "lr": -1}]}, ValueError, "lr"),
        ({**before, "param_groups": [{**before["param_groups"][0], "x": 1}]}, ValueError, "unknown options x"),
    ]:
        with pytest.raises(error, match=message):
            optimizer.load_state_dict(bad)
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert optimizer.state_dict()["state"][1]["exp_avg"].array is before["state"][1]["exp_avg"].array


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("Adam", {"lr": 0.1, "betas": (0.5, 0.9)}),
        ("AdamW", {"lr": 0.1}),
        ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.5}),
        ("Adagrad", {"lr": 0.1, "lr_decay": 0.1}),
    ],
)
def test_the_state_of_pytorchs_optimizer_continues_here(name, options):
    torch = pytest.importorskip("torch")

    def steps(library, optimizer, w, count):
        for _ in range(count):
            optimizer.zero_grad()
            (w**3).sum().backward()
            optimizer.step()

    theirs = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, name)([theirs], **options)
    steps(torch, optimizer, theirs, 3)
    mine = tl.tensor(theirs.detach().numpy(), requires_grad=True)
    continued = getattr(tl.optim, name)([mine])
    continued.load_state_dict(optimizer.state_dict())
    steps(torch, optimizer, theirs, 3)
    steps(tl, continued, mine, 3)
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)


def test_an_option_of_pytorchs_state_that_changes_the_result_is_an_error():
    optimizer = tl.optim.Adam([tl.ones(1, requires_grad=True)])
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="unknown options amsgrad"):
        optimizer.load_state_dict({**state, "param_groups": [{**state["param_groups"][0], "amsgrad": True}]})
