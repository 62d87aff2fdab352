"""tensorlite.compiled: kernels for a single row, and loops that threads share, for users' compiled functions."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.backends.cpu import thread_pool

compiled = pytest.importorskip("tensorlite.compiled", exc_type=ImportError)

f32 = np.float32


@pytest.fixture(params=[1, 3], autouse=True)
def count(request, monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    monkeypatch.setattr(thread_pool, "_pool", None)
    return request.param


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(f32)


def close(found, expected, size=1.0):
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=3e-6 * size)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (7, 64), (515, 129), (3000, 50)])
def test_linear(rows, columns, bias):
    x, weight, y = normal(columns), normal(rows, columns, seed=1), np.empty(rows, f32)
    b = normal(rows, seed=2) if bias else None
    compiled.run(compiled.linear, x, weight, b, y)
    close(y, F.linear(tl.tensor(x), tl.tensor(weight), None if b is None else tl.tensor(b)), columns)
    serial = np.empty_like(y)
    compiled.linear(0, x, weight, b, serial)
    assert (serial == y).all()  # equal to the bit on any number of threads


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 128, 1001])
def test_layer_norm(n, bias):
    x, weight, b = normal(n) * 3 + 5, normal(n, seed=1), normal(n, seed=2) if bias else None
    y = np.empty(n, f32)
    compiled.layer_norm(x, weight, b, 1e-5, y)
    close(y, F.layer_norm(tl.tensor(x), n, tl.tensor(weight), None if b is None else tl.tensor(b)), 10)


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu(tanh):
    x = np.linspace(-9, 9, 1001, dtype=f32)
    y = x.copy()
    compiled.gelu(y, tanh)
    close(y, F.gelu(tl.tensor(x.astype(float)), "tanh" if tanh else "none"), 3)


SIZES = [(1, 1, 1, 1), (3, 7, 9, 5), (4, 64, 64, 32), (5, 900, 1000, 32)]


@pytest.mark.parametrize(("H", "length", "size", "D"), SIZES)
def test_decode_attention(H, length, size, D):
    q, keys, values = normal(H, D), normal(H, size, D, seed=1), normal(H, size, D, seed=2)
    y, scores = np.empty((H, D), f32), np.empty((H, size), f32)
    compiled.run(compiled.decode_attention, q, keys, values, length, scores, y)
    k, v = (tl.tensor(a[:, :length]) for a in (keys, values))
    close(y, F.scaled_dot_product_attention(tl.tensor(q[:, None]), k, v)[:, 0])
    assert np.isfinite(y).all()


def test_decode_attention_of_huge_and_nonfinite_scores():
    q, keys, values = normal(2, 8) * f32(1e15), normal(2, 5, 8, seed=1) * f32(1e15), normal(2, 5, 8, seed=2)
    y, scores = np.empty((2, 8), f32), np.empty((2, 5), f32)
    compiled.decode_attention(0, q, keys, values, 5, scores, y)
    best = (q[:, None] * keys).sum(2).argmax(1)
    np.testing.assert_allclose(y, values[[0, 1], best], rtol=1e-6)
    keys[1, 2, 3] = np.nan
    compiled.decode_attention(0, q, keys, values, 5, scores, y)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()


def test_a_users_loop_is_shared(count):
    @compiled.njit(nogil=True)
    def part(x, y, start, stop):
        for i in range(start, stop):
            y[i] += x[i] * x[i]

    @compiled.njit(nogil=True)
    def squares(pool, x, y):
        compiled.parallel_for(pool, compiled.bind_kernel(part, (x, y)), x.size, 16, 2)

    for n in (0, 1, 15, 16, 17, 1000, 100_001):
        x, y = normal(n), np.zeros(n, f32)
        for k in range(1, 4):
            assert compiled.run(squares, x, y) is None
            np.testing.assert_allclose(y, k * x * x, rtol=1e-6)


def test_a_bound_kernel_keeps_its_arrays_alive(count):
    @compiled.njit(nogil=True)
    def part(x, y, start, stop):
        for i in range(start, stop):
            y[i] = x[i]

    @compiled.njit(nogil=True)
    def threes(pool, y):
        for _ in range(3):
            task = compiled.bind_kernel(part, (np.full(y.size, f32(3)), y))
            for _ in range(2):  # this would reuse the memory of a freed array
                y[0] = np.full(y.size, f32(7))[0]
            compiled.parallel_for(pool, task, y.size, 16, 1)

    for n in (100, 10_000):
        y = np.zeros(n, f32)
        compiled.run(threes, y)
        assert (y == 3).all()


def test_a_failure_on_any_thread_is_an_error(count):
    @compiled.njit(nogil=True)
    def part(x, start, stop):
        if start <= 77 < stop:
            raise ValueError("in a chunk")
        for i in range(start, stop):
            x[i] = 1

    @compiled.njit(nogil=True)
    def ones(pool, x, n):
        compiled.parallel_for(pool, compiled.bind_kernel(part, (x,)), n, 1, 1)

    x = np.zeros(100, f32)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="a compiled loop failed on one of the threads that share it"):
            compiled.run(ones, x, 100)
    compiled.run(ones, x, 50)  # nothing is left behind
    assert x[:50].all()


@compiled.njit(nogil=True)
def add_one(x, start, stop):
    x[start:stop] += 1


@compiled.njit(nogil=True)
def add_one_in_chunks(pool, x, grain_size, chunks_per_thread):
    compiled.parallel_for(pool, compiled.bind_kernel(add_one, (x,)), x.size, grain_size, chunks_per_thread)


@pytest.mark.parametrize(("grain_size", "chunks_per_thread"), [(0, 1), (-1, 1), (16, 0), (1, -1)])
def test_chunks_below_one_are_refused(grain_size, chunks_per_thread):
    with pytest.raises(ValueError, match="parallel_for: expected grain_size and chunks_per_thread of 1 or more"):
        compiled.run(add_one_in_chunks, np.zeros(100, f32), grain_size, chunks_per_thread)


def test_a_nested_parallel_loop_is_an_error(count):
    @compiled.njit(nogil=True)
    def inner(x, start, stop):
        for i in range(start, stop):
            for _ in range(200):
                x[i] += 1

    @compiled.njit(nogil=True)
    def row(pool, x, start, stop):
        for i in range(start, stop):
            compiled.parallel_for(pool, compiled.bind_kernel(inner, (x[i],)), x.shape[1], 16, 1)

    @compiled.njit(nogil=True)
    def rows(pool, x):
        compiled.parallel_for(pool, compiled.bind_kernel(row, (pool, x)), x.shape[0], 1, 1)

    x = np.zeros((6, 5000), f32)
    if count == 1:  # one thread has no pool
        compiled.run(rows, x)
        assert (x == 200).all()
    else:
        with pytest.raises(RuntimeError, match="a compiled loop failed"):
            compiled.run(rows, x)


def test_bind_kernel_requires_a_tuple():
    @compiled.njit(nogil=True)
    def part(x, start, stop):
        x[start:stop] += 1

    @compiled.njit(nogil=True)
    def ones(pool, x):
        compiled.parallel_for(pool, compiled.bind_kernel(part, x), x.size, 1, 1)

    with pytest.raises(Exception, match="bind_kernel: expected a compiled function and a tuple of its arguments"):
        compiled.run(ones, np.zeros(100, f32))


WRONG = {
    "linear": [(normal(4), normal(3, 5), None, normal(3)), (normal(5), normal(3, 5), None, normal(2)),
               (normal(5), normal(3, 5), normal(1), normal(3))],
    "layer_norm": [(normal(4), normal(3), None, 1e-5, normal(4)), (normal(4), normal(4), normal(3), 1e-5, normal(4)),
                   (normal(4), normal(4), None, 1e-5, normal(5))],
    "decode_attention": [(normal(2, 3), normal(2, 5, 3), normal(2, 5, 3), length, normal(2, 6), normal(2, 3))
               for length in (0, 6)] + [
        (normal(2, 3), normal(2, 5, 4), normal(2, 5, 3), 5, normal(2, 5), normal(2, 3)),
        (normal(2, 3), normal(2, 5, 3), normal(3, 5, 3), 5, normal(2, 5), normal(2, 3)),
        (normal(2, 3), normal(2, 5, 3), normal(2, 5, 3), 5, normal(2, 4), normal(2, 3)),
        (normal(2, 3), normal(2, 5, 3), normal(2, 5, 3), 5, normal(2, 5), normal(2, 4)),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "args"), [(name, args) for name, calls in WRONG.items() for args in calls])
def test_wrong_shapes_are_refused(name, args):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        getattr(compiled, name)(*([] if name == "layer_norm" else [0]), *args)


def test_other_arrays_than_contiguous_float32_are_refused():
    for x in (normal(4).astype(float), normal(8)[::2], np.arange(4)):
        with pytest.raises(TypeError, match="No matching definition"):
            compiled.gelu(x, False)


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(compiled)
    assert result.attempted > 3
    assert result.failed == 0


def test_the_import_error_without_numba_says_what_to_do():
    code = "import os; os.environ['TENSORLITE_JIT'] = '0'; import tensorlite.compiled"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: tensorlite.compiled needs numba: pip install 'tensorlite[fast]'" in done.stderr


def kept_and_used(function):
    """Return the arrays that a compiled function makes and whose addresses it takes, and those that it keeps alive."""
    made, used, kept = {}, set(), set()  # made: the array that each variable is a part of
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            pairs = [(node.targets[0], node.value)]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(node.targets[0].elts, node.value.elts, strict=True)
            for target, value in pairs:
                source = ast.unparse(value)
                if isinstance(target, ast.Name) and source.startswith(("np.empty(", "np.zeros(", "np.ones(")):
                    made[target.id] = target.id
                elif isinstance(target, ast.Name) and (first := source.split("[")[0]) in made:
                    made[target.id] = made[first]
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr == "ctypes" and isinstance(node.value, ast.Name):
            used.add(made.get(node.value.id))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            if node.func.id == "keep_alive":
                kept.add(node.args[0].id)
            elif node.func.id == "_aligned":
                used.add(made.get(node.args[0].id))
    return used - {None}, kept


def test_kernels_keep_the_arrays_alive_whose_addresses_they_use():
    found = set()
    for path in sorted(Path(compiled.__file__).parent.glob("backends/cpu/compiled/*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and any("njit" in ast.unparse(d) for d in function.decorator_list):
                used, kept = kept_and_used(function)
                assert used <= kept, f"{path.name}, {function.name}: call keep_alive for {used - kept} at the end"
                found |= kept
    assert {"memory", "scores", "spare", "workspace", "scratch"} <= found
