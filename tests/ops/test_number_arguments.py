"""Check that sizes, dimensions and numbers may be NumPy's scalars, 0-d arrays and 0-d tensors, and no booleans."""

from typing import Any

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.scalars import as_integer, as_number, ints_in

INTEGERS = [np.int64, np.int32, np.int8, np.uint8, np.uint64, np.array, tl.tensor]
FLOATS = [np.float32, np.float64, np.float16, np.array, tl.tensor]
SHAPE = (2, 3, 4)

# Calls f(x, i) with an integer 1, for x of shape (2, 3, 4).
OF_INTEGERS = {
    "sum": lambda x, i: x.sum(i), "sum-list": lambda x, i: x.sum([0, i]), "mean": lambda x, i: x.mean(i, keepdim=True),
    "axis": lambda x, i: x.sum(axis=i), "var": lambda x, i: x.var(i), "std": lambda x, i: x.std((i, 2)),
    "correction": lambda x, i: x.var(correction=i), "amax": lambda x, i: x.amax(i), "amin": lambda x, i: x.amin((i,)),
    "max": lambda x, i: tuple(x.max(i)), "min": lambda x, i: tuple(x.min(dim=i)), "prod": lambda x, i: x.prod(i),
    "argmax": lambda x, i: x.argmax(i), "all": lambda x, i: x.all(i), "cumsum": lambda x, i: x.cumsum(i),
    "logsumexp": lambda x, i: x.logsumexp(i), "norm": lambda x, i: x.norm(2, i), "norm-p": lambda x, i: x.norm(i),
    "vector_norm": lambda x, i: tl.linalg.vector_norm(x, i, i), "softmax": lambda x, i: x.softmax(i),
    "log_softmax": lambda x, i: F.log_softmax(x, i), "sort": lambda x, i: tuple(x.sort(i)),
    "argsort": lambda x, i: x.argsort(i), "topk": lambda x, i: tuple(x.topk(i, i)),
    "reshape": lambda x, i: x.reshape(i, 24), "reshape-tuple": lambda x, i: tl.reshape(x, (4, i, 6)),
    "view": lambda x, i: x.view(6, i, 4), "expand": lambda x, i: x.expand(i, 2, 3, 4),
    "broadcast_to": lambda x, i: tl.broadcast_to(x, (i, 2, 3, 4)), "permute": lambda x, i: x.permute(i, 0, 2),
    "transpose": lambda x, i: x.transpose(0, i), "movedim": lambda x, i: x.movedim(i, 0),
    "movedim-lists": lambda x, i: x.movedim((i, 0), (2, i)), "flip": lambda x, i: x.flip(i),
    "roll": lambda x, i: x.roll(i, i), "squeeze": lambda x, i: x[:, :1].squeeze(i),
    "unsqueeze": lambda x, i: x.unsqueeze(i), "flatten": lambda x, i: x.flatten(i),
    "unflatten": lambda x, i: x.unflatten(2, (2, i, 2)), "narrow": lambda x, i: x.narrow(i, i, i),
    "split": lambda x, i: x.split(i, i), "split-list": lambda x, i: x.split([i, 2], i),
    "chunk": lambda x, i: x.chunk(2, i), "chunks": lambda x, i: x.chunk(i, 0), "unbind": lambda x, i: x.unbind(i),
    "cat": lambda x, i: tl.cat([x, x], i), "stack": lambda x, i: tl.stack([x, x], i),
    "repeat": lambda x, i: x.repeat(2, i, i), "tile": lambda x, i: x.tile(i, 2),
    "repeat_interleave": lambda x, i: x.repeat_interleave(i, i), "select": lambda x, i: x.select(i, i),
    "getitem": lambda x, i: x[i], "getitem-tuple": lambda x, i: x[0, i, i:], "size": lambda x, i: x.size(i),
    "gather": lambda x, i: x.gather(i, tl.zeros(2, 2, 4).long()), "diagonal": lambda x, i: x.diagonal(i, 0, i),
    "index_select": lambda x, i: x.index_select(i, tl.tensor([0, 2])), "triu": lambda x, i: x.triu(i),
    "index_add": lambda x, i: x.index_add(i, tl.tensor([0]), x[:, :1], alpha=i),
    "scatter_add": lambda x, i: x.scatter_add(i, tl.zeros(2, 2, 4).long(), x),
    "take_along_dim": lambda x, i: x.take_along_dim(tl.zeros(2, 2, 4).long(), i), "diag": lambda x, i: x[0, 0].diag(i),
    "masked": lambda x, i: x.masked_fill(x > 0, i), "round": lambda x, i: x.round(decimals=i),
    "pad": lambda x, i: F.pad(x, (i, i)), "normalize": lambda x, i: F.normalize(x, dim=i),
    "one_hot": lambda x, i: F.one_hot(tl.tensor([0]), i), "cosine": lambda x, i: F.cosine_similarity(x, x + 1.0, i),
    "cross_entropy": lambda x, i: F.cross_entropy(x, tl.tensor([[0, 1, 2, 1]] * 2), ignore_index=i),
    "embedding": lambda x, i: F.embedding(tl.tensor([0, 1]), x[0], padding_idx=i),
    "layer_norm": lambda x, i: F.layer_norm(x[..., :1], i), "rms_norm": lambda x, i: F.rms_norm(x[..., :1], (i,)),
    "zeros": lambda x, i: tl.zeros(i, 2), "ones": lambda x, i: tl.ones((i, 2)), "full": lambda x, i: tl.full((i,), 2.0),
    "eye": lambda x, i: tl.eye(i), "arange": lambda x, i: tl.arange(i, 3),
    "linspace": lambda x, i: tl.linspace(0, 2, i),
    "new_zeros": lambda x, i: x.new_zeros(2, i), "randperm": lambda x, i: tl.randperm(i).shape,
    "randint": lambda x, i: tl.randint(i, (i, 2)), "Linear": lambda x, i: tl.nn.Linear(i, i).weight.shape,
    "Embedding": lambda x, i: tl.nn.Embedding(3, i, padding_idx=i).weight.shape,
    "LayerNorm": lambda x, i: tl.nn.LayerNorm(i).weight.shape,
    "RMSNorm": lambda x, i: tl.nn.RMSNorm((2, i)).weight.shape,
    "MultiheadAttention": lambda x, i: tl.nn.MultiheadAttention(4, i).head_dim,
    "Sequential": lambda x, i: tl.nn.Sequential(tl.nn.ReLU(), tl.nn.Tanh())[i](x),
    "Flatten": lambda x, i: tl.nn.Flatten(i)(x),
    "grad": lambda x, i: tl.func.grad(lambda a, b: (a * b).sum(), i)(x, x),
    "jacobian": lambda x, i: tl.func.jacobian(lambda a, b: a * b, i)(x[0, 0], x[0, 0]),
    "seed": lambda x, i: (tl.manual_seed(i), tl.rand(2))[1],
}  # fmt: skip
# Calls f(x, p) with a number 0.5.
OF_NUMBERS = {
    "add": lambda x, p: x.add(x, alpha=p), "sub": lambda x, p: tl.sub(x, x * 3.0, alpha=p),
    "addmm": lambda x, p: tl.addmm(x[0], x[0, :, :3], x[0], beta=p, alpha=p), "norm": lambda x, p: x.norm(p, 1),
    "leaky_relu": lambda x, p: F.leaky_relu(x, p), "elu": lambda x, p: F.elu(x, p),
    "var": lambda x, p: x.var(correction=p),
    "softplus": lambda x, p: F.softplus(x, p, p), "layer_norm": lambda x, p: F.layer_norm(x, 4, eps=p),
    "rms_norm": lambda x, p: F.rms_norm(x, 4, eps=p), "dropout": lambda x, p: F.dropout(x, p, training=False),
    "smoothing": lambda x, p: F.cross_entropy(x, tl.tensor([[0, 1, 2, 1]] * 2), label_smoothing=p),
    "scale": lambda x, p: F.scaled_dot_product_attention(x, x, x, scale=p),
    "pad": lambda x, p: F.pad(x, (1, 1), value=p),
    "normalize": lambda x, p: F.normalize(x, p),
    "index_add": lambda x, p: x.index_add(0, tl.tensor([0]), x[:1], alpha=p),
    "full": lambda x, p: tl.full((2,), p, dtype=tl.float32), "arange": lambda x, p: tl.arange(0, 2, p),
    "linspace": lambda x, p: tl.linspace(0, p, 3), "constant_": lambda x, p: tl.nn.init.constant_(tl.zeros(2), p),
    "Dropout": lambda x, p: tl.nn.Dropout(p).p, "LayerNorm": lambda x, p: tl.nn.LayerNorm(4, eps=p)(x.float()),
    "gain": lambda x, p: tl.nn.init.calculate_gain("leaky_relu", p), "clamp": lambda x, p: x.clamp(-p, p),
    "uniform_": lambda x, p: (tl.manual_seed(0), tl.nn.init.uniform_(tl.zeros(3), -p, p))[1],
}  # fmt: skip
# Booleans are refused, except as entries of a tensor, as a mask, as "unbiased" and as a factor of 1.
NO_REFUSAL = {"masked", "getitem", "getitem-tuple", "full", "clamp", "var", "correction", "add", "sub", "addmm",
              "index_add"}  # fmt: skip


