"""Modules: what they find in themselves, how they save, load, move and show it; layers against torch."""

import copy
import math
import re
from collections import OrderedDict

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn


@pytest.fixture(autouse=True)
def seeded():
    tl.manual_seed(0)


class Tied(nn.Module):
    """Two names for one weight, a buffer that is saved and one that is not."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(tl.ones(3))
        self.register_buffer("steps", tl.zeros(2))
        self.register_buffer("cache", tl.ones(4), persistent=False)

    def forward(self, ids):
        return self.head(self.embed(ids) * self.scale)


def names(pairs):
    return [name for name, _ in pairs]


# ---- what is inside -----------------------------------------------------------------------------


def test_parameters_buffers_and_modules_are_found_in_order():
    m = Tied()
    assert names(m.named_parameters()) == ["scale", "embed.weight"]
    assert names(m.named_parameters(remove_duplicate=False)) == ["scale", "embed.weight", "head.weight"]
    assert names(m.named_parameters("net", recurse=False)) == ["net.scale"]
    assert len(list(m.parameters())) == 2
    assert names(m.named_buffers()) == ["steps", "cache"]
    assert [tuple(b.shape) for b in m.buffers()] == [(2,), (4,)]
    assert names(m.named_children()) == ["embed", "head"]
    assert list(m.children()) == [m.embed, m.head]
    assert names(m.named_modules()) == ["", "embed", "head"]
    assert list(m.modules()) == [m, m.embed, m.head]


def test_a_module_used_twice_is_found_once():
    layer = nn.Linear(2, 2)
    m = nn.Sequential(layer, nn.ReLU(), layer)
    assert names(m.named_parameters()) == ["0.weight", "0.bias"]
    assert names(m.named_modules(remove_duplicate=False)) == ["", "0", "1", "2"]
    assert list(m.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(list(m.children())) == 2
    assert len(m) == 3


def test_forgetting_super_init_is_said():
    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)

    class Empty(nn.Module):
        def __init__(self):
            self.width = 3

    with pytest.raises(AttributeError, match=r"Forgetful: call super\(\).__init__\(\) .* before assigning 'layer'"):
        Forgetful()
    with pytest.raises(AttributeError, match=r"Empty: call super\(\).__init__\(\)"):
        _ = Empty().training
    with pytest.raises(AttributeError, match=r"Empty: call super\(\).__init__\(\)"):
        Empty().state_dict()
    with pytest.raises(AttributeError, match=r"Empty: call super\(\).__init__\(\)"):
        Empty().register_buffer("b", None)


def test_attribute_errors_name_the_class():
    with pytest.raises(AttributeError, match="'Linear' module has no attribute 'wieght'"):
        _ = nn.Linear(1, 1).wieght
    assert not hasattr(nn.Linear(1, 1), "nothing")


def test_forward_must_be_defined():
    class Nothing(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Nothing does not define forward"):
        Nothing()(1)


def test_assigning_the_wrong_kind_is_said():
    m = Tied()
    with pytest.raises(TypeError, match=r"Tied.scale is a Parameter, and Tensor is not"):
        m.scale = tl.ones(3)
    with pytest.raises(TypeError, match=r"Tied.embed is a Module, and function is not"):
        m.embed = lambda x: x
    with pytest.raises(TypeError, match=r"Tied.steps is a buffer, and int is not a Tensor"):
        m.steps = 3
    with pytest.raises(TypeError, match=r"Tied: parameter 'w' must be a Parameter or None, got Tensor"):
        m.register_parameter("w", tl.ones(2))
    with pytest.raises(TypeError, match="Tied: buffer 'w' must be a Tensor or None, got int"):
        m.register_buffer("w", 1)
    with pytest.raises(TypeError, match="Tied: module 'w' must be a Module or None, got int"):
        m.add_module("w", 1)
    for name in ("", "a.b", 3):
        with pytest.raises(KeyError, match="must be a string, not empty and without dots"):
            m.register_buffer(name, tl.ones(1))
    for name in ("forward", "training", "to"):
        with pytest.raises(KeyError, match=f"cannot be called '{name}'"):
            m.add_module(name, nn.ReLU())


def test_attributes_can_be_replaced_and_deleted():
    m = Tied()
    m.scale = None
    assert names(m.named_parameters()) == ["embed.weight"]
    m.scale = nn.Parameter(tl.zeros(3))
    m.steps = tl.ones(2)
    assert m.state_dict()["steps"].tolist() == [1, 1]
    del m.steps
    assert names(m.named_buffers()) == ["cache"]
    m.cache = nn.Parameter(tl.ones(1))
    assert "cache" in names(m.named_parameters())
    assert not list(m.buffers())
    m.register_parameter("optional", None)
    assert m.optional is None
    assert "optional" not in m.state_dict()


# ---- parameters ---------------------------------------------------------------------------------


def test_a_parameter_is_a_leaf_that_shares_memory():
    t = tl.ones(2, 3)
    p = nn.Parameter(t)
    assert isinstance(p, tl.Tensor)
    assert p.requires_grad
    assert p.is_leaf
    assert p.array is t.array
    assert not nn.Parameter(t, requires_grad=False).requires_grad
    assert type(p * 2) is tl.Tensor
    assert repr(p) == f"Parameter containing:\n{tl.ones(2, 3).requires_grad_()!r}"
    q = nn.Parameter(tl.ones(2, requires_grad=True) * 2)
    assert q.is_leaf


def test_a_parameter_needs_a_tensor_of_floats():
    with pytest.raises(TypeError, match="Parameter: expected a Tensor, got ndarray"):
        nn.Parameter(np.ones(2))
    with pytest.raises(tl.DTypeError, match="int64"):
        nn.Parameter(tl.tensor([1, 2]))


# ---- state --------------------------------------------------------------------------------------


def test_state_dict_is_detached_and_shares_memory():
    m = Tied()
    state = m.state_dict()
    assert list(state) == ["scale", "steps", "embed.weight", "head.weight"]
    assert not any(value.requires_grad for value in state.values())
    assert state["embed.weight"].array is m.embed.weight.array
    assert m.state_dict(keep_vars=True)["scale"] is m.scale
    assert list(m.state_dict(prefix="net."))[2] == "net.embed.weight"


def test_load_state_dict_copies_into_the_same_memory():
    m, source = Tied(), Tied()
    before = m.embed.weight.array
    result = m.load_state_dict(source.state_dict())
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert m.embed.weight.array is before
    assert m.embed.weight.array is not source.embed.weight.array
    for name, value in source.state_dict().items():
        np.testing.assert_array_equal(m.state_dict()[name].numpy(), value.numpy())


def test_load_state_dict_converts_dtypes():
    m = nn.Linear(2, 2).double()
    m.load_state_dict({"weight": tl.ones(2, 2), "bias": tl.tensor([1, 2])})
    assert m.weight.dtype == tl.float64
    assert m.bias.tolist() == [1, 2]


def test_load_state_dict_lists_everything_that_is_wrong_and_changes_nothing():
    m = Tied()
    before = {name: value.numpy().copy() for name, value in m.state_dict().items()}
    state = {"scale": tl.zeros(4), "steps": [1, 2], "extra": tl.ones(1), "more": tl.ones(1)}
    with pytest.raises(RuntimeError) as error:
        m.load_state_dict(state)
    message = str(error.value)
    assert message.startswith("Tied.load_state_dict:")
    assert re.findall(r"\n  (.*)", message) == [
        "missing: embed.weight", "missing: head.weight", "unexpected: extra", "unexpected: more",
        "wrong shape: scale is (3,) here, (4,) in the state_dict", "not a Tensor but list: steps",
    ]  # fmt: skip
    for name, value in m.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_load_state_dict_not_strict_returns_what_differs():
    m = Tied()
    result = m.load_state_dict({"scale": tl.zeros(3), "extra": tl.ones(1)}, strict=False)
    assert result.missing_keys == ["steps", "embed.weight", "head.weight"]
    assert result.unexpected_keys == ["extra"]
    assert m.scale.tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="wrong shape: scale"):
        m.load_state_dict({"scale": tl.zeros(2)}, strict=False)


def test_one_name_of_a_tied_parameter_is_enough():
    m, state = Tied(), Tied().state_dict()
    del state["head.weight"]
    m.load_state_dict(state)
    np.testing.assert_array_equal(m.head.weight.detach().numpy(), state["embed.weight"].numpy())


def test_a_graph_notices_that_its_weights_were_loaded():
    m = nn.Linear(2, 2)
    loss = m(m(tl.ones(1, 2))).sum()
    m.load_state_dict(nn.Linear(2, 2).state_dict())
    with pytest.raises(tl.VersionError, match="linear"):
        loss.backward()


# ---- modes, dtypes, gradients -------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    m = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    assert m.eval() is m
    assert not any(x.training for x in m.modules())
    x = tl.ones(10)
    assert m(x) is x
    assert m.train() is m
    assert all(x.training for x in m.modules())
    with pytest.raises(TypeError, match="mode must be a bool"):
        m.train("yes")


def test_apply_goes_from_the_inside_out():
    m, seen = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU())), []
    assert m.apply(lambda x: seen.append(type(x).__name__)) is m
    assert seen == ["Linear", "ReLU", "Sequential", "Sequential"]


def test_to_converts_floats_and_keeps_ties_and_objects():
    m = Tied()
    m.register_buffer("ids", tl.tensor([1, 2]))
    m.register_buffer("again", m.steps)
    weight, steps = m.embed.weight, m.steps
    m(tl.tensor([1, 2])).sum().backward()
    assert m.to(tl.float64) is m
    assert m.embed.weight is m.head.weight is weight
    assert weight.dtype == weight.grad.dtype == tl.float64
    assert weight.requires_grad
    assert m.steps.dtype == m.cache.dtype == tl.float64
    assert m.again is m.steps
    assert steps.dtype == tl.float32
    assert m.ids.dtype == tl.int64
    assert m.half().scale.dtype == tl.float16
    assert m.double().scale.dtype == tl.float64
    assert m.float().scale.dtype == tl.float32
    assert m.to("cpu", tl.float64).scale.dtype == tl.float64
    assert m.to(tl.ones(1)).scale.dtype == tl.float32
    assert m.to(np.float64).scale.dtype == tl.float64
    assert m.to(device="cpu", dtype=tl.float32).cpu().scale.dtype == tl.float32
    with pytest.raises(tl.DTypeError, match=r"Tied.to: .* int64"):
        m.to(tl.int64)
    with pytest.raises(tl.DeviceError, match="nowhere"):
        m.to("nowhere")


def test_zero_grad_and_requires_grad():
    m = nn.Linear(2, 2)
    m(tl.ones(1, 2)).sum().backward()
    grad = m.weight.grad
    m.zero_grad(set_to_none=False)
    assert m.weight.grad is grad
    assert (grad == 0).all()
    m.zero_grad()
    assert m.weight.grad is None
    m.requires_grad_(False)
    assert not m(tl.ones(1, 2)).requires_grad
    m.requires_grad_()
    assert m.bias.requires_grad


def test_zero_grad_leaves_the_graph_of_a_gradient_alone():
    x = nn.Parameter(tl.tensor([2.0]))
    (x * x * x).sum().backward(create_graph=True)
    grad = x.grad
    m = nn.ParameterList([x])
    m.zero_grad(set_to_none=False)
    assert x.grad.tolist() == [0]
    assert grad.tolist() == [12]
    assert tl.autograd.grad(grad, x)[0].tolist() == [12]


def test_deepcopy_gives_a_module_of_its_own():
    m = Tied()
    twin = copy.deepcopy(m)
    assert twin.embed.weight is twin.head.weight
    assert twin.embed.weight is not m.embed.weight
    twin.load_state_dict({name: value + 1 for name, value in m.state_dict().items()})
    assert (twin.scale == 2).all()
    assert (m.scale == 1).all()


# ---- repr ---------------------------------------------------------------------------------------


def test_repr_is_nested():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.act = nn.GELU("tanh")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block(), nn.ReLU()])
            self.head = nn.Linear(4, 2, bias=False)

        def extra_repr(self):
            return "kind=test"

    assert repr(Net()) == (
        "Net(\n"
        "  kind=test\n"
        "  (blocks): ModuleList(\n"
        "    (0-1): 2 x Block(\n"
        "      (norm): LayerNorm((4,), eps=1e-05, elementwise_affine=True)\n"
        "      (act): GELU(approximate='tanh')\n"
        "    )\n"
        "    (2): ReLU()\n"
        "  )\n"
        "  (head): Linear(in_features=4, out_features=2, bias=False)\n"
        ")"
    )


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Embedding(5, 3), "Embedding(5, 3)"),
        (nn.Embedding(5, 3, padding_idx=-1), "Embedding(5, 3, padding_idx=4)"),
        (nn.RMSNorm(4), "RMSNorm((4,), eps=None, elementwise_affine=True)"),
        (nn.Dropout(0.1), "Dropout(p=0.1)"),
        (nn.Identity(3, x=4), "Identity()"),
        (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
        (nn.Softmax(1), "Softmax(dim=1)"),
        (nn.ReLU(), "ReLU()"),
        (nn.ReLU(inplace=True), "ReLU(inplace=True)"),
        (nn.LeakyReLU(), "LeakyReLU(negative_slope=0.01)"),
        (nn.Sequential(), "Sequential()"),
        (nn.ParameterList([tl.ones(2)]), "ParameterList(\n  (0): Parameter of float32(2,)\n)"),
    ],
)
def test_repr_of_layers(module, text):
    assert repr(module) == text


# ---- containers ---------------------------------------------------------------------------------


def test_sequential():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    m = nn.Sequential(a, b, c)
    x = tl.randn(4, 2)
    np.testing.assert_array_equal(m(x).detach().numpy(), c(b(a(x))).detach().numpy())
    assert m[0] is a
    assert m[-1] is c
    assert list(m[1:]) == [b, c]
    assert isinstance(m[1:], nn.Sequential)
    assert names(m[1:].named_children()) == ["1", "2"]
    m.append(nn.Tanh())
    assert names(m.named_children()) == ["0", "1", "2", "3"]
    m[1] = nn.Tanh()
    assert isinstance(m[1], nn.Tanh)
    del m[0]
    assert names(m.named_children()) == ["0", "1", "2"]
    m.insert(0, a)
    assert next(iter(m)) is a
    assert nn.Sequential()(x) is x


def test_sequential_of_names():
    m = nn.Sequential(OrderedDict(up=nn.Linear(2, 3), act=nn.ReLU(), down=nn.Linear(3, 1)))
    assert names(m.named_children()) == ["up", "act", "down"]
    assert m.up is m[0]
    assert names(m[:2].named_parameters()) == ["up.weight", "up.bias"]
    assert m(tl.ones(1, 2)).shape == (1, 1)


@pytest.mark.parametrize(
    "make", [nn.Sequential, lambda x: nn.ModuleList([x]), lambda x: nn.ModuleDict({"a": x})], ids=["s", "l", "d"]
)
def test_containers_hold_modules_only(make):
    with pytest.raises(TypeError, match="expected a Module, got function"):
        make(lambda x: x)


def test_module_list():
    m = nn.ModuleList([nn.Linear(1, 1) for _ in range(12)])
    assert len(m) == 12
    assert names(m.named_children()) == [str(i) for i in range(12)]
    assert m[11] is list(m)[11] is m[-1]
    assert isinstance(m[2:4], nn.ModuleList)
    assert list(m[2:4]) == [m[2], m[3]]
    m.extend([nn.ReLU(), nn.Tanh()]).append(nn.ReLU())
    assert len(m + nn.ModuleList([nn.ReLU()])) == 16
    assert m[5] in m
    for i in (15, -16):
        with pytest.raises(IndexError, match=f"ModuleList: index {i} is out of range, it has 15 items"):
            m[i]
    with pytest.raises(TypeError, match="is a Module"):
        m[0] = 3
    with pytest.raises(NotImplementedError, match="ModuleList does not define forward"):
        m(1)


def test_module_dict():
    a, b = nn.ReLU(), nn.Linear(1, 1)
    m = nn.ModuleDict({"a": a})
    m["b"] = b
    assert (list(m), list(m.keys()), list(m.values())) == (["a", "b"], ["a", "b"], [a, b])
    assert dict(m.items()) == {"a": a, "b": b}
    assert "a" in m
    assert "training" not in m
    assert len(m) == 2
    assert names(m.named_parameters()) == ["b.weight", "b.bias"]
    assert m.pop("a") is a
    del m["b"]
    assert len(m) == 0
    m.update([("x", a), ("y", b)])
    with pytest.raises(KeyError, match="no module 'z'; it has 'x', 'y'"):
        m["z"]
    with pytest.raises(KeyError, match="cannot be called 'keys'"):
        m["keys"] = a


def test_parameter_list():
    m = nn.ParameterList([tl.ones(2), nn.Parameter(tl.zeros(3))])
    m.append(tl.ones(1))
    assert names(m.named_parameters()) == ["0", "1", "2"]
    assert all(isinstance(p, nn.Parameter) for p in m)
    assert list(nn.Sequential(m).state_dict()) == ["0.0", "0.1", "0.2"]


# ---- layers against torch -----------------------------------------------------------------------

LAYERS = {
    "Linear": (lambda nn: nn.Linear(3, 4), (2, 5, 3)),
    "Linear without bias": (lambda nn: nn.Linear(3, 4, bias=False), (2, 3)),
    "LayerNorm": (lambda nn: nn.LayerNorm(3), (2, 5, 3)),
    "LayerNorm of two": (lambda nn: nn.LayerNorm((5, 3), eps=1e-3), (2, 5, 3)),
    "LayerNorm without bias": (lambda nn: nn.LayerNorm(3, bias=False), (2, 3)),
    "LayerNorm without affine": (lambda nn: nn.LayerNorm(3, elementwise_affine=False), (2, 3)),
    "RMSNorm": (lambda nn: nn.RMSNorm(3), (2, 3)),
    "RMSNorm with eps": (lambda nn: nn.RMSNorm((5, 3), eps=1e-3), (2, 5, 3)),
    "Identity": (lambda nn: nn.Identity(), (2, 3)),
    "Flatten": (lambda nn: nn.Flatten(), (2, 3, 4)),
    "Flatten some": (lambda nn: nn.Flatten(0, 1), (2, 3, 4)),
    "ReLU": (lambda nn: nn.ReLU(), (2, 3)),
    "GELU": (lambda nn: nn.GELU(), (2, 3)),
    "GELU tanh": (lambda nn: nn.GELU("tanh"), (2, 3)),
    "SiLU": (lambda nn: nn.SiLU(), (2, 3)),
    "Sigmoid": (lambda nn: nn.Sigmoid(), (2, 3)),
    "Tanh": (lambda nn: nn.Tanh(), (2, 3)),
    "Softplus": (lambda nn: nn.Softplus(2.0, 1.0), (2, 3)),
    "LeakyReLU": (lambda nn: nn.LeakyReLU(0.3), (2, 3)),
    "ELU": (lambda nn: nn.ELU(0.3), (2, 3)),
    "Softmax": (lambda nn: nn.Softmax(1), (2, 3)),
    "LogSoftmax": (lambda nn: nn.LogSoftmax(-1), (2, 3)),
    "Dropout in evaluation": (lambda nn: nn.Dropout(0.5).eval(), (2, 3)),
    "Sequential": (lambda nn: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), (2, 3)),
}


def copied(module, theirs):
    """The torch module's weights in ours, which must have the same names."""
    assert list(module.state_dict()) == list(theirs.state_dict())
    module.load_state_dict({name: tl.tensor(value.numpy()) for name, value in theirs.state_dict().items()})


