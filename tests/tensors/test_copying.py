"""copy, deepcopy and pickle of tensors and of what holds them."""
import copy
import pickle

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, optim
from tensorlite.testing import strict  # noqa: F401  registers the device


def pickled(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


def pickled_by_protocol_2(value):
    return pickle.loads(pickle.dumps(value, protocol=2))  # noqa: S301


deep = pytest.mark.parametrize("copied", [copy.deepcopy, pickled, pickled_by_protocol_2])


def views_of(base):
    return [
        base, base[1:], base.T, base[::2, 1], base[:, ::-1], base[:, None], base.detach(), base[2, 3], base[3:],
        base.expand(2, 3, 4),
    ]  # fmt: skip


@deep
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("device", ["cpu", "strict"])
def test_copies_share_memory_as_the_originals_do(copied, order, device):
    array = np.array(np.arange(12.0).reshape(3, 4), order=order)
    base = tl.from_numpy(array) if device == "cpu" else tl.tensor(array, device=device)
    views = views_of(base)
    twins = copied(views)
    assert [t.tolist() for t in twins] == [v.tolist() for v in views]
    assert [t.stride() for t in twins if t.numel()] == [v.stride() for v in views if v.numel()]
    twins[0].zero_()
    assert all(not t.numel() or (t == 0).all() for t in twins)
    assert base.sum().item() == 66.0


@deep
def test_a_copy_of_an_expanded_tensor_stays_read_only(copied):
    with pytest.raises(tl.ShapeError, match=r"read-only"):
        copied(tl.ones(1).expand(3)).add_(1.0)


@deep
def test_a_leaf_keeps_its_gradient(copied):
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    twin = copied(x)
    assert (twin.requires_grad, twin.is_leaf, twin.grad.tolist()) == (True, True, [2.0, 4.0])
    (twin * 3.0).sum().backward()
    assert (twin.grad.tolist(), x.grad.tolist()) == ([5.0, 7.0], [2.0, 4.0])


def test_pickle_makes_a_leaf_of_a_result():
    y = pickled(tl.tensor([1.0, 2.0], requires_grad=True) * 2.0)
    assert (y.is_leaf, y.requires_grad, y.tolist()) == (True, True, [2.0, 4.0])


def test_deepcopy_of_a_result_is_an_error():
    with pytest.raises(tl.GraphError, match=r"^deepcopy: only leaf tensors"):
        copy.deepcopy({"y": [tl.ones(2, requires_grad=True) * 2.0]})


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_node_of_the_graph_cannot_be_copied(copied):
    y = tl.ones(2, requires_grad=True) * 2.0
    with pytest.raises(TypeError, match=r"^<mul>: a node of the graph cannot be copied or pickled"):
        copied(y.grad_fn)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_has_no_hooks(copied):
    x = tl.ones(2, requires_grad=True)
    x.register_hook(lambda g: g * 10.0)
    if copied is copy.deepcopy:
        twin = copied(x)
    else:
        with pytest.warns(UserWarning, match=r"the copy has none of the 1 hooks of this tensor"):
            twin = copied(x)
    twin.register_hook(lambda g: g + 1.0)
    for t, expected in ((x, 10.0), (twin, 2.0)):
        (t * 1.0).sum().backward()
        assert t.grad.tolist() == [expected] * 2


def test_a_shallow_copy_of_a_leaf_shares_its_memory():
    for x in (nn.Parameter(tl.ones(2)), tl.ones(2), nn.Parameter(tl.ones(2), requires_grad=False)):
        twin = copy.copy(x)
        assert (type(twin), twin.requires_grad, twin.is_leaf) == (type(x), x.requires_grad, True)
        with tl.no_grad():
            twin.mul_(5.0)
        assert x.tolist() == [5.0, 5.0]


def test_a_shallow_copy_of_a_result_is_a_view_of_it():
    x = tl.ones(2, requires_grad=True)
    y = x * 2.0
    twin = copy.copy(y)
    twin.mul_(3.0)
    (y.sum() + twin.sum()).backward()
    assert x.grad.tolist() == [12.0, 12.0]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("table", tl.arange(6.0).reshape(2, 3))
        self.register_buffer("row", self.table[1])
        self.generator = tl.Generator(3)

    def forward(self, x):
        return self.second(self.first(x)) * tl.rand(3, generator=self.generator)


@deep
def test_a_module_keeps_what_it_shares(copied):
    m = Tied()
    m.handle = m.first.weight.register_hook(print)
    with pytest.warns(UserWarning, match="hooks") if copied is not copy.deepcopy else tl.no_grad():
        twin = copied(m)
    assert twin.second.weight is twin.first.weight
    assert isinstance(twin.first.weight, nn.Parameter)
    twin.table.zero_()
    assert (twin.row.tolist(), m.row.tolist()) == ([0.0] * 3, [3.0, 4.0, 5.0])
    x = tl.ones(2, 3)
    assert [twin(x).tolist() for _ in range(2)] == [m(x).tolist() for _ in range(2)]


@deep
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Muon"])
def test_a_model_its_optimizer_and_its_schedule_go_on(copied, optimizer):
    model = nn.Linear(3, 3, bias=False)
    opt = getattr(optim, optimizer)(model.parameters(), lr=0.1)
    run = (model, opt, optim.lr_scheduler.StepLR(opt, 1))

    def step(model, opt, schedule):
        opt.zero_grad()
        model(tl.ones(2, 3)).square().sum().backward()
        opt.step()
        schedule.step()
        return model.weight.tolist(), schedule.get_last_lr()

    step(*run)
    twin = copied(run)
    assert twin[1].param_groups[0]["params"][0] is twin[0].weight
    assert twin[2].optimizer is twin[1]
    assert [step(*run) for _ in range(2)] == [step(*twin) for _ in range(2)]


@deep
def test_a_generator_goes_on(copied):
    g = tl.Generator(1)
    tl.rand(5, generator=g)
    twin = copied(g)
    assert tl.randn(3, generator=twin).tolist() == tl.randn(3, generator=g).tolist()