def outcome(f: Any, number: Any) -> list[Any]:
    """Return the values and the gradient of a call."""
    x = tl.tensor(np.random.default_rng(0).permutation(24).reshape(SHAPE) / 8.0 - 1.0, requires_grad=True)
    found = f(x, number)
    ys = found if isinstance(found, (tuple, list)) else [found]
    values = [y.tolist() if isinstance(y, tl.Tensor) else y for y in ys]
    tracked = [y for y in ys if isinstance(y, tl.Tensor) and y.requires_grad]
    if tracked:
        tl.autograd.backward(tracked, [tl.ones(y.shape, dtype=y.dtype) for y in tracked])
    return [*values, x.grad.tolist() if tracked and x.grad is not None else None]


@pytest.mark.parametrize("name", OF_INTEGERS)
def test_integers(name):
    expected = outcome(OF_INTEGERS[name], 1)
    for kind in INTEGERS[:-2] if name in ("max", "min") else INTEGERS:  # an array is another operand of these
        assert outcome(OF_INTEGERS[name], kind(1)) == expected, kind
    if name not in NO_REFUSAL:
        wrong_ones = (True, np.True_, "1", tl.tensor(True), np.ones((1, 1), np.int64))
        for wrong in wrong_ones[:3] if name in ("max", "min") else wrong_ones:
            with pytest.raises((TypeError, ValueError, tl.DTypeError)):
                OF_INTEGERS[name](tl.ones(SHAPE), wrong)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers(name):
    expected = outcome(OF_NUMBERS[name], 0.5)
    for kind in FLOATS:
        assert outcome(OF_NUMBERS[name], kind(0.5)) == expected, kind
    if name not in NO_REFUSAL | {"arange"}:
        for wrong in (np.True_, tl.tensor(True), "1", np.ones((1, 1))):
            with pytest.raises((TypeError, ValueError, tl.DTypeError)):
                OF_NUMBERS[name](tl.ones(SHAPE), wrong)