@pytest.mark.parametrize("name", LAYERS)
def test_layer_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    module, theirs = make(nn).double(), make(torch.nn).double()
    copied(module, theirs)
    array = np.random.default_rng(1).standard_normal(shape)
    x, y = tl.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    out, expected = module(x), theirs(y)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    cotangent = np.random.default_rng(2).standard_normal(out.shape)
    out.backward(tl.tensor(cotangent))
    expected.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-11, atol=1e-12)
    for (_, p), (_, q) in zip(module.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_embedding_layer():
    torch = pytest.importorskip("torch")
    module, theirs = nn.Embedding(5, 3, padding_idx=1).double(), torch.nn.Embedding(5, 3, padding_idx=1).double()
    assert (module.weight[1] == 0).all()
    copied(module, theirs)
    ids = np.array([[0, 1, 1], [4, 0, 4]])
    out, expected = module(tl.tensor(ids)), theirs(torch.tensor(ids))
    np.testing.assert_array_equal(out.detach().numpy(), expected.detach().numpy())
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(module.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="padding_idx 5 is out of range for 5 rows"):
        nn.Embedding(5, 3, padding_idx=5)


LOSSES = {
    "MSELoss": (lambda nn, t: nn.MSELoss(), "same"),
    "L1Loss": (lambda nn, t: nn.L1Loss(reduction="sum"), "same"),
    "BCEWithLogitsLoss": (lambda nn, t: nn.BCEWithLogitsLoss(pos_weight=t([0.5, 2.0, 3.0])), "same"),
    "NLLLoss": (lambda nn, t: nn.NLLLoss(weight=t([0.5, 2.0, 3.0]), ignore_index=1), "classes"),
    "CrossEntropyLoss": (lambda nn, t: nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1), "classes"),
    "CrossEntropyLoss of probabilities": (lambda nn, t: nn.CrossEntropyLoss(reduction="sum"), "same"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_module_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    make, kind = LOSSES[name]
    module = make(nn, lambda v: tl.tensor(v, dtype=tl.float64))
    theirs = make(torch.nn, lambda v: torch.tensor(v, dtype=torch.float64))
    assert list(module.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(1)
    array, target = rng.standard_normal((4, 3)), rng.random((4, 3)) if kind == "same" else np.array([0, 1, 2, 2])
    out, expected = module(tl.tensor(array), tl.tensor(target)), theirs(torch.tensor(array), torch.tensor(target))
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-12)


def test_options_are_checked_when_the_layer_is_made():
    for make in (nn.MSELoss, nn.CrossEntropyLoss):
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            make(reduction="avg")
    with pytest.raises(ValueError, match=r"Dropout: p must be from 0 to 1, got 1\.5"):
        nn.Dropout(1.5)
    with pytest.raises(ValueError, match="GELU: approximate"):
        nn.GELU("sine")
    with pytest.raises(ValueError, match="label_smoothing"):
        nn.CrossEntropyLoss(label_smoothing=-1)


# ---- multi-head attention against torch -----------------------------------------------------------

T, S, N, E, H = 4, 5, 3, 6, 2


def attention_pair(**options):
    torch = pytest.importorskip("torch")
    module, theirs = nn.MultiheadAttention(E, H, **options), torch.nn.MultiheadAttention(E, H, **options)
    module.double(), theirs.double()
    rng = np.random.default_rng(0)
    with torch.no_grad():  # the first biases are zeros, which would hide a mistake
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.standard_normal(tuple(p.shape))))
    copied(module, theirs)
    return torch, module, theirs


