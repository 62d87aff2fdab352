"""Random numbers: seeds, states, the known answers of Philox, and moments on both kinds of device."""
import json
import math

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import random
from tensorlite.backends import registry
from tensorlite.testing import strict

DEVICES = ["cpu", "strict"]  # PCG64, and Philox


@pytest.fixture(autouse=True)
def default_generator():
    state = tl.get_rng_state()
    yield
    tl.set_rng_state(state)


def numpy(x):
    return x.detach().cpu().numpy()


def draws(device, generator=None):
    """Return arrays from every function that draws, in a fixed order."""
    more = {"device": device, "generator": generator}
    return [
        numpy(x)
        for x in (
            tl.rand(2, 3, **more),
            tl.rand(5, dtype=tl.float64, **more),
            tl.randn(3, **more),
            tl.randint(10, (4,), **more),
            tl.randperm(6, **more),
            tl.randn(2, dtype=tl.float16, **more),
            tl.zeros(3, device=device).uniform_(1, 2, generator=generator),
        )
    ]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# ---- Philox ---------------------------------------------------------------------------------

ONES = 0xFFFFFFFF


def philox(device, seed, offset, n):
    xp = registry.namespace(tl.device(device))
    return xp.to_numpy(xp.philox(seed, offset, n))


@pytest.mark.parametrize("device", DEVICES)
def test_philox_known_answer(device):
    """The answer for a counter and a key of zeros; the kernel counts only in the low half of the counter."""
    words = philox(device, 0, 0, 4)
    assert words.dtype == np.uint64
    assert words.tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def reference(counter, key):
    """Return one block of Philox-4x32-10, computed in Python integers: Salmon et al. 2011, section 3.3."""
    c, k = list(counter), [key & ONES, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & ONES, a >> 32 ^ c[3] ^ k[1], a & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return c


def test_the_integers_give_the_published_answers():
    """They are those of Random123 for philox4x32-10."""
    assert reference([0] * 4, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert reference([ONES] * 4, 2**64 - 1) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    digits_of_pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert reference(digits_of_pi, 0x299F31D0A4093822) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", [0, 1, 0x299F31D0A4093822, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 5, 2**32 - 1, 2**40 + 3])
def test_philox_against_integers(device, seed, offset):
    expected = [w for i in range(3) for w in reference([(offset + i) & ONES, (offset + i) >> 32, 0, 0], seed)]
    assert philox(device, seed, offset, 12).tolist() == expected
    assert philox(device, seed, offset, 9).tolist() == expected[:9]
    assert philox(device, seed, offset, 0).shape == (0,)


def test_a_draw_continues_at_the_next_block():
    """A draw uses whole blocks of four words, so 5 words use two blocks."""
    g = tl.Generator(3)
    seed = g.get_state()["seed"]
    tl.rand(5, device="strict", generator=g)
    assert g.get_state()["offset"] == 2
    words = np.array(philox("strict", seed, 2, 3))
    found = numpy(tl.rand(3, device="strict", generator=g))
    np.testing.assert_array_equal(found, (words >> 8).astype(np.float32) / 2**24)


# ---- seeds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_seed_gives_the_same_numbers(device):
    tl.manual_seed(7)
    first = draws(device)
    assert not same(first, draws(device))
    assert tl.manual_seed(7) is random.default_generator
    assert same(first, draws(device))
    assert same(first, draws(device, tl.Generator(7)))
    tl.manual_seed(8)
    assert not same(first, draws(device))


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**64 + 1, -(2**70), np.int64(5)])
def test_any_int_is_a_seed(seed):
    for device in DEVICES:
        assert same(draws(device, tl.Generator(seed)), draws(device, tl.Generator(int(seed))))


def test_different_seeds_differ():
    seeds = [0, 1, -1, 2**32, 2**64, -(2**64)]
    for device in DEVICES:
        assert len({numpy(tl.rand(4, device=device, generator=tl.Generator(s))).tobytes() for s in seeds}) == len(seeds)


@pytest.mark.parametrize("seed", [1.0, "1", True, None, [1]])
def test_invalid_seeds(seed):
    with pytest.raises(TypeError, match=r"^manual_seed: the seed must be an int, got "):
        tl.manual_seed(seed)


def test_a_generator_without_a_seed_is_seeded_by_the_system():
    assert not same(draws("cpu", tl.Generator()), draws("cpu", tl.Generator()))
    assert not same(draws("strict", tl.Generator()), draws("strict", tl.Generator()))


