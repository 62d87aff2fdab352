"""Products, Einstein sums, diagonals and triangles: NumPy's values, PyTorch's gradients, and the errors."""
import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends.registry import BACKENDS
from tests.support.oracle import assert_same_as_torch

RNG = np.random.default_rng(0)

MATMUL_SHAPES = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (6, 1, 3, 4)),
    ((4, 5, 2, 3), (3, 4)), ((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 4)),
    ((2, 4, 2, 0), (0, 3)),
    ((0,), (0,)), ((4, 1, 3), (3, 1)),
]  # fmt: skip

EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk->ki", (2, 3), (3, 4)), ("bij,bjk", (5, 2, 3), (5, 3, 4)),
    ("ij,ij->", (2, 3), (2, 3)), ("ii", (3, 3)), ("ii->i", (3, 3)), ("iij->j", (3, 3, 2)), ("ijij->ij", (2, 3, 2, 3)),
    ("iii", (3, 3, 3)), ("ii,ij->j", (3, 3), (3, 2)),
    ("ij->ji", (2, 3)), ("ba", (2, 3)), ("bA", (2, 3)), ("ij->", (2, 3)), ("ij->j", (2, 3)), ("i,j->ji", (2,), (3,)),
    ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 2)), ("i...->...", (2, 3, 4)), ("a...a->...a", (3, 2, 3)),
    ("...", (2, 3)),
    ("bhtd,bhsd->bhts", (2, 3, 4, 5), (2, 3, 6, 5)), ("bhts,bhsd->bthd", (2, 3, 4, 6), (2, 3, 6, 5)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("i,j,k->kji", (2,), (3,), (4,)),
    ("bn,anm,bm->ba", (2, 3), (4, 3, 5), (2, 5)),
    ("ij,kl->ik", (2, 3), (4, 5)), ("ij,kl->", (2, 3), (4, 5)), (",ij->ij", (), (2, 3)), ("->", ()),
    (" i j , j -> i ", (2, 3), (3,)),
    ("ij,jk->ik", (0, 3), (3, 4)), ("ij,jk->ik", (2, 0), (0, 4)), ("i,i,i->i", (3,), (3,), (3,)),
]  # fmt: skip
BEYOND_NUMPY = [  # sizes 1 that broadcast against another operand, and an ellipsis that is summed over
    ("i,i->i", (1,), (3,)), ("i,i->", (3,), (1,)), ("ij,jk->ik", (2, 1), (3, 4)), ("bi,bi->b", (4, 1), (1, 3)),
    ("i...->i", (2, 3, 4)),
]  # fmt: skip


def real(*shape: int) -> np.ndarray:
    return np.asarray(RNG.standard_normal(shape))


# ---- products -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), MATMUL_SHAPES)
def test_matmul_equals_numpy(a, b):
    x, y = real(*a), real(*b)
    result = tl.tensor(x) @ tl.tensor(y)
    np.testing.assert_allclose(result.numpy(), x @ y, rtol=1e-13, atol=1e-13)
    assert result.shape == (x @ y).shape


@pytest.mark.parametrize(("a", "b"), MATMUL_SHAPES)
def test_matmul_differentiates_as_in_torch(a, b):
    assert_same_as_torch(lambda lib, x, y: lib.matmul(x, y), real(*a), real(*b))


def test_matmul_of_transposed_and_of_equal_operands():
    assert_same_as_torch(lambda lib, x, y: x.T @ y.T, real(3, 2), real(4, 3))
    assert_same_as_torch(lambda lib, x, y: x.transpose(1, 2) @ y, real(5, 3, 2), real(3, 4))
    assert_same_as_torch(lambda lib, x: x @ x, real(3, 3))


def test_a_scaled_scalar_product_has_a_gradient():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    (3.0 * (tl.dot(x, x) * 2.0)).backward()
    assert x.grad.tolist() == [12.0, 24.0]


def test_a_stack_times_a_matrix_is_one_product(monkeypatch):
    shapes = []
    xp = BACKENDS[np.ndarray]
    monkeypatch.setattr(xp, "matmul", lambda x, y: shapes.append((x.shape, y.shape)) or np.matmul(x, y))
    x, w = tl.tensor(real(4, 5, 6), requires_grad=True), tl.tensor(real(6, 7), requires_grad=True)
    (x @ w).sum().backward()
    assert sorted(shapes) == sorted([((20, 6), (6, 7)), ((20, 7), (7, 6)), ((6, 20), (20, 7))])


def test_a_product_of_integers():
    x, y = np.array([[1, 2], [3, 4]]), np.array([5, 6])
    assert (tl.tensor(x) @ tl.tensor(y)).tolist() == [17, 39]
    assert tl.einsum("ij,j->i", tl.tensor(x), tl.tensor(y)).dtype == tl.int64