def run_both(torch, module, theirs, inputs, options, tol=1e-11):
    mine = [tl.tensor(a, requires_grad=True) for a in inputs]
    other = [torch.tensor(a, requires_grad=True) for a in inputs]
    if len(inputs) == 1:  # self-attention, which takes another path
        mine, other = mine * 3, other * 3
    out, weights = module(*mine, **{k: tl.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()})
    options = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    expected, their_weights = theirs(*other, **options)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=tol, atol=tol)
    assert (weights is None) == (their_weights is None)
    if weights is not None:
        np.testing.assert_allclose(weights.detach().numpy(), their_weights.detach().numpy(), rtol=tol, atol=tol)
    cotangent = np.random.default_rng(2).standard_normal(out.shape)
    out.backward(tl.tensor(cotangent))
    expected.backward(torch.tensor(cotangent))
    for x, y in zip(mine, other, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=tol, atol=tol)
    for p, q in zip(module.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=tol, atol=tol)


def inputs(*shapes):
    rng = np.random.default_rng(1)
    return [rng.standard_normal(s) for s in shapes]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_self_attention(need_weights, bias):
    run_both(*attention_pair(bias=bias), inputs((T, N, E)), {"need_weights": need_weights})


@pytest.mark.parametrize("need_weights", [True, False])
def test_cross_attention_batch_first(need_weights):
    pair = attention_pair(batch_first=True)
    run_both(*pair, inputs((N, T, E), (N, S, E), (N, S, E)), {"need_weights": need_weights})


