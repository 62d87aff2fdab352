"""The fast kernels of the CPU against their reference: blocked NumPy, numba's loops, and work shared among threads."""

import ast
import itertools
import multiprocessing
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import blas, find_compiled, thread_pool
from tensorlite.backends.cpu import kernels as cpu

XP = registry.namespace(registry.device("cpu"))
EXACT = {"float32": 3e-6, "float64": 1e-12, "float16": 4e-3}


@pytest.fixture(params=["numba", "numpy"])
def compiled(request, monkeypatch):
    """With compiled loops and without."""
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(cpu, "_compiled_kernels", lambda: None)
    return request.param == "numba"


@pytest.fixture(params=[1, 3])
def shared(request, monkeypatch):
    """On one thread, and with every loop shared among several, however small its arrays."""
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    monkeypatch.setattr(cpu, "_MIN_SHARED", 1)
    monkeypatch.setattr(cpu, "_MIN_COMPILED", 1)
    monkeypatch.setattr(cpu, "_MIN_FLOPS", 0)
    monkeypatch.setattr(cpu, "_MIN_FLOPS_PYTHON_THREADS", 1)


def arrays(shape, dtype, layout, count=2):
    rng = np.random.default_rng(0)
    for _ in range(count):
        a = rng.standard_normal(shape).astype(dtype)
        yield LAYOUTS[layout](a)


def strided(a):
    big = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    big[..., ::2] = a
    return big[..., ::2]


LAYOUTS = {
    "contiguous": lambda a: a,
    "transposed": lambda a: np.asfortranarray(a),
    "strided": strided,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
}
SHAPES = [(1, 1), (3, 5), (7, 64), (2, 3, 33), (5, 300)]
CASES = [*itertools.product(SHAPES, ["float32", "float64"], LAYOUTS), ((4, 6), "float16", "contiguous")]


def agree(found, expected, dtype, scale=1.0):
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        size = scale * max(1.0, abs(b).max(initial=0.0))
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=0, atol=EXACT[dtype] * size)


@pytest.mark.parametrize(("shape", "dtype", "layout"), CASES)
@pytest.mark.usefixtures("compiled", "shared")
class TestRows:
    def test_gelu(self, shape, dtype, layout):
        x, g = arrays(shape, dtype, layout)
        for tanh in (False, True):
            agree([cpu.gelu(XP, 3 * x, tanh)], [reference.gelu(XP, 3 * x, tanh)], dtype)
            found, expected = (k.gelu_backward(XP, g, 3 * x, tanh) for k in (cpu, reference))
            agree([found], [expected], dtype)

    def test_softmax(self, shape, dtype, layout):
        (x,) = arrays(shape, dtype, layout, 1)
        for axis in (-1, 0):
            agree([cpu.softmax(XP, 5 * x, axis)], [reference.softmax(XP, 5 * x, axis)], dtype)

    @pytest.mark.parametrize("affine", ["weight and bias", "weight", "neither"])
    def test_layer_norm(self, shape, dtype, layout, affine):
        x, g = arrays(shape, dtype, layout)
        x = x + x.dtype.type(2)
        weight, bias = arrays((shape[-1],), dtype, "contiguous")
        weight = None if affine == "neither" else weight
        bias = bias if affine == "weight and bias" else None
        found = cpu.layer_norm(XP, x, weight, bias, 1e-2)
        expected = reference.layer_norm(XP, x, weight, bias, 1e-2)
        agree(found, expected, dtype, 3)
        back = [k.layer_norm_backward(XP, g, x, weight, *expected[1:]) for k in (cpu, reference)]
        agree(*back, dtype, 10)

    def test_cross_entropy(self, shape, dtype, layout):
        (x,) = (a.reshape(-1, shape[-1]) for a in arrays(shape, dtype, layout, 1))
        rng = np.random.default_rng(1)
        target = rng.integers(0, x.shape[1], len(x))
        target[::3] = -1
        g = rng.standard_normal(len(x)).astype(dtype)
        for smoothing in (0.0, 0.1):
            found, expected = (k.cross_entropy(XP, x, target, -1, smoothing) for k in (cpu, reference))
            agree(found, expected, dtype)
            back = [k.cross_entropy_backward(XP, g, x, target, expected[1], -1, smoothing) for k in (cpu, reference)]
            agree([back[0]], [back[1]], dtype)

    def test_products_and_sums(self, shape, dtype, layout):
        (x,) = (a.reshape(-1, shape[-1]) for a in arrays(shape, dtype, layout, 1))
        (y,) = arrays((shape[-1], 6), dtype, layout, 1)
        scale = 2 * shape[-1]
        agree([cpu.matmul(XP, x, y)], [np.matmul(x, y)], dtype, scale)
        agree([cpu.matmul(XP, y.T, x.T)], [np.matmul(y.T, x.T)], dtype, scale)
        agree([cpu.sum_to(XP, x, shape[-1:])], [reference.sum_to(XP, x, shape[-1:])], dtype, len(x))

    def test_adam(self, shape, dtype, layout):
        for options in [(0.0, True, False), (0.1, True, False), (0.1, False, True)]:
            mine = [np.array(a) if layout == "broadcast" else a.copy() for a in arrays(shape, dtype, layout, 4)]
            mine[3] = abs(mine[3])
            theirs = [a.copy() for a in mine]
            for k, some in ((cpu, mine), (reference, theirs)):
                k.adam_step(XP, *some, 3, 1e-2, 0.9, 0.99, 1e-8, *options)
            agree(mine, theirs, dtype)