def test_generators_do_not_disturb_each_other():
    tl.manual_seed(0)
    expected = numpy(tl.rand(3))
    tl.manual_seed(0)
    draws("cpu", tl.Generator(1))
    np.random.default_rng(0).random(5)
    np.random.random(5)
    np.testing.assert_array_equal(numpy(tl.rand(3)), expected)


# ---- states ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_a_state_is_saved_and_restored_through_json(device):
    tl.manual_seed(1)
    draws(device)
    state = json.loads(json.dumps(tl.get_rng_state()))
    first = draws(device)
    tl.manual_seed(2)
    draws(device)
    tl.set_rng_state(state)
    assert same(draws(device), first)
    other = tl.Generator(99)
    other.set_state(state)
    assert same(draws(device, other), first)


def test_the_state_of_a_new_generator():
    """Checkpoints hold states, so their format and what a seed gives must not change."""
    for seed, negative in ((7, 0), (-7, 1)):
        sequence = np.random.SeedSequence(7, spawn_key=(negative,))
        pcg64 = np.random.PCG64(np.random.SeedSequence(7, spawn_key=(negative,)))
        expected = {"cpu": pcg64.state, "seed": int(sequence.generate_state(1, np.uint64)[0]), "offset": 0}
        assert tl.Generator(seed).get_state() == expected
        numbers = np.random.Generator(pcg64).random(3, np.float32)
        np.testing.assert_array_equal(numpy(tl.rand(3, generator=tl.Generator(seed))), numbers)


def test_a_state_does_not_change_later():
    state = tl.get_rng_state()
    text = json.dumps(state)
    draws("cpu")
    draws("strict")
    assert json.dumps(state) == text


@pytest.mark.parametrize(
    "state",
    [{}, None, 3, {"seed": 1, "offset": 2}, {"seed": 1, "offset": 2, "cpu": {"bit_generator": "MT19937"}},
     {"seed": 1, "offset": 2, "cpu": {}}, {"seed": "x", "offset": 2, "cpu": {}}],
)  # fmt: skip
def test_invalid_states(state):
    before = tl.get_rng_state()
    with pytest.raises(ValueError, match=r"^set_state: this is not a generator state from get_state\(\)"):
        tl.set_rng_state(state)
    assert tl.get_rng_state() == before


@pytest.mark.parametrize("value", [-1, 2**128, 10**400, 1.0, "1", None, True, []])
@pytest.mark.parametrize("place", [("seed",), ("offset",), ("cpu", "state", "state"), ("cpu", "uinteger")])
def test_numbers_that_no_state_has(place, value):
    """NumPy raises OverflowError for some of them, and takes others modulo a power of 2."""
    before = tl.get_rng_state()
    target = state = json.loads(json.dumps(before))
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(ValueError, match=rf"^set_state: this is not a generator state .*{place[-1]} must be"):
        tl.set_rng_state(state)
    assert tl.get_rng_state() == before


# ---- distributions --------------------------------------------------------------------------

N = 200_000


def close(value, expected, deviation):
    """Assert that a mean of N draws is within five standard deviations."""
    assert abs(value - expected) < 5 * deviation / math.sqrt(N)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [tl.float32, tl.float64, tl.float16])
def test_uniform(device, dtype):
    x = numpy(tl.rand(N, dtype=dtype, device=device, generator=tl.Generator(0)))
    assert x.dtype == dtype
    assert x.min() >= 0
    assert x.max() < 1
    wide = x.astype(np.float64)
    close(wide.mean(), 0.5, math.sqrt(1 / 12))
    close((wide**2).mean(), 1 / 3, math.sqrt(4 / 45))
    close((wide[1:] * wide[:-1]).mean(), 0.25, 0.25)  # neighbours are independent
    assert len(np.unique(x)) > {tl.float16: 1000, tl.float32: 0.98 * N, tl.float64: N - 1}[dtype]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [tl.float32, tl.float64, tl.float16])
