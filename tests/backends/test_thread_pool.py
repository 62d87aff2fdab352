"""Threads that share work on the CPU, and the threads of OpenBLAS."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import registry
from tensorlite.backends.cpu import blas, environment, find_compiled, thread_pool
from tensorlite.backends.cpu import kernels as cpu

ROOT = Path(__file__).parents[2]
XP = registry.namespace(registry.device("cpu"))


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", 3)


@pytest.fixture
def compiled_and_blas(three_threads):
    if find_compiled.find_compiled() is None or not blas.gemm_pointer(np.dtype(np.float32)):
        pytest.skip("needs numba, and an OpenBLAS of 64-bit sizes")


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 1001])
@pytest.mark.usefixtures("three_threads")
def test_every_entry_is_processed_once(n):
    counts = np.zeros(n, int)

    def part(start, stop):
        counts[start:stop] += 1

    for _ in range(20):
        thread_pool.parallel_for(part, n)
    assert (counts == 20).all()


@pytest.mark.usefixtures("three_threads")
def test_several_threads_take_part():
    seen = set()

    def part(start, stop):
        seen.add(threading.get_ident())
        time.sleep(0.05)

    thread_pool.parallel_for(part, 3)
    assert len(seen) == 3


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_a_chunk_is_raised_and_nothing_hangs():
    def part(start, stop):
        if stop == 9:
            raise ZeroDivisionError("in a chunk")

    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="in a chunk"):
            thread_pool.parallel_for(part, 9)
    done = []
    thread_pool.parallel_for(lambda start, stop: done.append(stop - start), 9)
    assert sum(done) == 9


@pytest.mark.usefixtures("three_threads")
def test_an_interrupt_while_waiting_does_not_affect_the_next_job():
    """The completion of the interrupted job must not be mistaken for that of the next one."""
    mine = threading.get_ident()

    def slow(start, stop):
        time.sleep(0.02 if threading.get_ident() == mine else 0.3)

    if not hasattr(signal, "pthread_kill"):
        pytest.skip("threads cannot be signalled on this system")
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(mine, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            thread_pool.parallel_for(slow, 3)
            time.sleep(5)  # the signal may come late
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(0.5)  # until the helpers have finished
    counts = np.zeros(3, int)

    def part(start, stop):
        time.sleep(0.02 if threading.get_ident() == mine else 0.1)
        counts[start:stop] += 1

    thread_pool.parallel_for(part, 3)
    assert (counts == 1).all()


@pytest.mark.usefixtures("three_threads")
def test_a_nested_call_stays_on_its_thread():
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


@pytest.mark.usefixtures("three_threads")
def test_workers_give_no_numpy_warnings(recwarn):
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
        pytest.skip("NumPy's BLAS is not an OpenBLAS that can be found")
    before = openblas.get_num_threads()
    x = np.ones((300, 300), np.float32)
    cpu.matmul(XP, x, x)
    assert openblas.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), blas.one_blas_thread:
        assert openblas.get_num_threads() == 1
        raise ZeroDivisionError
    assert openblas.get_num_threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="other loaders may not search linked libraries")
def test_openblas_is_found_through_the_extension_module_of_numpy(monkeypatch):
    """The dynamic loader knows the library that NumPy is linked with, under any file name."""
    found = blas.find_openblas()
    if found is None:
        pytest.skip("NumPy's BLAS is not an OpenBLAS that can be found")
    path = next(blas._library_paths())
    assert "_multiarray_umath" in path
    monkeypatch.setattr(blas, "_library_paths", lambda: [path])
    again = blas.find_openblas.__wrapped__()
    if again is None:
        pytest.skip("NumPy is not linked with OpenBLAS: FlexiBLAS may have opened it")
    assert again.get_num_threads() == found.get_num_threads()


def test_a_signal_handler_may_compute_inside_one_blas_thread():
    block = blas.one_blas_thread
    with block.lock, block:  # an op of the handler enters while its thread holds the lock
        pass
    assert not block.inside


def test_get_num_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", None)
    assert 1 <= thread_pool.get_num_threads() <= 8
    thread_pool.set_num_threads(5)
    assert thread_pool.get_num_threads() == 5
    thread_pool.set_num_threads(np.int64(2))
    assert type(thread_pool.get_num_threads()) is int
    for n in (0, -1, 1.0, True, "2", 1025, 10**30):
        with pytest.raises(ValueError, match="set_num_threads: expected an integer from 1 to 1024, got"):
            thread_pool.set_num_threads(n)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("2", 2),
        ("1024", 1024),
        *((text, ValueError) for text in ("abc", "0", "-1", "2.0", "²", "100000", "9" * 50)),
    ],
)
def test_the_variable_is_read_when_the_library_is_loaded(text, expected):
    """A wrong value does not wait for the first op."""
    code = "import tensorlite, tensorlite.backends.cpu.thread_pool as pool; print(pool._num_threads)"
    environment = {**os.environ, "TENSORLITE_NUM_THREADS": text, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if expected is ValueError:
        message = f"ValueError: TENSORLITE_NUM_THREADS: expected an integer from 1 to 1024, got {text!r}."
        assert message in done.stderr
    else:
        assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("TENSORLITE_DETERMINISTIC", "false"), ("TENSORLITE_JIT", "off"), ("TENSORLITE_JIT", " 0"),
     ("TENSORLITE_MALLOC", "1")],
)  # fmt: skip
def test_a_variable_with_another_value_is_an_error(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got '{value}'\. Correct or unset"):
        environment.check_variables()
    for right in ("", *environment.CHOICES[name]):
        monkeypatch.setenv(name, right)
        environment.check_variables()


def test_an_empty_variable_counts_as_unset(monkeypatch):
    name = "TENSORLITE_JIT"
    for value, expected in {"": (True, False), "0": (False, False), "1": (True, True)}.items():
        monkeypatch.setenv(name, value)
        assert (environment.is_on(name, True), environment.is_on(name, False)) == expected


def test_too_many_threads_for_the_system(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(thread_pool, "_pool", None)
    monkeypatch.setattr(thread_pool, "_num_threads", 7)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="set_num_threads: expected to start 6 threads, got 0"):
        thread_pool.parallel_for(lambda start, stop: None, 100)
    monkeypatch.undo()
    thread_pool.parallel_for(lambda start, stop: None, 100)  # no lock is held


def test_a_forked_child_has_threads_of_its_own(three_threads):
    if sys.platform != "linux":
        pytest.skip("only Linux forks here")
    x = np.ones((200, 200), np.float32)

    def compute():
        thread_pool.parallel_for(lambda a, b: None, 3)
        assert (cpu.matmul(XP, x, x) == 200).all()

    compute()
    fork = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns about a fork with threads
        process = fork.Process(target=compute)
        process.start()
    process.join(20)
    assert process.exitcode == 0


@pytest.mark.usefixtures("compiled_and_blas")
def test_workers_sleep_and_wake():
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
    assert threading.active_count() <= before + 3  # workers of earlier pools have stopped


@pytest.mark.usefixtures("compiled_and_blas")
def test_many_threads_may_compute_at_once():
    """One thread gets the workers and the others compute serially; all get the same bits, and none hangs."""
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
            if any((a != b).any() for a, b in zip(results(), expected, strict=True)):  # equal to the bit
                wrong.append(seed)

    several = [threading.Thread(target=compute, args=(seed,)) for seed in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join(60)
    assert not any(thread.is_alive() for thread in several)
    assert wrong == []
    assert blas.find_openblas().get_num_threads() == before


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_python_threads_train_as_each_would_alone(dtype):
    """Losses and weights are equal to the bit, and neither thread waits for the other without end."""
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")

    def train(seed):
        rng = np.random.default_rng(seed)
        layers = [tl.nn.Linear(96, 160), tl.nn.LayerNorm(160), tl.nn.GELU(), tl.nn.Linear(160, 96)]
        model = tl.nn.Sequential(*layers)
        for parameter in model.parameters():
            parameter.data = tl.from_numpy(rng.standard_normal(parameter.shape).astype(np.float32) / 10)
        optimizer = tl.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(15):
            x = tl.from_numpy(rng.standard_normal((128, 96)).astype(np.float32))
            with tl.autocast("cpu", dtype=tl.bfloat16, enabled=True) if dtype == "bfloat16" else nullcontext():
                y = model(x)
            loss = tl.nn.functional.cross_entropy(y.float(), tl.from_numpy(rng.integers(0, 96, 128)))
            loss.backward()
            tl.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return [np.array(losses), *(p.detach().numpy() for p in model.parameters())]

    alone = [train(seed) for seed in range(2)]
    assert alone[0][0][-1] < alone[0][0][0]
    together = [None, None]
    threads = [
        threading.Thread(target=lambda seed=seed: together.__setitem__(seed, train(seed)), daemon=True)
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for a, b in zip(alone, together, strict=True):
        assert all((x == y).all() for x, y in zip(a, b, strict=True))