def test_a_number_never_widens_the_dtype():
    x = tl.ones(2, 3, requires_grad=True)
    add, slope = lambda p: x.add(x, alpha=p), lambda p: F.leaky_relu(-x, p)
    for f in (add, slope, lambda p: F.elu(-x, p), lambda p: F.softplus(x, p), lambda p: x.var(0, p)):
        for p in (np.float64(0.5), np.array(0.5), tl.tensor(0.5, dtype=tl.float64)):
            y = f(p)
            (g,) = tl.autograd.grad(y.sum(), x)
            assert y.dtype == g.dtype == tl.float32


def test_a_tensor_is_the_other_operand_of_max():
    x = tl.tensor([[1.0, 5.0], [7.0, 2.0]])
    assert x.max(tl.tensor(3)).tolist() == [[3.0, 5.0], [7.0, 3.0]]
    assert x.max(np.int64(1)).values.tolist() == [5.0, 7.0]
    assert x.min(dim=np.uint8(0)).indices.tolist() == [0, 1]
    for wrong in (True, 1.0, np.float64(1)):
        with pytest.raises(TypeError, match="max: dim must be an int"):
            x.max(wrong)


def test_a_positional_unbiased_of_var():
    x = tl.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, 5.0]], requires_grad=True)
    for f in (tl.var, tl.std):
        calls = [((False,), None, 0), ((True,), None, 1), ((1, False), 1, 0), (((0, 1), True), (0, 1), 1)]
        for args, dim, correction in calls:
            same = f(x, *args), f(x, dim=dim, correction=correction)
            assert same[0].tolist() == same[1].tolist()
            first, second = (tl.autograd.grad(y.sum(), x)[0].tolist() for y in same)
            assert first == second


