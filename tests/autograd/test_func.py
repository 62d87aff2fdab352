"""tensorlite.func: comparison with formulas, nesting, and which results stay attached to a graph."""
import math
from typing import NamedTuple

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.func import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp


def t(*values, **kwargs):
    return tl.tensor(values if len(values) != 1 else values[0], dtype=tl.float64, **kwargs)


def normal(*shape, seed=0):
    return tl.tensor(np.random.default_rng(seed).standard_normal(shape))


def same(found, expected, rtol=1e-12):
    expected = expected.detach().numpy() if isinstance(expected, tl.Tensor) else expected
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=rtol, atol=1e-14)


def cube(x):
    return (x * x * x).sum()


def quadratic(A):
    return lambda x: x @ A @ x


# ---- grad and value_and_grad ----------------------------------------------------------------


def test_grad():
    x = t(1.0, 2.0, -3.0)
    g = grad(cube)(x)
    assert g.tolist() == [3, 12, 27]
    assert g.dtype == tl.float64
    assert not g.requires_grad
    assert x.grad is None
    assert not x.requires_grad


def test_value_and_grad():
    value, g = value_and_grad(cube)(t(2.0))
    assert (value.item(), g.item()) == (8, 12)
    assert value.shape == g.shape == ()
    assert not value.requires_grad


@pytest.mark.parametrize(
    ("argnums", "expected"), [(0, 3.0), (1, 2.0), (-1, 2.0), ((0, 1), (3.0, 2.0)), ([1], (2.0,)), ((1, 0), (2.0, 3.0))]
)
def test_argnums(argnums, expected):
    found = grad(lambda x, y: x * y, argnums)(t(2.0), t(3.0))
    assert (tuple(g.item() for g in found) if isinstance(found, tuple) else found.item()) == expected


def test_other_arguments_are_passed_on():
    def f(x, power, *, scale, shift=0):
        return (x**power).sum() * scale + shift

    assert grad(f)(t(3.0), 2, scale=10, shift=5).item() == 60
    assert grad(lambda name, x: x * len(name), 1)("abc", t(2.0)).item() == 3


def test_has_aux():
    def f(x):
        y = x * 2
        return (y * y).sum(), {"y": y, "note": "kept"}

    g, aux = grad(f, has_aux=True)(t(1.0, 2.0))
    assert g.tolist() == [8, 16]
    assert aux["note"] == "kept"
    assert aux["y"].tolist() == [2, 4]
    assert not aux["y"].requires_grad
    (value, again), g = value_and_grad(f, has_aux=True)(t(1.0, 2.0))
    assert (value.item(), again["note"], g.tolist()) == (20, "kept", [8, 16])
    out, pullback, aux = vjp(f, t(1.0), has_aux=True)
    assert (out.item(), pullback(t(1.0))[0].item(), aux["note"]) == (4, 8, "kept")
    assert not aux["y"].requires_grad
    w = t(3.0).requires_grad_()
    assert grad(lambda x: (x * x, x * w), has_aux=True)(t(2.0))[1].requires_grad  # because the outer w is tracked


class Pair(NamedTuple):
    a: tl.Tensor
    b: tl.Tensor


def test_trees():
    tree = {"w": t(1.0, 2.0), "rest": [t(3.0), (t(4.0), None)], "pair": Pair(t(5.0), t(6.0))}

    def f(p):
        return (p["w"].sum() * p["rest"][0] + p["rest"][1][0] ** 2) * p["pair"].a

    g = grad(f)(tree)
    assert list(g) == ["w", "rest", "pair"]
    assert g["w"].tolist() == [15, 15]
    assert g["rest"][0].item() == 15
    assert isinstance(g["rest"][1], tuple)
    assert g["rest"][1][0].item() == 40
    assert g["rest"][1][1] is None
    assert type(g["pair"]) is Pair
    assert g["pair"].a.item() == 25
    assert g["pair"].b.item() == 0  # not used


def test_numbers_are_arguments_too():
    assert grad(lambda x: x * x)(3.0).item() == 6
    assert grad(lambda x: x * x)(3).dtype == tl.get_default_dtype()