@pytest.mark.parametrize("average", [True, False])
def test_cross_attention_of_other_widths(average):
    pair = attention_pair(kdim=7, vdim=8)
    run_both(*pair, inputs((T, N, E), (S, N, 7), (S, N, 8)), {"average_attn_weights": average})


def test_attention_without_a_batch():
    run_both(*attention_pair(), inputs((T, E), (S, E), (S, E)), {})
    padding = np.array([False, True, False, False, True])
    run_both(*attention_pair(), inputs((T, E), (S, E), (S, E)), {"key_padding_mask": padding})


PADDING = np.arange(S) >= np.array([[5], [3], [1]])
BOOLEAN = np.triu(np.ones((T, S), bool), 2)
NUMBERS = np.random.default_rng(4).standard_normal((T, S))
PER_HEAD = np.random.default_rng(5).random((N * H, T, S)) > 0.7
PER_HEAD[..., 0] = False


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {"key_padding_mask": PADDING},
        {"attn_mask": BOOLEAN},
        {"attn_mask": NUMBERS},
        {"attn_mask": PER_HEAD},
        {"key_padding_mask": PADDING, "attn_mask": BOOLEAN},
        {"key_padding_mask": np.where(PADDING, -3.0, 0.0), "attn_mask": NUMBERS},
    ],
    ids=lambda m: "+".join(f"{k}:{v.dtype}{v.ndim}" for k, v in m.items()),
)
def test_masked_attention(masks, need_weights):
    pair = attention_pair(batch_first=True)
    run_both(*pair, inputs((N, T, E), (N, S, E), (N, S, E)), {**masks, "need_weights": need_weights})