ATTENTION = {
    "a head": ((1, 4, 3), 4),
    "several blocks of queries": ((2, 3, 150, 8), 150),
    "more keys": ((2, 2, 70, 5), 133),
    "fewer keys": ((2, 2, 133, 5), 70),
    "one query": ((2, 2, 1, 4), 9),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", ATTENTION)
@pytest.mark.usefixtures("compiled", "shared")
def test_attention(case, causal, dtype):
    shape, S = ATTENTION[case]
    rng = np.random.default_rng(0)
    q = rng.standard_normal(shape).astype(dtype)
    k, v = (rng.standard_normal((*shape[:-2], S, w)).astype(dtype) for w in (shape[-1], 7))
    if len(shape) == 4:  # as a model has them: heads side by side
        q, k, v = (np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2) for a in (q, k, v))
    found, expected = (m.attention(XP, q, k, v, None, None, causal, 0.3) for m in (cpu, reference))
    agree(found, expected, dtype)
    g = rng.standard_normal(expected[0].shape).astype(dtype)
    back = [m.attention_backward(XP, g, q, k, v, None, None, expected[1], causal, 0.3) for m in (cpu, reference)]
    agree(back[0][:3], back[1][:3], dtype, 10)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_without_a_blas_that_can_be_called(causal, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(cpu, "gemm_pointer", lambda dtype: 0)
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((2, 3, 130, 8)).astype(np.float32) for _ in range(4))
    args = (None, None)
    out, lse = cpu.attention(XP, q, k, v, *args, causal, 0.3)
    agree((out, lse), reference.attention(XP, q, k, v, *args, causal, 0.3), "float32")
    found = cpu.attention_backward(XP, g, q, k, v, *args, lse, causal, 0.3)
    expected = reference.attention_backward(XP, g, q, k, v, *args, lse, causal, 0.3)
    agree(found[:3], expected[:3], "float32", 10)


def test_attention_far_out():
    """Scores that overflow without the maximum taken off, and rows of which one key has all."""
    pytest.importorskip("numba")
    q = np.full((1, 2, 64, 32), 30.0, np.float32)
    k = np.random.default_rng(0).standard_normal((1, 2, 64, 32)).astype(np.float32)
    found, expected = (m.attention(XP, q, k, k, None, None, True, 1.0) for m in (cpu, reference))
    agree(found, expected, "float32", 1e2)