@pytest.mark.parametrize("input", [(2, 4), (4,), (2, 1), ()])
@pytest.mark.parametrize("factors", [{}, {"beta": 0.5, "alpha": 2.0}, {"beta": 0}, {"alpha": -1}])
def test_addmm(input, factors):
    assert_same_as_torch(lambda lib, c, x, y: lib.addmm(c, x, y, **factors), real(*input), real(2, 3), real(3, 4))


def test_addmm_with_beta_0_ignores_its_input():
    nothing = tl.full((2, 2), float("nan"))
    assert tl.addmm(nothing, tl.ones(2, 3), tl.ones(3, 2), beta=0).tolist() == [[3.0, 3.0], [3.0, 3.0]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tl.ones(2, 3) @ tl.ones(4, 5), tl.ShapeError, r"matmul\(float32\(2, 3\), .*\(3\).*\(4\)"),
        (lambda: tl.ones(3) @ tl.ones(4), tl.ShapeError, r"matmul.*\(3\).*\(4\)"),
        (lambda: tl.ones(2, 2, 3) @ tl.ones(4, 3, 2), tl.ShapeError, r"matmul.*broadcast"),
        (lambda: tl.tensor(1.0) @ tl.ones(3), tl.ShapeError, r"matmul.*0-d"),
        (lambda: tl.ones(2, 3) @ tl.ones(3, dtype=tl.float64), tl.DTypeError, r"matmul\(float32\(2, 3\), float64"),
        (lambda: tl.mm(tl.ones(3), tl.ones(3, 2)), tl.ShapeError, r"mm: .*\(n, k\) and \(k, m\), got \(3,\)"),
        (lambda: tl.bmm(tl.ones(2, 2, 3), tl.ones(1, 3, 2)), tl.ShapeError, r"bmm: .*got"),
        (lambda: tl.dot(tl.ones(2), tl.ones(3)), tl.ShapeError, r"dot: .*got"),
        (lambda: tl.mv(tl.ones(2, 3), tl.ones(2)), tl.ShapeError, r"mv: .*got"),
        (lambda: tl.outer(tl.ones(2, 3), tl.ones(2)), tl.ShapeError, r"outer: .*two vectors"),
        (lambda: tl.addmm(tl.ones(5), tl.ones(2, 3), tl.ones(3, 4)), tl.ShapeError, r"addmm.*\(5,\).*\(2, 4\)"),
        (lambda: tl.trace(tl.ones(2)), tl.ShapeError, r"trace: .*matrix"),
        (lambda: tl.diag(tl.ones(2, 2, 2)), tl.ShapeError, r"diag: .*vector or a matrix"),
        (lambda: tl.diagonal(tl.ones(2, 3), 0, 1, -1), tl.ShapeError, r"diagonal.*same dimension"),
        (lambda: tl.diagonal(tl.ones(2, 3), 0, 1, 2), IndexError, r"diagonal.*dim 2 is out of range"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_raise(call, error, words):
    with pytest.raises(error, match=words):
        call()


# ---- einsum -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("equation", "shapes"), [(e, s) for e, *s in EQUATIONS])
def test_einsum_equals_numpy(equation, shapes):
    arrays = [real(*s) for s in shapes]
    result = tl.einsum(equation, *map(tl.tensor, arrays))
    # NumPy puts capital letters last in an implicit output, PyTorch first. Only the equation with both shows this.
    expected = np.einsum(equation.replace("bA", "bA->Ab"), *arrays)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("equation", "shapes"), [(e, s) for e, *s in EQUATIONS + BEYOND_NUMPY])
def test_einsum_differentiates_as_in_torch(equation, shapes):
    assert_same_as_torch(lambda lib, *xs: lib.einsum(equation, *xs), *(real(*s) for s in shapes))


def test_sizes_of_one_broadcast():
    x, y = real(2, 1), real(3, 4)
    np.testing.assert_allclose(tl.einsum("ij,jk->ik", tl.tensor(x), tl.tensor(y)).numpy(), np.repeat(x, 3, 1) @ y)
    assert tl.einsum("i...->i", tl.ones(2, 3, 4)).tolist() == [12.0, 12.0]


def test_an_operand_given_twice_gets_both_gradients():
    assert_same_as_torch(lambda lib, x: lib.einsum("ij,ij->i", x, x), real(2, 3))


