"""Transfers, assignments, random numbers and fused kernels give on every device what they give on the CPU."""

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn, optim
from tests.ops.op_table import SPECS
from tests.support.devices import computed, difference, numpy

CPU = tl.device("cpu")

# ---- transfers, assignments, changes in place, integers -----------------------------------------

RNG = np.random.default_rng(0)
X, IDS, MASK = RNG.standard_normal((4, 5)), RNG.integers(0, 4, 7), RNG.integers(0, 2, (4, 5)) > 0


def assigned(index, value):
    """Return a function that assigns `value` at `index` of a tensor on a device, and returns the tensor."""

    def f(where):
        t = tl.tensor(X, device=where)
        on_device = tuple(tl.tensor(i, device=where) if isinstance(i, np.ndarray) else i for i in index)
        t[on_device] = tl.tensor(value, device=where) if isinstance(value, np.ndarray) else value
        return t

    return f


def added(dtype):
    """Return a function that adds rows of ones at repeated indices."""
    return lambda where: tl.zeros(4, 5, dtype=dtype, device=where).index_add(
        0, tl.tensor(IDS, device=where), tl.ones(7, 5, dtype=dtype, device=where)
    )


def in_place(where):
    t = tl.tensor(X, device=where)
    view = t[1:]
    t.mul_(2).add_(tl.ones(5, device=where, dtype=tl.float64)).clamp_(-1, 1)
    return view.masked_fill_(tl.tensor(MASK[1:], device=where), 7.0).sub_(0.5)


CASES = {
    "to the device and back": lambda where: tl.tensor(X).to(where).cpu(),
    "a view to the device": lambda where: tl.tensor(X).T[::2].to(where),
    "assign a row": assigned((1,), RNG.standard_normal(5)),
    "assign a slice": assigned((slice(1, 3), slice(None, None, 2)), 2.5),
    "assign by indices": assigned((IDS[:2], IDS[2:4]), RNG.standard_normal(2)),
    "assign by a mask": assigned((MASK,), RNG.standard_normal(int(MASK.sum()))),
    "where by a bool": lambda where: tl.where(True, tl.tensor(X, device=where), 0.0),
    "in place": in_place,
    "arange, linspace, eye, full": lambda where: tl.cat(
        [tl.arange(1, 9, 2, device=where), tl.linspace(0, 1, 5, device=where), tl.eye(3, device=where)[1],
         tl.full((2,), 7, device=where)]),
    **{f"index_add in {t.name}": added(t) for t in (tl.int64, tl.int32, tl.uint8, tl.float16, tl.float32)},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_change_of_memory_agrees_with_the_cpu(name, other_device):
    assert difference([numpy(CASES[name](other_device))], [numpy(CASES[name](CPU))]) <= 1e-7


# ---- random numbers ---------------------------------------------------------------------------------


def test_philox_gives_its_published_numbers(other_device):
    """Random123's known answers for a counter and a key of zeros (Salmon et al., 2011)."""
    generator = tl.Generator(0)
    generator.set_state({**generator.get_state(), "seed": 0, "offset": 0})
    words = [0x6627E8D5, 0xE169C58D]  # the first 24 of 32 bits make a float32
    expected = np.array([w >> 8 for w in words], np.float32) / np.float32(2**24)
    np.testing.assert_array_equal(numpy(tl.rand(2, device=other_device, generator=generator)), expected)


def test_a_saved_state_repeats_the_numbers(other_device):
    state = tl.get_rng_state()
    first = [numpy(draw) for draw in (tl.rand(3, 5, device=other_device), tl.randn(4, device=other_device))]
    tl.set_rng_state(state)
    second = [numpy(draw) for draw in (tl.rand(3, 5, device=other_device), tl.randn(4, device=other_device))]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


N = 100_000
DRAWS = {
    **{f"rand in {t.name}": (lambda d, g, t=t: tl.rand(N, dtype=t, device=d, generator=g), 0.5, 12**-0.5)
       for t in (tl.float32, tl.float64)},
    **{f"randn in {t.name}": (lambda d, g, t=t: tl.randn(N, dtype=t, device=d, generator=g), 0.0, 1.0)
       for t in (tl.float32, tl.float64)},
    "randint": (lambda d, g: tl.randint(-3, 5, (N,), device=d, generator=g).double(), 0.5, (63 / 12) ** 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
def test_mean_and_standard_deviation(name, other_device):
    draw, mean, std = DRAWS[name]
    x = draw(other_device, tl.Generator(1))
    assert abs(x.mean().item() - mean) <= 0.02 * std
    assert abs(x.std().item() - std) <= 0.02 * std


def test_dropout_keeps_three_of_four(other_device):
    tl.manual_seed(3)
    y = numpy(F.dropout(tl.ones(N, device=other_device), 0.25))
    assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
    assert abs(float((y == 0).mean()) - 0.25) <= 0.01


# ---- kernels ----------------------------------------------------------------------------------------

PRECISIONS = {tl.float64: 1e-12, tl.float32: 1e-5}


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 1_200_000])
def test_gelu_at_the_sizes_of_a_block(n, approximate, dtype, other_device):
    """A block of the CUDA kernel has 256 threads; the largest size leaves several entries to a thread."""

    def activated(where):
        x = tl.tensor(np.random.default_rng(n).standard_normal(n) * 3, dtype, where, requires_grad=True)
        y = F.gelu(x, approximate=approximate)
        (g,) = tl.autograd.grad(y, x, tl.tensor(np.cos(np.arange(n)), dtype, where))
        return [numpy(y), numpy(g)]

    assert difference(activated(other_device), activated(CPU)) <= PRECISIONS[dtype]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (257,), (1000, 1200)], ids=str)