@pytest.mark.parametrize("need_weights", [True, False])
def test_causal_attention(need_weights):
    torch, module, theirs = attention_pair(batch_first=True)
    x = tl.tensor(inputs((N, T, E))[0])
    hidden = ~np.tri(T, dtype=bool)
    out, _ = module(x, x, x, is_causal=True, need_weights=need_weights)
    y = torch.tensor(x.numpy())
    expected, _ = theirs(y, y, y, attn_mask=torch.tensor(hidden), is_causal=True, need_weights=need_weights)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_sequence_of_padding_gives_the_bias_and_no_nan(need_weights):
    module = nn.MultiheadAttention(E, H, batch_first=True)
    nn.init.normal_(module.out_proj.bias)
    x = tl.randn(1, T, E, requires_grad=True)
    out, weights = module(x, x, x, key_padding_mask=tl.ones(1, T).bool(), need_weights=need_weights)
    np.testing.assert_allclose(out[0, 0].detach().numpy(), module.out_proj.bias.detach().numpy())
    out.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    if weights is not None:
        assert (weights == 0).all()


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_drops_weights_in_training_only(need_weights):
    module = nn.MultiheadAttention(E, H, dropout=0.5)
    x = tl.randn(T, N, E)
    outs = [module(x, x, x, need_weights=need_weights)[0].detach().numpy() for _ in range(2)]
    assert not np.array_equal(*outs)
    module.eval()
    outs = [module(x, x, x, need_weights=need_weights)[0].detach().numpy() for _ in range(2)]
    np.testing.assert_array_equal(*outs)