def test_other_forms_of_an_einsum_call():
    x, y = tl.tensor(real(2, 3)), tl.tensor(real(3, 4))
    product = (x @ y).tolist()
    assert tl.einsum(x, [0, 1], y, [1, 2], [0, 2]).tolist() == product
    assert tl.einsum(x, [0, 1], y, [1, 2]).tolist() == product
    assert tl.einsum(x, [..., 1], y, [1, 30], [..., 30]).tolist() == product
    assert tl.einsum("ij,jk", [x, y]).tolist() == product


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("ij->", (2,)), tl.ShapeError, r"'ij' in 'ij->' does not fit operand 0 of shape \(2,\)"),
        (("i->", (2, 3)), tl.ShapeError, r"does not fit operand 0"),
        (("i,i->", (2,), (3,)), tl.ShapeError, r"'i' has sizes 2 and 3"),
        (("ii", (1, 3)), tl.ShapeError, r"'i' has sizes 1 and 3"),
        (("...i,...i", (2, 4), (3, 4)), tl.ShapeError, r"'...' has sizes 2 and 3"),
        (("i->j", (2,)), ValueError, r"must have 'j' once"),
        (("i->ii", (2,)), ValueError, r"must have 'i' once"),
        (("i,j", (2,)), ValueError, r"is for 2 operands, got 1"),
        (("i1", (2, 3)), ValueError, r"'i1' .* must consist of letters"),
        (("i->i->i", (2,)), ValueError, r"must consist of letters"),
    ],
)  # fmt: skip
def test_an_invalid_equation_raises(arguments, error, words):
    equation, *shapes = arguments
    with pytest.raises(error, match=words):
        tl.einsum(equation, *(tl.ones(*s) for s in shapes))


def test_einsum_refuses_mixed_dtypes_and_other_arguments():
    with pytest.raises(tl.DTypeError, match=r"einsum: .*float32, float64"):
        tl.einsum("i,i", tl.ones(2), tl.ones(2, dtype=tl.float64))
    with pytest.raises(ValueError, match=r"einsum: .*list of numbers from 0 to 51"):
        tl.einsum(tl.ones(2), [52])


# ---- diagonals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-4, -1, 0, 2])
@pytest.mark.parametrize(
    ("shape", "dims"), [((3, 4), (0, 1)), ((4, 3), (1, 0)), ((2, 3, 4), (-1, 0)), ((2, 3, 4, 2), (1, 2))]
)
def test_diagonal(shape, dims, offset):
    x = real(*shape)
    assert tl.diagonal(tl.tensor(x), offset, *dims).tolist() == np.diagonal(x, offset, *dims).tolist()
    assert_same_as_torch(lambda lib, x: lib.diagonal(x, offset, *dims), x)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (0,)])
@pytest.mark.parametrize("offset", [-1, 0, 2])
def test_diag(shape, offset):
    x = real(*shape)
    assert tl.diag(tl.tensor(x), offset).tolist() == np.diag(x, offset).tolist()
    assert_same_as_torch(lambda lib, x: lib.diag(x, offset), x)


def test_gradient_of_trace():
    x = tl.tensor(real(2, 3), requires_grad=True)
    tl.trace(x).backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


# ---- triangles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (2, 3, 4), (2, 0, 3)])
@pytest.mark.parametrize("k", [-5, -1, 0, 2])
def test_triangles(shape, k):
    x = real(*shape)
    assert tl.tril(tl.tensor(x), k).tolist() == np.tril(x, k).tolist()
    assert_same_as_torch(lambda lib, x: lib.tril(x, k) + 2.0 * lib.triu(x, diagonal=k), x)


def test_cross_without_a_dim_takes_the_first_of_size_3():
    x, y = np.arange(9.0).reshape(3, 3), np.eye(3)
    found = tl.cross(tl.tensor(x), tl.tensor(y)).numpy()
    np.testing.assert_array_equal(found, np.cross(x, y, axis=0))
    assert not np.array_equal(found, tl.linalg.cross(tl.tensor(x), tl.tensor(y)).numpy())


@pytest.mark.parametrize("driver", ["gels", "gelsd", "gelss"])
def test_what_the_drivers_of_lstsq_return(driver):
    rng = np.random.default_rng(0)
    a, b = tl.tensor(rng.standard_normal((2, 5, 3))), tl.tensor(rng.standard_normal((2, 5, 2)))
    found = tl.linalg.lstsq(a, b, driver=driver)
    expected = ((a @ found.solution - b) ** 2).sum(-2)
    np.testing.assert_allclose(found.residuals.numpy(), expected.numpy())
    assert found.rank.tolist() == ([] if driver == "gels" else [3, 3])
    assert found.singular_values.shape == ((0,) if driver == "gels" else (2, 3))
    assert tl.linalg.lstsq(a.mT, tl.ones(2, 3, 1, dtype=tl.float64), driver=driver).residuals.shape == (0,)


def test_the_condition_number_of_matrices_without_entries_is_0():
    for p in (None, 2, -2, 1, "fro"):
        assert tl.linalg.cond(tl.zeros(2, 0, 0), p).tolist() == [0.0, 0.0]
