"""The kernels on lists of arrays give what the reference gives, and leave what they do not cover to it."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import reference
from tensorlite.backends.cpu import array_lists
from tensorlite.backends.registry import BACKENDS

XP = BACKENDS[np.ndarray]
SHAPES = [(7,), (), (3, 5), (0,), (4097,), (64, 129), (2, 4096)]


def some_arrays(seed, dtype=np.float32, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("shapes", [SHAPES, [(1,), ()], [(600, 600), (5,), (700, 300)]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [(0.1, True, False), (0.1, False, True)], ids=["AdamW", "Adam"])
def test_adam_all_step(shapes, dtype, options):
    mine = [some_arrays(seed, dtype, shapes) for seed in range(4)]
    mine[3] = [abs(v) for v in mine[3]]
    theirs = [[a.copy() for a in arrays] for arrays in mine]
    array_lists.adam_all_step(XP, *mine, 3, 1e-2, 0.9, 0.99, 1e-8, *options)
    for arrays in zip(*theirs, strict=True):
        reference.adam_step(np, *arrays, 3, 1e-2, 0.9, 0.99, 1e-8, *options)
    for a, b in zip((a for arrays in mine for a in arrays), (b for arrays in theirs for b in arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_sum_squares_and_scale(threads):
    before = tl.get_num_threads()
    arrays = some_arrays(0, shapes=[*SHAPES, (700, 700)])
    exact = sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays)
    scaled = [a * np.float32(0.3) for a in arrays]
    try:
        tl.set_num_threads(threads)
        total = array_lists.sum_squares_of_all(XP, arrays)
        array_lists.scale_all_step(XP, arrays, np.array(0.3, np.float32))
    finally:
        tl.set_num_threads(before)
    assert (total.dtype, total.shape) == (np.float32, ())
    assert total == pytest.approx(exact, rel=1e-6)
    for a, b in zip(arrays, scaled, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sums_do_not_depend_on_the_number_of_threads():
    arrays, before, totals = some_arrays(1, shapes=[(700, 701), (3,), (50, 999)]), tl.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            tl.set_num_threads(threads)
            totals.add(float(array_lists.sum_squares_of_all(XP, arrays)))
    finally:
        tl.set_num_threads(before)
    assert len(totals) == 1


def test_arrays_that_the_loops_do_not_take():
    """Strided arrays and other dtypes go to the reference, which raises an error for memory that cannot be written."""
    some = some_arrays(2)
    odd = [some[5].T, some[5][::2, ::3], some[0].astype(">f4"), some[1].astype(np.float64)]
    exact = sum(float((a.astype(np.float64) ** 2).sum()) for a in some + odd)
    assert float(array_lists.sum_squares_of_all(XP, some + odd)) == pytest.approx(exact, rel=1e-6)
    copies = [a.copy() for a in odd]
    array_lists.scale_all_step(XP, copies, np.array(2.0, np.float32))
    for a, b in zip(copies, odd, strict=True):
        np.testing.assert_array_equal(a, 2 * b)
    locked = np.ones(100, np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        array_lists.scale_all_step(XP, [np.ones(100, np.float32), locked], np.array(2.0, np.float32))
    assert (locked == 1).all()


def test_an_array_that_is_given_twice_is_changed_twice():
    x = np.ones((600, 600), np.float32)
    array_lists.scale_all_step(XP, [x, x], np.array(3.0, np.float32))
    assert (x == 9).all()


def test_parameters_with_different_numbers_of_steps():
    """Each parameter is corrected for its own number of steps, in one call of step()."""
    shared, alone = ([tl.nn.Parameter(tl.ones(40) * k) for k in (1, 2, 3)] for _ in range(2))
    together = tl.optim.AdamW(shared, lr=0.1)
    each = [tl.optim.AdamW([p], lr=0.1) for p in alone]
    for number in range(4):
        for k in range(3):
            for p in (shared[k], alone[k]):
                p.grad = None if (number + k) % 3 == 0 else tl.ones(40) * (k + number)
        together.step()
        for optimizer in each:
            optimizer.step()
    for p, q in zip(shared, alone, strict=True):
        np.testing.assert_array_equal(p.array, q.array)
        assert together.state[p]["step"] == next(o for o in each if q in o.state).state[q]["step"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_parameter_that_cannot_be_written_raises(count):
    locked = np.ones(100, np.float32)
    locked.flags.writeable = False
    parameters = [tl.from_numpy(a).requires_grad_() for a in (np.ones(100, np.float32), locked)]
    for p in parameters:
        p.grad = tl.ones(100)
    with pytest.raises(ValueError, match="read-only"):
        tl.optim.AdamW(parameters[-count:]).step()
    assert (locked == 1).all()


@pytest.mark.parametrize("other", [((40,), np.float32), ((40,), np.float64), ((8, 5), np.float32)], ids=str)
def test_bits_of_a_parameter_do_not_depend_on_the_others(other):
    """A small parameter gets the same bits whether or not the rest of its group has gradients."""
    shape, dtype = other
    values = []
    for together in (True, False):
        rng = np.random.default_rng(0)
        small = tl.tensor(rng.standard_normal(5).astype(np.float32), requires_grad=True)
        large = tl.from_numpy(rng.standard_normal(shape).astype(dtype).T).requires_grad_()
        optimizer = tl.optim.AdamW([small, large], lr=0.1)
        for _ in range(4):
            small.grad = tl.tensor(rng.standard_normal(5).astype(np.float32))
            large.grad = tl.ones_like(large) if together else None
            optimizer.step()
        values.append(small.array.tobytes())
    assert values[0] == values[1]