def test_attention_says_what_is_wrong():
    with pytest.raises(ValueError, match="num_heads 4 must divide embed_dim 6"):
        nn.MultiheadAttention(6, 4)
    m = nn.MultiheadAttention(E, H, batch_first=True)
    x, y = tl.zeros(N, T, E), tl.zeros(N, S, E)
    with pytest.raises(tl.ShapeError, match=r"got query \(3, 4, 6\), key \(3, 5, 6\), value \(3, 4, 6\)"):
        m(x, y, x)
    with pytest.raises(tl.ShapeError, match="query"):
        m(x[:2], y, y)
    with pytest.raises(tl.ShapeError, match="query"):
        m(x[0], y, y)
    with pytest.raises(tl.ShapeError, match=r"key_padding_mask must be \(N, S\) = \(3, 5\)"):
        m(x, y, y, key_padding_mask=tl.zeros(5, 3).bool())
    with pytest.raises(tl.ShapeError, match=r"attn_mask must be \(T, S\) = \(4, 5\) or"):
        m(x, y, y, attn_mask=tl.zeros(5, 4).bool())
    with pytest.raises(tl.DTypeError, match=r"attn_mask must be bool .* or float32, got int64"):
        m(x, y, y, attn_mask=tl.zeros(4, 5, dtype=tl.int64))