@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW])
def test_adam_at_the_sizes_of_a_block(make, shape, maximize, dtype, other_device):
    def stepped(where):
        rng = np.random.default_rng(0)
        p = nn.Parameter(tl.tensor(np.asarray(rng.standard_normal(shape)), dtype, where))
        optimizer = make([p], 0.01, weight_decay=0.1, maximize=maximize)
        for _ in range(3):
            p.grad = tl.tensor(np.asarray(rng.standard_normal(shape)), dtype, where)
            optimizer.step()
        state = optimizer.state[p]
        return [numpy(t) for t in (p, state["exp_avg"], state["exp_avg_sq"])]

    assert difference(stepped(other_device), stepped(CPU)) <= PRECISIONS[dtype]


def test_the_device_tests_call_every_kernel():
    """The op table, optimizers, clipping, dropout and a large sum together call each kernel of the reference."""
    called = set()
    namespace = tl.backends.registry.namespace(tl.device("strict"))
    kept = {name: getattr(namespace, name) for name in tl.backends.reference.__all__}

    def noting(name):
        return lambda *args, **kwargs: (called.add(name), kept[name](*args, **kwargs))[1]

    try:
        vars(namespace).update({name: noting(name) for name in kept})
        for row in SPECS.values():
            for sample, arrays in zip(row.samples, row.arrays, strict=True):
                computed(row, sample, arrays, tl.float32, tl.device("strict"))
        test_adam_at_the_sizes_of_a_block(optim.Adam, (1,), False, tl.float64, tl.device("strict"))
        test_dropout_keeps_three_of_four(tl.device("strict"))
        matrix = nn.Parameter(tl.ones(2, 3, device="strict"))
        matrix.grad = tl.ones(2, 3, device="strict")
        for make in (optim.Muon, optim.SGD):
            make([matrix], 0.01).step()
        nn.utils.clip_grad_norm_([matrix], 1.0)
        large = tl.ones(1 << 17, device="strict")
        assert bool((large + large == 2).all())
        pair = [large.clone().requires_grad_() for _ in range(2)]
        (pair[0] + pair[1]).backward(large)
    finally:
        vars(namespace).update(kept)
    assert called == set(kept)


def test_a_wrong_kernel_is_noticed(monkeypatch):
    namespace = tl.backends.registry.namespace(tl.device("strict"))
    right = namespace.softmax
    monkeypatch.setattr(namespace, "softmax", lambda x, axis: right(x, axis) * 1.001)
    row = SPECS["softmax"]
    found, expected = (
        [numpy(t) for t in computed(row, row.samples[0], row.arrays[0], tl.float64, tl.device(name))]
        for name in ("strict", "cpu")
    )
    assert difference(found, expected) > 1e-4


# ---- the comparison itself --------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("found", "expected", "result"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([0.5], [0.25], 0.25),
        ([np.inf, -np.inf, np.nan], [np.inf, -np.inf, np.nan], 0.0),
        ([], [], 0.0),
    ],
)
def test_difference_is_relative_to_the_largest_number(found, expected, result):
    assert difference([np.array(found)], [np.array(expected)]) == pytest.approx(result)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([np.zeros(2)], [np.zeros(2, np.float32)]),
        ([np.zeros(2)], [np.zeros((2, 1))]),
        ([np.zeros(2)], []),
        ([np.array([np.nan, 1.0])], [np.array([0.0, 1.0])]),
        ([np.array([np.inf])], [np.array([-np.inf])]),
    ],
)
def test_difference_refuses(found, expected):
    with pytest.raises((AssertionError, ValueError)):
        difference(found, expected)
