"""Factors of matrices: their product, their shapes, and gradients of what does not depend on the signs of vectors."""
import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grad
from tests.support.oracle import assert_same_as_torch

rng = np.random.default_rng(3)
SHAPES = [(3, 3), (4, 2), (2, 4), (2, 3, 2), (0, 3), (3, 0), (0, 2, 2)]


def matrices(*shape):
    return rng.standard_normal(shape)


def identity_error(x):
    return np.abs(np.swapaxes(x, -2, -1) @ x - np.eye(x.shape[-1])).max(initial=0.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("full", [False, True])
def test_svd(shape, full):
    a = matrices(*shape)
    u, s, vt = (t.numpy() for t in tl.linalg.svd(tl.tensor(a), full_matrices=full))
    k = min(shape[-2:])
    assert u.shape == (*shape[:-1], shape[-2] if full else k)
    assert vt.shape == (*shape[:-2], shape[-1] if full else k, shape[-1])
    np.testing.assert_allclose((u[..., :k] * s[..., None, :]) @ vt[..., :k, :], a, atol=1e-14)
    assert max(identity_error(u), identity_error(np.swapaxes(vt, -2, -1))) < 1e-13
    assert (np.diff(s) <= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr(shape, mode):
    a = matrices(*shape)
    q, r = (t.numpy() for t in tl.linalg.qr(tl.tensor(a), mode))
    assert not np.tril(r, -1).any()
    if mode == "r":
        assert q.shape == (0,)
        np.testing.assert_allclose(np.swapaxes(r, -2, -1) @ r, np.swapaxes(a, -2, -1) @ a, atol=1e-13)
    else:
        np.testing.assert_allclose(q @ r, a, atol=1e-14)
        assert identity_error(q) < 1e-13


@pytest.mark.parametrize("triangle", ["L", "U"])
def test_eigh_reads_one_triangle(triangle):
    a = matrices(2, 3, 3)
    values, vectors = (t.numpy() for t in tl.linalg.eigh(tl.tensor(a), triangle))
    half = np.tril(a) if triangle == "L" else np.swapaxes(np.triu(a), -2, -1)
    whole = half + np.swapaxes(np.tril(half, -1), -2, -1)
    np.testing.assert_allclose((vectors * values[..., None, :]) @ np.swapaxes(vectors, -2, -1), whole, atol=1e-14)
    np.testing.assert_allclose(tl.linalg.eigvalsh(tl.tensor(a), triangle).numpy(), values, atol=1e-14)
    assert identity_error(vectors) < 1e-14


def test_results_have_pytorchs_names():
    a = tl.tensor(matrices(2, 2))
    assert tl.linalg.svd(a)._fields == ("U", "S", "Vh")
    assert tl.linalg.qr(a)._fields == ("Q", "R")
    assert tl.linalg.eigh(a)._fields == ("eigenvalues", "eigenvectors")
    assert tl.linalg.slogdet(a)._fields == ("sign", "logabsdet")


# ---- gradients of both orders ---------------------------------------------------------------


def projector(lib, x, full=False):
    """Return the projector on the first left vector, and add the one on the first right vector."""
    u, s, vt = lib.linalg.svd(x, full_matrices=full)
    return (u[..., :, :1] @ vt[..., :1, :]) * s[..., :1, None] ** 2


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 2)])
@pytest.mark.parametrize("full", [False, True])
def test_gradients_of_svd(shape, full):
    assert_same_as_torch(lambda lib, x: projector(lib, x, full), matrices(*shape))


def test_gradients_of_eigh():
    def f(lib, x):
        values, vectors = lib.linalg.eigh(x @ x.swapaxes(-2, -1))
        first = vectors[..., :, :1]
        return first @ first.swapaxes(-2, -1) + values[..., None, :]

    assert_same_as_torch(f, matrices(2, 3, 4))


@pytest.mark.parametrize("f", [lambda x: tl.linalg.svd(x).S.sum(), lambda x: tl.linalg.svdvals(x).sum()])
def test_equal_singular_values_have_a_gradient(f):
    x = tl.eye(3, dtype=tl.float64, requires_grad=True)
    f(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.eye(3), atol=1e-15)