def test_independent_arguments_have_zero_gradients():
    x = t(1.0, 2.0)
    assert grad(lambda x: t(5.0))(x).tolist() == [0, 0]
    assert grad(lambda x: x.detach().sum())(x).tolist() == [0, 0]
    assert grad(lambda x, y: y.sum(), (0, 1))(x, x)[0].tolist() == [0, 0]
    assert hessian(lambda x: x.sum())(x).tolist() == [[0, 0], [0, 0]]
    assert jacobian(lambda x: t(5.0, 6.0))(x).tolist() == [[0, 0], [0, 0]]
    assert jvp(lambda x: t(5.0), (x,), (x,))[1].item() == 0
    assert hvp(lambda x: x.sum(), (x,), (x,))[1].tolist() == [0, 0]
    assert vjp(lambda x: t(5.0), x)[1](t(1.0))[0].tolist() == [0, 0]


def test_the_identity():
    x = t(1.0, 2.0)
    assert jacobian(lambda x: x)(x).tolist() == [[1, 0], [0, 1]]
    assert vjp(lambda x: x, x)[1](t(3.0, 4.0))[0].tolist() == [3, 4]
    assert jvp(lambda x: x, (x,), (t(3.0, 4.0),))[1].tolist() == [3, 4]
    assert grad(lambda x: x)(t(2.0)).item() == 1


def test_the_same_argument_twice():
    x = t(3.0)
    gx, gy = grad(lambda x, y: x * x * y, (0, 1))(x, x)
    assert (gx.item(), gy.item()) == (18, 9)


def test_the_grad_of_parameters_does_not_change():
    w = t(2.0, requires_grad=True)
    assert grad(lambda x: x * w * w)(t(3.0)).item() == 4
    assert w.grad is None


# ---- products and matrices ------------------------------------------------------------------


def test_vjp():
    A, x = normal(3, 4), normal(4, seed=1)
    out, pullback = vjp(lambda A, x: (A @ x).sin(), A, x)
    same(out, np.sin(A.numpy() @ x.numpy()))
    for seed in (2, 3):  # can be called several times
        u = normal(3, seed=seed)
        gA, gx = pullback(u)
        weighted = u.numpy() * np.cos(A.numpy() @ x.numpy())
        same(gx, A.numpy().T @ weighted)
        same(gA, np.outer(weighted, x.numpy()))
        assert not gA.requires_grad


def test_vjp_of_several_outputs():
    def f(x):
        return {"a": x * 2, "b": [x.sum(), x * x]}

    out, pullback = vjp(f, t(1.0, 2.0))
    assert out["b"][0].item() == 3
    (g,) = pullback({"a": t(1.0, 1.0), "b": [t(10.0), t(0.0, 1.0)]})
    assert g.tolist() == [12, 16]


def test_jvp():
    A, x, v = normal(3, 4), normal(4, seed=1), normal(4, seed=2)
    out, tangent = jvp(lambda x: (A @ x).exp(), (x,), (v,))
    y = np.exp(A.numpy() @ x.numpy())
    same(out, y)
    same(tangent, y * (A.numpy() @ v.numpy()))
    assert not tangent.requires_grad


def test_jvp_of_trees():
    out, tangent = jvp(lambda p, y: (p["a"] * y, [y]), ({"a": t(2.0)}, t(3.0)), ({"a": t(10.0)}, t(100.0)))
    assert (out[0].item(), out[1][0].item()) == (6, 3)
    assert (tangent[0].item(), tangent[1][0].item()) == (230, 100)


def test_hvp():
    A, x, v = normal(4, 4), normal(4, seed=1), normal(4, seed=2)
    out, product = hvp(quadratic(A), (x,), (v,))
    same(out, x.numpy() @ A.numpy() @ x.numpy())
    same(product, (A.numpy() + A.numpy().T) @ v.numpy())
    _, products = hvp(lambda x, y: (x * x * y).sum(), (t(2.0), t(3.0)), (t(1.0), t(10.0)))
    assert [p.item() for p in products] == [2 * 3 + 2 * 2 * 10, 2 * 2]
    assert not product.requires_grad


@pytest.mark.parametrize(
    ("out", "inp"), [((), ()), ((), (3,)), ((2,), ()), ((2, 3), (4,)), ((2,), (3, 2)), ((1,), (1,)), ((0,), (3,))]
)
def test_jacobian(out, inp):
    W = normal(math.prod(out), math.prod(inp))
    x = normal(*inp, seed=1)
    J = jacobian(lambda x: (W @ x.reshape(-1)).sin().reshape(out))(x)
    assert J.shape == (*out, *inp)
    same(J, (np.cos(W.numpy() @ x.numpy().reshape(-1))[:, None] * W.numpy()).reshape(J.shape))