def test_normal(device, dtype):
    x = numpy(tl.randn(N, dtype=dtype, device=device, generator=tl.Generator(0)))
    assert x.dtype == dtype
    assert np.isfinite(x).all()
    wide = x.astype(np.float64)
    close(wide.mean(), 0, 1)
    close((wide**2).mean(), 1, math.sqrt(2))
    close((wide**3).mean(), 0, math.sqrt(15))
    close((wide**4).mean(), 3, math.sqrt(96))
    close((wide[1:] * wide[:-1]).mean(), 0, 1)
    close((np.abs(wide) < 1).mean(), 0.6826894921, 0.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("low", "high"), [(0, 2), (-3, 5), (10, 11), (-(2**62), 2**62), (0, 2**63 - 1)])
def test_integers(device, low, high):
    x = numpy(tl.randint(low, high, (N,), device=device, generator=tl.Generator(0)))
    assert x.dtype == np.int64
    assert x.min() >= low
    assert x.max() < high
    span = high - low
    close((x.astype(np.float64) - low).mean() / span, 0.5 - 0.5 / span, math.sqrt(1 / 12))
    if span < 10:
        assert set(np.unique(x)) == set(range(low, high))
        for count in np.unique_counts(x).counts:
            close(count / N, 1 / span, 0.5)


@pytest.mark.parametrize("device", DEVICES)
def test_permutations(device):
    g = tl.Generator(0)
    x = numpy(tl.randperm(1000, device=device, generator=g))
    assert x.dtype == np.int64
    assert sorted(x) == list(range(1000))
    assert (x != np.arange(1000)).any()
    first = [int(tl.randperm(3, device=device, generator=g)[0]) for _ in range(300)]
    assert min(first.count(i) for i in range(3)) > 60
    assert tl.randperm(0, device=device).shape == (0,)


@pytest.mark.parametrize("device", DEVICES)
def test_random_numbers_in_place(device):
    g = tl.Generator(0)
    x = numpy(tl.empty(N, device=device, dtype=tl.float64).uniform_(-2, 4, generator=g))
    assert -2 <= x.min() < -1.9
    assert 3.9 < x.max() < 4
    close(x.mean(), 1, math.sqrt(3))
    x = numpy(tl.empty(N, device=device).normal_(5, 0.5, generator=g))
    close(x.mean(), 5, 0.5)
    close(x.std(), 0.5, 0.5)


@pytest.mark.parametrize("device", DEVICES)
def test_shapes(device):
    for shape in ((), (0,), (2, 0, 3), (2, 3), (1,)):
        for make in (tl.rand, tl.randn):
            assert make(*shape, device=device).shape == shape
            assert make(shape, device=device, dtype=tl.float64).shape == shape
        assert tl.randint(5, shape, device=device).shape == shape


def test_all_devices_except_the_cpu_draw_the_same_numbers():
    """The bits come only from the counter, so a GPU draws what the strict device draws."""
    other = registry.build_namespace(np, registry.reference, device_type="other", array_type=np.ndarray)
    a, b = tl.Generator(0), tl.Generator(0)
    found = numpy(tl.rand(3, 4, device="strict", generator=b))
    np.testing.assert_array_equal(found, a.uniform(other, (3, 4), tl.float32))


# ---- dropout --------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [tl.float32, tl.float64, tl.float16])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_mask(device, dtype, p):
    x = tl.zeros(400, 500, dtype=dtype, device=device)
    mask = random.dropout_mask(x.array, p, tl.Generator(0))
    assert type(mask) is type(x.array)
    assert mask.dtype == dtype
    assert mask.shape == x.shape
    values = numpy(tl.as_tensor(mask))
    kept = values != 0
    close(kept.mean(), 1 - p, math.sqrt(p * (1 - p)) + 1e-9)
    if p < 1:
        np.testing.assert_allclose(values[kept], 1 / (1 - p), rtol=1e-3 if dtype == tl.float16 else 1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_dropout(device):
    tl.manual_seed(0)
    x = tl.ones(1000, device=device, requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    np.testing.assert_array_equal(numpy(x.grad), numpy(y))  # dropped entries get no gradient
    tl.manual_seed(0)
    np.testing.assert_array_equal(numpy(F.dropout(x, 0.25)), numpy(y))
    assert not np.array_equal(numpy(F.dropout(x, 0.25)), numpy(y))


def test_drawing_does_not_wait_for_the_device():
    g = tl.Generator(0)
    with strict.forbid_syncs() as log:
        for f in (tl.rand, tl.randn):
            f(3, device="strict", generator=g)
        tl.randint(5, (3,), device="strict", generator=g)
        tl.randperm(5, device="strict", generator=g)
        F.dropout(tl.ones(3, device="strict"), 0.5)
    assert log == []
