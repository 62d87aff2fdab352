"""vmap."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import func

rng = np.random.default_rng(0)


def random(*shape):
    return tl.tensor(rng.standard_normal(shape), requires_grad=True)


CASES = {
    "one argument": (lambda t: lambda x: (x * x).sum(), 0, 0, [(5, 3)]),
    "dot products": (lambda t: t.dot, 0, 0, [(5, 3), (5, 3)]),
    "another dimension": (lambda t: lambda x: x * 2, 1, 0, [(5, 3)]),
    "last dimension": (lambda t: lambda x: x * 2, -1, 0, [(5, 3, 2)]),
    "a whole argument": (lambda t: lambda x, w: w @ x, (0, None), 0, [(5, 3), (2, 3)]),
    "out_dims": (lambda t: lambda x: x.outer(x), 0, 1, [(5, 3)]),
    "negative out_dims": (lambda t: lambda x: x.outer(x), 0, -1, [(5, 3)]),
    "two results": (lambda t: lambda x: (x.sum(), x * 2), 0, (0, 1), [(5, 3)]),
    "a dict": (lambda t: lambda x: {"a": x.sum(), "b": x}, 0, 0, [(5, 3)]),
    "nested": (lambda t: t.vmap(lambda x: x.sum()), 1, 0, [(5, 3, 2)]),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_pytorchs(name):
    torch = pytest.importorskip("torch")
    make, in_dims, out_dims, shapes = CASES[name]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    results = []
    for library in (tl, torch):
        xs = [library.tensor(a, requires_grad=True) for a in arrays]
        out = library.vmap(make(library), in_dims, out_dims)(*xs)
        leaves = list(out.values()) if isinstance(out, dict) else list(out) if isinstance(out, tuple) else [out]
        sum((y * y).sum() for y in leaves).backward()
        results.append([t.detach().numpy() for t in (*leaves, *(x.grad for x in xs))])
    for mine, theirs in zip(*results, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-13)


def test_gradients_of_each_example():
    w, x = random(3), random(5, 3)
    loss = lambda w, x: (w * x).sum().sin()
    each = func.vmap(func.grad(loss), (None, 0))(w, x)
    np.testing.assert_allclose(each.detach().array, (np.cos((w.array * x.array).sum(1))[:, None] * x.array), rtol=1e-13)
    jacobian = func.jacobian(func.vmap(lambda x: x.sum()))(x)
    assert jacobian.shape == (5, 5, 3)


def test_trees_and_keywords():
    tree, scale = {"a": random(4, 2), "b": (random(2), random(2, 4))}, random(2)
    f = lambda tree, k: tree["a"] * tree["b"][0] * tree["b"][1] * k
    y = func.vmap(f, ({"a": 0, "b": (None, 1)},))(tree, k=scale)
    expected = tree["a"] * tree["b"][0] * tree["b"][1].mT * scale
    assert tl.equal(y, expected)  # every call gets the whole of a keyword argument


def test_keywords_are_not_mapped_even_where_they_could_be():
    x = random(3, 4)
    seen = []
    func.vmap(lambda a, *, b, power: seen.append((b, power)) or a)(x, b=x, power=2)
    assert all(b is x and power == 2 for b, power in seen)
    assert len(seen) == 3


def test_random_numbers():
    x = tl.ones(4, 3)
    noisy = lambda x: x + tl.rand(3)
    state = tl.get_rng_state()
    with pytest.raises(RuntimeError, match="vmap: the function draws random numbers"):
        func.vmap(noisy)(x)
    assert tl.get_rng_state() == state
    same, different = (func.vmap(noisy, randomness=r)(x) for r in ("same", "different"))
    assert all(tl.equal(row, same[0]) for row in same)
    assert not tl.equal(different[0], different[1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tl.vmap(3), TypeError, "vmap: expected a function, got int"),
        (lambda: tl.vmap(abs, randomness="some"), ValueError, "expected randomness 'error'"),
        (lambda: tl.vmap(abs, None)(tl.ones(3)), ValueError, "There is no dimension to map over"),
        (lambda: tl.vmap(abs, (0, 0))(tl.ones(3)), ValueError, "expected in_dims with 1 entries"),
        (lambda: tl.vmap(abs)(tl.ones(0, 3)), ValueError, "got a batch of 0"),
        (lambda: tl.vmap(abs)(3.0), ValueError, "expected Tensors to map over, got float"),
        (lambda: tl.vmap(tl.add)(tl.ones(3), tl.ones(4)), tl.ShapeError, r"expected batches of one size, got \[3, 4\]"),
        (lambda: tl.vmap(abs, 2)(tl.ones(3)), IndexError, "dim"),
        (lambda: tl.vmap(lambda x: 1.0)(tl.ones(3)), ValueError, "expected the function to return Tensors, got float"),
        (lambda: tl.vmap(abs, ({"a": 0},))(tl.ones(3)), ValueError, "as nested as what they are for"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