def test_jacobian_of_several_arguments():
    Jx, Jy = jacobian(lambda x, y: x * y, (0, 1))(t(1.0, 2.0), t(3.0, 4.0))
    assert Jx.tolist() == [[3, 0], [0, 4]]
    assert Jy.tolist() == [[1, 0], [0, 2]]
    J = jacobian(lambda p: p["a"] * p["b"])({"a": t(1.0, 2.0), "b": t(3.0)})
    assert J["a"].tolist() == [[3, 0], [0, 3]]
    assert J["b"].tolist() == [1, 2]


def test_hessian():
    A = normal(3, 3)
    same(hessian(quadratic(A))(normal(3, seed=1)), A.numpy() + A.numpy().T)
    assert hessian(lambda x, y: x**2 * y**3, 1)(t(2.0), t(3.0)).item() == 4 * 6 * 3
    assert hessian(cube)(t([[1.0, 2.0], [3.0, 4.0]])).shape == (2, 2, 2, 2)


def test_products_agree_with_matrices():
    def f(x):
        return tl.stack([x.prod(), x.exp().sum(), x[0] * x[1].sin()])

    x, v, u = normal(3), normal(3, seed=1), normal(3, seed=2)
    J = jacobian(f)(x)
    same(jvp(f, (x,), (v,))[1], J.numpy() @ v.numpy())
    same(vjp(f, x)[1](u)[0], u.numpy() @ J.numpy())

    def scalar(x):
        return (f(x) * u).sum()

    same(hvp(scalar, (x,), (v,))[1], hessian(scalar)(x).numpy() @ v.numpy())


def test_through_fused_kernels():
    """Check second derivatives of ops with a hand-written gradient, which are those of their composites."""
    W, target = normal(5, 4), tl.tensor([1, 3])

    def f(x):
        h = tl.nn.functional.gelu(tl.nn.functional.layer_norm(x, (5,)))
        return tl.nn.functional.cross_entropy(h @ W, target)

    x, v = normal(2, 5, seed=1), normal(2, 5, seed=2)
    h = 1e-5
    numerical = (grad(f)(x + h * v) - grad(f)(x - h * v)) / (2 * h)
    same(hvp(f, (x,), (v,))[1], numerical, rtol=1e-5)


# ---- nesting --------------------------------------------------------------------------------


def test_derivatives_up_to_the_fifth():
    f, x = tl.sin, t(0.7)
    expected = [math.cos, lambda x: -math.sin(x), lambda x: -math.cos(x), math.sin, math.cos]
    for derivative in expected:
        f = grad(f)
        found = f(x)
        assert found.item() == pytest.approx(derivative(0.7), rel=1e-12)
        assert not found.requires_grad


def test_all_orders_of_a_power():
    f = lambda x: x**5
    for k in range(1, 5):
        f = grad(f)
        assert f(t(2.0)).item() == pytest.approx(math.perm(5, k) * 2 ** (5 - k))


def test_third_and_fourth_through_matrices():
    def f(x):
        return (x**4).sum() + x.prod() ** 2

    x = t(1.0, 2.0)
    third, fourth = jacobian(hessian(f))(x), jacobian(jacobian(hessian(f)))(x)
    assert third.shape == (2, 2, 2)
    assert fourth.shape == (2, 2, 2, 2)
    assert third[0, 0, 0].item() == 24  # of x^4 + x^2 y^2
    assert third[0, 0, 1].item() == 4 * 2
    assert fourth[0, 0, 0, 0].item() == 24
    assert {fourth[i].item() for i in ((0, 0, 1, 1), (0, 1, 0, 1), (1, 1, 0, 0), (1, 0, 0, 1))} == {4}


@pytest.mark.parametrize("outer", ["grad", "jvp", "jacobian", "hvp"])
@pytest.mark.parametrize("inner", ["grad", "jvp", "vjp", "hvp", "jacobian", "hessian"])
def test_every_pair_nests(outer, inner):
    """Check derivatives of x^4: each inner one of first or second order, taken once or twice more."""
    power = lambda x: x**4
    one = t(1.0)
    inners = {
        "grad": (grad(power), 1),
        "jvp": (lambda x: jvp(power, (x,), (one,))[1], 1),
        "vjp": (lambda x: vjp(power, x)[1](one)[0], 1),
        "hvp": (lambda x: hvp(power, (x,), (one,))[1], 2),
        "jacobian": (jacobian(power), 1),
        "hessian": (hessian(power), 2),
    }
    f, k = inners[inner]
    x = t(3.0)
    if outer == "hvp":
        found, k = hvp(f, (x,), (one,))[1], k + 2
    else:
        found = {"grad": grad(f), "jacobian": jacobian(f), "jvp": lambda x: jvp(f, (x,), (one,))[1]}[outer](x)
        k += 1
    assert found.item() == pytest.approx(math.perm(4, k) * 3.0 ** (4 - k))
    assert not found.requires_grad