def test_masked_and_dropped_attention_goes_to_the_reference():
    q = np.random.default_rng(0).standard_normal((2, 2, 64, 32)).astype(np.float32)
    mask = np.tri(64, dtype=bool)
    found, expected = (m.attention(XP, q, q, q, mask, None, False, 0.2) for m in (cpu, reference))
    agree(found, expected, "float32")
    causal = cpu.attention(XP, q, q, q, None, None, True, 0.2)
    agree(causal, found, "float32")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(value):
    """A compiled loop must not lose it: NaN compares with nothing, and -inf has probability 0."""
    if cpu._compiled_kernels() is None:
        pytest.skip("needs numba, and no TENSORLITE_JIT=0")
    x = np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32)
    x[3, 5] = x[7, 0] = x[7, 99] = value
    with np.errstate(all="ignore"):
        for name, args in (("softmax", (-1,)), ("layer_norm", (None, None, 1e-5))):
            found, expected = (np.asarray(getattr(k, name)(XP, x, *args)[0]) for k in (cpu, reference))
            np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        found, expected = (k.softmax(XP, x, -1) for k in (cpu, reference))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        target = np.zeros(64, np.int64)
        losses = [k.cross_entropy(XP, x, target, -1, 0.0)[0] for k in (cpu, reference)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        expected = {np.inf: np.inf, -np.inf: 0.0}.get(value, np.nan)
        np.testing.assert_allclose(cpu.gelu(XP, x, False)[3, 5], expected, atol=1e-30)


def test_exp_to_its_last_digits():
    jit = pytest.importorskip("tensorlite.backends.cpu.compiled.kernels", exc_type=ImportError)
    x = np.linspace(-87.0, 0.0, 100_001, dtype=np.float32)
    rows = np.stack([np.zeros_like(x), x], axis=1)
    y = np.empty_like(rows)
    jit.softmax(0, rows, y)
    ratio = y[:, 1].astype(np.float64) / y[:, 0]
    np.testing.assert_allclose(ratio, np.exp(x.astype(np.float64)), rtol=4e-7)


@pytest.mark.parametrize("name", cpu.__all__)
def test_every_twin_stands_in_for_something(name):
    assert hasattr(reference, name) or hasattr(np, name)


@pytest.mark.parametrize("size", [8e4, 8e6, 8e9])
def test_attention_of_huge_scores(size):
    """The softmax that is computed again is the one that was: of the same rounded scores."""
    rng = np.random.default_rng(0)
    q = (rng.standard_normal((1, 2, 64, 32)) * np.sqrt(size)).astype(np.float32)
    k = (rng.standard_normal((1, 2, 64, 32)) * np.sqrt(size)).astype(np.float32)
    v, g = rng.standard_normal((2, 1, 2, 64, 32)).astype(np.float32)
    out, lse = cpu.attention(XP, q, k, v, None, None, True, 0.2)
    assert np.isfinite(out).all()
    _, _, dv, _ = cpu.attention_backward(XP, g, q, k, v, None, None, lse, True, 0.2)
    _, _, expected, _ = reference.attention_backward(XP, g, q, k, v, None, None, lse, True, 0.2)
    np.testing.assert_allclose(dv, expected, atol=1e-4 * abs(expected).max())


def test_one_infinite_gradient_stays_in_its_row():
    g = np.zeros((50, 4), np.float32)
    g[7, 2] = np.inf
    ids = np.arange(50) % 9
    with np.errstate(all="ignore"):
        out = cpu.embedding_backward(XP, g, ids, 9)
    assert np.isposinf(out[7, 2])
    assert np.isfinite(np.delete(out.reshape(-1), 7 * 4 + 2)).all()


def test_targets_that_are_no_class_are_refused():
    x = np.zeros((64, 100), np.float32)
    for wrong in (100, -101):
        with pytest.raises(IndexError):
            cpu.cross_entropy(XP, x, np.full(64, wrong), -1, 0.0)
        with pytest.raises(IndexError):
            cpu.cross_entropy_backward(XP, x[:, 0], x, np.full(64, wrong), np.zeros((64, 1), np.float32), -1, 0.0)


def test_gelus_gradient_far_out():
    x = np.array([1e13, -1e13, 1e14, -1e14, 1e20, np.nan] * 1000, np.float32)
    if cpu._compiled_kernels() is None:
        pytest.skip("needs numba, and no TENSORLITE_JIT=0")
    dx = cpu.gelu_backward(XP, np.ones_like(x), x, True)[:6]
    np.testing.assert_allclose(dx, [1, 0, 1, 0, 1, np.nan], atol=1e-6)


# ---- threads --------------------------------------------------------------------------------


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", 3)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 1001])
@pytest.mark.usefixtures("three")
def test_every_entry_is_worked_on_once(n):
    counts = np.zeros(n, int)

    def part(start, stop):
        counts[start:stop] += 1

    for _ in range(20):
        thread_pool.parallel_for(part, n)
    assert (counts == 20).all()


@pytest.mark.usefixtures("three")
def test_several_threads_do_work():
    seen = set()

    def part(start, stop):
        seen.add(threading.get_ident())
        time.sleep(0.05)

    thread_pool.parallel_for(part, 3)
    assert len(seen) == 3


@pytest.mark.usefixtures("three")
def test_an_error_in_a_part_is_raised_and_nothing_hangs():
    def part(start, stop):
        if stop == 9:
            raise ZeroDivisionError("in a part")

    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="in a part"):
            thread_pool.parallel_for(part, 9)
    done = []
    thread_pool.parallel_for(lambda start, stop: done.append(stop - start), 9)
    assert sum(done) == 9