def test_options_of_optimizers_become_python_numbers():
    w = tl.ones(2, requires_grad=True)
    for make in (
        lambda p: tl.optim.SGD([w], lr=p(0.5), momentum=p(0.5), weight_decay=p(0.25)),
        lambda p: tl.optim.AdamW([w], lr=p(0.5), betas=(p(0.5), p(0.25)), eps=p(0.5)),
        lambda p: tl.optim.AdamW([{"params": [w], "lr": p(0.5)}]),
        lambda p: tl.optim.Muon([tl.ones(2, 2, requires_grad=True)], lr=p(0.5), ns_steps=np.int64(3)),
    ):
        expected = {k: v for k, v in make(float).param_groups[0].items() if k != "params"}
        for kind in FLOATS:
            group = make(kind).param_groups[0]
            found = {k: v for k, v in group.items() if k != "params"}
            assert found == expected
            assert {type(v) for v in found.values()} <= {bool, int, float, tuple, type(None)}
        with pytest.raises(ValueError, match="lr must be a number"):
            make(lambda value: True)
    optimizer = tl.optim.SGD([w], lr=1.0)
    optimizer.param_groups[0]["lr"] = np.float64(0.5)
    w.grad = tl.ones(2)
    optimizer.step()
    assert w.tolist() == [0.5, 0.5]
    assert w.dtype == tl.float32


@pytest.mark.parametrize("whole", [int, np.int64, np.uint8, np.array])
@pytest.mark.parametrize("number", [float, np.float32, np.array])
def test_options_of_schedulers(whole, number):
    schedules = tl.optim.lr_scheduler
    for make in (
        lambda o: schedules.StepLR(o, whole(2), number(0.5)),
        lambda o: schedules.MultiStepLR(o, [whole(1), whole(3)], number(0.5)),
        lambda o: schedules.MultiStepLR(o, np.array([1, 3]), number(0.5)),
        lambda o: schedules.ExponentialLR(o, number(0.5)),
        lambda o: schedules.ConstantLR(o, number(0.5), whole(2)),
        lambda o: schedules.LinearLR(o, number(0.5), number(1.0), whole(2)),
        lambda o: schedules.CosineAnnealingLR(o, whole(2), number(0.25)),
        lambda o: schedules.CosineWithWarmup(o, whole(1), whole(3), number(0.25)),
        lambda o: schedules.OneCycleLR(o, number(0.5), whole(5), pct_start=number(0.5), div_factor=number(2.0)),
        lambda o: schedules.LambdaLR(o, lambda step: number(0.5)),
    ):
        optimizer = tl.optim.SGD([tl.ones(2, requires_grad=True)], lr=0.5, momentum=0.5)
        scheduler = make(optimizer)
        for _ in range(4):
            scheduler.step()
        assert type(scheduler.get_last_lr()[0]) is float
        assert all(isinstance(v, (int, float, bool, str, list)) for v in scheduler.state_dict().values())
    with pytest.raises(ValueError, match="step_size must be a whole number"):
        schedules.StepLR(optimizer, True)


def test_readers():
    class Seven:
        def __index__(self) -> int:
            return 7

    assert [as_integer(v) for v in (Seven(), np.uint8(7), 7.0, "7", None, True, np.False_, np.array([7]))] == (
        [7, 7, *[None] * 6]
    )
    assert [as_number(v) for v in (Seven(), np.float16(0.5), tl.tensor(2.5), 1j, "1", None, True)] == (
        [7, 0.5, 2.5, *[None] * 4]
    )
    assert as_number(tl.tensor(1.0, requires_grad=True)) is None
    assert ints_in("f", "sizes", np.array([1, 2])) == ints_in("f", "sizes", range(1, 3)) == (1, 2)
    with pytest.raises(TypeError, match=r"f: sizes must be an int or several, got \[1, True\]"):
        ints_in("f", "sizes", [1, True])