def test_no_perturbation_confusion():
    """Check that d/dx [x d/dy (x + y)] is 1 and not 2: the derivatives are by different variables."""
    assert grad(lambda x: x * grad(lambda y: x + y)(t(1.0)))(t(1.0)).item() == 1
    assert grad(lambda x: x * grad(lambda y: x * y)(t(2.0)))(t(3.0)).item() == 6
    assert grad(lambda x: x * grad(lambda y: x * y * y)(x))(t(3.0)).item() == 6 * 3**2
    assert jvp(lambda x: x * jvp(lambda y: x + y, (t(1.0),), (t(1.0),))[1], (t(1.0),), (t(1.0),))[1].item() == 1
    assert grad(lambda x: grad(lambda y: x)(x))(t(2.0)).item() == 0


def test_derivatives_by_a_tangent_or_cotangent():
    """Differentiate by a tangent, and by a cotangent."""
    x = t(2.0)
    assert grad(lambda v: jvp(lambda x: x**3, (x,), (v,))[1])(t(5.0)).item() == 12
    assert grad(lambda u: vjp(lambda x: x**3, x)[1](u)[0])(t(5.0)).item() == 12
    assert grad(lambda v: hvp(lambda x: x**3, (x,), (v,))[1])(t(5.0)).item() == 12


def test_a_gradient_step_is_differentiable():
    """Differentiate the loss after a step with respect to the learning rate, as in meta-learning."""
    target = t(1.0, -1.0)

    def loss(w):
        return ((w - target) ** 2).sum()

    def after(lr, w):
        for _ in range(3):
            w = w - lr * grad(loss)(w)
        return loss(w)

    w = t(3.0, 2.0)
    h = 1e-6
    numerical = (after(t(0.1) + h, w) - after(t(0.1) - h, w)) / (2 * h)
    same(grad(after)(t(0.1), w), numerical, rtol=1e-7)
    same(grad(after, 1)(t(0.1), w), 2 * (1 - 0.2) ** 6 * (w - target))


# ---- attached or detached -------------------------------------------------------------------


def test_results_are_detached_at_the_top():
    x = t(1.0, 2.0)
    value, pullback = vjp(cube, x)
    for y in (
        value, pullback(t(1.0))[0], grad(cube)(x), *value_and_grad(cube)(x), *jvp(cube, (x,), (x,)),
        *hvp(cube, (x,), (x,)),
        jacobian(lambda x: x * x)(x), hessian(cube)(x),
    ):  # fmt: skip
        assert not y.requires_grad
        assert y.is_leaf


@pytest.mark.parametrize("how", ["argument", "closure"])
def test_results_are_attached_if_something_outer_requires_gradients(how):
    w = t(2.0, requires_grad=True)
    x = t(3.0)
    if how == "argument":
        value, g = value_and_grad(lambda w: w**3 * x)(w)  # 3 w^2 x
        expected = 6 * 2 * 3
    else:
        value, g = value_and_grad(lambda x: w**3 * x)(x)  # w^3
        expected = 3 * 4
    assert value.requires_grad
    assert g.requires_grad
    g.backward(retain_graph=True)
    assert w.grad.item() == expected
    w.grad = None
    value.backward()
    assert w.grad.item() == 36


def test_products_are_attached_too():
    w, x = t(2.0, requires_grad=True), t(3.0)

    def f(x):
        return w * x**3

    for y, expected in (
        (vjp(f, x)[1](t(1.0))[0], 27),
        (jvp(f, (x,), (t(1.0),))[1], 27),
        (hvp(f, (x,), (t(1.0),))[1], 18),
        (jacobian(f)(x), 27),
        (hessian(f)(x), 18),
    ):
        w.grad = None
        y.backward()
        assert w.grad.item() == expected


def test_a_tangent_that_requires_gradients_attaches_the_product():
    v, x, f = t(5.0, requires_grad=True), t(2.0), lambda x: x**3
    for product in (jvp(f, (x,), (v,))[1], vjp(f, x)[1](v)[0], hvp(f, (x,), (v,))[1]):
        v.grad = None
        product.backward()
        assert v.grad.item() == 12