# ---- first values -------------------------------------------------------------------------------


def test_first_values_of_layers():
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
    with pytest.raises(ValueError, match="unknown nonlinearity 'cube'; known are linear"):
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
def test_init_has_its_mean_deviation_and_bounds(name):
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


def test_inits_say_what_is_wrong():
    with pytest.raises(tl.ShapeError, match=r"xavier_uniform_: the fan needs at least 2 dimensions"):
        nn.init.xavier_uniform_(tl.zeros(3))
    with pytest.raises(tl.ShapeError, match="orthogonal_"):
        nn.init.orthogonal_(tl.zeros(3))
    with pytest.raises(tl.ShapeError, match="eye_"):
        nn.init.eye_(tl.zeros(3))
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out'"):
        nn.init.kaiming_normal_(tl.zeros(3, 3), mode="both")
    with pytest.raises(ValueError, match="trunc_normal_: expected a <= b"):
        nn.init.trunc_normal_(tl.zeros(3), a=1, b=0)


def test_relu_in_place():
    x = tl.tensor([-1.0, 2.0], requires_grad=True)
    y = x * 3
    assert nn.ReLU(inplace=True)(y) is y
    assert y.tolist() == [0.0, 6.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 3.0]
    assert nn.ReLU()(x).tolist() == [0.0, 2.0]
    assert x.tolist() == [-1.0, 2.0]