@pytest.mark.usefixtures("three")
def test_an_interrupt_while_waiting_leaves_nothing_behind():
    """The end of a job that nobody waited for is not taken for the end of the next."""
    mine = threading.get_ident()

    def slow(start, stop):
        time.sleep(0.02 if threading.get_ident() == mine else 0.3)

    if not hasattr(signal, "pthread_kill"):
        pytest.skip("there are no signals to threads here")
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(mine, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            thread_pool.parallel_for(slow, 3)
            time.sleep(5)  # the signal may come late
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(0.5)  # until the helpers are done
    counts = np.zeros(3, int)

    def part(start, stop):
        time.sleep(0.02 if threading.get_ident() == mine else 0.1)
        counts[start:stop] += 1

    thread_pool.parallel_for(part, 3)
    assert (counts == 1).all()


@pytest.mark.usefixtures("three")
def test_work_inside_work_stays_on_its_thread():
    seen = []

    def part(start, stop):
        mine = []
        thread_pool.parallel_for(lambda a, b: mine.append((a, b, threading.get_ident())), 5)
        seen.append(mine)

    thread_pool.parallel_for(part, 3)
    assert len(seen) == 3
    for mine in seen:
        assert [(a, b) for a, b, _ in mine] == [(0, 2), (2, 4), (4, 5)]
        assert len({ident for _, _, ident in mine}) == 1


@pytest.mark.usefixtures("three")
def test_threads_do_not_warn_of_what_an_op_does_not(recwarn):
    out = np.empty(9)

    def part(start, stop):
        np.log(np.zeros(stop - start), out=out[start:stop])

    with np.errstate(all="ignore"):
        thread_pool.parallel_for(part, 9)
    assert (out == -np.inf).all()
    assert not recwarn.list


def test_blas_gets_its_threads_back():
    openblas = blas.find_openblas()
    if openblas is None:
        pytest.skip("NumPy's BLAS is no OpenBLAS that can be found")
    before = openblas.get_num_threads()
    x = np.ones((300, 300), np.float32)
    cpu.matmul(XP, x, x)
    assert openblas.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), blas.one_blas_thread:
        assert openblas.get_num_threads() == 1
        raise ZeroDivisionError
    assert openblas.get_num_threads() == before


def test_a_signal_that_comes_while_blas_is_told_may_compute():
    block = blas.one_blas_thread
    with block.lock, block:  # as a handler's op, called inside
        pass
    assert not block.inside


def test_how_many_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", None)
    assert 1 <= thread_pool.get_num_threads() <= 8
    thread_pool.set_num_threads(5)
    assert thread_pool.get_num_threads() == 5
    monkeypatch.setattr(thread_pool, "_num_threads", None)
    monkeypatch.setenv("TENSORLITE_NUM_THREADS", "2")
    assert thread_pool.get_num_threads() == 2
    monkeypatch.setattr(thread_pool, "_num_threads", None)
    monkeypatch.setenv("TENSORLITE_NUM_THREADS", "zero")
    with pytest.raises(ValueError, match="TENSORLITE_NUM_THREADS must be a number of 1 or more, got 'zero'"):
        thread_pool.get_num_threads()
    for n in (0, -1, 1.0, True, "2"):
        with pytest.raises(ValueError, match="set_num_threads: expected an int of 1 or more, got"):
            thread_pool.set_num_threads(n)