def test_equal_eigenvalues_have_a_gradient():
    x = tl.eye(3, dtype=tl.float64, requires_grad=True)
    (tl.linalg.eigh(x).eigenvalues.sum() + tl.linalg.eigvalsh(x).sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.eye(3), atol=1e-15)


def test_qr_complete_has_no_gradient_for_tall_matrices():
    x = tl.tensor(matrices(3, 2), requires_grad=True)
    with pytest.raises(tl.GraphError, match="mode='complete' has no gradient for 3 rows and 2 columns"):
        tl.linalg.qr(x, "complete").R.sum().backward()


# ---- determinants, inverses, exponentials ---------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_third_derivatives_of_det(rank):
    """The third one needs an invertible matrix; the first and second hold for every rank."""
    a = matrices(4, rank) @ matrices(rank, 4)
    check_grad(tl.linalg.det, a, order=2)
    if rank == 4:
        g = matrices(4, 4)
        check_grad(lambda x: tl.func.hvp(tl.linalg.det, (x,), (tl.tensor(g),))[1], a, order=1)


def test_pinv_of_a_lower_rank():
    def f(lib, a, b):
        return lib.linalg.pinv(a @ b, rtol=1e-9)

    assert_same_as_torch(f, matrices(4, 2), matrices(2, 3))
    a = matrices(4, 2) @ matrices(2, 3)
    np.testing.assert_allclose(tl.linalg.pinv(tl.tensor(a)).numpy(), np.linalg.pinv(a), atol=1e-12)


def test_pinv_takes_a_tolerance_for_each_matrix():
    a = np.stack([np.diag([1.0, 1e-3]), np.diag([2.0, 1e-3])])
    found = tl.linalg.pinv(tl.tensor(a), atol=tl.tensor([1e-4, 1e-2], dtype=tl.float64)).numpy()
    np.testing.assert_allclose(found, [np.diag([1.0, 1e3]), np.diag([0.5, 0.0])])
    np.testing.assert_allclose(tl.linalg.pinv(tl.tensor(a), hermitian=True).numpy()[1], np.diag([0.5, 1e3]))


@pytest.mark.parametrize("size", [1e-8, 1e-2, 1.0, 30.0, 300.0])
def test_matrix_exp_of_a_rotation(size):
    found = tl.matrix_exp(tl.tensor([[0.0, -size], [size, 0.0]], dtype=tl.float64)).numpy()
    c, s = math.cos(size), math.sin(size)
    np.testing.assert_allclose(found, [[c, -s], [s, c]], atol=1e-13)


def test_matrix_exp_scales_each_matrix_of_a_batch():
    x = np.stack([np.diag([1e-3, -1e-3]), np.diag([50.0, -700.0]), np.full((2, 2), math.nan)])
    found = tl.matrix_exp(tl.tensor(x)).numpy()
    expected = np.exp([[1e-3, -1e-3], [50.0, -700.0]])
    np.testing.assert_allclose(np.diagonal(found[:2], axis1=1, axis2=2), expected, rtol=1e-12)
    assert np.isnan(found[2]).all()


def test_matrix_exp_in_float32():
    x = matrices(5, 3, 3) * 3
    np.testing.assert_allclose(
        tl.matrix_exp(tl.tensor(x, dtype=tl.float32)).numpy(), tl.matrix_exp(tl.tensor(x)).numpy(), rtol=2e-4, atol=1e-4
    )


def test_solve_broadcasts_as_torch():
    for a, b in [((2, 1, 3, 3), (4, 3, 2)), ((3, 3), (2, 3, 1)), ((2, 3, 3), (3,)), ((2, 3, 3), (2, 3))]:
        assert_same_as_torch(lambda lib, x, y: lib.linalg.solve(x, y), matrices(*a), matrices(*b))
    assert_same_as_torch(lambda lib, x, y: lib.linalg.solve(x, y, left=False), matrices(2, 3, 3), matrices(4, 3))


def test_slogdet_does_not_overflow():
    x = tl.eye(400, dtype=tl.float64) * 10
    assert math.isinf(tl.linalg.det(x).item())
    assert tl.linalg.slogdet(x).logabsdet.item() == pytest.approx(400 * math.log(10))
    assert tl.logdet(tl.zeros(2, 2)).item() == -math.inf
    assert math.isnan(tl.logdet(tl.tensor([[0.0, 1.0], [1.0, 0.0]])).item())