def test_under_no_grad_gradients_are_computed_and_detached():
    w = t(2.0, requires_grad=True)
    with tl.no_grad():
        g = grad(lambda x: (x * x * w).sum())(t(3.0))
        same(hessian(cube)(t(1.0, 2.0)), np.diag([6.0, 12.0]))
        assert jvp(cube, (t(2.0),), (t(1.0),))[1].item() == 12
        assert not tl.is_grad_enabled()
    assert g.item() == 12
    assert not g.requires_grad
    assert tl.is_grad_enabled()


def test_no_grad_inside_the_function():
    def f(x):
        with tl.no_grad():
            y = x * x
        return (y * x).sum()

    assert grad(f)(t(3.0)).item() == 9


def test_an_error_restores_the_grad_mode():
    with tl.no_grad():
        with pytest.raises(ZeroDivisionError):
            grad(lambda x: 1 / 0)(t(1.0))
        assert not tl.is_grad_enabled()


def test_backward_inside_a_function_does_not_change_its_gradient():
    x = t(2.0, requires_grad=True)
    y = x * x
    assert grad(lambda z: z * 3)(t(1.0)).item() == 3
    y.backward()
    assert x.grad.item() == 4


# ---- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("argnums", [2, -3, (0, 2)])
def test_argnums_out_of_range(argnums):
    with pytest.raises(IndexError, match=r"^grad: argnums -?\d is out of range for 2 positional arguments$"):
        grad(lambda x, y: x, argnums)(t(1.0), t(2.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: grad(lambda x: x)(t(1.0, 2.0)), tl.ShapeError, r"^grad: .*one scalar, got \(2,\)"),
        (lambda: grad(lambda x: (x, x))(t(1.0)), tl.ShapeError, r"^grad: .*one scalar, got \(\), \(\)"),
        (lambda: hvp(lambda x: x, (t(1.0, 2.0),), (t(1.0, 2.0),)), tl.ShapeError, r"^hvp: .*one scalar"),
        (lambda: hessian(lambda x: x)(t(1.0, 2.0)), tl.ShapeError, r"one scalar, got \(2,\)"),
        (lambda: grad(lambda x: x)(tl.tensor([1, 2])), tl.DTypeError, r"^grad: only floating point .* got int64"),
        (lambda: grad(lambda x: x)(True), tl.DTypeError, r"^grad: only floating point .* got bool"),
        (lambda: vjp(lambda x: x, tl.tensor(1)), tl.DTypeError, r"^vjp: only floating point"),
        (lambda: grad(lambda x: 1.0)(t(1.0)), TypeError, r"^grad: the function must return Tensors, got float$"),
        (lambda: jacobian(lambda x: "no")(t(1.0)), TypeError, r"^jacobian: the function must return Tensors, got str$"),
        (lambda: grad(lambda x: x, has_aux=True)(t(1.0)), TypeError, r"^grad: with has_aux=True .* a pair"),
        (lambda: vjp(cube, t(1.0))[1](t(1.0, 2.0)), tl.ShapeError, r"^vjp: .* output, \(\), got \(2,\)"),
        (lambda: jvp(cube, (t(1.0),), (t(1.0, 2.0),)), tl.ShapeError, r"^jvp: .* primals, \(\), got \(2,\)"),
        (lambda: jvp(cube, (t(1.0),), ()), tl.ShapeError, r"^jvp: expected tangents"),
        (lambda: hvp(cube, (t(1.0),), (t([1.0]),)), tl.ShapeError, r"^hvp: expected tangents .* got \(1,\)"),
        (lambda: jvp(cube, t(1.0), t(1.0)), TypeError, r"^jvp: primals and tangents must be tuples"),
        (lambda: hvp(cube, t(1.0), t(1.0)), TypeError, r"^hvp: primals and tangents must be tuples"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- results of integers and booleans, None, and trees --------------------------------------

M = tl.tensor([[1.0, 3.0], [2.0, 0.5]], dtype=tl.float64)
V = tl.tensor([[1.0, 10.0], [100.0, 1000.0]], dtype=tl.float64)

# A function with results of integers or booleans, and the derivatives of its floating results along V.
DISCRETE = {
    "max": (lambda x: x.max(1), [[10.0, 100.0]]),
    "sort": (lambda x: x.sort(1), [[[1.0, 10.0], [1000.0, 100.0]]]),
    "topk": (lambda x: x.topk(1), [[[10.0], [100.0]]]),
    "argmax": (lambda x: x.argmax(1), []),
    "booleans": (lambda x: (x > 1, x * 2), [[[2.0, 20.0], [200.0, 2000.0]]]),
    "a dict": (lambda x: {"n": (x > 1).sum(), "y": [None, x.sum()]}, [1111.0]),
}


def leaves(tree):
    return [leaf for leaf in tl.pytree.tree_leaves(tree) if leaf is not None]


@pytest.mark.parametrize("case", DISCRETE)
def test_results_of_integers_have_derivatives_of_zero(case):
    f, expected = DISCRETE[case]
    out, tangent = jvp(f, (M,), (V,))
    outs, tangents = leaves(out), leaves(tangent)
    assert [y.dtype for y in outs] == [u.dtype for u in tangents]
    assert [y.shape for y in outs] == [u.shape for u in tangents]
    assert [u.tolist() for u in tangents if u.is_floating_point()] == expected
    assert all(u.is_floating_point() or not u.any() for u in tangents)

    _, pullback = vjp(f, M)
    weights = tl.pytree.tree_map(lambda y: None if y is None else y * 0 + 2 if y.is_floating_point() else y, out)
    (product,) = pullback(weights)
    assert float((product * V).sum()) == 2 * sum(np.sum(e) for e in expected)

    found = leaves(jacobian(f)(M))
    assert [j.shape for j in found] == [(*y.shape, 2, 2) for y in outs]
    for j, u in zip(found, tangents, strict=True):
        assert (j * V).sum((-2, -1)).tolist() == u.double().tolist()


def test_cotangents_of_integers_may_be_left_out():
    _, pullback = vjp(lambda x: x.max(1), M)
    ones = tl.ones(2, dtype=tl.float64)
    for cotangent in ((ones, None), [ones, tl.zeros(2, dtype=tl.int64)], (ones, tl.zeros(7))):
        assert pullback(cotangent)[0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert pullback((None, None))[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_nested_derivatives_through_indices():
    second = grad(lambda x: jvp(lambda y: (y**3).max(1), (x,), (V,))[1].values.sum())
    assert second(M).tolist() == [[0.0, 6 * 3.0 * 10.0], [6 * 2.0 * 100.0, 0.0]]


def test_a_dict_may_come_in_any_order():
    p = {"a": t(2.0), "b": t(3.0)}
    f = lambda d: d["a"] ** 2 * d["b"]
    assert jvp(f, (p,), ({"b": t(1.0), "a": t(0.0)},))[1].item() == 4.0
    assert jvp(f, (p,), ({"b": None, "a": t(1.0)},))[1].item() == 12.0
    _, pullback = vjp(lambda x: {"double": 2 * x, "triple": 3 * x}, t(1.0))
    assert pullback({"triple": t(100.0), "double": t(1.0)})[0].item() == 302.0
    for wrong in ({"double": t(1.0), "other": t(1.0)}, (t(1.0), t(1.0))):
        with pytest.raises(tl.ShapeError, match=r"^vjp: expected cotangent of the structure of the output"):
            pullback(wrong)


def test_jacobians_of_several_results_by_several_arguments():
    found = jacobian(lambda a, b: {"product": a * b, "sum": [a.sum()]}, (0, 1))(t(1.0, 2.0), t(3.0))
    assert [[j.tolist() for j in found["product"]], [j.tolist() for j in found["sum"][0]]] == [
        [[[3.0, 0.0], [0.0, 3.0]], [1.0, 2.0]],
        [[1.0, 1.0], 0.0],
    ]


def test_hessians_of_trees_and_of_several_arguments():
    f = lambda a, b: (a**2 * b).sum()
    expected = [[[[6.0, 0.0], [0.0, 6.0]], [2.0, 4.0]], [[2.0, 4.0], 0.0]]
    found = hessian(f, (0, 1))(t(1.0, 2.0), t(3.0))
    assert [[block.tolist() for block in row] for row in found] == expected
    found = hessian(lambda d: f(d["a"], d["b"]))({"a": t(1.0, 2.0), "b": t(3.0)})
    assert [[found[i][j].tolist() for j in "ab"] for i in "ab"] == expected


@pytest.mark.parametrize("dtype", [tl.float32, tl.int64])
def test_a_tangent_of_another_dtype_is_an_error_with_its_name(dtype):
    x = tl.ones(3, dtype=tl.float64)
    for transform, f in ((tl.func.jvp, lambda x: x * x), (tl.func.hvp, lambda x: (x * x).sum())):
        with pytest.raises(tl.DTypeError, match=rf"^{transform.__name__}: expected a tangent of float64.*got one of"):
            transform(f, (x,), (tl.ones(3, dtype=dtype),))