def test_a_forked_child_has_threads_of_its_own(three):
    if sys.platform != "linux":
        pytest.skip("forks nowhere else")
    x = np.ones((200, 200), np.float32)

    def compute():
        thread_pool.parallel_for(lambda a, b: None, 3)
        assert (cpu.matmul(XP, x, x) == 200).all()

    compute()
    fork = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
        process = fork.Process(target=compute)
        process.start()
    process.join(20)
    assert process.exitcode == 0


# ---- products that are shared in compiled code ------------------------------------------------


@pytest.fixture
def compiled_and_blas(three):
    if find_compiled.find_compiled() is None or not blas.gemm_pointer(np.dtype(np.float32)):
        pytest.skip("needs numba, and an OpenBLAS of 64-bit sizes")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("compiled", "three")
def test_a_single_row_or_column(dtype):
    """As a text that is being written makes them."""
    rng = np.random.default_rng(0)
    for k, n in ((700, 1000), (701, 1003), (700, 40_000), (10_003, 30)):
        row, matrix = rng.random((1, k), dtype), rng.random((n, k), dtype)
        for x, y in ((row, matrix.T), (matrix, row.T), (row, np.asfortranarray(matrix).T), (row[:, ::-1], matrix.T)):
            np.testing.assert_allclose(cpu.matmul(XP, x, y), x.astype(float) @ y.astype(float), rtol=1e-4)


@pytest.mark.usefixtures("compiled_and_blas")
def test_gemm_is_not_asked_for_a_single_row_or_column(monkeypatch):
    """It takes several times as long as the sums, for it copies the matrix; float64's are left to NumPy's gemv."""
    row, matrix = np.ones((1, 700), np.float32), np.ones((1000, 700), np.float32)
    monkeypatch.setattr(cpu, "gemm_pointer", lambda dtype: 1)  # a call of it would end the process
    assert (cpu._shared_matmul(row, matrix.T) == 700).all()
    assert (cpu._shared_matmul(matrix, row.T) == 700).all()
    assert cpu._shared_matmul(row.astype(np.float64), matrix.T.astype(np.float64)) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("compiled_and_blas")
def test_shared_products_of_every_shape_and_layout(dtype):
    rng = np.random.default_rng(0)
    for trial in range(300):
        m, k, n = (int(2 ** rng.uniform(0, 8)) for _ in range(3))
        x, y = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        if trial % 2:
            x = np.asfortranarray(x)
        if trial % 3 == 1:
            y = np.asfortranarray(y)
        if trial % 5 == 1:
            x = np.repeat(x, 2, axis=1)[:, :k]  # a view of longer rows
        found = cpu._shared_matmul(x, y)
        if found is None:
            assert min(m, n) == 1
            continue
        np.testing.assert_allclose(found, x @ y, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-13) * k)
        assert (cpu._shared_matmul(x, y) == found).all()


@pytest.mark.usefixtures("compiled_and_blas")
def test_what_cannot_be_shared_is_left_to_numpy():
    x = np.ones((64, 64), np.float32)
    for y in (x[:, ::2], x[::-1], np.broadcast_to(x[:1], x.shape), x.astype(np.float16)):
        assert cpu._shared_matmul(y if y.dtype == np.float16 else x[:, : len(y)], y) is None
        np.testing.assert_array_equal(cpu.matmul(XP, x.astype(y.dtype), y), x.astype(y.dtype) @ y)


@pytest.mark.usefixtures("compiled_and_blas")
def test_workers_sleep_and_come_again():
    x = np.random.default_rng(0).standard_normal((150, 150)).astype(np.float32)
    expected = cpu._shared_matmul(x, x)
    workers = thread_pool._get_workers(3, 2)
    for pause in (0.0, 0.0005, 0.02) * 10:
        time.sleep(pause)
        assert (cpu._shared_matmul(x, x) == expected).all()
        counts = np.zeros(9, int)
        thread_pool.parallel_for(lambda a, b, counts=counts: counts.__setitem__(slice(a, b), 1), 9)
        assert counts.all()
    for _ in range(200):
        if all(worker.asleep for worker in workers):
            break
        time.sleep(0.01)
    assert all(worker.asleep for worker in workers)


