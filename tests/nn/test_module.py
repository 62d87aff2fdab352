"""Modules and containers: their parameters and modules, state, modes, conversion and repr."""

import copy
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
    """A module with two names for one weight, a buffer that is saved, and one that is not."""

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


# ---- modules, parameters and buffers -----------------------------------------------------------------------------


def test_parameters_buffers_and_modules_are_listed_in_order():
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


def test_a_module_used_twice_is_listed_once():
    layer = nn.Linear(2, 2)
    m = nn.Sequential(layer, nn.ReLU(), layer)
    assert names(m.named_parameters()) == ["0.weight", "0.bias"]
    assert names(m.named_modules(remove_duplicate=False)) == ["", "0", "1", "2"]
    assert list(m.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(list(m.children())) == 2
    assert len(m) == 3


def test_a_missing_call_of_super_init_is_an_error():
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


def test_attribute_errors_show_the_class():
    with pytest.raises(AttributeError, match="'Linear' module has no attribute 'wieght'"):
        _ = nn.Linear(1, 1).wieght
    assert not hasattr(nn.Linear(1, 1), "nothing")


def test_forward_must_be_defined():
    class Nothing(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Nothing does not define forward"):
        Nothing()(1)


def test_assigning_the_wrong_kind_is_an_error():
    m = Tied()
    with pytest.raises(TypeError, match=r"Tied.scale is a Parameter: expected a Parameter or None, got Tensor"):
        m.scale = tl.ones(3)
    with pytest.raises(TypeError, match=r"Tied.embed is a Module: expected a Module or None, got function"):
        m.embed = lambda x: x
    with pytest.raises(TypeError, match=r"Tied.steps is a buffer: expected a Tensor or None, got int"):
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


def test_a_parameter_of_another_type_is_an_error():
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


def test_load_state_dict_lists_all_errors_and_changes_nothing():
    m = Tied()
    before = {name: value.numpy().copy() for name, value in m.state_dict().items()}
    state = {"scale": tl.zeros(4), "steps": [1, 2], "extra": tl.ones(1), "more": tl.ones(1)}
    with pytest.raises(RuntimeError) as error:
        m.load_state_dict(state)
    message = str(error.value)
    assert message.startswith("Tied.load_state_dict:")
    assert re.findall(r"\n  (.*)", message) == [
        "missing: embed.weight", "missing: head.weight", "unexpected: extra", "unexpected: more",
        "wrong shape: scale is (3,) in the module, (4,) in the state_dict",
        "not a Tensor: steps is list. Make one with tl.tensor().",
    ]  # fmt: skip
    for name, value in m.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_load_state_dict_takes_arrays():
    m = Tied()
    state = {name: np.asarray(value.numpy() + 1, np.float64) for name, value in m.state_dict().items()}
    m.load_state_dict(state)
    for name, value in m.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name].astype(value.dtype))
        assert not np.shares_memory(value.numpy(), state[name])


def test_load_state_dict_takes_the_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    theirs, ours = torch.nn.Linear(2, 3), tl.nn.Linear(2, 3)
    ours.load_state_dict(dict(theirs.named_parameters()))
    np.testing.assert_array_equal(ours.weight.detach().numpy(), theirs.weight.detach().numpy())
    ours.load_state_dict({name: value.bfloat16() for name, value in theirs.state_dict().items()})
    np.testing.assert_array_equal(ours.weight.detach().numpy(), theirs.weight.detach().bfloat16().float().numpy())
    with pytest.raises(RuntimeError, match=r"weight: a torch.Tensor cannot be read: .*Float8.* with \.float\(\)"):
        ours.load_state_dict({name: value.to(torch.float8_e4m3fn) for name, value in theirs.state_dict().items()})


def test_load_state_dict_not_strict_returns_the_differences():
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


def test_backward_after_loading_weights_is_an_error():
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


def test_deepcopy_is_independent():
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
def test_other_items_in_containers_are_errors(make):
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
        with pytest.raises(IndexError, match=f"ModuleList: index {i} is out of range for 15 items"):
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
    with pytest.raises(KeyError, match="expected one of 'x', 'y', got 'z'"):
        m["z"]
    with pytest.raises(KeyError, match="cannot be called 'keys'"):
        m["keys"] = a


def test_parameter_list():
    m = nn.ParameterList([tl.ones(2), nn.Parameter(tl.zeros(3))])
    m.append(tl.ones(1))
    assert names(m.named_parameters()) == ["0", "1", "2"]
    assert all(isinstance(p, nn.Parameter) for p in m)
    assert list(nn.Sequential(m).state_dict()) == ["0.0", "0.1", "0.2"]


def test_modules_parameters_and_buffers_by_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3)))
    assert model.get_submodule("1.0") is model[1][0]
    assert model.get_submodule("") is model
    assert model.get_parameter("1.0.weight") is model[1][0].weight
    assert model.get_buffer("1.0.running_mean") is model[1][0].running_mean
    for get in (model.get_submodule, model.get_parameter, model.get_buffer):
        with pytest.raises(AttributeError, match=r"expected the name of a .* got '2'"):
            get("2")


def test_pop_clear_and_added_items_of_containers():
    a, b, c = nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)
    for kind in (nn.ModuleList([a, b, c]), nn.Sequential(a, b, c)):
        assert kind.pop(0) is a
        assert kind.pop() is c
        kind += [a]
        assert list(kind) == [b, a]
        assert list(kind.state_dict()) == ["1.weight", "1.bias"]
    named = nn.ModuleDict({"a": a, "b": b})
    named.clear()
    assert not list(named.parameters())
    assert len(named) == 0