def test_the_number_of_threads_may_change_at_any_time(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", 2)
    x = np.random.default_rng(0).standard_normal((150, 150)).astype(np.float32)
    expected, before, errors, over = x @ x, threading.active_count(), [], threading.Event()

    def compute():
        try:
            while not over.is_set():
                np.testing.assert_allclose(cpu.matmul(XP, x, x), expected, atol=1e-4)
                thread_pool.parallel_for(lambda start, stop: None, 9)
        except Exception as error:
            errors.append(error)

    others = [threading.Thread(target=compute, daemon=True) for _ in range(2)]
    for thread in others:
        thread.start()
    for i in range(200):
        thread_pool.set_num_threads(1 + i % 4)
        time.sleep(0.001)
    over.set()
    for thread in others:
        thread.join(20)
        assert not thread.is_alive()
    assert not errors
    for _ in range(200):
        if threading.active_count() <= before + 3:
            break
        time.sleep(0.01)
    assert threading.active_count() <= before + 3  # whom nobody calls any more ends


@pytest.mark.usefixtures("compiled_and_blas")
def test_many_threads_may_compute_at_once():
    """One of them has the workers, the others compute alone: the bits are the same, and nobody waits for ever."""
    before = blas.find_openblas().get_num_threads()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 150)).astype(np.float32)
    wrong = []

    def compute(seed):
        y = np.random.default_rng(seed).standard_normal((150, 150)).astype(np.float32)
        mean, rstd = y.mean(1, keepdims=True), 1 / y.std(1, keepdims=True)

        def results():
            return cpu.matmul(XP, x, y), *cpu.layer_norm_backward(XP, x, y, x[0], mean, rstd)

        expected = results()
        assert abs(expected[0] - x.astype(np.float64) @ y).max() < 1e-3
        for _ in range(100):
            if any((a != b).any() for a, b in zip(results(), expected, strict=True)):  # to the bit, whoever helped
                wrong.append(seed)

    several = [threading.Thread(target=compute, args=(seed,)) for seed in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join(60)
    assert not any(thread.is_alive() for thread in several)
    assert wrong == []
    assert blas.find_openblas().get_num_threads() == before


@pytest.mark.parametrize("count", [2, 3, 7, 100])
@pytest.mark.usefixtures("compiled_and_blas")
def test_each_entry_is_worked_on_by_one_of_any_number_of_threads(count, monkeypatch):
    jit = pytest.importorskip("tensorlite.backends.cpu.compiled.kernels", exc_type=ImportError)
    monkeypatch.setattr(thread_pool, "_num_threads", count)
    monkeypatch.setattr(thread_pool, "_pool", None)
    rng = np.random.default_rng(0)
    for size in (0, 1, 1000, 1024, 1025, 50_000, 200_001):
        p, g = rng.standard_normal((2, size)).astype(np.float32)
        once = p - np.float32(0.5) * np.sign(g)  # Adam's first step, done twice, would be two steps
        m, v = np.zeros((2, size), np.float32)
        thread_pool.run_parallel(jit.adam_step, p, g, m, v, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.5)
        np.testing.assert_allclose(p, once, rtol=1e-6)
        assert (m == g).all()


@pytest.mark.usefixtures("compiled_and_blas")
def test_the_cache_of_numba_is_invalidated_when_a_source_of_the_kernels_changes():
    """numba looks only at the file of the function, but code and constants of other files are compiled into it."""
    kernels = pytest.importorskip("tensorlite.backends.cpu.compiled.kernels", exc_type=ImportError)
    sources = [*sorted(Path(kernels.__file__).parent.glob("*.py")), Path(reference.__file__)]
    for function in (kernels.gelu, kernels.attention_backward):
        stamp = function._cache._cache_file._source_stamp
        assert stamp[1] == [(file.stat().st_mtime, file.stat().st_size) for file in sources]


def test_every_file_that_compiled_kernels_import_is_one_of_their_sources():
    """A constant of any of these files may be frozen into machine code."""
    support = pytest.importorskip("tensorlite.backends.cpu.compiled.support", exc_type=ImportError)
    folder, sources = Path(support.__file__).parent, support.kernel_sources()
    imported = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = path.parents[node.level - 1] / (node.module or "").replace(".", "/")
                names = [package.with_suffix(".py")] if node.module else [package / f"{a.name}.py" for a in node.names]
                imported |= {name for name in names if name.exists()}
    assert Path(reference.__file__) in imported
    assert imported <= set(sources)
